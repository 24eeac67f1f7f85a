//! What the directory keeps, and under which keys.

use arcadia_kernel::ArmId;
use arcadia_store::{Record, Table};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

pub(crate) const TENANT: Table<str, Tenant> = Table::new("directory/tenant");
pub(crate) const SIGNING_KEYS: Table<str, SigningKey> = Table::new("directory/signing-key");
pub(crate) const FORM_KEYS: Table<str, FormKey> = Table::new("directory/form-key");
pub(crate) const USERS: Table<Uuid, User> = Table::new("directory/user");
/// Folded user principal name to user: keeps names unique.
pub(crate) const USER_NAMES: Table<str, Reference> = Table::new("directory/user-name");
/// Apart from [`USERS`], so that the snapshot in memory holds no password hash.
pub(crate) const USER_PASSWORDS: Table<Uuid, UserPassword> = Table::new("directory/user-password");
pub(crate) const GROUPS: Table<Uuid, Group> = Table::new("directory/group");
/// (group, member).
pub(crate) const MEMBERS: Table<(Uuid, Uuid), Link> = Table::new("directory/member");
/// (owned object, owner).
pub(crate) const OWNERS: Table<(Uuid, Uuid), OwnerLink> = Table::new("directory/owner");
pub(crate) const APPLICATIONS: Table<Uuid, Application> = Table::new("directory/application");
/// Folded identifier URI to application.
pub(crate) const IDENTIFIER_URIS: Table<str, Reference> = Table::new("directory/identifier-uri");
pub(crate) const DELETED_APPLICATIONS: Table<Uuid, DeletedApplication> =
    Table::new("directory/deleted-application");
pub(crate) const PRINCIPALS: Table<Uuid, ServicePrincipal> = Table::new("directory/service-principal");
/// Application id to service principal: at most one each.
pub(crate) const PRINCIPAL_APP_IDS: Table<Uuid, Reference> = Table::new("directory/service-principal-app");
/// (role template, principal).
pub(crate) const ROLES: Table<(Uuid, Uuid), RoleMember> = Table::new("directory/role-member");
pub(crate) const SESSIONS: Table<Uuid, Session> = Table::new("directory/session");
/// By digest of the token.
pub(crate) const REFRESH_TOKENS: Table<str, RefreshToken> = Table::new("directory/refresh-token");
/// By digest of the code.
pub(crate) const AUTHORIZATION_CODES: Table<str, AuthorizationCode> = Table::new("directory/code");
/// By digest of the device code.
pub(crate) const DEVICE_CODES: Table<str, DeviceCode> = Table::new("directory/device-code");
/// By digest of the code a person types.
pub(crate) const USER_CODES: Table<str, UserCode> = Table::new("directory/user-code");
/// (client, digest of the assertion's identity).
pub(crate) const ASSERTIONS: Table<(Uuid, String), SeenAssertion> = Table::new("directory/assertion");

/// The one key of [`TENANT`].
pub(crate) const TENANT_KEY: &str = "tenant";

