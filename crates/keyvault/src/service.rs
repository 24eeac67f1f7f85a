//! The service behind the vaults' host names: whose vault, which scope, and in which words.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use arcadia_arm::{PrincipalSource, RESOURCES};
use arcadia_kernel::{
    ArmId, AuthFailure, Caller, Decider, Decision, Denial, Fault, HeaderName, HeaderValue, Located, OpInfo,
    Plane, Question, Reply, RequestHead, Service, StatusCode, TokenFault, header,
};
use arcadia_store::{Batch, Recent, Store, StoreError};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::KeyVaultNames;
use crate::faults;
use crate::records::{NAMES, SECRETS, Secret, folded};
use crate::vault::policy::{self, PolicyFirst};
use crate::vault::{PROVIDER, Vault, VaultIndex, network};
use crate::version::ApiVersion;

/// Secrets whose facts are kept in memory.
const RECENT_ROWS_MAX: usize = 4096;
const NAME_CHARS_MAX: usize = 127;
const CLIENT_REQUEST_ID_CHARS_MAX: usize = 128;
const SHOWN_CHARS_MAX: usize = 512;

const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
const REGION: HeaderName = HeaderName::from_static("x-ms-keyvault-region");
const NETWORK_INFO: HeaderName = HeaderName::from_static("x-ms-keyvault-network-info");
/// What every answer says.
static FIXED_HEADERS: [(HeaderName, HeaderValue); 6] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    (header::PRAGMA, HeaderValue::from_static("no-cache")),
    (header::EXPIRES, HeaderValue::from_static("-1")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000;includeSubDomains")),
    (
        HeaderName::from_static("x-ms-keyvault-service-version"),
        HeaderValue::from_static(concat!(env!("CARGO_PKG_VERSION"), ".0")),
    ),
];

/// Every vault of a site.
pub struct KeyVault {
    pub(crate) store: Store,
    pub(crate) names: KeyVaultNames,
    pub(crate) directory: Arc<dyn PrincipalSource>,
    pub(crate) vaults: Arc<VaultIndex>,
    /// Names and facts of secrets, never their values.
    pub(crate) recent_secrets: Recent<(Uuid, String), Secret>,
    roles: OnceLock<Arc<dyn Decider>>,
}

/// What a data plane request is about.
#[derive(Clone, Debug)]
pub struct Asked {
    pub vault: Arc<Vault>,
    pub version: ApiVersion,
}

impl KeyVault {
    /// Reads the vaults into memory and follows them from then on. Call it before anything else commits.
    pub async fn open(
        store: Store,
        names: KeyVaultNames,
        directory: Arc<dyn PrincipalSource>,
    ) -> Result<Arc<Self>, StoreError> {
        let vaults = Arc::new(VaultIndex::default());
        let recent_secrets = Recent::of(&store, SECRETS, RECENT_ROWS_MAX);
        let following = vaults.clone();
        store.observe(RESOURCES, move |changes| following.follow(changes));
        for row in store.all_with_segment(RESOURCES, PROVIDER).await? {
            if let Some(vault) = Vault::of(&row.value) {
                vaults.insert(vault);
            }
        }
        Ok(Arc::new(Self { store, names, directory, vaults, recent_secrets, roles: OnceLock::new() }))
    }

    /// The decision for a whole site: access policies for the data of vaults that use them, `roles` (the
    /// resource manager's engine) for everything else. Hand the result to the gate. The first `roles` given is
    /// also asked whether a caller may change a vault's permission model; before that nobody may.
    pub fn decider(self: &Arc<Self>, roles: Arc<dyn Decider>) -> Arc<dyn Decider> {
        let roles = self.roles.get_or_init(|| roles).clone();
        Arc::new(PolicyFirst { keyvault: self.clone(), roles })
    }

    /// The decision of the vault's access policies; `None` when the question is not about the data of a vault
    /// that uses them.
    pub fn decide_by_policy(&self, question: &Question<'_>) -> Option<Decision> {
        if question.plane != Plane::Data {
            return None;
        }
        let vault = self.vaults.containing(question.scope)?;
        if vault.properties.enable_rbac_authorization {
            return None;
        }
        Some(policy::decide(&vault, &*self.directory, question))
    }

