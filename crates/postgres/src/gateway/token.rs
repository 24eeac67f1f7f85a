//! Logins by directory token, and the record of every login.

use std::sync::Arc;

use arcadia_kernel::{
    AuditEvent, Caller, Decision, DenyReason, EntropyExt as _, Outcome as Recorded, Plane, Question,
    TokenFault, trim_audience,
};
use tokio::net::UnixStream;

use super::admission::Admitted;
use super::authenticate::{self, CLEARTEXT_PASSWORD, Outcome, WRONG_PASSWORD};
use super::message::{Message, Refusal};
use super::startup::Startup;
use super::stream::Stream;
use super::{Ended, Gateway, Peer, leave};
use crate::cluster::{mark, sql};
use crate::fault::ServerFault;
use crate::records::StoredAdministrator;
use crate::scram;

/// The name under which a login is recorded.
const LOGIN: &str = "Microsoft.DBforPostgreSQL/login";

const CHANGED_IN_SQL: &str = "; if the role or its password was changed in SQL, create the administrator again \
    ('az postgres flexible-server microsoft-entra-admin create')";

fn wrong_password(outcome: &mut Outcome) -> Option<&mut Refusal> {
    match outcome {
        Err(Ended::Refused(refusal)) if refusal.code == WRONG_PASSWORD => Some(refusal),
        _ => None,
    }
}

impl Gateway {
    /// Logs in as the principal's role whom a token shows to be the principal or one of its members. With the outcome comes
    /// who that is.
    pub(super) async fn by_token(
        &self,
        client: &mut Stream,
        server: &mut UnixStream,
        startup: &Startup,
        admitted: &Admitted,
        administrator: &StoredAdministrator,
        peer: &Peer,
    ) -> (Option<Arc<Caller>>, Outcome) {
        let caller = match self.caller(client, server, startup, admitted, administrator, peer).await {
            Ok(caller) => caller,
            Err(ended) => return (None, Err(ended)),
        };
        let as_role = async |server: &mut UnixStream| {
            *server = admitted.connect().await?;
            let (role, secret) = (&administrator.principal_name, &administrator.role_secret);
            authenticate::as_role(server, startup, role, secret).await
        };
        let mut outcome = as_role(server).await;
        if wrong_password(&mut outcome).is_some() {
            leave(server).await;
            if self.restore_password(admitted, administrator).await {
                outcome = as_role(server).await;
            }
        }
        if let Some(refusal) = wrong_password(&mut outcome) {
            refusal.message.push_str(CHANGED_IN_SQL);
        }
        (Some(caller), outcome)
    }

    /// Gives a principal's role its password again, which somebody changed in SQL; nothing else of it changes. The role is
    /// the one that bears the principal's mark. Whether it was done.
    async fn restore_password(&self, admitted: &Admitted, administrator: &StoredAdministrator) -> bool {
        let (secret, role) = (&admitted.server.stored.keeper_secret, &administrator.principal_name);
        let verifier = scram::verifier(&administrator.role_secret, &*self.trust.entropy);
        let restored = async {
            let client = sql::session(&admitted.cluster, secret).await?;
            let own = mark::role(&client, role).await?;
            let Some(own) = own.filter(|own| own.made_for(secret) == Some(administrator.object_id)) else {
                return Ok(false);
            };
            tracing::warn!(role, "the password of a principal's role was changed in SQL, and is put back");
            sql::set_password(&client, &own, &verifier).await.map(|()| true)
        };
        restored.await.unwrap_or_else(|fault: ServerFault| {
            tracing::warn!(role, %fault, "a principal's role cannot be given its password again");
            false
        })
    }

