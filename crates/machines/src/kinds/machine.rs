//! `Microsoft.HybridCompute/machines`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};

use arcadia_arm::{Desired, NameRule, Plan, Resource, ResourceKind};
use arcadia_crypto::RsaPublicKey;
use arcadia_directory::{Directory, ManagedIdentitySpec};
use arcadia_kernel::{ArmId, Clock, Fault, HeaderName, HeaderValue, StatusCode};
use arcadia_store::{Store, StoreError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::heartbeat::{HEARTBEATS, Heartbeat, Listening};

/// Tells the agent which application identifier its identity has; Azure tells it over a private protocol.
const CLIENT_ID_HEADER: HeaderName = HeaderName::from_static("x-ms-arcadia-identity-client-id");
/// The longest text that is kept in one property, in characters.
const TEXT_CHARS_MAX: usize = 1024;
/// A public key's longest base64 form, in characters (RSA-8192 with room to spare).
const KEY_CHARS_MAX: usize = 1536;
/// The largest structured property that is kept, in bytes of JSON. PATCH merges them.
const OBJECT_BYTES_MAX: usize = 64 * 1024;

/// Text properties that an agent says of its machine and that are shown as they were said.
const SAID_TEXTS: &[&str] = &[
    "agentVersion",
    "displayName",
    "machineFqdn",
    "dnsFqdn",
    "adFqdn",
    "domainName",
    "osName",
    "osVersion",
    "osType",
    "osSku",
    "osEdition",
    "vmUuid",
    "mssqlDiscovered",
    "privateLinkScopeResourceId",
    "parentClusterResourceId",
];
/// Structured properties that are kept as they were said.
const SAID_OBJECTS: &[&str] = &[
    "locationData",
    "osProfile",
    "cloudMetadata",
    "agentUpgrade",
    "detectedProperties",
    "agentConfiguration",
    "serviceStatuses",
];

/// What is stored as a machine's properties.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stored {
    pub vm_id: Uuid,
    /// Base64 of the PKCS#1 form.
    pub client_public_key: String,
    /// The application identifier of the machine's identity.
    pub client_id: Uuid,
    #[serde(flatten)]
    pub said: Map<String, Value>,
}

impl Stored {
    pub(crate) fn of(resource: &Resource) -> Result<Self, Fault> {
        serde_json::from_value(resource.properties.clone()).map_err(Fault::internal)
    }
}

/// The kind, with the last heartbeat of every machine in memory.
pub struct Machines {
    pub(crate) store: Store,
    directory: Arc<Directory>,
    clock: Arc<dyn Clock>,
    listening: Mutex<Listening>,
    heartbeats: Arc<RwLock<HashMap<String, Heartbeat>>>,
}

impl Machines {
    /// Loads the heartbeats and keeps them fresh.
    pub async fn open(
        store: Store,
        directory: Arc<Directory>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, StoreError> {
        let heartbeats = Arc::new(RwLock::new(HashMap::new()));
        let fresh = heartbeats.clone();
        store.observe(HEARTBEATS, move |changes| {
            let mut heartbeats = fresh.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            for change in changes {
                match (&change.before, &change.after) {
                    (_, Some(now)) => drop(heartbeats.insert(now.machine.folded().to_owned(), now.clone())),
                    (Some(gone), None) => drop(heartbeats.remove(gone.machine.folded())),
                    (None, None) => {}
                }
            }
        });
        for row in store.all(HEARTBEATS, &()).await? {
            let mut loaded = heartbeats.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            loaded.entry(row.value.machine.folded().to_owned()).or_insert(row.value);
        }
        let listening = Mutex::new(Listening::from(clock.now(), clock.awake()));
        Ok(Arc::new(Self { store, directory, clock, listening, heartbeats }))
    }

    /// Since when this site could be told something.
    pub(crate) fn listening_since(&self) -> Timestamp {
        let mut listening = self.listening.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        listening.since(self.clock.now(), self.clock.awake())
    }

    pub(crate) fn heartbeat(&self, machine: &ArmId) -> Option<Heartbeat> {
        let heartbeats = self.heartbeats.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        heartbeats.get(machine.folded()).cloned()
    }

    pub(crate) fn status_name(&self, machine: &ArmId) -> &'static str {
        self.heartbeat(machine).map_or("AwaitingConnection", |beat| beat.status(self.clock.now()).name)
    }

