//! Directory objects as Graph shows them.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::graph::body::merge;
use crate::graph::credentials::add_credentials;
use crate::graph::odata::{Field, Fields, Kind, Queried};
use crate::model::{Application, DeletedApplication, Group, PrincipalType, ServicePrincipal, Tenant, User};
use crate::snapshot::{DirectoryObject, Snapshot};

/// Whose people may sign in to an application that says nothing else.
const OWN_TENANT: &str = "AzureADMyOrg";

/// The last second that can be shown, of the year 9999.
pub(crate) fn last_date() -> i64 {
    Timestamp::MAX.as_second()
}

/// Whether this time can be shown.
pub(crate) fn is_date(seconds: i64) -> bool {
    Timestamp::from_second(seconds).is_ok()
}

/// `2026-11-21T16:49:10Z`.
pub(crate) fn date(seconds: i64) -> String {
    let time = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A kind of object with its name in paths and in `@odata.type`.
pub(crate) trait Shown {
    const SET: &'static str;
    fn id(&self) -> Uuid;
    fn show(&self) -> Map<String, Value>;
}

/// Members of `value`, which is written as an object.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

impl Shown for User {
    const SET: &'static str = "users";

    fn id(&self) -> Uuid {
        self.id
    }

    /// With `objectId` beside `id`, as scripts written for the older Graph ask for it.
    fn show(&self) -> Map<String, Value> {
        let mut shown = object(json!({
            "businessPhones": [],
            "givenName": null,
            "jobTitle": null,
            "mail": null,
            "mobilePhone": null,
            "officeLocation": null,
            "preferredLanguage": null,
            "surname": null,
        }));
        shown.extend(self.profile.clone());
        shown.extend(object(json!({
            "id": self.id,
            "objectId": self.id,
            "displayName": self.display_name,
            "userPrincipalName": self.upn,
            "mailNickname": self.mail_nickname,
            "accountEnabled": self.enabled,
            "userType": "Member",
            "createdDateTime": date(self.created_seconds),
        })));
        shown
    }
}

impl Queried for User {
    const FIELDS: Fields = &[
        ("id", Kind::Text),
        ("userPrincipalName", Kind::Text),
        ("displayName", Kind::Text),
        ("mailNickname", Kind::Text),
        ("mail", Kind::Text),
        ("givenName", Kind::Text),
        ("surname", Kind::Text),
        ("jobTitle", Kind::Text),
        ("department", Kind::Text),
        ("accountEnabled", Kind::Flag),
    ];

    fn field(&self, name: &str) -> Field<'_> {
        match name {
            "id" => Field::Text(self.id.to_string().into()),
            "userPrincipalName" => Field::Text(self.upn.as_str().into()),
            "displayName" => Field::Text(self.display_name.as_str().into()),
            "mailNickname" => Field::Text(self.mail_nickname.as_str().into()),
            "accountEnabled" => Field::Flag(self.enabled),
            other => match self.profile.get(other) {
                Some(Value::String(text)) => Field::Text(text.as_str().into()),
                _ => Field::Null,
            },
        }
    }
}

impl Shown for Group {
    const SET: &'static str = "groups";

    fn id(&self) -> Uuid {
        self.id
    }

    fn show(&self) -> Map<String, Value> {
        object(json!({
            "id": self.id,
            "objectId": self.id,
            "deletedDateTime": null,
            "classification": null,
            "createdDateTime": date(self.created_seconds),
            "creationOptions": [],
            "description": self.description,
            "displayName": self.display_name,
            "expirationDateTime": null,
            "groupTypes": [],
            "isAssignableToRole": null,
            "mail": null,
            "mailEnabled": false,
            "mailNickname": self.mail_nickname,
            "membershipRule": null,
            "membershipRuleProcessingState": null,
            "onPremisesSyncEnabled": null,
            "preferredLanguage": null,
            "proxyAddresses": [],
            "renewedDateTime": date(self.created_seconds),
            "securityEnabled": true,
            "theme": null,
            "visibility": null,
        }))
    }
}

