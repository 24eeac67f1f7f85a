//! Backup and restore of one secret with all its versions, as a sealed blob that only this site opens.

use arcadia_crypto::{KeyRing, RootKey, Zeroizing, b64url, b64url_decode};
use arcadia_kernel::{ArmId, At, AuditStamp, Entropy, EntropyExt as _, Fault, Permit, Reply, Request};
use arcadia_store::{Batch, CommitError};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::input::Body;
use super::live::place;
use super::wire::{Writer, reply};
use super::{BackupSecret, RestoreSecret};
use crate::KeyVault;
use crate::faults::{self, bad_parameter};
use crate::records::{BACKUP_KEY, BackupKey, DELETED_SECRETS, SECRETS, Secret, SecretVersion, VERSIONS};
use crate::service::is_object_name;

/// What the backup of a secret starts with: its length as one character, and its name.
const MAGIC: &str = ")AzureKeyVaultSecretBackupV1.microsoft.com";
/// What it started with before, which is that of keys.
const FORMER_MAGIC: &str = "&AzureKeyVaultKeyBackupV1.microsoft.com";
const VERSIONS_MAX: usize = 500;
/// The content of a blob, before it is sealed and twice written in base64.
const CONTENT_BYTES_MAX: usize = 16 * 1024 * 1024;
pub(super) const RESTORE_BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
const KEY_BYTES: usize = 32;
const THE_KEY: &str = "1";

/// The part of the blob that says how the rest is sealed.
#[derive(Serialize, Deserialize)]
struct TokenHead {
    kid: String,
    alg: String,
    enc: String,
}

/// What is sealed.
#[derive(Serialize, Deserialize)]
struct Content {
    kind: String,
    subscription: String,
    name: String,
    latest: String,
    versions: Vec<SecretVersion>,
}

#[derive(Deserialize)]
pub(super) struct RestoreBody {
    value: Option<String>,
}

