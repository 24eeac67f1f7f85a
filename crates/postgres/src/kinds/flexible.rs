//! `Microsoft.DBforPostgreSQL/flexibleServers`.

use std::sync::Arc;

use arcadia_arm::{Arm, Desired, NameRule, Plan, Resource, ResourceKind, merge_json};
use arcadia_kernel::{Fault, Op};
use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::server::{self, Asked};
use super::{Flexible, Generation, capabilities, settings};
use crate::Postgres;
use crate::cluster::Installation;
use crate::fault::invalid;
use crate::records::{NAMES, StoredServer, stored, to_stored};

const TIERS: [&str; 3] = ["Burstable", "GeneralPurpose", "MemoryOptimized"];
const ENABLED: [&str; 2] = ["Enabled", "Disabled"];
const SKU_NAME_CHARS_MAX: usize = 64;
const STORAGE_GIGABYTES_MAX: u64 = 32_767;
const STORAGE_IOPS_MAX: u64 = 80_000;
const STORAGE_THROUGHPUT_MAX: u64 = 1_200;

pub(crate) struct FlexibleServers(pub Arc<Postgres>);

impl FlexibleServers {
    /// Applies what a PUT or PATCH says to what is stored.
    pub(super) fn change(&self, stored: &mut StoredServer, asked: &Asked<'_>) -> Result<(), Fault> {
        self.change_version(stored, asked)?;
        self.check_unserved(asked)?;
        let auth = asked.inside("authConfig")?;
        if let Some(entra) = auth.one_of("activeDirectoryAuth", &ENABLED)? {
            stored.entra_auth = entra == "Enabled";
        }
        if let Some(password) = auth.one_of("passwordAuth", &ENABLED)? {
            stored.password_auth = password == "Enabled";
        }
        if let Some(public) =
            asked.inside("network")?.one_of("publicNetworkAccess", &["Enabled", "Disabled"])?
        {
            stored.public = public == "Enabled";
        }
        let (storage, backup) = (asked.inside("storage")?, asked.inside("backup")?);
        let mut change = Map::new();
        if let Some(zone) = asked.text("availabilityZone")? {
            change.insert("availabilityZone".to_owned(), zone.into());
        }
        let mut keep = |object: &str, name: &str, value: Option<Value>| {
            if let Some(value) = value {
                let inside = change.entry(object).or_insert_with(|| json!({}));
                inside[name] = value;
            }
        };
        let size = storage.number("storageSizeGB", 1..=STORAGE_GIGABYTES_MAX)?;
        keep("storage", "storageSizeGB", size.map(Value::from));
        for (name, max) in [("iops", STORAGE_IOPS_MAX), ("throughput", STORAGE_THROUGHPUT_MAX)] {
            keep("storage", name, storage.number(name, 0..=max)?.map(Value::from));
        }
        keep("storage", "autoGrow", storage.one_of("autoGrow", &["Enabled", "Disabled"])?.map(Value::from));
        keep("storage", "tier", storage.text("tier")?.map(Value::from));
        keep("storage", "type", storage.text("type")?.map(Value::from));
        let days = backup.number("backupRetentionDays", 7..=35)?;
        keep("backup", "backupRetentionDays", days.map(Value::from));
        let window = asked.inside("maintenanceWindow")?;
        keep("maintenanceWindow", "customWindow", window.text("customWindow")?.map(Value::from));
        for (name, max) in [("dayOfWeek", 6), ("startHour", 23), ("startMinute", 59)] {
            keep("maintenanceWindow", name, window.number(name, 0..=max)?.map(Value::from));
        }
        merge_json(&mut stored.shown, Value::Object(change));
        Ok(())
    }

    /// What a client would believe to have, and not have.
    fn check_unserved(&self, asked: &Asked<'_>) -> Result<(), Fault> {
        let availability = asked.inside("highAvailability")?;
        availability.refuse_other("mode", "Disabled")?;
        availability.refuse_any(&["standbyAvailabilityZone"])?;
        asked.inside("backup")?.refuse_other("geoRedundantBackup", "Disabled")?;
        let encryption = asked.inside("dataEncryption")?;
        encryption.refuse_other("type", "SystemManaged")?;
        encryption.refuse_any(&[
            "primaryKeyURI",
            "primaryUserAssignedIdentityId",
            "geoBackupKeyURI",
            "geoBackupUserAssignedIdentityId",
        ])?;
        asked.refuse_other("replicationRole", "Primary")?;
        let replica = asked.inside("replica")?;
        replica.refuse_other("role", "Primary")?;
        replica.refuse_any(&["promoteMode", "promoteOption"])?;
        asked.refuse_any(&["cluster", "sourceServerResourceId", "pointInTimeUTC"])?;
        let tenant = self.0.principals.tenant().id.to_string();
        asked.inside("authConfig")?.refuse_other("tenantId", &tenant)?;
        let network = asked
            .inside("network")?
            .refuse_any(&["delegatedSubnetResourceId", "privateDnsZoneArmResourceId"]);
        network.map_err(|_| invalid("A site has no virtual networks: create the server with public access."))
    }

