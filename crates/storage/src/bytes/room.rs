//! Room on the disk: what uploads may use, so that enough is left for the database.

use std::sync::{Arc, MutexGuard, PoisonError};

use arcadia_store::{RESERVE_BYTES, free_bytes};

use super::{ByteStore, BytesFault};

/// What an upload has announced and not written yet. It counts for whoever comes later too: the bytes of many that
/// come at once are not on the disk when the first of them is let in.
pub(super) struct Room {
    bytes: Arc<ByteStore>,
    left: u64,
}

impl ByteStore {
    /// What all uploads have announced and not written yet.
    fn announced(&self) -> MutexGuard<'_, u64> {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self, bytes: u64) -> Result<(), BytesFault> {
        let needed = bytes.saturating_add(RESERVE_BYTES);
        let free =
            free_bytes(self.files.root()).map_err(|error| BytesFault::io("ask for free space", error))?;
        if free < needed { Err(BytesFault::Full) } else { Ok(()) }
    }
}

impl Room {
    /// Refuses what would use the reserve.
    pub fn new(bytes: &Arc<ByteStore>, announced: u64) -> Result<Self, BytesFault> {
        // Held until it is counted: of two for which there is room for one, one is let in.
        let mut all = bytes.announced();
        let needed = all.saturating_add(announced);
        bytes.has_room(needed)?;
        *all = needed;
        drop(all);
        Ok(Self { bytes: bytes.clone(), left: announced })
    }

    /// Whether all of so many bytes were announced, and so were let in.
    pub fn covers(&self, bytes: u64) -> bool {
        bytes <= self.left
    }

    /// Whether so many bytes can be written now: less may be free than was. What was not announced leaves room for
    /// what others have announced.
    pub fn check(&self, bytes: u64) -> Result<(), BytesFault> {
        let others = if self.covers(bytes) { 0 } else { self.bytes.announced().saturating_sub(self.left) };
        self.bytes.has_room(bytes.saturating_add(others))
    }

    /// They are on the disk and not free any more.
    pub fn written(&mut self, bytes: u64) {
        let announced = bytes.min(self.left);
        self.left -= announced;
        *self.bytes.announced() -= announced;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        *self.bytes.announced() -= self.left;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arcadia_crypto::SystemEntropy;
    use arcadia_kernel::FixedClock;
    use arcadia_store::Store;

    use super::*;
    use crate::bytes::{CHUNK_BYTES, PACKED_BYTES_MAX};

    async fn opened(folder: &tempfile::TempDir) -> Arc<ByteStore> {
        let store = Store::in_memory(Arc::new(FixedClock::at_epoch_seconds(0)), Arc::new(SystemEntropy));
        ByteStore::open(folder.path(), store, Arc::new(SystemEntropy)).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_announced_counts_until_it_is_written_or_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = opened(&folder).await;
        // Either of two fits, and both do not.
        let much = (free_bytes(bytes.files.root()).unwrap() - RESERVE_BYTES) / 5 * 3;
        let first = bytes.upload(much).unwrap();
        assert!(matches!(bytes.upload(much), Err(BytesFault::Full)));
        drop(first);
        drop(bytes.upload(much).unwrap());

        let length = 2 * CHUNK_BYTES + 10;
        let upload = bytes.upload(length as u64).unwrap().write(&vec![1; 2 * CHUNK_BYTES]).await.unwrap();
        assert_eq!(*bytes.announced(), 10);
        let stored = upload.write(&[1; 100]).await.unwrap().finish().await.unwrap();
        assert_eq!(*bytes.announced(), 0);
        assert_eq!(stored.length, length as u64 + 90);
    }

    #[tokio::test]
    async fn what_is_not_announced_is_refused_when_it_comes() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = opened(&folder).await;
        for length in [10, CHUNK_BYTES] {
            let upload = bytes.upload(0).unwrap();
            let others = u64::MAX / 2;
            *bytes.announced() += others;
            let refused = async { upload.write(&vec![1; length]).await?.finish().await };
            assert!(matches!(refused.await, Err(BytesFault::Full)), "{length}");
            *bytes.announced() -= others;
        }
    }

    #[tokio::test]
    async fn what_was_let_in_is_not_cut_off_for_what_others_announce() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = opened(&folder).await;
        for length in [10, PACKED_BYTES_MAX + 1, CHUNK_BYTES] {
            let upload = bytes.upload(length as u64).unwrap();
            let others = u64::MAX / 2;
            *bytes.announced() += others;
            let stored = upload.write(&vec![1; length]).await.unwrap().finish().await.unwrap();
            assert_eq!(stored.length, length as u64);
            *bytes.announced() -= others;
        }
    }

    #[tokio::test]
    async fn of_two_that_come_together_one_is_let_in() {
        const ROUNDS: usize = 2000;
        let folder = tempfile::tempdir().unwrap();
        let bytes = opened(&folder).await;
        let much = (free_bytes(bytes.files.root()).unwrap() - RESERVE_BYTES) / 5 * 3;
        let (arrived, let_in) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let meet = |count| {
            arrived.fetch_add(1, Ordering::AcqRel);
            while arrived.load(Ordering::Acquire) < count {
                std::thread::yield_now();
            }
        };
        let come = || {
            for round in 1..=ROUNDS {
                meet(4 * round - 2);
                let room = Room::new(&bytes, much);
                let_in.fetch_add(usize::from(room.is_ok()), Ordering::AcqRel);
                meet(4 * round);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(come);
            scope.spawn(come);
        });
        assert_eq!(let_in.into_inner(), ROUNDS);
    }
}