impl KeyVault {
    /// The key that seals backups. It is made when the first backup is, and is in the store like all else.
    async fn backup_ring(&self, stamp: &AuditStamp, entropy: &dyn Entropy) -> Result<KeyRing, Fault> {
        loop {
            if let Some(row) = self.store.get(BACKUP_KEY, THE_KEY).await? {
                return open_ring(&row.value);
            }
            let root = RootKey::generate(entropy);
            let ring = KeyRing::generate(entropy).map_err(Fault::internal)?;
            let keys = ring.wrapped(&root, entropy).map_err(Fault::internal)?;
            let mut batch = Batch::new();
            batch.require_absent(BACKUP_KEY, THE_KEY);
            batch.put(BACKUP_KEY, THE_KEY, &BackupKey { root: b64url(root.to_bytes().as_slice()), keys })?;
            match self.store.commit(stamp, batch).await {
                Ok(_) => return Ok(ring),
                // Another request made it just now; the next read finds it.
                Err(CommitError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// All versions, in no order that matters.
    async fn every_version(&self, prefix: (uuid::Uuid, uuid::Uuid)) -> Result<Vec<SecretVersion>, Fault> {
        let mut versions: Vec<SecretVersion> = Vec::new();
        let mut after = None;
        loop {
            let page = self.store.range(VERSIONS, &prefix, after.as_ref(), VERSIONS_MAX).await?;
            versions.extend(page.items.into_iter().map(|row| row.value));
            if versions.len() > VERSIONS_MAX {
                return Err(bad_parameter(format!(
                    "The secret has more than the {VERSIONS_MAX} versions that a backup covers."
                )));
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(versions),
            }
        }
    }
}

fn open_ring(stored: &BackupKey) -> Result<KeyRing, Fault> {
    let damaged = || Fault::internal("the stored backup key is damaged; restore the store from a backup");
    let root = Zeroizing::new(b64url_decode(&stored.root).ok_or_else(damaged)?);
    let root: &[u8; KEY_BYTES] = root.as_slice().try_into().map_err(|_| damaged())?;
    KeyRing::from_wrapped(&RootKey::from_bytes(root), &stored.keys).map_err(Fault::internal)
}

fn subscription(vault: &ArmId) -> String {
    vault.subscription().unwrap_or("").to_ascii_lowercase()
}

pub(super) async fn backup(
    at: At<KeyVault>,
    permit: Permit<BackupSecret>,
    request: Request,
) -> Result<Reply, Fault> {
    let name = request.param("name");
    let vault = &at.target.vault;
    let secret = at.secret(vault, name).await?.ok_or_else(|| faults::secret_not_found(name))?.value;
    let versions = at.every_version((vault.properties.instance, secret.key)).await?;
    // A version that was set since the secret was read is in the list, and then it is the list that counts.
    if !versions.iter().any(|version| version.version == secret.latest) {
        return Err(faults::secret_not_found(name));
    }
    let content = Content {
        kind: "secret".to_owned(),
        subscription: subscription(&vault.id),
        name: secret.name,
        latest: secret.latest,
        versions,
    };
    let content = Zeroizing::new(serde_json::to_vec(&content).map_err(Fault::internal)?);
    if content.len() > CONTENT_BYTES_MAX {
        return Err(bad_parameter(format!(
            "The secret's versions have more than the {CONTENT_BYTES_MAX} bytes that a backup covers."
        )));
    }
    let ring = at.backup_ring(permit.stamp(), permit.entropy()).await?;
    let value = sealed(&ring, &content, permit.entropy())?;
    Reply::ok(&json!({ "value": value }))
}

fn sealed(ring: &KeyRing, content: &[u8], entropy: &dyn Entropy) -> Result<String, Fault> {
    let head = TokenHead {
        kid: format!("arcadia-{}", ring.current_key_id()),
        alg: "dir".to_owned(),
        enc: "A256GCM".to_owned(),
    };
    let head = b64url(&serde_json::to_vec(&head).map_err(Fault::internal)?);
    let start = format!("{MAGIC}{head}..");
    let content = ring.seal(start.as_bytes(), content, entropy).map_err(Fault::internal)?;
    Ok(b64url(format!("{start}{}", b64url(&content)).as_bytes()))
}

fn opened(ring: &KeyRing, value: &str) -> Option<Content> {
    let blob = String::from_utf8(b64url_decode(value)?).ok()?;
    let magic = [MAGIC, FORMER_MAGIC].into_iter().find(|magic| blob.starts_with(magic))?;
    let at = blob[magic.len()..].find("..")? + magic.len() + 2;
    let (start, content) = blob.split_at(at);
    let content = ring.open(start.as_bytes(), &b64url_decode(content)?).ok()?;
    let content: Content = serde_json::from_slice(&content).ok()?;
    let sound = content.kind == "secret"
        && is_object_name(&content.name)
        && (1..=VERSIONS_MAX).contains(&content.versions.len());
    sound.then_some(content)
}

/// Brings a secret back with all its versions, under its own name. One commit.
pub(super) async fn restore(
    at: At<KeyVault>,
    permit: Permit<RestoreSecret>,
    input: Body<RestoreBody>,
) -> Result<Reply, Fault> {
    let value = input.value.value.ok_or_else(|| bad_parameter("The request body must have a 'value'."))?;
    let ring = match at.store.get(BACKUP_KEY, THE_KEY).await? {
        Some(row) => open_ring(&row.value)?,
        None => return Err(faults::malformed_backup()),
    };
    let content = opened(&ring, &value).ok_or_else(faults::malformed_backup)?;
    let vault = &at.target.vault;
    if content.subscription != subscription(&vault.id) {
        return Err(bad_parameter(
            "The backup was made in another subscription; a backup is restored in its own only.",
        ));
    }
    let newest = content.versions.iter().find(|version| version.version == content.latest);
    let newest = newest.ok_or_else(faults::malformed_backup)?;
    let place = place(vault, &content.name);
    let secret = Secret {
        name: content.name.clone(),
        key: permit.entropy().uuid(),
        latest: content.latest.clone(),
        facts: newest.facts.clone(),
    };
    let moved = |version| SecretVersion { secret: secret.key, ..version };
    let versions: Vec<SecretVersion> = content.versions.into_iter().map(moved).collect();
    let writer = Writer::new(&at, &at.target);
    let mut attempts = at.store.attempts();
    loop {
        let mut batch = at.change_of(vault).await?;
        let is_taken = at.store.get(SECRETS, &place).await?.is_some()
            || at.store.get(DELETED_SECRETS, &place).await?.is_some();
        if is_taken {
            return Err(faults::restore_conflict(&writer.id(&secret.name, &secret.latest)));
        }
        batch.require_absent(SECRETS, &place);
        batch.require_absent(DELETED_SECRETS, &place);
        batch.put(SECRETS, &place, &secret)?;
        for version in &versions {
            batch.put(VERSIONS, &(place.0, secret.key, version.version.clone()), version)?;
        }
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            return reply(&writer.without_value(&secret, &secret.latest, &secret.facts));
        }
    }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use arcadia_crypto::SystemEntropy;

    use super::*;

    fn sealed_text(ring: &KeyRing, content: &str) -> String {
        sealed(ring, content.as_bytes(), &SystemEntropy).unwrap()
    }

    #[test]
    fn only_sound_content_of_the_same_ring_opens() {
        let ring = KeyRing::generate(&SystemEntropy).unwrap();
        let facts = r#"{"enabled":true,"created":1,"updated":1}"#;
        let id = uuid::Uuid::nil();
        let version = format!(r#"{{"secret":"{id}","version":"v","value":"x","facts":{facts}}}"#);
        let content = |kind: &str, name: &str, versions: &str| {
            format!(
                r#"{{"kind":"{kind}","subscription":"s","name":"{name}","latest":"v","versions":[{versions}]}}"#
            )
        };
        let sound = sealed_text(&ring, &content("secret", "n", &version));
        assert_eq!(opened(&ring, &sound).unwrap().versions.len(), 1);
        assert!(opened(&KeyRing::generate(&SystemEntropy).unwrap(), &sound).is_none());
        for unsound in [
            content("key", "n", &version),
            content("secret", "not_a_name", &version),
            content("secret", "n", ""),
            "{}".to_owned(),
        ] {
            assert!(opened(&ring, &sealed_text(&ring, &unsound)).is_none(), "{unsound}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_blob_is_too_strange(text in ".{0,80}", tail in ".{0,80}") {
            let ring = KeyRing::generate(&SystemEntropy).unwrap();
            proptest::prop_assert!(opened(&ring, &text).is_none());
            let blob = b64url(format!("{MAGIC}{tail}..{text}").as_bytes());
            proptest::prop_assert!(opened(&ring, &blob).is_none());
        }
    }
}
