//! What the site says to a server, over the server's own socket and as the one superuser.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio_postgres::{Client, Config, NoTls};

use super::mark::{Mark, Role};
use super::{Cluster, group};
use crate::fault::ServerFault;

/// The site's own role, named as Azure names its own. Clients cannot log in as it.
pub(crate) const KEEPER: &str = "azuresu";
/// What every administrator is a member of, and what owns the databases.
pub(super) const ADMINISTRATORS: &str = "azure_pg_admin";

/// `42P04`: there is such a database already.
const DUPLICATE_DATABASE: &str = "42P04";
/// `2BP01`: something depends on it.
const DEPENDED_ON: &str = "2BP01";
/// `55P03`: another transaction has it locked. `XX000`: that transaction changed it and has just ended.
const HELD: [&str; 2] = ["55P03", "XX000"];

/// From PostgreSQL's greeting to a session.
const CONNECT_SECONDS_MAX: u64 = 30;
/// How long a statement waits for what another transaction has locked, and how long it may take in all. Any role can
/// keep a transaction open for ever, and the operations of a server come one after the other.
const LOCK_SECONDS_MAX: u64 = 5;
const STATEMENT_SECONDS_MAX: u64 = 5 * 60;
/// How often a statement is tried that others keep from what it needs.
const TRIES_MAX: usize = 3;

/// What every session of the site's begins with; the options of a connection come before whatever a server's roles and
/// databases are set to. Names mean what PostgreSQL itself has under them: a server's own roles may make functions and
/// operators in other schemas, and these would run as the superuser. What is there already is no news. And nobody reads
/// the site's statements, in which verifiers of passwords are.
const OPTIONS: &str =
    "-c search_path=pg_catalog,pg_temp -c client_min_messages=warning -c track_activities=off";

pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// For values without backslashes or with standard strings on, as they always are here.
pub(crate) fn literal(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// A session as the site's role with a server that is ready. Nothing in it waits for ever, and there are administrators.
pub(crate) async fn session(cluster: &Cluster, secret: &str) -> Result<Client, ServerFault> {
    cluster.until_ready().await?;
    let client = session_over(cluster.connect().await?, secret).await?;
    bound(&client).await?;
    group::ensure(&client, secret).await?;
    Ok(client)
}

pub(super) async fn bound(client: &Client) -> Result<(), ServerFault> {
    // No options of the connection: these would be shown in place of the server's own settings.
    let bounds = format!(
        "SET lock_timeout = '{LOCK_SECONDS_MAX}s'; SET statement_timeout = '{STATEMENT_SECONDS_MAX}s'"
    );
    Ok(client.batch_execute(&bounds).await?)
}

/// A session as the site's role over a server's own socket.
pub(super) async fn session_over(stream: UnixStream, secret: &str) -> Result<Client, ServerFault> {
    let mut config = Config::new();
    config.user(KEEPER).password(secret).dbname("postgres").application_name("arcadia");
    config.options(OPTIONS);
    let connecting = config.connect_raw(stream, NoTls);
    let connected = tokio::time::timeout(Duration::from_secs(CONNECT_SECONDS_MAX), connecting).await;
    let (client, connection) = connected.map_err(|_| ServerFault::NotReady)??;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a session of the site's broke off");
        }
    });
    Ok(client)
}

/// What an administrator's role may, and no end that somebody set to it.
const MAY_LOG_IN: &str = "LOGIN CREATEDB CREATEROLE INHERIT CONNECTION LIMIT -1 VALID UNTIL 'infinity'";

