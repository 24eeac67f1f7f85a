//! Tokens verified a moment ago, so that a busy client costs one signature check and not thousands.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arcadia_kernel::VerifiedToken;

/// Keyed by the SHA-256 of the whole token, so a token is only found by presenting all of it.
pub(crate) type TokenDigest = [u8; 32];

struct Entry {
    token: VerifiedToken,
    not_before: f64,
    not_after: f64,
    /// The key set it was verified against; entries of earlier sets count for nothing.
    generation: u64,
}

#[derive(Default)]
struct Entries {
    by_digest: HashMap<TokenDigest, Entry>,
    /// Oldest first. Holds exactly the keys of `by_digest`.
    order: VecDeque<TokenDigest>,
}

pub(crate) struct TokenCache {
    entries: Mutex<Entries>,
    entries_max: usize,
}

impl TokenCache {
    pub(crate) fn new(entries_max: usize) -> Self {
        Self { entries: Mutex::default(), entries_max }
    }

    /// A token verified under the same key set, strictly within its own times (no leeway here).
    pub(crate) fn find(&self, digest: &TokenDigest, generation: u64, now: i64) -> Option<VerifiedToken> {
        let now = now as f64;
        self.lock()
            .by_digest
            .get(digest)
            .filter(|entry| {
                entry.generation == generation && entry.not_before <= now && now < entry.not_after
            })
            .map(|entry| entry.token.clone())
    }

    pub(crate) fn insert(
        &self,
        digest: TokenDigest,
        token: VerifiedToken,
        (not_before, not_after): (f64, f64),
        generation: u64,
    ) {
        if self.entries_max == 0 {
            return;
        }
        let mut entries = self.lock();
        let entry = Entry { token, not_before, not_after, generation };
        if entries.by_digest.insert(digest, entry).is_some() {
            return;
        }
        entries.order.push_back(digest);
        while entries.order.len() > self.entries_max {
            if let Some(oldest) = entries.order.pop_front() {
                entries.by_digest.remove(&oldest);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let entries = self.lock();
        assert_eq!(entries.order.len(), entries.by_digest.len());
        entries.order.len()
    }

    /// Nothing can panic while the lock is held, so a poisoned lock still guards whole entries.
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arcadia_kernel::Caller;

    use super::*;

    fn token(audience: &str) -> VerifiedToken {
        VerifiedToken { caller: Arc::new(Caller::anonymous()), audience: audience.into(), expires_at: 100 }
    }

    #[test]
    fn an_entry_never_outlives_its_token_or_its_key_set() {
        let cache = TokenCache::new(8);
        cache.insert([1; 32], token("a"), (10.0, 100.0), 1);
        assert!(cache.find(&[1; 32], 1, 99).is_some());
        assert!(cache.find(&[1; 32], 1, 100).is_none());
        assert!(cache.find(&[1; 32], 1, 9).is_none());
        assert!(cache.find(&[1; 32], 2, 50).is_none());
        assert!(cache.find(&[2; 32], 1, 50).is_none());
    }

    #[test]
    fn the_oldest_entry_makes_room() {
        let cache = TokenCache::new(2);
        for n in 1..=3 {
            cache.insert([n; 32], token("a"), (0.0, 100.0), 1);
        }
        cache.insert([3; 32], token("b"), (0.0, 100.0), 1);
        assert_eq!(cache.len(), 2);
        assert!(cache.find(&[1; 32], 1, 1).is_none());
        assert!(cache.find(&[2; 32], 1, 1).is_some());
        assert_eq!(cache.find(&[3; 32], 1, 1).unwrap().audience, "b");
    }
}
