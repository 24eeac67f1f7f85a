//! The service behind the accounts' host names: whose account, which scope, which credential, and in which words.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use arcadia_arm::{PrincipalSource, RESOURCES};
use arcadia_crypto::constant_time_eq;
use arcadia_kernel::{
    AuthFailure, Caller, CallerKind, Clock, Decider, Decision, Denial, DenyReason, Entropy, Fault,
    HeaderName, HeaderValue, Located, Method, OpInfo, Plane, Proven, Question, Reply, RequestHead, Service,
    StatusCode, header,
};
use arcadia_store::{Recent, Store, StoreError};
use jiff::civil::Date;
use uuid::Uuid;

use crate::account::{Account, AccountIndex, PROVIDER};
use crate::bytes::{ByteStore, BytesFault};
use crate::data::Source;
use crate::headers::one;
use crate::records::{AccountKey, BLOBS, Blob, CONTAINERS, Container, KEYS};
use crate::xml::{DECLARATION, element};
use crate::{StorageNames, data, faults, paths, shared_key};

/// The first version that takes bearer tokens, and the one that is named when a request names none.
const BEARER_VERSION: &str = "2017-11-09";
const NEWEST_VERSION: &str = "2026-10-06";
/// Rows of a table that are kept in memory for reads.
pub(crate) const RECENT_ROWS_MAX: usize = 4096;
const CLIENT_REQUEST_ID_CHARS_MAX: usize = 1024;
const VERSION: HeaderName = HeaderName::from_static("x-ms-version");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");

/// Query parameters that say which operation is meant, or on which state of a blob. A row that does not name one
/// does not serve it.
const DISCRIMINATORS: [&str; 7] =
    ["restype", "comp", "snapshot", "versionid", "prevsnapshot", "showonly", "deletetype"];

/// Every storage account of a site.
pub struct Storage {
    pub(crate) store: Store,
    pub(crate) names: StorageNames,
    pub(crate) accounts: Arc<AccountIndex>,
    pub(crate) bytes: Arc<ByteStore>,
    pub(crate) drafts: data::DraftLocks,
    /// For reads; whatever is changed is read anew.
    pub(crate) recent_containers: Recent<(Uuid, String), Container>,
    pub(crate) recent_blobs: Recent<(Uuid, String), Blob>,
    clock: Arc<dyn Clock>,
    directory: Arc<dyn PrincipalSource>,
}

/// Why storage cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenFault {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the folder of blobs cannot be opened: {0}")]
    Bytes(String),
}

impl From<BytesFault> for OpenFault {
    fn from(fault: BytesFault) -> Self {
        Self::Bytes(fault.to_string())
    }
}

/// What a data plane request is about.
#[derive(Clone, Debug)]
pub struct Asked {
    pub(crate) account: Arc<Account>,
}

