//! What servers of both services have in common.

use arcadia_arm::{NameRule, Plan, RESOURCES};
use arcadia_kernel::{EntropyExt as _, Fault};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::Postgres;
use crate::cluster::mark::{self, Mark};
use crate::cluster::sql;
use crate::fault::{ServerFault, invalid, not_installed};
use crate::kinds::password::{check_login, check_password};
use crate::names::is_server_name;
use crate::records::{NAMES, NameClaim, StoredServer};
use crate::scram;

/// Servers of a site: each is a PostgreSQL with its processes and memory.
const SERVERS_MAX: usize = 64;
const SECRET_BYTES: usize = 32;
const TEXT_CHARS_MAX: usize = 128;

pub(super) const NAME_RULE: NameRule = NameRule {
    chars_min: 3,
    chars_max: 63,
    pattern: "^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$",
    check: is_server_name,
};

/// The properties of a PUT or PATCH, read one by one.
pub(super) struct Asked<'a>(pub &'a Map<String, Value>);

impl<'a> Asked<'a> {
    pub(super) fn of(properties: &'a Value) -> Result<Self, Fault> {
        properties
            .as_object()
            .map(Self)
            .ok_or_else(|| invalid("The property 'properties' must be an object."))
    }

    /// A text of one of these values, in the spelling given here.
    pub(super) fn one_of(&self, name: &str, values: &[&'static str]) -> Result<Option<&'static str>, Fault> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let found = values.iter().find(|value| value.eq_ignore_ascii_case(text));
        let wrong = || invalid(format!("The property '{name}' must be one of {}.", values.join(", ")));
        found.copied().map(Some).ok_or_else(wrong)
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, Fault> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.chars().count() <= TEXT_CHARS_MAX => Ok(Some(text)),
            Some(_) => Err(invalid(format!(
                "The property '{name}' must be a text of at most {TEXT_CHARS_MAX} characters."
            ))),
        }
    }

    /// A text that is not empty.
    fn given(&self, name: &str) -> Result<Option<&'a str>, Fault> {
        Ok(self.text(name)?.filter(|text| !text.is_empty()))
    }

    /// A whole number, also as a text: so az writes the hours of a maintenance window.
    pub(super) fn number(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, Fault> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let digits = value.as_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
                let number = value.as_u64().or_else(|| digits?.parse().ok());
                number.filter(|number| range.contains(number)).map(Some).ok_or_else(|| {
                    invalid(format!(
                        "The property '{name}' must be from {} to {}.",
                        range.start(),
                        range.end()
                    ))
                })
            }
        }
    }

    /// What is inside an object; an empty one when it is absent.
    pub(super) fn inside(&self, name: &str) -> Result<Asked<'a>, Fault> {
        static NOTHING: std::sync::OnceLock<Map<String, Value>> = std::sync::OnceLock::new();
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(Asked(NOTHING.get_or_init(Map::new))),
            Some(Value::Object(inside)) => Ok(Asked(inside)),
            Some(_) => Err(invalid(format!("The property '{name}' must be an object."))),
        }
    }

    /// Refuses whatever is given under these names: a site's servers have nothing of the kind.
    pub(super) fn refuse_any(&self, names: &[&str]) -> Result<(), Fault> {
        let is_given = |name: &&&str| match self.0.get(**name) {
            None | Some(Value::Null) => false,
            Some(value) => value.as_str() != Some(""),
        };
        match names.iter().find(is_given) {
            Some(name) => {
                Err(invalid(format!("The property '{name}' is not served on this site: leave it out.")))
            }
            None => Ok(()),
        }
    }

    /// Refuses what a site's servers do not have, rather than to let a client believe that they do.
    pub(super) fn refuse_other(&self, name: &str, only: &str) -> Result<(), Fault> {
        match self.text(name)? {
            Some(text) if !text.is_empty() && !text.eq_ignore_ascii_case(only) => {
                Err(invalid(format!("The property '{name}' can only be '{only}' on this site.")))
            }
            _ => Ok(()),
        }
    }
}

