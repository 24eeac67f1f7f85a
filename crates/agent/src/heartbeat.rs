//! Word to the site, every few minutes, that the machine is there; and back, what the site knows of it.

#[cfg(test)]
mod fuzz;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arcadia_client::{Call, ClientFault};
use arcadia_kernel::Entropy;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::daemon::Core;
use crate::health::Heard;
use crate::link::Link;
use crate::{AGENT_VERSION, AgentConfig, AgentFault};

const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How soon a changed configuration is noticed.
const LOOK: Duration = Duration::from_secs(1);
const TAGS_MAX: usize = 256;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status: String,
    client_id: Option<Uuid>,
    resource: AnswerResource,
}

#[derive(Deserialize)]
struct AnswerResource {
    id: String,
    location: String,
    #[serde(default)]
    tags: Option<BTreeMap<String, String>>,
}

/// Beats until it is dropped.
pub(crate) async fn run(core: Arc<Core>) {
    let mut failures = 0;
    loop {
        let generation = core.links.current().map(|current| current.generation).ok();
        let pause = match core.links.link() {
            Ok(link) => match beat(&core, &link).await {
                Ok(()) => {
                    if failures > 0 {
                        core.log.info("heartbeats succeed again");
                    }
                    failures = 0;
                    jittered(&*core.options.entropy, core.options.heartbeat_interval)
                }
                Err(fault) => {
                    let pause = core.pause_after(&fault, failures);
                    // Once is news; after that only now and then, or the log fills with one outage.
                    if failures % 16 == 0 {
                        core.log.error(&format!("the heartbeat failed: {fault}"));
                    }
                    failures = failures.saturating_add(1);
                    pause
                }
            },
            Err(AgentFault::NotConnected) => Duration::MAX,
            Err(fault) => {
                core.health.failed("configuration", &fault.to_string());
                core.log.error(&fault.to_string());
                RETRY_MAX
            }
        };
        if wait(&core, pause, generation).await {
            failures = 0;
            core.health.forget_trouble();
        }
    }
}

/// Waits, but no longer than the configuration stays as it is; tells whether it changed.
async fn wait(core: &Core, pause: Duration, generation: Option<u64>) -> bool {
    let until = Instant::now().checked_add(pause);
    while until.is_none_or(|until| Instant::now() < until) {
        let left = until.map_or(LOOK, |until| until.saturating_duration_since(Instant::now()));
        sleep(left.min(LOOK)).await;
        let now = core.links.current().map(|current| current.generation).ok();
        if now != generation {
            return true;
        }
    }
    false
}

impl Core {
    /// Twice as long after each failure in a row, and at least as long as the site asks.
    fn pause_after(&self, fault: &ClientFault, failures: u32) -> Duration {
        let refusal = fault.refusal();
        let code = refusal.map_or("unreachable".to_owned(), |refusal| {
            if refusal.code.is_empty() { refusal.status.as_u16().to_string() } else { refusal.code.clone() }
        });
        self.health.failed(&code, &fault.to_string());
        let backoff = RETRY_FIRST.saturating_mul(1 << failures.min(10)).min(RETRY_MAX);
        let asked = refusal.and_then(|refusal| refusal.retry_after_seconds).map(Duration::from_secs);
        let longest = self.options.heartbeat_interval.max(RETRY_FIRST);
        jittered(&*self.options.entropy, asked.unwrap_or_default().max(backoff).min(longest))
    }
}

/// Between nine tenths and all of `pause`: thousands of agents must not come back in step.
fn jittered(entropy: &dyn Entropy, pause: Duration) -> Duration {
    let mut byte = [0];
    entropy.fill(&mut byte);
    pause.mul_f64(0.9 + 0.1 * f64::from(byte[0]) / 255.0)
}

async fn beat(core: &Core, link: &Link) -> Result<(), Arc<ClientFault>> {
    let mut outcome = send(core, link, false).await;
    // A token that the site no longer takes is replaced once; the key may have been renewed there.
    if outcome.as_ref().is_err_and(|fault| fault.refusal().is_some_and(|refusal| refusal.status == 401)) {
        outcome = send(core, link, true).await;
    }
    let answer = outcome?;
    if answer.client_id.is_some_and(|id| id != link.config.client_id) {
        core.log.warning(
            "the site knows this machine's identity by another client id; connect the machine again",
        );
    }
    if !answer.resource.id.eq_ignore_ascii_case(&link.config.resource_id) {
        core.log.warning(&format!("the site knows this machine as {}", answer.resource.id));
    }
    if let Err(fault) = core.health.heard(heard(answer, &link.config, core.options.clock.now())) {
        core.log.error(&fault.to_string());
    }
    Ok(())
}

/// What is kept of an answer, for the connection that it came to.
fn heard(answer: Answer, config: &AgentConfig, now: Timestamp) -> Heard {
    Heard {
        resource_id: config.resource_id.clone(),
        vm_id: config.vm_id,
        location: answer.resource.location,
        tags: answer.resource.tags.unwrap_or_default().into_iter().take(TAGS_MAX).collect(),
        status: answer.status,
        last_heartbeat: now,
    }
}

async fn send(core: &Core, link: &Link, new_token: bool) -> Result<Answer, Arc<ClientFault>> {
    let token = core.tokens.token(link, &link.endpoints.his_audience, new_token).await?;
    let url = format!("{}/machines/heartbeat", link.endpoints.his.trim_end_matches('/'));
    let said = body(core, link);
    // Two heartbeats are as good as one.
    let call =
        Call::post(url).bearer(&token.access_token).and_then(|call| call.json(&said)).map_err(Arc::new)?;
    link.client.json(call.repeatable()).await.map_err(Arc::new)
}

fn body(core: &Core, link: &Link) -> Value {
    json!({
        "vmId": link.config.vm_id,
        "agentVersion": AGENT_VERSION,
        "osName": core.facts.os_name,
        "osVersion": core.facts.os_version,
        "osSku": core.facts.os_sku,
        "machineFqdn": core.facts.machine_fqdn,
        "status": "Connected",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcadia_crypto::SystemEntropy;

    #[test]
    fn jitter_stays_in_its_bounds() {
        let pause = Duration::from_secs(300);
        let all: Vec<_> = (0..100).map(|_| jittered(&SystemEntropy, pause)).collect();
        assert!(all.iter().all(|one| *one >= Duration::from_secs(270) && *one <= pause));
        assert!(all.iter().any(|one| one != &all[0]));
        assert_eq!(jittered(&SystemEntropy, Duration::ZERO), Duration::ZERO);
    }
}
