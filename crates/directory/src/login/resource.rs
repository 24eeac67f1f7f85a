//! What a token is asked for: one resource, and permissions on it.

use arcadia_kernel::{Fault, trim_audience};
use serde_json::Value;
use uuid::Uuid;

use crate::decide::ACCESS_AS_USER;
use crate::directory::Directory;
use crate::login::client::Client;
use crate::login::faults::{
    invalid_grant, invalid_request, invalid_scope, missing_parameter, no_such_resource, refusal, shown,
};
use crate::model::{AZURE_CLI_APP_ID, DelegatedPermission, GRAPH_APP_ID, Tenant};

const SCOPE_CHARACTERS_MAX: usize = 4096;
const SCOPES_MAX: usize = 64;
/// What is asked for about the sign-in itself, and of no resource.
const SIGN_IN: [&str; 4] = ["openid", "profile", "email", OFFLINE];
const OFFLINE: &str = "offline_access";
const DEFAULT_SUFFIX: &str = "/.default";
const USER_IMPERSONATION: &str = "user_impersonation";
/// What any registered application may be given of Graph without an administrator's consent.
const GRAPH_DEFAULT: &str = "User.Read";
const STORAGE: &str = "storage";
/// `user_impersonation` on the site's services, by the first label of their names. The ids are the same in every cloud.
const IMPERSONATION: [(&str, DelegatedPermission); 5] = [
    (
        "management",
        impersonation(0x797f4846_ba00_4fd7_ba43_dac1f8f63013, 0x41094075_9dad_400e_a0bd_54e686782033),
    ),
    ("vault", impersonation(0xcfa8b339_82a2_471a_a3c9_0fc0be7a4093, 0xf53da476_18e3_4152_8e01_aec403e6edc0)),
    (STORAGE, impersonation(0xe406a681_f3d4_42a8_90b6_c2b029497af1, 0x03e0da56_190b_40ad_a80c_ea378c433f7f)),
    ("ossrdbms", DATABASES),
    ("ossrdbms-aad", DATABASES),
];
const DATABASES: DelegatedPermission =
    impersonation(0x123cd850_d9df_40bd_94d5_c9f07b7fa203, 0xcef99a3a_4cd3_4408_8143_4375d1e38a17);

const fn impersonation(service: u128, id: u128) -> DelegatedPermission {
    DelegatedPermission { resource: Uuid::from_u128(service), id: Uuid::from_u128(id) }
}

#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The scopes as they were asked for; kept with refresh tokens.
    pub scope: String,
    /// The resource as it was asked for: with or without its own trailing slash.
    pub resource: String,
    /// Permissions named one by one; empty when the resource's default was asked for.
    permissions: Vec<String>,
    pub openid: bool,
    pub offline: bool,
}

/// A resource that exists.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub audience: String,
    /// 1 or 2: the form of its access tokens.
    pub token_version: u8,
    kind: ResourceKind,
    /// Whether callers need an assignment to it, which cannot be given here.
    assignment_required: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ResourceKind {
    Graph,
    /// One of the site's services. `None` when applications cannot ask for permissions on it.
    Service(Option<DelegatedPermission>),
    /// The names of its delegated permissions.
    Application(Vec<String>),
}

impl Wanted {
    /// Reads the version 2.0 `scope` of an application in its own name: everything it was given, never a part.
    pub(crate) fn of_application(scope: &str, graph_host: &str) -> Result<Self, Fault> {
        let mut named = scope.split_whitespace().filter(|item| !SIGN_IN.contains(item)).peekable();
        let is_default = |item: &str| item == ".default" || item.ends_with(DEFAULT_SUFFIX);
        if named.peek().is_some() && named.all(is_default) {
            return Self::from_scope(scope, graph_host);
        }
        let message = format!(
            "The provided value for scope {} is not valid. Client credential flows must have a scope value with \
             /.default suffixed to the resource identifier (application ID URI).",
            shown(scope)
        );
        Err(refusal(400, "invalid_scope", 1_002_012, message))
    }

    /// Reads a version 2.0 `scope`.
    pub(crate) fn from_scope(scope: &str, graph_host: &str) -> Result<Self, Fault> {
        if scope.len() > SCOPE_CHARACTERS_MAX {
            return Err(invalid_scope(scope));
        }
        let graph = format!("https://{graph_host}");
        let mut wanted = Self {
            scope: scope.split_whitespace().collect::<Vec<_>>().join(" "),
            resource: String::new(),
            permissions: Vec::new(),
            openid: false,
            offline: false,
        };
        for (count, item) in scope.split_whitespace().enumerate() {
            if count == SCOPES_MAX {
                return Err(invalid_scope(scope));
            }
            let (resource, permission) = match item {
                OFFLINE => {
                    wanted.offline = true;
                    continue;
                }
                _ if SIGN_IN.contains(&item) => {
                    wanted.openid = true;
                    continue;
                }
                ".default" => (graph.as_str(), None),
                _ => match (item.strip_suffix(DEFAULT_SUFFIX), item.rsplit_once('/')) {
                    (Some(resource), _) => (resource, None),
                    (None, Some((resource, permission))) => (resource, Some(permission)),
                    (None, None) => (graph.as_str(), Some(item)),
                },
            };
            if resource.is_empty() || permission == Some("") {
                return Err(invalid_scope(item));
            }
            wanted.add(resource, permission)?;
        }
        if wanted.resource.is_empty() {
            // Only sign-in was asked for: the token is for the endpoint that describes the person.
            wanted.resource = GRAPH_APP_ID.to_string();
        }
        Ok(wanted)
    }

