//! Envelope encryption: values are sealed with data keys, data keys are wrapped by one root key.
//!
//! A sealed value is `version (1) | data key id (4, big endian) | nonce (12, random) | ciphertext | tag (16)`,
//! AES-256-GCM (NIST SP 800-38D). Version and key id are authenticated together with the caller's additional data,
//! so a value that is moved to another place, or whose key id is changed, does not open.
//!
//! Nonces are random and 96 bits long: one data key may seal at most 2^32 values before the chance of a repeated
//! nonce passes 2^-32. [`KeyRing::rotate`] adds a new current data key long before that; old values still open.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arcadia_kernel::Entropy;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::encoding::{b64url, b64url_decode};
use crate::root::{KEY_BYTES, RootKey};
use crate::wiped::Wiped;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 5;
const TAG_BYTES: usize = 16;
/// Added to the length of a plaintext by [`KeyRing::seal`].
pub const SEAL_OVERHEAD_BYTES: usize = HEADER_BYTES + NONCE_LEN + TAG_BYTES;
/// Longest plaintext that is sealed in one piece.
pub const PLAINTEXT_BYTES_MAX: usize = 64 << 20;
const DATA_KEYS_MAX: usize = 4096;
const HANDOVER_DATA: &[u8] = b"arcadia root key v1";

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealFault {
    #[error("the sealed value is not in a form this version reads")]
    Malformed,
    #[error("the sealed value names a data key that is not in the key ring")]
    UnknownKey,
    #[error("the sealed value does not open: it was changed, moved, or sealed under another key")]
    Authentication,
    #[error("the root key does not open the wrapped data keys; use the root key this site was made with")]
    WrongRootKey,
    #[error("the key ring is empty, has a key twice, or has more than {DATA_KEYS_MAX} keys")]
    KeyRing,
    #[error("the value is longer than {PLAINTEXT_BYTES_MAX} bytes")]
    TooLong,
}

/// A data key as it is stored: `{"keyId":1,"wrapped":"<base64url of nonce | ciphertext | tag>"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WrappedKey {
    pub key_id: u32,
    pub wrapped: String,
}

struct DataKey {
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    /// The expanded key schedule, so that a value costs no key set-up.
    cipher: LessSafeKey,
}

impl DataKey {
    fn new(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Result<Self, SealFault> {
        let cipher = cipher(&bytes)?;
        Ok(Self { bytes, cipher })
    }
}

/// What one value is sealed with besides the key; used up by it. Not secret, but never to be met twice.
pub struct SealNonce([u8; NONCE_LEN]);

impl SealNonce {
    pub fn draw(entropy: &dyn Entropy) -> Self {
        let mut nonce = [0; NONCE_LEN];
        entropy.fill(&mut nonce);
        Self(nonce)
    }

    /// For values that are sealed one after the other: one call of the generator costs as much as the sealing of
    /// several. Drawn when they are needed and dropped with what is left, so that nothing waits that a copy of the
    /// process or its machine could use as well.
    pub fn draw_many(count: usize, entropy: &dyn Entropy) -> Vec<Self> {
        let mut nonces = vec![[0; NONCE_LEN]; count];
        entropy.fill(nonces.as_flattened_mut());
        nonces.into_iter().map(Self).collect()
    }
}

/// The data keys, ready for use. The one with the highest id seals; all of them open. Clones share the keys.
#[derive(Clone)]
pub struct KeyRing {
    keys: BTreeMap<u32, Arc<DataKey>>,
    current: u32,
}

impl KeyRing {
    /// A ring with one new data key. Store [`KeyRing::wrapped`] before the first value is sealed.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, SealFault> {
        let key = DataKey::new(random_key(entropy))?;
        Ok(Self { keys: BTreeMap::from([(1, Arc::new(key))]), current: 1 })
    }

    pub fn from_wrapped(root: &RootKey, wrapped: &[WrappedKey]) -> Result<Self, SealFault> {
        if wrapped.len() > DATA_KEYS_MAX {
            return Err(SealFault::KeyRing);
        }
        let root = cipher(root.bytes())?;
        let mut keys = BTreeMap::new();
        for entry in wrapped {
            let key = DataKey::new(unwrap_key(&root, entry)?)?;
            if keys.insert(entry.key_id, Arc::new(key)).is_some() {
                return Err(SealFault::KeyRing);
            }
        }
        let current = *keys.keys().next_back().ok_or(SealFault::KeyRing)?;
        Ok(Self { keys, current })
    }

