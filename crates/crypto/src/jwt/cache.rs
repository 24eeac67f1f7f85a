//! Tokens verified a moment ago, so that a busy client costs one signature check and not thousands.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arcadia_kernel::{Entropy as _, VerifiedToken};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::entropy::SystemEntropy;

/// Made of the whole token, so a token is only found by presenting all of it.
pub(crate) type TokenMark = [u8; 16];

/// Makes marks that nobody outside this process can make or foresee: GMAC (NIST SP 800-38D) under a key of its own,
/// which takes a tenth of a digest's time. Its nonce may be the same each time because no mark is ever told.
struct Marker(LessSafeKey);

impl Marker {
    fn new() -> Option<Self> {
        let mut key = [0; 16];
        SystemEntropy.fill(&mut key);
        UnboundKey::new(&AES_128_GCM, &key).ok().map(|key| Self(LessSafeKey::new(key)))
    }

    fn mark(&self, token: &str) -> Option<TokenMark> {
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(token), &mut []).ok()?;
        tag.as_ref().try_into().ok()
    }
}

struct Entry {
    token: VerifiedToken,
    not_before: f64,
    not_after: f64,
}

#[derive(Default)]
struct Entries {
    by_mark: HashMap<TokenMark, Entry>,
    /// Oldest first. Holds exactly the keys of `by_mark`.
    order: VecDeque<TokenMark>,
}

pub(crate) struct TokenCache {
    entries: Mutex<Entries>,
    entries_max: usize,
    /// Without one nothing is remembered.
    marker: Option<Marker>,
}

impl TokenCache {
    pub(crate) fn new(entries_max: usize) -> Self {
        Self { entries: Mutex::default(), entries_max, marker: Marker::new() }
    }

    /// What `token` is found by; `None` when it cannot be remembered.
    pub(crate) fn mark(&self, token: &str) -> Option<TokenMark> {
        self.marker.as_ref()?.mark(token)
    }

    /// A token verified before, strictly within its own times (no leeway here).
    pub(crate) fn find(&self, mark: &TokenMark, now: i64) -> Option<VerifiedToken> {
        let now = now as f64;
        self.lock()
            .by_mark
            .get(mark)
            .filter(|entry| entry.not_before <= now && now < entry.not_after)
            .map(|entry| entry.token.clone())
    }

    pub(crate) fn insert(&self, mark: TokenMark, token: VerifiedToken, (not_before, not_after): (f64, f64)) {
        if self.entries_max == 0 {
            return;
        }
        let mut entries = self.lock();
        let entry = Entry { token, not_before, not_after };
        if entries.by_mark.insert(mark, entry).is_some() {
            return;
        }
        entries.order.push_back(mark);
        while entries.order.len() > self.entries_max {
            if let Some(oldest) = entries.order.pop_front() {
                entries.by_mark.remove(&oldest);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let entries = self.lock();
        assert_eq!(entries.order.len(), entries.by_mark.len());
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
    fn an_entry_never_outlives_its_token() {
        let cache = TokenCache::new(8);
        cache.insert([1; 16], token("a"), (10.0, 100.0));
        assert!(cache.find(&[1; 16], 99).is_some());
        assert!(cache.find(&[1; 16], 100).is_none());
        assert!(cache.find(&[1; 16], 9).is_none());
        assert!(cache.find(&[2; 16], 50).is_none());
    }

    #[test]
    fn a_mark_is_of_the_whole_token_and_of_one_process() {
        let (cache, other) = (TokenCache::new(1), TokenCache::new(1));
        let token = "e30.".repeat(300);
        let mark = cache.mark(&token).unwrap();
        assert_eq!(cache.mark(&token).unwrap(), mark);
        assert_ne!(other.mark(&token).unwrap(), mark);
        for at in 0..token.len() {
            let changed = [&token[..at], "x", &token[at + 1..]].concat();
            assert_ne!(cache.mark(&changed).unwrap(), mark, "{at}");
            assert_ne!(cache.mark(&token[..at]).unwrap(), mark, "{at}");
        }
        assert_ne!(cache.mark(&(token.clone() + "A")).unwrap(), mark);
    }

    #[test]
    fn the_oldest_entry_makes_room() {
        let cache = TokenCache::new(2);
        for n in 1..=3 {
            cache.insert([n; 16], token("a"), (0.0, 100.0));
        }
        cache.insert([3; 16], token("b"), (0.0, 100.0));
        assert_eq!(cache.len(), 2);
        assert!(cache.find(&[1; 16], 1).is_none());
        assert!(cache.find(&[2; 16], 1).is_some());
        assert_eq!(cache.find(&[3; 16], 1).unwrap().audience.as_ref(), "b");
    }
}