impl Storage {
    /// Reads the accounts into memory and follows them from then on; call it before anything else commits. Bytes
    /// are kept in `directory`, which is made for a site that has none yet and which only one process may have open.
    pub async fn open(
        store: Store,
        directory: &Path,
        names: StorageNames,
        principals: Arc<dyn PrincipalSource>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Arc<Self>, OpenFault> {
        let accounts = Arc::new(AccountIndex::default());
        let (following, following_keys) = (accounts.clone(), accounts.clone());
        store.observe(RESOURCES, move |changes| following.follow(changes));
        store.observe(KEYS, move |changes| following_keys.follow_keys(changes));
        for row in store.all_with_segment(RESOURCES, PROVIDER).await? {
            if let Some(account) = Account::of(&row.value) {
                accounts.insert(account);
            }
        }
        for row in store.all(KEYS, &()).await? {
            accounts.insert_keys(row.value);
        }
        let bytes = ByteStore::open(directory, store.clone(), entropy).await?;
        let drafts = data::DraftLocks::default();
        let recent_containers = Recent::of(&store, CONTAINERS, RECENT_ROWS_MAX);
        let recent_blobs = Recent::of(&store, BLOBS, RECENT_ROWS_MAX);
        Ok(Arc::new(Self {
            store,
            names,
            accounts,
            bytes,
            drafts,
            recent_containers,
            recent_blobs,
            clock,
            directory: principals,
        }))
    }

    fn account_of(&self, head: &RequestHead) -> Option<Arc<Account>> {
        self.accounts.by_name(self.names.account_name(&head.host)?)
    }

    /// Whether a request reads nothing of another account.
    fn copies_within(&self, account: &Account, head: &RequestHead) -> bool {
        head.headers.get_all(data::COPY_SOURCE).iter().all(|source| {
            let source = source.to_str().ok().and_then(|text| Source::parse(&self.names, text).ok());
            // What is no source is refused, whoever asks.
            source.is_none_or(|source| source.account.eq_ignore_ascii_case(account.name()))
        })
    }

    fn by_key(&self, head: &RequestHead, credential: &str, now: i64) -> Result<Proven, Fault> {
        let unknown = || faults::authentication_failed("The account does not exist.");
        let account = self.account_of(head).ok_or_else(unknown)?;
        let keys = self.accounts.keys(account.instance()).ok_or_else(unknown)?;
        let key = shared_key::verify(head, account.name(), credential, &keys, now)?;
        let caller = Arc::new(Caller::key_holder(&key.name));
        let decider = Arc::new(WholeAccount { accounts: self.accounts.clone(), account, key });
        Ok(Proven { caller, decider: Some(decider) })
    }
}

/// What an account key may do: everything in its account, and nothing elsewhere. Looks again each time it is asked, as
/// a body may take long to arrive: what signed may have been taken away meanwhile.
struct WholeAccount {
    accounts: Arc<AccountIndex>,
    /// As it was when the request came.
    account: Arc<Account>,
    key: AccountKey,
}

impl Decider for WholeAccount {
    fn decide(&self, question: &Question<'_>) -> Decision {
        let instance = self.account.instance();
        let live = self.accounts.by_name(self.account.name()).filter(|live| live.instance() == instance);
        let (Some(live), Some(keys)) = (live, self.accounts.keys(instance)) else {
            return Decision::Denied(DenyReason::NoSuchPrincipal);
        };
        if !live.properties.allow_shared_key_access {
            return Decision::Denied(DenyReason::CredentialSwitchedOff);
        }
        if !keys.keys.iter().any(|key| constant_time_eq(key.value.as_bytes(), self.key.value.as_bytes())) {
            return Decision::Denied(DenyReason::NoSuchPrincipal);
        }
        match question.plane {
            Plane::Control | Plane::Data if live.id.contains(question.scope) => {
                Decision::Allowed { by: format!("{}/{}", live.id, self.key.name).into() }
            }
            _ => Decision::Denied(DenyReason::NoAssignment),
        }
    }
}

/// The scheme and the rest of the one `Authorization` header.
fn authorization(head: &RequestHead) -> Option<(&str, &str)> {
    head.header(&header::AUTHORIZATION)?.trim().split_once(' ')
}

/// The version that a request is in, if it says so. Versions are dates, so their order is that of their text.
fn version(head: &RequestHead) -> Result<Option<&str>, Fault> {
    let Some(version) = one(head, VERSION.as_str())?.filter(|version| !version.is_empty()) else {
        return Ok(None);
    };
    let is_date = version.len() == BEARER_VERSION.len() && Date::strptime("%Y-%m-%d", version).is_ok();
    if is_date { Ok(Some(version)) } else { Err(faults::invalid_header(VERSION.as_str(), version)) }
}

/// Refuses what the row does not name, before it could be taken for something else.
fn check_query(op: &OpInfo, head: &RequestHead) -> Result<(), Fault> {
    for name in DISCRIMINATORS {
        let mut values = head.query.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        let Some((_, value)) = values.next() else { continue };
        if values.next().is_some() || !op.query.iter().any(|(known, _)| *known == name) {
            return Err(faults::unsupported_query(name, value));
        }
    }
    Ok(())
}

impl Service for Storage {
    type Target = Asked;

    const NAME: &'static str = "storage";

    fn segments(path: &str) -> Option<Vec<String>> {
        paths::split(path)
    }

    fn audiences(&self, head: &RequestHead) -> Vec<Cow<'_, str>> {
        // A token for one account opens no other, as the source of a copy neither.
        let own = self
            .account_of(head)
            .filter(|account| self.copies_within(account, head))
            .map(|account| self.names.blob_origin(account.name()).into());
        self.names.audiences.iter().map(Cow::from).chain(own).collect()
    }

    fn credential(&self, head: &RequestHead, now: i64) -> Result<Option<Proven>, Fault> {
        if head.query.first("sig").is_some() {
            let detail =
                "Shared access signatures are not served by this site; use a token or an account key.";
            return Err(faults::authentication_failed(detail));
        }
        let Some((scheme, rest)) = authorization(head) else { return Ok(None) };
        let version = version(head)?;
        if head.headers.get_all(header::AUTHORIZATION).iter().count() > 1 {
            return Err(faults::authentication_failed("The request has more than one Authorization header."));
        }
        if scheme.eq_ignore_ascii_case("SharedKey") {
            return self.by_key(head, rest, now).map(Some);
        }
        if !scheme.eq_ignore_ascii_case("Bearer") {
            let detail = "The scheme of the Authorization header is not served; use Bearer or SharedKey.";
            return Err(faults::authentication_failed(detail));
        }
        if version.is_none_or(|version| version < BEARER_VERSION) {
            let detail = format!(
                "Authentication scheme Bearer is not supported in this version; send the header x-ms-version with \
                 {BEARER_VERSION} or later."
            );
            return Err(faults::authentication_failed(&detail));
        }
        Ok(None)
    }

