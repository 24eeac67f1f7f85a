//! One facade over the cryptographic libraries. No I/O happens here.
//!
//! Everything that signs, verifies, seals or issues in Arcadia comes through this crate, so that the rules
//! (key sizes, algorithms pinned per key, constant-time comparison, bounded inputs, keys wiped from memory)
//! are kept in one place. Time is handed in as whole seconds since 1970 or a [`arcadia_kernel::Clock`].

mod chunks;
mod der;
mod encoding;
mod entropy;
#[cfg(test)]
mod fuzz;
mod hash;
pub mod jwt;
mod pem;
mod root;
mod rsa;
mod seal;
mod wiped;
pub mod x509;

pub use chunks::{CHUNK_KEY_BYTES, CHUNK_TAG_BYTES, ChunkKey};
pub use encoding::{b64, b64_decode, b64url, b64url_decode, hex};
pub use entropy::SystemEntropy;
pub use hash::{constant_time_eq, hmac_sha256, sha1, sha256};
pub use jwt::{
    Assertion, AssertionFault, JwtSigner, KeySet, KeySetFault, PeekFault, SignFault, TokenVerifier,
    VerifierFault, peek, verify_assertion,
};
pub use pem::{PemBlock, PemFault, pem_decode, pem_encode, pem_encode_secret};
pub use root::{
    PASSPHRASE_BYTES_MAX, PASSPHRASE_CHARACTERS_MIN, PassphraseCosts, PassphraseFault, RootKey,
    check_new_passphrase,
};
pub use rsa::{KeyFault, RsaBits, RsaKeyPair, RsaPublicKey};
pub use seal::{KeyRing, PLAINTEXT_BYTES_MAX, SEAL_OVERHEAD_BYTES, SealFault, SealNonce, WrappedKey};
pub use x509::{IpSubnet, IssueFault, IssuedLeaf, SiteCa, self_signed, validity_seconds};

/// Re-exported so that callers name the same wiping type these signatures do.
pub use wiped::Wiped;
pub use zeroize::Zeroizing;
