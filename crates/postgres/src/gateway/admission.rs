//! Which server a client means, and whether it may try to log in there at all.

#[cfg(test)]
mod fuzz;

use std::sync::Arc;

use arcadia_kernel::ArmId;

use super::message::Refusal;
use super::startup::Startup;
use super::{Gateway, Peer};
use crate::cluster::Cluster;
use crate::names::{PostgresNames, ROLE_BYTES_MAX, is_reserved_role};
use crate::records::StoredAdministrator;
use crate::snapshot::{Server, Snapshot};

/// A client that may try to log in.
pub(super) struct Admitted {
    pub server: Arc<Server>,
    pub cluster: Arc<Cluster>,
    /// The user as the server knows it.
    pub role: String,
    /// The principal that the role is of: a token is asked for in place of a password.
    pub administrator: Option<Arc<StoredAdministrator>>,
}

impl Admitted {
    /// What somebody logs in to: the server, or the administrator's place in it whose role it is.
    pub(super) fn scope(&self) -> ArmId {
        let server = &self.server.id;
        let place = |administrator: &Arc<StoredAdministrator>| {
            server.join(&format!("administrators/{}", administrator.object_id)).ok()
        };
        self.administrator.as_ref().and_then(place).unwrap_or_else(|| server.clone())
    }
}

impl Gateway {
    pub(super) fn admit(&self, startup: &Startup, peer: &Peer) -> Result<Admitted, Refusal> {
        if startup.user().is_empty() {
            return Err(Refusal::new("28000", "no PostgreSQL user name specified in startup packet"));
        }
        let named = named(&self.postgres.names, peer.server_name.as_deref(), startup.user())?;
        let snapshot = self.postgres.snapshot();
        let (server, role) = choose(&snapshot, named.as_deref(), startup.user())?;
        let stored = &server.stored;
        if stored.require_tls && !peer.is_encrypted {
            return Err(Refusal::new(
                "28000",
                "SSL connection is required. Please specify SSL options and retry.",
            ));
        }
        if !stored.public || !snapshot.admits(&server.id, peer.address) {
            return Err(not_admitted(&server, &role, startup, peer));
        }
        if startup.parameter("replication").is_some_and(|value| !["false", "off", "no", "0"].contains(&value))
        {
            return Err(Refusal::new("28000", "replication connections are not served"));
        }
        if is_reserved_role(&role) {
            return Err(Refusal::new("28000", format!("role \"{role}\" is not permitted to log in")));
        }
        let administrator = snapshot.administrator(&server.id, &role);
        // Its role may have a password that it gave itself: nobody would ask whether the principal still exists.
        if administrator.is_some() && !stored.entra_auth {
            let message = format!(
                "\"{role}\" is the role of a Microsoft Entra principal, and Microsoft Entra authentication is disabled on \
                 this server; enable it, or log in as another role"
            );
            return Err(Refusal::new("28000", message));
        }
        if administrator.is_none() && !stored.password_auth {
            let message = format!(
                "password authentication is disabled; log in as a Microsoft Entra principal, not as \"{role}\""
            );
            return Err(Refusal::new("28000", message));
        }
        let cluster = self.postgres.clusters.find(stored.instance).filter(|_| stored.ready);
        let cluster = cluster.ok_or_else(|| Refusal::new("57P03", "the database system is starting up"))?;
        Ok(Admitted { server, cluster, role, administrator })
    }
}

fn unknown(name: &str) -> Refusal {
    let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    Refusal::new("28000", format!("server \"{shown}\" does not exist"))
}

/// The server that the name in the client's hello is of. A name that none of the site's servers could have, such as that of
/// a tunnel's end, counts for nothing where the user names the server.
fn named(names: &PostgresNames, host: Option<&str>, user: &str) -> Result<Option<String>, Refusal> {
    let Some(host) = host else { return Ok(None) };
    match names.server_of(host) {
        None if user.contains('@') && !names.covers(host) => Ok(None),
        None => Err(unknown(host)),
        named => Ok(named),
    }
}

/// The server by the name in the client's hello, or by what follows the last `@` of the user. Where both are there
/// they must agree. The role is one that the server does not cut to another.
fn choose(snapshot: &Snapshot, named: Option<&str>, user: &str) -> Result<(Arc<Server>, String), Refusal> {
    let split = user.rsplit_once('@').map(|(role, server)| (role, server.to_ascii_lowercase()));
    let (server, role) = match (named, split) {
        (Some(named), split) => {
            let server = snapshot.server(named).ok_or_else(|| unknown(named))?;
            match split {
                // A principal's own name has an `@`.
                _ if snapshot.administrator(&server.id, user).is_some() => (server, user),
                Some((role, suffix)) if suffix == named => (server, role),
                Some((_, suffix)) if snapshot.server(&suffix).is_some() => {
                    return Err(Refusal::new(
                        "28000",
                        format!(
                            "the user names server \"{suffix}\", and the connection is to server \"{named}\""
                        ),
                    ));
                }
                _ => (server, user),
            }
        }
        (None, Some((role, suffix))) => (snapshot.server(&suffix).ok_or_else(|| unknown(&suffix))?, role),
        (None, None) => {
            return Err(Refusal::new(
                "28000",
                "Invalid Username specified. Please check the Username and retry connection. The Username should be in \
                 <username@hostname> format, or the client should send the server's name with TLS (SNI).",
            ));
        }
    };
    if role.len() > ROLE_BYTES_MAX {
        let shown: String = role.chars().filter(|c| !c.is_control()).take(64).collect();
        return Err(Refusal::new("28000", format!("role \"{shown}\" does not exist")));
    }
    Ok((server, role.to_owned()))
}

fn not_admitted(server: &Server, role: &str, startup: &Startup, peer: &Peer) -> Refusal {
    let database = startup.parameter("database").filter(|name| !name.is_empty()).unwrap_or(role);
    let tls = match (server.single, peer.is_encrypted) {
        (true, true) => "SSL on",
        (true, false) => "SSL off",
        (false, true) => "SSL encryption",
        (false, false) => "no encryption",
    };
    let message = format!(
        "no pg_hba.conf entry for host \"{}\", user \"{role}\", database \"{database}\", {tls}",
        peer.address
    );
    Refusal::new("28000", message)
}
