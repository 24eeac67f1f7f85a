//! What agents call besides ARM and the token endpoint: heartbeats.
//!
//! Azure's Hybrid Identity Service is not a public protocol, so this is Arcadia's own, kept to one row:
//! `POST /machines/heartbeat` with a bearer token of the machine's own identity for [`crate::HIS_AUDIENCE`].

use std::borrow::Cow;
use std::sync::Arc;

use arcadia_arm::{RESOURCES, Resource};
use arcadia_kernel::{
    ArmId, At, AuthFailure, Caller, CallerKind, Denial, Fault, HeaderValue, Json, Located, Method, Op,
    OpInfo, Permit, Reply, RequestHead, Service, SignedIn, StatusCode, header, signed_in,
};
use arcadia_store::Batch;
use serde::Deserialize;
use serde_json::json;

use crate::heartbeat::{HEARTBEATS, Heartbeat};
use crate::kinds::machine::{Machines, Stored, principal_of};

/// A heartbeat's largest body, in bytes.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// The longest text in a heartbeat that is kept, in characters.
const TEXT_CHARS_MAX: usize = 256;

/// The service behind `*.his.arc.azure.com`.
pub struct His {
    machines: Arc<Machines>,
    /// The address that a challenge sends clients to for a token.
    authority: String,
    audience: String,
}

impl His {
    /// `authority` is the login endpoint with the tenant, `audience` usually [`crate::HIS_AUDIENCE`].
    pub fn new(machines: Arc<Machines>, authority: String, audience: String) -> Arc<Self> {
        Arc::new(Self { machines, authority, audience })
    }
}

pub fn his_ops() -> Vec<Op<His>> {
    vec![
        signed_in(
            "MachineHeartbeat",
            Method::POST,
            "/machines/heartbeat",
            "an agent speaks only for the machine whose identity it holds",
            heartbeat,
        )
        .body_bytes_max(BODY_BYTES_MAX),
    ]
}

/// What an agent says of itself with each heartbeat. Unknown fields are ignored: agents may be newer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    vm_id: uuid::Uuid,
    agent_version: Option<String>,
    os_name: Option<String>,
    os_version: Option<String>,
    machine_fqdn: Option<String>,
}

async fn heartbeat(at: At<His>, permit: Permit<SignedIn>, input: Json<Said>) -> Result<Reply, Fault> {
    let said = input.value;
    let machines = &at.machines;
    let (resource, stored) = own_machine(machines, permit.caller()).await?;
    if stored.vm_id != said.vm_id {
        return Err(Fault::conflict(
            "Cloned",
            "The heartbeat's vmId is not this machine's. Two machines must not share one identity: disconnect \
             the copy with 'azcmagent disconnect --force-local-only' and connect it under a name of its own.",
        ));
    }
    let now = permit.now();
    let listening_since = machines.listening_since();
    let before = machines.heartbeat(&resource.id);
    if before.as_ref().is_some_and(|beat| beat.is_lapsed(listening_since, now)) {
        return Err(Fault::conflict(
            "Expired",
            "Nothing was heard of this machine for 45 days. Disconnect it with 'azcmagent disconnect' and connect it \
             again with 'azcmagent connect'; its new identity holds none of the old one's roles.",
        ));
    }
    let connected_since =
        before.as_ref().filter(|beat| beat.is_connected(now)).map_or(now, |beat| beat.connected_since);
    let cut = |text: Option<String>| text.map(|text| text.chars().take(TEXT_CHARS_MAX).collect());
    let beat = Heartbeat {
        machine: resource.id.clone(),
        at: now,
        connected_since,
        agent_version: cut(said.agent_version),
        os_name: cut(said.os_name),
        os_version: cut(said.os_version),
        machine_fqdn: cut(said.machine_fqdn),
    };
    record(machines, &permit, &resource, &beat).await?;
    Reply::ok(&json!({
        "status": machines.status_name(&resource.id),
        "clientId": stored.client_id,
        "resource": {
            "id": resource.id,
            "name": resource.id.name(),
            "location": resource.location,
            "tags": resource.tags,
        },
    }))
}

