//! A small site: one tenant, one subscription with an owner and a resource group, accounts, callers, roles.

mod callers;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arcadia_arm::{Arm, ArmNames, Founding, PrincipalType, arm_ops, registered};
use arcadia_crypto::{KeyRing, SystemEntropy, b64, b64_decode, hmac_sha256};
use arcadia_kernel::{
    Body, BodyError, Dispatcher, Endpoint, EntropyExt as _, Fault, FixedClock, Gate, HeaderMap, Incoming,
    Limits, Method, OpInfo, Reason, full_body,
};
use arcadia_storage::{Accounts, Storage, StorageNames, Swept, blob_ops};
use arcadia_store::{Store, StoreError};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

pub use arcadia_interleaved::Interleaved;
pub use callers::{Caller, Directory, Tokens};

pub const BLOB_CONTRIBUTOR: &str = "ba92f5b4-2d11-453d-a403-e96b0029c9fe";
pub const BLOB_READER: &str = "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1";
pub const BLOB_OWNER: &str = "b7e6dc6d-f1e8-4753-8033-0f276bb0955b";
pub const OWNER: &str = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635";
pub const CONTRIBUTOR: &str = "b24988ac-6180-42a0-ab88-20f7382dd24c";
pub const READER: &str = "acdd72a7-3385-48ef-bd42-f606fba81ae7";

pub const TENANT: Uuid = Uuid::from_u128(0x7e);
pub const SUBSCRIPTION: &str = "5b5c0000-0000-4000-8000-000000000001";
pub const GROUP: &str = "/subscriptions/5b5c0000-0000-4000-8000-000000000001/resourceGroups/rg";
/// 2026-11-21T12:00:00Z
pub const START: i64 = 1_795_262_400;
pub const DAY: i64 = 86_400;
pub const AUDIENCE: &str = "https://storage.azure.com";

pub struct World {
    pub clock: Arc<FixedClock>,
    pub store: Store,
    pub folder: Arc<TempDir>,
    pub directory: Arc<Directory>,
    pub owner: Caller,
    pub storage: Arc<Storage>,
    gate: Arc<Gate>,
    data: Arc<Dispatcher<Storage>>,
    arm: Arc<Dispatcher<Arm>>,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or(Value::Null)
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// `403 AuthenticationFailed`, or the status alone.
    pub fn outcome(&self) -> String {
        format!("{} {}", self.status, self.header("x-ms-error-code")).trim().to_owned()
    }

    /// What is between the first such tags, and what is between all of them.
    pub fn all(&self, tag: &str) -> Vec<String> {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        let text = self.text();
        text.split(&open).skip(1).map(|rest| rest.split(&close).next().unwrap().to_owned()).collect()
    }
}

/// One request to the data plane, before it is sent.
pub struct Ask {
    pub method: Method,
    pub host: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Ask {
    pub fn new(method: Method, account: &str, target: &str) -> Self {
        Self {
            method,
            host: format!("{account}.blob.core.windows.net"),
            target: target.to_owned(),
            headers: vec![("x-ms-version".to_owned(), "2020-10-02".to_owned())],
            body: Bytes::new(),
        }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.with("content-length", &length)
    }

    pub fn by(self, caller: &Caller) -> Self {
        let bearer = caller.bearer(AUDIENCE);
        self.with("authorization", &bearer)
    }

    pub fn text_to_sign(&self, account: &str) -> String {
        let value = |name: &str| {
            let found = self.headers.iter().find(|(n, _)| n == name);
            found.map(|(_, v)| v.clone()).filter(|v| name != "content-length" || v != "0").unwrap_or_default()
        };
        let standard = [
            "content-encoding",
            "content-language",
            "content-length",
            "content-md5",
            "content-type",
            "date",
            "if-modified-since",
            "if-match",
            "if-none-match",
            "if-unmodified-since",
            "range",
        ];
        let mut text = format!("{}\n", self.method);
        for name in standard {
            text.push_str(&format!("{}\n", value(name)));
        }
        let mut named: Vec<_> = self.headers.iter().filter(|(name, _)| name.starts_with("x-ms-")).collect();
        named.sort();
        for (name, value) in named {
            text.push_str(&format!("{name}:{value}\n"));
        }
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        text.push_str(&format!("/{account}{path}"));
        let mut pairs: Vec<_> = query.split('&').filter(|pair| !pair.is_empty()).collect();
        pairs.sort_unstable();
        for pair in pairs {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_encoding::percent_decode_str(value).decode_utf8().unwrap();
            text.push_str(&format!("\n{name}:{value}"));
        }
        text
    }

    /// Signed with an account's key, at this many seconds since 1970.
    pub fn signed(self, account: &str, key: &str, at: i64) -> Self {
        let date = jiff::Timestamp::from_second(at).unwrap();
        let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&date).unwrap();
        let ask = self.with("x-ms-date", &date);
        let signature = hmac_sha256(&b64_decode(key).unwrap(), ask.text_to_sign(account).as_bytes());
        let value = format!("SharedKey {account}:{}", b64(&signature));
        ask.with("authorization", &value)
    }
}

