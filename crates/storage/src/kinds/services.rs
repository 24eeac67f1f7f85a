//! The blob service and the file service of an account. Nothing of them can be switched on, so there is nothing to keep: a
//! request that asks for what is so is answered, and any other is refused.

use std::sync::Arc;

use arcadia_arm::Arm;
use arcadia_kernel::{At, Fault, Json, Method, Op, Permit, Reply, Request, action, op};
use serde_json::{Value, json};

use super::{BODY_BYTES_MAX, account_at};
use crate::Storage;
use crate::account::services::{check_blob_service, check_file_service};
use crate::account::{Account, sku_shown};

action!(ReadBlobServices, Control, "Microsoft.Storage/storageAccounts/blobServices/read");
action!(WriteBlobServices, Control, "Microsoft.Storage/storageAccounts/blobServices/write");
action!(ReadFileServices, Control, "Microsoft.Storage/storageAccounts/fileServices/read");
action!(WriteFileServices, Control, "Microsoft.Storage/storageAccounts/fileServices/write");

const BLOB_SERVICES: &str = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Storage/storageAccounts/{name}/blobServices";
const BLOB_SERVICE: &str = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Storage/storageAccounts/{name}/blobServices/default";
const FILE_SERVICES: &str = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Storage/storageAccounts/{name}/fileServices";
const FILE_SERVICE: &str = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Storage/storageAccounts/{name}/fileServices/default";

pub(super) fn ops(storage: &Arc<Storage>) -> Vec<Op<Arm>> {
    let [blobs, blob, set_blob, files, file, set_file] = [(); 6].map(|()| storage.clone());
    vec![
        op("BlobServiceList", Method::GET, BLOB_SERVICES, move |_: At<Arm>, permit, request| {
            list_blob_services(blobs.clone(), permit, request)
        }),
        op("BlobServiceGet", Method::GET, BLOB_SERVICE, move |_: At<Arm>, permit, request| {
            get_blob_service(blob.clone(), permit, request)
        }),
        op("BlobServiceSet", Method::PUT, BLOB_SERVICE, move |_: At<Arm>, permit, body| {
            set_blob_service(set_blob.clone(), permit, body)
        })
        .body_bytes_max(BODY_BYTES_MAX),
        op("FileServiceList", Method::GET, FILE_SERVICES, move |_: At<Arm>, permit, request| {
            list_file_services(files.clone(), permit, request)
        }),
        op("FileServiceGet", Method::GET, FILE_SERVICE, move |_: At<Arm>, permit, request| {
            get_file_service(file.clone(), permit, request)
        }),
        op("FileServiceSet", Method::PUT, FILE_SERVICE, move |_: At<Arm>, permit, body| {
            set_file_service(set_file.clone(), permit, body)
        })
        .body_bytes_max(BODY_BYTES_MAX),
    ]
}

fn shown(account: &Account, name: &str, properties: Value) -> Value {
    json!({
        "sku": sku_shown(&account.sku),
        "id": format!("{}/{name}/default", account.id),
        "name": "default",
        "type": format!("Microsoft.Storage/storageAccounts/{name}"),
        "properties": properties,
    })
}

fn blob_service(account: &Account) -> Value {
    let retention = json!({ "allowPermanentDelete": false, "enabled": false });
    let properties = json!({ "cors": { "corsRules": [] }, "deleteRetentionPolicy": retention });
    shown(account, "blobServices", properties)
}

/// Accounts for blobs alone have no file service, and neither have premium ones of the general kinds.
fn file_service(account: &Account) -> Result<Value, Fault> {
    if !matches!(account.kind.as_str(), "StorageV2" | "Storage") || account.sku.starts_with("Premium") {
        let message = "File is not supported for the account.";
        return Err(Fault::bad_request("FeatureNotSupportedForAccount", message));
    }
    let properties = json!({
        "protocolSettings": { "smb": {} },
        "cors": { "corsRules": [] },
        "shareDeleteRetentionPolicy": { "enabled": false },
    });
    Ok(shown(account, "fileServices", properties))
}

async fn list_blob_services(
    storage: Arc<Storage>,
    permit: Permit<ReadBlobServices>,
    _: Request,
) -> Result<Reply, Fault> {
    Reply::ok(&json!({ "value": [blob_service(&*account_at(&storage, permit.scope())?)] }))
}

async fn get_blob_service(
    storage: Arc<Storage>,
    permit: Permit<ReadBlobServices>,
    _: Request,
) -> Result<Reply, Fault> {
    Reply::ok(&blob_service(&*account_at(&storage, permit.scope())?))
}

async fn set_blob_service(
    storage: Arc<Storage>,
    permit: Permit<WriteBlobServices>,
    body: Json<Value>,
) -> Result<Reply, Fault> {
    let account = account_at(&storage, permit.scope())?;
    check_blob_service(&body.value, &account)?;
    Reply::ok(&blob_service(&account))
}

async fn list_file_services(
    storage: Arc<Storage>,
    permit: Permit<ReadFileServices>,
    _: Request,
) -> Result<Reply, Fault> {
    Reply::ok(&json!({ "value": [file_service(&*account_at(&storage, permit.scope())?)?] }))
}

async fn get_file_service(
    storage: Arc<Storage>,
    permit: Permit<ReadFileServices>,
    _: Request,
) -> Result<Reply, Fault> {
    Reply::ok(&file_service(&*account_at(&storage, permit.scope())?)?)
}

async fn set_file_service(
    storage: Arc<Storage>,
    permit: Permit<WriteFileServices>,
    body: Json<Value>,
) -> Result<Reply, Fault> {
    let account = account_at(&storage, permit.scope())?;
    let service = file_service(&account)?;
    check_file_service(&body.value, &account)?;
    Reply::ok(&service)
}