    /// Whether `caller` has a role that allows a control action.
    pub(crate) fn may(&self, caller: &Caller, action: &str, scope: &ArmId) -> bool {
        let question = Question { caller, action, plane: Plane::Control, scope };
        let allowed = |roles: &Arc<dyn Decider>| matches!(roles.decide(&question), Decision::Allowed { .. });
        self.roles.get().is_some_and(allowed)
    }

    pub(crate) fn vault_uri(&self, name: &str) -> String {
        format!("{}/", self.names.vault_origin(name))
    }

    fn vault_of(&self, head: &RequestHead) -> Option<Arc<Vault>> {
        self.names.vault_name(head).and_then(|name| self.vaults.by_name(name))
    }

    /// A batch that is only committed while the vault is live and still the same one.
    pub(crate) async fn change_of(&self, vault: &Vault) -> Result<Batch, Fault> {
        let name = folded(vault.name());
        let claim = self.store.get(NAMES, name.as_str()).await?;
        let claim = claim
            .filter(|row| !row.value.deleted && row.value.instance == vault.properties.instance)
            .ok_or_else(|| faults::no_such_vault(vault.name()))?;
        let mut batch = Batch::new();
        batch.require_revision(NAMES, name.as_str(), claim.revision);
        Ok(batch)
    }

    /// The part of the data plane's scope below the vault: the object, the list of its versions, or nothing.
    fn scope(op: &OpInfo, vault: &Vault, head: &RequestHead) -> Result<ArmId, Fault> {
        let name = head.param("name");
        if name.is_empty() {
            return Ok(vault.id.clone());
        }
        if !is_object_name(name) {
            return Err(faults::invalid_name(name));
        }
        let pattern = op.pattern.as_str();
        let collection = pattern.split('/').nth(1).unwrap_or_default();
        let collection = collection.strip_prefix("deleted").unwrap_or(collection);
        let below = pattern.ends_with("/versions").then_some("versions");
        let scope = vault.id.extended([collection, name].into_iter().chain(below));
        scope.map_err(|_| faults::invalid_name(name))
    }
}

