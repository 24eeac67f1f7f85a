//! The service: what it keeps, how it is opened, and how it speaks.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use arcadia_crypto::KeyRing;
use arcadia_kernel::Access as Needs;
use arcadia_kernel::{
    ArmId, AuthFailure, Caller, Clock, Decider, Denial, Entropy, EntropyExt as _, Fault, Gate, HeaderName,
    HeaderValue, Located, OpInfo, Permit, Question, Reply, RequestHead, Service, StatusCode, SystemWork,
    header,
};
use arcadia_store::{Batch, Change, Row, Store, StoreError};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::access::{Access, Explanation};
use crate::catalogue::Actions;
use crate::error;
use crate::kind::{AnyKind, RESOURCES, Resource};
use crate::names::ArmNames;
use crate::principal::{PrincipalSource, PrincipalType};
use crate::roles::{self, ASSIGNMENTS, Assignment, CUSTOM_ROLES, RoleDefinition, builtin_roles};
use crate::subscriptions::{SUBSCRIPTIONS, Subscription};
use crate::version;
use crate::worker;

/// The longest client request id that is sent back, in bytes.
const CLIENT_REQUEST_ID_BYTES_MAX: usize = 128;

type Subscriptions = Arc<RwLock<BTreeMap<Uuid, Subscription>>>;

/// Azure Resource Manager: subscriptions, groups, resources of every kind, roles, and the access decision.
pub struct Arm {
    pub(crate) store: Store,
    pub(crate) names: ArmNames,
    pub(crate) directory: Arc<dyn PrincipalSource>,
    pub(crate) access: Arc<Access>,
    pub(crate) wake: Arc<Notify>,
    pub(crate) actions: RwLock<Actions>,
    /// By folded type.
    kinds: BTreeMap<String, Arc<dyn AnyKind>>,
    subscriptions: Subscriptions,
    clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// What tokens of lists are sealed with. They end with the process.
    pub(crate) page_keys: KeyRing,
    /// What tags of resources are made with, as long as the process lives.
    pub(crate) etag_key: [u8; 32],
}

/// What the first `up` makes.
#[derive(Clone, Debug)]
pub struct Founding {
    pub tenant_id: Uuid,
    pub subscription_id: Uuid,
    pub display_name: String,
    /// Become `Owner` of the subscription.
    pub owners: Vec<(Uuid, PrincipalType)>,
}

