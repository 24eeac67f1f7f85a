//! Which application asks, and how it proves that.

use std::sync::Arc;

use arcadia_crypto::{AssertionFault, RsaPublicKey, b64_decode, verify_assertion};
use arcadia_kernel::{AuditStamp, Caller, CallerKind, Fault, Query, RequestHead, header};
use arcadia_store::Batch;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use uuid::Uuid;

use crate::directory::{Committed, Directory};
use crate::login::faults::{
    invalid_client, missing_parameter, no_such_client, refusal, too_many_requests, wrong_secret,
};
use crate::login::person::claimed;
use crate::login::tenant::TenantPath;
use crate::model::{
    ASSERTIONS, AZURE_CLI_APP_ID, Application, DelegatedPermission, KeyCredential, KeyForm, PrincipalType,
    SeenAssertion, ServicePrincipal, digest,
};
use crate::throttle::{Allowance, Attempt, counted_address};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const SECRET_CHARACTERS_MAX: usize = 512;

/// An application or managed identity that exists here and is not blocked.
#[derive(Clone)]
pub(crate) struct Client {
    pub app_id: Uuid,
    pub application: Option<Arc<Application>>,
    pub principal: Arc<ServicePrincipal>,
}

/// How a client proved itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    Nothing,
    Secret,
    Assertion,
}

impl Proof {
    /// The claim `appidacr` (`azpacr` in version 2.0).
    pub(crate) fn claim(self) -> &'static str {
        match self {
            Self::Nothing => "0",
            Self::Secret => "1",
            Self::Assertion => "2",
        }
    }
}

/// What a request says of its client.
pub(crate) struct Presented {
    pub client_id: String,
    secret: Option<String>,
    assertion: Option<String>,
}

impl Presented {
    /// From the body, or from an `Authorization: Basic` header (RFC 6749 section 2.3.1).
    pub(crate) fn read(fields: &Query, head: &RequestHead) -> Result<Self, Fault> {
        let assertion = match (fields.first("client_assertion"), fields.first("client_assertion_type")) {
            (None, _) => None,
            (Some(assertion), Some(ASSERTION_TYPE)) => Some(assertion.to_owned()),
            (Some(_), _) => {
                let message = format!("The value of 'client_assertion_type' must be '{ASSERTION_TYPE}'.");
                return Err(invalid_client(50_027, message));
            }
        };
        let basic = head.header(&header::AUTHORIZATION).and_then(basic_credentials);
        let (basic_id, basic_secret) = basic.unzip();
        let client_id = fields.first("client_id").map(str::to_owned).or(basic_id);
        let secret = fields.first("client_secret").map(str::to_owned).or(basic_secret);
        Ok(Self {
            client_id: client_id.filter(|id| !id.is_empty()).ok_or_else(|| missing_parameter("client_id"))?,
            secret: secret.filter(|secret| !secret.is_empty()),
            assertion,
        })
    }
}

pub(super) fn basic_credentials(value: &str) -> Option<(String, String)> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(b64_decode(encoded.trim())?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let decoded = |part: &str| percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned();
    Some((decoded(id), decoded(secret)))
}

impl Client {
    pub(crate) fn find(directory: &Directory, client_id: &str, path: &TenantPath) -> Result<Self, Fault> {
        let unknown = || no_such_client(client_id, &path.tenant.display_name);
        let app_id = Uuid::try_parse(client_id).map_err(|_| unknown())?;
        let snapshot = directory.snapshot();
        let application = snapshot.application_of(app_id).cloned();
        let Some(principal) = snapshot.principal_of(app_id).cloned() else {
            // What blocks an application stands on its principal: without one it would be open again.
            return Err(application.map_or_else(unknown, |_| no_principal(app_id, path)));
        };
        if !principal.enabled {
            let name = principal.name(application.as_deref());
            let message = format!("Application '{app_id}' ({name}) is disabled.");
            return Err(refusal(400, "unauthorized_client", 7_000_112, message));
        }
        Ok(Self { app_id, application, principal })
    }

