//! Deleted vaults: list, show, purge, and how a purge stands. There are no managed HSMs here, live or deleted.

use std::sync::Arc;

use arcadia_arm::Arm;
use arcadia_kernel::{
    At, Continuation, Fault, HeaderValue, Method, Op, Permit, Reply, Request, RequestHead, StatusCode,
    action, header, op,
};
use arcadia_store::Row;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::KeyVault;
use crate::records::{DELETED_VAULTS, DeletedVault, PURGES, VaultPurge, folded};

const PAGE_ITEMS: usize = 100;

action!(ListDeletedVaults, Control, "Microsoft.KeyVault/deletedVaults/read");
action!(ReadDeletedVault, Control, "Microsoft.KeyVault/locations/deletedVaults/read");
action!(PurgeDeletedVault, Control, "Microsoft.KeyVault/locations/deletedVaults/purge/action");
action!(ReadOperationResult, Control, "Microsoft.KeyVault/locations/operationResults/read");
action!(ReadManagedHsms, Control, "Microsoft.KeyVault/managedHSMs/read");
action!(ListDeletedManagedHsms, Control, "Microsoft.KeyVault/deletedManagedHsms/read");

pub(super) fn ops(keyvault: &Arc<KeyVault>) -> Vec<Op<Arm>> {
    let (list, show, purge, result) =
        (keyvault.clone(), keyvault.clone(), keyvault.clone(), keyvault.clone());
    vec![
        op(
            "DeletedVaultList",
            Method::GET,
            "/subscriptions/{subscription}/providers/Microsoft.KeyVault/deletedVaults",
            move |_: At<Arm>, permit, request| list_deleted(list.clone(), permit, request),
        ),
        op(
            "DeletedVaultGet",
            Method::GET,
            "/subscriptions/{subscription}/providers/Microsoft.KeyVault/locations/{location}/deletedVaults/{name}",
            move |_: At<Arm>, permit, request| show_deleted(show.clone(), permit, request),
        ),
        op(
            "DeletedVaultPurge",
            Method::POST,
            "/subscriptions/{subscription}/providers/Microsoft.KeyVault/locations/{location}/deletedVaults/{name}/purge",
            move |_: At<Arm>, permit, request| purge_deleted(purge.clone(), permit, request),
        ),
        op(
            "VaultOperationResult",
            Method::GET,
            "/subscriptions/{subscription}/providers/Microsoft.KeyVault/locations/{location}/operationResults/{operation}",
            move |_: At<Arm>, permit, request| operation_result(result.clone(), permit, request),
        ),
        op(
            "ManagedHsmList",
            Method::GET,
            "/subscriptions/{subscription}/providers/Microsoft.KeyVault/managedHSMs",
            |_: At<Arm>, _: Permit<ReadManagedHsms>, (): ()| async { none() },
        ),
        op(
            "ManagedHsmListByGroup",
            Method::GET,
            "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.KeyVault/managedHSMs",
            |_: At<Arm>, _: Permit<ReadManagedHsms>, (): ()| async { none() },
        ),
        op(
            "DeletedManagedHsmList",
            Method::GET,
            "/subscriptions/{subscription}/providers/Microsoft.KeyVault/deletedManagedHSMs",
            |_: At<Arm>, _: Permit<ListDeletedManagedHsms>, (): ()| async { none() },
        ),
    ]
}

fn none() -> Result<Reply, Fault> {
    Reply::ok(&json!({ "value": [] }))
}