impl Arm {
    /// Reads subscriptions, role definitions and role assignments into memory and follows their changes.
    pub async fn open(
        store: Store,
        names: ArmNames,
        directory: Arc<dyn PrincipalSource>,
        kinds: Vec<Arc<dyn AnyKind>>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Arc<Self>, StoreError> {
        let access = Arc::new(Access::new(directory.clone(), builtin_roles()));
        let subscriptions = Subscriptions::default();
        follow(&store, &access, &subscriptions);
        for row in store.all(SUBSCRIPTIONS, &()).await? {
            lock(&subscriptions).insert(row.value.id, row.value);
        }
        for row in store.all(CUSTOM_ROLES, &()).await? {
            access.set_role(row.value.id, Some(Arc::new(row.value)));
        }
        for row in store.all(ASSIGNMENTS, &()).await? {
            access.set_assignment(None, Some(&row.value));
        }
        let kinds = kinds.into_iter().map(|kind| (kind.type_name().to_lowercase(), kind)).collect();
        let wake = Arc::new(Notify::new());
        let actions = RwLock::default();
        let page_keys = KeyRing::generate(&*entropy).map_err(|fault| StoreError::Backend {
            task: "make a key for the tokens of lists",
            source: Arc::new(fault.into()),
        })?;
        let mut etag_key = [0; 32];
        entropy.fill(&mut etag_key);
        Ok(Arc::new(Self {
            store,
            names,
            directory,
            access,
            wake,
            actions,
            kinds,
            subscriptions,
            clock,
            entropy,
            page_keys,
            etag_key,
        }))
    }

    /// Makes the first subscription and its owners, in one commit. Where the subscription exists this changes
    /// nothing: an owner that was removed since stays removed.
    pub async fn found(&self, permit: Permit<SystemWork>, founding: Founding) -> Result<(), Fault> {
        if self.subscription(founding.subscription_id).is_some() {
            return Ok(());
        }
        let subscription = Subscription {
            id: founding.subscription_id,
            tenant_id: founding.tenant_id,
            display_name: founding.display_name,
            created_at: permit.now(),
        };
        let mut batch = Batch::new();
        batch.require_absent(SUBSCRIPTIONS, &subscription.id);
        batch.put(SUBSCRIPTIONS, &subscription.id, &subscription)?;
        let id = founding.subscription_id.to_string();
        let scope = ArmId::from_segments(["subscriptions", &id]).map_err(Fault::internal)?;
        for (principal_id, principal_type) in founding.owners {
            let assignment = Assignment {
                name: self.entropy.uuid(),
                scope: scope.clone(),
                role_id: roles::OWNER_ROLE,
                principal_id,
                principal_type,
                condition: None,
                condition_version: None,
                description: None,
                created_on: permit.now(),
                updated_on: permit.now(),
                created_by: Uuid::nil(),
                updated_by: Uuid::nil(),
            };
            roles::put_founding(&assignment, &mut batch)?;
        }
        self.store.commit(permit.stamp(), batch).await?;
        Ok(())
    }

    /// The role engine for [`arcadia_kernel::Plane::Control`] and [`arcadia_kernel::Plane::Data`]; anything
    /// else it denies.
    pub fn decider(&self) -> Arc<dyn Decider> {
        self.access.clone()
    }

    /// Why a decision is as it is.
    pub fn explain(&self, question: &Question<'_>) -> Explanation {
        self.access.explain(question)
    }

    /// Takes up unfinished asynchronous operations and runs new ones, until this `Arm` is dropped.
    pub async fn start(self: &Arc<Self>, gate: Arc<Gate>) {
        tokio::spawn(worker::work(Arc::downgrade(self), self.wake.clone(), gate));
    }

    /// One resource of any kind.
    pub async fn resource(&self, id: &ArmId) -> Result<Option<Row<Resource>>, StoreError> {
        self.store.get(RESOURCES, id).await
    }

    pub(crate) fn kinds(&self) -> impl Iterator<Item = &Arc<dyn AnyKind>> {
        self.kinds.values()
    }

    pub(crate) fn kind(&self, type_name: &str) -> Result<Arc<dyn AnyKind>, Fault> {
        self.kinds
            .get(&type_name.to_lowercase())
            .cloned()
            .ok_or_else(|| Fault::internal(format!("the kind {type_name} has rows but is not registered")))
    }

    pub(crate) fn kind_of(&self, id: &ArmId) -> Option<Arc<dyn AnyKind>> {
        self.kinds.get(&id.resource_type()?.to_lowercase()).cloned()
    }

    /// Whether the identifier is one of a resource of a registered kind.
    pub(crate) fn is_kind(&self, id: &ArmId) -> bool {
        let after = id.segments().rev().take_while(|s| !s.eq_ignore_ascii_case("providers")).count();
        after % 2 == 1 && self.kind_of(id).is_some()
    }

    /// The resource that the scope is, or is inside of: the longest part of it that is of a registered kind.
    pub(crate) fn resource_holding(&self, scope: &ArmId) -> Option<ArmId> {
        let mut part = Some(scope.clone());
        while let Some(id) = part {
            id.resource_group()?;
            if self.is_kind(&id) {
                return Some(id);
            }
            part = id.parent();
        }
        None
    }

    pub(crate) fn subscription(&self, id: Uuid) -> Option<Subscription> {
        self.subscriptions.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    pub(crate) fn all_subscriptions(&self) -> Vec<Subscription> {
        self.subscriptions.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn known_subscription(&self, text: &str) -> Result<Subscription, Fault> {
        // Other ways of writing a UUID would be other scopes, with none of this one's roles and resources.
        let hyphenated = |id: &Uuid| id.hyphenated().to_string().eq_ignore_ascii_case(text);
        let id = Uuid::try_parse(text).ok().filter(hyphenated).ok_or_else(|| {
            let message = format!(
                "The provided subscription identifier '{}' is malformed or invalid.",
                error::shown(text)
            );
            Fault::bad_request("InvalidSubscriptionId", message)
        })?;
        self.subscription(id).ok_or_else(|| error::subscription_not_found(text))
    }

    /// `what` completes "is not available for"; `code` is the service's own.
    pub(crate) fn check_location(&self, folded: &str, what: &str, code: &'static str) -> Result<(), Fault> {
        if self.names.locations.iter().any(|known| known.name == folded) {
            return Ok(());
        }
        let known: Vec<&str> = self.names.locations.iter().map(|known| known.name.as_str()).collect();
        let message = format!(
            "The provided location '{}' is not available for {what}. List of available regions is '{}'.",
            error::shown(folded),
            known.join(",")
        );
        Err(Fault::bad_request(code, message))
    }

    /// 409 when the subscription gave up the namespace of a resource that is about to be created. What is nested in
    /// another belongs to one that is there already.
    pub(crate) async fn check_registered(&self, id: &ArmId) -> Result<(), Fault> {
        let type_name = id.resource_type().unwrap_or_default();
        let Some((namespace, name)) = type_name.split_once('/') else { return Ok(()) };
        let Some(subscription) = id.subscription().and_then(|s| Uuid::try_parse(s).ok()) else {
            return Ok(());
        };
        if name.contains('/') || self.registered(subscription, namespace).await? {
            return Ok(());
        }
        let message = format!(
            "The subscription is not registered to use namespace '{namespace}'. See \
             https://aka.ms/rps-not-found for how to register subscriptions."
        );
        Err(Fault::conflict("MissingSubscriptionRegistration", message))
    }
}

impl Drop for Arm {
    fn drop(&mut self) {
        // The worker holds a reference only while it carries something out; woken, it sees that nothing is left to work for.
        self.wake.notify_one();
    }
}

fn lock(subscriptions: &Subscriptions) -> std::sync::RwLockWriteGuard<'_, BTreeMap<Uuid, Subscription>> {
    subscriptions.write().unwrap_or_else(PoisonError::into_inner)
}

fn follow(store: &Store, access: &Arc<Access>, subscriptions: &Subscriptions) {
    let seen = subscriptions.clone();
    store.observe(SUBSCRIPTIONS, move |changes: &[Change<Subscription>]| {
        for change in changes {
            match (&change.before, &change.after) {
                (_, Some(after)) => lock(&seen).insert(after.id, after.clone()),
                (Some(before), None) => lock(&seen).remove(&before.id),
                (None, None) => None,
            };
        }
    });
    // The engine leads to the directory, and so to the store: it is not kept alive by what the store holds.
    let engine = Arc::downgrade(access);
    store.observe(CUSTOM_ROLES, move |changes: &[Change<RoleDefinition>]| {
        let Some(engine) = engine.upgrade() else { return };
        for change in changes {
            if let Some(role) = change.after.as_ref().or(change.before.as_ref()) {
                engine.set_role(role.id, change.after.clone().map(Arc::new));
            }
        }
    });
    let engine = Arc::downgrade(access);
    store.observe(ASSIGNMENTS, move |changes: &[Change<Assignment>]| {
        let Some(engine) = engine.upgrade() else { return };
        for change in changes {
            engine.set_assignment(change.before.as_ref(), change.after.as_ref());
        }
    });
}

/// The scope that a path is decided on: the path itself, or for a list, an action or a name check the resource
/// or container that it is of.
fn decided_scope(segments: &[String]) -> Result<ArmId, Fault> {
    let malformed =
        |_| Fault::bad_request("InvalidResourceId", "The request path is not a well formed identifier.");
    let providers = segments.iter().rposition(|segment| segment.eq_ignore_ascii_case("providers"));
    let kept = match providers {
        // After `providers`: a namespace and pairs of type and name; what is left over is not part of the scope.
        Some(at) => match segments.len() - at - 1 {
            0..=2 => at,
            after if after % 2 == 1 => segments.len(),
            _ => segments.len() - 1,
        },
        // Containers are pairs too: subscriptions/{id}, resourceGroups/{name}.
        None => segments.len() - segments.len() % 2,
    };
    ArmId::from_segments(segments[..kept].iter().map(String::as_str)).map_err(malformed)
}

impl Service for Arm {
    type Target = ();
    const NAME: &'static str = "arm";

    fn audiences(&self, _: &RequestHead) -> Vec<Cow<'_, str>> {
        self.names.audiences.iter().map(Cow::from).collect()
    }

    fn locate(&self, op: &OpInfo, head: &RequestHead) -> Result<Located<()>, Fault> {
        if matches!(op.access, Needs::Public { .. }) {
            return Ok(Located { scope: ArmId::root(), target: () });
        }
        version::required(&head.query)?;
        let scope = decided_scope(&head.segments)?;
        if let Some(subscription) = scope.subscription() {
            self.known_subscription(subscription)?;
        }
        Ok(Located { scope, target: () })
    }

    fn challenge(&self, _: &RequestHead, failure: &AuthFailure) -> Fault {
        error::challenge(&self.names, self.directory.tenant().id, failure)
    }

    fn refuse(&self, _: &RequestHead, caller: &Caller, denial: &Denial) -> Fault {
        error::refused(caller, denial)
    }

    fn no_such_operation(&self, head: &RequestHead, other_method_fits: bool) -> Fault {
        if other_method_fits {
            let message = format!("The HTTP method '{}' is not supported at this path.", head.method);
            return Fault::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message);
        }
        if let Err(fault) = version::required(&head.query) {
            return fault;
        }
        if let Some(fault) = head
            .segments
            .first()
            .filter(|first| first.eq_ignore_ascii_case("subscriptions"))
            .and_then(|_| self.known_subscription(head.segments.get(1)?).err())
        {
            return fault;
        }
        self.no_such_type(head)
    }

