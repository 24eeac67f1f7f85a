//! The machine's access tokens: asked of the site with its own key, kept per resource.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arcadia_client::{Ask, ClientFault, OAuth};
use arcadia_crypto::Zeroizing;
use arcadia_kernel::{Clock, Entropy};
use tokio::time::Instant;

use crate::link::Link;

const RESOURCES_MAX: usize = 64;
/// A kept token with less than this left is not handed out: clients would throw it away.
const LEFT_SECONDS_MIN: i64 = 60;
/// Tokens are not renewed more often than this while the site gives none that last longer.
const FRESH_SECONDS_MIN: i64 = 5;
/// While a kept token is good, a site that is away is not asked more often than this: each try may take long.
const RETRY: Duration = Duration::from_secs(30);

/// A token as the site gave it. There is no `Debug`: it would be written somewhere one day.
pub(crate) struct Held {
    pub(crate) access_token: Zeroizing<String>,
    pub(crate) not_before: i64,
    /// Seconds since 1970.
    pub(crate) expires_at: i64,
    obtained_at: i64,
}

impl Held {
    /// Renewed at half of its life, so that the site may be away for the other half.
    fn is_fresh(&self, now: i64) -> bool {
        let half = (self.expires_at - self.obtained_at) / 2;
        now >= self.obtained_at - LEFT_SECONDS_MIN && now < self.obtained_at + half.max(FRESH_SECONDS_MIN)
    }

    fn is_usable(&self, now: i64) -> bool {
        now + LEFT_SECONDS_MIN < self.expires_at
    }
}

type Slot = Arc<tokio::sync::Mutex<Kept>>;

/// What is kept for one resource.
#[derive(Default)]
struct Kept {
    held: Option<(Arc<Held>, Instant)>,
    failed: Option<(Arc<ClientFault>, Instant)>,
}

impl Kept {
    /// What can be said without asking the site; nothing when it must be asked.
    fn answer(&self, asked: Instant, now: i64, new: bool) -> Option<Result<Arc<Held>, Arc<ClientFault>>> {
        // Made while this request waited for its turn: new enough for anyone, and a failure is everyone's.
        if let Some((held, _)) = self.held.as_ref().filter(|(_, since)| *since >= asked) {
            return Some(Ok(held.clone()));
        }
        let usable = self.held.as_ref().map(|(held, _)| held).filter(|held| !new && held.is_usable(now));
        if let Some((fault, since)) = &self.failed {
            let is_recent = since.elapsed() < RETRY;
            match usable {
                Some(held) if fault.is_passing() && (is_recent || *since >= asked) => {
                    return Some(Ok(held.clone()));
                }
                _ if *since >= asked => return Some(Err(fault.clone())),
                _ => {}
            }
        }
        usable.filter(|held| held.is_fresh(now)).map(|held| Ok(held.clone()))
    }
}

/// Tokens of one connection. Those of an earlier one are forgotten with the first request of the next.
pub(crate) struct Tokens {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    generation: u64,
    /// Oldest first.
    slots: VecDeque<(String, Slot)>,
}

