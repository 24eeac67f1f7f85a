//! What a soak found, in figures.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::faults::Victim;
use super::journal::Counts;
use crate::output::say;

/// Fewer tries may all come to nothing: whom a kill is for may be starting just then.
const KILLS_MIN: u64 = 3;
/// A writer has less than a second a round, and some write slowly.
const ROUNDS_MIN: u64 = 10;

/// Of some durations, in milliseconds.
#[derive(Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    pub count: usize,
    pub median_milliseconds: u128,
    pub worst_milliseconds: u128,
}

impl Spread {
    pub fn of(found: &[Duration]) -> Self {
        let mut sorted: Vec<u128> = found.iter().map(Duration::as_millis).collect();
        sorted.sort_unstable();
        Self {
            count: sorted.len(),
            median_milliseconds: sorted.get(sorted.len() / 2).copied().unwrap_or_default(),
            worst_milliseconds: sorted.last().copied().unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, median_milliseconds, worst_milliseconds } = self;
        write!(formatter, "median {median_milliseconds} ms, worst {worst_milliseconds} ms, of {count}")
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub seed: u64,
    pub rounds: u64,
    pub passed: u64,
    pub failed: u64,
    pub planned: BTreeMap<Victim, u64>,
    pub kills: BTreeMap<Victim, u64>,
    pub writers: BTreeMap<String, Counts>,
    pub up: Spread,
    pub token: Spread,
    pub audit_records: u64,
    pub seconds: u64,
}

impl Report {
    /// What the soak is there for and did not do: a kill that hits nobody and a writer that writes nothing show nothing.
    pub fn undone(&self) -> Vec<String> {
        let unhit = self.planned.iter().filter(|(victim, planned)| {
            **planned >= KILLS_MIN && self.kills.get(victim).is_none_or(|struck| *struck == 0)
        });
        let unhit =
            unhit.map(|(victim, planned)| format!("{victim}: to be killed {planned} times, and never found"));
        let silent = self.writers.iter().filter(|(_, counts)| counts.acknowledged == 0);
        let silent = silent.map(|(name, _)| format!("{name}: nothing was acknowledged"));
        unhit.chain(silent.filter(|_| self.rounds >= ROUNDS_MIN)).collect()
    }

    pub fn show(&self) {
        say("");
        let kills: Vec<String> =
            self.kills.iter().map(|(victim, count)| format!("{victim} {count}")).collect();
        say(format_args!("kill -9          {}", kills.join(", ")));
        say(format_args!("up again         {}", self.up));
        if self.token.count > 0 {
            say(format_args!("machine's token  {}", self.token));
        }
        say(format_args!("audit records    {}, unbroken after every round", self.audit_records));
        say(format_args!(
            "{:<30} {:>12} {:>9} {:>14} {:>9}",
            "writer", "acknowledged", "in doubt", "of them made", "verified"
        ));
        for (name, counts) in &self.writers {
            let Counts { acknowledged, in_doubt, in_doubt_and_made, verified } = counts;
            say(format_args!(
                "{name:<30} {acknowledged:>12} {in_doubt:>9} {in_doubt_and_made:>14} {verified:>9}"
            ));
        }
        say(format_args!("{} rounds in {} s, seed {}", self.rounds, self.seconds, self.seed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_that_hit_nobody_and_writers_that_write_nothing_are_told() {
        let wrote = Counts { acknowledged: 1, ..Counts::default() };
        let mut report = Report {
            seed: 1,
            rounds: 10,
            passed: 10,
            failed: 0,
            planned: [(Victim::Site, 3), (Victim::Agent, 3), (Victim::Machine, 2)].into(),
            kills: BTreeMap::new(),
            writers: [("a".to_owned(), wrote), ("b".to_owned(), Counts::default())].into(),
            up: Spread::default(),
            token: Spread::default(),
            audit_records: 1,
            seconds: 1,
        };
        let undone = report.undone();
        assert_eq!(undone.len(), 3, "{undone:?}");
        assert!(undone[0].starts_with("site: ") && undone[1].starts_with("agent: "), "{undone:?}");
        assert!(undone[2].starts_with("b: "), "{undone:?}");
        report.kills = [(Victim::Site, 1), (Victim::Agent, 1)].into();
        report.writers.insert("b".to_owned(), wrote);
        assert_eq!(report.undone(), Vec::<String>::new());
        report.rounds = 9;
        report.writers.insert("b".to_owned(), Counts::default());
        assert_eq!(report.undone(), Vec::<String>::new(), "nine rounds may be over too soon");
    }

    #[test]
    fn spreads() {
        let found: Vec<Duration> = [5, 1, 9].map(Duration::from_millis).to_vec();
        assert_eq!(Spread::of(&found).to_string(), "median 5 ms, worst 9 ms, of 3");
        assert_eq!(Spread::of(&[]).to_string(), "median 0 ms, worst 0 ms, of 0");
    }
}
