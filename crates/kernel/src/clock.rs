//! Time and randomness are handed in, so that a test can hold both still.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use uuid::Uuid;

pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;

    /// Whole seconds since 1970.
    fn epoch_seconds(&self) -> i64 {
        self.now().as_second()
    }

    /// How long this program has been running, from any one moment on: a clock that is put ahead does not count, nor does
    /// a machine that sleeps.
    fn awake(&self) -> Duration {
        static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
        BEGAN.elapsed()
    }
}

/// A clock that moves only when told to; for tests.
pub struct FixedClock {
    now: AtomicI64,
    slept: AtomicI64,
}

impl FixedClock {
    pub fn at_epoch_seconds(seconds: i64) -> Self {
        Self { now: AtomicI64::new(seconds), slept: AtomicI64::new(0) }
    }

    pub fn advance_seconds(&self, seconds: i64) {
        self.now.fetch_add(seconds, Ordering::SeqCst);
    }

    /// As when the machine was suspended for so long.
    pub fn sleep_seconds(&self, seconds: i64) {
        self.slept.fetch_add(seconds, Ordering::SeqCst);
        self.advance_seconds(seconds);
    }
}

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.now.load(Ordering::SeqCst)).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    fn awake(&self) -> Duration {
        let awake = self.now.load(Ordering::SeqCst) - self.slept.load(Ordering::SeqCst);
        Duration::from_secs(u64::try_from(awake).unwrap_or(0))
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
