//! The token endpoint, in both versions.

use arcadia_crypto::Zeroizing;
use arcadia_kernel::{At, AuditStamp, Fault, Form, Open, Permit, Query, Reply, RequestHead};
use arcadia_store::Batch;
use serde_json::Value;
use uuid::Uuid;

use crate::directory::{Committed, Directory};
use crate::login::Login;
use crate::login::client::{Client, Presented, Proof, requires_assignment};
use crate::login::faults::{
    invalid_client, invalid_grant, invalid_request, missing_parameter, refusal, shown,
};
use crate::login::issue::{Issue, SignIn, Version};
use crate::login::person::{claimed, signed_in};
use crate::login::resource::{Resource, Wanted};
use crate::login::session::NewSession;
use crate::login::spa::SpaOrigin;
use crate::login::tenant::{Authority, TenantPath};
use crate::model::Session;

pub(super) async fn token_v2(at: At<Login>, permit: Permit<Open>, form: Form) -> Result<Reply, Fault> {
    Box::pin(answer(at, permit, form, Version::V2)).await
}

pub(super) async fn token_v1(at: At<Login>, permit: Permit<Open>, form: Form) -> Result<Reply, Fault> {
    Box::pin(answer(at, permit, form, Version::V1)).await
}

async fn answer(at: At<Login>, permit: Permit<Open>, form: Form, version: Version) -> Result<Reply, Fault> {
    let path = TenantPath::resolve(&at.directory, form.head.param("tenant"), "invalid_request")?;
    let fields = &form.fields;
    let grant = fields.first("grant_type").ok_or_else(|| missing_parameter("grant_type"))?;
    let presented = Presented::read(fields, &form.head)?;
    let stamp = permit.stamp();
    let client = Client::find(&at.directory, &presented.client_id, &path)?;
    stamp.identify(claimed(&client.app_id.to_string()));
    let reader = SpaOrigin::of(&client, fields, &form.head);
    let answer = async {
        let (proof, assertion) = client.prove(&at.directory, &presented, &path, &form.head, stamp).await?;
        let now = at.directory.clock.epoch_seconds();
        let exchange = Exchange {
            directory: &at.directory,
            path,
            version,
            fields,
            head: &form.head,
            presented: &presented,
            stamp,
            client,
            proof,
            now,
        };
        let granted = exchange.redeem(grant).await?;
        // What is refused must not use it up; of many who show one at once, one is given what it asked for.
        if let Some(assertion) = assertion {
            exchange.client.use_up(&at.directory, &assertion, stamp).await?;
        }
        // Nothing is waited for from here on, so that nobody is given what was taken away while it was.
        Reply::ok(&exchange.again()?.tokens(granted)?)
    }
    .await;
    match reader {
        Some(reader) => reader.name_in(answer),
        None => answer,
    }
}

/// One request at the token endpoint whose client is known.
pub(crate) struct Exchange<'a> {
    pub directory: &'a Directory,
    pub path: TenantPath,
    pub version: Version,
    pub fields: &'a Query,
    pub head: &'a RequestHead,
    pub presented: &'a Presented,
    pub stamp: &'a AuditStamp,
    pub client: Client,
    pub proof: Proof,
    pub now: i64,
}

/// What a grant was exchanged for, before any token is made of it.
pub(super) struct Granted {
    wanted: Wanted,
    /// `None` for the client itself.
    person: Option<Person>,
}

/// Whoever signed in.
struct Person {
    user: Uuid,
    session_epoch: u64,
    signed_in_seconds: i64,
    nonce: Option<String>,
    refresh_token: Option<String>,
}

