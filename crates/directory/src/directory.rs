//! The directory itself: what other parts of a site ask it, and how it is opened.

use std::collections::HashSet;
use std::sync::Arc;

use arcadia_crypto::JwtSigner;
use arcadia_kernel::{ArmId, AuditStamp, CallerKind, Clock, Entropy, Fault, trim_audience};
use arcadia_store::{Batch, CommitError, Store, StoreError};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::model::{PrincipalType, Tenant};
use crate::secret::Hashing;
use crate::snapshot::{LiveSnapshot, Snapshot};
use crate::throttle::Throttle;

/// How long the name of a storage account is.
const ACCOUNT_CHARACTERS: std::ops::RangeInclusive<usize> = 3..=24;

/// The names under which a site's directory is reached. Hosts are `name` or `name:port`.
#[derive(Clone, Debug)]
pub struct DirectoryNames {
    /// Where tokens are issued, such as `login.microsoftonline.com`.
    pub login_host: String,
    /// Other hosts that the same service answers under.
    pub login_aliases: Vec<String>,
    /// The host of version 1.0 issuers, such as `sts.windows.net`.
    pub sts_host: String,
    pub graph_host: String,
    /// What the published certificates of the keys that sign tokens are called.
    pub signing_name: String,
    /// The page on which people enter a device code: an absolute URL.
    pub device_page: String,
    /// Resources that tokens may be asked for, besides the directory's own applications: identifier URIs or
    /// application ids, compared without regard to case and trailing slashes.
    pub resources: Vec<String>,
    /// What follows a storage account's name in its host name, in lower case: `blob.core.windows.net`. Each account's
    /// own origin is a resource too, and its tokens are taken by that account alone.
    pub blob_suffix: String,
    /// The domains below which the site's services and all that they hold have their names.
    pub domains: Vec<String>,
}

impl DirectoryNames {
    /// The public cloud's own names.
    pub fn azure() -> Self {
        let resources = [
            "https://management.azure.com",
            "https://management.core.windows.net",
            "797f4846-ba00-4fd7-ba43-dac1f8f63013",
            "https://vault.azure.net",
            "cfa8b339-82a2-471a-a3c9-0fc0be7a4093",
            "https://storage.azure.com",
            "e406a681-f3d4-42a8-90b6-c2b029497af1",
            "https://graph.microsoft.com",
            "00000003-0000-0000-c000-000000000000",
            "https://ossrdbms-aad.database.windows.net",
            "123cd850-d9df-40bd-94d5-c9f07b7fa203",
            "https://his.arc.azure.com",
        ];
        Self {
            login_host: "login.microsoftonline.com".to_owned(),
            login_aliases: ["login.windows.net", "login.microsoft.com", "sts.windows.net"]
                .map(str::to_owned)
                .into(),
            sts_host: "sts.windows.net".to_owned(),
            graph_host: "graph.microsoft.com".to_owned(),
            signing_name: "accounts.accesscontrol.windows.net".to_owned(),
            device_page: "https://microsoft.com/devicelogin".to_owned(),
            resources: resources.map(str::to_owned).into(),
            blob_suffix: "blob.core.windows.net".to_owned(),
            domains: ["azure.com", "azure.net", "windows.net", "microsoft.com", "microsoftonline.com"]
                .map(str::to_owned)
                .into(),
        }
    }

    /// The names of a site under a domain of its own: `login.DOMAIN`, `graph.DOMAIN`. Tokens are issued by
    /// `https://login.DOMAIN/{tenant}/`. Two of Azure's resources stay beside the site's own, because clients for
    /// files and databases have them built in; application ids are the same in every cloud.
    pub fn of_domain(domain: &str) -> Self {
        let own = ["management", "vault", "storage", "graph", "ossrdbms", "his"];
        let built_in = [
            "https://storage.azure.com",
            "https://ossrdbms-aad.database.windows.net",
            "797f4846-ba00-4fd7-ba43-dac1f8f63013",
            "cfa8b339-82a2-471a-a3c9-0fc0be7a4093",
            "e406a681-f3d4-42a8-90b6-c2b029497af1",
            "00000003-0000-0000-c000-000000000000",
            "123cd850-d9df-40bd-94d5-c9f07b7fa203",
        ];
        let own = own.iter().map(|label| format!("https://{label}.{domain}"));
        Self {
            login_host: format!("login.{domain}"),
            login_aliases: Vec::new(),
            sts_host: format!("login.{domain}"),
            graph_host: format!("graph.{domain}"),
            signing_name: format!("login.{domain}"),
            device_page: format!("https://login.{domain}/device"),
            resources: own.chain(built_in.map(str::to_owned)).collect(),
            blob_suffix: format!("blob.{}", domain.to_lowercase()),
            domains: vec![domain.to_lowercase()],
        }
    }

