//! A resource kind is declared once; rows, names, tags, lists, deletion and `read|write|delete` follow from it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use arcadia_kernel::{
    Action, ArmId, AuditStamp, Caller, CallerKind, Entropy, Fault, HeaderName, HeaderValue, Op, Plane,
    StatusCode,
};
use arcadia_store::{Batch, Record, Store, Table};
use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Arm;
use crate::size::{json_bytes, text_bytes};

/// Every stored resource of every kind, by identifier.
pub const RESOURCES: Table<ArmId, Resource> = Table::new("arm/resources");

/// One stored resource of any kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    pub id: ArmId,
    /// The short form (`eastus`); empty where a kind has no location.
    pub location: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sku: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The kind's own stored form.
    pub properties: Value,
    pub created_at: Timestamp,
    /// Empty where nobody is known ([`Resource::found`]).
    pub created_by: String,
    /// `User`, `Application` or `ManagedIdentity`, as `systemData` words it.
    pub created_by_type: String,
    pub modified_at: Timestamp,
    pub modified_by: String,
    pub modified_by_type: String,
}

impl Record for Resource {}

impl Resource {
    /// The resource as `desired` describes it: what it does not mention of location, identity, sku and kind
    /// stays as it is in `current`, tags are replaced, `properties` are the kind's own.
    pub fn planned(plan: &Plan<'_>, current: Option<&Resource>, desired: Desired, properties: Value) -> Self {
        let (by, by_type) = (caller_name(plan.caller), caller_type(plan.caller).to_owned());
        let created = current.map(|c| (c.created_at, c.created_by.clone(), c.created_by_type.clone()));
        let (created_at, created_by, created_by_type) =
            created.unwrap_or_else(|| (plan.now, by.clone(), by_type.clone()));
        let kept = |new: Option<Value>, old: fn(&Resource) -> &Option<Value>| {
            new.or_else(|| current.and_then(|c| old(c).clone()))
        };
        Self {
            id: current.map_or_else(|| plan.id.clone(), |c| c.id.clone()),
            location: current.map(|c| c.location.clone()).or(desired.location).unwrap_or_default(),
            tags: desired.tags.unwrap_or_default(),
            identity: kept(desired.identity, |c| &c.identity),
            sku: kept(desired.sku, |c| &c.sku),
            kind: desired.kind.or_else(|| current.and_then(|c| c.kind.clone())),
            properties,
            created_at,
            created_by,
            created_by_type,
            modified_at: plan.now,
            modified_by: by,
            modified_by_type: by_type,
        }
    }

    /// What was made in its parent, by nobody that the resource manager knows, and found there at this time.
    pub fn found(id: ArmId, properties: Value, now: Timestamp) -> Self {
        Self {
            id,
            location: String::new(),
            tags: BTreeMap::new(),
            identity: None,
            sku: None,
            kind: None,
            properties,
            created_at: now,
            created_by: String::new(),
            created_by_type: String::new(),
            modified_at: now,
            modified_by: String::new(),
            modified_by_type: String::new(),
        }
    }

    /// What of it a client can make grow, as JSON.
    pub(crate) fn bytes(&self) -> usize {
        let tags = self.tags.iter().map(|(name, value)| text_bytes(name) + text_bytes(value));
        let objects = [&self.identity, &self.sku].into_iter().flatten().map(json_bytes);
        json_bytes(&self.properties) + tags.sum::<usize>() + objects.sum::<usize>()
    }
}

/// Who did it, in the words of `systemData`: a user principal name, else an application id.
pub fn caller_name(caller: &Caller) -> String {
    caller.name.clone()
}

/// `createdByType` of `systemData`.
pub fn caller_type(caller: &Caller) -> &'static str {
    match caller.kind {
        CallerKind::User => "User",
        CallerKind::ManagedIdentity => "ManagedIdentity",
        CallerKind::Application | CallerKind::KeyHolder | CallerKind::Anonymous | CallerKind::System => {
            "Application"
        }
    }
}

