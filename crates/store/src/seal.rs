//! The seal between what services read and what a backend keeps.

use std::sync::Arc;

use arcadia_crypto::KeyRing;
use arcadia_kernel::Entropy;
use zeroize::Zeroizing;

use crate::StoreError;
use crate::key::table_of;

/// Seals under the ring. The additional data of a row is its whole key; other things have names that start
/// with NUL, as no key does.
pub(crate) struct Sealer {
    ring: KeyRing,
    entropy: Arc<dyn Entropy>,
}

impl Sealer {
    pub fn new(ring: KeyRing, entropy: Arc<dyn Entropy>) -> Self {
        Self { ring, entropy }
    }

    pub fn seal(&self, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.ring
            .seal(aad, plaintext, &*self.entropy)
            .map_err(|fault| StoreError::backend("seal a value", fault))
    }

    /// `what` names the thing in the error.
    pub fn open(
        &self,
        aad: &[u8],
        sealed: &[u8],
        what: impl FnOnce() -> String,
    ) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        self.ring.open(aad, sealed).map_err(|fault| {
            tracing::debug!(%fault, "a sealed value does not open");
            StoreError::NotAuthentic { what: what() }
        })
    }

    pub fn open_row(&self, key: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        self.open(key, sealed, || format!("a row of table {}", table_of(key)))
    }
}