    /// Whether people may sign in through it without a credential of its own, wherever they come back to.
    pub(crate) fn is_public(&self) -> bool {
        self.app_id == AZURE_CLI_APP_ID || self.application.as_ref().is_some_and(|app| app.is_public())
    }

    /// Whether it may have this permission, once a person signs in to it.
    pub(crate) fn is_granted(&self, permission: Option<DelegatedPermission>) -> bool {
        self.application.as_ref().zip(permission).is_some_and(|(app, permission)| app.requires(permission))
    }

    /// Whether its refresh tokens serve the whole family of the command line's clients.
    pub(crate) fn is_family(&self) -> bool {
        self.app_id == AZURE_CLI_APP_ID
    }

    pub(crate) fn display_name(&self) -> String {
        self.principal.name(self.application.as_deref()).to_owned()
    }

    /// Checks the credential that was shown, if one was. `Nothing` only when none was. An assertion is to be used up
    /// by whoever is answered, see [`Client::use_up`].
    pub(crate) async fn prove(
        &self,
        directory: &Directory,
        presented: &Presented,
        path: &TenantPath,
        head: &RequestHead,
        stamp: &AuditStamp,
    ) -> Result<(Proof, Option<SeenAssertion>), Fault> {
        if presented.secret.is_none() && presented.assertion.is_none() {
            return Ok((Proof::Nothing, None));
        }
        if self.app_id == AZURE_CLI_APP_ID {
            let message =
                "Client is public so neither 'client_assertion' nor 'client_secret' should be presented.";
            return Err(invalid_client(700_025, message));
        }
        let now = directory.clock.epoch_seconds();
        let checked = match (&presented.assertion, &presented.secret) {
            (Some(assertion), _) => {
                let checked = self.check_assertion(directory, assertion, path, head, now).await;
                checked.map(|assertion| (Proof::Assertion, Some(assertion)))
            }
            (None, Some(secret)) => self.check_secret(secret, now).map(|()| (Proof::Secret, None)),
            (None, None) => Ok((Proof::Nothing, None)),
        };
        match checked {
            Ok(proven) => {
                stamp.identify(self.proven());
                Ok(proven)
            }
            Err(fault) if fault.status.is_server_error() => Err(fault),
            // A right credential is never refused for the sake of wrong ones: it cannot be guessed, and whoever
            // sends wrong ones could lock others out.
            Err(fault) => match directory.guess(Some(&self.app_id.to_string()), head).await {
                Ok(_) => Err(fault),
                Err(_) => Err(too_many_requests()),
            },
        }
    }

    /// The client as it is now, and still good for what was shown. That an assertion is new is for the caller to know.
    pub(crate) fn again(
        &self,
        directory: &Directory,
        presented: &Presented,
        path: &TenantPath,
        head: &RequestHead,
    ) -> Result<Self, Fault> {
        let now = Self::find(directory, &presented.client_id, path)?;
        if now.is_as(self) {
            return Ok(now);
        }
        let seconds = directory.clock.epoch_seconds();
        match (&presented.assertion, &presented.secret) {
            (Some(assertion), _) => now.verify(directory, assertion, path, head, seconds).map(drop)?,
            (None, Some(secret)) => now.check_secret(secret, seconds)?,
            (None, None) => {}
        }
        Ok(now)
    }

    /// Whether nothing of it was written since `before`.
    fn is_as(&self, before: &Self) -> bool {
        let same_application = match (&self.application, &before.application) {
            (Some(now), Some(before)) => Arc::ptr_eq(now, before),
            (None, None) => true,
            _ => false,
        };
        same_application && Arc::ptr_eq(&self.principal, &before.principal)
    }

    /// For the record of a sign-in.
    fn proven(&self) -> Caller {
        let kind =
            if self.is_managed_identity() { CallerKind::ManagedIdentity } else { CallerKind::Application };
        Caller {
            kind,
            object_id: self.principal.id,
            app_id: self.app_id,
            name: self.app_id.to_string(),
            ..Caller::anonymous()
        }
    }