/// The public client that `az` and the SDKs' developer credentials sign people in through.
pub const AZURE_CLI_APP_ID: Uuid = Uuid::from_u128(0x04b07795_8ddb_461a_bbee_02f9e1bf7b46);
/// Microsoft Graph as an application.
pub(crate) const GRAPH_APP_ID: Uuid = Uuid::from_u128(0x00000003_0000_0000_c000_000000000000);
/// The template of the role "Global Administrator".
pub const GLOBAL_ADMINISTRATOR: Uuid = Uuid::from_u128(0x62e90394_69f5_4237_9190_012177145e10);
pub(crate) const GLOBAL_ADMINISTRATOR_NAME: &str = "Global Administrator";
/// The template that every member user's token names (`wids`).
pub(crate) const DEFAULT_USER_ROLE: Uuid = Uuid::from_u128(0xb79fbf4d_3ef9_4689_8143_76b194e85509);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tenant {
    pub id: Uuid,
    pub display_name: String,
    /// The domain that user names end in, lower case.
    pub domain: String,
    pub created_seconds: i64,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SigningKey {
    pub kid: String,
    /// PKCS#8, base64. The store seals every value.
    pub pkcs8: String,
    /// The self-signed certificate that is published with the key, base64 DER.
    pub certificate: String,
    pub created_seconds: i64,
}

/// Authenticates what sign-in pages hand themselves from step to step.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct FormKey {
    /// 32 random bytes, base64.
    pub key: String,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub id: Uuid,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct User {
    pub id: Uuid,
    pub upn: String,
    pub display_name: String,
    pub mail_nickname: String,
    pub enabled: bool,
    pub created_seconds: i64,
    /// Counts password changes and disablings; sessions of an earlier count are dead.
    pub session_epoch: u64,
    /// Other writable properties of Graph's user, as they were sent.
    pub profile: Map<String, Value>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct UserPassword {
    pub user: Uuid,
    pub hash: crate::secret::PasswordHash,
    pub changed_seconds: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Group {
    pub id: Uuid,
    pub display_name: String,
    pub mail_nickname: String,
    pub description: Option<String>,
    pub created_seconds: i64,
}

/// A member of a group.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Link {
    pub group: Uuid,
    pub member: Uuid,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct OwnerLink {
    pub object: Uuid,
    pub owner: Uuid,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Application {
    pub id: Uuid,
    pub app_id: Uuid,
    pub display_name: String,
    pub created_seconds: i64,
    pub identifier_uris: Vec<String>,
    /// Other writable properties of Graph's application, as they were sent.
    pub document: Map<String, Value>,
    pub credentials: Credentials,
}

impl Application {
    /// A property that is kept as it was sent: `name` or `section/name`.
    pub(crate) fn property(&self, path: &str) -> Option<&Value> {
        match path.split_once('/') {
            Some((section, name)) => self.document.get(section)?.get(name),
            None => self.document.get(path),
        }
    }

    /// Whether people may sign in through it without its own credential.
    pub(crate) fn is_public(&self) -> bool {
        self.document.get("isFallbackPublicClient").and_then(Value::as_bool).unwrap_or(false)
    }

    /// `1` unless the application asks for version 2 access tokens.
    pub(crate) fn access_token_version(&self) -> u8 {
        let version = self.property("api/requestedAccessTokenVersion");
        if version.and_then(Value::as_i64) == Some(2) { 2 } else { 1 }
    }

    /// Whether it says that it needs this permission. Only administrators change applications, so what one needs is
    /// what it was granted.
    pub(crate) fn requires(&self, permission: DelegatedPermission) -> bool {
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_lowercase);
        let is = |value: &Value, name: &str, id: Uuid| text(value, name) == Some(id.to_string());
        items(self.property("requiredResourceAccess"))
            .filter(|needed| is(needed, "resourceAppId", permission.resource))
            .flat_map(|needed| items(needed.get("resourceAccess")))
            .any(|access| text(access, "type").as_deref() == Some("scope") && is(access, "id", permission.id))
    }

    /// Redirect URIs of clients that can keep no secret.
    pub(crate) fn public_redirect_uris(&self) -> impl Iterator<Item = &str> {
        ["spa", "publicClient"].into_iter().flat_map(|kind| self.redirect_uris(kind))
    }

    /// Redirect URIs registered under `kind`: `web`, `spa` or `publicClient`.
    pub(crate) fn redirect_uris(&self, kind: &str) -> impl Iterator<Item = &str> {
        items(self.document.get(kind).and_then(|section| section.get("redirectUris")))
            .filter_map(Value::as_str)
    }
}

fn items(list: Option<&Value>) -> impl Iterator<Item = &Value> {
    list.and_then(Value::as_array).into_iter().flatten()
}

/// A permission to act for people, as `requiredResourceAccess` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DelegatedPermission {
    /// The application id of the resource.
    pub resource: Uuid,
    pub id: Uuid,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DeletedApplication {
    pub application: Application,
    pub principal: Option<ServicePrincipal>,
    pub deleted_seconds: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PrincipalType {
    Application,
    ManagedIdentity,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ServicePrincipal {
    pub id: Uuid,
    pub app_id: Uuid,
    /// Read [`ServicePrincipal::name`].
    pub display_name: String,
    pub kind: PrincipalType,
    pub enabled: bool,
    /// The resource a managed identity belongs to.
    pub resource_id: Option<ArmId>,
    pub created_seconds: i64,
    pub document: Map<String, Value>,
    pub credentials: Credentials,
}

impl ServicePrincipal {
    /// What it is called: as its `application`, which may have another name than when the principal was made.
    pub(crate) fn name<'a>(&'a self, application: Option<&'a Application>) -> &'a str {
        application.map_or(&self.display_name, |application| &application.display_name)
    }
}

/// What an application or service principal proves itself by.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Credentials {
    pub passwords: Vec<PasswordCredential>,
    pub keys: Vec<KeyCredential>,
}

impl Credentials {
    /// Until when one of those that are good at this time is. `None` when none is.
    pub(crate) fn good_until(&self, now: i64) -> Option<i64> {
        let passwords = self.passwords.iter().map(|one| (one.start_seconds, one.end_seconds));
        let keys = self.keys.iter().map(|one| (one.start_seconds, one.end_seconds));
        let good = passwords.chain(keys).filter(|(start, end)| *start <= now && now < *end);
        good.map(|(_, end)| end).max()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PasswordCredential {
    pub key_id: Uuid,
    pub display_name: Option<String>,
    /// The first characters of the secret, as Graph shows them.
    pub hint: String,
    pub hash: crate::secret::SecretHash,
    pub start_seconds: i64,
    pub end_seconds: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum KeyForm {
    /// An X.509 certificate, DER.
    X509,
    /// A bare `SubjectPublicKeyInfo`, DER.
    Raw,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct KeyCredential {
    pub key_id: Uuid,
    pub display_name: Option<String>,
    pub form: KeyForm,
    /// Base64 DER.
    pub der: String,
    /// Base64; for a certificate its SHA-1, unless the client gave another.
    pub custom_key_identifier: Option<String>,
    pub start_seconds: i64,
    pub end_seconds: i64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct RoleMember {
    pub role: Uuid,
    pub principal: Uuid,
}

/// One sign-in of a person through an application. Every refresh token belongs to one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Session {
    pub id: Uuid,
    pub user: Uuid,
    pub client: Uuid,
    pub session_epoch: u64,
    pub signed_in_seconds: i64,
    /// The end of its last refresh token, for the sweep.
    pub expires_seconds: i64,
    /// Whether it was started without a credential of the application.
    pub public: bool,
    pub revoked: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RefreshToken {
    /// Its own key, as with every record that a sweep removes.
    pub digest: String,
    pub session: Uuid,
    pub scope: String,
    pub expires_seconds: i64,
    /// When it was exchanged for its successor.
    pub rotated_seconds: Option<i64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AuthorizationCode {
    pub digest: String,
    pub client: Uuid,
    pub user: Uuid,
    pub session_epoch: u64,
    pub redirect_uri: String,
    pub scope: String,
    pub nonce: Option<String>,
    /// `S256` code challenge.
    pub challenge: Option<String>,
    pub expires_seconds: i64,
    pub signed_in_seconds: i64,
    /// The session its redemption started.
    pub redeemed: Option<Uuid>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DeviceState {
    Pending,
    Approved { user: Uuid, session_epoch: u64, signed_in_seconds: i64 },
    Declined,
    Redeemed,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DeviceCode {
    pub digest: String,
    pub client: Uuid,
    pub scope: String,
    pub expires_seconds: i64,
    pub state: DeviceState,
    pub user_code_digest: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UserCode {
    pub digest: String,
    pub device_code_digest: String,
    pub expires_seconds: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SeenAssertion {
    pub key: (Uuid, String),
    /// The address that showed it first.
    pub remote: Option<String>,
    pub expires_seconds: i64,
}

macro_rules! records {
    ($($type:ty),* $(,)?) => { $(impl Record for $type {})* };
}

records!(
    Tenant,
    SigningKey,
    FormKey,
    Reference,
    User,
    UserPassword,
    Group,
    Link,
    OwnerLink,
    Application,
    DeletedApplication,
    ServicePrincipal,
    RoleMember,
    Session,
    RefreshToken,
    AuthorizationCode,
    DeviceCode,
    UserCode,
    SeenAssertion,
);

/// The form user names, URIs and other case-blind names are compared in.
pub(crate) fn fold(text: &str) -> String {
    text.to_lowercase()
}

/// The store's key for something secret: SHA-256 in hexadecimal.
pub(crate) fn digest(text: &str) -> String {
    arcadia_crypto::hex(&arcadia_crypto::sha256(text.as_bytes()))
}
