//! Published keys (RFC 7517).

use std::collections::HashMap;

use serde_json::Value;

use super::Algorithm;
use crate::rsa::{KeyFault, RsaPublicKey};

const KEYS_MAX: usize = 64;
const KID_CHARACTERS_MAX: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetFault {
    #[error("a key set is a JSON object with an array `keys`")]
    Malformed,
    #[error("the key set has more than {KEYS_MAX} keys")]
    TooMany,
    #[error("two keys of the set have the same `kid`")]
    DuplicateKid,
    #[error("a key of the set is not usable: {0}")]
    Key(#[from] KeyFault),
}

/// Keys by `kid`, each good for RS256 and nothing else: what a token's header says cannot change how a key is used.
#[derive(Clone, Debug, Default)]
pub struct KeySet(HashMap<String, RsaPublicKey>);

impl KeySet {
    /// Takes the RSA signing keys of a JWKS document. Keys of other types, for encryption, for other algorithms, or
    /// without a `kid` are passed over.
    pub fn from_jwks(document: &Value) -> Result<Self, KeySetFault> {
        let keys = document.get("keys").and_then(Value::as_array).ok_or(KeySetFault::Malformed)?;
        if keys.len() > KEYS_MAX {
            return Err(KeySetFault::TooMany);
        }
        let mut set = Self::default();
        for key in keys {
            let field = |name: &str| key.get(name).and_then(Value::as_str);
            let Some(kid) = field("kid").filter(|kid| kid.len() <= KID_CHARACTERS_MAX) else { continue };
            let is_if_given = |name: &str, only: &str| key.get(name).is_none_or(|value| value == only);
            if field("kty") != Some("RSA") || !is_if_given("use", "sig") || !is_if_given("alg", "RS256") {
                continue;
            }
            let (n, e) = field("n").zip(field("e")).ok_or(KeySetFault::Malformed)?;
            set.insert(kid, RsaPublicKey::from_jwk(n, e)?)?;
        }
        Ok(set)
    }

    /// Adds one key.
    pub fn insert(&mut self, kid: &str, key: RsaPublicKey) -> Result<(), KeySetFault> {
        if self.0.len() == KEYS_MAX {
            return Err(KeySetFault::TooMany);
        }
        match self.0.insert(kid.to_owned(), key) {
            None => Ok(()),
            Some(_) => Err(KeySetFault::DuplicateKid),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The key and the one algorithm it may be used with.
    pub(crate) fn find(&self, kid: &str) -> Option<(&RsaPublicKey, Algorithm)> {
        self.0.get(kid).map(|key| (key, Algorithm::Rs256))
    }
}
