//! Room on the disk: what uploads may use, so that enough is left for the database.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{ByteStore, BytesFault};

/// Space that is left free on the disk, for the database and its log.
const RESERVE_BYTES: u64 = 64 * 1024 * 1024;

/// What an upload has announced and not written yet. It counts for every other upload too: the bytes of many that
/// come at once are not on the disk when the first of them is let in.
pub(super) struct Room {
    bytes: Arc<ByteStore>,
    left: u64,
}

impl Room {
    /// Refuses what would use the reserve.
    pub fn new(bytes: &Arc<ByteStore>, announced: u64) -> Result<Self, BytesFault> {
        bytes.announced.fetch_add(announced, Ordering::AcqRel);
        let room = Self { bytes: bytes.clone(), left: announced };
        room.check(0)?;
        Ok(room)
    }

    /// Whether so many bytes can be written now: less may be free than was, and not all is announced.
    pub fn check(&self, bytes: u64) -> Result<(), BytesFault> {
        let announced = self.bytes.announced.load(Ordering::Acquire);
        let needed = announced.saturating_add(bytes.saturating_sub(self.left)).saturating_add(RESERVE_BYTES);
        if self.bytes.files.free_bytes()? < needed { Err(BytesFault::Full) } else { Ok(()) }
    }

    /// They are on the disk and not free any more.
    pub fn written(&mut self, bytes: u64) {
        let announced = bytes.min(self.left);
        self.left -= announced;
        self.bytes.announced.fetch_sub(announced, Ordering::AcqRel);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.bytes.announced.fetch_sub(self.left, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use arcadia_crypto::SystemEntropy;
    use arcadia_kernel::FixedClock;
    use arcadia_store::Store;

    use super::*;
    use crate::bytes::CHUNK_BYTES;

    fn opened(folder: &tempfile::TempDir) -> Arc<ByteStore> {
        let store = Store::in_memory(Arc::new(FixedClock::at_epoch_seconds(0)), Arc::new(SystemEntropy));
        ByteStore::open(folder.path(), store, Arc::new(SystemEntropy)).unwrap()
    }

    #[tokio::test]
    async fn what_is_announced_counts_until_it_is_written_or_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = opened(&folder);
        // Either of two fits, and both do not.
        let much = (bytes.files.free_bytes().unwrap() - RESERVE_BYTES) / 5 * 3;
        let first = bytes.upload(much).unwrap();
        assert!(matches!(bytes.upload(much), Err(BytesFault::Full)));
        drop(first);
        drop(bytes.upload(much).unwrap());

        let length = 2 * CHUNK_BYTES + 10;
        let upload = bytes.upload(length as u64).unwrap().write(&vec![1; 2 * CHUNK_BYTES]).await.unwrap();
        assert_eq!(bytes.announced.load(Ordering::Acquire), 10);
        let stored = upload.write(&[1; 100]).await.unwrap().finish().await.unwrap();
        assert_eq!(bytes.announced.load(Ordering::Acquire), 0);
        assert_eq!(stored.length, length as u64 + 90);
    }

    #[tokio::test]
    async fn what_is_not_announced_is_refused_when_it_comes() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = opened(&folder);
        for length in [10, CHUNK_BYTES] {
            let upload = bytes.upload(0).unwrap();
            let others = u64::MAX / 2;
            bytes.announced.fetch_add(others, Ordering::AcqRel);
            let refused = async { upload.write(&vec![1; length]).await?.finish().await };
            assert!(matches!(refused.await, Err(BytesFault::Full)), "{length}");
            bytes.announced.fetch_sub(others, Ordering::AcqRel);
        }
    }
}