    fn add(&mut self, resource: &str, permission: Option<&str>) -> Result<(), Fault> {
        if self.resource.is_empty() {
            self.resource = resource.to_owned();
        } else if trim_audience(&self.resource) != trim_audience(resource) {
            let message = "Provided value for the input parameter scope is not valid because it contains more \
                           than one resource. Ask for one resource at a time.";
            return Err(invalid_request(28_000, message));
        }
        self.permissions.extend(permission.map(str::to_owned));
        Ok(())
    }

    /// A version 1.0 `resource`; such requests always sign the person in and keep them signed in.
    pub(crate) fn from_resource(resource: &str) -> Result<Self, Fault> {
        if resource.is_empty() {
            return Err(missing_parameter("resource"));
        }
        if resource.len() > SCOPE_CHARACTERS_MAX || resource.contains(char::is_whitespace) {
            return Err(invalid_scope(resource));
        }
        Ok(Self {
            scope: format!("{resource}{DEFAULT_SUFFIX} openid offline_access"),
            resource: resource.to_owned(),
            permissions: Vec::new(),
            openid: true,
            offline: true,
        })
    }

    /// The resource, if there is one by that name here.
    pub(crate) fn find(&self, directory: &Directory, tenant: &Tenant) -> Result<Resource, Fault> {
        let name = trim_audience(&self.resource);
        let names = directory.names();
        let is_account = names.is_storage_account(&name);
        if is_account || names.resources.iter().any(|known| trim_audience(known) == name) {
            let is_graph = name == trim_audience(&format!("https://{}", names.graph_host))
                || name == GRAPH_APP_ID.to_string();
            // What is given of storage is given of each account.
            let service = if is_account { STORAGE } else { first_label(&name) };
            return Ok(Resource {
                audience: self.resource.clone(),
                token_version: 1,
                kind: if is_graph {
                    ResourceKind::Graph
                } else {
                    ResourceKind::Service(impersonation_on(service))
                },
                assignment_required: false,
            });
        }
        let snapshot = directory.snapshot();
        let by_app_id = || {
            let id = name.strip_prefix("api://").or_else(|| name.strip_prefix("spn:")).unwrap_or(&name);
            Uuid::try_parse(id).ok().and_then(|app_id| snapshot.application_of(app_id))
        };
        let application = snapshot
            .application_with_uri(&self.resource)
            .or_else(|| snapshot.application_with_uri(&name))
            .or_else(by_app_id)
            // It may have been registered before such names were refused.
            .filter(|_| !names.is_platform(&name));
        let found = application.and_then(|app| Some((app, snapshot.principal_of(app.app_id)?)));
        let (application, principal) = found
            .filter(|(_, principal)| principal.enabled)
            .ok_or_else(|| no_such_resource(&self.resource, &tenant.display_name))?;
        let token_version = application.access_token_version();
        Ok(Resource {
            audience: match token_version {
                2 => application.app_id.to_string(),
                _ => self.resource.clone(),
            },
            token_version,
            kind: ResourceKind::Application(delegated_permissions(&application.document)),
            assignment_required: crate::login::client::requires_assignment(principal),
        })
    }

    /// The `scp` of a person's token through `client`.
    pub(crate) fn delegated(&self, resource: &Resource, client: &Client) -> Result<String, Fault> {
        resource.check_assignment()?;
        let is_first_party = client.app_id == AZURE_CLI_APP_ID;
        let offered: Vec<&str> = match &resource.kind {
            ResourceKind::Graph if is_first_party => vec![ACCESS_AS_USER, GRAPH_DEFAULT],
            ResourceKind::Graph => vec![GRAPH_DEFAULT],
            // Whoever signs in to an application does not hand it all that they may do themselves.
            ResourceKind::Service(permission) if !is_first_party && !client.is_granted(*permission) => {
                return Err(not_consented(USER_IMPERSONATION, client.app_id, resource));
            }
            ResourceKind::Service(_) => vec![USER_IMPERSONATION],
            ResourceKind::Application(names) => names.iter().map(String::as_str).collect(),
        };
        let asked: Vec<&str> =
            self.permissions.iter().map(String::as_str).filter(|name| *name != ".default").collect();
        if let Some(unknown) = asked.iter().find(|name| !offered.contains(name)) {
            return Err(unknown_permission(unknown, client.app_id, resource));
        }
        Ok(if asked.is_empty() { offered.join(" ") } else { asked.join(" ") })
    }