/// A resource as a client wants it: the body of PUT and PATCH.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// Folded to the short form (`East US` is `eastus`).
    pub location: Option<String>,
    pub tags: Option<BTreeMap<String, String>>,
    pub identity: Option<Value>,
    pub sku: Option<Value>,
    pub kind: Option<String>,
    /// `{}` when absent.
    pub properties: Value,
    /// Other top-level fields of the body.
    pub extra: Map<String, Value>,
}

/// One change of one resource: who, when, and the batch it is committed in.
pub struct Plan<'a> {
    pub id: &'a ArmId,
    pub api_version: &'a str,
    pub caller: &'a Caller,
    pub now: Timestamp,
    pub entropy: &'a dyn Entropy,
    pub stamp: &'a AuditStamp,
    pub store: &'a Store,
    /// Rows that belong to the change; they are in the same commit as the resource.
    pub batch: &'a mut Batch,
}

/// What names of a kind look like.
#[derive(Clone, Copy, Debug)]
pub struct NameRule {
    pub chars_min: usize,
    pub chars_max: usize,
    /// The pattern as it is shown to a client whose name is refused.
    pub pattern: &'static str,
    /// Whether the characters fit; lengths are checked apart.
    pub check: fn(&str) -> bool,
}

impl NameRule {
    pub fn accepts(&self, name: &str) -> bool {
        (self.chars_min..=self.chars_max).contains(&name.chars().count()) && (self.check)(name)
    }
}

/// A kind of resource. The engine checks the identifier, name, group, location, tags and preconditions, keeps
/// `systemData`, commits, lists, and words the errors; a kind says what its properties mean.
#[async_trait]
pub trait ResourceKind: Send + Sync + 'static {
    /// `Microsoft.KeyVault/vaults`; nested types join with `/`.
    const TYPE: &'static str;
    /// What `GET /providers/{namespace}` lists, newest first; any well-formed version is served.
    const API_VERSIONS: &'static [&'static str];
    const NAME_RULE: NameRule;
    /// Whether a PUT must name a location.
    const LOCATED: bool = true;
    /// Whether PUT, PATCH and DELETE are answered with 202 once they are committed, and carried out by
    /// [`ResourceKind::finish`] and [`ResourceKind::tear_down`] in the background. Until then the resource takes
    /// no other change.
    const ASYNCHRONOUS: bool = false;

    /// Checks and plans the resource as it shall be. Rows added to `plan.batch` are in the same commit. May run
    /// more than once for one request, when another request changed the resource in between.
    async fn put(
        &self,
        plan: &mut Plan<'_>,
        current: Option<&Resource>,
        desired: Desired,
    ) -> Result<Resource, Fault>;

    /// Whether a PUT of what is not there asks for what was deleted to come back. That is nothing new, for which alone
    /// a namespace is registered.
    fn recovers(&self, _desired: &Desired) -> bool {
        false
    }

    /// Merges tags, identity, sku and properties (RFC 7396) over the current resource, then puts.
    async fn patch(
        &self,
        plan: &mut Plan<'_>,
        current: &Resource,
        change: Desired,
    ) -> Result<Resource, Fault> {
        self.put(plan, Some(current), merged(current, change)).await
    }

    /// Adds what else must go to `plan.batch`. The engine deletes the row, the role assignments at and below it
    /// and, each by its own kind, the nested resources.
    async fn delete(&self, plan: &mut Plan<'_>, current: &Resource) -> Result<(), Fault>;

    /// Of an asynchronous kind: makes real what a committed PUT or PATCH describes, and returns the properties to
    /// store from now on. Runs again after a failure or a restart, so every step must stand being repeated. A
    /// fault of the client's (4xx) ends the operation, and what was committed is undone; any other is tried
    /// again.
    async fn finish(&self, resource: &Resource) -> Result<Value, Fault> {
        Ok(resource.properties.clone())
    }

    /// Takes down what stands behind a resource that is about to be deleted, with all that is nested in it. The
    /// rows go when this has succeeded; until then it may run again.
    async fn tear_down(&self, _resource: &Resource) -> Result<(), Fault> {
        Ok(())
    }

    /// Of a nested asynchronous kind: what is really there in the parent and has no row, because it was made there and
    /// not through the resource manager. It is read and listed like what has a row, and deleted like it. `beside` is
    /// the path of the list. May be asked for every list, so it must be quick and bounded.
    async fn unrecorded(&self, _beside: &ArmId) -> Result<Vec<Resource>, Fault> {
        Ok(Vec::new())
    }

    /// What an asynchronous kind calls an operation in the body of its 202.
    fn operation_name(&self, deletes: bool) -> &'static str {
        if deletes { "Delete" } else { "Upsert" }
    }

    /// `properties` as clients of `api_version` see them.
    fn properties(&self, resource: &Resource, api_version: &str) -> Value;

    fn put_status(&self, created: bool) -> StatusCode {
        if created { StatusCode::CREATED } else { StatusCode::OK }
    }

    fn put_headers(&self, _resource: &Resource) -> Vec<(HeaderName, HeaderValue)> {
        Vec::new()
    }

    /// Further rows: POST actions, deleted resources, name checks. Handlers capture their own `Arc`.
    fn extra_ops(self: Arc<Self>) -> Vec<Op<Arm>>
    where
        Self: Sized,
    {
        Vec::new()
    }
}

