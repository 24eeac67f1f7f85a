//! Resource groups.

use std::collections::BTreeMap;

use arcadia_kernel::{
    ArmId, At, Fault, HeaderValue, Method, Op, Permit, Plane, Reply, Request, SignedIn, StatusCode, action,
    header, op, signed_in,
};
use arcadia_store::{Batch, Record, Row, Table};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Arm;
use crate::engine::body::{self, Body};
use crate::error;
use crate::operations::{self, OPERATIONS, Operation, Work};
use crate::page::{self, Window};

pub(crate) const GROUPS: Table<ArmId, Group> = Table::new("arm/resourceGroups");

action!(pub(crate) ReadGroup, Control, "Microsoft.Resources/subscriptions/resourceGroups/read");
action!(pub(crate) WriteGroup, Control, "Microsoft.Resources/subscriptions/resourceGroups/write");
action!(pub(crate) DeleteGroup, Control, "Microsoft.Resources/subscriptions/resourceGroups/delete");

const NAME_CHARS_MAX: usize = 90;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum GroupState {
    Succeeded,
    /// Its contents are being deleted; nothing new may be put in it.
    Deleting,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Group {
    pub id: ArmId,
    pub location: String,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    #[serde(default)]
    pub managed_by: Option<String>,
    pub state: GroupState,
    /// The operation that deletes it.
    #[serde(default)]
    pub deletion: Option<Uuid>,
    pub created_at: Timestamp,
    pub changed_at: Timestamp,
}

impl Record for Group {}

impl Group {
    pub(crate) fn check_active(&self) -> Result<(), Fault> {
        match self.state {
            GroupState::Succeeded => Ok(()),
            GroupState::Deleting => Err(Fault::conflict(
                "ResourceGroupBeingDeleted",
                format!(
                    "The resource group '{}' is in deprovisioning state and cannot perform this operation.",
                    self.id.name()
                ),
            )),
        }
    }

    fn view(&self) -> Value {
        let mut view = json!({
            "id": self.id,
            "name": self.id.name(),
            "type": "Microsoft.Resources/resourceGroups",
            "location": self.location,
            "properties": { "provisioningState": self.state },
        });
        if !self.tags.is_empty() {
            view["tags"] = json!(self.tags);
        }
        if let Some(managed_by) = &self.managed_by {
            view["managedBy"] = json!(managed_by);
        }
        view
    }
}

pub(crate) fn rows() -> Vec<Op<Arm>> {
    const ONE: &str = "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}";
    vec![
        signed_in(
            "ResourceGroupList",
            Method::GET,
            "/subscriptions/{subscriptionId}/resourceGroups",
            "lists the groups that the caller may read, wherever its role was assigned",
            list,
        ),
        op("ResourceGroupGet", Method::GET, ONE, get),
        op("ResourceGroupCheckExistence", Method::HEAD, ONE, exists),
        op("ResourceGroupCreateOrUpdate", Method::PUT, ONE, put),
        op("ResourceGroupUpdate", Method::PATCH, ONE, patch),
        op("ResourceGroupDelete", Method::DELETE, ONE, delete),
    ]
}

/// The group's identifier, with the literal segments as Azure writes them.
pub(crate) fn group_id(subscription: &str, name: &str) -> Result<ArmId, Fault> {
    ArmId::from_segments(["subscriptions", subscription, "resourceGroups", name])
        .map_err(|_| error::group_not_found(name))
}

fn of_request(request: &Request) -> Result<ArmId, Fault> {
    group_id(request.param("subscriptionId"), request.param("resourceGroupName"))
}

impl Arm {
    pub(crate) async fn group(&self, id: &ArmId) -> Result<Row<Group>, Fault> {
        self.store.get(GROUPS, id).await?.ok_or_else(|| error::group_not_found(id.name()))
    }
}

async fn list(at: At<Arm>, permit: Permit<SignedIn>, request: Request) -> Result<Reply, Fault> {
    let subscription = ArmId::from_segments(["subscriptions", request.param("subscriptionId")])
        .map_err(|_| error::subscription_not_found(request.param("subscriptionId")))?;
    let filter = crate::resources::ListFilter::of(&request.query)?;
    let window = Window::of(&at, &request)?;
    let page = page::collect(&at.store, GROUPS, &subscription, window, |row| {
        let group = row.value;
        let shown =
            permit.may("Microsoft.Resources/subscriptions/resourceGroups/read", Plane::Control, &group.id)
                && filter.fits_group(&group)?;
        Ok(shown.then(|| group.view()))
    })
    .await?;
    page::reply(&at, &request, page)
}

async fn get(at: At<Arm>, _: Permit<ReadGroup>, request: Request) -> Result<Reply, Fault> {
    Reply::ok(&at.group(&of_request(&request)?).await?.value.view())
}

async fn exists(at: At<Arm>, _: Permit<ReadGroup>, request: Request) -> Result<Reply, Fault> {
    at.group(&of_request(&request)?).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

fn check_name(name: &str) -> Result<(), Fault> {
    let fits = name.chars().count() <= NAME_CHARS_MAX
        && name.chars().all(|c| c.is_alphanumeric() || "-_.()".contains(c))
        && !name.ends_with('.')
        // `providers` divides identifiers; as a name it would make them ambiguous.
        && !name.eq_ignore_ascii_case("providers");
    if fits {
        return Ok(());
    }
    let message = format!(
        "The provided resource group name '{}' has these invalid characters or is too long. The name can only \
         be up to {NAME_CHARS_MAX} letters, digits, '-', '.', '(', ')' or '_', and cannot end with a '.'.",
        error::shown(name)
    );
    Err(Fault::bad_request("InvalidResourceGroupName", message))
}

async fn put(at: At<Arm>, permit: Permit<WriteGroup>, request: Request) -> Result<Reply, Fault> {
    let id = of_request(&request)?;
    let wanted = Body::read(&request)?;
    let mut attempts = at.store.attempts();
    loop {
        let current = at.store.get(GROUPS, &id).await?;
        let mut batch = Batch::new();
        let created = current.is_none();
        let group = match &current {
            None => {
                check_name(id.name())?;
                let location = wanted.location.clone().ok_or_else(body::location_required)?;
                at.check_location(&location, "resource group", "LocationNotAvailableForResourceGroup")?;
                batch.require_absent(GROUPS, &id);
                Group {
                    id: id.clone(),
                    location,
                    tags: wanted.tags.clone().unwrap_or_default(),
                    managed_by: wanted.managed_by()?,
                    state: GroupState::Succeeded,
                    deletion: None,
                    created_at: permit.now(),
                    changed_at: permit.now(),
                }
            }
            Some(row) => {
                row.value.check_active()?;
                check_same_location(&row.value, wanted.location.as_deref())?;
                batch.require_revision(GROUPS, &id, row.revision);
                Group {
                    tags: wanted.tags.clone().unwrap_or_default(),
                    managed_by: wanted.managed_by()?,
                    changed_at: permit.now(),
                    ..row.value.clone()
                }
            }
        };
        batch.put(GROUPS, &id, &group)?;
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            let status = if created { StatusCode::CREATED } else { StatusCode::OK };
            return Reply::json(status, &group.view());
        }
    }
}

fn check_same_location(group: &Group, wanted: Option<&str>) -> Result<(), Fault> {
    match wanted {
        Some(wanted) if wanted != group.location => Err(Fault::conflict(
            "InvalidResourceGroupLocation",
            format!(
                "Invalid resource group location '{}'. The Resource group already exists in location '{}'.",
                error::shown(wanted),
                group.location
            ),
        )),
        _ => Ok(()),
    }
}

async fn patch(at: At<Arm>, permit: Permit<WriteGroup>, request: Request) -> Result<Reply, Fault> {
    let id = of_request(&request)?;
    let wanted = Body::read(&request)?;
    let mut attempts = at.store.attempts();
    loop {
        let row = at.group(&id).await?;
        row.value.check_active()?;
        let mut group = row.value;
        if let Some(tags) = &wanted.tags {
            group.tags = tags.clone();
        }
        if let Some(managed_by) = wanted.managed_by()? {
            group.managed_by = Some(managed_by);
        }
        group.changed_at = permit.now();
        let mut batch = Batch::new();
        batch.require_revision(GROUPS, &id, row.revision);
        batch.put(GROUPS, &id, &group)?;
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            return Reply::ok(&group.view());
        }
    }
}

/// 202: the contents go first, each by its own kind, and the work outlives this request and this process.
async fn delete(at: At<Arm>, permit: Permit<DeleteGroup>, request: Request) -> Result<Reply, Fault> {
    let id = of_request(&request)?;
    let mut attempts = at.store.attempts();
    loop {
        let row = at.group(&id).await?;
        if let Some(running) = row.value.deletion {
            return accepted(&operations::results_url(&request, running));
        }
        let work = Work::DeleteGroup { group: row.value.id.clone() };
        let operation = Operation::started(&permit, request.param("subscriptionId"), work);
        let group = Group { state: GroupState::Deleting, deletion: Some(operation.id), ..row.value };
        let mut batch = Batch::new();
        batch.require_revision(GROUPS, &id, row.revision);
        batch.put(GROUPS, &id, &group)?;
        batch.put(OPERATIONS, &operation.id, &operation)?;
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            at.wake.notify_one();
            return accepted(&operations::results_url(&request, operation.id));
        }
    }
}

fn accepted(location: &str) -> Result<Reply, Fault> {
    Reply::empty(StatusCode::ACCEPTED)
        .with(header::RETRY_AFTER, HeaderValue::from_static("1"))
        .with_text(header::LOCATION, location)
}
