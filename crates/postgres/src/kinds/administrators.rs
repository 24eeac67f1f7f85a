//! Directory principals that administer a flexible server: each a role that a token opens.

use std::sync::Arc;

use arcadia_arm::{Desired, NameRule, Plan, Resource, ResourceKind};
use arcadia_kernel::{EntropyExt as _, Fault};
use async_trait::async_trait;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::databases::server_of;
use super::server::{self, Asked};
use super::{ADMINISTRATORS, Flexible, Generation};
use crate::Postgres;
use crate::cluster::mark::{self, Mark};
use crate::cluster::sql;
use crate::fault::invalid;
use crate::names::{ROLE_BYTES_MAX, is_reserved_role};
use crate::records::{StoredAdministrator, stored, to_stored};
use crate::scram;

/// Principals of one server.
const ADMINISTRATORS_MAX: usize = 128;
const SECRET_BYTES: usize = 32;
const TYPES: [&str; 3] = ["User", "Group", "ServicePrincipal"];

pub(crate) struct Administrators(pub Arc<Postgres>);

fn check_role(name: &str, login: Option<&str>) -> Result<(), Fault> {
    let fits = (1..=ROLE_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if !fits || is_reserved_role(name) || login == Some(name) {
        return Err(invalid(format!(
            "The principal's name becomes a role's: it must have 1 to {ROLE_BYTES_MAX} bytes, and be neither the \
             administrator login nor a name that the server keeps for itself."
        )));
    }
    Ok(())
}

#[async_trait]
impl ResourceKind for Administrators {
    const TYPE: &'static str = ADMINISTRATORS;
    const API_VERSIONS: &'static [&'static str] = Flexible::API_VERSIONS;
    const NAME_RULE: NameRule = NameRule {
        chars_min: 36,
        chars_max: 36,
        pattern: "the principal's object id",
        check: |name| Uuid::try_parse(name).is_ok(),
    };
    const LOCATED: bool = false;
    const ASYNCHRONOUS: bool = true;

    async fn put(
        &self,
        plan: &mut Plan<'_>,
        current: Option<&Resource>,
        desired: Desired,
    ) -> Result<Resource, Fault> {
        let asked = Asked::of(&desired.properties)?;
        let server = server_of(&self.0, plan.id).await?;
        server::check_complete(&server)?;
        if !server.entra_auth {
            return Err(invalid(
                "The server does not take directory tokens. Set activeDirectoryAuth of its authConfig to Enabled \
                 ('az postgres flexible-server update --microsoft-entra-auth Enabled').",
            ));
        }
        let object_id = Uuid::try_parse(plan.id.name()).map_err(Fault::internal)?;
        let principal = self.0.principals.principal(object_id).ok_or_else(|| {
            let message = format!("The principal '{object_id}' does not exist in the directory.");
            Fault::bad_request("AadAuthPrincipalNotFound", message)
        })?;
        let tenant = self.0.principals.tenant().id;
        if asked.text("tenantId")?.is_some_and(|text| Uuid::try_parse(text) != Ok(tenant)) {
            return Err(invalid("The property 'tenantId' must be this site's tenant."));
        }
        let kind = asked.one_of("principalType", &TYPES)?.unwrap_or("User");
        if !kind.eq_ignore_ascii_case(principal.kind.as_str()) {
            return Err(invalid(format!("The principal '{object_id}' is a {}.", principal.kind)));
        }
        let name = asked.text("principalName")?.unwrap_or_default();
        check_role(name, server.login())?;
        // The server's row was read, and is in the commit; memory may not know yet what was committed before it.
        plan.store.observers_told().await?;
        let server_id = plan.id.parent().and_then(|types| types.parent());
        let taken = server_id.and_then(|id| self.0.snapshot().administrator(&id, name));
        if taken.is_some_and(|other| other.object_id != object_id) {
            return Err(invalid("Another administrator of the server has this name."));
        }
        let before = current.map(stored::<StoredAdministrator>).transpose()?;
        if before.is_none() {
            server::check_room(plan, ADMINISTRATORS_MAX).await?;
        }
        if before.as_ref().is_some_and(|before| before.principal_name != name) {
            return Err(invalid(
                "The name of an administrator cannot be changed; delete it and create it again.",
            ));
        }
        let (role_secret, made) = before.map_or_else(
            || (plan.entropy.token(SECRET_BYTES), false),
            |before| (before.role_secret, before.made),
        );
        let administrator = StoredAdministrator {
            object_id,
            principal_name: name.to_owned(),
            principal_type: kind.to_owned(),
            tenant_id: tenant,
            role_secret,
            made,
        };
        Ok(Resource::planned(plan, current, Desired::default(), to_stored(&administrator)?))
    }

    async fn delete(&self, _plan: &mut Plan<'_>, _current: &Resource) -> Result<(), Fault> {
        Ok(())
    }

    async fn finish(&self, resource: &Resource) -> Result<Value, Fault> {
        let mut administrator: StoredAdministrator = stored(resource)?;
        let (role, principal) = (&administrator.principal_name, administrator.object_id);
        let server = server_of(&self.0, &resource.id).await?;
        let client = server::session(&self.0, &server).await?;
        let mark = Mark { secret: &server.keeper_secret, principal };
        let own = mark::own(&client, role, mark, administrator.made).await?;
        let another = match &own {
            Some(own) if own.name == *role => None,
            _ => mark::role(&client, role).await?,
        };
        if let Some(found) = another {
            if found.made_for(&server.keeper_secret).is_none() {
                sql::give_to_administrators(&client, role).await?;
            }
            let message = format!(
                "The server has a role '{role}' that was not made for this principal. Create the administrator under \
                 another name, or rename or drop the role there (ALTER ROLE ... RENAME TO, DROP ROLE); from PostgreSQL \
                 16 on nobody can do that to a role that the site made for another principal."
            );
            return Err(Fault::conflict("AadAuthPrincipalRoleExists", message));
        }
        if let Some(own) = own.as_ref().filter(|own| own.name != *role) {
            sql::rename_back(&client, own, role).await?;
        }
        let verifier = scram::verifier(&administrator.role_secret, &*self.0.entropy);
        let number = own.map(|own| own.number);
        sql::administer(&client, role, Some(&verifier), Some((mark, number))).await?;
        administrator.made = true;
        to_stored(&administrator)
    }

    async fn tear_down(&self, resource: &Resource) -> Result<(), Fault> {
        let administrator: StoredAdministrator = stored(resource)?;
        let server = server_of(&self.0, &resource.id).await?;
        let client = match server::session(&self.0, &server).await {
            Ok(client) => client,
            // A server that never was has no role; and what was never finished can be told by its mark later.
            Err(_) if !(self.0.clusters.exists(server.instance) || server.ready && administrator.made) => {
                return Ok(());
            }
            Err(fault) => return Err(fault),
        };
        let mark = Mark { secret: &server.keeper_secret, principal: administrator.object_id };
        // What was never finished has made the role or has found another one there.
        match mark::own(&client, &administrator.principal_name, mark, administrator.made).await? {
            Some(role) => Ok(sql::dismiss(&client, &role, mark).await?),
            None => Ok(()),
        }
    }

    fn operation_name(&self, deletes: bool) -> &'static str {
        if deletes {
            "DropAadAuthPrincipalManagementOperation"
        } else {
            "UpsertAadAuthPrincipalManagementOperation"
        }
    }

    fn properties(&self, resource: &Resource, _api_version: &str) -> Value {
        match stored::<StoredAdministrator>(resource) {
            Ok(administrator) => json!({
                "principalType": administrator.principal_type,
                "principalName": administrator.principal_name,
                "objectId": administrator.object_id,
                "tenantId": administrator.tenant_id,
            }),
            Err(_) => Value::Object(Map::new()),
        }
    }
}
