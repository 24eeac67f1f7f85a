//! Time and randomness are handed in, so that a test can hold both still.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use uuid::Uuid;

pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;

    /// Whole seconds since 1970.
    fn epoch_seconds(&self) -> i64 {
        self.now().as_second()
    }
}

/// A clock that moves only when told to; for tests.
pub struct FixedClock(AtomicI64);

impl FixedClock {
    pub fn at_epoch_seconds(seconds: i64) -> Self {
        Self(AtomicI64::new(seconds))
    }

    pub fn advance_seconds(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(Ordering::SeqCst)).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// A source of unpredictable bytes. Implementations must be cryptographically strong and must not fail silently.
pub trait Entropy: Send + Sync + 'static {
    fn fill(&self, buffer: &mut [u8]);
}

pub trait EntropyExt: Entropy {
    /// A random (version 4) UUID.
    fn uuid(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// `bytes` random bytes as unpadded base64url.
    fn token(&self, bytes: usize) -> String {
        use base64::Engine as _;
        let mut buffer = vec![0; bytes];
        self.fill(&mut buffer);
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(buffer)
    }
}

impl<E: Entropy + ?Sized> EntropyExt for E {}
