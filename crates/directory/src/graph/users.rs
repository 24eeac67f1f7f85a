//! People.

use arcadia_crypto::Zeroizing;
use arcadia_kernel::{At, Fault, Permit, Reply, Request, RequestHead, StatusCode};
use arcadia_store::Batch;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::actions::{UsersCreate, UsersDelete, UsersRead, UsersRevokeSessions, UsersUpdate};
use crate::directory::Committed;
use crate::graph::body::{Body, Reader};
use crate::graph::faults::{bad_request, invalid_property, taken};
use crate::graph::odata::{Field, Fields, Queried};
use crate::graph::render::Shown;
use crate::graph::{Graph, new_id};
use crate::model::{Reference, USER_NAMES, USER_PASSWORDS, USERS, User, UserPassword, fold};
use crate::names::{is_display_name, is_user_part};
use crate::secret::is_acceptable_password;

/// Text properties that are kept as they are sent.
const PROFILE: [&str; 18] = [
    "givenName",
    "surname",
    "jobTitle",
    "mail",
    "mobilePhone",
    "officeLocation",
    "preferredLanguage",
    "department",
    "companyName",
    "city",
    "country",
    "postalCode",
    "state",
    "streetAddress",
    "usageLocation",
    "employeeId",
    "employeeType",
    "onPremisesImmutableId",
];

/// So that a list can hold what it takes from the snapshot.
impl<T: Shown> Shown for std::sync::Arc<T> {
    const SET: &'static str = T::SET;

    fn id(&self) -> Uuid {
        T::id(self)
    }

    fn show(&self) -> Map<String, Value> {
        T::show(self)
    }
}

impl<T: Queried> Queried for std::sync::Arc<T> {
    const FIELDS: Fields = T::FIELDS;

    fn field(&self, name: &str) -> Field<'_> {
        T::field(self, name)
    }
}

pub(super) async fn list(at: At<Graph>, _: Permit<UsersRead>, request: Request) -> Result<Reply, Fault> {
    let snapshot = at.directory.snapshot();
    at.list(&request, snapshot.users.values().cloned())
}

pub(super) async fn show(at: At<Graph>, _: Permit<UsersRead>, request: Request) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let user = at.directory.snapshot().users.get(&id).cloned().ok_or_else(|| at.target.not_found())?;
    at.one(&request, "users", user.show())
}

/// What a body says of a user; absent properties are `None`.
struct Sent {
    display_name: Option<String>,
    mail_nickname: Option<String>,
    upn: Option<String>,
    enabled: Option<bool>,
    password: Option<Zeroizing<String>>,
    /// Null takes a property away.
    profile: Map<String, Value>,
}

impl Sent {
    fn read(at: &At<Graph>, fields: Map<String, Value>) -> Result<Self, Fault> {
        let mut reader = Reader::new(fields);
        let mut profile = Map::new();
        for name in PROFILE {
            match reader.take(name) {
                None => {}
                Some(Value::Null) => drop(profile.insert(name.to_owned(), Value::Null)),
                Some(Value::String(text)) if is_display_name(&text) => {
                    profile.insert(name.to_owned(), text.into());
                }
                Some(_) => return Err(invalid_property(name)),
            }
        }
        for name in ["businessPhones", "otherMails"] {
            if let Some(texts) = reader.texts(name)? {
                profile.insert(name.to_owned(), texts.into());
            }
        }
        let sent = Self {
            display_name: checked(reader.text("displayName")?, "displayName", is_display_name)?,
            mail_nickname: checked(reader.text("mailNickname")?, "mailNickname", is_user_part)?,
            upn: reader.text("userPrincipalName")?.map(|upn| check_upn(at, upn)).transpose()?,
            enabled: reader.flag("accountEnabled")?,
            password: password(&mut reader)?,
            profile,
        };
        reader.finish()?;
        Ok(sent)
    }
}

fn checked(
    text: Option<String>,
    name: &str,
    is_valid: impl Fn(&str) -> bool,
) -> Result<Option<String>, Fault> {
    match text {
        Some(text) if !is_valid(&text) => Err(invalid_property(name)),
        other => Ok(other),
    }
}

fn password(reader: &mut Reader) -> Result<Option<Zeroizing<String>>, Fault> {
    let Some(mut profile) = reader.object("passwordProfile")? else { return Ok(None) };
    let password = profile.text("password")?.map(Zeroizing::new);
    let must_change = [
        profile.flag("forceChangePasswordNextSignIn")?,
        profile.flag("forceChangePasswordNextSignInWithMfa")?,
    ];
    profile.finish()?;
    if must_change.contains(&Some(true)) {
        return Err(bad_request(
            "A change of password at the next sign-in is not supported: set forceChangePasswordNextSignIn to \
             false and give the person their own password.",
        ));
    }
    match password {
        Some(password) if !is_acceptable_password(&password) => Err(bad_request(
            "The specified password does not comply with password complexity requirements. Please provide a \
             different password: 8 to 256 characters with three of lower case, upper case, digits and symbols.",
        )),
        other => Ok(other),
    }
}

