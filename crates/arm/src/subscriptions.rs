//! Tenants, subscriptions, locations, and the document that names the endpoints.

use arcadia_kernel::Open;
use arcadia_kernel::{
    ArmId, At, Fault, Method, Op, Permit, Plane, Reply, Request, SignedIn, action, op, public, signed_in,
};
use arcadia_store::{Record, Table};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Arm;
use crate::error;
use crate::locations;
use crate::version;

pub(crate) const SUBSCRIPTIONS: Table<Uuid, Subscription> = Table::new("arm/subscriptions");

action!(pub(crate) ReadSubscription, Control, "Microsoft.Resources/subscriptions/read");
action!(pub(crate) ReadLocations, Control, "Microsoft.Resources/subscriptions/locations/read");

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Subscription {
    pub id: Uuid,
    pub tenant_id: Uuid,
    pub display_name: String,
    pub created_at: Timestamp,
}

impl Record for Subscription {}

impl Subscription {
    pub(crate) fn scope(&self) -> Result<ArmId, Fault> {
        ArmId::from_segments(["subscriptions", &self.id.to_string()]).map_err(Fault::internal)
    }

    fn view(&self) -> Value {
        json!({
            "id": format!("/subscriptions/{}", self.id),
            "authorizationSource": "RoleBased",
            "managedByTenants": [],
            "subscriptionId": self.id,
            "tenantId": self.tenant_id,
            "displayName": self.display_name,
            "state": "Enabled",
            "subscriptionPolicies": {
                "locationPlacementId": "Public_2014-09-01",
                "quotaId": "PayAsYouGo_2014-09-01",
                "spendingLimit": "Off",
            },
        })
    }
}

pub(crate) fn rows() -> Vec<Op<Arm>> {
    vec![
        public(
            "MetadataEndpoints",
            Method::GET,
            "/metadata/endpoints",
            "clients read the names of a cloud before they can sign in to it",
            endpoints,
        ),
        signed_in("TenantList", Method::GET, "/tenants", "shows the caller its own tenant", tenants),
        signed_in(
            "SubscriptionList",
            Method::GET,
            "/subscriptions",
            "shows the subscriptions in which the caller has a role",
            list,
        ),
        op("SubscriptionGet", Method::GET, "/subscriptions/{subscriptionId}", get),
        op("LocationList", Method::GET, "/subscriptions/{subscriptionId}/locations", list_locations),
    ]
}

async fn endpoints(at: At<Arm>, _: Permit<Open>, request: Request) -> Result<Reply, Fault> {
    Reply::ok(&at.names.metadata(version::required(&request.query)?))
}

async fn tenants(at: At<Arm>, permit: Permit<SignedIn>, _: Request) -> Result<Reply, Fault> {
    let tenant = at.directory.tenant();
    let own = permit.caller().tenant_id == tenant.id;
    let view = json!({
        "id": format!("/tenants/{}", tenant.id),
        "tenantId": tenant.id,
        "displayName": tenant.display_name,
        "defaultDomain": tenant.default_domain,
        "domains": [tenant.default_domain],
        "tenantCategory": "Home",
        "tenantType": "AAD",
    });
    let shown: Vec<Value> = own.then_some(view).into_iter().collect();
    Reply::ok(&json!({ "value": shown }))
}

/// As in Azure, a role on one vault is enough to see the subscription that the vault is in: without it `az`
/// would refuse to sign in.
async fn list(at: At<Arm>, permit: Permit<SignedIn>, _: Request) -> Result<Reply, Fault> {
    let mut shown = Vec::new();
    for subscription in at.all_subscriptions() {
        let scope = subscription.scope()?;
        if at.access.has_any_role_around(permit.caller().object_id, &scope)
            || permit.may("Microsoft.Resources/subscriptions/read", Plane::Control, &scope)
        {
            shown.push(subscription.view());
        }
    }
    Reply::ok(&json!({ "value": shown, "count": { "type": "Total", "value": shown.len() } }))
}

async fn get(at: At<Arm>, _: Permit<ReadSubscription>, request: Request) -> Result<Reply, Fault> {
    Reply::ok(&at.known_subscription(request.param("subscriptionId"))?.view())
}

async fn list_locations(at: At<Arm>, _: Permit<ReadLocations>, request: Request) -> Result<Reply, Fault> {
    let subscription = error::shown(request.param("subscriptionId"));
    let value: Vec<Value> =
        at.names.locations.iter().map(|location| locations::view(location, &subscription)).collect();
    Reply::ok(&json!({ "value": value }))
}
