//! Guessing costs time: attempts are counted per account, per address and for the site, in bounded memory.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arcadia_kernel::Clock;
use tokio::sync::Notify;

const ENTRIES_MAX: usize = 16 * 1024;
const WINDOW_SECONDS: i64 = 60;
/// Device codes handed out in a minute in all. Each is a record of a stranger, beside those that the audit log bounds itself.
const DEVICE_CODES_MAX: u32 = 1200;

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
    const DEVICE_CODES: Self = Self { name: "device-codes", attempts_max: 60 };
}

type Key = [u8; 32];

struct Counter {
    window_start: i64,
    attempts: u32,
    /// Those of them of which it is not known yet whether they were guesses.
    open: u32,
    attempts_max: u32,
}

impl Counter {
    fn is_spent(&self) -> bool {
        self.attempts >= self.attempts_max
    }

    /// Whether it may have room again before its window ends.
    fn is_open(&self) -> bool {
        self.attempts.saturating_sub(self.open) < self.attempts_max
    }
}

#[derive(Default)]
struct Counters {
    by_key: HashMap<Key, Counter>,
    /// Exactly the keys of `by_key`: first those that allow more, then those that are at their limit, each from the
    /// oldest window on.
    order: BTreeSet<(bool, i64, Key)>,
    /// Of which minute, and how many. Not among the others, where a crowd of addresses would take its place.
    device_codes: (i64, u32),
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

    /// Whether one more attempt is allowed now. What cannot be counted is not allowed.
    fn allows(&self, key: &Key, now: i64) -> Result<(), Refused> {
        match self.by_key.get(key) {
            Some(counter) if has_ended(counter.window_start, now) || !counter.is_spent() => Ok(()),
            Some(counter) if counter.is_open() => Err(Refused::ForNow),
            None if self.by_key.len() < ENTRIES_MAX || self.replaceable(now).is_some() => Ok(()),
            _ => Err(Refused::Spent),
        }
    }

    /// Counts an attempt, open; returns the window that it is in.
    fn count(&mut self, key: Key, attempts_max: u32, now: i64) -> i64 {
        let known = self.remove(&key).filter(|counter| !has_ended(counter.window_start, now));
        let mut counter = known.unwrap_or(Counter { window_start: now, attempts: 0, open: 0, attempts_max });
        if self.by_key.len() == ENTRIES_MAX {
            let Some(replaced) = self.replaceable(now) else { return now };
            self.remove(&replaced);
        }
        counter.attempts = counter.attempts.saturating_add(1);
        counter.open = counter.open.saturating_add(1);
        let window_start = counter.window_start;
        self.put(key, counter);
        window_start
    }

    /// The attempt is open no longer, and counts no more if it was no guess.
    fn close(&mut self, key: &Key, window_start: i64, was_guess: bool) {
        let same = |counter: &&Counter| counter.window_start == window_start;
        if self.by_key.get(key).filter(same).is_none() {
            return;
        }
        if let Some(mut counter) = self.remove(key) {
            counter.open = counter.open.saturating_sub(1);
            counter.attempts = counter.attempts.saturating_sub(u32::from(!was_guess));
            self.put(*key, counter);
        }
    }
}

/// Why an attempt is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    Spent,
    /// Among those that count are some that may turn out to be no guesses.
    ForNow,
}

/// Also when it begins later than now: then the clock was set back, and the counter would stay spent until that time.
fn has_ended(window_start: i64, now: i64) -> bool {
    !(0..WINDOW_SECONDS).contains(&(now - window_start))
}

/// The beginning of the minute that a time is in, as the audit log counts the records of strangers.
fn minute(now: i64) -> i64 {
    now - now.rem_euclid(WINDOW_SECONDS)
}

#[derive(Default)]
pub(crate) struct Throttle {
    counters: Mutex<Counters>,
    closed: Notify,
}

/// An attempt that is counted: as a guess, unless it is found to be none.
#[must_use]
pub(crate) struct Attempt<'a> {
    throttle: &'a Throttle,
    counted: Vec<(Key, i64)>,
    was_guess: bool,
}

impl Attempt<'_> {
    /// It was none: what was shown was right.
    pub(crate) fn was_right(mut self) {
        self.was_guess = false;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut counters = self.throttle.counters();
        for (key, window_start) in &self.counted {
            counters.close(key, *window_start, self.was_guess);
        }
        drop(counters);
        self.throttle.closed.notify_waiters();
    }
}