/// Makes a role an administrator, with this verifier where there is a new one. With a mark comes the number of the role
/// that was found, if any: all of the role or, after a crash, nothing. Fails when the role comes or goes meanwhile: whose it
/// is has to be looked up again then. The password is changed before the group is asked for, whatever becomes of that.
pub(crate) async fn administer(
    client: &Client,
    role: &str,
    scram: Option<&str>,
    mark: Option<(Mark<'_>, Option<u32>)>,
) -> Result<(), ServerFault> {
    let name = identifier(role);
    let number = match mark {
        Some((_, found)) => found,
        None => role_number(client, role).await?,
    };
    let mut script = String::new();
    if number.is_none() {
        let _ = write!(script, "CREATE ROLE {name}; ");
    }
    let _ = write!(script, "ALTER ROLE {name} {MAY_LOG_IN}");
    if let Some(scram) = scram {
        let _ = write!(script, " PASSWORD {}", literal(scram));
    }
    let object = number.unwrap_or_default();
    match mark {
        None => insist(client, &script, HOLDERS_OF_ROLE, object).await?,
        Some((mark, found)) => {
            let once = || async {
                let done = marked(client, &script, role, mark, found).await;
                if done.is_err() {
                    // Where even this fails the session has ended, and the transaction with it.
                    let _ = client.batch_execute("ROLLBACK").await;
                }
                done
            };
            insist_on(client, once, HOLDERS_OF_ROLE, object).await?;
        }
    }
    admit(client, role).await
}

/// Puts a role into the group of administrators. Where the group is in the role, be it through others, it is taken out
/// first: neither can be in the other then, and it would make everyone in it that administrator.
async fn admit(client: &Client, role: &str) -> Result<(), ServerFault> {
    let Some(number) = role_number(client, role).await? else { return Err(ServerFault::Broken) };
    let once = || async {
        let taken_out = statements(client, number, [CIRCLE, CIRCLE_BY_GRANTORS]).await?;
        let grant = format!("GRANT {ADMINISTRATORS} TO {} WITH ADMIN OPTION", identifier(role));
        let script = taken_out.into_iter().chain([grant]).collect::<Vec<_>>().join("; ");
        Ok(client.batch_execute(&script).await?)
    };
    insist_on(client, once, HOLDERS_OF_ROLE, number).await
}

const CIRCLE: &str = "\
SELECT 1 AS step, format('REVOKE %s FROM %s', roleid::regrole, member::regrole) AS statement
FROM pg_catalog.pg_auth_members
WHERE roleid = $1 AND pg_has_role(to_regrole('azure_pg_admin')::oid, member, 'MEMBER')";

const CIRCLE_BY_GRANTORS: &str = "\
SELECT 1 AS step, format('REVOKE %s FROM %s GRANTED BY %s CASCADE', roleid::regrole, member::regrole, grantor::regrole)
    AS statement
FROM pg_catalog.pg_auth_members
WHERE roleid = $1 AND pg_has_role(to_regrole('azure_pg_admin')::oid, member, 'MEMBER')";

/// One transaction: what the script does to a role, and its mark, for which the role must have its number.
async fn marked(
    client: &Client,
    script: &str,
    role: &str,
    mark: Mark<'_>,
    found: Option<u32>,
) -> Result<(), ServerFault> {
    client.batch_execute(&format!("BEGIN; {script}")).await?;
    // From here on nobody else changes the role. No row: another one has its name by now.
    let query = "SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1 AND oid = coalesce($2, oid)";
    let number = client.query_one(query, &[&role, &found]).await?.get(0);
    let rest = format!("{}; COMMIT", marking(&identifier(role), mark, number));
    Ok(client.batch_execute(&rest).await?)
}

pub(super) fn marking(name: &str, mark: Mark<'_>, number: u32) -> String {
    format!("COMMENT ON ROLE {name} IS {}", literal(&mark.on(number)))
}

/// Takes an administrator away, whatever its sessions hold. A role that owns something stays, and nobody can log in as
/// it; its mark says for whom it is made an administrator again.
pub(crate) async fn dismiss(client: &Client, role: &Role, mark: Mark<'_>) -> Result<(), ServerFault> {
    let (number, name) = (role.number, identifier(&role.name));
    end_sessions(client, number).await?;
    // By itself: nobody logs in any more, whatever becomes of the rest.
    let close = format!("ALTER ROLE {name} NOLOGIN NOCREATEDB NOCREATEROLE PASSWORD NULL");
    insist(client, &close, HOLDERS_OF_ROLE, number).await?;
    end_sessions(client, number).await?;
    if let Some(revocation) = statements(client, number, [REVOCATION, REVOCATION_BY_GRANTORS]).await? {
        insist(client, &revocation, HOLDERS_OF_ROLE, number).await?;
    }
    match insist(client, &format!("DROP ROLE {name}"), HOLDERS_OF_ROLE, number).await {
        Err(fault) if fault.code() == Some(DEPENDED_ON) => self::mark(client, role, mark).await,
        other => other,
    }
}

/// Changes nothing else of a role.
pub(crate) async fn set_password(client: &Client, role: &Role, scram: &str) -> Result<(), ServerFault> {
    let set = format!("ALTER ROLE {} PASSWORD {}", identifier(&role.name), literal(scram));
    insist(client, &set, HOLDERS_OF_ROLE, role.number).await
}

async fn mark(client: &Client, role: &Role, mark: Mark<'_>) -> Result<(), ServerFault> {
    insist(client, &marking(&identifier(&role.name), mark, role.number), HOLDERS_OF_ROLE, role.number).await
}

/// Gives a role the name that it had.
pub(crate) async fn rename_back(client: &Client, role: &Role, name: &str) -> Result<(), ServerFault> {
    let rename = format!("ALTER ROLE {} RENAME TO {}", identifier(&role.name), identifier(name));
    insist(client, &rename, HOLDERS_OF_ROLE, role.number).await
}

/// From PostgreSQL 16 on a role is renamed or dropped by whoever has been given it with the admin option, and nobody has
/// what an older version of the site left of an administrator, without a mark that holds. The administrators are given
/// it. They become its members by nothing but this, and it becomes nobody: what it owns may be anyone's work.
pub(crate) async fn give_to_administrators(client: &Client, role: &str) -> Result<(), ServerFault> {
    let Some(found) = client.query_opt(LEFT_TO_NOBODY, &[&role]).await? else { return Ok(()) };
    let name = identifier(role);
    let grant = format!("GRANT {name} TO {ADMINISTRATORS} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE");
    insist(client, &grant, HOLDERS_OF_ROLE, found.get(0)).await
}

const LEFT_TO_NOBODY: &str = "\
SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1
    AND NOT (rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)
    AND oid NOT IN (SELECT roleid FROM pg_catalog.pg_auth_members)
    AND NOT pg_catalog.pg_has_role(oid, 'azure_pg_admin', 'MEMBER')
    AND pg_catalog.current_setting('server_version_num')::int4 >= 160000";

async fn end_sessions(client: &Client, role: u32) -> Result<(), ServerFault> {
    let end =
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usesysid = $1";
    client.query(end, &[&role]).await?;
    Ok(())
}

/// What takes memberships away. From PostgreSQL 16 on each is taken as each of those who granted it.
async fn statements(client: &Client, role: u32, queries: [&str; 2]) -> Result<Option<String>, ServerFault> {
    let version = "SELECT pg_catalog.current_setting('server_version_num')::int4";
    let version: i32 = client.query_one(version, &[]).await?.get(0);
    let query = queries[usize::from(version >= GRANTORS_VERSION_MIN)];
    let script = format!("SELECT string_agg(statement, '; ' ORDER BY step) FROM ({query}) AS statements");
    Ok(client.query_one(&script, &[&role]).await?.get(0))
}

/// From this version on, a membership is as many as there are roles that granted it.
const GRANTORS_VERSION_MIN: i32 = 160_000;

/// What takes the membership of all administrators from a role.
const REVOCATION: &str = "\
SELECT 1 AS step, format('REVOKE azure_pg_admin FROM %s', member::regrole) AS statement
FROM pg_catalog.pg_auth_members WHERE roleid = to_regrole('azure_pg_admin') AND member = $1";

/// What the role has granted itself would go with it: so the site grants that first.
const REVOCATION_BY_GRANTORS: &str = "\
SELECT 1 AS step, format('GRANT azure_pg_admin TO %s WITH ADMIN %s, INHERIT %s, SET %s', member::regrole,
    bool_or(admin_option)::text, bool_or(inherit_option)::text, bool_or(set_option)::text) AS statement
