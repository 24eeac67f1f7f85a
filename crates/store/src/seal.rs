//! The seal between what services read and what a backend keeps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};

use arcadia_crypto::{KeyRing, SealFault, SealNonce, Wiped};
use arcadia_kernel::Entropy;

use crate::StoreError;
use crate::key::table_of;
use crate::rows::RowsSum;

/// Nonces are random, so one data key seals no more values than this (NIST SP 800-38D, section 8.3).
pub const SEALS_MAX: u64 = 1 << 32;
/// What a process that was killed may have sealed after its last commit and left in a file.
const SEALS_UNCOUNTED_MAX: u64 = 1 << 16;

/// Where a ring is read again when a value is under a data key that is newer than the ring.
pub(crate) type RingSource = Box<dyn Fn() -> Option<KeyRing> + Send + Sync>;

/// The data keys of a while, and how much the current one has sealed.
pub(crate) struct Keys {
    ring: KeyRing,
    seals: AtomicU64,
}

impl Keys {
    fn new(ring: KeyRing) -> Arc<Self> {
        Arc::new(Self { ring, seals: AtomicU64::new(0) })
    }

    pub fn current_key_id(&self) -> u32 {
        self.ring.current_key_id()
    }

    pub fn key_ids(&self) -> Vec<u32> {
        self.ring.key_ids()
    }

    /// How many values the current data key has sealed, at the most.
    pub fn seals(&self) -> u64 {
        self.seals.load(Ordering::Acquire)
    }
}

/// Seals under the ring. The additional data of a row is its whole key; other things have names that start
/// with NUL, as no key does.
pub(crate) struct Sealer {
    keys: RwLock<Arc<Keys>>,
    /// Rings that were replaced; gone once nothing that they sealed is on its way to the disk.
    past: Mutex<Vec<Weak<Keys>>>,
    source: OnceLock<RingSource>,
    entropy: Arc<dyn Entropy>,
    /// What the rows were when the store was opened, for a head that does not say.
    found_rows: Mutex<Option<RowsSum>>,
}

impl Sealer {
    pub fn new(ring: KeyRing, entropy: Arc<dyn Entropy>) -> Self {
        let keys = RwLock::new(Keys::new(ring));
        Self { keys, past: Mutex::default(), source: OnceLock::new(), entropy, found_rows: Mutex::default() }
    }

    /// Reads the ring again from `source` when a value is under a key that the ring does not have.
    pub fn follow(&self, source: RingSource) {
        let _ = self.source.set(source);
    }

    pub fn entropy(&self) -> &dyn Entropy {
        &*self.entropy
    }

    /// The keys as they are now. Whoever seals with them holds them until the value is written or given up.
    pub fn keys(&self) -> Arc<Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on seals under the current key of `ring`.
    pub fn renew(&self, ring: KeyRing) {
        let new = Keys::new(ring);
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.current_key_id() == new.current_key_id() {
            new.seals.store(keys.seals(), Ordering::Release);
        }
        let old = std::mem::replace(&mut *keys, new);
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.retain(|keys| keys.strong_count() > 0);
        past.push(Arc::downgrade(&old));
    }

    /// Whether everything that was sealed before the last [`Self::renew`] is written or given up.
    pub fn is_settled(&self) -> bool {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.iter().all(|keys| keys.strong_count() == 0)
    }

    /// Goes on counting where the head of the log, sealed under `key_id`, left off.
    pub fn count_from(&self, key_id: u32, seals: u64) {
        let keys = self.keys();
        if keys.current_key_id() == key_id {
            keys.seals.fetch_max(seals.saturating_add(SEALS_UNCOUNTED_MAX), Ordering::AcqRel);
        }
    }

