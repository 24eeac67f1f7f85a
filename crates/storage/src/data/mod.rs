//! The data plane: its rows, the actions they need, and what they share.

mod account;
mod blobs;
mod blocks;
mod change;
mod containers;
mod copy;
mod input;
mod lists;
mod read;
mod source;
mod tier;

use arcadia_kernel::{Method, Op, action, op, op_streamed};

use crate::Storage;

pub(crate) use change::DraftLocks;
pub(crate) use lists::{first, results};
#[cfg(test)]
pub(crate) use read::parse_range;
pub(crate) use source::{COPY_SOURCE, Source};

action!(
    /// What a container is: its properties, its metadata, and the list of containers.
    pub(crate) ReadContainer, Control, "Microsoft.Storage/storageAccounts/blobServices/containers/read"
);
action!(pub(crate) WriteContainer, Control, "Microsoft.Storage/storageAccounts/blobServices/containers/write");
action!(pub(crate) DeleteContainer, Control, "Microsoft.Storage/storageAccounts/blobServices/containers/delete");
action!(pub(crate) AccountInformation, Control, "Microsoft.Storage/storageAccounts/blobServices/getInfo/action");
action!(
    /// The bytes, properties and names of blobs.
    pub(crate) ReadBlob, Data, "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read"
);
action!(pub(crate) WriteBlob, Data, "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write");
action!(pub(crate) DeleteBlob, Data, "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/delete");

/// The largest blob that comes in one body; `az` and the SDKs send larger ones in blocks.
pub(crate) const PUT_BODY_BYTES_MAX: usize = 256 * 1024 * 1024;
pub(crate) const BLOCK_BODY_BYTES_MAX: usize = 100 * 1024 * 1024;
const BLOCK_LIST_BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

const ACCOUNT: &str = "/";
const CONTAINER: &str = "/{container}";
/// The blob's name is the whole rest of the path.
const BLOB: &str = "/{container}/{blob}";

/// Every row of the data plane. Names of operations are those of the service's own log.
pub fn blob_ops() -> Vec<Op<Storage>> {
    let mut rows =
        vec![op("ListContainers", Method::GET, ACCOUNT, lists::containers).when_query("comp", Some("list"))];
    rows.extend(information_rows());
    rows.extend(container_ops());
    rows.extend(blob_rows());
    rows
}

/// What an account is can be asked wherever a client is in it, so that who may ask in one container can.
fn information_rows() -> [Op<Storage>; 3] {
    [
        ("GetAccountInformation", ACCOUNT),
        ("GetAccountInformationOfContainer", CONTAINER),
        ("GetAccountInformationOfBlob", BLOB),
    ]
    .map(|(name, path)| {
        op(name, Method::GET, path, account::information)
            .when_query("restype", Some("account"))
            .when_query("comp", Some("properties"))
    })
}

fn container_ops() -> Vec<Op<Storage>> {
    let on_container = |row: Op<Storage>| row.when_query("restype", Some("container"));
    vec![
        on_container(op("CreateContainer", Method::PUT, CONTAINER, containers::create)),
        on_container(op("GetContainerProperties", Method::GET, CONTAINER, containers::properties)),
        on_container(op("DeleteContainer", Method::DELETE, CONTAINER, containers::delete)),
        on_container(op("GetContainerMetadata", Method::GET, CONTAINER, containers::properties))
            .when_query("comp", Some("metadata")),
        on_container(op("SetContainerMetadata", Method::PUT, CONTAINER, containers::set_metadata))
            .when_query("comp", Some("metadata")),
        on_container(op("ListBlobs", Method::GET, CONTAINER, lists::blobs)).when_query("comp", Some("list")),
    ]
}

/// Put Blob is Copy Blob where the request names a source and no type: rows are told apart by method, path and query.
fn blob_rows() -> Vec<Op<Storage>> {
    vec![
        op_streamed("PutBlob", Method::PUT, BLOB, blobs::put).body_bytes_max(PUT_BODY_BYTES_MAX),
        op("GetBlob", Method::GET, BLOB, read::get),
        op("GetBlobProperties", Method::HEAD, BLOB, read::properties),
        op("DeleteBlob", Method::DELETE, BLOB, blobs::delete),
        op("GetBlobMetadata", Method::GET, BLOB, read::metadata).when_query("comp", Some("metadata")),
        op("GetBlobMetadata", Method::HEAD, BLOB, read::metadata).when_query("comp", Some("metadata")),
        op("SetBlobMetadata", Method::PUT, BLOB, blobs::set_metadata).when_query("comp", Some("metadata")),
        op("SetBlobProperties", Method::PUT, BLOB, blobs::set_properties)
            .when_query("comp", Some("properties")),
        op("SetBlobTier", Method::PUT, BLOB, tier::set).when_query("comp", Some("tier")),
        op("AbortCopyBlob", Method::PUT, BLOB, copy::abort).when_query("comp", Some("copy")),
        op_streamed("PutBlock", Method::PUT, BLOB, blocks::put)
            .when_query("comp", Some("block"))
            .body_bytes_max(BLOCK_BODY_BYTES_MAX),
        op("PutBlockList", Method::PUT, BLOB, blocks::put_list)
            .when_query("comp", Some("blocklist"))
            .body_bytes_max(BLOCK_LIST_BODY_BYTES_MAX),
        op("GetBlockList", Method::GET, BLOB, blocks::list).when_query("comp", Some("blocklist")),
    ]
}