FROM pg_catalog.pg_auth_members
WHERE roleid = to_regrole('azure_pg_admin') AND grantor IN ($1, current_user::regrole)
GROUP BY member HAVING bool_or(grantor = $1)
UNION ALL
SELECT 2, format('REVOKE azure_pg_admin FROM %s GRANTED BY %s CASCADE', member::regrole, grantor::regrole)
FROM pg_catalog.pg_auth_members WHERE roleid = to_regrole('azure_pg_admin') AND member = $1";

/// Who has changed roles, or something of this one, in a transaction that has not ended. And who waits to: one after
/// the other, each of these would have it next.
pub(super) const HOLDERS_OF_ROLE: &str = "\
SELECT pid FROM pg_catalog.pg_locks WHERE
    granted AND relation IN ('pg_authid'::regclass, 'pg_auth_members'::regclass) AND mode = 'RowExclusiveLock'
    OR classid = 'pg_authid'::regclass AND (objid = $1 OR mode = 'ShareUpdateExclusiveLock')";

/// Who has changed databases, or something of this one, in a transaction that has not ended, be it one in another
/// database; and who waits to.
const HOLDERS_OF_DATABASE: &str = "\
SELECT pid FROM pg_catalog.pg_locks WHERE
    granted AND relation = 'pg_database'::regclass AND mode = 'RowExclusiveLock'
    OR classid = 'pg_database'::regclass AND objid = $1";

