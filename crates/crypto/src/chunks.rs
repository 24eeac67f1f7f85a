//! Sealing of large objects chunk by chunk, each object under a random key of its own.

use std::fmt;

use arcadia_kernel::Entropy;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::SealFault;

/// Length of a chunk key.
pub const CHUNK_KEY_BYTES: usize = 32;
/// Added to the length of each chunk.
pub const CHUNK_TAG_BYTES: usize = 16;

/// The key of one object, AES-256-GCM (NIST SP 800-38D).
///
/// A chunk's number is its nonce, so under one key each number may be sealed **once**: make a new key for each
/// object, and never seal a chunk of it again. A chunk opens only under its own number; that the last ones are
/// missing is for the caller to see, who keeps the object's length.
pub struct ChunkKey {
    bytes: Zeroizing<[u8; CHUNK_KEY_BYTES]>,
    cipher: LessSafeKey,
}

impl ChunkKey {
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, SealFault> {
        let mut bytes = Zeroizing::new([0; CHUNK_KEY_BYTES]);
        entropy.fill(bytes.as_mut_slice());
        Self::new(bytes)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealFault> {
        let bytes: [u8; CHUNK_KEY_BYTES] = bytes.try_into().map_err(|_| SealFault::Malformed)?;
        Self::new(Zeroizing::new(bytes))
    }

    fn new(bytes: Zeroizing<[u8; CHUNK_KEY_BYTES]>) -> Result<Self, SealFault> {
        let key = UnboundKey::new(&AES_256_GCM, bytes.as_slice()).map_err(|_| SealFault::KeyRing)?;
        Ok(Self { bytes, cipher: LessSafeKey::new(key) })
    }

    /// Only for storing it where it is sealed itself.
    pub fn to_bytes(&self) -> Zeroizing<[u8; CHUNK_KEY_BYTES]> {
        self.bytes.clone()
    }

    /// Seals `chunk` in place and adds its tag.
    pub fn seal(&self, number: u64, chunk: &mut Vec<u8>) -> Result<(), SealFault> {
        self.cipher
            .seal_in_place_append_tag(nonce(number), Aad::empty(), chunk)
            .map_err(|_| SealFault::Authentication)
    }

    /// Opens `chunk` in place and removes its tag.
    pub fn open(&self, number: u64, chunk: &mut Vec<u8>) -> Result<(), SealFault> {
        let length = self
            .cipher
            .open_in_place(nonce(number), Aad::empty(), chunk.as_mut_slice())
            .map_err(|_| SealFault::Authentication)?
            .len();
        chunk.truncate(length);
        Ok(())
    }
}

impl fmt::Debug for ChunkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkKey(not shown)")
    }
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemEntropy;

    #[test]
    fn a_chunk_opens_under_its_own_key_and_number_only() {
        let key = ChunkKey::generate(&SystemEntropy).unwrap();
        let mut sealed = b"value".to_vec();
        key.seal(7, &mut sealed).unwrap();
        assert_eq!(sealed.len(), 5 + CHUNK_TAG_BYTES);
        let again = ChunkKey::from_bytes(key.to_bytes().as_slice()).unwrap();
        let mut opened = sealed.clone();
        again.open(7, &mut opened).unwrap();
        assert_eq!(opened, b"value");
        assert_eq!(key.open(8, &mut sealed.clone()), Err(SealFault::Authentication));
        let other = ChunkKey::generate(&SystemEntropy).unwrap();
        assert_eq!(other.open(7, &mut sealed.clone()), Err(SealFault::Authentication));
        for at in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[at] ^= 1;
            assert_eq!(key.open(7, &mut bent), Err(SealFault::Authentication), "{at}");
        }
        assert_eq!(key.open(7, &mut sealed[..10].to_vec()), Err(SealFault::Authentication));
        assert_eq!(key.open(7, &mut Vec::new()), Err(SealFault::Authentication));
        assert!(ChunkKey::from_bytes(&[0; 31]).is_err());
        assert_eq!(format!("{key:?}"), "ChunkKey(not shown)");
    }
}