impl Queried for Group {
    const FIELDS: Fields = &[
        ("id", Kind::Text),
        ("displayName", Kind::Text),
        ("mailNickname", Kind::Text),
        ("description", Kind::Text),
        ("mailEnabled", Kind::Flag),
        ("securityEnabled", Kind::Flag),
    ];

    fn field(&self, name: &str) -> Field<'_> {
        match name {
            "id" => Field::Text(self.id.to_string().into()),
            "displayName" => Field::Text(self.display_name.as_str().into()),
            "mailNickname" => Field::Text(self.mail_nickname.as_str().into()),
            "mailEnabled" => Field::Flag(false),
            "securityEnabled" => Field::Flag(true),
            _ => self.description.as_deref().map_or(Field::Null, |text| Field::Text(text.into())),
        }
    }
}

impl Shown for Application {
    const SET: &'static str = "applications";

    fn id(&self) -> Uuid {
        self.id
    }

    fn show(&self) -> Map<String, Value> {
        let mut shown = object(json!({
            "deletedDateTime": null,
            "applicationTemplateId": null,
            "disabledByMicrosoftStatus": null,
            "description": null,
            "groupMembershipClaims": null,
            "isDeviceOnlyAuthSupported": null,
            "isFallbackPublicClient": null,
            "notes": null,
            "serviceManagementReference": null,
            "signInAudience": OWN_TENANT,
            "tags": [],
            "tokenEncryptionKeyId": null,
            "defaultRedirectUri": null,
            "optionalClaims": null,
            "addIns": [],
            "api": {
                "acceptMappedClaims": null,
                "knownClientApplications": [],
                "requestedAccessTokenVersion": null,
                "oauth2PermissionScopes": [],
                "preAuthorizedApplications": [],
            },
            "appRoles": [],
            "info": {
                "logoUrl": null,
                "marketingUrl": null,
                "privacyStatementUrl": null,
                "supportUrl": null,
                "termsOfServiceUrl": null,
            },
            "parentalControlSettings": { "countriesBlockedForMinors": [], "legalAgeGroupRule": "Allow" },
            "publicClient": { "redirectUris": [] },
            "requiredResourceAccess": [],
            "verifiedPublisher": { "displayName": null, "verifiedPublisherId": null, "addedDateTime": null },
            "web": {
                "homePageUrl": null,
                "logoutUrl": null,
                "redirectUris": [],
                "implicitGrantSettings": {
                    "enableAccessTokenIssuance": false,
                    "enableIdTokenIssuance": false,
                },
            },
            "spa": { "redirectUris": [] },
        }));
        merge(&mut shown, &self.document);
        shown.extend(object(json!({
            "id": self.id,
            "objectId": self.id,
            "appId": self.app_id,
            "displayName": self.display_name,
            "identifierUris": self.identifier_uris,
            "createdDateTime": date(self.created_seconds),
        })));
        add_credentials(&mut shown, &self.credentials);
        shown
    }
}

impl Queried for Application {
    const FIELDS: Fields = &[
        ("id", Kind::Text),
        ("appId", Kind::Text),
        ("displayName", Kind::Text),
        ("signInAudience", Kind::Text),
        ("identifierUris", Kind::Texts),
    ];

    fn field(&self, name: &str) -> Field<'_> {
        match name {
            "id" => Field::Text(self.id.to_string().into()),
            "appId" => Field::Text(self.app_id.to_string().into()),
            "displayName" => Field::Text(self.display_name.as_str().into()),
            "identifierUris" => {
                Field::Texts(self.identifier_uris.iter().map(|uri| uri.as_str().into()).collect())
            }
            other => match self.document.get(other) {
                Some(Value::String(text)) => Field::Text(text.as_str().into()),
                _ => Field::Text(OWN_TENANT.into()),
            },
        }
    }
}