impl World {
    pub async fn new() -> Self {
        if let Some(folder) = arcadia_races::folder() {
            return Self::on_disk(Arc::new(folder), || KeyRing::generate(&SystemEntropy).unwrap()).await;
        }
        let clock = Arc::new(FixedClock::at_epoch_seconds(START));
        let store = Store::in_memory(clock.clone(), Arc::new(SystemEntropy));
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Self::over(store, folder, clock, Arc::new(Directory::new(TENANT))).await
    }

    /// A site with an account `name` and a contributor of all blobs in it.
    pub async fn with_account(name: &str) -> (Self, Caller) {
        let world = Self::new().await;
        let caller = world.make_account_and_member(name).await;
        (world, caller)
    }

    /// A site with what can hold up one of its requests, so that another comes in between.
    pub async fn held_up() -> (Self, Arc<Interleaved>) {
        let clock = Arc::new(FixedClock::at_epoch_seconds(START));
        let (store, backend) = Interleaved::store(START).await;
        let folder = Arc::new(tempfile::tempdir().unwrap());
        (Self::over(store, folder, clock, Arc::new(Directory::new(TENANT))).await, backend)
    }

    /// Rows and bytes on the disk.
    pub async fn on_disk(folder: Arc<TempDir>, ring: impl Fn() -> KeyRing) -> Self {
        let clock = Arc::new(FixedClock::at_epoch_seconds(START));
        // What an earlier world left to do in the background holds its store for a moment longer.
        let begun = Instant::now();
        let store = loop {
            match Store::open(folder.path(), ring(), clock.clone(), Arc::new(SystemEntropy)) {
                Err(StoreError::InUse { .. }) if begun.elapsed() < Duration::from_secs(30) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                opened => break opened.unwrap(),
            }
        };
        Self::over(store, folder, clock, Arc::new(Directory::new(TENANT))).await
    }

    async fn over(
        store: Store,
        folder: Arc<TempDir>,
        clock: Arc<FixedClock>,
        directory: Arc<Directory>,
    ) -> Self {
        let entropy = Arc::new(SystemEntropy);
        let storage = Storage::open(
            store.clone(),
            &folder.path().join("blobs"),
            StorageNames::azure(),
            directory.clone(),
            clock.clone(),
            entropy.clone(),
        )
        .await
        .unwrap();
        let kinds = vec![registered(Arc::new(Accounts(storage.clone())))];
        let arm = Arm::open(
            store.clone(),
            ArmNames::azure(),
            directory.clone(),
            kinds,
            clock.clone(),
            entropy.clone(),
        )
        .await
        .unwrap();
        let gate = Arc::new(Gate {
            authenticator: Arc::new(Tokens(directory.clone())),
            decider: arm.decider(),
            audit: store.audit_sink(),
            clock: clock.clone(),
            entropy,
            limits: Limits::default(),
        });
        let owner = directory.caller("owner");
        let founding = Founding {
            tenant_id: TENANT,
            subscription_id: Uuid::parse_str(SUBSCRIPTION).unwrap(),
            display_name: "Site".to_owned(),
            owners: vec![(owner.object_id, PrincipalType::User)],
        };
        arm.found(gate.as_system(Reason::Founding), founding).await.unwrap();
        arm.start(gate.clone()).await;
        let data = Arc::new(Dispatcher::new(storage.clone(), blob_ops(), gate.clone()));
        let rows = arm_ops(&arm);
        let arm = Arc::new(Dispatcher::new(arm, rows, gate.clone()));
        let world = Self { clock, store, folder, directory, owner, storage, gate, data, arm };
        world.make_group(GROUP).await;
        world
    }