    /// Takes a token in the place of a password, inside TLS only.
    async fn caller(
        &self,
        client: &mut Stream,
        server: &mut UnixStream,
        startup: &Startup,
        admitted: &Admitted,
        administrator: &StoredAdministrator,
        peer: &Peer,
    ) -> Result<Arc<Caller>, Ended> {
        if !peer.is_encrypted {
            let message = "a directory token is only taken inside TLS. Please specify SSL options and retry.";
            return Err(Refusal::new("28000", message).into());
        }
        let role = &administrator.principal_name;
        if let Some(version) = authenticate::introduce(server, startup, role).await? {
            version.write(client).await?;
        }
        // The server is asked anew when the token is here: the role may have become another's by then, and nobody who is
        // only waited for holds the server.
        leave(server).await;
        Message::new(b'R', CLEARTEXT_PASSWORD.to_be_bytes().to_vec()).write(client).await?;
        let answer = Message::read(client).await?;
        peer.progress.advanced();
        let token = match (answer.kind, answer.body.split_last()) {
            (b'p', Some((0, token))) => std::str::from_utf8(token).ok(),
            _ => None,
        };
        let refused = |why: &str| {
            let message = format!(
                "password authentication failed for user \"{}\": the password must be an access token: {why}",
                admitted.role
            );
            Ended::from(Refusal::new("28P01", message))
        };
        let token = token.ok_or_else(|| refused("it is not text"))?;
        self.verify(token, administrator, admitted).map_err(|why| refused(&why))
    }

    /// Whether the token is of the principal (or of a member of the group) that the role is for.
    fn verify(
        &self,
        token: &str,
        administrator: &StoredAdministrator,
        admitted: &Admitted,
    ) -> Result<Arc<Caller>, String> {
        let now = self.trust.clock.epoch_seconds();
        let verified = self.trust.authenticator.verify(token, now).map_err(|fault| fault.to_string())?;
        let audiences = &self.postgres.names.audiences;
        if !audiences.iter().any(|known| trim_audience(known) == trim_audience(&verified.audience)) {
            let fault = TokenFault::Audience {
                expected: audiences.clone(),
                found: verified.audience.as_ref().to_owned(),
            };
            return Err(format!("{fault}; ask for one for {}", audiences.join(" or ")));
        }
        let caller = &verified.caller;
        if caller.tenant_id != administrator.tenant_id {
            return Err("it is of another tenant".to_owned());
        }
        let is_own = caller.object_id == administrator.object_id;
        let groups = self.postgres.principals.groups_of(caller.object_id);
        let is_member = administrator.principal_type == "Group"
            && groups.is_some_and(|groups| groups.contains(&administrator.object_id));
        if !is_own && !is_member {
            return Err("it is of another principal".to_owned());
        }
        // The site's decision is asked for one thing only: whether the principal exists and is enabled.
        let question = Question { caller, action: LOGIN, plane: Plane::Data, scope: &admitted.server.id };
        match self.trust.decider.decide(&question) {
            Decision::Denied(DenyReason::NoSuchPrincipal) => Err("its principal no longer exists".to_owned()),
            _ => Ok(verified.caller),
        }
    }

    /// Writes a login down before the client learns of it. What cannot be recorded does not happen. `caller` is whom a token
    /// showed.
    pub(super) async fn record(
        &self,
        admitted: &Admitted,
        peer: &Peer,
        caller: Option<&Caller>,
        outcome: &Outcome,
    ) -> Result<(), Ended> {
        let outcome = match outcome {
            Ok(greeting) if !greeting.is_refusal() => Recorded::Answered { status: 200 },
            Ok(_) => Recorded::Denied { reason: "the server refused the login".to_owned() },
            Err(Ended::Refused(refusal)) => Recorded::Denied { reason: refusal.message.clone() },
            // Nobody was let in or turned away.
            Err(Ended::Broken(_)) => return Ok(()),
        };
        // Whoever proved nothing merely claims a name, be it a password typed in the wrong place.
        let caller = match (caller, &outcome) {
            (Some(caller), _) => caller.clone(),
            (None, Recorded::Answered { .. }) => Caller::key_holder(&admitted.role),
            (None, _) => Caller::anonymous(),
        };
        let event = AuditEvent {
            time: self.trust.clock.now(),
            request_id: self.trust.entropy.uuid(),
            service: "postgres".into(),
            operation: "Login".into(),
            action: LOGIN.into(),
            scope: admitted.scope(),
            caller_kind: caller.kind,
            caller_object_id: caller.object_id,
            caller_app_id: caller.app_id,
            caller_name: caller.name,
            remote: Some(peer.address),
            assignment: None,
            also: Vec::new(),
            outcome,
        };
        self.trust.audit.append(event).await.map_err(|fault| {
            tracing::error!(%fault, "a login could not be recorded");
            Refusal::new("58030", "the login could not be recorded; see the site's log").into()
        })
    }
}