fn check_upn(at: &At<Graph>, upn: String) -> Result<String, Fault> {
    let tenant = at.directory.founded_tenant()?;
    let (user, domain) = upn.rsplit_once('@').ok_or_else(|| invalid_property("userPrincipalName"))?;
    if !is_user_part(user) {
        return Err(invalid_property("userPrincipalName"));
    }
    if !domain.eq_ignore_ascii_case(&tenant.domain) {
        return Err(bad_request(
            "The domain portion of the userPrincipalName property is invalid. You must use one of the verified \
             domain names in your organization.",
        ));
    }
    Ok(upn)
}

fn required<T>(value: Option<T>, name: &str) -> Result<T, Fault> {
    value.ok_or_else(|| bad_request(format!("A value is required for property '{name}' of resource 'User'.")))
}

pub(super) async fn create(at: At<Graph>, permit: Permit<UsersCreate>, body: Body) -> Result<Reply, Fault> {
    let sent = Sent::read(&at, body.fields)?;
    let now = permit.epoch_seconds();
    let id = new_id(&at);
    let mut profile = sent.profile;
    profile.retain(|_, value| !value.is_null());
    let user = User {
        id,
        upn: required(sent.upn, "userPrincipalName")?,
        display_name: required(sent.display_name, "displayName")?,
        mail_nickname: required(sent.mail_nickname, "mailNickname")?,
        enabled: required(sent.enabled, "accountEnabled")?,
        created_seconds: now,
        session_epoch: 0,
        profile,
    };
    let password = required(sent.password, "passwordProfile")?;
    if at.directory.snapshot().user_named(&user.upn).is_some() {
        return Err(taken("userPrincipalName"));
    }
    let hash = at.directory.hashing.hash(password, permit.entropy()).await?;
    let name = fold(&user.upn);
    let mut batch = Batch::new();
    batch.require_absent(USER_NAMES, name.as_str());
    batch.put(USER_NAMES, name.as_str(), &Reference { id })?;
    batch.put(USERS, &id, &user)?;
    batch.put(USER_PASSWORDS, &id, &UserPassword { user: id, hash, changed_seconds: now })?;
    match at.commit(&permit, batch).await? {
        Committed::Written => at.created(&body.head, &user),
        Committed::LostRace => Err(taken("userPrincipalName")),
    }
}

pub(super) async fn update(at: At<Graph>, permit: Permit<UsersUpdate>, body: Body) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    let sent = Sent::read(&at, body.fields)?;
    let hash = match sent.password.clone() {
        Some(password) => Some(at.directory.hashing.hash(password, permit.entropy()).await?),
        None => None,
    };
    let now = permit.epoch_seconds();
    at.edit(&permit, USERS, id, |user, batch| {
        let mut user = user.clone();
        if let Some(upn) = &sent.upn
            && fold(upn) != fold(&user.upn)
        {
            if at.directory.snapshot().user_named(upn).is_some() {
                return Err(taken("userPrincipalName"));
            }
            let name = fold(upn);
            batch.require_absent(USER_NAMES, name.as_str());
            batch.put(USER_NAMES, name.as_str(), &Reference { id })?;
            batch.delete(USER_NAMES, fold(&user.upn).as_str());
        }
        if let Some(hash) = &hash {
            let row = UserPassword { user: id, hash: hash.clone(), changed_seconds: now };
            batch.put(USER_PASSWORDS, &id, &row)?;
        }
        // A new password or a lock ends every session that was begun before it.
        if hash.is_some() || (user.enabled && sent.enabled == Some(false)) {
            user.session_epoch += 1;
        }
        user.upn = sent.upn.clone().unwrap_or(user.upn);
        user.display_name = sent.display_name.clone().unwrap_or(user.display_name);
        user.mail_nickname = sent.mail_nickname.clone().unwrap_or(user.mail_nickname);
        user.enabled = sent.enabled.unwrap_or(user.enabled);
        user.profile.extend(sent.profile.clone());
        user.profile.retain(|_, value| !value.is_null());
        Ok(user)
    })
    .await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// Ends every session that was begun so far: no refresh token of it is taken any more.
pub(super) async fn revoke_sessions(
    at: At<Graph>,
    permit: Permit<UsersRevokeSessions>,
    request: Request,
) -> Result<Reply, Fault> {
    end_sessions(&at, &permit, at.target.id()?, &request).await
}

pub(super) async fn end_sessions(
    at: &At<Graph>,
    permit: &Permit<UsersRevokeSessions>,
    id: Uuid,
    head: &RequestHead,
) -> Result<Reply, Fault> {
    at.edit(permit, USERS, id, |user, _| Ok(User { session_epoch: user.session_epoch + 1, ..user.clone() }))
        .await?;
    Reply::ok(&json!({ "@odata.context": at.context(head, "Edm.Boolean"), "value": true }))
}

pub(super) async fn delete(at: At<Graph>, permit: Permit<UsersDelete>, _: Request) -> Result<Reply, Fault> {
    let id = at.target.id()?;
    at.remove(&permit, USERS, id, |user, batch| {
        batch.delete(USER_NAMES, fold(&user.upn).as_str());
        batch.delete(USER_PASSWORDS, &id);
        at.directory.plan_remove_links(batch, id);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}
