//! `Microsoft.DBforPostgreSQL/servers`: single server, as `az postgres up` asks for it.

use std::sync::Arc;

use arcadia_arm::{Arm, Desired, NameRule, Plan, Resource, ResourceKind};
use arcadia_kernel::{Fault, Op};
use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::server::{self, Asked};
use super::{Generation, Single, availability, settings};
use crate::Postgres;
use crate::fault::invalid;
use crate::records::{NAMES, StoredServer, stored, to_stored};

/// The versions that this service ever had. All of them are served by the PostgreSQL that is installed: the newer
/// server takes the older one's clients, and `SELECT version()` tells which it is.
const VERSIONS: &[&str] = &["9.5", "9.6", "10", "10.0", "10.2", "11"];
const VERSION_DEFAULT: &str = "11";
const STORAGE_MEGABYTES_DEFAULT: u64 = 5120;
const TIERS: [(&str, &str); 3] = [("B", "Basic"), ("GP", "GeneralPurpose"), ("MO", "MemoryOptimized")];

pub(crate) struct SingleServers(pub Arc<Postgres>);

impl SingleServers {
    /// Applies what a PUT or PATCH says to what is stored.
    pub(super) fn change(stored: &mut StoredServer, asked: &Asked<'_>) -> Result<(), Fault> {
        if let Some(version) = asked.one_of("version", VERSIONS)? {
            stored.version = version.to_owned();
        } else if stored.version.is_empty() {
            stored.version = VERSION_DEFAULT.to_owned();
        }
        if let Some(enforced) = asked.one_of("sslEnforcement", &["Enabled", "Disabled"])? {
            stored.require_tls = enforced == "Enabled";
        }
        if let Some(public) = asked.one_of("publicNetworkAccess", &["Enabled", "Disabled"])? {
            stored.public = public == "Enabled";
        }
        asked.refuse_other("infrastructureEncryption", "Disabled")?;
        asked.refuse_any(&["sourceServerId", "restorePointInTime"])?;
        let storage = asked.inside("storageProfile")?;
        storage.refuse_other("geoRedundantBackup", "Disabled")?;
        let mut shown = stored.shown.as_object().cloned().unwrap_or_default();
        let versions = ["TLSEnforcementDisabled", "TLS1_0", "TLS1_1", "TLS1_2"];
        if let Some(minimal) = asked.one_of("minimalTlsVersion", &versions)? {
            shown.insert("minimalTlsVersion".into(), minimal.into());
        }
        let mut profile = shown.get("storageProfile").and_then(Value::as_object).cloned().unwrap_or_default();
        if let Some(size) = storage.number("storageMB", STORAGE_MEGABYTES_DEFAULT..=16_777_216)? {
            profile.insert("storageMB".into(), size.into());
        }
        if let Some(days) = storage.number("backupRetentionDays", 7..=35)? {
            profile.insert("backupRetentionDays".into(), days.into());
        }
        if let Some(grows) = storage.one_of("storageAutogrow", &["Enabled", "Disabled"])? {
            profile.insert("storageAutogrow".into(), grows.into());
        }
        shown.insert("storageProfile".into(), Value::Object(profile));
        stored.shown = Value::Object(shown);
        Ok(())
    }
}

/// `GP_Gen5_2` says all there is to know of it.
fn sku(wanted: Option<Value>, current: Option<&Value>) -> Result<Option<Value>, Fault> {
    let wanted = wanted.and_then(|sku| sku.get("name").and_then(Value::as_str).map(str::to_owned));
    let name = match (&wanted, current) {
        (Some(name), _) => name.as_str(),
        (None, Some(current)) => return Ok(Some(current.clone())),
        (None, None) => "GP_Gen5_2",
    };
    let wrong =
        || invalid("The sku's name must be a tier, a family and a number of cores, such as 'GP_Gen5_2'.");
    let parts: Vec<&str> = name.split('_').collect();
    let [tier, family @ "Gen5", cores] = parts[..] else { return Err(wrong()) };
    let (_, tier) = TIERS.iter().find(|(short, _)| *short == tier).ok_or_else(wrong)?;
    let capacity: u32 = cores.parse().ok().filter(|cores| (1..=64).contains(cores)).ok_or_else(wrong)?;
    Ok(Some(json!({ "name": name, "tier": tier, "family": family, "capacity": capacity })))
}

