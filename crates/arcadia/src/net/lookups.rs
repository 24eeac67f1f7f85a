//! Look-ups of names at the same time. One holds a thread until the system gives up, which may be long after its client
//! has, and those threads are shared with all that reads files and checks passwords: so there are few. Whoever has a
//! domain may have a name server that never answers, so that each domain has a part of them, and one that let a look-up
//! hang has hardly any.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// At the same time; more wait.
const LOOKUPS_MAX: usize = 32;
/// Of names in one domain.
const LOOKUPS_PER_DOMAIN_MAX: usize = 8;
/// The same, once one of them hung.
const LOOKUPS_PER_HUNG_DOMAIN_MAX: usize = 1;
/// For how long a domain is held to that.
const HUNG_DURATION: Duration = Duration::from_secs(60);

/// All that are under way.
#[derive(Default)]
pub struct Lookups {
    now: Mutex<Now>,
    changed: Notify,
}

#[derive(Default)]
struct Now {
    running: usize,
    /// Those with look-ups under way, and those that hung lately: in a minute no more than so many look-ups can hang.
    by_domain: HashMap<String, Domain>,
}

#[derive(Default)]
struct Domain {
    running: usize,
    hung_at: Option<Instant>,
}

impl Domain {
    fn is_hung(&self) -> bool {
        self.hung_at.is_some_and(|at| at.elapsed() < HUNG_DURATION)
    }

    fn max(&self) -> usize {
        if self.is_hung() { LOOKUPS_PER_HUNG_DOMAIN_MAX } else { LOOKUPS_PER_DOMAIN_MAX }
    }
}

/// One look-up, for as long as this lives.
pub struct Lookup {
    lookups: Arc<Lookups>,
    domain: String,
}

impl Lookups {
    /// Waits until `host` may be looked up.
    pub async fn begin(self: &Arc<Self>, host: &str) -> Lookup {
        let domain = domain(host);
        loop {
            let changed = self.changed.notified();
            if self.takes(&domain) {
                return Lookup { lookups: self.clone(), domain };
            }
            changed.await;
        }
    }

    /// Notes that a look-up of `host` is not answered in its time.
    pub fn hung(&self, host: &str) {
        self.lock().by_domain.entry(domain(host)).or_default().hung_at = Some(Instant::now());
    }

    fn takes(&self, domain: &str) -> bool {
        let mut now = self.lock();
        now.by_domain.retain(|_, domain| domain.running > 0 || domain.is_hung());
        if now.running >= LOOKUPS_MAX
            || now.by_domain.get(domain).is_some_and(|found| found.running >= found.max())
        {
            return false;
        }
        now.running += 1;
        now.by_domain.entry(domain.to_owned()).or_default().running += 1;
        true
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        let mut now = self.lookups.lock();
        now.running -= 1;
        if let Some(domain) = now.by_domain.get_mut(&self.domain) {
            domain.running -= 1;
        }
        drop(now);
        self.lookups.changed.notify_waiters();
    }
}

/// What one customer of a registry has, as far as the name's form tells: `example.com`, `example.co.uk`.
fn domain(host: &str) -> String {
    let host = super::fold_host(host);
    let labels: Vec<&str> = host.rsplit('.').take(3).collect();
    match labels.as_slice() {
        [country, kind, owner] if country.len() == 2 && kind.len() <= 3 => {
            format!("{owner}.{kind}.{country}")
        }
        [top, owner, ..] => format!("{owner}.{top}"),
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn begins(lookups: &Arc<Lookups>, host: &str) -> Option<Lookup> {
        tokio::time::timeout(Duration::from_secs(1), lookups.begin(host)).await.ok()
    }

    async fn begin_all(lookups: &Arc<Lookups>, domain: &str) -> Vec<Lookup> {
        let mut begun = Vec::new();
        while let Some(lookup) = begins(lookups, &format!("n{}.{domain}", begun.len())).await {
            begun.push(lookup);
        }
        begun
    }

    #[tokio::test(start_paused = true)]
    async fn one_domain_does_not_take_all() {
        let lookups = Arc::new(Lookups::default());
        let mut silent = begin_all(&lookups, "silent.example").await;
        assert_eq!(silent.len(), LOOKUPS_PER_DOMAIN_MAX);
        assert!(begins(&lookups, "other.example").await.is_some());
        // Who waits goes on as soon as there is room.
        let waiting = tokio::spawn({
            let lookups = lookups.clone();
            async move { lookups.begin("more.silent.example").await }
        });
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert!(!waiting.is_finished());
        silent.pop();
        silent.push(waiting.await.unwrap());

        // It let one hang, and has one from then on, until it has been a while.
        lookups.hung("N1.silent.example.");
        silent.clear();
        assert_eq!(begin_all(&lookups, "silent.example").await.len(), LOOKUPS_PER_HUNG_DOMAIN_MAX);
        tokio::time::sleep(HUNG_DURATION).await;
        assert_eq!(begin_all(&lookups, "silent.example").await.len(), LOOKUPS_PER_DOMAIN_MAX);
        assert!(begins(&lookups, "other.example").await.is_some());
        assert!(lookups.lock().by_domain.len() <= 2, "nothing is kept for long");
    }

    #[tokio::test(start_paused = true)]
    async fn all_are_few() {
        let lookups = Arc::new(Lookups::default());
        let mut begun = Vec::new();
        for at in 0..LOOKUPS_MAX {
            begun.push(begins(&lookups, &format!("a.d{at}.example")).await.unwrap());
        }
        assert!(begins(&lookups, "other.example").await.is_none());
        begun.pop();
        assert!(begins(&lookups, "other.example").await.is_some());
    }

    #[test]
    fn domains() {
        for (host, expected) in [
            ("a.b.Example.com.", "example.com"),
            ("example.com", "example.com"),
            ("a.example.co.uk", "example.co.uk"),
            ("a.example.de", "example.de"),
            ("a.github.io", "github.io"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(domain(host), expected, "{host}");
        }
    }
}