    fn render(&self, _: &RequestHead, fault: &Fault) -> Reply {
        error::render(fault)
    }

    fn finish(&self, head: &RequestHead, reply: &mut Reply) {
        let id = head.request_id.to_string();
        let correlation = head
            .header_named("x-ms-correlation-request-id")
            .and_then(|text| Uuid::try_parse(text).ok())
            .map_or_else(|| id.clone(), |given| given.to_string());
        let routing = format!("ARCADIA:{}:{id}", self.clock.now().strftime("%Y%m%dT%H%M%SZ"));
        let client_id = head
            .header_named("x-ms-client-request-id")
            .filter(|text| text.len() <= CLIENT_REQUEST_ID_BYTES_MAX);
        let headers = [
            ("x-ms-request-id", id.as_str()),
            ("x-ms-correlation-request-id", correlation.as_str()),
            ("x-ms-routing-request-id", routing.as_str()),
            ("cache-control", "no-cache"),
            ("pragma", "no-cache"),
            ("expires", "-1"),
            ("strict-transport-security", "max-age=31536000; includeSubDomains"),
            ("x-content-type-options", "nosniff"),
        ];
        let echo = client_id.map(|text| ("x-ms-client-request-id", text));
        for (name, value) in headers.into_iter().chain(echo) {
            if let Ok(value) = HeaderValue::from_str(value) {
                reply.headers.insert(HeaderName::from_static(name), value);
            }
        }
        if reply.status == StatusCode::NO_CONTENT {
            reply.headers.remove(header::CONTENT_TYPE);
        }
    }
}

