//! Secrets and keys of applications and service principals.

use std::ops::RangeInclusive;

use arcadia_crypto::{RsaPublicKey, Zeroizing, b64, b64_decode, pem_decode, sha1, validity_seconds};
use arcadia_kernel::{Entropy, EntropyExt as _, Fault};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::graph::body::Reader;
use crate::graph::faults::{bad_request, invalid_property};
use crate::graph::render::{date, is_date, last_date, object};
use crate::model::{Credentials, KeyCredential, KeyForm, PasswordCredential};
use crate::secret::{SecretHash, hint, new_client_secret};

const SECRET_LIFETIME_SECONDS: i64 = 2 * 365 * 24 * 60 * 60;
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
        if !is_date(end_seconds) {
            return Err(invalid_property("endDateTime"));
        }
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

    pub(super) fn show(&self) -> Map<String, Value> {
        let mut shown = self.credential.show();
        shown.insert("secretText".into(), self.secret.as_str().into());
        shown
    }
}

/// Adds secrets and keys without what they prove: never a secret, never a key.
pub(super) fn add_credentials(shown: &mut Map<String, Value>, credentials: &Credentials) {
    let passwords: Vec<Value> = credentials.passwords.iter().map(|one| one.show().into()).collect();
    let keys: Vec<Value> = credentials.keys.iter().map(|one| one.show().into()).collect();
    shown.insert("passwordCredentials".into(), passwords.into());
    shown.insert("keyCredentials".into(), keys.into());
}

/// A credential that a request may name, and show as it is.
trait Credential {
    fn show(&self) -> Map<String, Value>;
}

impl Credential for PasswordCredential {
    fn show(&self) -> Map<String, Value> {
        object(json!({
            "customKeyIdentifier": null,
            "displayName": self.display_name,
            "endDateTime": date(self.end_seconds),
            "hint": self.hint,
            "keyId": self.key_id,
            "secretText": null,
            "startDateTime": date(self.start_seconds),
        }))
    }
}

impl Credential for KeyCredential {
    fn show(&self) -> Map<String, Value> {
        object(json!({
            "customKeyIdentifier": self.custom_key_identifier,
            "displayName": self.display_name,
            "endDateTime": date(self.end_seconds),
            "key": null,
            "keyId": self.key_id,
            "startDateTime": date(self.start_seconds),
            "type": if self.form == KeyForm::X509 { "AsymmetricX509Cert" } else { "AsymmetricKey" },
            "usage": "Verify",
        }))
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
    keys: Option<Vec<Sent>>,
    /// Those to keep: a secret cannot be set, only kept or dropped.
    passwords: Option<Vec<Sent>>,
}

/// One credential as a request has it.
struct Sent {
    key_id: Option<Uuid>,
    /// All that was sent, as it would be shown.
    properties: Map<String, Value>,
    /// What it would be, if it came with a key.
    new: Option<KeyCredential>,
}

impl SentCredentials {
    pub(super) fn read(reader: &mut Reader, entropy: &dyn Entropy) -> Result<Self, Fault> {
        let keys = reader.objects("keyCredentials")?.map(|keys| {
            if keys.len() > CREDENTIALS_MAX {
                return Err(invalid_property("keyCredentials"));
            }
            keys.into_iter().map(|key| sent_key(key, entropy)).collect::<Result<Vec<_>, _>>()
        });
        let passwords = reader
            .objects("passwordCredentials")?
            .map(|passwords| passwords.into_iter().map(sent_password).collect::<Result<Vec<_>, _>>());
        Ok(Self { keys: keys.transpose()?, passwords: passwords.transpose()? })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_none() && self.passwords.is_none()
    }