/// The body of a PUT that leaves `current` with `change` applied.
pub fn merged(current: &Resource, change: Desired) -> Desired {
    let mut properties = current.properties.clone();
    merge_json(&mut properties, change.properties);
    let over = |old: &Option<Value>, new: Option<Value>| match (old, new) {
        (Some(old), Some(new)) => {
            let mut merged = old.clone();
            merge_json(&mut merged, new);
            Some(merged)
        }
        (old, new) => new.or_else(|| old.clone()),
    };
    Desired {
        location: Some(current.location.clone()).filter(|location| !location.is_empty()),
        tags: Some(change.tags.unwrap_or_else(|| current.tags.clone())),
        identity: over(&current.identity, change.identity),
        sku: over(&current.sku, change.sku),
        kind: change.kind.or_else(|| current.kind.clone()),
        properties,
        extra: change.extra,
    }
}

/// JSON merge patch (RFC 7396). The depth is bounded by the parser that made `patch`.
pub fn merge_json(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(fields) = target {
        for (name, value) in patch {
            if value.is_null() {
                fields.remove(&name);
            } else {
                merge_json(fields.entry(name).or_insert(Value::Null), value);
            }
        }
    }
}

/// `{TYPE}/read`.
pub struct Read<K>(PhantomData<fn() -> K>);
/// `{TYPE}/write`.
pub struct Write<K>(PhantomData<fn() -> K>);
/// `{TYPE}/delete`.
pub struct Delete<K>(PhantomData<fn() -> K>);

impl<K: ResourceKind> Action for Read<K> {
    const PLANE: Plane = Plane::Control;
    fn name() -> Cow<'static, str> {
        format!("{}/read", K::TYPE).into()
    }
}

impl<K: ResourceKind> Action for Write<K> {
    const PLANE: Plane = Plane::Control;
    fn name() -> Cow<'static, str> {
        format!("{}/write", K::TYPE).into()
    }
}

impl<K: ResourceKind> Action for Delete<K> {
    const PLANE: Plane = Plane::Control;
    fn name() -> Cow<'static, str> {
        format!("{}/delete", K::TYPE).into()
    }
}