    /// The version is the one that is installed: nothing else would be true.
    fn change_version(&self, stored: &mut StoredServer, asked: &Asked<'_>) -> Result<(), Fault> {
        let installed = self.0.clusters.place.installation.as_ref().map(|found| found.major().to_string());
        match (asked.text("version")?, installed) {
            (Some(version), _) if !version.is_empty() && version == stored.version => Ok(()),
            (Some(version), Some(installed)) if stored.version.is_empty() => {
                if version != installed {
                    return Err(invalid(format!(
                        "Version {installed} is the one that this site has. Ask for it, or install another \
                         version of PostgreSQL on the site's machine."
                    )));
                }
                stored.version = installed;
                Ok(())
            }
            (Some(_), _) => Err(invalid("The version of a server cannot be changed on this site.")),
            (None, Some(installed)) if stored.version.is_empty() => {
                stored.version = installed;
                Ok(())
            }
            (None, _) => Ok(()),
        }
    }
}

pub(super) fn check_sku(sku: Option<&Value>) -> Result<(), Fault> {
    let Some(sku) = sku else { return Ok(()) };
    let text = |name: &str| sku.get(name).and_then(Value::as_str).unwrap_or_default();
    let name = text("name");
    let fits = (1..=SKU_NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && TIERS.contains(&text("tier"));
    let message =
        format!("The sku must have a name such as 'Standard_B1ms' and a tier of {}.", TIERS.join(", "));
    if fits { Ok(()) } else { Err(invalid(message)) }
}

#[async_trait]
impl ResourceKind for FlexibleServers {
    const TYPE: &'static str = Flexible::SERVERS;
    const API_VERSIONS: &'static [&'static str] = Flexible::API_VERSIONS;
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
        let mode = asked.one_of("createMode", &["Create", "Default", "Update"])?;
        if mode == Some("Update") && current.is_none() {
            return Err(invalid("There is no server to update."));
        }
        let before: Option<StoredServer> = current.map(stored).transpose()?;
        let mut after: StoredServer = match &before {
            None => {
                let password = asked.inside("authConfig")?.one_of("passwordAuth", &ENABLED)?;
                server::found(&self.0, plan, &asked, password != Some("Disabled")).await?
            }
            Some(before) => {
                let mut after = before.clone();
                server::change_administrator(&self.0, &mut after, &asked, plan).await?;
                after
            }
        };
        self.change(&mut after, &asked)?;
        if let Some(before) = &before {
            server::check_enabling(before, &after)?;
        }
        server::check_identity(desired.identity.as_ref())?;
        check_sku(desired.sku.as_ref())?;
        if current.is_none() && desired.sku.is_none() {
            desired.sku = Some(json!({ "name": "Standard_B1ms", "tier": "Burstable" }));
        }
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
        if deletes { "DropServerManagementOperation" } else { "UpsertServerManagementOperationV2" }
    }

    fn properties(&self, resource: &Resource, _api_version: &str) -> Value {
        let Ok(server) = stored::<StoredServer>(resource) else { return Value::Object(Map::new()) };
        let running = self.0.clusters.find(server.instance).is_some_and(|cluster| cluster.is_ready());
        let state = match (server.ready, running) {
            (false, _) => "Provisioning",
            (true, true) => "Ready",
            (true, false) => "Starting",
        };
        let enabled = |on: bool| if on { "Enabled" } else { "Disabled" };
        let minor = self.0.clusters.place.installation.as_ref().map(Installation::minor);
        let mut shown = json!({
            "replica": { "role": "Primary", "capacity": 0 },
            "storage": { "storageSizeGB": 32, "autoGrow": "Disabled" },
            "network": { "publicNetworkAccess": enabled(server.public) },
            "privateEndpointConnections": [],
            "dataEncryption": { "type": "SystemManaged" },
            "authConfig": {
                "activeDirectoryAuth": enabled(server.entra_auth),
                "passwordAuth": enabled(server.password_auth),
                "tenantId": server.entra_auth.then(|| self.0.principals.tenant().id),
            },
            "fullyQualifiedDomainName": self.0.names.host(resource.id.name()),
            "version": server.version,
            "minorVersion": minor.map(|minor| minor.to_string()),
            "state": state,
            "backup": { "backupRetentionDays": 7, "geoRedundantBackup": "Disabled" },
            "highAvailability": { "mode": "Disabled", "state": "NotEnabled" },
            "maintenanceWindow":
                { "customWindow": "Disabled", "dayOfWeek": 0, "startHour": 0, "startMinute": 0 },
            "replicationRole": "Primary",
            "replicaCapacity": 0,
        });
        if let Some(login) = server.login() {
            shown["administratorLogin"] = login.into();
        }
        merge_json(&mut shown, server.shown);
        shown
    }

    fn extra_ops(self: Arc<Self>) -> Vec<Op<Arm>> {
        let mut rows = capabilities::ops(&self.0);
        rows.extend(settings::flexible_ops(&self.0));
        rows
    }
}