    /// The credentials as they are to be.
    pub(super) fn apply(&self, credentials: &Credentials) -> Result<Credentials, Fault> {
        let mut credentials = credentials.clone();
        if let Some(sent) = &self.passwords {
            for one in sent {
                let found = credentials.passwords.iter().find(|found| Some(found.key_id) == one.key_id);
                one.keeps(found.ok_or_else(secrets_are_not_set)?.show())?;
            }
            let is_kept = |id: Uuid| sent.iter().any(|one| one.key_id == Some(id));
            credentials.passwords.retain(|password| is_kept(password.key_id));
        }
        if let Some(sent) = &self.keys {
            let existing = std::mem::take(&mut credentials.keys);
            for one in sent {
                let found = existing.iter().find(|found| Some(found.key_id) == one.key_id);
                let key = match (found, &one.new) {
                    (Some(found), new) => {
                        let mut shown = found.show();
                        if new.is_some() {
                            shown.insert("key".into(), found.der.as_str().into());
                        }
                        one.keeps(shown)?;
                        found
                    }
                    (None, Some(new)) => new,
                    (None, None) => return Err(invalid_property("keyCredentials")),
                };
                if credentials.keys.iter().any(|other| other.key_id == key.key_id) {
                    return Err(invalid_property("keyCredentials"));
                }
                credentials.keys.push(key.clone());
            }
        }
        Ok(credentials)
    }
}

impl Sent {
    /// Nothing of a credential can be changed: what is sent of one that is there is refused unless it is so already.
    fn keeps(&self, shown: Map<String, Value>) -> Result<(), Fault> {
        if self.properties.iter().all(|(name, value)| shown.get(name) == Some(value)) {
            return Ok(());
        }
        let id = self.key_id.unwrap_or_default();
        Err(bad_request(format!("Update to existing credential with KeyId '{id}' is not allowed.")))
    }
}

fn secrets_are_not_set() -> Fault {
    bad_request("Secrets cannot be set, only kept by keyId or removed. Use addPassword to make one.")
}

/// What secrets and keys have in common, taken out of `reader`.
struct Common {
    key_id: Option<Uuid>,
    display_name: Option<String>,
    identifier: Option<String>,
    start_seconds: Option<i64>,
    end_seconds: Option<i64>,
    properties: Map<String, Value>,
}

impl Common {
    fn read(reader: &mut Reader) -> Result<Self, Fault> {
        let mut properties = reader.fields().clone();
        let key_id = reader.uuid("keyId")?;
        let (start_seconds, end_seconds) = (reader.seconds("startDateTime")?, reader.seconds("endDateTime")?);
        let (id, start, end) =
            (key_id.map(|id| id.to_string()), start_seconds.map(date), end_seconds.map(date));
        for (name, shown) in [("keyId", id), ("startDateTime", start), ("endDateTime", end)] {
            properties.extend(shown.map(|shown| (name.to_owned(), shown.into())));
        }
        Ok(Self {
            key_id,
            display_name: display_name(reader)?,
            identifier: reader.text("customKeyIdentifier")?,
            start_seconds,
            end_seconds,
            properties,
        })
    }
}

fn sent_password(mut password: Reader) -> Result<Sent, Fault> {
    let common = Common::read(&mut password)?;
    password.text("hint")?;
    password.text("secretText")?;
    password.finish()?;
    let key_id = common.key_id.ok_or_else(secrets_are_not_set)?;
    Ok(Sent { key_id: Some(key_id), properties: common.properties, new: None })
}

fn sent_key(mut key: Reader, entropy: &dyn Entropy) -> Result<Sent, Fault> {
    let mut common = Common::read(&mut key)?;
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
    let Some(text) = value else {
        return Ok(Sent { key_id: common.key_id, properties: common.properties, new: None });
    };
    let certificate = Certificate::read(&text)?;
    let (start_seconds, end_seconds) = certificate.dates(common.start_seconds, common.end_seconds)?;
    let der = b64(&certificate.der);
    common.properties.insert("key".into(), der.as_str().into());
    let new = KeyCredential {
        key_id: common.key_id.unwrap_or_else(|| entropy.uuid()),
        display_name: common.display_name,
        form: KeyForm::X509,
        custom_key_identifier: Some(common.identifier.unwrap_or_else(|| b64(&sha1(&certificate.der)))),
        der,
        start_seconds,
        end_seconds,
    };
    Ok(Sent { key_id: Some(new.key_id), properties: common.properties, new: Some(new) })
}

struct Certificate {
    der: Vec<u8>,
    /// When it is good itself.
    seconds: RangeInclusive<i64>,
}

impl Certificate {
    /// A certificate in any form that clients send: base64 with line breaks, PEM, or PEM in base64.
    fn read(text: &str) -> Result<Self, Fault> {
        let refused = || {
            bad_request(
                "The key is not a certificate with an RSA key of 2048 bits or more. Send the certificate as base64 \
                 without its PEM lines.",
            )
        };
        let from_pem = |text: &str| {
            let blocks = pem_decode(text).ok()?;
            blocks
                .into_iter()
                .find(|block| block.label.ends_with("CERTIFICATE"))
                .map(|block| block.der.to_vec())
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
        let seconds = validity_seconds(&der).ok_or_else(refused)?;
        Ok(Self { der, seconds })
    }

    /// From when to when a credential with it is good: never when the certificate is not.
    fn dates(&self, start: Option<i64>, end: Option<i64>) -> Result<(i64, i64), Fault> {
        let start_seconds = start.unwrap_or(*self.seconds.start());
        let end_seconds = end.unwrap_or((*self.seconds.end()).min(last_date()));
        if !self.seconds.contains(&start_seconds) {
            return Err(bad_request("Key credential start date is invalid."));
        }
        if !self.seconds.contains(&end_seconds) {
            return Err(bad_request("Key credential end date is invalid."));
        }
        if end_seconds <= start_seconds {
            return Err(bad_request("Key credential end date must be after its start date."));
        }
        Ok((start_seconds, end_seconds))
    }
}
