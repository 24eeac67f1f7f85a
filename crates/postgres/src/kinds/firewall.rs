//! Firewall rules: which addresses a server's gateway lets in. In effect as soon as they are committed.

use std::marker::PhantomData;
use std::net::Ipv4Addr;

use arcadia_arm::{Desired, NameRule, Plan, Resource, ResourceKind};
use arcadia_kernel::Fault;
use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::Generation;
use super::server::{Asked, check_room};
use crate::fault::invalid;
use crate::records::{StoredRule, stored, to_stored};

/// Rules of one server.
const RULES_MAX: usize = 128;

pub(crate) struct FirewallRules<G>(PhantomData<fn() -> G>);

impl<G> FirewallRules<G> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

fn address(asked: &Asked<'_>, name: &str, before: Option<Ipv4Addr>) -> Result<Ipv4Addr, Fault> {
    let wrong = || invalid(format!("The property '{name}' must be an IPv4 address such as '10.0.0.1'."));
    match (asked.text(name)?, before) {
        (Some(text), _) => text.parse().map_err(|_| wrong()),
        (None, Some(before)) => Ok(before),
        (None, None) => Err(wrong()),
    }
}

#[async_trait]
impl<G: Generation> ResourceKind for FirewallRules<G> {
    const TYPE: &'static str = G::RULES;
    const API_VERSIONS: &'static [&'static str] = G::API_VERSIONS;
    const NAME_RULE: NameRule = NameRule {
        chars_min: 1,
        chars_max: 128,
        pattern: "^[a-zA-Z0-9_-]{1,128}$",
        check: |name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)),
    };
    const LOCATED: bool = false;
    const ASYNCHRONOUS: bool = true;

    async fn put(
        &self,
        plan: &mut Plan<'_>,
        current: Option<&Resource>,
        desired: Desired,
    ) -> Result<Resource, Fault> {
        let asked = Asked::of(&desired.properties)?;
        let before = current.map(stored::<StoredRule>).transpose()?;
        if before.is_none() {
            check_room(plan, RULES_MAX).await?;
        }
        let rule = StoredRule {
            start_ip_address: address(&asked, "startIpAddress", before.map(|rule| rule.start_ip_address))?,
            end_ip_address: address(&asked, "endIpAddress", before.map(|rule| rule.end_ip_address))?,
        };
        if rule.start_ip_address > rule.end_ip_address {
            return Err(invalid("The start of the range of addresses must not be after its end."));
        }
        Ok(Resource::planned(plan, current, Desired::default(), to_stored(&rule)?))
    }

    async fn patch(
        &self,
        plan: &mut Plan<'_>,
        current: &Resource,
        change: Desired,
    ) -> Result<Resource, Fault> {
        self.put(plan, Some(current), change).await
    }

    async fn delete(&self, _plan: &mut Plan<'_>, _current: &Resource) -> Result<(), Fault> {
        Ok(())
    }

    fn operation_name(&self, deletes: bool) -> &'static str {
        G::RULE_OPERATIONS[usize::from(deletes)]
    }

    fn properties(&self, resource: &Resource, _api_version: &str) -> Value {
        match stored::<StoredRule>(resource) {
            Ok(rule) => {
                json!({ "startIpAddress": rule.start_ip_address, "endIpAddress": rule.end_ip_address })
            }
            Err(_) => Value::Object(Map::new()),
        }
    }
}
