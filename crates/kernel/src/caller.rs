//! Who asks.

use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CallerKind {
    User,
    Application,
    ManagedIdentity,
    /// Whoever holds a key or a signature of a resource itself; nobody in the directory.
    KeyHolder,
    /// No credential was presented; only open operations see such a caller.
    Anonymous,
    /// The site itself.
    System,
}

/// A caller as a verified token describes it. Group membership is not here: it is looked up at each decision,
/// so that a change of membership takes effect at once.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Caller {
    pub kind: CallerKind,
    pub tenant_id: Uuid,
    pub object_id: Uuid,
    /// The application that holds the token; for a managed identity its client id.
    pub app_id: Uuid,
    /// The user principal name of a user, else the application id as text.
    pub name: String,
    /// `xms_mirid`: the resource a managed identity belongs to.
    pub resource_id: Option<String>,
    /// The token's `iss`, as some services repeat it in their refusals.
    pub issuer: String,
    /// The token's `scp`, when it was issued to a person through an application.
    pub delegated_scopes: Option<String>,
}

impl Caller {
    pub fn anonymous() -> Self {
        Self::nobody(CallerKind::Anonymous, "anonymous")
    }

    /// A caller who proved to hold a key named `name` of a resource.
    pub fn key_holder(name: &str) -> Self {
        Self::nobody(CallerKind::KeyHolder, name)
    }

    pub(crate) fn system(reason: &str) -> Self {
        Self::nobody(CallerKind::System, reason)
    }

    fn nobody(kind: CallerKind, name: &str) -> Self {
        Self {
            kind,
            tenant_id: Uuid::nil(),
            object_id: Uuid::nil(),
            app_id: Uuid::nil(),
            name: name.to_owned(),
            resource_id: None,
            issuer: String::new(),
            delegated_scopes: None,
        }
    }
}
