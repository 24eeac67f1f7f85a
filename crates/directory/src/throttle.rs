//! Guessing costs time: attempts are counted per account, per address and for the site, in bounded memory.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

const ENTRIES_MAX: usize = 16 * 1024;
const WINDOW_SECONDS: i64 = 60;

/// What is counted, and how often it may happen in a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    name: &'static str,
    attempts_max: u32,
}

impl Allowance {
    /// Wrong passwords or secrets for one account from one address.
    pub(crate) const ACCOUNT_FROM_ADDRESS: Self = Self { name: "account-address", attempts_max: 10 };
    /// Wrong passwords or secrets for one account from anywhere.
    pub(crate) const ACCOUNT: Self = Self { name: "account", attempts_max: 50 };
    /// Wrong passwords, secrets or user codes from one address.
    pub(crate) const ADDRESS: Self = Self { name: "address", attempts_max: 300 };
    /// Wrong user codes from one address.
    pub(crate) const USER_CODE: Self = Self { name: "user-code", attempts_max: 20 };
    /// Device codes handed out to one address; each is kept for a quarter of an hour.
    pub(crate) const DEVICE_CODES: Self = Self { name: "device-codes", attempts_max: 60 };
    /// Device codes handed out in all.
    pub(crate) const DEVICE_CODES_ALL: Self = Self { name: "device-codes-all", attempts_max: 1200 };
}

type Key = [u8; 32];

struct Counter {
    window_start: i64,
    attempts: u32,
    attempts_max: u32,
}

impl Counter {
    fn is_spent(&self) -> bool {
        self.attempts >= self.attempts_max
    }
}

#[derive(Default)]
struct Counters {
    by_key: HashMap<Key, Counter>,
    /// Exactly the keys of `by_key`: first those that allow more, then those that are at their limit, each from the
    /// oldest window on.
    order: BTreeSet<(bool, i64, Key)>,
}

impl Counters {
    /// For a key that is not there.
    fn put(&mut self, key: Key, counter: Counter) {
        self.order.insert((counter.is_spent(), counter.window_start, key));
        self.by_key.insert(key, counter);
    }

    fn remove(&mut self, key: &Key) -> Option<Counter> {
        let counter = self.by_key.remove(key)?;
        self.order.remove(&(counter.is_spent(), counter.window_start, *key));
        Some(counter)
    }

    /// Whose place a new counter takes: one at its limit only when its window has ended, or whoever makes up many
    /// subjects could go on guessing.
    fn replaceable(&self, now: i64) -> Option<Key> {
        let (open, spent) = (self.order.first(), self.order.range((true, i64::MIN, Key::default())..).next());
        let ended = spent.filter(|(_, start, _)| has_ended(*start, now));
        ended.or(open.filter(|(is_spent, ..)| !is_spent)).map(|(.., key)| *key)
    }

    fn has_room(&self, now: i64) -> bool {
        self.by_key.len() < ENTRIES_MAX || self.replaceable(now).is_some()
    }
}

/// Also when it begins later than now: then the clock was set back, and the counter would stay spent until that time.
fn has_ended(window_start: i64, now: i64) -> bool {
    !(0..WINDOW_SECONDS).contains(&(now - window_start))
}

#[derive(Default)]
pub(crate) struct Throttle(Mutex<Counters>);

impl Throttle {
    /// Whether one more attempt is allowed now. What cannot be counted is not allowed.
    pub(crate) fn allows(&self, allowance: Allowance, subject: &str, now: i64) -> bool {
        let counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counters.by_key.get(&key(allowance, subject)) {
            Some(counter) => has_ended(counter.window_start, now) || !counter.is_spent(),
            None => counters.has_room(now),
        }
    }

    /// Counts an attempt.
    pub(crate) fn count(&self, allowance: Allowance, subject: &str, now: i64) {
        let key = key(allowance, subject);
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = counters.remove(&key).filter(|counter| !has_ended(counter.window_start, now));
        if counters.by_key.len() == ENTRIES_MAX {
            let Some(replaced) = counters.replaceable(now) else { return };
            counters.remove(&replaced);
        }
        let (window_start, attempts) = known.map_or((now, 0), |known| (known.window_start, known.attempts));
        let attempts_max = allowance.attempts_max;
        counters.put(key, Counter { window_start, attempts: attempts.saturating_add(1), attempts_max });
    }