/// Carries a statement out on a role or a database. Whoever still holds it when that has waited is ended.
pub(super) async fn insist(
    client: &Client,
    statement: &str,
    holders: &str,
    object: u32,
) -> Result<(), ServerFault> {
    let once = || async { Ok(client.batch_execute(statement).await?) };
    insist_on(client, once, holders, object).await
}

/// The same for what is more than a statement, and changes nothing when it fails.
async fn insist_on<Done: Future<Output = Result<(), ServerFault>>>(
    client: &Client,
    once: impl Fn() -> Done,
    holders: &str,
    object: u32,
) -> Result<(), ServerFault> {
    for _ in 1..TRIES_MAX {
        match once().await {
            Err(fault) if fault.code().is_some_and(|code| HELD.contains(&code)) => {}
            done => return done,
        }
        let end = format!(
            "SELECT pg_catalog.pg_terminate_backend(pid) FROM ({holders}) AS holders \
             WHERE pid <> pg_catalog.pg_backend_pid()"
        );
        client.query(&end, &[&object]).await?;
    }
    once().await
}

async fn role_number(client: &Client, role: &str) -> Result<Option<u32>, ServerFault> {
    let query = "SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1";
    Ok(client.query_opt(query, &[&role]).await?.map(|found| found.get(0)))
}

/// Makes a database. `locale` is the end of the statement: how text is ordered in it.
pub(crate) async fn create_database(client: &Client, name: &str, locale: &str) -> Result<(), ServerFault> {
    match database(client, name).await? {
        Some(found) if found.is_dropped => drop_database(client, name).await?,
        Some(_) => return Ok(()),
        None => {}
    }
    let statement = format!(
        "CREATE DATABASE {} OWNER {ADMINISTRATORS} TEMPLATE template0 ENCODING 'UTF8' {locale}",
        identifier(name)
    );
    match client.batch_execute(&statement).await.map_err(ServerFault::from) {
        Err(fault) if fault.code() == Some(DUPLICATE_DATABASE) => Ok(()),
        other => other,
    }
}

