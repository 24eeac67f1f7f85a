//! What the site writes on the roles that it makes, and how it finds them again.

use arcadia_crypto::{constant_time_eq, hex, hmac_sha256};
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use crate::fault::ServerFault;

/// Says on a role for whom the site made it. Clients write on roles what they like: so it ends with a tag that only the
/// server's secret makes, and that is over the role's number. Copied to another role, it says nothing.
#[derive(Clone, Copy)]
pub(crate) struct Mark<'a> {
    pub secret: &'a str,
    pub principal: Uuid,
}

const MADE_FOR: &str = "Made for the directory principal ";

impl Mark<'_> {
    pub(super) fn on(&self, number: u32) -> String {
        let said = format!("{MADE_FOR}{}, as role {number}", self.principal);
        let tag = hmac_sha256(self.secret.as_bytes(), said.as_bytes());
        format!("{said}: {}", hex(&tag))
    }
}

/// A role that is there, and what is written on it.
pub(crate) struct Role {
    pub number: u32,
    pub name: String,
    comment: String,
}

impl From<Row> for Role {
    fn from(row: Row) -> Self {
        Self { number: row.get(0), name: row.get(1), comment: row.get(2) }
    }
}

impl Role {
    /// The principal that the site made it for; `None` when its mark is not the site's, or of a version whose marks
    /// anybody could write.
    pub(crate) fn made_for(&self, secret: &str) -> Option<Uuid> {
        let (principal, _) = self.comment.strip_prefix(MADE_FOR)?.split_once(',')?;
        let principal = Uuid::try_parse(principal).ok()?;
        let mark = Mark { secret, principal }.on(self.number);
        constant_time_eq(mark.as_bytes(), self.comment.as_bytes()).then_some(principal)
    }
}

pub(crate) async fn role(client: &Client, role: &str) -> Result<Option<Role>, ServerFault> {
    let query = "SELECT oid, rolname::text, coalesce(pg_catalog.shobj_description(oid, 'pg_authid'), '') \
                 FROM pg_catalog.pg_roles WHERE rolname = $1";
    Ok(client.query_opt(query, &[&role]).await?.map(Role::from))
}

/// The role that bears this mark, whatever its name is by now; of several the newest.
pub(crate) async fn marked(client: &Client, mark: Mark<'_>) -> Result<Option<Role>, ServerFault> {
    let query = "SELECT oid, rolname::text, description \
                 FROM pg_catalog.pg_authid JOIN pg_catalog.pg_shdescription ON objoid = oid \
                 WHERE classoid = 'pg_authid'::regclass AND starts_with(description, $1) ORDER BY oid DESC";
    let rows = client.query(query, &[&format!("{MADE_FOR}{},", mark.principal)]).await?;
    let mut roles = rows.into_iter().map(Role::from);
    Ok(roles.find(|role| role.made_for(mark.secret) == Some(mark.principal)))
}

/// The role of an administrator. Where it was made, it is the one that bears the mark, whatever it is called by now and
/// whoever made another of its name; without one, the administrator's row says whose the role of this name is.
pub(crate) async fn own(
    client: &Client,
    name: &str,
    mark: Mark<'_>,
    made: bool,
) -> Result<Option<Role>, ServerFault> {
    if made && let Some(marked) = marked(client, mark).await? {
        return Ok(Some(marked));
    }
    let named = role(client, name).await?;
    Ok(named.filter(|named| made || named.made_for(mark.secret) == Some(mark.principal)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_of_one_role_and_one_principal_and_one_server() {
        let (nina, other) = (Uuid::from_u128(2), Uuid::from_u128(1));
        let comment = Mark { secret: "secret", principal: nina }.on(16_390);
        let made_for = |number, comment: &str, secret| {
            Role { number, name: String::new(), comment: comment.to_owned() }.made_for(secret)
        };
        assert_eq!(made_for(16_390, &comment, "secret"), Some(nina));
        assert_eq!(made_for(16_391, &comment, "secret"), None);
        assert_eq!(made_for(16_391, &comment.replace("16390", "16391"), "secret"), None);
        assert_eq!(made_for(16_390, &comment.replace(&nina.to_string(), &other.to_string()), "secret"), None);
        assert_eq!(made_for(16_390, &comment, "other"), None);
        for comment in ["", &format!("{MADE_FOR}{nina}."), &format!("{MADE_FOR}{nina}, as role 16390: ")] {
            assert_eq!(made_for(16_390, comment, "secret"), None);
        }
    }
}