/// A service principal with what its application says of it.
pub(crate) struct PrincipalView {
    pub principal: Arc<ServicePrincipal>,
    pub application: Option<Arc<Application>>,
    pub tenant: Uuid,
}

impl PrincipalView {
    pub(crate) fn of(snapshot: &Snapshot, principal: &Arc<ServicePrincipal>) -> Self {
        Self {
            principal: principal.clone(),
            application: snapshot.application_of(principal.app_id).cloned(),
            tenant: snapshot.tenant.as_ref().map(|tenant| tenant.id).unwrap_or_default(),
        }
    }

    fn name(&self) -> &str {
        self.principal.name(self.application.as_deref())
    }

    fn names(&self) -> Vec<String> {
        let uris = self.application.iter().flat_map(|app| app.identifier_uris.iter().cloned());
        std::iter::once(self.principal.app_id.to_string()).chain(uris).collect()
    }

    fn kind(&self) -> &'static str {
        match self.principal.kind {
            PrincipalType::Application => "Application",
            PrincipalType::ManagedIdentity => "ManagedIdentity",
        }
    }
}

impl Shown for PrincipalView {
    const SET: &'static str = "servicePrincipals";

    fn id(&self) -> Uuid {
        self.principal.id
    }

    fn show(&self) -> Map<String, Value> {
        let principal = &self.principal;
        let resource = principal.resource_id.as_ref().map(ToString::to_string);
        let alternative: Vec<String> =
            resource.map_or_else(Vec::new, |id| vec!["isExplicit=False".to_owned(), id]);
        let owner = self.application.as_ref().map(|_| self.tenant);
        let application = |path: &str| self.application.as_ref().and_then(|app| app.property(path));
        let list =
            |path: &str| application(path).filter(|list| list.is_array()).cloned().unwrap_or(json!([]));
        let mut shown = object(json!({
            "deletedDateTime": null,
            "appDescription": null,
            "applicationTemplateId": null,
            "appRoleAssignmentRequired": false,
            "description": null,
            "disabledByMicrosoftStatus": null,
            "homepage": null,
            "loginUrl": null,
            "logoutUrl": null,
            "notes": null,
            "notificationEmailAddresses": [],
            "preferredSingleSignOnMode": null,
            "preferredTokenSigningKeyThumbprint": null,
            "tags": [],
            "tokenEncryptionKeyId": null,
            "samlSingleSignOnSettings": null,
            "addIns": [],
            "appRoles": list("appRoles"),
            "oauth2PermissionScopes": list("api/oauth2PermissionScopes"),
            "resourceSpecificApplicationPermissions": [],
        }));
        shown.extend(principal.document.clone());
        shown.extend(object(json!({
            "id": principal.id,
            "objectId": principal.id,
            "accountEnabled": principal.enabled,
            "alternativeNames": alternative,
            "appDisplayName": self.name(),
            "appId": principal.app_id,
            "appOwnerOrganizationId": owner,
            "createdDateTime": date(principal.created_seconds),
            "displayName": self.name(),
            "replyUrls": self.application.iter().flat_map(|app| app.redirect_uris("web")).collect::<Vec<_>>(),
            "servicePrincipalNames": self.names(),
            "servicePrincipalType": self.kind(),
            "signInAudience": application("signInAudience").and_then(Value::as_str).unwrap_or(OWN_TENANT),
        })));
        add_credentials(&mut shown, &principal.credentials);
        shown
    }
}

impl Queried for PrincipalView {
    const FIELDS: Fields = &[
        ("id", Kind::Text),
        ("appId", Kind::Text),
        ("displayName", Kind::Text),
        ("appDisplayName", Kind::Text),
        ("servicePrincipalType", Kind::Text),
        ("accountEnabled", Kind::Flag),
        ("servicePrincipalNames", Kind::Texts),
        ("alternativeNames", Kind::Texts),
    ];

