//! Resource providers: which types there are, and whether a subscription uses them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::marker::PhantomData;

use arcadia_kernel::{
    Action, ArmId, At, Fault, Method, Op, Permit, Plane, Reply, Request, SignedIn, action, op, signed_in,
};
use arcadia_store::{Batch, PAGE_ROWS_MAX, Record, Table};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Arm;
use crate::engine::kept;
use crate::error;
use crate::kind::{RESOURCES, ResourceKind};

/// Which namespaces a subscription registered or gave up, by folded namespace. Without a row it is registered.
pub(crate) const REGISTRATIONS: Table<(Uuid, String), Registration> = Table::new("arm/registrations");

action!(pub(crate) ReadProviders, Control, "Microsoft.Resources/subscriptions/providers/read");
// Of the namespaces that hold no resources, which need no registration.
action!(pub(crate) RegisterProvider, Control, "Microsoft.Resources/subscriptions/providers/register/action");
action!(pub(crate) UnregisterProvider, Control, "Microsoft.Resources/subscriptions/providers/unregister/action");

/// `{namespace}/register/action`, of the namespace of a kind.
pub(crate) struct Register<K>(PhantomData<fn() -> K>);
/// `{namespace}/unregister/action`.
pub(crate) struct Unregister<K>(PhantomData<fn() -> K>);

impl<K: ResourceKind> Action for Register<K> {
    const PLANE: Plane = Plane::Control;
    fn name() -> Cow<'static, str> {
        format!("{}/register/action", namespace_of(K::TYPE)).into()
    }
}

impl<K: ResourceKind> Action for Unregister<K> {
    const PLANE: Plane = Plane::Control;
    fn name() -> Cow<'static, str> {
        format!("{}/unregister/action", namespace_of(K::TYPE)).into()
    }
}

pub(crate) fn namespace_of(type_name: &str) -> &str {
    type_name.split('/').next().unwrap_or_default()
}

fn is_of(id: &ArmId, namespace: &str) -> bool {
    id.resource_type().is_some_and(|found| namespace_of(&found).eq_ignore_ascii_case(namespace))
}