/// A server's identity would be for keys of the client's own.
pub(super) fn check_identity(identity: Option<&Value>) -> Result<(), Fault> {
    let kind = identity.map_or("None", |identity| identity["type"].as_str().unwrap_or_default());
    let message = "A server of this site has no identity: leave 'identity' out, or set its 'type' to 'None'.";
    if kind.eq_ignore_ascii_case("None") { Ok(()) } else { Err(invalid(message)) }
}

/// Whom a new server belongs to, and the claim on its name. A server that takes no passwords needs none, nor a name for
/// who would have it.
pub(super) async fn found(
    postgres: &Postgres,
    plan: &mut Plan<'_>,
    asked: &Asked<'_>,
    password_auth: bool,
) -> Result<StoredServer, Fault> {
    if postgres.clusters.place.installation.is_none() {
        return Err(not_installed());
    }
    postgres.clusters.place.check_room()?;
    let (login, password) = (asked.given("administratorLogin")?, asked.given("administratorLoginPassword")?);
    if password_auth || password.is_some() || login.is_some() {
        check_login(login.unwrap_or_default())?;
    }
    if password_auth || password.is_some() {
        check_password(password.unwrap_or_default(), login.unwrap_or_default())?;
    }
    if postgres.snapshot().servers().count() >= SERVERS_MAX {
        let message =
            format!("A site has at most {SERVERS_MAX} database servers. Delete one that is not needed.");
        return Err(Fault::conflict("ServerQuotaExceeded", message));
    }
    let name = plan.id.name().to_ascii_lowercase();
    if plan.store.get(NAMES, name.as_str()).await?.is_some() {
        return Err(name_is_taken(&name));
    }
    plan.batch.require_absent(NAMES, name.as_str());
    plan.batch.put(NAMES, name.as_str(), &NameClaim { server: plan.id.clone() })?;
    Ok(StoredServer {
        instance: plan.entropy.uuid(),
        ready: false,
        administrator_login: login.unwrap_or_default().to_owned(),
        login_is_new: false,
        scram: password.map(|password| scram::verifier(password, plan.entropy)),
        has_password: password.is_some(),
        keeper_secret: plan.entropy.token(SECRET_BYTES),
        require_tls: true,
        password_auth,
        entra_auth: false,
        public: true,
        version: String::new(),
        shown: Value::Object(Map::new()),
    })
}

/// What a later PUT or PATCH says of the administrator. A login is given once.
pub(super) async fn change_administrator(
    postgres: &Postgres,
    stored: &mut StoredServer,
    asked: &Asked<'_>,
    plan: &Plan<'_>,
) -> Result<(), Fault> {
    let (known, given) = (stored.login().map(str::to_owned), asked.given("administratorLogin")?);
    if let (None, Some(given)) = (&known, given) {
        check_login(given)?;
        plan.store.observers_told().await?;
        if postgres.snapshot().administrator(plan.id, given).is_some() {
            return Err(invalid("A Microsoft Entra administrator of the server has this name."));
        }
        (stored.administrator_login, stored.login_is_new) = (given.to_owned(), true);
    }
    let login = known.as_deref().or(given);
    if given.is_some_and(|given| login != Some(given)) {
        return Err(invalid("The administrator login of a server cannot be changed."));
    }
    if let Some(password) = asked.text("administratorLoginPassword")? {
        check_password(password, login.ok_or_else(credentials_not_provided)?)?;
        stored.scram = Some(scram::verifier(password, plan.entropy));
        stored.has_password = true;
    }
    Ok(())
}

/// Refuses to take passwords from now on where nobody would have one.
pub(super) fn check_enabling(before: &StoredServer, after: &StoredServer) -> Result<(), Fault> {
    if before.password_auth || !after.password_auth || after.login().is_some() && after.has_password {
        return Ok(());
    }
    Err(credentials_not_provided())
}

