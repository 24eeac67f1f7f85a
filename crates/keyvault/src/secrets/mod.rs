//! Secrets: the rows of the data plane and the actions they need.

mod backup;
mod deleted;
#[cfg(test)]
mod fuzz;
mod input;
mod lists;
mod live;
mod wire;

use arcadia_kernel::{
    Action, At, Fault, HeaderName, HeaderValue, Input, Method, Op, Permit, Reply, action, op,
};

use crate::KeyVault;
use crate::vault::policy::ALLOWED_BY_POLICY;

action!(
    /// The value of one secret.
    pub(crate) GetSecret, Data, "Microsoft.KeyVault/vaults/secrets/getSecret/action"
);
action!(
    /// Lists of secrets, of versions and of deleted secrets, and what is known of a deleted one.
    pub(crate) ReadMetadata, Data, "Microsoft.KeyVault/vaults/secrets/readMetadata/action"
);
action!(
    /// A new version with a value.
    pub(crate) SetSecret, Data, "Microsoft.KeyVault/vaults/secrets/setSecret/action"
);
action!(
    /// The attributes of a version; never its value.
    pub(crate) UpdateSecret, Data, "Microsoft.KeyVault/vaults/secrets/update/action"
);
action!(pub(crate) DeleteSecret, Data, "Microsoft.KeyVault/vaults/secrets/delete");
action!(pub(crate) RecoverSecret, Data, "Microsoft.KeyVault/vaults/secrets/recover/action");
action!(pub(crate) PurgeSecret, Data, "Microsoft.KeyVault/vaults/secrets/purge/action");
action!(pub(crate) BackupSecret, Data, "Microsoft.KeyVault/vaults/secrets/backup/action");
action!(pub(crate) RestoreSecret, Data, "Microsoft.KeyVault/vaults/secrets/restore/action");

const ASSIGNMENT: HeaderName = HeaderName::from_static("x-ms-keyvault-rbac-assignment-id");

/// Every row of the data plane. Names of operations are those of the service's own log.
pub fn data_ops() -> Vec<Op<KeyVault>> {
    const SECRET: &str = "/secrets/{name}/{version?}";
    const DELETED: &str = "/deletedsecrets/{name}";
    vec![
        row("SecretSet", Method::PUT, "/secrets/{name}", live::set).body_bytes_max(input::BODY_BYTES_MAX),
        row("SecretGet", Method::GET, SECRET, live::get),
        row("SecretUpdate", Method::PATCH, SECRET, live::update).body_bytes_max(input::BODY_BYTES_MAX),
        row("SecretDelete", Method::DELETE, "/secrets/{name}", deleted::delete),
        row("SecretList", Method::GET, "/secrets", lists::secrets),
        row("SecretListVersions", Method::GET, "/secrets/{name}/versions", lists::versions),
        row("SecretListDeleted", Method::GET, "/deletedsecrets", lists::deleted),
        row("SecretGetDeleted", Method::GET, DELETED, deleted::get),
        row("SecretPurge", Method::DELETE, DELETED, deleted::purge),
        row("SecretRecover", Method::POST, "/deletedsecrets/{name}/recover", deleted::recover),
        row("SecretBackup", Method::POST, "/secrets/{name}/backup", backup::backup),
        row("SecretRestore", Method::POST, "/secrets/restore", backup::restore)
            .body_bytes_max(backup::RESTORE_BODY_BYTES_MAX),
    ]
}

/// A row whose answer names the role assignment that allowed it.
fn row<A, I, F, Fut>(name: &'static str, method: Method, path: &'static str, handler: F) -> Op<KeyVault>
where
    A: Action,
    I: Input,
    F: Fn(At<KeyVault>, Permit<A>, I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Reply, Fault>> + Send + 'static,
{
    op(name, method, path, move |at: At<KeyVault>, permit: Permit<A>, input: I| {
        let assignment = permit.allowed_by().and_then(assignment_id);
        let answer = handler(at, permit, input);
        async move {
            let reply = answer.await?;
            Ok(match assignment {
                Some(id) => reply.with(ASSIGNMENT, id),
                None => reply,
            })
        }
    })
}

/// The assignment's name without hyphens, as the service shows it.
fn assignment_id(allowed_by: &str) -> Option<HeaderValue> {
    if allowed_by.starts_with(ALLOWED_BY_POLICY) {
        return None;
    }
    let name = allowed_by.rsplit('/').next().unwrap_or(allowed_by);
    let mut id = Vec::with_capacity(name.len());
    id.extend(name.bytes().filter(|byte| *byte != b'-'));
    HeaderValue::try_from(id).ok()
}