impl Throttle {
    fn counters(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an attempt under each of the subjects, if all of them allow it.
    fn try_begin(
        &self,
        subjects: &[(Allowance, &str)],
        now: i64,
    ) -> Result<Attempt<'_>, (Allowance, Refused)> {
        let keys: Vec<_> = subjects.iter().map(|(allowance, subject)| key(*allowance, subject)).collect();
        let mut counters = self.counters();
        let mut refused = None;
        for ((allowance, _), key) in subjects.iter().zip(&keys) {
            match counters.allows(key, now) {
                Ok(()) => {}
                Err(Refused::Spent) => return Err((*allowance, Refused::Spent)),
                Err(Refused::ForNow) => refused = Some((*allowance, Refused::ForNow)),
            }
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        let count = |((allowance, _), key): (&(Allowance, &str), Key)| {
            (key, counters.count(key, allowance.attempts_max, now))
        };
        let counted = subjects.iter().zip(keys).map(count).collect();
        Ok(Attempt { throttle: self, counted, was_guess: true })
    }

    /// The same. Where only attempts that are looked at stand in the way, waits for what comes of them: right ones at
    /// the same moment are not in each other's way. `Err` names the allowance that ran out.
    pub(crate) async fn begin(
        &self,
        subjects: &[(Allowance, &str)],
        clock: &dyn Clock,
    ) -> Result<Attempt<'_>, Allowance> {
        loop {
            let mut closed = pin!(self.closed.notified());
            closed.as_mut().enable();
            match self.try_begin(subjects, clock.epoch_seconds()) {
                Ok(attempt) => return Ok(attempt),
                Err((allowance, Refused::Spent)) => return Err(allowance),
                Err((_, Refused::ForNow)) => closed.await,
            }
        }
    }

    /// Whether `address` is given one more device code. Counted by the minutes of the audit log, so that what both allow in
    /// a minute adds up.
    pub(crate) fn take_device_code(&self, address: &str, now: i64) -> bool {
        let minute = minute(now);
        if !self.take(&[(Allowance::DEVICE_CODES, &format!("{address} {minute}"))], now) {
            return false;
        }
        let mut counters = self.counters();
        if counters.device_codes.0 != minute {
            counters.device_codes = (minute, 0);
        }
        let count = &mut counters.device_codes.1;
        *count = count.saturating_add(1);
        *count <= DEVICE_CODES_MAX
    }