    pub fn found_rows(&self) -> Option<RowsSum> {
        self.found_rows.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_found_rows(&self, rows: RowsSum) {
        *self.found_rows.lock().unwrap_or_else(PoisonError::into_inner) = Some(rows);
    }

    /// To seal about `values` one after the other.
    pub fn sealing(&self, values: usize) -> Sealing<'_> {
        Sealing { sealer: self, keys: self.keys(), nonces: SealNonce::draw_many(values, &*self.entropy) }
    }

    /// `what` names the thing in the error.
    pub fn open(
        &self,
        aad: &[u8],
        sealed: &[u8],
        what: impl FnOnce() -> String,
    ) -> Result<Wiped, StoreError> {
        let mut opened = self.keys().ring.open(aad, sealed);
        if matches!(opened, Err(SealFault::UnknownKey))
            && let Some(ring) = self.source.get().and_then(|source| source())
        {
            self.renew(ring);
            opened = self.keys().ring.open(aad, sealed);
        }
        opened.map_err(|fault| {
            tracing::debug!(%fault, "a sealed value does not open");
            StoreError::NotAuthentic { what: what() }
        })
    }

    pub fn open_row(&self, key: &[u8], sealed: &[u8]) -> Result<Wiped, StoreError> {
        self.open(key, sealed, || format!("a row of table {}", table_of(key)))
    }
}

/// Values that are sealed together, under the same key. Held until they are written or given up.
pub(crate) struct Sealing<'a> {
    sealer: &'a Sealer,
    keys: Arc<Keys>,
    nonces: Vec<SealNonce>,
}

impl Sealing<'_> {
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    pub fn seal(&mut self, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, StoreError> {
        if self.keys.seals.fetch_add(1, Ordering::AcqRel) >= SEALS_MAX {
            return Err(StoreError::KeyUsedUp);
        }
        let nonce = self.nonces.pop().unwrap_or_else(|| SealNonce::draw(&*self.sealer.entropy));
        self.keys
            .ring
            .seal_with(nonce, aad, plaintext)
            .map_err(|fault| StoreError::backend("seal a value", fault))
    }
}

#[cfg(test)]
mod tests {
    use arcadia_crypto::SystemEntropy;

    use super::*;

    fn rings() -> (KeyRing, KeyRing) {
        let old = KeyRing::generate(&SystemEntropy).unwrap();
        let mut new = old.clone();
        new.rotate(&SystemEntropy).unwrap();
        (old, new)
    }

    #[test]
    fn a_key_that_has_sealed_enough_seals_no_more() {
        let (old, new) = rings();
        let sealer = Sealer::new(old, Arc::new(SystemEntropy));
        sealer.count_from(1, SEALS_MAX - SEALS_UNCOUNTED_MAX - 1);
        sealer.count_from(2, 0);
        sealer.sealing(1).seal(b"a", b"the last one").unwrap();
        assert!(matches!(sealer.sealing(1).seal(b"a", b"one more"), Err(StoreError::KeyUsedUp)));
        sealer.renew(new);
        let mut sealing = sealer.sealing(1);
        sealing.seal(b"a", b"under the next key").unwrap();
        sealing.seal(b"a", b"one more than was told before").unwrap();
        assert_eq!(sealer.keys().seals(), 2);
    }

    #[test]
    fn a_ring_is_settled_once_nobody_holds_what_it_sealed() {
        let (old, new) = rings();
        let sealer = Sealer::new(old, Arc::new(SystemEntropy));
        let under_way = sealer.keys();
        sealer.renew(new.clone());
        assert!(!sealer.is_settled());
        sealer.renew(new);
        assert!(!sealer.is_settled());
        drop(under_way);
        assert!(sealer.is_settled());
    }

    #[test]
    fn the_count_survives_a_ring_with_the_same_current_key() {
        let (_, mut ring) = rings();
        let sealer = Sealer::new(ring.clone(), Arc::new(SystemEntropy));
        sealer.count_from(2, 7);
        ring.retire_old_keys();
        sealer.renew(ring);
        assert_eq!(sealer.keys().seals(), 7 + SEALS_UNCOUNTED_MAX);
    }
}
