//! The machine's access tokens: asked of the site with its own key, kept per resource.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use arcadia_client::{Ask, ClientFault, OAuth};
use arcadia_crypto::Zeroizing;
use arcadia_kernel::{Clock, Entropy};

use crate::link::Link;

const RESOURCES_MAX: usize = 64;
/// A kept token with less than this left is not handed out: clients would throw it away.
const LEFT_SECONDS_MIN: i64 = 60;
/// Tokens are not renewed more often than this while the site gives none that last longer.
const FRESH_SECONDS_MIN: i64 = 5;

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

type Slot = Arc<tokio::sync::Mutex<Option<Arc<Held>>>>;

/// Tokens of one connection. Those of an earlier one are forgotten with the first request of the next.
pub(crate) struct Tokens {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    generation: u64,
    /// Oldest first.
    slots: VecDeque<(String, Slot)>,
}

impl Tokens {
    pub(crate) fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { clock, entropy, kept: Mutex::new(Kept::default()) }
    }

    fn slot(&self, generation: u64, resource: &str) -> Slot {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.generation != generation {
            *kept = Kept { generation, slots: VecDeque::new() };
        }
        if let Some((_, slot)) = kept.slots.iter().find(|(name, _)| name == resource) {
            return slot.clone();
        }
        if kept.slots.len() >= RESOURCES_MAX {
            kept.slots.pop_front();
        }
        let slot = Slot::default();
        kept.slots.push_back((resource.to_owned(), slot.clone()));
        slot
    }

    /// A token whose audience is `resource`, letter for letter. Those who ask for the same at once share one call
    /// to the site. While the site is away a kept token is given for as long as it lasts, unless a `new` one was
    /// asked for.
    pub(crate) async fn token(
        &self,
        link: &Link,
        resource: &str,
        new: bool,
    ) -> Result<Arc<Held>, ClientFault> {
        let slot = self.slot(link.generation, resource);
        let mut held = slot.lock().await;
        let now = self.clock.epoch_seconds();
        if let Some(fresh) = held.as_ref().filter(|held| !new && held.is_fresh(now) && held.is_usable(now)) {
            return Ok(fresh.clone());
        }
        match self.ask(link, resource).await {
            Ok(token) => Ok(held.insert(Arc::new(token)).clone()),
            Err(fault) => match held.as_ref().filter(|held| !new && held.is_usable(now)) {
                Some(still_good) if fault.is_passing() => {
                    tracing::debug!(%fault, "the site is away; giving the token that is kept");
                    Ok(still_good.clone())
                }
                _ => Err(fault),
            },
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
}