    /// Whether a service of the site may take this name for its own, or for a vault's or an account's: tokens for
    /// it are no application's to receive.
    pub(crate) fn is_platform(&self, resource: &str) -> bool {
        let name = trim_audience(resource);
        if self.resources.iter().any(|known| trim_audience(known) == name) {
            return true;
        }
        // No service takes a name of another form: `api://orders.DOMAIN/…` is nobody's but the application's.
        let Some(("http" | "https", rest)) = name.split_once("://") else { return false };
        let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or("");
        let host = authority.rsplit('@').next().unwrap_or("");
        let host = host.split(':').next().unwrap_or("").trim_end_matches('.');
        let below =
            |domain: &String| host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.ends_with('.'));
        self.domains.iter().any(below)
    }

    /// Whether this is the origin of a storage account. No account has to be there: who asks learns nothing of which
    /// ones are.
    pub(crate) fn is_storage_account(&self, resource: &str) -> bool {
        let name = trim_audience(resource);
        let below = name.strip_prefix("https://").and_then(|host| host.strip_suffix(&self.blob_suffix));
        below.and_then(|below| below.strip_suffix('.')).is_some_and(|account| {
            ACCOUNT_CHARACTERS.contains(&account.len()) && account.bytes().all(|b| b.is_ascii_alphanumeric())
        })
    }

    pub(crate) fn is_login_host(&self, host: &str) -> bool {
        self.login_hosts().any(|ours| ours.eq_ignore_ascii_case(host))
    }

    pub(crate) fn login_hosts(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.login_host.as_str()).chain(self.login_aliases.iter().map(String::as_str))
    }
}

/// What is known of a user or service principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrincipalFacts {
    pub object_id: Uuid,
    pub kind: CallerKind,
    pub display_name: String,
    pub enabled: bool,
    /// Of service principals.
    pub app_id: Option<Uuid>,
    /// Of users.
    pub upn: Option<String>,
    /// The resource a managed identity belongs to.
    pub resource_id: Option<ArmId>,
}

/// Tenants, people, groups, applications, their credentials and the keys that sign tokens.
pub struct Directory {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) names: DirectoryNames,
    pub(crate) throttle: Throttle,
    pub(crate) hashing: Hashing,
    live: LiveSnapshot,
}

impl Directory {
    /// Loads the directory into memory and follows its changes from then on.
    pub async fn open(
        store: Store,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        names: DirectoryNames,
    ) -> Result<Arc<Self>, StoreError> {
        let live = LiveSnapshot::load(&store).await?;
        Ok(Arc::new(Self {
            store,
            clock,
            entropy,
            names,
            throttle: Throttle::default(),
            hashing: Hashing::new(),
            live,
        }))
    }