    fn check_secret(&self, secret: &str, now: i64) -> Result<(), Fault> {
        let wrong = || wrong_secret(&self.app_id.to_string());
        if secret.len() > SECRET_CHARACTERS_MAX {
            return Err(wrong());
        }
        let of_application = self.application.iter().flat_map(|app| &app.credentials.passwords);
        let mut expired = false;
        for credential in of_application.chain(&self.principal.credentials.passwords) {
            if credential.hash.matches(secret) {
                if credential.start_seconds <= now && now < credential.end_seconds {
                    return Ok(());
                }
                expired = true;
            }
        }
        if !expired {
            return Err(wrong());
        }
        let message = format!(
            "The provided client secret keys for app '{}' are expired. Add a new secret to the application, for \
             example with 'az ad app credential reset'.",
            self.app_id
        );
        Err(invalid_client(7_000_222, message))
    }

    async fn check_assertion(
        &self,
        directory: &Directory,
        assertion: &str,
        path: &TenantPath,
        head: &RequestHead,
        now: i64,
    ) -> Result<SeenAssertion, Fault> {
        let shown = self.verify(directory, assertion, path, head, now)?;
        match directory.store.get(ASSERTIONS, &shown.key).await? {
            Some(row) if !self.may_show_again(&row.value, &shown) => Err(used_before()),
            _ => Ok(shown),
        }
    }

    /// Whether one of the client's keys signed the assertion, for this endpoint and for now.
    fn verify(
        &self,
        directory: &Directory,
        assertion: &str,
        path: &TenantPath,
        head: &RequestHead,
        now: i64,
    ) -> Result<SeenAssertion, Fault> {
        let keys = self.keys(now);
        let audiences = assertion_audiences(directory, path, head);
        let audiences: Vec<&str> = audiences.iter().map(String::as_str).collect();
        let verified = verify_assertion(assertion, &keys, &audiences, now).map_err(assertion_refused)?;
        let own = |name: &str| Uuid::try_parse(name).ok() == Some(self.app_id);
        if !own(&verified.issuer) || !own(&verified.subject) {
            let message = "Client assertion application identifier doesn't match 'client_id' parameter.";
            return Err(invalid_client(700_021, message));
        }
        // An assertion without an identifier of its own is known by all of it.
        let identity = verified.jti.as_deref().unwrap_or(assertion);
        Ok(SeenAssertion {
            key: (self.app_id, digest(identity)),
            remote: head.remote.map(|address| address.to_string()),
            expires_seconds: verified.expires_at,
        })
    }

    /// Records that the assertion was used. Of many at the same moment, one does.
    pub(crate) async fn use_up(
        &self,
        directory: &Directory,
        shown: &SeenAssertion,
        stamp: &AuditStamp,
    ) -> Result<(), Fault> {
        let mut batch = Batch::new();
        batch.require_absent(ASSERTIONS, &shown.key);
        batch.put(ASSERTIONS, &shown.key, shown)?;
        if directory.commit(stamp, batch).await? == Committed::Written {
            return Ok(());
        }
        match directory.store.get(ASSERTIONS, &shown.key).await? {
            Some(row) if self.may_show_again(&row.value, shown) => Ok(()),
            _ => {
                stamp.identify(claimed(&self.app_id.to_string()));
                Err(used_before())
            }
        }
    }

    /// A machine's assertion is good once. Libraries that hold a certificate show one assertion several times
    /// while it is valid (once for each resource), so for those it is bound to the address that showed it first.
    fn may_show_again(&self, first: &SeenAssertion, shown: &SeenAssertion) -> bool {
        !self.is_managed_identity() && first.remote == shown.remote
    }

    fn is_managed_identity(&self) -> bool {
        self.principal.kind == PrincipalType::ManagedIdentity
    }

    fn keys(&self, now: i64) -> Vec<RsaPublicKey> {
        let of_application = self.application.iter().flat_map(|app| &app.credentials.keys);
        of_application
            .chain(&self.principal.credentials.keys)
            .filter(|key| key.start_seconds <= now && now < key.end_seconds)
            .filter_map(public_key)
            .collect()
    }
}

