//! The site's own keys: what seals its store, and its certificate authority.

use std::path::Path;

use arcadia_crypto::{KeyRing, RootKey, SiteCa, WrappedKey, Zeroizing};
use arcadia_kernel::Entropy;

use super::files::{read_bounded, read_json, write_atomic, write_json};
use super::{DataDir, SiteFault};
use crate::names::SiteNames;
use crate::net::create_authority;

/// The data keys, opened with the root key. Both are made on the first start; a root key that is missing later is
/// an error, because a new one would open nothing.
pub fn load_or_create_ring(data: &DataDir, entropy: &dyn Entropy) -> Result<KeyRing, SiteFault> {
    let (root_file, ring_file) = (data.root_key_file(), data.ring_file());
    let damaged = |path: &Path, reason: String| SiteFault::Damaged { path: path.to_owned(), reason };
    let wrapped: Option<Vec<WrappedKey>> = read_json(&ring_file)?;
    let root = match load_root(&root_file)? {
        Some(root) => root,
        None if wrapped.is_some() => return Err(SiteFault::KeyMissing(root_file)),
        None => {
            let root = RootKey::generate(entropy);
            write_atomic(&root_file, root.to_bytes().as_slice(), 0o600)?;
            root
        }
    };
    match wrapped {
        Some(wrapped) => {
            KeyRing::from_wrapped(&root, &wrapped).map_err(|fault| damaged(&ring_file, fault.to_string()))
        }
        None if data.store_file().exists() => Err(SiteFault::KeyMissing(ring_file)),
        None => {
            let fault = |fault: arcadia_crypto::SealFault| damaged(&ring_file, fault.to_string());
            let ring = KeyRing::generate(entropy).map_err(fault)?;
            write_json(&ring_file, &ring.wrapped(&root, entropy).map_err(fault)?)?;
            Ok(ring)
        }
    }
}

/// The data keys of a site that exists; nothing is made.
pub fn load_ring(data: &DataDir) -> Result<KeyRing, SiteFault> {
    let (root_file, ring_file) = (data.root_key_file(), data.ring_file());
    let wrapped: Vec<WrappedKey> =
        read_json(&ring_file)?.ok_or_else(|| SiteFault::KeyMissing(ring_file.clone()))?;
    let root = load_root(&root_file)?.ok_or(SiteFault::KeyMissing(root_file))?;
    KeyRing::from_wrapped(&root, &wrapped)
        .map_err(|fault| SiteFault::Damaged { path: ring_file, reason: fault.to_string() })
}

/// The root key in a file; `None` when there is no file.
pub fn load_root(path: &Path) -> Result<Option<RootKey>, SiteFault> {
    let Some(bytes) = read_bounded(path)?.map(Zeroizing::new) else { return Ok(None) };
    let bytes: Result<&[u8; 32], _> = bytes.as_slice().try_into();
    let wrong =
        |_| SiteFault::Damaged { path: path.to_owned(), reason: "a root key has 32 bytes".to_owned() };
    bytes.map(|bytes| Some(RootKey::from_bytes(bytes))).map_err(wrong)
}

/// The site's certificate authority, made on the first start.
pub fn load_or_create_authority(
    data: &DataDir,
    names: &SiteNames,
    label: &str,
    now_seconds: i64,
) -> Result<SiteCa, SiteFault> {
    let (certificate_file, key_file) = (data.ca_file(), data.ca_key_file());
    let damaged = |reason: String| SiteFault::Damaged { path: certificate_file.clone(), reason };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|error| damaged(error.to_string()));
    match (read_bounded(&certificate_file)?, read_bounded(&key_file)?) {
        (Some(certificate), Some(key)) => {
            let key = arcadia_crypto::Zeroizing::new(text(key)?);
            SiteCa::from_pem(&text(certificate)?, &key).map_err(|fault| damaged(fault.to_string()))
        }
        (Some(_), None) => Err(SiteFault::KeyMissing(key_file)),
        // A key without its certificate is what a crash during the first start leaves: nobody trusts it yet.
        (None, _) => {
            let ca =
                create_authority(names, label, now_seconds).map_err(|fault| damaged(fault.to_string()))?;
            write_atomic(&key_file, ca.key_pem().as_bytes(), 0o600)?;
            write_atomic(&certificate_file, ca.certificate_pem().as_bytes(), 0o644)?;
            Ok(ca)
        }
    }
}