    pub(crate) fn snapshot(&self) -> std::sync::RwLockReadGuard<'_, Snapshot> {
        self.live.read()
    }

    pub fn names(&self) -> &DirectoryNames {
        &self.names
    }

    /// The tenant, once the directory is founded.
    pub fn tenant(&self) -> Option<Arc<Tenant>> {
        self.snapshot().tenant.clone()
    }

    /// The tenant, or 503 before the directory is founded.
    pub(crate) fn founded_tenant(&self) -> Result<Arc<Tenant>, Fault> {
        self.tenant().ok_or_else(|| Fault::unavailable("The directory is not set up yet. Retry in a moment."))
    }

    /// Whether a user or service principal exists and is enabled.
    pub fn is_enabled(&self, object_id: Uuid) -> bool {
        self.snapshot().is_enabled_principal(object_id)
    }

    /// A user or service principal, enabled or not.
    pub fn principal(&self, object_id: Uuid) -> Option<PrincipalFacts> {
        let snapshot = self.snapshot();
        if let Some(user) = snapshot.users.get(&object_id) {
            return Some(PrincipalFacts {
                object_id,
                kind: CallerKind::User,
                display_name: user.display_name.clone(),
                enabled: user.enabled,
                app_id: None,
                upn: Some(user.upn.clone()),
                resource_id: None,
            });
        }
        let principal = snapshot.principals.get(&object_id)?;
        let application = snapshot.application_of(principal.app_id);
        Some(PrincipalFacts {
            object_id,
            kind: match principal.kind {
                PrincipalType::Application => CallerKind::Application,
                PrincipalType::ManagedIdentity => CallerKind::ManagedIdentity,
            },
            display_name: principal.name(application.map(AsRef::as_ref)).to_owned(),
            enabled: principal.enabled,
            app_id: Some(principal.app_id),
            upn: None,
            resource_id: principal.resource_id.clone(),
        })
    }

    /// The user with this name.
    pub fn user_named(&self, upn: &str) -> Option<PrincipalFacts> {
        let id = self.snapshot().user_named(upn).map(|user| user.id)?;
        self.principal(id)
    }

    /// The service principal of this application id.
    pub fn service_principal_of(&self, app_id: Uuid) -> Option<PrincipalFacts> {
        let id = self.snapshot().principal_of(app_id).map(|principal| principal.id)?;
        self.principal(id)
    }

    /// The name of a group.
    pub fn group_name(&self, group: Uuid) -> Option<String> {
        self.snapshot().groups.get(&group).map(|group| group.display_name.clone())
    }

    /// The groups that hold this principal, directly or through others. `None` when there is no such user or
    /// service principal or when it is disabled: such a caller has no rights at all.
    pub fn groups_of(&self, object_id: Uuid) -> Option<HashSet<Uuid>> {
        let snapshot = self.snapshot();
        snapshot.is_enabled_principal(object_id).then(|| snapshot.transitive_groups_of(object_id))
    }

    /// Every key that a token of this directory may be signed with, as a JWKS document (RFC 7517).
    pub fn jwks(&self) -> Value {
        let snapshot = self.snapshot();
        let keys: Vec<Value> = snapshot.signers().iter().map(|active| active.signer.public_jwk()).collect();
        json!({ "keys": keys })
    }

    /// The same keys, each with the issuer it signs for, as version 2.0 documents have them.
    pub(crate) fn jwks_with_issuer(&self) -> Value {
        let issuer = self.tenant().map(|tenant| self.issuer_v2(tenant.id)).unwrap_or_default();
        let snapshot = self.snapshot();
        let keys: Vec<Value> =
            snapshot.signers().iter().map(|active| active.signer.public_jwk_for_issuer(&issuer)).collect();
        json!({ "keys": keys })
    }

    /// The `iss` of this directory's tokens, version 1.0 first. Empty before it is founded.
    pub fn issuers(&self) -> Vec<String> {
        let Some(tenant) = self.tenant() else { return Vec::new() };
        vec![self.issuer_v1(tenant.id), self.issuer_v2(tenant.id)]
    }

    pub(crate) fn issuer_v1(&self, tenant: Uuid) -> String {
        format!("https://{}/{tenant}/", self.names.sts_host)
    }

    pub(crate) fn issuer_v2(&self, tenant: Uuid) -> String {
        format!("https://{}/{tenant}/v2.0", self.names.login_host)
    }

    /// The key that signs now: the newest.
    pub(crate) fn signer(&self) -> Result<Arc<JwtSigner>, Fault> {
        let newest = self.snapshot().signers().first().map(|active| active.signer.clone());
        newest.ok_or_else(|| Fault::unavailable("The directory has no signing key yet. Retry in a moment."))
    }

    /// Writes a batch; a lost race is left to the caller.
    pub(crate) async fn commit(&self, stamp: &AuditStamp, batch: Batch) -> Result<Committed, Fault> {
        match self.store.commit(stamp, batch).await {
            Ok(_) => Ok(Committed::Written),
            Err(CommitError::Conflict) => Ok(Committed::LostRace),
            Err(error) => Err(error.into()),
        }
    }
}

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Committed {
    Written,
    /// A requirement of the batch did not hold; nothing was written.
    LostRace,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_of_its_own_domain_keeps_the_names_below_it() {
        let names = DirectoryNames::of_domain("Site.test");
        for taken in ["https://a1.blob.site.test/", "https://STORAGE.site.test", "https://storage.azure.com"]
        {
            assert!(names.is_platform(taken), "{taken}");
        }
        for free in [
            "https://site.test/orders",
            "https://vault.azure.net",
            "https://evilsite.test",
            "api://orders.site.test/1",
        ] {
            assert!(!names.is_platform(free), "{free}");
        }
    }

    #[test]
    fn an_account_is_one_label_below_the_suffix() {
        for (names, suffix) in [
            (DirectoryNames::azure(), "blob.core.windows.net"),
            (DirectoryNames::of_domain("Site.test"), "blob.site.test"),
        ] {
            for account in [format!("https://acct1.{suffix}"), format!("https://ACCT1.{suffix}//")] {
                assert!(names.is_storage_account(&account) && names.is_platform(&account), "{account}");
            }
            for other in [
                format!("http://acct1.{suffix}"),
                format!("https://{suffix}"),
                format!("https://.{suffix}"),
                format!("https://a.{suffix}"),
                format!("https://two.labels.{suffix}"),
                format!("https://acct-1.{suffix}"),
                format!("https://{}.{suffix}", "a".repeat(25)),
                format!("https://acct1{suffix}"),
                format!("https://acct1.{suffix}:443"),
                format!("https://acct1.{suffix}/container"),
                format!("https://acct1.{suffix}.evil.example"),
                format!("https://me@acct1.{suffix}"),
                "https://acct1.vault.azure.net".to_owned(),
                "https://acct1.blob.example".to_owned(),
            ] {
                assert!(!names.is_storage_account(&other), "{other}");
            }
        }
    }
}