    /// Every data key wrapped by `root`, which may be a new root key.
    pub fn wrapped(&self, root: &RootKey, entropy: &dyn Entropy) -> Result<Vec<WrappedKey>, SealFault> {
        let root = cipher(root.bytes())?;
        let wrap = |(key_id, key): (&u32, &Arc<DataKey>)| {
            let mut out = Vec::with_capacity(NONCE_LEN + KEY_BYTES + TAG_BYTES);
            let nonce = SealNonce::draw(entropy);
            seal_onto(&mut out, &root, &wrapping_data(*key_id), key.bytes.as_slice(), nonce)?;
            Ok(WrappedKey { key_id: *key_id, wrapped: b64url(&out) })
        };
        self.keys.iter().map(wrap).collect()
    }

    /// Adds a data key and makes it the current one; returns its id. Store [`KeyRing::wrapped`] before sealing.
    pub fn rotate(&mut self, entropy: &dyn Entropy) -> Result<u32, SealFault> {
        let next = self.current.checked_add(1).ok_or(SealFault::KeyRing)?;
        if self.keys.len() >= DATA_KEYS_MAX {
            return Err(SealFault::KeyRing);
        }
        self.keys.insert(next, Arc::new(DataKey::new(random_key(entropy))?));
        self.current = next;
        Ok(next)
    }

    /// Removes every data key but the current one. What is still sealed under them opens no more.
    pub fn retire_old_keys(&mut self) {
        let current = self.current;
        self.keys.retain(|key_id, _| *key_id == current);
    }

    /// The id of the data key that seals.
    pub fn current_key_id(&self) -> u32 {
        self.current
    }

    /// The ids of all data keys, ascending.
    pub fn key_ids(&self) -> Vec<u32> {
        self.keys.keys().copied().collect()
    }

    /// The id of the data key that `sealed` says it is under.
    pub fn key_id_of(sealed: &[u8]) -> Option<u32> {
        match sealed.first_chunk::<HEADER_BYTES>() {
            Some([VERSION, id @ ..]) => Some(u32::from_be_bytes(*id)),
            _ => None,
        }
    }

    /// Seals `plaintext` under the current data key, bound to `aad`; [`SEAL_OVERHEAD_BYTES`] longer.
    pub fn seal(&self, aad: &[u8], plaintext: &[u8], entropy: &dyn Entropy) -> Result<Vec<u8>, SealFault> {
        self.seal_with(SealNonce::draw(entropy), aad, plaintext)
    }

    /// As [`KeyRing::seal`], with a nonce that was drawn before.
    pub fn seal_with(&self, nonce: SealNonce, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealFault> {
        if plaintext.len() > PLAINTEXT_BYTES_MAX {
            return Err(SealFault::TooLong);
        }
        let key = self.keys.get(&self.current).ok_or(SealFault::UnknownKey)?;
        let header = header(self.current);
        let mut out = Vec::with_capacity(plaintext.len() + SEAL_OVERHEAD_BYTES);
        out.extend_from_slice(&header);
        seal_onto(&mut out, &key.cipher, &[&header, aad].concat(), plaintext, nonce)?;
        Ok(out)
    }

    /// Opens what [`KeyRing::seal`] made with the same `aad`.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Wiped, SealFault> {
        if sealed.len() > PLAINTEXT_BYTES_MAX + SEAL_OVERHEAD_BYTES {
            return Err(SealFault::TooLong);
        }
        let (header, rest) = sealed.split_first_chunk::<HEADER_BYTES>().ok_or(SealFault::Malformed)?;
        let [version, id @ ..] = *header;
        if version != VERSION {
            return Err(SealFault::Malformed);
        }
        let key = self.keys.get(&u32::from_be_bytes(id)).ok_or(SealFault::UnknownKey)?;
        open_from(&key.cipher, &[header, aad].concat(), rest)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys, current {})", self.keys.len(), self.current)
    }
}

fn header(key_id: u32) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = key_id.to_be_bytes();
    [VERSION, a, b, c, d]
}

impl RootKey {
    /// Seals this root key under another one, for whoever holds that one.
    pub fn sealed_under(&self, holder: &RootKey, entropy: &dyn Entropy) -> Result<String, SealFault> {
        let mut out = Vec::new();
        let nonce = SealNonce::draw(entropy);
        seal_onto(&mut out, &cipher(holder.bytes())?, HANDOVER_DATA, self.bytes(), nonce)?;
        Ok(b64url(&out))
    }

    /// Opens what [`RootKey::sealed_under`] made for this root key.
    pub fn open_sealed(&self, sealed: &str) -> Result<RootKey, SealFault> {
        let bytes = b64url_decode(sealed).ok_or(SealFault::Malformed)?;
        let opened = open_from(&cipher(self.bytes())?, HANDOVER_DATA, &bytes)?;
        let key: &[u8; KEY_BYTES] = opened.as_slice().try_into().map_err(|_| SealFault::Malformed)?;
        Ok(RootKey::from_bytes(key))
    }
}

