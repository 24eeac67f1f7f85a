//! Whose tokens a site's services trust: those signed by keys that its login service publishes, read from the very
//! document that every other party reads.

use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, anyhow, ensure};
use arcadia_crypto::{KeySet, TokenVerifier};
use arcadia_kernel::{Authenticator, Endpoint, Incoming, TokenFault, VerifiedToken, full_body};
use http_body_util::{BodyExt as _, Limited};

use super::Assembly;

const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

/// Refuses every token until the published keys are read.
#[derive(Default)]
pub struct PublishedKeys(OnceLock<TokenVerifier>);

impl Authenticator for PublishedKeys {
    fn verify(&self, token: &str, now: i64) -> Result<VerifiedToken, TokenFault> {
        self.0.get().ok_or(TokenFault::UnknownKey)?.verify(token, now)
    }
}

/// Reads the published keys, and trusts them from now on: the directory makes no others while the site runs.
pub async fn trust_published_keys(assembly: &Assembly) -> anyhow::Result<()> {
    let tenant = assembly.directory.tenant().context("the directory is not founded")?;
    let host = assembly.names.login_host();
    let keys = read_keys(&assembly.login, &host, &tenant.id.to_string()).await?;
    let verifier = TokenVerifier::new(keys, assembly.directory.issuers())?;
    let set = assembly.keys.0.set(verifier);
    set.map_err(|_| anyhow!("the published keys are trusted already"))
}

async fn read_keys(login: &Arc<dyn Endpoint>, host: &str, tenant: &str) -> anyhow::Result<KeySet> {
    let path = format!("/{tenant}/discovery/v2.0/keys");
    let (head, ()) = http::Request::get(path).body(())?.into_parts();
    let incoming = Incoming {
        head,
        body: full_body(""),
        host: host.to_owned(),
        origin: format!("https://{host}"),
        remote: None,
    };
    let response = login.clone().serve(incoming).await;
    ensure!(response.status().is_success(), "the login service answers {} for its keys", response.status());
    let body = Limited::new(response.into_body(), DOCUMENT_BYTES_MAX).collect().await;
    let body = body.map_err(|error| anyhow!("the published keys: {error}"))?.to_bytes();
    Ok(KeySet::from_jwks(&serde_json::from_slice(&body)?)?)
}
