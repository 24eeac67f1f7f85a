//! The first tenant, its first user and first service principal.

use arcadia_crypto::{JwtSigner, RsaBits, RsaKeyPair, Zeroizing, b64, self_signed};
use arcadia_kernel::{EntropyExt as _, Fault, Permit, SystemWork};
use arcadia_store::{Batch, StoreError};
use serde_json::Map;
use uuid::Uuid;

use crate::directory::{Committed, Directory};
use crate::model::{
    self, APPLICATIONS, AZURE_CLI_APP_ID, Application, Credentials, FORM_KEYS, FormKey, GLOBAL_ADMINISTRATOR,
    PRINCIPAL_APP_IDS, PRINCIPALS, PasswordCredential, PrincipalType, ROLES, Reference, RoleMember,
    SIGNING_KEYS, ServicePrincipal, SigningKey, TENANT, TENANT_KEY, Tenant, USER_NAMES, USER_PASSWORDS,
    USERS, User, UserPassword, fold,
};
use crate::secret::{SecretHash, hint, is_acceptable_password, new_client_secret, new_password};

const SIGNING_CERTIFICATE_YEARS: u32 = 10;
/// RFC 5280, appendix A.1. A domain may be longer.
const COMMON_NAME_CHARACTERS_MAX: usize = 64;
/// Secrets are hashed once, not slowly: they must be beyond guessing by themselves.
const CLIENT_SECRET_CHARACTERS_MIN: usize = 32;
const YEAR_SECONDS: i64 = 365 * 24 * 60 * 60;
/// The first secret lives as long as the site may go without its keeper.
const FIRST_SECRET_YEARS: i64 = 10;

/// What a new site's directory is to be called. Secrets that are not given are made; give them when they were
/// written down before the directory is founded, so that a crash in between loses nothing.
pub struct Founding {
    pub tenant_id: Option<Uuid>,
    /// The application id (client id) of the first application.
    pub app_id: Option<Uuid>,
    pub tenant_name: String,
    /// The domain of user names, such as `arcadia.example`.
    pub domain: String,
    /// The part of the first user's name before the `@`.
    pub user_name: String,
    pub user_display_name: String,
    pub user_password: Option<Zeroizing<String>>,
    pub application_name: String,
    pub client_secret: Option<Zeroizing<String>>,
}

impl Default for Founding {
    fn default() -> Self {
        Self {
            tenant_id: None,
            app_id: None,
            tenant_name: "Arcadia".to_owned(),
            domain: "arcadia.example".to_owned(),
            user_name: "admin".to_owned(),
            user_display_name: "Administrator".to_owned(),
            user_password: None,
            application_name: "arcadia-admin".to_owned(),
            client_secret: None,
        }
    }
}

/// The first credentials. They exist nowhere else in the clear.
pub struct Founded {
    pub tenant_id: Uuid,
    pub domain: String,
    pub user_object_id: Uuid,
    pub user_principal_name: String,
    pub user_password: Zeroizing<String>,
    pub application_object_id: Uuid,
    pub app_id: Uuid,
    pub service_principal_object_id: Uuid,
    pub client_secret: Zeroizing<String>,
}

