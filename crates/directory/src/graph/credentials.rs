//! Secrets and keys of applications and service principals.

use arcadia_crypto::{RsaPublicKey, Zeroizing, b64, b64_decode, pem_decode, sha1};
use arcadia_kernel::{Entropy, EntropyExt as _, Fault};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::graph::body::Reader;
use crate::graph::faults::{bad_request, invalid_property};
use crate::graph::render::date;
use crate::model::{Credentials, KeyCredential, KeyForm, PasswordCredential};
use crate::secret::{SecretHash, hint, new_client_secret};

const YEAR_SECONDS: i64 = 365 * 24 * 60 * 60;
const SECRET_LIFETIME_SECONDS: i64 = 2 * YEAR_SECONDS;
const KEY_LIFETIME_SECONDS: i64 = YEAR_SECONDS;
/// Secrets, and keys, of one object; every secret is tried when one is shown.
const CREDENTIALS_MAX: usize = 32;
const DISPLAY_NAME_CHARACTERS_MAX: usize = 120;
const KEY_CHARACTERS_MAX: usize = 64 * 1024;

/// A new secret; the only time it is shown.
pub(super) struct NewSecret {
    pub credential: PasswordCredential,
    secret: Zeroizing<String>,
}

impl NewSecret {
    /// Reads `{"passwordCredential": {"displayName", "startDateTime", "endDateTime"}}`.
    pub(super) fn read(mut reader: Reader, now: i64, entropy: &dyn Entropy) -> Result<Self, Fault> {
        let mut asked =
            reader.object("passwordCredential")?.unwrap_or_else(|| Reader::new(Default::default()));
        reader.finish()?;
        let display_name = display_name(&mut asked)?;
        let start_seconds = asked.seconds("startDateTime")?.unwrap_or(now);
        let end_seconds = asked.seconds("endDateTime")?.unwrap_or(start_seconds + SECRET_LIFETIME_SECONDS);
        asked.finish()?;
        if end_seconds <= start_seconds || end_seconds <= now {
            return Err(bad_request(
                "The end of the credential's validity must be in the future, after its start.",
            ));
        }
        let secret = new_client_secret(entropy);
        let credential = PasswordCredential {
            key_id: entropy.uuid(),
            display_name,
            hint: hint(&secret),
            hash: SecretHash::of(&secret, entropy),
            start_seconds,
            end_seconds,
        };
        Ok(Self { credential, secret })
    }

    pub(super) fn show(&self) -> Value {
        json!({
            "customKeyIdentifier": null,
            "displayName": self.credential.display_name,
            "endDateTime": date(self.credential.end_seconds),
            "hint": self.credential.hint,
            "keyId": self.credential.key_id,
            "secretText": self.secret.as_str(),
            "startDateTime": date(self.credential.start_seconds),
        })
    }
}

fn display_name(reader: &mut Reader) -> Result<Option<String>, Fault> {
    let name = reader.text("displayName")?;
    match name {
        Some(name) if name.chars().count() > DISPLAY_NAME_CHARACTERS_MAX => {
            Err(invalid_property("displayName"))
        }
        other => Ok(other),
    }
}

/// The credentials with one more secret.
pub(super) fn with_secret(
    credentials: &Credentials,
    credential: &PasswordCredential,
) -> Result<Credentials, Fault> {
    if credentials.passwords.len() >= CREDENTIALS_MAX {
        let message = format!(
            "An application can have at most {CREDENTIALS_MAX} secrets. Remove one that is not used."
        );
        return Err(bad_request(message));
    }
    let mut credentials = credentials.clone();
    credentials.passwords.push(credential.clone());
    Ok(credentials)
}

/// The credentials without the secret `key_id`.
pub(super) fn without_secret(credentials: &Credentials, key_id: Uuid) -> Result<Credentials, Fault> {
    let mut credentials = credentials.clone();
    let before = credentials.passwords.len();
    credentials.passwords.retain(|password| password.key_id != key_id);
    if credentials.passwords.len() == before {
        return Err(bad_request(format!("No password credential found with keyId '{key_id}'.")));
    }
    Ok(credentials)
}

/// What a PATCH or create says of both lists.
pub(super) struct SentCredentials {
    keys: Option<Vec<SentKey>>,
    /// The ids of the secrets to keep: a secret cannot be set, only kept or dropped.
    passwords: Option<Vec<Uuid>>,
}

struct SentKey {
    key_id: Option<Uuid>,
    /// `None` for a key that is there already.
    new: Option<KeyCredential>,
}