fn time(epoch_seconds: i64) -> String {
    Timestamp::from_second(epoch_seconds).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

fn shown(deleted: &DeletedVault) -> Value {
    let resource = &deleted.resource;
    let (subscription, name) = (resource.id.subscription().unwrap_or(""), resource.id.name());
    let mut properties = json!({
        "vaultId": resource.id,
        "location": resource.location,
        "tags": resource.tags,
        "deletionDate": time(deleted.deleted_at),
        "scheduledPurgeDate": time(deleted.purge_at),
    });
    if deleted.purge_protected {
        properties["purgeProtectionEnabled"] = Value::Bool(true);
    }
    json!({
        "id": format!(
            "/subscriptions/{subscription}/providers/Microsoft.KeyVault/locations/{}/deletedVaults/{name}",
            resource.location
        ),
        "name": name,
        "type": "Microsoft.KeyVault/deletedVaults",
        "properties": properties,
    })
}

fn not_found(name: &str) -> Fault {
    let message = format!(
        "The specified deleted vault '{name}' does not exist at this location. 'az keyvault list-deleted' shows \
         the deleted vaults."
    );
    Fault::not_found("DeletedVaultNotFound", message)
}

async fn list_deleted(
    keyvault: Arc<KeyVault>,
    _permit: Permit<ListDeletedVaults>,
    request: Request,
) -> Result<Reply, Fault> {
    let after = request.query.first("$skiptoken");
    let after = after.map(|token| Continuation::parse(token, &request)).transpose()?;
    let prefix = (folded(request.param("subscription")),);
    let page = keyvault.store.range(DELETED_VAULTS, &prefix, after.as_ref(), PAGE_ITEMS).await?;
    let mut list = json!({ "value": page.items.iter().map(|row| shown(&row.value)).collect::<Vec<_>>() });
    if let Some(next) = page.next {
        let version = api_version(&request);
        let token = next.token(&request);
        let link = format!("{}{}?api-version={version}&$skiptoken={token}", request.origin, request.path);
        list["nextLink"] = Value::from(link);
    }
    Reply::ok(&list)
}

/// As it was sent, as far as it fits in an address.
fn api_version(head: &RequestHead) -> String {
    let sent = head.query.first("api-version").unwrap_or("");
    sent.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')).take(40).collect()
}

/// The deleted vault that a path names.
async fn named(
    keyvault: &KeyVault,
    head: &RequestHead,
) -> Result<((String, String), Row<DeletedVault>), Fault> {
    let place = (folded(head.param("subscription")), folded(head.param("name")));
    let wanted = folded(head.param("location")).replace(' ', "");
    let found = keyvault.store.get(DELETED_VAULTS, &place).await?;
    let found = found.filter(|row| folded(&row.value.resource.location) == wanted);
    found.map(|row| (place, row)).ok_or_else(|| not_found(head.param("name")))
}

async fn show_deleted(
    keyvault: Arc<KeyVault>,
    _permit: Permit<ReadDeletedVault>,
    request: Request,
) -> Result<Reply, Fault> {
    let (_, deleted) = named(&keyvault, &request).await?;
    Reply::ok(&shown(&deleted.value))
}

/// 202 with where to ask, as clients expect; nearly always it is done by then.
async fn purge_deleted(
    keyvault: Arc<KeyVault>,
    permit: Permit<PurgeDeletedVault>,
    request: Request,
) -> Result<Reply, Fault> {
    let (place, row) = named(&keyvault, &request).await?;
    let deleted = &row.value;
    if deleted.purge_protected {
        let message = format!(
            "The vault '{}' cannot be purged because purge protection is enabled for it. It is purged by itself \
             on {}.",
            deleted.resource.id.name(),
            time(deleted.purge_at)
        );
        return Err(Fault::forbidden("Forbidden", message));
    }
    let purge = keyvault.purge_vault(permit.stamp(), &place, &row, permit.epoch_seconds()).await?;
    let purge = purge.ok_or_else(|| not_found(request.param("name")))?;
    let reply = Reply::empty(StatusCode::ACCEPTED);
    with_location(reply, &request, &deleted.resource.location, &purge)
}

fn with_location(
    reply: Reply,
    head: &RequestHead,
    location: &str,
    purge: &VaultPurge,
) -> Result<Reply, Fault> {
    let url = format!(
        "{}/subscriptions/{}/providers/Microsoft.KeyVault/locations/{location}/operationResults/{}?api-version={}",
        head.origin,
        purge.subscription,
        purge.instance.simple(),
        api_version(head)
    );
    Ok(reply.with_text(header::LOCATION, &url)?.with(header::RETRY_AFTER, HeaderValue::from_static("1")))
}

async fn operation_result(
    keyvault: Arc<KeyVault>,
    _permit: Permit<ReadOperationResult>,
    request: Request,
) -> Result<Reply, Fault> {
    let found = match Uuid::try_parse(request.param("operation")) {
        Ok(id) => keyvault.store.get(PURGES, &id).await?,
        Err(_) => None,
    };
    let found = found.filter(|row| row.value.subscription == folded(request.param("subscription")));
    let Some(row) = found else {
        let message = "There is no such operation, or its result is no longer kept.";
        return Err(Fault::not_found("OperationNotFound", message));
    };
    let purge = row.value;
    let created = time(purge.created_at);
    match purge.finished_at {
        Some(finished) => Reply::ok(&json!({
            "createdDateTime": created, "lastActionDateTime": time(finished), "status": "Succeeded",
        })),
        None => {
            let body = json!({ "createdDateTime": created, "status": "NotStarted" });
            let reply = Reply::json(StatusCode::ACCEPTED, &body)?;
            with_location(reply, &request, request.param("location"), &purge)
        }
    }
}
