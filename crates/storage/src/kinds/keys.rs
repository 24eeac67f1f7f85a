//! The two keys of an account: shown and made anew.

use std::sync::Arc;

use arcadia_arm::Arm;
use arcadia_crypto::b64;
use arcadia_kernel::{At, Entropy, Fault, Json, Method, Op, Permit, Reply, Request, action, op};
use arcadia_store::{Batch, Row};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{account_at, no_account};
use crate::Storage;
use crate::account::Account;
use crate::records::{AccountKey, AccountKeys, KEYS};

action!(ListKeys, Control, "Microsoft.Storage/storageAccounts/listkeys/action");
action!(RegenerateKey, Control, "Microsoft.Storage/storageAccounts/regeneratekey/action");

const KEY_BYTES: usize = 64;
const BODY_BYTES_MAX: usize = 16 * 1024;
const LIST: &str = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Storage/storageAccounts/{name}/listKeys";
const REGENERATE: &str = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Storage/storageAccounts/{name}/regenerateKey";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Which {
    key_name: String,
}

pub(super) fn ops(storage: &Arc<Storage>) -> Vec<Op<Arm>> {
    let (list, regenerate) = (storage.clone(), storage.clone());
    vec![
        op("StorageAccountListKeys", Method::POST, LIST, move |_: At<Arm>, permit, request| {
            list_keys(list.clone(), permit, request)
        }),
        op("StorageAccountRegenerateKey", Method::POST, REGENERATE, move |_: At<Arm>, permit, which| {
            regenerate_key(regenerate.clone(), permit, which)
        })
        .body_bytes_max(BODY_BYTES_MAX),
    ]
}

/// Two new keys.
pub(super) fn make(instance: Uuid, now: Timestamp, entropy: &dyn Entropy) -> AccountKeys {
    AccountKeys { instance, keys: ["key1", "key2"].map(|name| new_key(name, now, entropy)) }
}

fn new_key(name: &str, created: Timestamp, entropy: &dyn Entropy) -> AccountKey {
    let mut bytes = [0; KEY_BYTES];
    entropy.fill(&mut bytes);
    AccountKey { name: name.to_owned(), value: b64(&bytes), created }
}

fn shown(keys: &AccountKeys) -> Value {
    let keys = keys.keys.iter().map(|key| {
        json!({
            "creationTime": key.created.to_string(),
            "keyName": key.name,
            "value": key.value,
            "permissions": "FULL",
        })
    });
    json!({ "keys": keys.collect::<Vec<_>>() })
}

/// They go with their account, which may have been looked up before that.
async fn keys_of(storage: &Storage, account: &Account) -> Result<Row<AccountKeys>, Fault> {
    storage.store.get(KEYS, &account.instance()).await?.ok_or_else(|| no_account(&account.id))
}

async fn list_keys(storage: Arc<Storage>, permit: Permit<ListKeys>, _: Request) -> Result<Reply, Fault> {
    let account = account_at(&storage, permit.scope())?;
    Reply::ok(&shown(&keys_of(&storage, &account).await?.value))
}

async fn regenerate_key(
    storage: Arc<Storage>,
    permit: Permit<RegenerateKey>,
    which: Json<Which>,
) -> Result<Reply, Fault> {
    let account = account_at(&storage, permit.scope())?;
    let mut attempts = storage.store.attempts();
    loop {
        let row = keys_of(&storage, &account).await?;
        let mut keys = row.value;
        let key = keys.keys.iter_mut().find(|key| key.name.eq_ignore_ascii_case(&which.value.key_name));
        let key = key.ok_or_else(|| {
            let message = "The property 'keyName' must be 'key1' or 'key2'.";
            Fault::bad_request("InvalidRequestPropertyValue", message)
        })?;
        *key = new_key(&key.name, permit.now(), permit.entropy());
        let mut batch = Batch::new();
        batch.require_revision(KEYS, &account.instance(), row.revision);
        batch.put(KEYS, &account.instance(), &keys)?;
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            return Reply::ok(&shown(&keys));
        }
    }
}
