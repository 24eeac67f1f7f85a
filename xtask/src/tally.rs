//! Counting what passed and failed.

use std::fmt;
use std::ops::AddAssign;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
}

impl Tally {
    pub const fn one(passed: bool) -> Self {
        if passed { Self { passed: 1, failed: 0 } } else { Self { passed: 0, failed: 1 } }
    }

    /// The sum of `test result: ok. 3 passed; 0 failed; ...` lines of `cargo test`, and of `3 passed, 0 failed`
    /// and `30 of 36 steps` lines of our own programs.
    pub fn of_lines(lines: &[String]) -> Self {
        let mut sum = Self::default();
        for line in lines {
            let counts = line
                .strip_prefix("test result: ")
                .and_then(|rest| rest.split_once(". "))
                .map(|(_, counts)| counts);
            if let Some(tally) = parse(counts.unwrap_or(line)).or_else(|| parse_steps(line)) {
                sum += tally;
            }
        }
        sum
    }

    /// What Python's unittest says: `Ran 14 tests in 1.3s`, and whether all was well. Which of them failed is in
    /// its output; here they are one.
    pub fn of_unittest(lines: &[String], succeeded: bool) -> Self {
        let ran = lines
            .iter()
            .filter_map(|line| line.strip_prefix("Ran ")?.split(' ').next()?.parse().ok())
            .next_back()
            .unwrap_or(0);
        Self { passed: if succeeded { ran } else { 0 }, failed: 0 }.with_status(succeeded)
    }

    /// A step that ended badly without a failed check has failed nonetheless, and so has one without any check.
    pub fn with_status(mut self, succeeded: bool) -> Self {
        if (!succeeded && self.failed == 0) || self == Self::default() {
            self.failed += 1;
        }
        self
    }
}

/// `3 passed; 0 failed` or `3 passed, 0 failed`, at the start of the text.
fn parse(text: &str) -> Option<Tally> {
    let mut parts = text.split([';', ',']).map(str::trim);
    let passed = parts.next()?.strip_suffix(" passed")?.parse().ok()?;
    let failed = parts.next()?.strip_suffix(" failed")?.parse().ok()?;
    Some(Tally { passed, failed })
}

/// `30 of 36 steps ...`, at the start of the line: the rest has failed.
fn parse_steps(line: &str) -> Option<Tally> {
    let (done, rest) = line.split_once(" of ")?;
    let (all, rest) = rest.split_once(' ')?;
    let (passed, all): (u64, u64) = (done.parse().ok()?, all.parse().ok()?);
    rest.starts_with("steps").then(|| Tally { passed, failed: all.saturating_sub(passed) })
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_kinds_add_up() {
        let lines = [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "40 passed, 1 failed",
            "it passed, nothing failed",
            "30 of 36 steps in 12 s",
            "one of two steps",
        ]
        .map(str::to_owned);
        assert_eq!(Tally::of_lines(&lines), Tally { passed: 74, failed: 9 });
    }

    #[test]
    fn unittest_counts_when_all_is_well() {
        let lines = ["..", "Ran 14 tests in 1.3s", "", "OK"].map(str::to_owned);
        assert_eq!(Tally::of_unittest(&lines, true), Tally { passed: 14, failed: 0 });
        assert_eq!(Tally::of_unittest(&lines, false), Tally { passed: 0, failed: 1 });
        let none = ["Ran 0 tests in 0.0s".to_owned()];
        assert_eq!(Tally::of_unittest(&none, true), Tally { passed: 0, failed: 1 });
        assert_eq!(Tally::of_unittest(&[], true), Tally { passed: 0, failed: 1 });
    }

    #[test]
    fn a_step_that_checked_nothing_has_failed() {
        assert_eq!(Tally::default().with_status(true).failed, 1);
        assert_eq!(Tally { passed: 3, failed: 0 }.with_status(false).failed, 1);
        assert_eq!(Tally { passed: 3, failed: 0 }.with_status(true).failed, 0);
        assert_eq!(Tally { passed: 3, failed: 2 }.with_status(false).failed, 2);
    }
}