impl Exchange<'_> {
    /// The same with the client as it is now, or why that is given nothing: it is asked for after every wait.
    pub(super) fn again(&self) -> Result<Self, Fault> {
        let client = self.client.again(self.directory, self.presented, &self.path, self.head)?;
        let now = self.directory.clock.epoch_seconds();
        Ok(Self { client, now, path: self.path.clone(), ..*self })
    }

    async fn redeem(&self, grant: &str) -> Result<Granted, Fault> {
        match grant {
            "client_credentials" => self.client_credentials(),
            "password" => self.password().await,
            "refresh_token" => self.refresh_token().await,
            "authorization_code" => self.authorization_code().await,
            "device_code" | "urn:ietf:params:oauth:grant-type:device_code" => self.device_code().await,
            other => {
                let message = format!("The app requested an unsupported grant type '{}'.", shown(other));
                Err(refusal(400, "unsupported_grant_type", 70_003, message))
            }
        }
    }

    /// The answer, for whoever may have it at this moment.
    fn tokens(&self, granted: Granted) -> Result<Value, Fault> {
        let issue = self.issue(&granted.wanted)?;
        let Some(person) = granted.person else { return issue.for_principal(&self.client.principal) };
        issue.for_user(&SignIn {
            user: self.directory.signed_in_user(person.user, person.session_epoch)?,
            signed_in_seconds: person.signed_in_seconds,
            nonce: person.nonce,
            refresh_token: person.refresh_token,
        })
    }

    fn resource(&self, wanted: &Wanted) -> Result<Resource, Fault> {
        wanted.find(self.directory, &self.path.tenant)
    }

    /// Whether a person may have it through the client. What may not be had must use up no grant.
    fn check_delegated(&self, wanted: &Wanted) -> Result<(), Fault> {
        wanted.delegated(&self.resource(wanted)?, &self.client).map(drop)
    }

    /// What is asked for, from `scope` or (version 1.0) `resource`.
    fn wanted(&self) -> Result<Wanted, Fault> {
        self.asked()?
            .ok_or_else(|| missing_parameter(if self.version == Version::V1 { "resource" } else { "scope" }))
    }

    fn asked(&self) -> Result<Option<Wanted>, Fault> {
        asked(self.directory, self.version, self.fields)
    }

    pub(super) fn required(&self, name: &str) -> Result<&str, Fault> {
        self.fields.first(name).filter(|value| !value.is_empty()).ok_or_else(|| missing_parameter(name))
    }

    fn issue<'a>(&'a self, wanted: &'a Wanted) -> Result<Issue<'a>, Fault> {
        Ok(Issue {
            directory: self.directory,
            tenant: self.path.tenant.clone(),
            version: self.version,
            client: &self.client,
            proof: self.proof,
            wanted,
            resource: self.resource(wanted)?,
            now: self.now,
            claims: self.fields.first("claims"),
            client_info: self.fields.first("client_info") == Some("1"),
            head: self.head,
        })
    }

    fn client_credentials(&self) -> Result<Granted, Fault> {
        if self.path.authority != Authority::Own {
            let message = "No tenant-identifying information found in either the request or implied by any \
                           provided credentials. Use the tenant's id or domain in the path.";
            return Err(invalid_request(50_059, message));
        }
        if self.proof == Proof::Nothing {
            let message = "'client_assertion', 'client_secret' or 'request' is required for the \
                           'client_credentials' grant type.";
            return Err(invalid_client(7_000_216, message));
        }
        let wanted = match (self.version, named_scope(self.fields)) {
            (Version::V2, Some(scope)) => Wanted::of_application(scope, &self.directory.names().graph_host)?,
            _ => self.wanted()?,
        };
        self.resource(&wanted)?.check_assignment()?;
        Ok(Granted { wanted, person: None })
    }

    async fn password(&self) -> Result<Granted, Fault> {
        if self.path.authority == Authority::Common {
            let message = "The grant type is not supported over the /common or /consumers endpoints. Please use \
                           the /organizations or tenant-specific endpoint.";
            return Err(invalid_request(9_001_023, message));
        }
        self.check_may_sign_people_in(None)?;
        let wanted = self.wanted()?;
        self.resource(&wanted)?;
        let name = self.required("username")?;
        let password = Zeroizing::new(self.required("password")?.to_owned());
        let user = self.directory.check_password(self.head, self.stamp, name, password).await?;
        self.stamp.identify(signed_in(&user, self.client.app_id));
        // Decided before a session is kept, so that a refused scope leaves nothing behind.
        let now = self.again()?;
        now.check_may_sign_people_in(None)?;
        now.check_delegated(&wanted)?;
        let mut person = Person {
            user: user.id,
            session_epoch: user.session_epoch,
            signed_in_seconds: self.now,
            nonce: None,
            refresh_token: None,
        };
        if wanted.offline {
            let mut batch = Batch::new();
            let (_, token) = self.plan_session(&mut batch, &person, &wanted)?;
            if self.directory.commit(self.stamp, batch).await? == Committed::LostRace {
                return Err(Fault::unavailable("The sign-in could not be kept. Retry."));
            }
            person.refresh_token = Some(token);
        }
        Ok(Granted { wanted, person: Some(person) })
    }

    /// Adds the session of a person who wants to stay signed in, with its first refresh token.
    fn plan_session(
        &self,
        batch: &mut Batch,
        person: &Person,
        wanted: &Wanted,
    ) -> Result<(Uuid, String), Fault> {
        let new = NewSession {
            user: person.user,
            session_epoch: person.session_epoch,
            client: &self.client,
            signed_in_seconds: person.signed_in_seconds,
            public: self.proof == Proof::Nothing,
            scope: &wanted.scope,
        };
        self.directory.plan_session(batch, &new)
    }

    async fn refresh_token(&self) -> Result<Granted, Fault> {
        let token = self.required("refresh_token")?;
        // What is refused must not use up the token.
        let check = |session: &Session, scope: &str| {
            let exchange = self.again()?;
            let registered_public = || {
                let application = exchange.client.application.as_ref();
                application.is_some_and(|app| app.public_redirect_uris().next().is_some())
            };
            let may_be_unproven = session.public && (exchange.client.is_public() || registered_public());
            exchange.check_client(may_be_unproven)?;
            exchange.check_delegated(&exchange.wanted_again(scope)?)
        };
        let refreshed = self.directory.refresh(self.stamp, token, &self.client, check).await?;
        let person = Person {
            user: refreshed.session.user,
            session_epoch: refreshed.session.session_epoch,
            signed_in_seconds: refreshed.session.signed_in_seconds,
            nonce: None,
            refresh_token: Some(refreshed.refresh_token),
        };
        Ok(Granted { wanted: self.wanted_again(&refreshed.scope)?, person: Some(person) })
    }

    /// What is asked for, or else what the token was kept for.
    fn wanted_again(&self, scope: &str) -> Result<Wanted, Fault> {
        let kept = || Wanted::from_scope(scope, &self.directory.names().graph_host);
        self.asked()?.map_or_else(kept, Ok)
    }

    /// Finishes a sign-in that a person gave on a page: `plan` adds what marks the grant as used, so that of
    /// several requests with the same grant one is answered.
    pub(super) async fn finish_page_sign_in(
        &self,
        scope: &str,
        sign_in: (Uuid, u64, i64),
        nonce: Option<String>,
        plan: impl FnOnce(&mut Batch, Option<Uuid>) -> Result<(), Fault>,
    ) -> Result<Granted, Fault> {
        let (user, session_epoch, signed_in_seconds) = sign_in;
        let user = self.directory.signed_in_user(user, session_epoch)?;
        self.stamp.identify(signed_in(&user, self.client.app_id));
        let wanted = Wanted::from_scope(scope, &self.directory.names().graph_host)?;
        self.again()?.check_delegated(&wanted)?;
        let mut person =
            Person { user: user.id, session_epoch, signed_in_seconds, nonce, refresh_token: None };
        let mut batch = Batch::new();
        let mut session = None;
        if wanted.offline {
            let (id, token) = self.plan_session(&mut batch, &person, &wanted)?;
            session = Some(id);
            person.refresh_token = Some(token);
        }
        plan(&mut batch, session)?;
        match self.directory.commit(self.stamp, batch).await? {
            Committed::Written => Ok(Granted { wanted, person: Some(person) }),
            Committed::LostRace => Err(already_redeemed()),
        }
    }

    /// Whether this client may exchange what a person gave it. `redirect_uri` is the address that an
    /// authorization code was sent to.
    pub(super) fn check_may_sign_people_in(&self, redirect_uri: Option<&str>) -> Result<(), Fault> {
        let registered_public = redirect_uri.is_some_and(|uri| {
            let application = self.client.application.as_ref();
            application.is_some_and(|app| super::redirect::is_public_redirect(app, uri))
        });
        self.check_client(self.client.is_public() || registered_public)
    }

    fn check_client(&self, may_be_unproven: bool) -> Result<(), Fault> {
        if requires_assignment(&self.client.principal) {
            let message = "The signed in user is not assigned to a role for the application, and the application \
                           requires it. Switch the requirement off on its service principal.";
            return Err(invalid_grant(50_105, message));
        }
        if self.proof != Proof::Nothing || may_be_unproven {
            return Ok(());
        }
        let message = "The request body must contain the following parameter: 'client_assertion' or \
                       'client_secret'.";
        Err(refusal(401, "invalid_client", 7_000_218, message))
    }
}

/// What is asked for, if the request says so.
pub(super) fn asked(
    directory: &Directory,
    version: Version,
    fields: &Query,
) -> Result<Option<Wanted>, Fault> {
    if version == Version::V1 {
        return fields.first("resource").map(Wanted::from_resource).transpose();
    }
    named_scope(fields).map(|scope| Wanted::from_scope(scope, &directory.names().graph_host)).transpose()
}

fn named_scope(fields: &Query) -> Option<&str> {
    fields.first("scope").filter(|scope| !scope.trim().is_empty())
}

pub(super) fn already_redeemed() -> Fault {
    let message = "OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an \
                   existing refresh token.";
    invalid_grant(54_005, message)
}
