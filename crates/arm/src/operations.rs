//! Work that outlives its request: kept in the store, carried out by the worker, and asked about here.

use std::sync::Arc;

use arcadia_kernel::EntropyExt as _;
use arcadia_kernel::{
    Action, ArmId, At, Fault, Gate, HeaderValue, Method, Op, Permit, Plane, Reason, Reply, Request,
    RequestHead, SignedIn, StatusCode, SystemWork, header, signed_in,
};
use arcadia_store::{Record, Table};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::Arm;
use crate::asynchronous::Change;
use crate::engine;
use crate::version;

pub(crate) const OPERATIONS: Table<Uuid, Operation> = Table::new("arm/operations");

/// The version that kinds see when the site itself deletes.
pub(crate) const WORK_API_VERSION: &str = "2024-11-01";

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "what")]
pub(crate) enum Work {
    DeleteGroup {
        group: ArmId,
    },
    /// A committed change of a resource of an asynchronous kind is carried out.
    Finish {
        resource: ArmId,
        change: Change,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub(crate) enum Progress {
    Running,
    Succeeded { at: Timestamp },
    Failed { at: Timestamp, status: u16, code: String, message: String },
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Operation {
    pub id: Uuid,
    pub subscription: String,
    pub started_at: Timestamp,
    pub started_by: Uuid,
    /// The request that began it, whose number the records of the work have too.
    #[serde(default)]
    pub request_id: Option<Uuid>,
    pub work: Work,
    pub progress: Progress,
}

impl Record for Operation {}

impl Operation {
    pub(crate) fn started<A: Action>(permit: &Permit<A>, subscription: &str, work: Work) -> Self {
        Self {
            id: permit.entropy().uuid(),
            subscription: subscription.to_lowercase(),
            started_at: permit.now(),
            started_by: permit.caller().object_id,
            request_id: Some(permit.request_id()),
            work,
            progress: Progress::Running,
        }
    }

    /// For carrying it out on `scope`.
    pub(crate) fn permit(&self, gate: &Arc<Gate>, scope: &ArmId) -> Permit<SystemWork> {
        gate.as_system_on(Reason::AsyncOperation, scope.clone(), self.request_id)
    }
}

/// Where a client asks how far it is. Absolute, with the host that the client used.
pub(crate) fn results_url(head: &RequestHead, id: Uuid) -> String {
    let version = head.query.first("api-version").unwrap_or(WORK_API_VERSION);
    let subscription = head.param("subscriptionId");
    format!("{}/subscriptions/{subscription}/operationresults/{id}?api-version={version}", head.origin)
}

pub(crate) fn rows() -> Vec<Op<Arm>> {
    const BECAUSE: &str =
        "shows an operation to the caller that started it, or that may read what it works on";
    let row = |name: &'static str, path: &'static str| signed_in(name, Method::GET, path, BECAUSE, results);
    let status_row =
        |name: &'static str, path: &'static str| signed_in(name, Method::GET, path, BECAUSE, status);
    vec![
        row("OperationResultGet", "/subscriptions/{subscriptionId}/operationresults/{operationId}"),
        status_row("OperationStatusGet", "/subscriptions/{subscriptionId}/operationstatuses/{operationId}"),
        row(
            "ProviderOperationResultGet",
            "/subscriptions/{subscriptionId}/providers/{providerNamespace}/locations/{location}/operationresults/{operationId}",
        ),
        status_row(
            "ProviderAzureAsyncOperationGet",
            "/subscriptions/{subscriptionId}/providers/{providerNamespace}/locations/{location}/azureAsyncOperation/{operationId}",
        ),
        status_row(
            "ProviderOperationStatusGet",
            "/subscriptions/{subscriptionId}/providers/{providerNamespace}/locations/{location}/operationstatuses/{operationId}",
        ),
    ]
}

async fn visible(at: &Arm, permit: &Permit<SignedIn>, request: &Request) -> Result<Operation, Fault> {
    let missing = || {
        let message = "The operation could not be found. It may have been started by another caller.";
        Fault::not_found("OperationNotFound", message)
    };
    let id = Uuid::try_parse(request.param("operationId")).map_err(|_| missing())?;
    let operation = at.store.get(OPERATIONS, &id).await?.ok_or_else(missing)?.value;
    if !operation.subscription.eq_ignore_ascii_case(request.param("subscriptionId")) {
        return Err(missing());
    }
    let is_shown = operation.started_by == permit.caller().object_id
        || match &operation.work {
            Work::DeleteGroup { group } => ["read", "delete"].iter().any(|verb| {
                let action = format!("Microsoft.Resources/subscriptions/resourceGroups/{verb}");
                permit.may(&action, Plane::Control, group)
            }),
            // Whoever may delete and not read it still has to learn that it is gone.
            Work::Finish { resource, change: Change::Delete } if may(permit, resource, "delete") => true,
            Work::Finish { resource, .. } => may(permit, resource, "read"),
        };
    if is_shown { Ok(operation) } else { Err(missing()) }
}

fn may(permit: &Permit<SignedIn>, resource: &ArmId, verb: &str) -> bool {
    let action = format!("{}/{verb}", resource.resource_type().unwrap_or_default());
    permit.may(&action, Plane::Control, resource)
}

/// The `Location` form: 202 while it runs, then what the call itself would have answered. To whoever may write a resource
/// and not read it, that it is done.
async fn results(at: At<Arm>, permit: Permit<SignedIn>, request: Request) -> Result<Reply, Fault> {
    let operation = visible(&at, &permit, &request).await?;
    match operation.progress {
        Progress::Running => Reply::empty(StatusCode::ACCEPTED)
            .with(header::RETRY_AFTER, HeaderValue::from_static("1"))
            .with_text(
                header::LOCATION,
                &format!("{}{}?{}", request.origin, request.path, request.raw_query),
            ),
        Progress::Succeeded { .. } => {
            let changed = match &operation.work {
                Work::Finish { change: Change::Delete, .. } | Work::DeleteGroup { .. } => None,
                Work::Finish { resource, .. } => Some(resource).filter(|id| may(&permit, id, "read")),
            };
            let shown = match changed {
                Some(id) => engine::get_if_there(&at, id, &request).await?,
                None => None,
            };
            Ok(shown.unwrap_or_else(|| Reply::empty(StatusCode::OK)))
        }
        Progress::Failed { status, code, message, .. } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::CONFLICT);
            Err(Fault::new(status, code, message))
        }
    }
}

/// The `Azure-AsyncOperation` form: 200 always, and the status in the body.
async fn status(at: At<Arm>, permit: Permit<SignedIn>, request: Request) -> Result<Reply, Fault> {
    version::required(&request.query)?;
    let operation = visible(&at, &permit, &request).await?;
    let mut body = json!({
        "id": request.path,
        "name": operation.id,
        "startTime": operation.started_at,
    });
    match operation.progress {
        Progress::Running => {
            body["status"] = "InProgress".into();
            return Ok(Reply::ok(&body)?.with(header::RETRY_AFTER, HeaderValue::from_static("1")));
        }
        Progress::Succeeded { at } => {
            body["status"] = "Succeeded".into();
            body["endTime"] = json!(at);
        }
        Progress::Failed { at, code, message, .. } => {
            body["status"] = "Failed".into();
            body["endTime"] = json!(at);
            body["error"] = json!({ "code": code, "message": message });
        }
    }
    Reply::ok(&body)
}