/// Drops a database under whoever uses it.
pub(crate) async fn drop_database(client: &Client, name: &str) -> Result<(), ServerFault> {
    let Some(Database { number, is_dropped }) = database(client, name).await? else { return Ok(()) };
    let name = identifier(name);
    if !is_dropped {
        // A template is not dropped, and whoever owns a database can make it one.
        let plain = format!("ALTER DATABASE {name} IS_TEMPLATE false");
        insist(client, &plain, HOLDERS_OF_DATABASE, number).await?;
    }
    let statement = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    insist(client, &statement, HOLDERS_OF_DATABASE, number).await
}

/// Databases that one list shows beside those that the resource manager made.
const SHOWN_MAX: i64 = 1000;

/// Names of databases with their charsets and collations.
pub(crate) async fn databases(client: &Client) -> Result<Vec<[String; 3]>, ServerFault> {
    let query = "SELECT datname::text, pg_catalog.pg_encoding_to_char(encoding)::text, datcollate::text \
                 FROM pg_catalog.pg_database ORDER BY datname LIMIT $1";
    let rows = client.query(query, &[&SHOWN_MAX]).await?;
    Ok(rows.iter().map(|row| [0, 1, 2].map(|at| row.get(at))).collect())
}

struct Database {
    number: u32,
    /// Its files may be gone: a `DROP DATABASE` did not come to its end. Nothing else can be done with it any more.
    is_dropped: bool,
}

async fn database(client: &Client, name: &str) -> Result<Option<Database>, ServerFault> {
    let query = "SELECT oid, datconnlimit = -2 FROM pg_catalog.pg_database WHERE datname = $1";
    let found = client.query_opt(query, &[&name]).await?;
    Ok(found.map(|found| Database { number: found.get(0), is_dropped: found.get(1) }))
}

/// Settings that clients ask about, as the server itself has them.
const SETTINGS: &[&str] = &[
    "autovacuum",
    "data_checksums",
    "deadlock_timeout",
    "effective_cache_size",
    "fsync",
    "lock_timeout",
    "log_min_messages",
    "maintenance_work_mem",
    "max_connections",
    "password_encryption",
    "server_version",
    "shared_buffers",
    "statement_timeout",
    "TimeZone",
    "work_mem",
];

/// Name and properties of each setting, in the words of the resource manager.
pub(crate) async fn settings(client: &Client) -> Result<Vec<(String, Value)>, ServerFault> {
    // What this session has set for itself is no setting of the server's. And not the view, which any role may lock.
    let query = "SELECT name, reset_val, coalesce(boot_val, ''), short_desc, vartype, \
                 coalesce(pg_catalog.array_to_string(enumvals, ','), min_val || '-' || max_val, ''), \
                 source = 'default' OR source = 'session' AND reset_val = boot_val, context, unit, \
                 pending_restart FROM pg_catalog.pg_show_all_settings() WHERE name = ANY($1) ORDER BY name";
    let rows = client.query(query, &[&SETTINGS]).await?;
    let settings = rows.iter().map(|row| {
        let text = |at: usize| row.get::<_, Option<String>>(at).unwrap_or_default();
        let (kind, allowed) = match text(4).as_str() {
            "bool" => ("Boolean", "on,off".to_owned()),
            "enum" => ("Enumeration", text(5)),
            "integer" => ("Integer", text(5)),
            "real" => ("Numeric", text(5)),
            _ => ("String", String::new()),
        };
        let source = if row.get::<_, bool>(6) { "system-default" } else { "user-override" };
        let context = text(7);
        let properties = json!({
            "value": text(1),
            "defaultValue": text(2),
            "description": text(3),
            "dataType": kind,
            "allowedValues": allowed,
            "source": source,
            "unit": row.get::<_, Option<String>>(8),
            "isDynamicConfig": context != "postmaster" && context != "internal",
            // Settings are the site's own; there is no operation that changes them.
            "isReadOnly": true,
            "isConfigPendingRestart": row.get::<_, bool>(9),
        });
        (text(0), properties)
    });
    Ok(settings.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_cannot_leave_their_quotes() {
        assert_eq!(identifier(r#"a"; DROP ROLE x; --"#), r#""a""; DROP ROLE x; --""#);
        assert_eq!(literal("it's"), "'it''s'");
    }
}