/// A kind without its type: what the engine keeps in its table of kinds.
#[async_trait]
pub trait AnyKind: Send + Sync + 'static {
    fn type_name(&self) -> &'static str;
    fn api_versions(&self) -> &'static [&'static str];
    fn name_rule(&self) -> NameRule;
    fn located(&self) -> bool;
    fn asynchronous(&self) -> bool;
    async fn put(
        &self,
        plan: &mut Plan<'_>,
        current: Option<&Resource>,
        desired: Desired,
    ) -> Result<Resource, Fault>;
    fn recovers(&self, desired: &Desired) -> bool;
    async fn patch(
        &self,
        plan: &mut Plan<'_>,
        current: &Resource,
        change: Desired,
    ) -> Result<Resource, Fault>;
    async fn delete(&self, plan: &mut Plan<'_>, current: &Resource) -> Result<(), Fault>;
    async fn finish(&self, resource: &Resource) -> Result<Value, Fault>;
    async fn tear_down(&self, resource: &Resource) -> Result<(), Fault>;
    async fn unrecorded(&self, beside: &ArmId) -> Result<Vec<Resource>, Fault>;
    fn operation_name(&self, deletes: bool) -> &'static str;
    fn properties(&self, resource: &Resource, api_version: &str) -> Value;
    fn put_status(&self, created: bool) -> StatusCode;
    fn put_headers(&self, resource: &Resource) -> Vec<(HeaderName, HeaderValue)>;
    /// The rows of the kind: derived ones first, then its own.
    fn ops(&self) -> Vec<Op<Arm>>;
    /// The rows that register its namespace, for one of the kinds in it.
    fn namespace_ops(&self) -> Vec<Op<Arm>>;
}

/// Erases a kind's type for [`Arm::open`].
pub fn registered<K: ResourceKind>(kind: Arc<K>) -> Arc<dyn AnyKind> {
    Arc::new(Erased(kind))
}

struct Erased<K>(Arc<K>);

#[async_trait]
impl<K: ResourceKind> AnyKind for Erased<K> {
    fn type_name(&self) -> &'static str {
        K::TYPE
    }

    fn api_versions(&self) -> &'static [&'static str] {
        K::API_VERSIONS
    }

    fn name_rule(&self) -> NameRule {
        K::NAME_RULE
    }

    fn located(&self) -> bool {
        K::LOCATED
    }

    fn asynchronous(&self) -> bool {
        K::ASYNCHRONOUS
    }

    async fn put(
        &self,
        plan: &mut Plan<'_>,
        current: Option<&Resource>,
        desired: Desired,
    ) -> Result<Resource, Fault> {
        self.0.put(plan, current, desired).await
    }

    fn recovers(&self, desired: &Desired) -> bool {
        self.0.recovers(desired)
    }

    async fn patch(
        &self,
        plan: &mut Plan<'_>,
        current: &Resource,
        change: Desired,
    ) -> Result<Resource, Fault> {
        self.0.patch(plan, current, change).await
    }

    async fn delete(&self, plan: &mut Plan<'_>, current: &Resource) -> Result<(), Fault> {
        self.0.delete(plan, current).await
    }

    async fn finish(&self, resource: &Resource) -> Result<Value, Fault> {
        self.0.finish(resource).await
    }

    async fn tear_down(&self, resource: &Resource) -> Result<(), Fault> {
        self.0.tear_down(resource).await
    }

    async fn unrecorded(&self, beside: &ArmId) -> Result<Vec<Resource>, Fault> {
        self.0.unrecorded(beside).await
    }

    fn operation_name(&self, deletes: bool) -> &'static str {
        self.0.operation_name(deletes)
    }

    fn properties(&self, resource: &Resource, api_version: &str) -> Value {
        self.0.properties(resource, api_version)
    }

    fn put_status(&self, created: bool) -> StatusCode {
        self.0.put_status(created)
    }

    fn put_headers(&self, resource: &Resource) -> Vec<(HeaderName, HeaderValue)> {
        self.0.put_headers(resource)
    }

    fn ops(&self) -> Vec<Op<Arm>> {
        let mut rows = crate::engine::rows::<K>();
        rows.extend(self.0.clone().extra_ops());
        rows
    }

    fn namespace_ops(&self) -> Vec<Op<Arm>> {
        crate::providers::rows_of::<K>()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_removes_null_and_keeps_the_rest() {
        let mut target = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge_json(&mut target, json!({"a": {"b": null, "e": 3}, "d": [2], "f": {"g": null}}));
        assert_eq!(target, json!({"a": {"c": 2, "e": 3}, "d": [2], "f": {}}));
    }
}
