//! What the site says to a server, over the server's own socket and as the one superuser.

use std::fmt::Write as _;

use arcadia_kernel::Entropy;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio_postgres::{Client, Config, NoTls};

use super::Cluster;
use crate::fault::ServerFault;
use crate::scram;

/// The site's own role, named as Azure names its own. Clients cannot log in as it.
pub(crate) const KEEPER: &str = "azuresu";
/// What every administrator is a member of, and what owns the databases.
const ADMINISTRATORS: &str = "azure_pg_admin";

/// `28P01`: the password is not this one.
const WRONG_PASSWORD: &str = "28P01";
/// `42P04`: there is such a database already.
const DUPLICATE_DATABASE: &str = "42P04";
/// `2BP01`: something depends on it.
const DEPENDED_ON: &str = "2BP01";

pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// For values without backslashes or with standard strings on, as they always are here.
pub(crate) fn literal(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// A session as the site's role.
pub(crate) async fn session(cluster: &Cluster, secret: &str, database: &str) -> Result<Client, ServerFault> {
    cluster.until_ready().await?;
    session_over(cluster.connect().await?, secret, database).await
}

/// A session as the site's role over a server's own socket.
pub(super) async fn session_over(
    stream: UnixStream,
    secret: &str,
    database: &str,
) -> Result<Client, ServerFault> {
    let mut config = Config::new();
    config.user(KEEPER).password(secret).dbname(database).application_name("arcadia");
    // What is there already is no news.
    config.options("-c client_min_messages=warning");
    let (client, connection) = config.connect_raw(stream, NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a session of the site's broke off");
        }
    });
    Ok(client)
}

/// A session with a new server, whose site's role has the template's secret (`secrets.1`) until it is given its own.
async fn first_session(
    cluster: &Cluster,
    secrets: (&str, &str),
    entropy: &dyn Entropy,
) -> Result<Client, ServerFault> {
    let (own, first) = secrets;
    let client = match session(cluster, first, "postgres").await {
        Err(fault) if fault.code() == Some(WRONG_PASSWORD) => return session(cluster, own, "postgres").await,
        client => client?,
    };
    let verifier = scram::verifier(own, entropy);
    client.batch_execute(&format!("ALTER ROLE {KEEPER} PASSWORD {}", literal(&verifier))).await?;
    Ok(client)
}

/// Gives a new server a secret of its own in place of the template's, and takes away what even the site does not
/// need. Then the administrator: a role that may make databases and roles and is no superuser.
pub(crate) async fn prepare(
    cluster: &Cluster,
    secrets: (&str, &str),
    administrator: &str,
    scram: Option<&str>,
    entropy: &dyn Entropy,
) -> Result<(), ServerFault> {
    let client = first_session(cluster, secrets, entropy).await?;
    // Before PostgreSQL 16 whoever may make roles can also grant these, and with them the files and processes of
    // the user that servers run as. A role that is not there cannot be granted.
    client
        .batch_execute(
            "DELETE FROM pg_catalog.pg_authid WHERE rolname IN \
             ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files')",
        )
        .await?;
    let mut script = String::new();
    if !role_exists(&client, ADMINISTRATORS).await? {
        let _ = write!(script, "CREATE ROLE {ADMINISTRATORS} NOLOGIN; ");
    }
    let _ = write!(
        script,
        "GRANT pg_monitor, pg_signal_backend TO {ADMINISTRATORS}; \
         GRANT CREATE, CONNECT, TEMPORARY ON DATABASE postgres TO {ADMINISTRATORS}; \
         GRANT ALL ON SCHEMA public TO {ADMINISTRATORS}; "
    );
    client.batch_execute(&script).await?;
    administer(&client, administrator, scram).await
}

/// Makes a role an administrator, with this verifier where there is a new one.
pub(crate) async fn administer(client: &Client, role: &str, scram: Option<&str>) -> Result<(), ServerFault> {
    let name = identifier(role);
    let mut script = String::new();
    if !role_exists(client, role).await? {
        let _ = write!(script, "CREATE ROLE {name}; ");
    }
    let _ = write!(script, "ALTER ROLE {name} LOGIN CREATEDB CREATEROLE INHERIT");
    if let Some(scram) = scram {
        let _ = write!(script, " PASSWORD {}", literal(scram));
    }
    let _ = write!(script, "; GRANT {ADMINISTRATORS} TO {name} WITH ADMIN OPTION");
    Ok(client.batch_execute(&script).await?)
}

/// Takes an administrator away. A role that owns something stays, and nobody can log in as it.
pub(crate) async fn dismiss(client: &Client, role: &str) -> Result<(), ServerFault> {
    if !role_exists(client, role).await? {
        return Ok(());
    }
    let name = identifier(role);
    let script = format!(
        "ALTER ROLE {name} NOLOGIN NOCREATEDB NOCREATEROLE PASSWORD NULL; REVOKE {ADMINISTRATORS} FROM {name}"
    );
    client.batch_execute(&script).await?;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
    client.query(end, &[&role]).await?;
    match client.batch_execute(&format!("DROP ROLE {name}")).await.map_err(ServerFault::from) {
        Err(fault) if fault.code() == Some(DEPENDED_ON) => Ok(()),
        other => other,
    }
}

async fn role_exists(client: &Client, role: &str) -> Result<bool, ServerFault> {
    Ok(client.query_opt("SELECT FROM pg_roles WHERE rolname = $1", &[&role]).await?.is_some())
}

/// Makes a database. `locale` is the end of the statement: how text is ordered in it.
pub(crate) async fn create_database(client: &Client, name: &str, locale: &str) -> Result<(), ServerFault> {
    if client.query_opt("SELECT FROM pg_database WHERE datname = $1", &[&name]).await?.is_some() {
        return Ok(());
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
    Ok(client.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(name))).await?)
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
    let query = "SELECT name, setting, coalesce(boot_val, ''), short_desc, vartype, \
                 coalesce(array_to_string(enumvals, ','), min_val || '-' || max_val, ''), source, context, unit, \
                 pending_restart FROM pg_settings WHERE name = ANY($1) ORDER BY name";
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
        let source = if text(6) == "default" { "system-default" } else { "user-override" };
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
