//! The group of all administrators of a server. They are in it with the admin option, and so they can rename it, drop it,
//! and put another role in its place; the site needs it under its own name.

use tokio_postgres::Client;
use uuid::Uuid;

use super::mark::{Mark, marked, role};
use super::sql::{ADMINISTRATORS, HOLDERS_OF_ROLE, insist, marking, rename_back};
use crate::fault::ServerFault;

/// Makes the group where there is none, and gives it its name back where it has another one.
pub(super) async fn ensure(client: &Client, secret: &str) -> Result<(), ServerFault> {
    // For no principal.
    let mark = Mark { secret, principal: Uuid::nil() };
    let group = marked(client, mark).await?;
    if group.as_ref().is_some_and(|group| group.name == ADMINISTRATORS) {
        return Ok(());
    }
    let named = role(client, ADMINISTRATORS).await?;
    match (group, named) {
        (Some(group), None) => rename_back(client, &group, ADMINISTRATORS).await,
        // Somebody put it there. It serves as well, until it goes.
        (Some(_), Some(_)) => Ok(()),
        (None, named) => {
            if named.is_none() {
                insist(client, GROUP, HOLDERS_OF_ROLE, 0).await?;
            }
            let Some(made) = role(client, ADMINISTRATORS).await? else { return Ok(()) };
            let marking = marking(ADMINISTRATORS, mark, made.number);
            insist(client, &marking, HOLDERS_OF_ROLE, made.number).await
        }
    }
}

const GROUP: &str = "\
CREATE ROLE azure_pg_admin NOLOGIN; \
GRANT pg_monitor, pg_signal_backend TO azure_pg_admin; \
GRANT CREATE, CONNECT, TEMPORARY ON DATABASE postgres TO azure_pg_admin; \
GRANT ALL ON SCHEMA public TO azure_pg_admin";
