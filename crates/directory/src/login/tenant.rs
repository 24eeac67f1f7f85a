//! The first segment of most paths: which tenant is meant.

use arcadia_kernel::Fault;
use uuid::Uuid;

use crate::directory::Directory;
use crate::login::faults::{invalid_request, no_such_tenant};
use crate::model::Tenant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Authority {
    /// The tenant by its id or domain.
    Own,
    /// `organizations`: whichever tenant the account is in.
    Organizations,
    /// `common`: the same, and in the public cloud personal accounts too.
    Common,
}

/// A tenant as a path names it.
#[derive(Clone, Debug)]
pub(crate) struct TenantPath {
    pub tenant: std::sync::Arc<Tenant>,
    pub authority: Authority,
    /// As it was written; documents repeat it in their addresses.
    pub text: String,
}

impl TenantPath {
    /// `error` is the OAuth code for an unknown tenant, which differs between documents and grants.
    pub(crate) fn resolve(directory: &Directory, text: &str, error: &'static str) -> Result<Self, Fault> {
        let tenant = directory.founded_tenant()?;
        let authority = match text.to_ascii_lowercase().as_str() {
            "organizations" => Authority::Organizations,
            "common" => Authority::Common,
            "consumers" => {
                let message = "Application is configured for use by Azure Active Directory users only. Please \
                               do not use the /consumers endpoint to serve this request.";
                return Err(invalid_request(9_002_332, message));
            }
            name if name == tenant.domain || Uuid::try_parse(name).ok() == Some(tenant.id) => Authority::Own,
            _ => return Err(no_such_tenant(error, text)),
        };
        let text = match authority {
            Authority::Own => text.to_owned(),
            Authority::Organizations => "organizations".to_owned(),
            Authority::Common => "common".to_owned(),
        };
        Ok(Self { tenant, authority, text })
    }

    /// The tenant's id where the path names it, else `{tenantid}` as such documents have it.
    pub(crate) fn issuer_part(&self) -> String {
        match self.authority {
            Authority::Own => self.tenant.id.to_string(),
            Authority::Organizations | Authority::Common => "{tenantid}".to_owned(),
        }
    }
}
