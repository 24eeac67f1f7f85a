//! Whether this is the time to remove for good what was deleted and may still be recovered.
//!
//! Its time is told by the clock, and nobody gets it back. A clock that is ahead for a moment, and a backup that is
//! restored after some weeks, make all of it due at once. So a site keeps when it was last there; where the clock says
//! much more than has passed since, or where nothing is known, its operator has a day in which it runs.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::site::{DataDir, SiteFault, read_bounded, write_atomic};

/// More than a laptop is off for over a long weekend.
const GAP_SECONDS_MAX: i64 = 4 * 24 * 60 * 60;
const HELD_SECONDS: u64 = 24 * 60 * 60;

/// What is known of a site's time. Not in backups, so that of one that is restored nothing is known.
pub struct Retention {
    file: PathBuf,
    last: Seen,
    /// When that was, by a clock that is never put ahead.
    since: Instant,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    at: Timestamp,
    /// For how long the site has still to run before it removes anything for good.
    held_seconds: u64,
}

impl Retention {
    /// Of the site in `data`; in one that is `new` nothing has been deleted yet.
    pub fn of(data: &DataDir, new: bool, now: Timestamp) -> Self {
        let file = data.path().join("seen.json");
        let known = read_bounded(&file).ok().flatten();
        let known = known.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let unknown = || Seen { at: now, held_seconds: if new { 0 } else { HELD_SECONDS } };
        Self { last: known.unwrap_or_else(unknown), file, since: Instant::now() }
    }

    /// Whether it may be removed. Call it now and then.
    pub fn is_over(&mut self, now: Timestamp) -> bool {
        self.count(now);
        self.last.held_seconds == 0
    }

    /// For how many hours the site has still to run, as of the last count.
    pub fn hours_left(&self) -> u64 {
        self.last.held_seconds.div_ceil(60 * 60)
    }

    /// Keeps that the site ran until now. Also when it ends: what nobody counts it has not run for.
    pub fn count(&mut self, now: Timestamp) {
        let passed = self.since.elapsed();
        self.since += passed;
        self.last = self.last.then(now, passed);
        if let Err(error) = self.save() {
            // What is not known at the next start is the longer time.
            tracing::debug!(%error, "when the site was last there is not kept");
        }
    }

    fn save(&self) -> Result<(), SiteFault> {
        let bytes = serde_json::to_vec(&self.last)
            .map_err(|error| SiteFault::Damaged { path: self.file.clone(), reason: error.to_string() })?;
        write_atomic(&self.file, &bytes, 0o600)
    }
}

impl Seen {
    /// `passed` has passed since, in which the site ran.
    fn then(&self, now: Timestamp, passed: Duration) -> Self {
        let passed = passed.as_secs();
        let gap = now.as_second().saturating_sub(self.at.as_second()).saturating_sub_unsigned(passed);
        // Who is stopped for days again and again gets there, too: a time that has begun does not begin anew.
        let held_seconds = match self.held_seconds {
            0 if gap > GAP_SECONDS_MAX => HELD_SECONDS,
            held => held.saturating_sub(passed),
        };
        Self { at: now, held_seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 60 * 60;
    const DAY: i64 = 24 * HOUR;

    /// A site, its clock, and its runs.
    struct Site {
        data: DataDir,
        now: i64,
        _folder: tempfile::TempDir,
    }

    impl Site {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self { data: DataDir::at(folder.path().to_owned()), now: 1_800_000_000, _folder: folder }
        }

        fn at(&self) -> Timestamp {
            Timestamp::from_second(self.now).unwrap()
        }

        fn start(&self, new: bool) -> Retention {
            Retention::of(&self.data, new, self.at())
        }

        async fn pass(&mut self, seconds: i64) {
            tokio::time::advance(Duration::from_secs(seconds as u64)).await;
            self.now += seconds;
        }

        /// In how many hours of running things are removed; a day is the most that is tried.
        async fn hours_until_over(&mut self, retention: &mut Retention) -> i64 {
            for hours in 0..25 {
                if retention.is_over(self.at()) {
                    return hours;
                }
                self.pass(HOUR).await;
            }
            25
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_site_that_is_there_from_day_to_day_removes_at_once() {
        let mut site = Site::new();
        assert_eq!(site.hours_until_over(&mut site.start(true)).await, 0, "a new one");
        // Off from Friday's evening to Tuesday's morning, too.
        for stopped in [DAY, 88 * HOUR, DAY] {
            site.now += stopped;
            let mut retention = site.start(false);
            assert_eq!(site.hours_until_over(&mut retention).await, 0);
            site.pass(30 * DAY).await;
            assert!(retention.is_over(site.at()), "it ran all the time");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_restored_or_away_for_long_waits_for_a_day_in_which_it_runs() {
        let mut site = Site::new();
        assert_eq!(site.hours_until_over(&mut site.start(false)).await, 24, "nothing is known");
        site.now += 15 * DAY;
        for _ in 0..4 {
            // It is stopped again and again, for longer and for shorter.
            let mut retention = site.start(false);
            for _ in 0..5 {
                assert!(!retention.is_over(site.at()));
                site.pass(HOUR).await;
            }
            assert!(!retention.is_over(site.at()));
            site.now += 3 * DAY;
        }
        assert_eq!(site.hours_until_over(&mut site.start(false)).await, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_ahead_for_a_moment_removes_nothing() {
        let mut site = Site::new();
        let mut retention = site.start(true);
        assert!(retention.is_over(site.at()));
        site.now += 365 * DAY;
        assert!(!retention.is_over(site.at()), "put ahead while it runs");
        site.now -= 365 * DAY;
        assert_eq!(site.hours_until_over(&mut retention).await, 24);
        site.now += 365 * DAY;
        assert!(!site.start(false).is_over(site.at()), "put ahead when it starts");
        std::fs::write(site.data.path().join("seen.json"), "{").unwrap();
        assert!(!site.start(false).is_over(site.at()), "what cannot be read is not known");
    }
}
