//! A site with a storage account, and requests for its blobs as a principal of a data role makes them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use http::{HeaderName, Method, StatusCode};
use serde_json::json;

use crate::load::{Ask, Load, Loaded, Peer};
use crate::site::Site;

pub const ACCOUNT: &str = "benchblobs";
const HOST: &str = "benchblobs.blob.core.windows.net";
const SCOPE: &str = "https://storage.azure.com/.default";
const BLOB_CONTRIBUTOR: &str = "ba92f5b4-2d11-453d-a403-e96b0029c9fe";
const VERSION: HeaderName = HeaderName::from_static("x-ms-version");
const BLOB_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-type");
const FILL_CONNECTIONS: usize = 32;

pub struct BlobSite {
    pub site: Site,
    token: String,
}

impl BlobSite {
    pub async fn start(program: &Path, folder: &Path) -> Result<Self> {
        Self::furnish(Site::start(program, folder)?).await
    }

    /// Makes the account, and an application that may read and write its blobs.
    pub async fn furnish(site: Site) -> Result<Self> {
        let group = site.make_group().await?;
        let id = format!("{group}/providers/Microsoft.Storage/storageAccounts/{ACCOUNT}");
        let body = json!({ "location": "uksouth", "kind": "StorageV2", "sku": { "name": "Standard_LRS" } });
        site.arm(Method::PUT, &id, "2023-05-01", Some(&body)).await?;
        let application = site.make_application("blobs").await?;
        site.assign(&id, BLOB_CONTRIBUTOR, &application.object_id).await?;
        let token = site.token_of(&application, SCOPE).await?;
        Ok(Self { site, token })
    }

    pub fn peer(&self) -> Result<Peer> {
        self.site.peer(HOST)
    }

    fn ask(&self, method: Method, path: &str, bytes: Vec<u8>) -> Result<Ask> {
        Ask::with_body(method, path, bytes).bearer(&self.token)?.header(VERSION, "2023-11-03")
    }

    pub fn get(&self, path: &str) -> Result<Ask> {
        self.ask(Method::GET, path, Vec::new())
    }

    pub fn put(&self, path: &str, bytes: Vec<u8>) -> Result<Ask> {
        self.ask(Method::PUT, path, bytes)?.header(BLOB_TYPE, "BlockBlob")
    }

    /// Takes success only; the body that came back.
    pub async fn must(&self, ask: Ask) -> Result<Vec<u8>> {
        let what = format!("{} {}", ask.method, ask.path);
        let (status, body) = self.site.send(HOST, ask).await?;
        ensure!(status.is_success(), "{what}: {status} {}", String::from_utf8_lossy(&body));
        Ok(body)
    }

    pub async fn make_container(&self, name: &str) -> Result<()> {
        self.must(self.ask(Method::PUT, &format!("/{name}?restype=container"), Vec::new())?).await?;
        Ok(())
    }

    /// Puts the blobs `from..until` of a container, each of these bytes, or as many as the time allows.
    pub async fn fill(
        &self,
        container: &str,
        from: u64,
        until: u64,
        bytes: Vec<u8>,
        time: Duration,
    ) -> Result<Loaded> {
        let load = Load::new(FILL_CONNECTIONS, time, until.saturating_sub(from))?;
        let (ask, container) = (self.put("", bytes)?, container.to_owned());
        let ask = move |number: u64| Ask { path: blob(&container, from + number), ..ask.clone() };
        load.run(&self.peer()?, &self.site.meter(), StatusCode::CREATED, ask).await
    }
}

/// The path of the n-th blob of a container.
pub fn blob(container: &str, number: u64) -> String {
    format!("/{container}/b{number:08}")
}