fn credentials_not_provided() -> Fault {
    Fault::bad_request(
        "EngineCredentialsNotProvided",
        "The admin credentials are required for creating admin role while enabling Password Authentication and must be \
         provided.",
    )
}

/// Refuses one more resource beside `max` of its kind in the same server.
pub(super) async fn check_room(plan: &Plan<'_>, max: usize) -> Result<(), Fault> {
    let Some(beside) = plan.id.parent() else { return Ok(()) };
    if plan.store.range(RESOURCES, &beside, None, max).await?.items.len() < max {
        return Ok(());
    }
    let message = format!("A server has at most {max} {}. Delete one that is not needed.", beside.name());
    Err(Fault::conflict("QuotaExceeded", message))
}

pub(super) fn name_is_taken(name: &str) -> Fault {
    Fault::conflict("ServerNameAlreadyExists", format!("Specified server name is already used: '{name}'."))
}

/// Makes and starts the server, and gives it its administrator. Every step may find itself done already.
pub(super) async fn bring_up(postgres: &Postgres, stored: &mut StoredServer) -> Result<(), Fault> {
    let clusters = &postgres.clusters;
    check_data(postgres, stored)?;
    clusters.create(stored.instance).await?;
    let cluster = clusters.start(stored.instance, &stored.keeper_secret)?;
    if !stored.ready || stored.scram.is_some() || stored.login_is_new {
        let client = sql::session(&cluster, &stored.keeper_secret).await?;
        if let Some(login) = stored.login() {
            let claimed = claim_login(&client, stored, login).await?;
            sql::administer(&client, login, stored.scram.as_deref(), claimed).await?;
        }
    }
    stored.ready = true;
    (stored.scram, stored.login_is_new) = (None, false);
    Ok(())
}

/// A login that was given later: the role that an earlier try made for it. Who may make roles may have made one of this name
/// meanwhile, and be in it; that one is not taken over.
async fn claim_login<'a>(
    client: &tokio_postgres::Client,
    stored: &'a StoredServer,
    login: &str,
) -> Result<Option<(Mark<'a>, Option<u32>)>, Fault> {
    if !stored.login_is_new {
        return Ok(None);
    }
    // For no principal of the directory.
    let mark = Mark { secret: &stored.keeper_secret, principal: Uuid::max() };
    let own = mark::marked(client, mark).await?;
    if own.as_ref().is_none_or(|own| own.name != login) {
        if mark::role(client, login).await?.is_some() {
            let message = format!(
                "The server has a role '{login}' already. Choose another administrator login, or rename or drop the role \
                 there (ALTER ROLE ... RENAME TO, DROP ROLE)."
            );
            return Err(Fault::conflict("AdministratorRoleExists", message));
        }
        if let Some(own) = &own {
            sql::rename_back(client, own, login).await?;
        }
    }
    Ok(Some((mark, own.map(|own| own.number))))
}

/// Refuses what is asked of a server that was complete once and whose data is not there.
fn check_data(postgres: &Postgres, stored: &StoredServer) -> Result<(), Fault> {
    if !stored.ready || postgres.clusters.exists(stored.instance) {
        return Ok(());
    }
    Err(Fault::conflict(
        "ServerDataMissing",
        "The server's data is not on the site's machine. Mount the volume that it is on, or restore it from a \
         backup of the site, and restart the site; or delete the server and create it again, without its data.",
    ))
}

/// A session with a server that runs; 409 for one whose data is not there.
pub(super) async fn session(
    postgres: &Postgres,
    stored: &StoredServer,
) -> Result<tokio_postgres::Client, Fault> {
    check_data(postgres, stored)?;
    let cluster = postgres.clusters.find(stored.instance).ok_or(ServerFault::NotReady)?;
    Ok(sql::session(&cluster, &stored.keeper_secret).await?)
}

pub(super) fn check_complete(server: &StoredServer) -> Result<(), Fault> {
    if server.ready {
        return Ok(());
    }
    let message = "The server is not ready yet. Retry when the operation that makes it has ended.";
    Err(Fault::conflict("ServerIsNotReady", message))
}