#[async_trait]
impl ResourceKind for SingleServers {
    const TYPE: &'static str = Single::SERVERS;
    const API_VERSIONS: &'static [&'static str] = Single::API_VERSIONS;
    const NAME_RULE: NameRule = server::NAME_RULE;
    const ASYNCHRONOUS: bool = true;

    async fn put(
        &self,
        plan: &mut Plan<'_>,
        current: Option<&Resource>,
        mut desired: Desired,
    ) -> Result<Resource, Fault> {
        let properties = std::mem::take(&mut desired.properties);
        let asked = Asked::of(&properties)?;
        asked.refuse_other("createMode", "Default")?;
        let mut after: StoredServer = match current {
            None => server::found(&self.0, plan, &asked, true).await?,
            Some(current) => {
                let mut after = stored(current)?;
                server::change_administrator(&self.0, &mut after, &asked, plan).await?;
                after
            }
        };
        Self::change(&mut after, &asked)?;
        server::check_identity(desired.identity.as_ref())?;
        desired.sku = sku(desired.sku, current.and_then(|current| current.sku.as_ref()))?;
        desired.tags = desired.tags.or_else(|| current.map(|current| current.tags.clone()));
        // Nor does one stay that was only kept.
        Ok(Resource { identity: None, ..Resource::planned(plan, current, desired, to_stored(&after)?) })
    }

    async fn patch(
        &self,
        plan: &mut Plan<'_>,
        current: &Resource,
        change: Desired,
    ) -> Result<Resource, Fault> {
        self.put(plan, Some(current), change).await
    }

    async fn delete(&self, plan: &mut Plan<'_>, current: &Resource) -> Result<(), Fault> {
        plan.batch.delete(NAMES, current.id.name().to_ascii_lowercase().as_str());
        Ok(())
    }

    async fn finish(&self, resource: &Resource) -> Result<Value, Fault> {
        let mut after = stored(resource)?;
        server::bring_up(&self.0, &mut after).await?;
        to_stored(&after)
    }

    async fn tear_down(&self, resource: &Resource) -> Result<(), Fault> {
        let server: StoredServer = stored(resource)?;
        Ok(self.0.clusters.remove(server.instance).await?)
    }

    fn operation_name(&self, deletes: bool) -> &'static str {
        if deletes { "DropElasticServer" } else { "UpsertElasticServer" }
    }

    fn properties(&self, resource: &Resource, _api_version: &str) -> Value {
        let Ok(server) = stored::<StoredServer>(resource) else { return Value::Object(Map::new()) };
        let profile = server.shown.get("storageProfile").cloned().unwrap_or_default();
        let in_profile = |name: &str, otherwise: Value| profile.get(name).cloned().unwrap_or(otherwise);
        let running = self.0.clusters.find(server.instance).is_some_and(|cluster| cluster.is_ready());
        let enabled = |on: bool| if on { "Enabled" } else { "Disabled" };
        json!({
            "administratorLogin": server.login(),
            "storageProfile": {
                "storageMB": in_profile("storageMB", STORAGE_MEGABYTES_DEFAULT.into()),
                "backupRetentionDays": in_profile("backupRetentionDays", 7.into()),
                "geoRedundantBackup": "Disabled",
                "storageAutogrow": in_profile("storageAutogrow", "Disabled".into()),
            },
            "version": server.version,
            "sslEnforcement": enabled(server.require_tls),
            "minimalTlsVersion": server.shown.get("minimalTlsVersion").cloned()
                .unwrap_or_else(|| "TLSEnforcementDisabled".into()),
            "userVisibleState": if server.ready && running { "Ready" } else { "Inaccessible" },
            "fullyQualifiedDomainName": self.0.names.host(resource.id.name()),
            "earliestRestoreDate": resource.created_at,
            "replicationRole": "None",
            "masterServerId": "",
            "replicaCapacity": 0,
            "byokEnforcement": "Disabled",
            "privateEndpointConnections": [],
            "infrastructureEncryption": "Disabled",
            "publicNetworkAccess": enabled(server.public),
        })
    }

    fn extra_ops(self: Arc<Self>) -> Vec<Op<Arm>> {
        let mut rows = availability::ops(&self.0);
        rows.extend(settings::single_ops(&self.0));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sku_is_read_from_its_name() {
        let of = |name: &str| sku(Some(json!({ "name": name })), None);
        assert_eq!(
            of("GP_Gen5_2").unwrap().unwrap(),
            json!({ "name": "GP_Gen5_2", "tier": "GeneralPurpose", "family": "Gen5", "capacity": 2 })
        );
        for bad in ["", "GP", "GP_Gen5", "XX_Gen5_2", "GP_Gen4_2", "GP_Gen5_x", "GP_Gen5_0", "GP_Gen5_2_3"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