/// Binds a wrapped key to its id, so that two stored keys cannot be exchanged for one another.
fn wrapping_data(key_id: u32) -> Vec<u8> {
    [b"arcadia data key v1 ".as_slice(), &key_id.to_be_bytes()].concat()
}

fn unwrap_key(root: &LessSafeKey, entry: &WrappedKey) -> Result<Zeroizing<[u8; KEY_BYTES]>, SealFault> {
    let bytes = b64url_decode(&entry.wrapped).ok_or(SealFault::Malformed)?;
    let opened =
        open_from(root, &wrapping_data(entry.key_id), &bytes).map_err(|_| SealFault::WrongRootKey)?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    if opened.len() != KEY_BYTES {
        return Err(SealFault::Malformed);
    }
    key.copy_from_slice(&opened);
    Ok(key)
}

fn random_key(entropy: &dyn Entropy) -> Zeroizing<[u8; KEY_BYTES]> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    entropy.fill(bytes.as_mut_slice());
    bytes
}

fn cipher(key: &[u8; KEY_BYTES]) -> Result<LessSafeKey, SealFault> {
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(|_| SealFault::KeyRing)
}

/// Appends `nonce | ciphertext | tag`.
fn seal_onto(
    out: &mut Vec<u8>,
    key: &LessSafeKey,
    aad: &[u8],
    plaintext: &[u8],
    SealNonce(nonce): SealNonce,
) -> Result<(), SealFault> {
    out.extend_from_slice(&nonce);
    let start = out.len();
    out.extend_from_slice(plaintext);
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut out[start..])
        .map_err(|_| SealFault::Authentication)?;
    out.extend_from_slice(tag.as_ref());
    Ok(())
}