fn used_before() -> Fault {
    let message = "The client assertion was used before. Sign a new one, with a new 'jti', for each request.";
    invalid_client(50_027, message)
}

fn no_principal(app_id: Uuid, path: &TenantPath) -> Fault {
    let message = format!(
        "The client application {app_id} is missing service principal in the tenant {}. Create it, for example with \
         'az ad sp create --id {app_id}'.",
        path.tenant.id
    );
    refusal(401, "invalid_client", 7_000_229, message)
}

pub(crate) fn public_key(credential: &KeyCredential) -> Option<RsaPublicKey> {
    let der = b64_decode(&credential.der)?;
    match credential.form {
        KeyForm::X509 => RsaPublicKey::from_x509_der(&der).ok(),
        KeyForm::Raw => RsaPublicKey::from_spki_der(&der).ok(),
    }
}

/// Whether only principals with an assignment may use it. Assignments cannot be given yet, so nobody may.
pub(crate) fn requires_assignment(principal: &ServicePrincipal) -> bool {
    principal.document.get("appRoleAssignmentRequired").and_then(Value::as_bool).unwrap_or(false)
}

fn assertion_refused(fault: AssertionFault) -> Fault {
    match fault {
        AssertionFault::Malformed(_) | AssertionFault::MissingClaim(_) => {
            refusal(400, "invalid_request", 50_027, format!("JWT token is invalid or malformed: {fault}."))
        }
        AssertionFault::Algorithm | AssertionFault::Signature => {
            let message = format!(
                "The certificate or key used to sign the client assertion is not registered on the \
                 application, or has expired: {fault}."
            );
            invalid_client(700_027, message)
        }
        AssertionFault::Audience => {
            let message = "Client assertion audience claim does not match Realm issuer. Use the token endpoint's \
                           address as 'aud'.";
            invalid_client(700_023, message)
        }
        AssertionFault::Expired | AssertionFault::NotYetValid | AssertionFault::LifetimeTooLong => {
            let message = format!("Client assertion is not within its valid time range: {fault}.");
            invalid_client(700_024, message)
        }
    }
}

/// Every way of writing this tenant's token endpoint or issuer.
fn assertion_audiences(directory: &Directory, path: &TenantPath, head: &RequestHead) -> Vec<String> {
    let id = path.tenant.id.to_string();
    let mut tenants = vec![id.as_str(), path.tenant.domain.as_str()];
    if !tenants.contains(&path.text.as_str()) {
        tenants.push(&path.text);
    }
    let names = directory.names();
    let mut origins: Vec<String> = names.login_hosts().map(|host| format!("https://{host}")).collect();
    if names.is_login_host(&head.host) && !origins.contains(&head.origin) {
        origins.push(head.origin.clone());
    }
    let mut audiences = Vec::new();
    for origin in origins {
        for tenant in &tenants {
            for suffix in ["/oauth2/v2.0/token", "/oauth2/token", "/v2.0", "/", ""] {
                audiences.push(format!("{origin}/{tenant}{suffix}"));
            }
        }
    }
    audiences
}

impl Directory {
    /// A guess at a secret, counted before it is looked at. `account` is of somebody who exists: there is no end of
    /// names that nobody has, and their counters would take the place of others. `Err` names the allowance that ran
    /// out.
    pub(crate) async fn guess(
        &self,
        account: Option<&str>,
        head: &RequestHead,
    ) -> Result<Attempt<'_>, Allowance> {
        let address = counted_address(head.remote);
        let from_address = account.map(|account| format!("{account}\0{address}"));
        let mut subjects = vec![(Allowance::ADDRESS, address.as_str())];
        subjects.extend(account.map(|account| (Allowance::ACCOUNT, account)));
        subjects.extend(from_address.as_deref().map(|both| (Allowance::ACCOUNT_FROM_ADDRESS, both)));
        self.throttle.begin(&subjects, &*self.clock).await
    }
}