    fn create(&self, plan: &mut Plan<'_>, desired: Desired) -> Result<Resource, Fault> {
        let asked = Asked::read(&desired.properties)?;
        let vm_id = asked.vm_id.ok_or_else(|| missing("vmId"))?;
        let (key_text, public_key) = asked.key.ok_or_else(|| missing("clientPublicKey"))?;
        require_system_assigned(desired.identity.as_ref())?;
        let spec = ManagedIdentitySpec {
            display_name: plan.id.name().to_owned(),
            resource_id: plan.id.clone(),
            public_key,
        };
        let tenant =
            self.directory.tenant().ok_or_else(|| Fault::unavailable("The site has no tenant yet."))?;
        let identity = self.directory.plan_managed_identity(plan.batch, spec, plan.entropy)?;
        let stored =
            Stored { vm_id, client_public_key: key_text, client_id: identity.app_id, said: asked.said };
        let identity = json!({
            "type": "SystemAssigned",
            "principalId": identity.object_id,
            "tenantId": tenant.id,
        });
        let properties = serde_json::to_value(stored).map_err(Fault::internal)?;
        Ok(Resource::planned(plan, None, Desired { identity: Some(identity), ..desired }, properties))
    }

    fn replace(&self, plan: &Plan<'_>, current: &Resource, desired: Desired) -> Result<Resource, Fault> {
        let mut stored = Stored::of(current)?;
        let asked = Asked::read(&desired.properties)?;
        if asked.vm_id.is_some_and(|vm_id| vm_id != stored.vm_id) {
            return Err(taken(plan.id, "belongs to another machine (its vmId differs)"));
        }
        if asked.key.is_some_and(|(text, _)| text != stored.client_public_key) {
            return Err(taken(plan.id, "has another key"));
        }
        if desired.identity.is_some() {
            require_system_assigned(desired.identity.as_ref())?;
        }
        // An agent says all of it each time; a PATCH comes with what it leaves as it was.
        stored.said = asked.said;
        let tags = desired.tags.or_else(|| Some(current.tags.clone()));
        // The identity is the site's own doing: what the caller says of it changes nothing.
        let desired = Desired { tags, identity: current.identity.clone(), ..desired };
        let properties = serde_json::to_value(stored).map_err(Fault::internal)?;
        Ok(Resource::planned(plan, Some(current), desired, properties))
    }
}

#[async_trait::async_trait]
impl ResourceKind for Machines {
    const TYPE: &'static str = "Microsoft.HybridCompute/machines";
    const API_VERSIONS: &'static [&'static str] =
        &["2025-01-13", "2024-07-10", "2023-10-03-preview", "2022-12-27", "2021-05-20", "2020-08-02"];
    const NAME_RULE: NameRule = NameRule {
        chars_min: 1,
        chars_max: 54,
        pattern: "^[a-zA-Z0-9-_\\.]{1,54}$",
        check: |name| name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)),
    };

    async fn put(
        &self,
        plan: &mut Plan<'_>,
        current: Option<&Resource>,
        desired: Desired,
    ) -> Result<Resource, Fault> {
        match current {
            None => self.create(plan, desired),
            Some(current) => self.replace(plan, current, desired),
        }
    }

    async fn delete(&self, plan: &mut Plan<'_>, current: &Resource) -> Result<(), Fault> {
        if let Some(principal) = principal_of(current) {
            self.directory.plan_delete_identity(plan.batch, principal).await?;
        }
        plan.batch.delete(HEARTBEATS, plan.id);
        Ok(())
    }

    fn properties(&self, resource: &Resource, _api_version: &str) -> Value {
        let mut shown = Map::new();
        shown.insert("provisioningState".into(), "Succeeded".into());
        let Ok(stored) = Stored::of(resource) else { return Value::Object(shown) };
        let heartbeat = self.heartbeat(&resource.id);
        let status = heartbeat.as_ref().map(|beat| beat.status(self.clock.now()));
        shown.extend(stored.said);
        shown.insert("vmId".into(), stored.vm_id.to_string().into());
        shown.insert("clientPublicKey".into(), stored.client_public_key.into());
        shown.insert("status".into(), status.map_or("AwaitingConnection", |status| status.name).into());
        let since = status.map_or(resource.created_at, |status| status.since);
        shown.insert("lastStatusChange".into(), since.to_string().into());
        shown.insert("errorDetails".into(), json!([]));
        shown.entry("displayName").or_insert_with(|| resource.id.name().into());
        if let Some(beat) = heartbeat {
            let newer = [
                ("agentVersion", beat.agent_version),
                ("osName", beat.os_name),
                ("osVersion", beat.os_version),
                ("machineFqdn", beat.machine_fqdn),
            ];
            shown.extend(newer.into_iter().filter_map(|(name, said)| Some((name.to_owned(), said?.into()))));
        }
        Value::Object(shown)
    }

    fn put_status(&self, _created: bool) -> StatusCode {
        StatusCode::OK
    }

    fn put_headers(&self, resource: &Resource) -> Vec<(HeaderName, HeaderValue)> {
        Stored::of(resource)
            .ok()
            .and_then(|stored| HeaderValue::from_str(&stored.client_id.to_string()).ok())
            .map(|value| (CLIENT_ID_HEADER, value))
            .into_iter()
            .collect()
    }
}