impl Arm {
    fn no_such_type(&self, head: &RequestHead) -> Fault {
        let at = head.segments.iter().rposition(|s| s.eq_ignore_ascii_case("providers"));
        let after = at.map_or(&[][..], |at| &head.segments[at + 1..]);
        let Some(namespace) = after.first() else {
            let message = format!("The requested path '{}' does not exist.", error::shown(&head.path));
            return Fault::not_found("NotFound", message);
        };
        if !self.serves_namespace(namespace) {
            let message = format!("The resource namespace '{}' is invalid.", error::shown(namespace));
            return Fault::not_found("InvalidResourceNamespace", message);
        }
        let types: Vec<&str> = after[1..].iter().step_by(2).map(String::as_str).collect();
        let message = format!(
            "The resource type '{}' could not be found in the namespace '{}' for api version '{}'.",
            error::shown(&types.join("/")),
            error::shown(namespace),
            error::shown(head.query.first("api-version").unwrap_or_default())
        );
        Fault::not_found("InvalidResourceType", message)
    }
}

#[cfg(test)]
mod tests {
    use arcadia_kernel::split_path;

    use super::*;

    fn scope(path: &str) -> String {
        decided_scope(&split_path(path).unwrap()).unwrap().to_string()
    }

    #[test]
    fn lists_and_actions_are_decided_on_what_they_are_of() {
        let group = "/subscriptions/s/resourceGroups/rg";
        let vault = format!("{group}/providers/Microsoft.KeyVault/vaults/v");
        assert_eq!(scope(&vault), vault);
        assert_eq!(scope(&format!("{group}/providers/Microsoft.KeyVault/vaults")), group);
        assert_eq!(scope(&format!("{group}/providers/Microsoft.KeyVault//vaults/v/")), vault);
        assert_eq!(scope(&format!("{vault}/listKeys")), vault);
        assert_eq!(scope(&format!("{vault}/secrets/s")), format!("{vault}/secrets/s"));
        assert_eq!(scope(&format!("{vault}/providers/Microsoft.Authorization/roleAssignments")), vault);
        assert_eq!(scope(&format!("{group}/resources")), group);
        assert_eq!(scope("/subscriptions/s/resourceGroups"), "/subscriptions/s");
        assert_eq!(
            scope("/subscriptions/s/providers/Microsoft.KeyVault/checkNameAvailability"),
            "/subscriptions/s"
        );
        assert_eq!(scope("/subscriptions/s/providers/Microsoft.KeyVault"), "/subscriptions/s");
        assert_eq!(scope("/subscriptions/s/providers"), "/subscriptions/s");
        assert_eq!(scope("/subscriptions"), "/");
        assert_eq!(
            scope("/providers/Microsoft.Authorization/roleAssignments/x"),
            "/providers/Microsoft.Authorization/roleAssignments/x"
        );
    }
}