    fn field(&self, name: &str) -> Field<'_> {
        match name {
            "id" => Field::Text(self.principal.id.to_string().into()),
            "appId" => Field::Text(self.principal.app_id.to_string().into()),
            "displayName" | "appDisplayName" => Field::Text(self.name().into()),
            "accountEnabled" => Field::Flag(self.principal.enabled),
            "servicePrincipalNames" => Field::Texts(self.names().into_iter().map(Into::into).collect()),
            "alternativeNames" => {
                let resource = self.principal.resource_id.as_ref();
                Field::Texts(resource.map(|id| id.as_str().into()).into_iter().collect())
            }
            _ => Field::Text(self.kind().into()),
        }
    }
}

impl Shown for DeletedApplication {
    const SET: &'static str = "directory/deletedItems";

    fn id(&self) -> Uuid {
        self.application.id
    }

    fn show(&self) -> Map<String, Value> {
        let mut shown = self.application.show();
        shown.insert("deletedDateTime".into(), date(self.deleted_seconds).into());
        shown
    }
}

impl Queried for DeletedApplication {
    const FIELDS: Fields = Application::FIELDS;

    fn field(&self, name: &str) -> Field<'_> {
        self.application.field(name)
    }
}

/// An object of a mixed list, with its `@odata.type`.
pub(crate) fn typed(snapshot: &Snapshot, found: &DirectoryObject) -> Value {
    let (kind, mut shown) = match found {
        DirectoryObject::User(user) => ("user", user.show()),
        DirectoryObject::Group(group) => ("group", group.show()),
        DirectoryObject::Application(application) => ("application", application.show()),
        DirectoryObject::ServicePrincipal(principal) => {
            ("servicePrincipal", PrincipalView::of(snapshot, principal).show())
        }
    };
    shown.insert("@odata.type".into(), format!("#microsoft.graph.{kind}").into());
    Value::Object(shown)
}

/// The tenant as the organization that it belongs to.
pub(crate) struct Organization(pub Arc<Tenant>);

impl Shown for Organization {
    const SET: &'static str = "organization";

    fn id(&self) -> Uuid {
        self.0.id
    }

    fn show(&self) -> Map<String, Value> {
        object(json!({
            "id": self.0.id,
            "displayName": self.0.display_name,
            "tenantType": "AAD",
            "createdDateTime": date(self.0.created_seconds),
            "assignedPlans": [],
            "provisionedPlans": [],
            "verifiedDomains": [{
                "capabilities": "None",
                "isDefault": true,
                "isInitial": true,
                "name": self.0.domain,
                "type": "Managed",
            }],
        }))
    }
}

impl Queried for Organization {
    const FIELDS: Fields = &[("id", Kind::Text), ("displayName", Kind::Text)];

    fn field(&self, name: &str) -> Field<'_> {
        match name {
            "id" => Field::Text(self.0.id.to_string().into()),
            _ => Field::Text(self.0.display_name.as_str().into()),
        }
    }
}

/// The tenant's one domain.
pub(crate) struct Domain(pub Arc<Tenant>);

impl Shown for Domain {
    const SET: &'static str = "domains";

    fn id(&self) -> Uuid {
        self.0.id
    }

    fn show(&self) -> Map<String, Value> {
        object(json!({
            "id": self.0.domain,
            "authenticationType": "Managed",
            "isAdminManaged": true,
            "isDefault": true,
            "isInitial": true,
            "isRoot": true,
            "isVerified": true,
            "supportedServices": [],
        }))
    }
}

impl Queried for Domain {
    const FIELDS: Fields = &[
        ("id", Kind::Text),
        ("isAdminManaged", Kind::Flag),
        ("isDefault", Kind::Flag),
        ("isInitial", Kind::Flag),
        ("isRoot", Kind::Flag),
        ("isVerified", Kind::Flag),
    ];

    fn field(&self, name: &str) -> Field<'_> {
        match name {
            "id" => Field::Text(self.0.domain.as_str().into()),
            _ => Field::Flag(true),
        }
    }
}
