//! How much local processes may ask.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::Area;
use super::caller::LocalCaller;
use super::reply::Refused;
use crate::HimdsLimits;

/// A user's own part is this part of what all have together.
const SHARE: u32 = 10;
/// Users who have used of their own part within the last second.
const USERS_MAX: usize = 256;

/// One rate for metadata, one for identity: a busy reader of metadata does not keep others from tokens.
pub(crate) struct Limiter {
    metadata: Rate,
    identity: Rate,
}

impl Limiter {
    pub(crate) fn new(limits: &HimdsLimits) -> Self {
        Self {
            metadata: Rate::new(limits.metadata_per_second),
            identity: Rate::new(limits.identity_per_second),
        }
    }

    pub(super) fn check(&self, area: Area, caller: &LocalCaller) -> Result<(), Refused> {
        let rate = match area {
            Area::Identity => &self.identity,
            Area::Metadata | Area::Status => &self.metadata,
        };
        if rate.take(Instant::now(), || caller.user()) { Ok(()) } else { Err(Refused::too_many()) }
    }
}

/// What all users have together and, once that is used up, a part that each has alone: whoever asks without end keeps
/// nobody else out.
struct Rate {
    all: Bucket,
    share_per_second: u32,
    shares: Mutex<HashMap<Option<u32>, Bucket>>,
}

impl Rate {
    fn new(per_second: u32) -> Self {
        let share_per_second = per_second.div_ceil(SHARE);
        Self { all: Bucket::new(per_second), share_per_second, shares: Mutex::default() }
    }

    fn take(&self, now: Instant, user: impl FnOnce() -> Option<u32>) -> bool {
        if self.all.take(now) {
            return true;
        }
        let user = user();
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.len() >= USERS_MAX {
            shares.retain(|_, share| !share.is_full(now));
        }
        if shares.len() >= USERS_MAX && !shares.contains_key(&user) {
            return false;
        }
        shares.entry(user).or_insert_with(|| Bucket::new(self.share_per_second)).take(now)
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
        let left = self.left(*level, now);
        let is_allowed = left >= 1.0;
        *level = Some((now, if is_allowed { left - 1.0 } else { left }));
        is_allowed
    }

    /// As if nobody had taken anything.
    fn is_full(&self, now: Instant) -> bool {
        let level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        self.left(*level, now) >= self.per_second
    }

    fn left(&self, level: Option<(Instant, f64)>, now: Instant) -> f64 {
        let (since, left) = level.unwrap_or((now, self.per_second));
        let gained = now.saturating_duration_since(since).as_secs_f64() * self.per_second;
        (left + gained).min(self.per_second)
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

    #[test]
    fn who_asks_without_end_keeps_nobody_else_out() {
        let rate = Rate::new(100);
        let start = Instant::now();
        let asks = |user: u32, now| (0..1000).filter(|_| rate.take(now, || Some(user))).count();
        assert_eq!(asks(1000, start), 100 + 10);
        assert_eq!(asks(0, start), 10, "another has a part of its own");
        assert_eq!(asks(1000, start), 0);
        assert!(!rate.take(start, || Some(1000)) && rate.take(start, || None));
        let later = start + Duration::from_secs(1);
        assert_eq!(asks(1000, later), 100 + 10);
        assert_eq!(asks(0, later), 10);
    }

    #[test]
    fn each_has_a_part_as_the_user_that_asks() {
        let limiter = Limiter::new(&HimdsLimits { identity_per_second: 1, ..HimdsLimits::default() });
        let asks = |user| limiter.check(Area::Identity, &LocalCaller::known(user)).is_ok();
        while asks(1000) {}
        assert!(asks(0));
    }

    #[test]
    fn users_are_kept_while_they_matter() {
        let rate = Rate::new(10);
        let start = Instant::now();
        (0..10).for_each(|_| assert!(rate.all.take(start)));
        let users = USERS_MAX as u32;
        assert_eq!((0..users + 9).filter(|user| rate.take(start, || Some(*user))).count(), USERS_MAX);
        let later = start + Duration::from_secs(1);
        (0..10).for_each(|_| assert!(rate.all.take(later)));
        assert!(rate.take(later, || Some(users + 9)));
        assert_eq!(rate.shares.lock().unwrap().len(), 1);
    }
}
