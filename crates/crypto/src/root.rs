//! The root key: random and kept in a file, or made of a passphrase.

use std::fmt;

use arcadia_kernel::Entropy;
use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::encoding::{b64url, b64url_decode, hex};
use crate::hash::sha256;

pub(crate) const KEY_BYTES: usize = 32;
const SALT_BYTES: usize = 16;
/// Costs of a new root key: 64 MiB and three passes, RFC 9106's second recommendation with one lane.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 1;
/// Costs above these are refused before any work is done: what is stored in the clear may have been written by
/// somebody who wants this process to run out of memory or time.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
const PASSES_MAX: u32 = 64;
const LANES_MAX: u32 = 16;
/// Costs below these are not ours either, and would make guessing cheap.
const MEMORY_KIB_MIN: u32 = 19 * 1024;
/// The shortest passphrase that is accepted for a new root key.
pub const PASSPHRASE_CHARACTERS_MIN: usize = 12;
/// The longest passphrase, in bytes.
pub const PASSPHRASE_BYTES_MAX: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PassphraseFault {
    #[error("a passphrase has at least {PASSPHRASE_CHARACTERS_MIN} characters")]
    TooShort,
    #[error("a passphrase has at most {PASSPHRASE_BYTES_MAX} bytes")]
    TooLong,
    #[error("the costs or the salt stored for the passphrase are not ones that this program writes")]
    Costs,
}

/// The key that wraps data keys; it seals no values itself. Wiped when dropped.
#[derive(Clone)]
pub struct RootKey(Zeroizing<[u8; KEY_BYTES]>);

impl RootKey {
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        entropy.fill(bytes.as_mut_slice());
        Self(bytes)
    }

    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// Takes some tenths of a second and the memory that `costs` say.
    pub fn from_passphrase(passphrase: &str, costs: &PassphraseCosts) -> Result<Self, PassphraseFault> {
        if passphrase.len() > PASSPHRASE_BYTES_MAX {
            return Err(PassphraseFault::TooLong);
        }
        let within = (MEMORY_KIB_MIN..=MEMORY_KIB_MAX).contains(&costs.memory_kib)
            && (1..=PASSES_MAX).contains(&costs.passes)
            && (1..=LANES_MAX).contains(&costs.lanes);
        let salt = b64url_decode(&costs.salt).filter(|salt| within && salt.len() == SALT_BYTES);
        let salt = salt.ok_or(PassphraseFault::Costs)?;
        let params = Params::new(costs.memory_kib, costs.passes, costs.lanes, Some(KEY_BYTES));
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params.map_err(|_| PassphraseFault::Costs)?)
            .hash_password_into(passphrase.as_bytes(), &salt, key.as_mut_slice())
            .map_err(|_| PassphraseFault::Costs)?;
        Ok(Self(key))
    }

    pub fn to_bytes(&self) -> Zeroizing<[u8; KEY_BYTES]> {
        self.0.clone()
    }

    /// Names the key without telling anything of it: 16 hex digits of a digest.
    pub fn id(&self) -> String {
        let digest = sha256(&[b"arcadia root key id v1 ".as_slice(), self.0.as_slice()].concat());
        hex(&digest[..8])
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey(not shown)")
    }
}

/// How a root key is made of a passphrase (argon2id, RFC 9106); stored in the clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PassphraseCosts {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
    salt: String,
}

impl PassphraseCosts {
    /// Today's costs, and a new salt.
    pub fn new(entropy: &dyn Entropy) -> Self {
        let mut salt = [0; SALT_BYTES];
        entropy.fill(&mut salt);
        Self { memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES, salt: b64url(&salt) }
    }
}

/// Whether a passphrase may be chosen.
pub fn check_new_passphrase(passphrase: &str) -> Result<(), PassphraseFault> {
    if passphrase.chars().count() < PASSPHRASE_CHARACTERS_MIN {
        return Err(PassphraseFault::TooShort);
    }
    if passphrase.len() > PASSPHRASE_BYTES_MAX {
        return Err(PassphraseFault::TooLong);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemEntropy;

    #[test]
    fn a_passphrase_and_its_costs_make_one_key() {
        let costs = PassphraseCosts::new(&SystemEntropy);
        let stored = serde_json::to_string(&costs).unwrap();
        let again: PassphraseCosts = serde_json::from_str(&stored).unwrap();
        let key = RootKey::from_passphrase("correct horse battery", &costs).unwrap();
        assert_eq!(
            key.to_bytes(),
            RootKey::from_passphrase("correct horse battery", &again).unwrap().to_bytes()
        );
        assert_eq!(key.id().len(), 16);
        let other = RootKey::from_passphrase("correct horse batterz", &costs).unwrap();
        assert_ne!(key.id(), other.id());
        let salted = RootKey::from_passphrase("correct horse battery", &PassphraseCosts::new(&SystemEntropy));
        assert_ne!(key.id(), salted.unwrap().id());
    }

    #[test]
    fn a_passphrase_costs_what_is_promised() {
        let mut costs = PassphraseCosts::new(&SystemEntropy);
        assert_eq!((costs.memory_kib, costs.passes, costs.lanes), (64 * 1024, 3, 1));
        // As the reference implementation makes it at these costs.
        costs.salt = b64url(&[7; SALT_BYTES]);
        let key = RootKey::from_passphrase("correct horse battery", &costs).unwrap();
        assert_eq!(key.id(), "831f294d5e66a8b0");
    }

    #[test]
    fn costs_outside_the_bounds_are_refused_before_work_is_done() {
        let good = PassphraseCosts::new(&SystemEntropy);
        let with = |change: fn(&mut PassphraseCosts)| {
            let mut costs = good.clone();
            change(&mut costs);
            RootKey::from_passphrase("correct horse battery", &costs).err()
        };
        assert_eq!(with(|costs| costs.memory_kib = u32::MAX), Some(PassphraseFault::Costs));
        assert_eq!(with(|costs| costs.memory_kib = 8), Some(PassphraseFault::Costs));
        assert_eq!(with(|costs| costs.passes = 65), Some(PassphraseFault::Costs));
        assert_eq!(with(|costs| costs.passes = 0), Some(PassphraseFault::Costs));
        assert_eq!(with(|costs| costs.lanes = 17), Some(PassphraseFault::Costs));
        assert_eq!(with(|costs| costs.salt = "short".into()), Some(PassphraseFault::Costs));
        assert_eq!(with(|costs| costs.salt = "!".into()), Some(PassphraseFault::Costs));
        let long = "x".repeat(PASSPHRASE_BYTES_MAX + 1);
        assert_eq!(RootKey::from_passphrase(&long, &good).err(), Some(PassphraseFault::TooLong));
    }

    #[test]
    fn short_passphrases_are_not_chosen() {
        assert_eq!(check_new_passphrase("elevenchars"), Err(PassphraseFault::TooShort));
        assert_eq!(check_new_passphrase("twelve chars"), Ok(()));
        assert_eq!(check_new_passphrase(&"x".repeat(1025)), Err(PassphraseFault::TooLong));
    }
}