/// 1 to 127 letters, digits and hyphens.
pub(crate) fn is_object_name(name: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

impl Service for KeyVault {
    type Target = Asked;

    const NAME: &'static str = "keyvault";

    fn audiences(&self, _head: &RequestHead) -> Vec<Cow<'_, str>> {
        self.names.audiences.iter().map(Cow::from).collect()
    }

    fn locate(&self, op: &OpInfo, head: &RequestHead) -> Result<Located<Asked>, Fault> {
        let vault = self.vault_of(head).ok_or_else(|| faults::no_such_vault(&head.host))?;
        let version = ApiVersion::of(&head.query)?;
        let scope = Self::scope(op, &vault, head)?;
        Ok(Located { scope, target: Asked { vault, version } })
    }

    fn admit(&self, head: &RequestHead, asked: &Asked) -> Result<(), Fault> {
        network::admit(&asked.vault, head.remote)
            .map_err(|fault| fault.denied("the vault's network rules refuse the address"))
    }

    fn challenge(&self, _head: &RequestHead, failure: &AuthFailure) -> Fault {
        let value = format!(
            "Bearer authorization=\"{}/{}\", resource=\"{}\"",
            self.names.login_origin.trim_end_matches('/'),
            self.directory.tenant().id,
            self.names.resource,
        );
        let fault = Fault::new(StatusCode::UNAUTHORIZED, "Unauthorized", unauthorized(failure));
        match HeaderValue::from_str(&value) {
            Ok(value) => fault.header(header::WWW_AUTHENTICATE, value),
            Err(error) => fault.caused_by(error),
        }
    }

    fn refuse(&self, head: &RequestHead, caller: &Caller, denial: &Denial) -> Fault {
        let Some(vault) = self.vault_of(head) else {
            return faults::no_such_vault(&head.host);
        };
        if vault.properties.enable_rbac_authorization {
            return faults::forbidden_by_rbac(&vault, caller, denial);
        }
        let groups = self.directory.groups_of(caller.object_id).map_or(0, |groups| groups.len());
        let verb = policy::verb(&denial.action, &denial.scope).unwrap_or(("secrets", "unknown"));
        faults::forbidden_by_policy(&vault, caller, groups, verb)
    }

    fn no_such_operation(&self, head: &RequestHead, other_method_fits: bool) -> Fault {
        if other_method_fits { faults::other_method(head.method.as_str()) } else { faults::unknown_path() }
    }

    fn render(&self, _head: &RequestHead, fault: &Fault) -> Reply {
        let mut error = Map::new();
        error.insert("code".to_owned(), Value::from(&*fault.code));
        error.insert("message".to_owned(), Value::from(fault.message.as_str()));
        if let Some(inner) = &fault.inner {
            error.insert("innererror".to_owned(), json!({ "code": inner }));
        }
        let body = json!({ "error": error }).to_string();
        Reply::bytes(fault.status, "application/json; charset=utf-8", body)
    }

    fn finish(&self, head: &RequestHead, reply: &mut Reply) {
        let headers = &mut reply.headers;
        for (name, value) in &FIXED_HEADERS {
            headers.insert(name, value.clone());
        }
        headers.insert(REQUEST_ID, head.request_id_value());
        if let Some(vault) = self.vault_of(head)
            && let Some(region) = &vault.region
        {
            headers.insert(REGION, region.clone());
        }
        if let Some(address) = head.remote
            && let Ok(info) = HeaderValue::try_from(network_info(address))
        {
            headers.insert(NETWORK_INFO, info);
        }
        if let Some(id) = head.headers.get(CLIENT_REQUEST_ID)
            && id.len() <= CLIENT_REQUEST_ID_CHARS_MAX
        {
            headers.insert(CLIENT_REQUEST_ID, id.clone());
        }
    }
}

fn network_info(address: IpAddr) -> String {
    let address = address.to_canonical();
    let (kind, family) =
        if address.is_ipv4() { ("Ipv4", "InterNetwork") } else { ("Ipv6", "InterNetworkV6") };
    format!("conn_type={kind};addr={address};act_addr_fam={family};")
}

/// The message of a 401.
fn unauthorized(failure: &AuthFailure) -> String {
    let shown = |text: &str| text.chars().take(SHOWN_CHARS_MAX).collect::<String>();
    let fault = match failure {
        AuthFailure::Missing | AuthFailure::Scheme => {
            return "AKV10000: Request is missing a Bearer or PoP token.".to_owned();
        }
        AuthFailure::Token(fault) => fault,
    };
    match fault {
        TokenFault::Malformed => "[BearerReadAccessTokenFailed] Error validating token: it is not a JSON Web \
             Token. Get a new one and send the request again."
            .to_owned(),
        TokenFault::Algorithm => {
            "[InvalidToken] Error validating token: its signing algorithm is not accepted.".to_owned()
        }
        TokenFault::UnknownKey => {
            "AKV10046: Unable to resolve the key used for signature validation.".to_owned()
        }
        TokenFault::Signature => {
            "[InvalidSignature] Error validating token: its signature does not verify.".to_owned()
        }
        TokenFault::Expired => "[TokenExpired] Error validating token: 'S2S12086'.".to_owned(),
        TokenFault::NotYetValid => {
            "[TokenNotYetValid] Error validating token: it is not valid yet. Compare the clocks of the machines \
             involved."
                .to_owned()
        }
        TokenFault::Issuer { expected, found } => format!(
            "AKV10032: Invalid issuer. Expected one of {}, found {}.",
            shown(&expected.join(", ")),
            shown(found)
        ),
        TokenFault::Audience { expected, found } => format!(
            "AKV10022: Invalid audience. Expected {}, found: {}.",
            expected.first().map_or("", String::as_str),
            shown(found)
        ),
    }
}
