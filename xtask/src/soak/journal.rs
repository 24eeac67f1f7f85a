//! What a writer was told, and what it was not told.

use std::collections::BTreeMap;
use std::fmt::Debug;

/// What must be there now, and what may be there instead.
struct Entry<V> {
    now: Option<V>,
    /// Sent and not answered: the outer `Some` says that there is such a change, the inner what it leads to.
    doubt: Option<Option<V>>,
    /// Changed since it was last looked at.
    fresh: bool,
}

/// Every key that a writer ever wrote, with the state that was acknowledged last. `None` is a key that is not there.
pub struct Journal<V> {
    entries: BTreeMap<String, Entry<V>>,
    pub counts: Counts,
}

/// How many changes were acknowledged, were in doubt, and of those in doubt were found to have been made.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    pub acknowledged: u64,
    pub in_doubt: u64,
    pub in_doubt_and_made: u64,
    /// Looks at a key after a kill.
    pub verified: u64,
}

impl<V: Clone + PartialEq + Debug> Journal<V> {
    pub fn new() -> Self {
        Self { entries: BTreeMap::new(), counts: Counts::default() }
    }

    /// Before a change is sent: until it is answered it is in doubt.
    pub fn sending(&mut self, key: &str, to: Option<V>) {
        let entry =
            self.entries.entry(key.to_owned()).or_insert(Entry { now: None, doubt: None, fresh: false });
        entry.doubt = Some(to);
        entry.fresh = true;
    }

    pub fn acknowledged(&mut self, key: &str) {
        if let Some(entry) = self.entries.get_mut(key)
            && let Some(to) = entry.doubt.take()
        {
            entry.now = to;
            self.counts.acknowledged += 1;
        }
    }

    /// It was surely not sent, or was refused.
    pub fn not_made(&mut self, key: &str) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.doubt = None;
        }
    }

    pub fn now(&self, key: &str) -> Option<&V> {
        self.entries.get(key)?.now.as_ref()
    }

    /// What may be there under this key.
    pub fn candidates(&self, key: &str) -> Vec<V> {
        let entry = self.entries.get(key);
        let doubt = entry.and_then(|entry| entry.doubt.clone().flatten());
        entry.and_then(|entry| entry.now.clone()).into_iter().chain(doubt).collect()
    }

    pub fn is_in_doubt(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.doubt.is_some())
    }

    /// Keys that are there.
    pub fn present(&self) -> impl Iterator<Item = (&str, &V)> {
        self.entries.iter().filter_map(|(key, entry)| Some((key.as_str(), entry.now.as_ref()?)))
    }

    /// What is to be looked at: all that changed since the last look and `more` besides, or everything.
    pub fn to_verify(&self, all: bool, more: usize, random: &mut fastrand::Rng) -> Vec<String> {
        let (fresh, mut rest): (Vec<_>, Vec<_>) =
            self.entries.iter().partition(|(_, entry)| all || entry.fresh);
        random.shuffle(&mut rest);
        fresh.into_iter().chain(rest.into_iter().take(more)).map(|(key, _)| key.clone()).collect()
    }

    /// Compares what was found with what must be there. Settles a change in doubt; an error is a lost or false write.
    pub fn settle(&mut self, key: &str, found: Option<V>) -> Result<(), String> {
        let Some(entry) = self.entries.get_mut(key) else {
            return match found {
                Some(found) => Err(format!("{key} is there, as {found:?}, and was never written")),
                None => Ok(()),
            };
        };
        self.counts.verified += 1;
        entry.fresh = false;
        let doubt = entry.doubt.take();
        self.counts.in_doubt += u64::from(doubt.is_some());
        if found == entry.now {
            return Ok(());
        }
        if doubt.as_ref() == Some(&found) {
            self.counts.in_doubt_and_made += 1;
            entry.now = found;
            return Ok(());
        }
        let wanted = entry.now.clone();
        // Told once, not again every round.
        entry.now.clone_from(&found);
        Err(format!("{key} is {found:?}; acknowledged was {wanted:?}, in doubt {doubt:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_must_be_there() {
        let mut journal = Journal::new();
        journal.sending("a", Some(1));
        journal.acknowledged("a");
        assert_eq!(journal.settle("a", Some(1)), Ok(()));
        assert!(journal.settle("a", None).unwrap_err().contains("acknowledged was Some(1)"));
        assert!(journal.settle("b", Some(1)).unwrap_err().contains("never written"));
        assert_eq!(journal.counts.acknowledged, 1);
    }

    #[test]
    fn what_is_in_doubt_may_be_there_or_not_and_nothing_else() {
        for (found, well) in [(Some(1), true), (Some(2), true), (None, false), (Some(3), false)] {
            let mut journal = Journal::new();
            journal.sending("a", Some(1));
            journal.acknowledged("a");
            journal.sending("a", Some(2));
            assert!(journal.is_in_doubt("a"));
            assert_eq!(journal.candidates("a"), [1, 2]);
            assert_eq!(journal.settle("a", found).is_ok(), well, "{found:?}");
            assert_eq!(journal.now("a").copied(), found);
            assert!(!journal.is_in_doubt("a"));
            assert_eq!(journal.counts.in_doubt, 1);
            assert_eq!(journal.counts.in_doubt_and_made, u64::from(found == Some(2)));
        }
        let mut journal: Journal<u8> = Journal::new();
        journal.sending("a", Some(1));
        journal.not_made("a");
        assert!(journal.settle("a", Some(1)).is_err(), "what was not sent is not there");
    }

    #[test]
    fn what_changed_is_always_looked_at() {
        let mut journal = Journal::new();
        let mut random = fastrand::Rng::with_seed(7);
        for key in ["a", "b", "c"] {
            journal.sending(key, Some(1));
            journal.acknowledged(key);
        }
        assert_eq!(journal.to_verify(false, 0, &mut random).len(), 3);
        for key in ["a", "b", "c"] {
            journal.settle(key, Some(1)).unwrap();
        }
        assert_eq!(journal.to_verify(false, 0, &mut random).len(), 0);
        assert_eq!(journal.to_verify(false, 2, &mut random).len(), 2);
        journal.sending("b", None);
        assert_eq!(journal.to_verify(false, 0, &mut random), ["b"]);
        assert_eq!(journal.to_verify(true, 0, &mut random).len(), 3);
    }
}