impl Tokens {
    pub(crate) fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { clock, entropy, all: Mutex::new(All::default()) }
    }

    fn slot(&self, generation: u64, resource: &str) -> Slot {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.generation != generation {
            *all = All { generation, slots: VecDeque::new() };
        }
        if let Some((_, slot)) = all.slots.iter().find(|(name, _)| name == resource) {
            return slot.clone();
        }
        if all.slots.len() >= RESOURCES_MAX {
            all.slots.pop_front();
        }
        let slot = Slot::default();
        all.slots.push_back((resource.to_owned(), slot.clone()));
        slot
    }

    /// A token whose audience is `resource`, letter for letter. Those who ask for the same at once share one call
    /// to the site, and its failure. While the site is away a kept token is given for as long as it lasts, unless a
    /// `new` one was asked for.
    pub(crate) async fn token(
        &self,
        link: &Link,
        resource: &str,
        new: bool,
    ) -> Result<Arc<Held>, Arc<ClientFault>> {
        let asked = Instant::now();
        let slot = self.slot(link.generation, resource);
        let mut kept = slot.lock().await;
        let now = self.clock.epoch_seconds();
        if let Some(outcome) = kept.answer(asked, now, new) {
            return outcome;
        }
        match self.ask(link, resource).await {
            Ok(token) => {
                let token = Arc::new(token);
                *kept = Kept { held: Some((token.clone(), Instant::now())), failed: None };
                Ok(token)
            }
            Err(fault) => {
                let fault = Arc::new(fault);
                kept.failed = Some((fault.clone(), Instant::now()));
                match &kept.held {
                    Some((held, _)) if !new && held.is_usable(now) && fault.is_passing() => Ok(held.clone()),
                    _ => Err(fault),
                }
            }
        }
    }

    async fn ask(&self, link: &Link, resource: &str) -> Result<Held, ClientFault> {
        let tenant = link.config.tenant_id.to_string();
        let client_id = link.config.client_id.to_string();
        let oauth = OAuth::new(&link.client, &link.endpoints.login, &tenant)?;
        let now = self.clock.epoch_seconds();
        // The v1 endpoint is the one that takes a resource as it is: its answer's audience is what was asked.
        let ask = Ask::Resource(resource);
        let token = oauth.client_assertion(&client_id, &link.key, ask, &*self.entropy, now).await?;
        let lifetime = i64::try_from(token.expires_in_seconds).unwrap_or(i64::MAX / 2).min(10 * 366 * 86_400);
        Ok(Held {
            access_token: token.access_token,
            not_before: token.not_before.unwrap_or(now),
            expires_at: now + lifetime,
            obtained_at: now,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(lifetime: i64) -> Held {
        Held {
            access_token: Zeroizing::new("t".to_owned()),
            not_before: 1000,
            expires_at: 1000 + lifetime,
            obtained_at: 1000,
        }
    }

    #[test]
    fn fresh_for_half_of_its_life_usable_until_shortly_before_its_end() {
        let day = held(86_400);
        assert!(day.is_fresh(1000) && day.is_fresh(1000 + 43_199) && !day.is_fresh(1000 + 43_200));
        assert!(day.is_usable(1000 + 86_339) && !day.is_usable(1000 + 86_340));
        assert!(!day.is_fresh(0), "the clock was set back: what is kept says nothing any more");
        let short = held(4);
        assert!(short.is_fresh(1004) && !short.is_usable(1000));
    }

    fn passing() -> Arc<ClientFault> {
        Arc::new(ClientFault::Timeout { what: "x".to_owned(), seconds: 1 })
    }

    fn lasting() -> Arc<ClientFault> {
        Arc::new(ClientFault::Url("x".to_owned()))
    }

    #[test]
    fn who_waited_shares_the_outcome() {
        let before = Instant::now();
        let after = before + Duration::from_millis(1);
        let made = Kept { held: Some((Arc::new(held(86_400)), after)), failed: None };
        assert!(matches!(made.answer(before, 1000, true), Some(Ok(_))), "new enough for who asked before");
        assert!(made.answer(after + Duration::from_millis(1), 1000, true).is_none());
        let failed = Kept { held: None, failed: Some((passing(), after)) };
        assert!(matches!(failed.answer(before, 1000, false), Some(Err(_))));
        assert!(
            failed.answer(after + Duration::from_millis(1), 1000, false).is_none(),
            "asked after: tried again"
        );
    }

    #[test]
    fn a_site_that_is_away_is_not_waited_for_each_time() {
        let since = Instant::now();
        let later = since + Duration::from_millis(1);
        let token = || Some((Arc::new(held(86_400)), since));
        let past_half = 1000 + 50_000;
        let away = Kept { held: token(), failed: Some((passing(), since)) };
        assert!(matches!(away.answer(later, past_half, false), Some(Ok(_))));
        assert!(away.answer(later, past_half, true).is_none(), "who wants a new one waits");
        let refusing = Kept { held: token(), failed: Some((lasting(), since)) };
        assert!(refusing.answer(later, past_half, false).is_none(), "a refusal may be mended at any time");
        assert!(away.answer(later, 1000 + 86_399, false).is_none(), "nothing is left of it");
    }
}