impl Directory {
    /// Makes the tenant, its token-signing key, the first user and the first service principal, both Global
    /// Administrator, in one commit. `None` when there is a tenant already.
    pub async fn found(
        &self,
        permit: Permit<SystemWork>,
        founding: Founding,
    ) -> Result<Option<Founded>, Fault> {
        if self.tenant().is_some() {
            return Ok(None);
        }
        check(&founding)?;
        let key = self.new_signing_key().await?;
        let now = self.clock.epoch_seconds();
        let entropy = &*self.entropy;
        let domain = fold(&founding.domain);
        let founded = Founded {
            tenant_id: founding.tenant_id.unwrap_or_else(|| entropy.uuid()),
            user_object_id: entropy.uuid(),
            user_principal_name: format!("{}@{domain}", founding.user_name),
            user_password: founding.user_password.clone().unwrap_or_else(|| new_password(entropy)),
            application_object_id: entropy.uuid(),
            app_id: founding.app_id.unwrap_or_else(|| entropy.uuid()),
            service_principal_object_id: entropy.uuid(),
            client_secret: founding.client_secret.clone().unwrap_or_else(|| new_client_secret(entropy)),
            domain,
        };
        let mut batch = Batch::new();
        batch.require_absent(TENANT, TENANT_KEY);
        let tenant = Tenant {
            id: founded.tenant_id,
            display_name: founding.tenant_name.clone(),
            domain: founded.domain.clone(),
            created_seconds: now,
        };
        batch.put(TENANT, TENANT_KEY, &tenant)?;
        batch.put(SIGNING_KEYS, key.kid.as_str(), &key)?;
        let mut form_key = [0; 32];
        entropy.fill(&mut form_key);
        batch.put(FORM_KEYS, TENANT_KEY, &FormKey { key: b64(&form_key) })?;
        self.plan_first_user(&mut batch, &founding, &founded, now).await?;
        self.plan_first_application(&mut batch, &founding, &founded, now)?;
        plan_azure_cli(&mut batch, entropy.uuid(), now)?;
        match self.commit(permit.stamp(), batch).await? {
            Committed::Written => Ok(Some(founded)),
            Committed::LostRace => Ok(None),
        }
    }

    async fn plan_first_user(
        &self,
        batch: &mut Batch,
        founding: &Founding,
        founded: &Founded,
        now: i64,
    ) -> Result<(), Fault> {
        let id = founded.user_object_id;
        let user = User {
            id,
            upn: founded.user_principal_name.clone(),
            display_name: founding.user_display_name.clone(),
            mail_nickname: founding.user_name.clone(),
            enabled: true,
            created_seconds: now,
            session_epoch: 0,
            profile: Map::new(),
        };
        let hash = self.hashing.hash(founded.user_password.clone(), &*self.entropy).await?;
        batch.put(USERS, &id, &user)?;
        batch.put(USER_NAMES, fold(&user.upn).as_str(), &Reference { id })?;
        batch.put(USER_PASSWORDS, &id, &UserPassword { user: id, hash, changed_seconds: now })?;
        plan_administrator(batch, id)?;
        Ok(())
    }

    fn plan_first_application(
        &self,
        batch: &mut Batch,
        founding: &Founding,
        founded: &Founded,
        now: i64,
    ) -> Result<(), Fault> {
        let secret = PasswordCredential {
            key_id: self.entropy.uuid(),
            display_name: Some("first".to_owned()),
            hint: hint(&founded.client_secret),
            hash: SecretHash::of(&founded.client_secret, &*self.entropy),
            start_seconds: now,
            end_seconds: now + FIRST_SECRET_YEARS * YEAR_SECONDS,
        };
        let application = Application {
            id: founded.application_object_id,
            app_id: founded.app_id,
            display_name: founding.application_name.clone(),
            created_seconds: now,
            identifier_uris: Vec::new(),
            document: Map::new(),
            credentials: Credentials { passwords: vec![secret], keys: Vec::new() },
        };
        batch.put(APPLICATIONS, &application.id, &application)?;
        let id = founded.service_principal_object_id;
        plan_principal(batch, id, founded.app_id, &founding.application_name, now)?;
        plan_administrator(batch, id)?;
        Ok(())
    }

    async fn new_signing_key(&self) -> Result<SigningKey, Fault> {
        let (name, now) = (self.names.signing_name.clone(), self.clock.epoch_seconds());
        let made = tokio::task::spawn_blocking(move || make_signing_key(&name, now)).await;
        made.map_err(Fault::internal)?
    }
}