    /// Counts what is known to count under each of the subjects, if all of them allow it.
    fn take(&self, subjects: &[(Allowance, &str)], now: i64) -> bool {
        self.try_begin(subjects, now).is_ok()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let counters = self.counters();
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

    fn takes(throttle: &Throttle, allowance: Allowance, subject: &str, now: i64) -> bool {
        throttle.take(&[(allowance, subject)], now)
    }

    /// What would be said of one more.
    fn refused(throttle: &Throttle, allowance: Allowance, subject: &str, now: i64) -> Option<Refused> {
        throttle.counters().allows(&key(allowance, subject), now).err()
    }

    const NINA: Allowance = Allowance::ACCOUNT_FROM_ADDRESS;

    #[test]
    fn attempts_run_out_and_come_back() {
        let throttle = Throttle::default();
        for _ in 0..10 {
            assert!(takes(&throttle, NINA, "nina", 1000));
        }
        assert!(!takes(&throttle, NINA, "nina", 1059));
        assert_eq!(refused(&throttle, NINA, "nina", 1059), Some(Refused::Spent));
        assert_eq!(refused(&throttle, NINA, "other", 1059), None);
        assert_eq!(refused(&throttle, Allowance::ACCOUNT, "nina", 1059), None);
        assert_eq!(refused(&throttle, NINA, "nina", 1060), None);
    }

    #[test]
    fn all_subjects_are_counted_or_none() {
        let throttle = Throttle::default();
        for _ in 0..10 {
            assert!(takes(&throttle, NINA, "nina", 1000));
        }
        let both = [(Allowance::ACCOUNT, "nina"), (NINA, "nina")];
        for _ in 0..100 {
            assert!(!throttle.take(&both, 1000));
        }
        assert_eq!(refused(&throttle, Allowance::ACCOUNT, "nina", 1000), None);
    }

    #[test]
    fn open_attempts_may_make_room_and_guesses_do_not() {
        let throttle = Throttle::default();
        let begin = || throttle.try_begin(&[(NINA, "nina")], 1000).ok().unwrap();
        let mut open: Vec<_> = (0..10).map(|_| begin()).collect();
        assert_eq!(refused(&throttle, NINA, "nina", 1000), Some(Refused::ForNow));
        open.pop().unwrap().was_right();
        drop(open.pop());
        open.push(begin());
        assert_eq!(refused(&throttle, NINA, "nina", 1000), Some(Refused::ForNow));
        // Those of another window change nothing in this one.
        drop(throttle.try_begin(&[(NINA, "nina")], 1060).ok().unwrap());
        open.drain(..).for_each(Attempt::was_right);
        for _ in 1..10 {
            assert!(takes(&throttle, NINA, "nina", 1061));
        }
        assert_eq!(refused(&throttle, NINA, "nina", 1061), Some(Refused::Spent));
    }

    #[test]
    fn a_window_of_a_clock_that_was_ahead_has_ended() {
        let throttle = Throttle::default();
        for _ in 0..10 {
            assert!(takes(&throttle, NINA, "nina", 90_000));
        }
        assert!(takes(&throttle, NINA, "nina", 1000));
        assert_eq!(refused(&throttle, NINA, "nina", 1001), None);
    }

    #[test]
    fn memory_is_bounded() {
        let throttle = Throttle::default();
        for n in 0..ENTRIES_MAX + 100 {
            takes(&throttle, Allowance::ADDRESS, &n.to_string(), 0);
        }
        assert_eq!(throttle.len(), ENTRIES_MAX);
    }

    #[test]
    fn a_limit_is_not_washed_out_by_others() {
        let throttle = Throttle::default();
        for _ in 0..10 {
            assert!(takes(&throttle, NINA, "nina", 1000));
        }
        for n in 0..2 * ENTRIES_MAX {
            takes(&throttle, Allowance::ADDRESS, &n.to_string(), 1001);
        }
        assert_eq!(throttle.len(), ENTRIES_MAX);
        assert_eq!(refused(&throttle, NINA, "nina", 1059), Some(Refused::Spent));
        // What has ended goes before what goes on.
        takes(&throttle, Allowance::ADDRESS, "last", 1060);
        assert!(!throttle.counters().by_key.contains_key(&key(NINA, "nina")));
        assert_eq!(refused(&throttle, NINA, "nina", 1060), None);
    }

    /// Nor do they make the site forget how many it gave in all, or another's limit.
    #[test]
    fn device_codes_for_a_crowd_are_bounded_and_wash_nothing_out() {
        let throttle = Throttle::default();
        for n in 0..ENTRIES_MAX {
            takes(&throttle, Allowance::ADDRESS, &n.to_string(), 1000);
        }
        for _ in 0..10 {
            assert!(takes(&throttle, NINA, "nina", 1030));
        }
        let given = (0..5000).filter(|n| throttle.take_device_code(&n.to_string(), 1035)).count();
        assert_eq!(given, 1200);
        assert_eq!(refused(&throttle, NINA, "nina", 1035), Some(Refused::Spent));
        assert!(throttle.take_device_code("another", 1080));
    }

    #[test]
    fn what_cannot_be_counted_is_not_allowed() {
        let throttle = Throttle::default();
        let once = Allowance { name: "once", attempts_max: 1 };
        for n in 0..ENTRIES_MAX {
            assert!(takes(&throttle, once, &n.to_string(), 0));
        }
        assert!(!takes(&throttle, once, "another", 59));
        let another = throttle.try_begin(&[(once, "another")], 60).ok().unwrap();
        assert_eq!(throttle.len(), ENTRIES_MAX);
        another.was_right();
        assert!(takes(&throttle, once, "another", 60));
    }

    #[test]
    fn neighbours_in_a_network_count_as_one() {
        let address = |text: &str| counted_address(Some(text.parse().unwrap()));
        assert_eq!(address("2001:db8:1:2::1"), address("2001:db8:1:2:ffff::9"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
        assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
    }
}
