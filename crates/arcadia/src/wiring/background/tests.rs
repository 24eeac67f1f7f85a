use arcadia_crypto::SystemEntropy;
use arcadia_kernel::{Clock as _, Endpoint, FixedClock, Incoming, full_body};
use arcadia_store::Store;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::names::SiteNames;
use crate::site::{Credentials, DataDir};
use crate::wiring::databases;
use crate::wiring::founding::{FirstNames, found};
use crate::wiring::services::assemble;
use crate::wiring::tokens::trust_published_keys;

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 24 * 60 * 60;
const BLOB_CONTRIBUTOR: &str = "ba92f5b4-2d11-453d-a403-e96b0029c9fe";

struct World {
    clock: Arc<FixedClock>,
    data: DataDir,
    assembly: Assembly,
    first: Credentials,
    _folder: TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let data = DataDir::at(folder.path().to_owned());
        let (clock, entropy) = (Arc::new(FixedClock::at_epoch_seconds(NOW)), Arc::new(SystemEntropy));
        let store = Store::in_memory(clock.clone(), entropy.clone());
        let (place, blobs) = (databases::place(&data), data.blobs_folder());
        let assembly = assemble(store, SiteNames::of(None), place, &blobs, clock.clone(), entropy.clone())
            .await
            .unwrap();
        let names = FirstNames { user_name: "admin".into(), user_domain: "a.example".into() };
        found(&data, &names, &assembly, &*clock, &*entropy).await.unwrap();
        trust_published_keys(&assembly).await.unwrap();
        let first = Credentials::expect(&data).unwrap();
        Self { clock, data, assembly, first, _folder: folder }
    }

    async fn send(&self, endpoint: &Arc<dyn Endpoint>, request: Request<String>) -> Value {
        let (mut head, body) = request.into_parts();
        let (host, target) =
            (head.uri.host().unwrap().to_owned(), head.uri.path_and_query().unwrap().clone());
        let what = format!("{} {}", head.method, head.uri);
        head.uri = target.into();
        let origin = format!("https://{host}");
        let incoming = Incoming { head, body: full_body(body), host, origin, remote: None };
        let (parts, body) = endpoint.clone().serve(incoming).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        assert!(parts.status.is_success(), "{what}: {} {}", parts.status, String::from_utf8_lossy(&bytes));
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    async fn token(&self, scope: &str) -> String {
        let Credentials { tenant_id, client_id, client_secret, .. } = &self.first;
        let form = format!(
            "grant_type=client_credentials&client_id={client_id}&client_secret={}&scope={scope}/.default",
            client_secret.as_str()
        );
        let url = format!("https://login.microsoftonline.com/{tenant_id}/oauth2/v2.0/token");
        let answer = self.send(&self.assembly.login, Request::post(url).body(form).unwrap()).await;
        answer["access_token"].as_str().unwrap().to_owned()
    }

    /// An application and a vault that were deleted, and a block that nobody made a blob of.
    async fn leave_some(&self) {
        let Self { assembly, first, .. } = self;
        let graph = self.token("https://graph.microsoft.com").await;
        let ask = |method: &str, url: &str, token: &str, body: Value| {
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let request = Request::builder().method(method).uri(url).header("x-ms-version", "2020-10-02");
            request.header("authorization", format!("Bearer {token}")).body(body).unwrap()
        };
        let applications = "https://graph.microsoft.com/v1.0/applications";
        let new = ask("POST", applications, &graph, json!({ "displayName": "gone" }));
        let made = self.send(&assembly.graph, new).await;
        let url = format!("{applications}/{}", made["id"].as_str().unwrap());
        self.send(&assembly.graph, ask("DELETE", &url, &graph, Value::Null)).await;

        let arm = self.token("https://management.azure.com").await;
        let subscription = format!("https://management.azure.com/subscriptions/{}", first.subscription_id);
        let group = format!("{subscription}/resourceGroups/rg");
        let vault = format!("{group}/providers/Microsoft.KeyVault/vaults/kvgone?api-version=2026-02-01");
        let account = format!("{group}/providers/Microsoft.Storage/storageAccounts/stkept");
        let properties = json!({
            "tenantId": first.tenant_id, "sku": { "family": "A", "name": "standard" },
            "enableRbacAuthorization": true, "accessPolicies": [],
        });
        let role = format!(
            "/subscriptions/{}/providers/Microsoft.Authorization/roleDefinitions/{BLOB_CONTRIBUTOR}",
            first.subscription_id
        );
        let own = assembly.directory.service_principal_of(first.client_id).unwrap().object_id;
        let assignment = format!(
            "{account}/providers/Microsoft.Authorization/roleAssignments/{}?api-version=2022-04-01",
            first.tenant_id
        );
        for (method, url, body) in [
            ("PUT", &format!("{group}?api-version=2024-11-01"), json!({ "location": "uksouth" })),
            ("PUT", &vault, json!({ "location": "uksouth", "properties": properties })),
            ("DELETE", &vault, Value::Null),
            (
                "PUT",
                &format!("{account}?api-version=2023-05-01"),
                json!({ "location": "uksouth", "kind": "StorageV2", "sku": { "name": "Standard_LRS" } }),
            ),
            ("PUT", &assignment, json!({ "properties": { "roleDefinitionId": role, "principalId": own } })),
        ] {
            self.send(&assembly.management, ask(method, url, &arm, body)).await;
        }
        let storage = self.token("https://storage.azure.com").await;
        let container = "https://stkept.blob.core.windows.net/box";
        let new = ask("PUT", &format!("{container}?restype=container"), &storage, Value::Null);
        self.send(&assembly.blobs, new).await;
        let block = format!("{container}/b?comp=block&blockid=AAAA");
        self.send(&assembly.blobs, ask("PUT", &block, &storage, json!("some bytes"))).await;
    }
}

#[tokio::test]
async fn what_a_clock_that_is_ahead_makes_due_stays() {
    let world = World::new().await;
    world.leave_some().await;
    world.clock.advance_seconds(100 * DAY);
    // As of a backup that was restored.
    let retention = Mutex::new(Retention::of(&world.data, false, world.clock.now()));
    let Assembly { gate, directory, keyvault, storage, .. } = &world.assembly;
    assert!(!sweep_once(gate, directory, keyvault, &retention).await);
    sweep_storage_once(gate, storage, &retention).await;
    let permit = || gate.as_system(Reason::Sweep);
    assert_eq!(directory.sweep(permit()).await.unwrap(), 1, "the application was still there");
    assert_eq!(keyvault.sweep(permit()).await.unwrap().vaults, 1, "and the vault");
    assert_eq!(storage.sweep(permit()).await.unwrap().drafts, 1, "and the block");
}
