//! What a server is made sure of at each start, before anybody is let in.

use std::fs::File;
use std::sync::Arc;

use arcadia_kernel::Entropy;
use tokio::net::UnixStream;
use tokio_postgres::Client;

use super::process::socket_in;
use super::{Place, sql, template};
use crate::fault::ServerFault;
use crate::scram;

/// `28P01`: the password is not this one.
const WRONG_PASSWORD: &str = "28P01";

/// Roles that lead out of a server, by the numbers under which PostgreSQL asks for them: reading files, writing files and
/// running programs as the user that servers run as, reading and writing all data. The last is as much: system views are
/// data, and through one of them it gives any role any number. Before PostgreSQL 16 whoever may make roles may grant each
/// of these. A role that is not there cannot be granted, and its number is given to nobody.
const TAKEN_OUT: &str = "\
DELETE FROM pg_catalog.pg_auth_members
    WHERE roleid IN (4569, 4570, 4571, 6181, 6182) OR member IN (4569, 4570, 4571, 6181, 6182);
DELETE FROM pg_catalog.pg_authid WHERE oid IN (4569, 4570, 4571, 6181, 6182)";

/// Roles that nobody made in a proper way: with a number of those that were taken out before the server was ready, whatever
/// they are called; with one of the others and another name; and a second one that may do everything.
const IMPOSTORS: &str = "\
SELECT rolname::text FROM pg_catalog.pg_authid
    WHERE oid IN (4569, 4570, 4571)
       OR oid IN (6181, 6182) AND rolname NOT IN ('pg_read_all_data', 'pg_write_all_data')
       OR (rolsuper OR rolreplication OR rolbypassrls) AND oid <> 10";

/// Who has been given one of the two that versions before left.
const LOSING: &str = "\
SELECT DISTINCT role.rolname::text
    FROM pg_catalog.pg_auth_members AS given JOIN pg_catalog.pg_authid AS role ON role.oid = given.member
    WHERE given.roleid IN (6181, 6182) AND role.oid >= 16384";

pub(super) struct Guard {
    pub place: Place,
    pub entropy: Arc<dyn Entropy>,
    /// The password of the site's role in this server.
    pub secret: String,
}

impl Guard {
    /// Gives a new server a secret of its own in place of the template's, and takes away from each what even the site does
    /// not need. Refuses a server in which that comes too late.
    pub(super) async fn secure(&self, directory: &File) -> Result<(), ServerFault> {
        let client = self.session(directory).await?;
        sql::bound(&client).await?;
        if let Some(impostor) = client.query(IMPOSTORS, &[]).await?.first() {
            return Err(ServerFault::BrokenOpen { role: impostor.get(0) });
        }
        for row in client.query(LOSING, &[]).await? {
            let role: String = row.get(0);
            tracing::warn!(
                role,
                "a role loses pg_read_all_data or pg_write_all_data, which lead out of the server"
            );
        }
        Ok(client.batch_execute(TAKEN_OUT).await?)
    }

    async fn session(&self, directory: &File) -> Result<Client, ServerFault> {
        let session = async |secret: &str| {
            let stream = UnixStream::connect(socket_in(directory)).await?;
            sql::session_over(stream, secret).await
        };
        match session(&self.secret).await {
            Err(fault) if fault.code() == Some(WRONG_PASSWORD) => {}
            opened => return opened,
        }
        let client = session(&template::secret(&self.place)?).await?;
        let verifier = sql::literal(&scram::verifier(&self.secret, &*self.entropy));
        // All of it or nothing: what has its own secret has no such role any more.
        client.batch_execute(&format!("{TAKEN_OUT}; ALTER ROLE {} PASSWORD {verifier}", sql::KEEPER)).await?;
        Ok(client)
    }
}