impl SentCredentials {
    pub(super) fn read(reader: &mut Reader, now: i64, entropy: &dyn Entropy) -> Result<Self, Fault> {
        let keys = reader.objects("keyCredentials")?.map(|keys| {
            if keys.len() > CREDENTIALS_MAX {
                return Err(invalid_property("keyCredentials"));
            }
            keys.into_iter().map(|key| sent_key(key, now, entropy)).collect::<Result<Vec<_>, _>>()
        });
        let passwords = reader.objects("passwordCredentials")?.map(|passwords| {
            let kept = |mut password: Reader| {
                let refused = || {
                    bad_request(
                        "Secrets cannot be set, only kept by keyId or removed. Use addPassword to make one.",
                    )
                };
                password.uuid("keyId")?.ok_or_else(refused)
            };
            passwords.into_iter().map(kept).collect::<Result<Vec<_>, _>>()
        });
        Ok(Self { keys: keys.transpose()?, passwords: passwords.transpose()? })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_none() && self.passwords.is_none()
    }

    /// The credentials as they are to be.
    pub(super) fn apply(&self, credentials: &Credentials) -> Result<Credentials, Fault> {
        let mut credentials = credentials.clone();
        if let Some(kept) = &self.passwords {
            let known = |id: &Uuid| credentials.passwords.iter().any(|password| password.key_id == *id);
            if !kept.iter().all(known) {
                return Err(bad_request(
                    "Secrets cannot be set, only kept by keyId or removed. Use addPassword to make one.",
                ));
            }
            credentials.passwords.retain(|password| kept.contains(&password.key_id));
        }
        if let Some(sent) = &self.keys {
            let existing = std::mem::take(&mut credentials.keys);
            for key in sent {
                let found = existing.iter().find(|existing| Some(existing.key_id) == key.key_id);
                let kept = key.new.as_ref().or(found).ok_or_else(|| invalid_property("keyCredentials"))?;
                credentials.keys.push(kept.clone());
            }
        }
        Ok(credentials)
    }
}

fn sent_key(mut key: Reader, now: i64, entropy: &dyn Entropy) -> Result<SentKey, Fault> {
    let key_id = key.uuid("keyId")?;
    let display_name = display_name(&mut key)?;
    let identifier = key.text("customKeyIdentifier")?;
    let start_seconds = key.seconds("startDateTime")?.unwrap_or(now);
    let end_seconds = key.seconds("endDateTime")?.unwrap_or(start_seconds + KEY_LIFETIME_SECONDS);
    let kind = key.text("type")?;
    let usage = key.text("usage")?;
    let value = match key.take("key") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.len() <= KEY_CHARACTERS_MAX => Some(text),
        Some(_) => return Err(invalid_property("key")),
    };
    key.finish()?;
    if kind.is_some_and(|kind| kind != "AsymmetricX509Cert") {
        return Err(bad_request("Only keys of type 'AsymmetricX509Cert' can be registered."));
    }
    if usage.is_some_and(|usage| usage != "Verify") {
        return Err(bad_request("Only keys with usage 'Verify' can be registered."));
    }
    let Some(text) = value else { return Ok(SentKey { key_id, new: None }) };
    if end_seconds <= start_seconds {
        return Err(bad_request("Key credential end date must be after its start date."));
    }
    let der = certificate(&text)?;
    let new = KeyCredential {
        key_id: key_id.unwrap_or_else(|| entropy.uuid()),
        display_name,
        form: KeyForm::X509,
        custom_key_identifier: Some(identifier.unwrap_or_else(|| b64(&sha1(&der)))),
        der: b64(&der),
        start_seconds,
        end_seconds,
    };
    Ok(SentKey { key_id: Some(new.key_id), new: Some(new) })
}

/// A certificate in any form that clients send: base64 with line breaks, PEM, or PEM in base64.
fn certificate(text: &str) -> Result<Vec<u8>, Fault> {
    let refused = || {
        bad_request(
            "The key is not a certificate with an RSA key of 2048 bits or more. Send the certificate as base64 \
             without its PEM lines.",
        )
    };
    let from_pem = |text: &str| {
        let blocks = pem_decode(text).ok()?;
        blocks.into_iter().find(|block| block.label.ends_with("CERTIFICATE")).map(|block| block.der.to_vec())
    };
    let der = if text.contains("-----BEGIN ") {
        from_pem(text)
    } else {
        let bytes = b64_decode(text).ok_or_else(refused)?;
        match std::str::from_utf8(&bytes) {
            Ok(inner) if inner.contains("-----BEGIN ") => from_pem(inner),
            _ => Some(bytes),
        }
    };
    let der = der.ok_or_else(refused)?;
    RsaPublicKey::from_x509_der(&der).map_err(|_| refused())?;
    Ok(der)
}
