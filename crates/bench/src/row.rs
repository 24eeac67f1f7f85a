//! One row of the table: what is measured, beside what, and what it must hold.

use std::time::Duration;

use serde::Serialize;

/// What is compared with the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Judged {
    /// Ours divided by what stands beside it in the same round.
    Ratio,
    /// Ours less what stands beside it in the same round.
    Difference,
    /// Ours alone.
    Ours,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    pub fn holds(self, figure: f64) -> bool {
        match self {
            Self::AtMost(limit) => figure <= limit,
            Self::AtLeast(limit) => figure >= limit,
        }
    }
}

/// Ours, and what stands beside it, measured one right after the other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Round {
    pub ours: f64,
    pub beside: Option<f64>,
}

impl Round {
    pub fn pair(ours: f64, beside: f64) -> Self {
        Self { ours, beside: Some(beside) }
    }

    pub fn alone(ours: f64) -> Self {
        Self { ours, beside: None }
    }
}

/// A row of the table.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub name: String,
    /// What is measured, in a line.
    pub what: String,
    pub unit: &'static str,
    /// The floor or the peer; empty where a row stands alone.
    pub beside: String,
    pub judged: Judged,
    /// Nothing where a row is told for information.
    pub gate: Option<Bound>,
    pub stretch: Option<Bound>,
    pub rounds: Vec<Round>,
    /// How long one measurement of a round lasted; nothing where the work itself says when it ends.
    pub seconds_per_measurement: Option<f64>,
    pub note: String,
}

/// The middle of some figures, and the smallest and largest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Middle {
    pub median: f64,
    pub smallest: f64,
    pub largest: f64,
}

impl Middle {
    /// Nothing of nothing.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut all: Vec<f64> = figures.into_iter().collect();
        all.sort_by(f64::total_cmp);
        let (smallest, largest) = (*all.first()?, *all.last()?);
        let (low, high) = (all[(all.len() - 1) / 2], all[all.len() / 2]);
        Some(Self { median: f64::midpoint(low, high), smallest, largest })
    }
}

impl Row {
    pub fn new(name: impl Into<String>, what: impl Into<String>, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            what: what.into(),
            unit,
            beside: String::new(),
            judged: Judged::Ours,
            gate: None,
            stretch: None,
            rounds: Vec::new(),
            seconds_per_measurement: None,
            note: String::new(),
        }
    }

    /// Judged by the ratio to a floor or peer.
    pub fn ratio_to(mut self, beside: impl Into<String>) -> Self {
        self.beside = beside.into();
        self.judged = Judged::Ratio;
        self
    }

    /// Judged by the difference from a floor or peer.
    pub fn difference_from(mut self, beside: impl Into<String>) -> Self {
        self.beside = beside.into();
        self.judged = Judged::Difference;
        self
    }

    /// What stands beside it is told and not judged.
    pub fn beside(mut self, beside: impl Into<String>) -> Self {
        self.beside = beside.into();
        self
    }

    pub fn gate(mut self, gate: Bound) -> Self {
        self.gate = Some(gate);
        self
    }

    pub fn stretch(mut self, stretch: Bound) -> Self {
        self.stretch = Some(stretch);
        self
    }

    pub fn rounds(mut self, rounds: Vec<Round>) -> Self {
        self.rounds = rounds;
        self
    }

    /// Each measurement of each round lasted so long.
    pub fn lasting(mut self, time: Duration) -> Self {
        self.seconds_per_measurement = Some(time.as_secs_f64());
        self
    }

    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    pub fn ours(&self) -> Option<Middle> {
        Middle::of(self.rounds.iter().map(|round| round.ours))
    }

    pub fn besides(&self) -> Option<Middle> {
        Middle::of(self.rounds.iter().filter_map(|round| round.beside))
    }

    /// The figure that is judged, of every round.
    pub fn figure(&self) -> Option<Middle> {
        Middle::of(self.rounds.iter().filter_map(|round| match (self.judged, round.beside) {
            (Judged::Ours, _) => Some(round.ours),
            (Judged::Ratio, Some(beside)) => Some(round.ours / beside),
            (Judged::Difference, Some(beside)) => Some(round.ours - beside),
            (Judged::Ratio | Judged::Difference, None) => None,
        }))
    }

    /// Whether the gate holds; nothing where there is none, and a row without a figure holds nothing.
    pub fn holds(&self) -> Option<bool> {
        let gate = self.gate?;
        Some(self.figure().is_some_and(|figure| gate.holds(figure.median)))
    }

    pub fn reaches(&self) -> Option<bool> {
        let stretch = self.stretch?;
        Some(self.figure().is_some_and(|figure| stretch.holds(figure.median)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_of_the_rounds_ratios() {
        let rounds = vec![Round::pair(10.0, 5.0), Round::pair(30.0, 10.0), Round::pair(4.0, 4.0)];
        let row = Row::new("a", "b", "us").ratio_to("floor").gate(Bound::AtMost(2.0)).rounds(rounds.clone());
        let figure = row.figure().unwrap();
        assert_eq!((figure.median, figure.smallest, figure.largest), (2.0, 1.0, 3.0));
        assert_eq!(row.holds(), Some(true));
        assert_eq!(row.clone().gate(Bound::AtMost(1.99)).holds(), Some(false));
        assert_eq!(row.clone().gate(Bound::AtLeast(2.0)).holds(), Some(true));
        let difference = Row::new("a", "b", "us").difference_from("floor").rounds(rounds);
        assert_eq!(difference.figure().unwrap().median, 5.0);
        assert_eq!(difference.holds(), None);
    }

    #[test]
    fn an_even_number_has_its_middle_between() {
        assert_eq!(Middle::of([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(Middle::of([]), None);
    }

    #[test]
    fn what_was_not_measured_does_not_hold() {
        assert_eq!(Row::new("a", "b", "us").gate(Bound::AtMost(1.0)).holds(), Some(false));
    }
}
