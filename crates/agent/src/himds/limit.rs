//! How much local processes may ask.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::Area;
use super::reply::Refused;
use crate::HimdsLimits;

/// One bucket for metadata, one for identity: a busy reader of metadata does not keep others from tokens.
pub(crate) struct Limiter {
    metadata: Bucket,
    identity: Bucket,
}

impl Limiter {
    pub(crate) fn new(limits: &HimdsLimits) -> Self {
        Self {
            metadata: Bucket::new(limits.metadata_per_second),
            identity: Bucket::new(limits.identity_per_second),
        }
    }

    pub(super) fn check(&self, area: Area) -> Result<(), Refused> {
        let bucket = match area {
            Area::Identity => &self.identity,
            Area::Metadata | Area::Status => &self.metadata,
        };
        if bucket.take(Instant::now()) { Ok(()) } else { Err(Refused::too_many()) }
    }
}

struct Bucket {
    per_second: f64,
    level: Mutex<Option<(Instant, f64)>>,
}

impl Bucket {
    fn new(per_second: u32) -> Self {
        Self { per_second: f64::from(per_second.max(1)), level: Mutex::new(None) }
    }

    fn take(&self, now: Instant) -> bool {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, left) = level.unwrap_or((now, self.per_second));
        let gained = now.saturating_duration_since(since).as_secs_f64() * self.per_second;
        let left = (left + gained).min(self.per_second);
        let is_allowed = left >= 1.0;
        *level = Some((now, if is_allowed { left - 1.0 } else { left }));
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_second_s_worth_at_once_and_then_the_rate() {
        let bucket = Bucket::new(10);
        let start = Instant::now();
        assert_eq!((0..20).filter(|_| bucket.take(start)).count(), 10);
        let later = start + Duration::from_millis(250);
        assert_eq!((0..20).filter(|_| bucket.take(later)).count(), 2);
        let much_later = start + Duration::from_secs(3600);
        assert_eq!((0..20).filter(|_| bucket.take(much_later)).count(), 10);
    }
}
