//! A token for the resource manager, in the name of whoever connects the machine.

use std::path::PathBuf;
use std::time::Duration;

use arcadia_client::{AZ_CLIENT_ID, Ask, AssertionKey, Client, ClientFault, Endpoints, OAuth, Token};
use arcadia_crypto::{RsaKeyPair, Zeroizing, peek, pem_decode};
use uuid::Uuid;

use super::{Event, Failure, Listener, OnboardFault};
use crate::AgentOptions;
use crate::files::read_bounded;

const DEVICE_WAIT: Duration = Duration::from_secs(5 * 60);
const CERTIFICATE_BYTES_MAX: u64 = 256 * 1024;

/// How the person or script that connects the machine proves who they are.
pub enum SignIn {
    /// A person signs in on another device.
    DeviceCode,
    Secret {
        client_id: String,
        secret: Zeroizing<String>,
    },
    /// A PEM file with a service principal's certificate and private key.
    Certificate {
        client_id: String,
        file: PathBuf,
    },
    /// A token for the resource manager that was got elsewhere.
    AccessToken(Zeroizing<String>),
}

pub(super) struct Bearer {
    pub(super) token: Zeroizing<String>,
    pub(super) tenant_id: Uuid,
}

/// `tenant` may be missing where a person signs in or a token is given: the token then tells it.
pub(super) async fn sign_in(
    options: &AgentOptions,
    client: &Client,
    endpoints: &Endpoints,
    tenant: Option<&str>,
    how: &SignIn,
    listener: &mut Listener<'_>,
) -> Result<Bearer, OnboardFault> {
    let refused = |fault: ClientFault| {
        OnboardFault::site(Failure::NoToken, "cannot get a token for the resource manager", &fault)
    };
    let scope = endpoints.management_scope();
    let ask = Ask::Scope(&scope);
    let needed = || {
        tenant.ok_or_else(|| {
            OnboardFault::new(Failure::MissingParameter, "--tenant-id is required with a service principal")
        })
    };
    let token = match how {
        SignIn::AccessToken(token) => token.clone(),
        SignIn::Secret { client_id, secret } => {
            let oauth = OAuth::new(client, &endpoints.login, needed()?).map_err(refused)?;
            oauth.client_secret(client_id, secret, ask).await.map_err(refused)?.access_token
        }
        SignIn::Certificate { client_id, file } => {
            let oauth = OAuth::new(client, &endpoints.login, needed()?).map_err(refused)?;
            let key = certificate(file)?;
            let now = options.clock.epoch_seconds();
            let asked = oauth.client_assertion(client_id, &key, ask, &*options.entropy, now).await;
            asked.map_err(refused)?.access_token
        }
        SignIn::DeviceCode => {
            let oauth =
                OAuth::new(client, &endpoints.login, tenant.unwrap_or("organizations")).map_err(refused)?;
            by_device(&oauth, &scope, listener).await.map_err(refused)?.access_token
        }
    };
    let tenant_id = match tenant.and_then(|tenant| tenant.parse().ok()) {
        Some(tenant_id) => tenant_id,
        // The token is shown to the site, which checks it; here it only tells which tenant it is of.
        None => tenant_of(&token).ok_or_else(|| {
            OnboardFault::new(
                Failure::BadAccessToken,
                "the access token does not name its tenant; give --tenant-id",
            )
        })?,
    };
    Ok(Bearer { token, tenant_id })
}

async fn by_device(
    oauth: &OAuth<'_>,
    scope: &str,
    listener: &mut Listener<'_>,
) -> Result<Token, ClientFault> {
    let code = oauth.device_start(AZ_CLIENT_ID, scope).await?;
    let text = if code.message.is_empty() {
        format!(
            "To sign in, use a web browser to open the page {} and enter the code {} to authenticate.",
            code.verification_uri, code.user_code
        )
    } else {
        code.message.clone()
    };
    listener(Event::Info(text));
    oauth.device_wait(AZ_CLIENT_ID, &code, DEVICE_WAIT).await
}

fn tenant_of(token: &str) -> Option<Uuid> {
    let (_, claims) = peek(token).ok()?;
    claims.get("tid")?.as_str()?.parse().ok()
}

fn certificate(file: &std::path::Path) -> Result<AssertionKey, OnboardFault> {
    let wrong = |reason: &str| {
        OnboardFault::new(
            Failure::BadArguments,
            format!(
                "{} cannot be used: {reason}; give a PEM file with CERTIFICATE and PRIVATE KEY",
                file.display()
            ),
        )
    };
    let bytes =
        read_bounded(file, CERTIFICATE_BYTES_MAX).map(Zeroizing::new).map_err(|e| wrong(&e.to_string()))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("it is not text (PFX files are not read)"))?;
    let blocks = pem_decode(text).map_err(|fault| wrong(&fault.to_string()))?;
    let block = |label: &str| blocks.iter().find(|block| block.label == label);
    let key = block("PRIVATE KEY").ok_or_else(|| wrong("it has no PKCS#8 private key"))?;
    let certificate = block("CERTIFICATE").ok_or_else(|| wrong("it has no certificate"))?;
    let key = RsaKeyPair::from_pkcs8_der(&key.der).map_err(|fault| wrong(&fault.to_string()))?;
    Ok(AssertionKey::from_certificate(key, &certificate.der))
}