    /// The `scope` of the answer: everything asked for, verbatim, and what it amounts to.
    pub(crate) fn answered(&self, delegated: &str) -> String {
        let mut scopes: Vec<String> = Vec::new();
        for name in delegated.split(' ').filter(|name| !name.is_empty()) {
            scopes.push(format!("{}/{name}", self.resource));
        }
        for asked in self.scope.split(' ').filter(|asked| *asked != OFFLINE) {
            if !scopes.iter().any(|scope| scope == asked) {
                scopes.push(asked.to_owned());
            }
        }
        scopes.join(" ")
    }
}

impl Resource {
    pub(crate) fn check_assignment(&self) -> Result<(), Fault> {
        if self.assignment_required {
            let message = "The resource requires an application role assignment, and there is none for this \
                           principal. Switch the requirement off on the resource's service principal.";
            return Err(invalid_grant(501_051, message));
        }
        Ok(())
    }
}

/// Of a service's name the first label of its host, and an application id as it is.
fn first_label(name: &str) -> &str {
    let host = name.split_once("://").map_or(name, |(_, host)| host);
    host.split_once('.').map_or(host, |(label, _)| label)
}

/// The permission to act for people on a service, by label or id, as applications ask for it.
fn impersonation_on(service: &str) -> Option<DelegatedPermission> {
    let id = Uuid::try_parse(service).ok();
    let found = |(known, permission): &&(&str, DelegatedPermission)| {
        *known == service || Some(permission.resource) == id
    };
    IMPERSONATION.iter().find(found).map(|(_, permission)| *permission)
}

fn not_consented(permission: &str, client: Uuid, resource: &Resource) -> Fault {
    let mut message = format!(
        "The user or administrator has not consented to use the application with ID '{client}' for the permission \
         '{}' of '{}'.",
        shown(permission),
        shown(&resource.audience)
    );
    if let ResourceKind::Service(Some(DelegatedPermission { resource, id })) = resource.kind {
        message.push_str(&format!(
            " An administrator consents by adding the permission to the application, which nothing else has to grant: \
             az ad app permission add --id {client} --api {resource} --api-permissions {id}=Scope"
        ));
    }
    invalid_grant(65_001, message).extra("suberror", "consent_required")
}

/// The resource has no permission by that name, or does not offer it to this client.
fn unknown_permission(permission: &str, client: Uuid, resource: &Resource) -> Fault {
    if resource.kind == ResourceKind::Graph {
        return not_consented(permission, client, resource);
    }
    let message = format!(
        "The application '{client}' asked for scope '{}' that doesn't exist on the resource '{}'.",
        shown(permission),
        shown(&resource.audience)
    );
    refusal(400, "invalid_scope", 650_053, message)
}

fn delegated_permissions(document: &serde_json::Map<String, Value>) -> Vec<String> {
    document
        .get("api")
        .and_then(|api| api.get("oauth2PermissionScopes"))
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|scope| scope.get("isEnabled").and_then(Value::as_bool).unwrap_or(true))
        .filter_map(|scope| scope.get("value").and_then(Value::as_str))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(scope: &str) -> Wanted {
        Wanted::from_scope(scope, "graph.microsoft.com").unwrap()
    }

    #[test]
    fn the_resource_keeps_its_own_slash() {
        let arm = wanted("https://management.core.windows.net//.default offline_access openid profile");
        assert_eq!(arm.resource, "https://management.core.windows.net/");
        assert!(arm.openid && arm.offline && arm.permissions.is_empty());
        assert_eq!(wanted("https://vault.azure.net/.default").resource, "https://vault.azure.net");
        assert_eq!(
            arm.answered("user_impersonation"),
            "https://management.core.windows.net//user_impersonation \
             https://management.core.windows.net//.default openid profile"
        );
    }

    #[test]
    fn permissions_and_bare_names() {
        let graph = wanted("User.Read https://graph.microsoft.com/Group.Read");
        assert_eq!(graph.resource, "https://graph.microsoft.com");
        assert_eq!(graph.permissions, ["User.Read", "Group.Read"]);
        assert_eq!(wanted("openid").resource, GRAPH_APP_ID.to_string());
        assert_eq!(wanted("api://x/y/read").resource, "api://x/y");
    }

    #[test]
    fn two_resources_and_junk_are_refused() {
        let refused = |scope: &str| Wanted::from_scope(scope, "g").unwrap_err().inner.unwrap();
        assert_eq!(refused("https://a/.default https://b/.default"), "28000");
        assert_eq!(refused("/.default"), "70011");
        assert_eq!(refused("https://a/"), "70011");
        assert_eq!(refused(&"a ".repeat(65)), "70011");
        assert_eq!(refused(&"a".repeat(5000)), "70011");
        assert_eq!(Wanted::from_resource("").unwrap_err().inner.unwrap(), "900144");
    }

    #[test]
    fn a_resource_becomes_a_scope_and_back() {
        let v1 = Wanted::from_resource("https://management.core.windows.net/").unwrap();
        assert_eq!(wanted(&v1.scope).resource, v1.resource);
    }
}