fn make_signing_key(name: &str, now: i64) -> Result<SigningKey, Fault> {
    let name: String = name.chars().take(COMMON_NAME_CHARACTERS_MAX).collect();
    let pair = RsaKeyPair::generate(RsaBits::Bits2048).map_err(Fault::internal)?;
    let certificate = self_signed(&name, &pair, now, SIGNING_CERTIFICATE_YEARS).map_err(Fault::internal)?;
    let pkcs8 = b64(&pair.to_pkcs8_der().map_err(Fault::internal)?);
    let encoded = b64(&certificate);
    let signer = JwtSigner::new(pair, certificate).map_err(Fault::internal)?;
    Ok(SigningKey { kid: signer.kid().to_owned(), pkcs8, certificate: encoded, created_seconds: now })
}

fn check(founding: &Founding) -> Result<(), Fault> {
    let refused = |what: &str| Fault::bad_request("BadRequest", format!("The {what} is not usable."));
    let name =
        |text: &str| !text.trim().is_empty() && text.len() <= 256 && !text.chars().any(char::is_control);
    if !arcadia_kernel::is_domain(&founding.domain) {
        return Err(refused("domain"));
    }
    if !crate::names::is_user_part(&founding.user_name) {
        return Err(refused("user name"));
    }
    if founding.client_secret.as_ref().is_some_and(|secret| secret.len() < CLIENT_SECRET_CHARACTERS_MIN) {
        return Err(refused("client secret (use 32 random characters or more)"));
    }
    if founding.user_password.as_ref().is_some_and(|password| !is_acceptable_password(password)) {
        return Err(refused("password"));
    }
    for (what, text) in [
        ("tenant name", &founding.tenant_name),
        ("user display name", &founding.user_display_name),
        ("application name", &founding.application_name),
    ] {
        if !name(text) {
            return Err(refused(what));
        }
    }
    Ok(())
}

fn plan_administrator(batch: &mut Batch, principal: Uuid) -> Result<(), StoreError> {
    let row = RoleMember { role: GLOBAL_ADMINISTRATOR, principal };
    batch.put(ROLES, &(row.role, row.principal), &row)
}

fn plan_principal(
    batch: &mut Batch,
    id: Uuid,
    app_id: Uuid,
    display_name: &str,
    now: i64,
) -> Result<(), StoreError> {
    let principal = ServicePrincipal {
        id,
        app_id,
        display_name: display_name.to_owned(),
        kind: PrincipalType::Application,
        enabled: true,
        resource_id: None,
        created_seconds: now,
        document: Map::new(),
        credentials: model::Credentials::default(),
    };
    batch.put(PRINCIPALS, &id, &principal)?;
    batch.require_absent(PRINCIPAL_APP_IDS, &app_id);
    batch.put(PRINCIPAL_APP_IDS, &app_id, &Reference { id })
}

/// The command line's own client: known to every tenant, owned by none, so it has no application object.
fn plan_azure_cli(batch: &mut Batch, id: Uuid, now: i64) -> Result<(), StoreError> {
    plan_principal(batch, id, AZURE_CLI_APP_ID, "Microsoft Azure CLI", now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::DirectoryNames;

    #[test]
    fn the_signing_certificate_has_the_sites_own_name() {
        let long = format!("{}.{}.test", "a".repeat(60), "b".repeat(60));
        for (names, name) in [
            (DirectoryNames::azure(), "accounts.accesscontrol.windows.net"),
            (DirectoryNames::of_domain("site.test"), "login.site.test"),
            (DirectoryNames::of_domain(&long), &long[..58]),
        ] {
            let key = make_signing_key(&names.signing_name, 1_795_279_544).unwrap();
            let der = arcadia_crypto::b64_decode(&key.certificate).unwrap();
            let has = |text: &str| der.windows(text.len()).any(|bytes| bytes == text.as_bytes());
            assert!(has(name), "{name}");
            assert_eq!(has("windows.net"), name.ends_with("windows.net"), "{name}");
        }
    }
}