/// Written only while the machine still exists, so that a heartbeat cannot outlive its machine.
async fn record(
    machines: &Machines,
    permit: &Permit<SignedIn>,
    resource: &Resource,
    beat: &Heartbeat,
) -> Result<(), Fault> {
    let row =
        machines.store.get(RESOURCES, &resource.id).await?.ok_or_else(|| not_a_machine(permit.caller()))?;
    let mut batch = Batch::new();
    batch.require_revision(RESOURCES, &resource.id, row.revision);
    batch.put(HEARTBEATS, &resource.id, beat)?;
    machines.store.commit(permit.stamp(), batch).await?;
    Ok(())
}

/// The machine that the caller is: found by the token's own claims, never by what the request says.
async fn own_machine(machines: &Machines, caller: &Caller) -> Result<(Resource, Stored), Fault> {
    let refused = || not_a_machine(caller);
    if caller.kind != CallerKind::ManagedIdentity {
        return Err(refused());
    }
    let id = caller.resource_id.as_deref().and_then(|id| ArmId::parse(id).ok()).ok_or_else(refused)?;
    let row = machines.store.get(RESOURCES, &id).await?.ok_or_else(refused)?;
    if principal_of(&row.value) != Some(caller.object_id) {
        return Err(refused());
    }
    let stored = Stored::of(&row.value)?;
    Ok((row.value, stored))
}

fn not_a_machine(caller: &Caller) -> Fault {
    Fault::forbidden(
        "Forbidden",
        format!(
            "The caller with object id '{}' is not the identity of a connected machine.",
            caller.object_id
        ),
    )
    .denied("the caller is not the identity of a connected machine")
}

impl Service for His {
    type Target = ();
    const NAME: &'static str = "his";

    fn audiences(&self, _head: &RequestHead) -> Vec<Cow<'_, str>> {
        vec![Cow::from(&self.audience)]
    }

    fn locate(&self, _op: &OpInfo, _head: &RequestHead) -> Result<Located<()>, Fault> {
        Ok(Located { scope: ArmId::root(), target: () })
    }

    fn challenge(&self, _head: &RequestHead, failure: &AuthFailure) -> Fault {
        let message = match failure {
            AuthFailure::Missing => "The request has no bearer token.".to_owned(),
            AuthFailure::Scheme => "The Authorization header is not a bearer token.".to_owned(),
            AuthFailure::Token(fault) => format!("The bearer token is not accepted: {fault}."),
        };
        let fault = Fault::new(StatusCode::UNAUTHORIZED, "Unauthorized", message);
        let challenge =
            format!("Bearer authorization=\"{}\", resource=\"{}\"", self.authority, self.audience);
        match HeaderValue::from_str(&challenge) {
            Ok(value) => fault.header(header::WWW_AUTHENTICATE, value),
            Err(error) => Fault::internal(error),
        }
    }

    fn refuse(&self, _head: &RequestHead, caller: &Caller, _denial: &Denial) -> Fault {
        not_a_machine(caller)
    }

    fn no_such_operation(&self, _head: &RequestHead, other_method_fits: bool) -> Fault {
        if other_method_fits {
            Fault::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "The method is not allowed here.")
                .header(header::ALLOW, HeaderValue::from_static("POST"))
        } else {
            Fault::not_found("NotFound", "There is no such operation.")
        }
    }

    fn render(&self, _head: &RequestHead, fault: &Fault) -> Reply {
        let body = json!({ "error": { "code": fault.code, "message": fault.message } });
        Reply::bytes(fault.status, "application/json; charset=utf-8", body.to_string())
    }

    fn finish(&self, head: &RequestHead, reply: &mut Reply) {
        reply.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(value) = HeaderValue::from_str(&head.request_id.to_string()) {
            reply.headers.insert("x-ms-request-id", value);
        }
    }
}