    fn locate(&self, op: &OpInfo, head: &RequestHead) -> Result<Located<Asked>, Fault> {
        let account = self.account_of(head).ok_or_else(faults::account_not_found)?;
        check_query(op, head)?;
        let (container, blob) = (head.param("container"), head.param("blob"));
        let mut scope = account.id.clone();
        if !container.is_empty() {
            paths::check_container(container)?;
            scope = paths::container_scope(&scope, container).map_err(|_| faults::invalid_resource_name())?;
        }
        if !blob.is_empty() {
            paths::check_blob(blob)?;
            scope = paths::blob_scope(&scope, blob).map_err(|_| faults::invalid_resource_name())?;
        }
        Ok(Located { scope, target: Asked { account } })
    }

    fn challenge(&self, _head: &RequestHead, failure: &AuthFailure) -> Fault {
        let login = self.names.login_origin.trim_end_matches('/');
        let tenant = self.directory.tenant().id;
        let resource = self.names.resource();
        let value =
            format!("Bearer authorization_uri={login}/{tenant}/oauth2/authorize resource_id={resource}");
        let fault = match failure {
            AuthFailure::Missing => Fault::new(
                StatusCode::UNAUTHORIZED,
                "NoAuthenticationInformation",
                "Server failed to authenticate the request. Please refer to the information in the www-authenticate \
                 header.",
            ),
            AuthFailure::Scheme => invalid_token("The Authorization header is not well formed."),
            AuthFailure::Token(token) => invalid_token(&token.to_string()),
        };
        match HeaderValue::from_str(&value) {
            Ok(value) => fault.header(header::WWW_AUTHENTICATE, value),
            Err(error) => fault.caused_by(error),
        }
    }

    fn refuse(&self, _head: &RequestHead, caller: &Caller, denial: &Denial) -> Fault {
        match denial.reason {
            DenyReason::CredentialSwitchedOff => faults::key_not_permitted(),
            DenyReason::NoSuchPrincipal if caller.kind == CallerKind::KeyHolder => {
                let detail = "The key that signed the request is no longer a key of this account; sign it with one \
                              that the account has now.";
                faults::authentication_failed(detail)
            }
            _ => faults::permission_mismatch(),
        }
    }

    fn no_such_operation(&self, head: &RequestHead, other_method_fits: bool) -> Fault {
        if other_method_fits {
            let message = "The resource doesn't support the specified HTTP verb.";
            return Fault::new(StatusCode::METHOD_NOT_ALLOWED, "UnsupportedHttpVerb", message);
        }
        let is_delegation_key =
            head.query.first("comp").is_some_and(|comp| comp.eq_ignore_ascii_case("userdelegationkey"));
        let message = if is_delegation_key {
            // az asks for one before it copies from a source that is not named by its address.
            "User delegation keys and shared access signatures are not served by this site; use a token or an account \
             key. A copy needs neither of them when its source is named by address, as az does with --source-uri."
        } else {
            "The requested URI does not represent any resource on the server, or an operation that this site does not \
             serve."
        };
        Fault::bad_request("InvalidUri", message)
    }

    fn render(&self, head: &RequestHead, fault: &Fault) -> Reply {
        let code = match &*fault.code {
            "InternalServerError" => "InternalError",
            "ServiceUnavailable" | "Conflict" => "ServerBusy",
            "RequestEntityTooLarge" => "RequestBodyTooLarge",
            "BadRequest" => "InvalidInput",
            other => other,
        };
        // A change that lost too many races was not made; the client may just send it again.
        let status = if &*fault.code == "Conflict" { StatusCode::SERVICE_UNAVAILABLE } else { fault.status };
        let mut reply = Reply::empty(status);
        if let Ok(value) = HeaderValue::from_str(code) {
            reply.headers.insert(HeaderName::from_static("x-ms-error-code"), value);
        }
        if head.method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
            return reply;
        }
        let mut body = format!("\u{feff}{DECLARATION}<Error>");
        element(&mut body, "Code", code);
        let (id, time) = (head.request_id, self.clock.now());
        element(&mut body, "Message", &format!("{}\nRequestId:{id}\nTime:{time:.7}", fault.message));
        for (name, value) in &fault.extra {
            element(&mut body, name, value.as_str().unwrap_or_default());
        }
        body.push_str("</Error>");
        let headers = reply.headers;
        let mut reply = Reply::bytes(status, "application/xml", body);
        reply.headers.extend(headers);
        reply
    }

    fn finish(&self, head: &RequestHead, reply: &mut Reply) {
        let headers = &mut reply.headers;
        let version = head.headers.get(VERSION).filter(|version| version.len() == NEWEST_VERSION.len());
        headers.insert(VERSION, version.cloned().unwrap_or(HeaderValue::from_static(NEWEST_VERSION)));
        headers.insert(REQUEST_ID, head.request_id_value());
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(id) = head.headers.get(CLIENT_REQUEST_ID)
            && id.len() <= CLIENT_REQUEST_ID_CHARS_MAX
        {
            headers.insert(CLIENT_REQUEST_ID, id.clone());
        }
    }
}

fn invalid_token(detail: &str) -> Fault {
    let message = "Server failed to authenticate the request. Please refer to the information in the www-authenticate \
                   header.";
    Fault::new(StatusCode::UNAUTHORIZED, "InvalidAuthenticationInfo", message)
        .extra("AuthenticationErrorDetail", detail)
}