fn open_from(key: &LessSafeKey, aad: &[u8], sealed: &[u8]) -> Result<Wiped, SealFault> {
    let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(SealFault::Malformed)?;
    if ciphertext.len() < TAG_BYTES {
        return Err(SealFault::Malformed);
    }
    let mut buffer = Wiped::from(ciphertext.to_vec());
    let length = key
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), buffer.as_mut_slice())
        .map_err(|_| SealFault::Authentication)?
        .len();
    buffer.truncate(length);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemEntropy;

    fn ring() -> KeyRing {
        KeyRing::generate(&SystemEntropy).unwrap()
    }

    #[test]
    fn a_sealed_value_opens_only_in_its_place() {
        let ring = ring();
        let sealed = ring.seal(b"secrets/a", b"value", &SystemEntropy).unwrap();
        assert_eq!(sealed.len(), 5 + SEAL_OVERHEAD_BYTES);
        assert_eq!(ring.open(b"secrets/a", &sealed).unwrap().as_slice(), b"value");
        assert_eq!(ring.open(b"secrets/b", &sealed).err(), Some(SealFault::Authentication));
    }

    #[test]
    fn the_same_value_twice_looks_different() {
        let ring = ring();
        let seal = || ring.seal(b"", b"value", &SystemEntropy).unwrap();
        assert_ne!(seal(), seal());
    }

    #[test]
    fn nonces_that_are_drawn_together_are_all_of_the_generator_and_each_used_once() {
        struct Counting(std::sync::atomic::AtomicU8);
        impl Entropy for Counting {
            fn fill(&self, buffer: &mut [u8]) {
                let next = || self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                buffer.iter_mut().for_each(|byte| *byte = next());
            }
        }
        let ring = ring();
        let nonces = SealNonce::draw_many(3, &Counting(0.into()));
        let seal = |nonce| ring.seal_with(nonce, b"k", b"v").unwrap();
        let sealed: Vec<_> = nonces.into_iter().map(seal).collect();
        let used: Vec<u8> = sealed.iter().flat_map(|sealed| sealed[5..17].to_vec()).collect();
        assert_eq!(used, (0..36).collect::<Vec<u8>>());
        sealed.iter().for_each(|sealed| assert_eq!(*ring.open(b"k", sealed).unwrap(), b"v"));
        assert_eq!(SealNonce::draw_many(0, &SystemEntropy).len(), 0);
    }

    #[test]
    fn rotation_keeps_old_values_and_survives_storage() {
        let root = RootKey::generate(&SystemEntropy);
        let mut ring = ring();
        let old = ring.seal(b"k", b"old", &SystemEntropy).unwrap();
        assert_eq!(ring.rotate(&SystemEntropy), Ok(2));
        let new = ring.seal(b"k", b"new", &SystemEntropy).unwrap();
        let stored = serde_json::to_string(&ring.wrapped(&root, &SystemEntropy).unwrap()).unwrap();
        let loaded: Vec<WrappedKey> = serde_json::from_str(&stored).unwrap();
        let again = KeyRing::from_wrapped(&RootKey::from_bytes(&root.to_bytes()), &loaded).unwrap();
        assert_eq!(again.current_key_id(), 2);
        assert_eq!(again.open(b"k", &old).unwrap().as_slice(), b"old");
        assert_eq!(again.open(b"k", &new).unwrap().as_slice(), b"new");
        assert_eq!(new[1..5], [0, 0, 0, 2]);
    }

    #[test]
    fn a_changed_key_id_does_not_open() {
        let mut ring = ring();
        ring.rotate(&SystemEntropy).unwrap();
        let mut sealed = ring.seal(b"k", b"v", &SystemEntropy).unwrap();
        sealed[4] = 1;
        assert_eq!(ring.open(b"k", &sealed).err(), Some(SealFault::Authentication));
        sealed[4] = 9;
        assert_eq!(ring.open(b"k", &sealed).err(), Some(SealFault::UnknownKey));
        sealed[0] = 2;
        assert_eq!(ring.open(b"k", &sealed).err(), Some(SealFault::Malformed));
    }

    #[test]
    fn another_root_key_or_exchanged_data_keys_are_refused() {
        let root = RootKey::generate(&SystemEntropy);
        let mut ring = ring();
        ring.rotate(&SystemEntropy).unwrap();
        let mut wrapped = ring.wrapped(&root, &SystemEntropy).unwrap();
        let other = RootKey::generate(&SystemEntropy);
        assert_eq!(KeyRing::from_wrapped(&other, &wrapped).err(), Some(SealFault::WrongRootKey));
        let first = wrapped[0].wrapped.clone();
        wrapped[0].wrapped = std::mem::replace(&mut wrapped[1].wrapped, first);
        assert_eq!(KeyRing::from_wrapped(&root, &wrapped).err(), Some(SealFault::WrongRootKey));
        assert_eq!(KeyRing::from_wrapped(&root, &[]).err(), Some(SealFault::KeyRing));
    }

    #[test]
    fn the_same_key_twice_is_refused() {
        let root = RootKey::generate(&SystemEntropy);
        let wrapped = ring().wrapped(&root, &SystemEntropy).unwrap();
        let twice = [wrapped[0].clone(), wrapped[0].clone()];
        assert_eq!(KeyRing::from_wrapped(&root, &twice).err(), Some(SealFault::KeyRing));
    }

    #[test]
    fn old_keys_leave_and_what_they_sealed_no_longer_opens() {
        let mut ring = ring();
        let old = ring.seal(b"k", b"old", &SystemEntropy).unwrap();
        let before = ring.clone();
        ring.rotate(&SystemEntropy).unwrap();
        assert_eq!((ring.key_ids(), before.key_ids()), (vec![1, 2], vec![1]), "clones are apart");
        ring.retire_old_keys();
        assert_eq!((ring.key_ids(), ring.current_key_id()), (vec![2], 2));
        assert_eq!(ring.open(b"k", &old).err(), Some(SealFault::UnknownKey));
        assert_eq!(before.open(b"k", &old).unwrap().as_slice(), b"old");
        assert_eq!(KeyRing::key_id_of(&old), Some(1));
        assert_eq!(KeyRing::key_id_of(&old[..4]), None);
        assert_eq!(KeyRing::key_id_of(b"\x02\0\0\0\x01"), None);
        assert_eq!(ring.rotate(&SystemEntropy), Ok(3), "no id is used twice");
    }

    #[test]
    fn a_root_key_is_handed_to_the_holder_of_another_one() {
        let (old, new) = (RootKey::generate(&SystemEntropy), RootKey::generate(&SystemEntropy));
        let sealed = new.sealed_under(&old, &SystemEntropy).unwrap();
        assert_eq!(old.open_sealed(&sealed).unwrap().id(), new.id());
        assert_eq!(new.open_sealed(&sealed).err(), Some(SealFault::Authentication));
        assert_eq!(old.open_sealed("!").err(), Some(SealFault::Malformed));
        let wrapped = ring().wrapped(&old, &SystemEntropy).unwrap();
        assert!(old.open_sealed(&wrapped[0].wrapped).is_err(), "a data key is not a root key");
    }

    #[test]
    fn nothing_secret_is_shown() {
        let root = RootKey::from_bytes(&[0xab; 32]);
        assert_eq!(format!("{root:?} {:?}", ring()), "RootKey(not shown) KeyRing(1 keys, current 1)");
    }
}