    pub async fn make_group(&self, group: &str) {
        let made = self.manage(Method::PUT, group, json!({ "location": "uksouth" })).await;
        assert!(matches!(made.status, 200 | 201), "{}", made.text());
    }

    /// The same site opened anew over the same rows and bytes.
    pub async fn restarted(self) -> Self {
        let Self { store, folder, clock, directory, .. } = self;
        Self::over(store, folder, clock, directory).await
    }

    pub fn blobs(&self) -> &Path {
        self.folder.path()
    }

    pub fn caller(&self, name: &str) -> Caller {
        self.directory.caller(name)
    }

    pub fn account(&self, name: &str) -> String {
        format!("{GROUP}/providers/Microsoft.Storage/storageAccounts/{name}")
    }

    pub fn container(&self, account: &str, name: &str) -> String {
        format!("{}/blobServices/default/containers/{name}", self.account(account))
    }

    pub async fn make_account(&self, name: &str) -> Value {
        let answer = self.put_account(name, json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// The member is a contributor of all blobs in the account.
    pub async fn make_account_and_member(&self, name: &str) -> Caller {
        self.make_account(name).await;
        let member = self.caller("contributor-of-blobs");
        self.grant(&member, BLOB_CONTRIBUTOR, &self.account(name)).await;
        member
    }

    pub async fn put_account(&self, name: &str, properties: Value) -> Answer {
        let body = json!({
            "location": "uksouth", "sku": { "name": "Standard_LRS" }, "kind": "StorageV2", "properties": properties
        });
        self.manage(Method::PUT, &self.account(name), body).await
    }

    pub async fn keys(&self, name: &str) -> Vec<String> {
        let path = format!("{}/listKeys", self.account(name));
        let answer = self.manage(Method::POST, &path, Value::Null).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let keys = answer.json()["keys"].as_array().unwrap().clone();
        keys.iter().map(|key| key["value"].as_str().unwrap().to_owned()).collect()
    }

    pub async fn grant(&self, caller: &Caller, role: &str, scope: &str) -> String {
        let path =
            format!("{scope}/providers/Microsoft.Authorization/roleAssignments/{}", SystemEntropy.uuid());
        let definition = format!("/providers/Microsoft.Authorization/roleDefinitions/{role}");
        let body =
            json!({ "properties": { "roleDefinitionId": definition, "principalId": caller.object_id } });
        let answer = self.send_arm(&self.owner, Method::PUT, &path, "2022-04-01", body).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        path
    }

    pub async fn revoke(&self, assignment: &str) {
        let answer = self.send_arm(&self.owner, Method::DELETE, assignment, "2022-04-01", Value::Null).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// By the owner.
    pub async fn manage(&self, method: Method, path: &str, body: Value) -> Answer {
        self.send_arm(&self.owner, method, path, "2025-08-01", body).await
    }

    pub async fn send_arm(
        &self,
        caller: &Caller,
        method: Method,
        path: &str,
        api_version: &str,
        body: Value,
    ) -> Answer {
        let ask = Ask {
            method,
            host: "management.azure.com".to_owned(),
            target: format!("{path}?api-version={api_version}"),
            headers: vec![("authorization".to_owned(), caller.bearer("https://management.azure.com/"))],
            body: if body.is_null() { Bytes::new() } else { body.to_string().into() },
        };
        self.ask_arm(ask).await
    }

    /// One request to the resource manager, whatever it is.
    pub async fn ask_arm(&self, ask: Ask) -> Answer {
        let body = full_body(ask.body.clone());
        send(self.arm.clone(), ask, body).await
    }

    pub async fn ask(&self, ask: Ask) -> Answer {
        let body = full_body(ask.body.clone());
        send(self.data.clone(), ask, body).await
    }

    pub async fn ask_with_body(&self, ask: Ask, body: Body) -> Answer {
        send(self.data.clone(), ask, body).await
    }

    pub async fn make_container(&self, caller: &Caller, account: &str, name: &str) {
        let ask = Ask::new(Method::PUT, account, &format!("/{name}?restype=container")).by(caller);
        assert_eq!(self.ask(ask).await.outcome(), "201");
    }

    pub async fn put(&self, caller: &Caller, account: &str, path: &str, body: impl Into<Bytes>) -> Answer {
        let ask =
            Ask::new(Method::PUT, account, path).by(caller).with("x-ms-blob-type", "BlockBlob").body(body);
        self.ask(ask).await
    }

    pub async fn get(&self, caller: &Caller, account: &str, path: &str) -> Answer {
        self.ask(Ask::new(Method::GET, account, path).by(caller)).await
    }

    pub async fn delete(&self, caller: &Caller, account: &str, path: &str) -> Answer {
        self.ask(Ask::new(Method::DELETE, account, path).by(caller)).await
    }

    pub async fn sweep(&self) -> Swept {
        self.try_sweep().await.unwrap()
    }

    pub async fn try_sweep(&self) -> Result<Swept, Fault> {
        self.storage.sweep(self.gate.as_system(Reason::Sweep)).await
    }

    pub async fn tidy(&self) -> Swept {
        self.storage.tidy(self.gate.as_system(Reason::Sweep)).await.unwrap()
    }

    /// A row as it is stored.
    pub async fn put_row<K: arcadia_store::Key + ?Sized>(&self, table: &'static str, key: &K, row: Value) {
        let mut batch = arcadia_store::Batch::new();
        batch.put(arcadia_store::Table::<K, Raw>::new(table), key, &Raw(row)).unwrap();
        self.store.commit(self.gate.as_system(Reason::Sweep).stamp(), batch).await.unwrap();
    }

    pub async fn remove_row(&self, table: &'static str, key: &str) {
        let mut batch = arcadia_store::Batch::new();
        batch.delete(arcadia_store::Table::<str, Raw>::new(table), key);
        self.store.commit(self.gate.as_system(Reason::Sweep).stamp(), batch).await.unwrap();
    }

    pub async fn stored(&self, table: &'static str) -> Vec<Value> {
        let rows = self.store.all(arcadia_store::Table::<(), Raw>::new(table), &()).await.unwrap();
        rows.into_iter().map(|row| row.value.0).collect()
    }

    /// How many rows a table of the store has.
    pub async fn rows(&self, table: &'static str) -> usize {
        self.stored(table).await.len()
    }

    pub fn arm_rows(&self) -> Vec<OpInfo> {
        self.arm.catalogue()
    }

    pub fn data_rows(&self) -> Vec<OpInfo> {
        self.data.catalogue()
    }

    /// Files below the folder of blobs, without the one that has its id.
    pub fn files_of_bytes(&self) -> Vec<std::path::PathBuf> {
        let mut files = walk(&self.folder.path().join("blobs"));
        files.retain(|path| !path.ends_with("blobs/id"));
        files
    }

    /// How many they are, segments apart.
    pub fn files(&self) -> (usize, usize) {
        let (mut files, mut segments) = (0, 0);
        for path in self.files_of_bytes() {
            if path.extension().is_some_and(|extension| extension == "seg") {
                segments += 1
            } else {
                files += 1
            }
        }
        (files, segments)
    }
}

pub fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

pub fn md5(bytes: &[u8]) -> String {
    use md5::Digest as _;
    b64(&md5::Md5::digest(bytes))
}

/// A body of two parts; the last comes after something else was done.
pub fn body_around(
    first: impl Into<Bytes>,
    meanwhile: impl Future<Output = ()> + Send + 'static,
    last: impl Into<Bytes>,
) -> Body {
    let [first, last] = [first.into(), last.into()].map(|part| Ok::<_, BodyError>(Frame::data(part)));
    let last = stream::once(async move {
        meanwhile.await;
        last
    });
    StreamBody::new(stream::iter([first]).chain(last)).boxed_unsync()
}

async fn send(to: Arc<dyn Endpoint>, ask: Ask, body: Body) -> Answer {
    let mut builder = http::Request::builder().method(ask.method).uri(ask.target);
    for (name, value) in ask.headers {
        builder = builder.header(name, value);
    }
    let (head, ()) = builder.body(()).unwrap().into_parts();
    let origin = format!("https://{}", ask.host);
    let incoming = Incoming { head, body, host: ask.host, origin, remote: None };
    let (parts, body) = to.serve(incoming).await.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status.as_u16(), headers: parts.headers, bytes }
}

/// A record of any table.
#[derive(serde::Serialize, serde::Deserialize)]
struct Raw(Value);

impl arcadia_store::Record for Raw {}