    /// Counts an attempt if it is allowed.
    pub(crate) fn take(&self, allowance: Allowance, subject: &str, now: i64) -> bool {
        let allowed = self.allows(allowance, subject, now);
        if allowed {
            self.count(allowance, subject, now);
        }
        allowed
    }

    /// Takes back an attempt that turned out not to be a guess.
    pub(crate) fn refund(&self, allowance: Allowance, subject: &str) {
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(allowance, subject);
        if let Some(counter) = counters.remove(&key) {
            counters.put(key, Counter { attempts: counter.attempts.saturating_sub(1), ..counter });
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let counters = self.0.lock().unwrap();
        assert_eq!(counters.by_key.len(), counters.order.len());
        counters.order.len()
    }
}

fn key(allowance: Allowance, subject: &str) -> Key {
    arcadia_crypto::sha256(format!("{}\0{subject}", allowance.name).as_bytes())
}

/// The address as it is counted, in words.
pub(crate) fn counted_address(remote: Option<IpAddr>) -> String {
    remote.map_or_else(|| "unknown".to_owned(), |remote| arcadia_kernel::counted_address(remote).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_run_out_and_come_back() {
        let throttle = Throttle::default();
        for _ in 0..10 {
            assert!(throttle.take(Allowance::ACCOUNT_FROM_ADDRESS, "nina", 1000));
        }
        assert!(!throttle.allows(Allowance::ACCOUNT_FROM_ADDRESS, "nina", 1059));
        assert!(throttle.allows(Allowance::ACCOUNT_FROM_ADDRESS, "other", 1059));
        assert!(throttle.allows(Allowance::ACCOUNT, "nina", 1059));
        assert!(throttle.allows(Allowance::ACCOUNT_FROM_ADDRESS, "nina", 1060));
    }

    #[test]
    fn a_window_of_a_clock_that_was_ahead_has_ended() {
        let throttle = Throttle::default();
        for _ in 0..10 {
            assert!(throttle.take(Allowance::ACCOUNT_FROM_ADDRESS, "nina", 90_000));
        }
        assert!(throttle.take(Allowance::ACCOUNT_FROM_ADDRESS, "nina", 1000));
        assert!(throttle.allows(Allowance::ACCOUNT_FROM_ADDRESS, "nina", 1001));
    }

    #[test]
    fn memory_is_bounded() {
        let throttle = Throttle::default();
        for n in 0..ENTRIES_MAX + 100 {
            throttle.count(Allowance::ADDRESS, &n.to_string(), 0);
        }
        assert_eq!(throttle.len(), ENTRIES_MAX);
    }

    #[test]
    fn a_limit_is_not_washed_out_by_others() {
        let throttle = Throttle::default();
        for _ in 0..10 {
            assert!(throttle.take(Allowance::ACCOUNT_FROM_ADDRESS, "nina", 1000));
        }
        for n in 0..2 * ENTRIES_MAX {
            throttle.count(Allowance::ADDRESS, &n.to_string(), 1001);
        }
        assert_eq!(throttle.len(), ENTRIES_MAX);
        assert!(!throttle.allows(Allowance::ACCOUNT_FROM_ADDRESS, "nina", 1059));
        // What has ended goes before what goes on.
        throttle.count(Allowance::ADDRESS, "last", 1060);
        let nina = key(Allowance::ACCOUNT_FROM_ADDRESS, "nina");
        assert!(!throttle.0.lock().unwrap().by_key.contains_key(&nina));
        assert!(throttle.allows(Allowance::ACCOUNT_FROM_ADDRESS, "nina", 1060));
    }

    #[test]
    fn what_cannot_be_counted_is_not_allowed() {
        let throttle = Throttle::default();
        let once = Allowance { name: "once", attempts_max: 1 };
        for n in 0..ENTRIES_MAX {
            assert!(throttle.take(once, &n.to_string(), 0));
        }
        assert!(!throttle.take(once, "another", 59));
        assert!(throttle.take(once, "another", 60));
        assert_eq!(throttle.len(), ENTRIES_MAX);
        throttle.refund(once, "another");
        assert!(throttle.take(once, "another", 60));
    }

    #[test]
    fn neighbours_in_a_network_count_as_one() {
        let address = |text: &str| counted_address(Some(text.parse().unwrap()));
        assert_eq!(address("2001:db8:1:2::1"), address("2001:db8:1:2:ffff::9"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
        assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
    }
}