/// Every subscription uses these, and none registers them.
fn is_registration_free(namespace: &str) -> bool {
    ["Microsoft.Authorization", "Microsoft.Resources"].iter().any(|free| free.eq_ignore_ascii_case(namespace))
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Registration {
    pub registered: bool,
}

impl Record for Registration {}

/// Types that are not resources of a kind: their rows are written by hand.
const OWN_TYPES: &[(&str, &str, &[&str])] = &[
    ("Microsoft.Authorization", "denyAssignments", &["2022-04-01", "2018-07-01-preview"]),
    ("Microsoft.Authorization", "permissions", &["2022-04-01", "2018-07-01"]),
    (
        "Microsoft.Authorization",
        "roleAssignments",
        &["2022-04-01", "2020-10-01-preview", "2018-01-01-preview"],
    ),
    (
        "Microsoft.Authorization",
        "roleDefinitions",
        &["2022-05-01-preview", "2022-04-01", "2018-01-01-preview"],
    ),
    ("Microsoft.Resources", "locations", &["2022-12-01", "2019-11-01"]),
    ("Microsoft.Resources", "operationresults", &["2024-11-01", "2020-06-01"]),
    ("Microsoft.Resources", "providers", &["2024-11-01", "2020-06-01"]),
    ("Microsoft.Resources", "resourceGroups", &["2024-11-01", "2020-06-01"]),
    ("Microsoft.Resources", "resources", &["2024-11-01", "2020-06-01"]),
    ("Microsoft.Resources", "subscriptions", &["2022-12-01", "2019-11-01"]),
    ("Microsoft.Resources", "tenants", &["2022-12-01", "2019-11-01"]),
];

pub(crate) fn rows() -> Vec<Op<Arm>> {
    const ONE: &str = "/subscriptions/{subscriptionId}/providers/{providerNamespace}";
    const BECAUSE: &str = "tells which resource types this site serves, which every client may know";
    vec![
        op("ProviderList", Method::GET, "/subscriptions/{subscriptionId}/providers", list),
        op("ProviderGet", Method::GET, ONE, get),
        op(
            "ProviderRegister",
            Method::POST,
            "/subscriptions/{subscriptionId}/providers/{providerNamespace}/register",
            register,
        ),
        op(
            "ProviderUnregister",
            Method::POST,
            "/subscriptions/{subscriptionId}/providers/{providerNamespace}/unregister",
            unregister,
        ),
        signed_in("ProviderListAtTenant", Method::GET, "/providers", BECAUSE, list_at_tenant),
        signed_in(
            "ProviderGetAtTenant",
            Method::GET,
            "/providers/{providerNamespace}",
            BECAUSE,
            get_at_tenant,
        ),
    ]
}

/// Registering the namespace of a kind, which is a right of that namespace.
pub(crate) fn rows_of<K: ResourceKind>() -> Vec<Op<Arm>> {
    let namespace = namespace_of(K::TYPE);
    let path = |verb: &str| kept(format!("/subscriptions/{{subscriptionId}}/providers/{namespace}/{verb}"));
    vec![
        op(
            format!("{namespace} register"),
            Method::POST,
            path("register"),
            |at, permit: Permit<Register<K>>, request| async move {
                set(&at, permit.stamp(), &request, namespace_of(K::TYPE), true).await
            },
        ),
        op(
            format!("{namespace} unregister"),
            Method::POST,
            path("unregister"),
            |at, permit: Permit<Unregister<K>>, request| async move {
                set(&at, permit.stamp(), &request, namespace_of(K::TYPE), false).await
            },
        ),
    ]
}

/// Namespace to types with their versions and whether they have a location.
type Catalogue = BTreeMap<String, Vec<(String, Vec<String>, bool)>>;

impl Arm {
    fn catalogue(&self) -> Catalogue {
        let mut catalogue = Catalogue::new();
        let versions = |list: &[&str]| list.iter().map(|version| (*version).to_owned()).collect();
        for (namespace, name, list) in OWN_TYPES {
            let types = catalogue.entry((*namespace).to_owned()).or_default();
            types.push(((*name).to_owned(), versions(list), false));
        }
        for kind in self.kinds() {
            if let Some((namespace, name)) = kind.type_name().split_once('/') {
                let types = catalogue.entry(namespace.to_owned()).or_default();
                types.push((name.to_owned(), versions(kind.api_versions()), kind.located()));
            }
        }
        catalogue
    }

    pub(crate) fn serves_namespace(&self, namespace: &str) -> bool {
        self.catalogue().keys().any(|known| known.eq_ignore_ascii_case(namespace))
    }

    fn namespace_spelling(&self, namespace: &str) -> Result<String, Fault> {
        let known = self.catalogue().into_keys().find(|known| known.eq_ignore_ascii_case(namespace));
        known.ok_or_else(|| {
            let message = format!("The resource namespace '{}' is invalid.", error::shown(namespace));
            Fault::not_found("InvalidResourceNamespace", message)
        })
    }

    fn provider(&self, namespace: &str, registration: Option<(&str, bool)>) -> Value {
        let regions: Vec<&str> = self.names.locations.iter().map(|l| l.display_name.as_str()).collect();
        let types: Vec<Value> = self
            .catalogue()
            .remove(namespace)
            .unwrap_or_default()
            .into_iter()
            .map(|(name, versions, located)| {
                json!({
                    "resourceType": name,
                    "locations": if located { regions.as_slice() } else { &[] },
                    "apiVersions": versions,
                    "defaultApiVersion": versions.first(),
                    "capabilities": if located { "SupportsTags, SupportsLocation" } else { "None" },
                })
            })
            .collect();
        let mut view = json!({ "namespace": namespace, "resourceTypes": types });
        if let Some((subscription, registered)) = registration {
            view["id"] = format!("/subscriptions/{subscription}/providers/{namespace}").into();
            view["registrationState"] = if registered { "Registered" } else { "NotRegistered" }.into();
            let free = is_registration_free(namespace);
            view["registrationPolicy"] =
                if free { "RegistrationFree" } else { "RegistrationRequired" }.into();
        } else {
            view["id"] = format!("/providers/{namespace}").into();
        }
        view
    }

    pub(crate) async fn registered(&self, subscription: Uuid, namespace: &str) -> Result<bool, Fault> {
        if is_registration_free(namespace) {
            return Ok(true);
        }
        let row = self.store.get(REGISTRATIONS, &(subscription, namespace.to_lowercase())).await?;
        Ok(row.is_none_or(|row| row.value.registered))
    }

    /// 409 where a subscription cannot do without a namespace. What is created at the same moment stays: what is there
    /// needs no registration.
    async fn check_unused(&self, subscription: Uuid, namespace: &str) -> Result<(), Fault> {
        if is_registration_free(namespace) {
            let message = format!(
                "The resource namespace '{namespace}' is registration free: every subscription uses it, and none can \
                 be unregistered from it."
            );
            return Err(Fault::conflict("CannotUnregisterRegistrationFreeResourceProvider", message));
        }
        let scope = ArmId::from_segments(["subscriptions", &subscription.to_string()]);
        let scope = scope.map_err(Fault::internal)?;
        let mut after = None;
        loop {
            let page = self.store.range(RESOURCES, &scope, after.as_ref(), PAGE_ROWS_MAX).await?;
            if page.items.iter().any(|row| is_of(&row.value.id, namespace)) {
                let message = format!(
                    "The subscription '{subscription}' cannot be unregistered from the resource namespace \
                     '{namespace}' because it has resources of that namespace. Delete them first; 'az resource list' \
                     shows them."
                );
                return Err(Fault::conflict("CannotUnregisterProviderWithExistingResources", message));
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    async fn provider_in(&self, request: &Request, namespace: &str) -> Result<Value, Fault> {
        let subscription = self.known_subscription(request.param("subscriptionId"))?.id;
        let registered = self.registered(subscription, namespace).await?;
        Ok(self.provider(namespace, Some((&subscription.to_string(), registered))))
    }
}

async fn list(at: At<Arm>, _: Permit<ReadProviders>, request: Request) -> Result<Reply, Fault> {
    let mut value = Vec::new();
    for namespace in at.catalogue().into_keys() {
        value.push(at.provider_in(&request, &namespace).await?);
    }
    Reply::ok(&json!({ "value": value }))
}

async fn get(at: At<Arm>, _: Permit<ReadProviders>, request: Request) -> Result<Reply, Fault> {
    let namespace = at.namespace_spelling(request.param("providerNamespace"))?;
    Reply::ok(&at.provider_in(&request, &namespace).await?)
}

async fn list_at_tenant(at: At<Arm>, _: Permit<SignedIn>, _: Request) -> Result<Reply, Fault> {
    let value: Vec<Value> =
        at.catalogue().into_keys().map(|namespace| at.provider(&namespace, None)).collect();
    Reply::ok(&json!({ "value": value }))
}

async fn get_at_tenant(at: At<Arm>, _: Permit<SignedIn>, request: Request) -> Result<Reply, Fault> {
    let namespace = at.namespace_spelling(request.param("providerNamespace"))?;
    Reply::ok(&at.provider(&namespace, None))
}

async fn register(at: At<Arm>, permit: Permit<RegisterProvider>, request: Request) -> Result<Reply, Fault> {
    set(&at, permit.stamp(), &request, request.param("providerNamespace"), true).await
}

async fn unregister(
    at: At<Arm>,
    permit: Permit<UnregisterProvider>,
    request: Request,
) -> Result<Reply, Fault> {
    set(&at, permit.stamp(), &request, request.param("providerNamespace"), false).await
}

async fn set(
    arm: &Arm,
    stamp: &arcadia_kernel::AuditStamp,
    request: &Request,
    namespace: &str,
    registered: bool,
) -> Result<Reply, Fault> {
    let namespace = arm.namespace_spelling(namespace)?;
    let subscription = arm.known_subscription(request.param("subscriptionId"))?.id;
    if !registered {
        arm.check_unused(subscription, &namespace).await?;
    }
    let mut batch = Batch::new();
    batch.put(REGISTRATIONS, &(subscription, namespace.to_lowercase()), &Registration { registered })?;
    arm.store.commit(stamp, batch).await?;
    Reply::ok(&arm.provider_in(request, &namespace).await?)
}
