//! Callers by name, and tokens that say what is wrong with them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use arcadia_arm::{PrincipalInfo, PrincipalSource, PrincipalType, TenantInfo};
use arcadia_kernel::{self as kernel, Authenticator, CallerKind, TokenFault, VerifiedToken};
use uuid::Uuid;

#[derive(Clone, Debug)]
pub struct Caller {
    pub name: String,
    pub object_id: Uuid,
}

impl Caller {
    /// The value of `Authorization` for a good token.
    pub fn bearer(&self, audience: &str) -> String {
        format!("Bearer {}|{audience}", self.name)
    }
}

/// Everyone who was ever asked for.
pub struct Directory {
    tenant: Uuid,
    people: Mutex<HashMap<String, Uuid>>,
}

impl Directory {
    pub fn new(tenant: Uuid) -> Self {
        Self { tenant, people: Mutex::default() }
    }

    pub fn caller(&self, name: &str) -> Caller {
        let mut people = self.people.lock().unwrap();
        let next = Uuid::from_u128(0x0b1d_0000 + people.len() as u128);
        let object_id = *people.entry(name.to_owned()).or_insert(next);
        Caller { name: name.to_owned(), object_id }
    }

    /// The caller as its verified token describes it. A name that starts with `machine` is a managed identity's.
    pub fn kernel_caller(&self, name: &str) -> kernel::Caller {
        let is_machine = name.starts_with("machine");
        kernel::Caller {
            kind: if is_machine { CallerKind::ManagedIdentity } else { CallerKind::User },
            tenant_id: self.tenant,
            object_id: self.caller(name).object_id,
            app_id: Uuid::from_u128(0xa99),
            name: name.to_owned(),
            resource_id: is_machine.then(|| format!("/subscriptions/s/resourcegroups/rg/machines/{name}")),
            issuer: format!("https://sts.windows.net/{}/", self.tenant),
            delegated_scopes: None,
        }
    }

    fn exists(&self, id: Uuid) -> bool {
        self.people.lock().unwrap().values().any(|known| *known == id)
    }
}

impl PrincipalSource for Directory {
    fn principal(&self, id: Uuid) -> Option<PrincipalInfo> {
        let info = PrincipalInfo { kind: PrincipalType::User, display_name: id.to_string() };
        self.exists(id).then_some(info)
    }

    fn groups_of(&self, id: Uuid) -> Option<HashSet<Uuid>> {
        self.exists(id).then(HashSet::new)
    }

    fn tenant(&self) -> TenantInfo {
        TenantInfo {
            id: self.tenant,
            display_name: "Site".to_owned(),
            default_domain: "site.example".to_owned(),
        }
    }
}

/// Reads `name|audience`, or `!fault`: the checks of real tokens are tested where tokens are made.
pub struct Tokens(pub Arc<Directory>);

impl Authenticator for Tokens {
    fn verify(&self, token: &str, now: i64) -> Result<VerifiedToken, TokenFault> {
        let issuer = format!("https://sts.windows.net/{}/", self.0.tenant);
        match token {
            "!expired" => return Err(TokenFault::Expired),
            "!early" => return Err(TokenFault::NotYetValid),
            "!key" => return Err(TokenFault::UnknownKey),
            "!signature" => return Err(TokenFault::Signature),
            "!algorithm" => return Err(TokenFault::Algorithm),
            "!issuer" => {
                let found = "https://sts.windows.net/other/".to_owned();
                return Err(TokenFault::Issuer { expected: vec![issuer], found });
            }
            _ => {}
        }
        let (name, audience) = token.split_once('|').ok_or(TokenFault::Malformed)?;
        let caller = self.0.kernel_caller(name);
        Ok(VerifiedToken { caller: Arc::new(caller), audience: audience.into(), expires_at: now + 3600 })
    }
}