/// The object identifier of the machine's identity.
pub(crate) fn principal_of(resource: &Resource) -> Option<Uuid> {
    resource.identity.as_ref()?.get("principalId")?.as_str()?.parse().ok()
}

/// The properties of a PUT or PATCH that were understood.
struct Asked {
    vm_id: Option<Uuid>,
    key: Option<(String, RsaPublicKey)>,
    said: Map<String, Value>,
}

impl Asked {
    fn read(properties: &Value) -> Result<Self, Fault> {
        let Some(properties) = properties.as_object() else {
            return Err(invalid("properties", "an object"));
        };
        let mut asked = Self { vm_id: None, key: None, said: Map::new() };
        for (name, value) in properties {
            if value.is_null() {
                continue;
            }
            match name.as_str() {
                "vmId" => {
                    let text = text_of(name, value, TEXT_CHARS_MAX)?;
                    asked.vm_id = Some(text.parse().map_err(|_| invalid(name, "a UUID"))?);
                }
                "clientPublicKey" => {
                    let text = text_of(name, value, KEY_CHARS_MAX)?;
                    let wanted = "the base64 form of a PKCS#1 RSA public key of 2048 to 8192 bits";
                    let der = STANDARD.decode(&text).map_err(|_| invalid(name, wanted))?;
                    let key = RsaPublicKey::from_pkcs1_der(&der).map_err(|_| invalid(name, wanted))?;
                    asked.key = Some((text, key));
                }
                said if SAID_TEXTS.contains(&said) => {
                    asked.said.insert(name.clone(), text_of(name, value, TEXT_CHARS_MAX)?.into());
                }
                said if SAID_OBJECTS.contains(&said) => {
                    if !value.is_object() {
                        return Err(invalid(name, "an object"));
                    }
                    if value.to_string().len() > OBJECT_BYTES_MAX {
                        return Err(invalid(name, &format!("at most {OBJECT_BYTES_MAX} bytes of JSON")));
                    }
                    asked.said.insert(name.clone(), value.clone());
                }
                // Read-only and unknown properties are ignored, as a GET that is sent back carries them.
                _ => {}
            }
        }
        Ok(asked)
    }
}

fn text_of(name: &str, value: &Value, chars_max: usize) -> Result<String, Fault> {
    match value.as_str() {
        Some(text) if text.chars().count() <= chars_max => Ok(text.to_owned()),
        Some(_) => Err(invalid(name, &format!("at most {chars_max} characters"))),
        None => Err(invalid(name, "a string")),
    }
}

fn require_system_assigned(identity: Option<&Value>) -> Result<(), Fault> {
    let kind = identity.and_then(|identity| identity.get("type")).and_then(Value::as_str);
    match kind {
        Some(kind) if kind.eq_ignore_ascii_case("SystemAssigned") => Ok(()),
        Some(_) => {
            Err(invalid("identity.type", "'SystemAssigned', the only identity that machines have here"))
        }
        None => Err(missing("identity.type")),
    }
}

fn missing(name: &str) -> Fault {
    Fault::bad_request("InvalidParameter", format!("The property '{name}' is required to connect a machine."))
}

fn invalid(name: &str, wanted: &str) -> Fault {
    Fault::bad_request("InvalidParameter", format!("The property '{name}' must be {wanted}."))
}

fn taken(id: &ArmId, why: &str) -> Fault {
    Fault::conflict(
        "HCRP409",
        format!(
            "The machine resource '{id}' already exists and {why}. Connect under another name, or delete the \
             resource first; a new identity is then made, which holds none of the old one's roles."
        ),
    )
}
