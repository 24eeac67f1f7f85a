//! Staying signed in: sessions and their refresh tokens.

use arcadia_crypto::{b64url, hmac_sha256};
use arcadia_kernel::{AuditStamp, EntropyExt as _, Fault};
use arcadia_store::{Batch, CommitError};
use uuid::Uuid;

use crate::directory::Directory;
use crate::login::client::Client;
use crate::login::faults::invalid_grant;
use crate::login::person::signed_in;
use crate::model::{REFRESH_TOKENS, RefreshToken, SESSIONS, Session, digest};

const REFRESH_TOKEN_BYTES: usize = 64;
/// Keeps this use of the site's key apart from its others.
const SUCCESSOR: &[u8] = b"refresh token after ";
const REFRESH_TOKEN_CHARACTERS_MAX: usize = 512;
const REFRESH_TOKEN_LIFETIME_SECONDS: i64 = 90 * 24 * 60 * 60;
/// Processes that share a cache may redeem the same token at nearly the same time; later than this it is theft.
const ROTATION_GRACE_SECONDS: i64 = 60;
/// Exchanges of one session, one after the other, that are followed within that time.
const ROTATIONS_IN_GRACE_MAX: usize = 1000;

/// What a session begins with.
pub(crate) struct NewSession<'a> {
    pub user: Uuid,
    pub session_epoch: u64,
    pub client: &'a Client,
    pub signed_in_seconds: i64,
    pub public: bool,
    pub scope: &'a str,
}

/// A refresh token that was accepted, with its successor.
pub(crate) struct Refreshed {
    pub session: Session,
    pub scope: String,
    pub refresh_token: String,
}

impl Directory {
    /// Adds a session and its first refresh token to `batch`; returns the session's id and the token.
    pub(crate) fn plan_session(
        &self,
        batch: &mut Batch,
        new: &NewSession<'_>,
    ) -> Result<(Uuid, String), Fault> {
        let expires_seconds = self.clock.epoch_seconds() + REFRESH_TOKEN_LIFETIME_SECONDS;
        let session = Session {
            id: self.entropy.uuid(),
            user: new.user,
            client: new.client.app_id,
            session_epoch: new.session_epoch,
            signed_in_seconds: new.signed_in_seconds,
            expires_seconds,
            public: new.public,
            revoked: false,
        };
        batch.put(SESSIONS, &session.id, &session)?;
        let token = format!("1.{}", self.entropy.token(REFRESH_TOKEN_BYTES));
        plan_refresh_token(batch, session.id, &token, new.scope, expires_seconds)?;
        Ok((session.id, token))
    }

    /// The one token that comes after `token`. It follows from it and from a key that only the site has, so however
    /// many exchange one token at the same time, a session goes on in one token and not in as many as there were.
    fn successor(&self, token: &str) -> Result<String, Fault> {
        let successor = hmac_sha256(&self.form_key()?, &[SUCCESSOR, token.as_bytes()].concat());
        Ok(format!("1.{}", b64url(&successor)))
    }

    /// The first token from this one on that was not exchanged yet: another who was given it may have done so.
    async fn unspent(&self, mut token: String) -> Result<String, Fault> {
        for _ in 0..ROTATIONS_IN_GRACE_MAX {
            let row = self.store.get(REFRESH_TOKENS, digest(&token).as_str()).await?.ok_or_else(malformed)?;
            if row.value.rotated_seconds.is_none() {
                return Ok(token);
            }
            token = self.successor(&token)?;
        }
        Err(not_written(CommitError::Conflict))
    }

    /// Exchanges a refresh token for its successor, if `check` allows it for the session and the scope that the token
    /// has: what is refused must not use it up. Of many who do so at once, one makes the successor; the others are
    /// given the same.
    pub(crate) async fn refresh(
        &self,
        stamp: &AuditStamp,
        token: &str,
        client: &Client,
        check: impl Fn(&Session, &str) -> Result<(), Fault>,
    ) -> Result<Refreshed, Fault> {
        if token.len() > REFRESH_TOKEN_CHARACTERS_MAX {
            return Err(malformed());
        }
        let digest = digest(token);
        let mut attempts = self.store.attempts();
        loop {
            let now = self.clock.epoch_seconds();
            let row = self.store.get(REFRESH_TOKENS, digest.as_str()).await?.ok_or_else(malformed)?;
            let session_id = row.value.session;
            let session = self.store.get(SESSIONS, &session_id).await?.ok_or_else(malformed)?;
            check_alive(&row.value, &session.value, client, now)?;
            let user = self.signed_in_user(session.value.user, session.value.session_epoch)?;
            stamp.identify(signed_in(&user, client.app_id));
            check(&session.value, &row.value.scope)?;
            let refresh_token = self.successor(token)?;
            let scope = row.value.scope.clone();
            if let Some(rotated) = row.value.rotated_seconds {
                if now - rotated > ROTATION_GRACE_SECONDS {
                    drop(attempts);
                    self.revoke_session(stamp, session_id).await?;
                    return Err(reused());
                }
                let refresh_token = self.unspent(refresh_token).await?;
                let session = self.store.get(SESSIONS, &session_id).await?.ok_or_else(malformed)?;
                check_alive(&row.value, &session.value, client, now)?;
                return Ok(Refreshed { session: session.value, scope, refresh_token });
            }
            let expires_seconds = now + REFRESH_TOKEN_LIFETIME_SECONDS;
            let mut batch = Batch::new();
            batch.require_revision(REFRESH_TOKENS, digest.as_str(), row.revision);
            batch.require_revision(SESSIONS, &session_id, session.revision);
            let rotated = RefreshToken { rotated_seconds: Some(now), ..row.value };
            batch.put(REFRESH_TOKENS, digest.as_str(), &rotated)?;
            let session = Session { expires_seconds, ..session.value };
            batch.put(SESSIONS, &session_id, &session)?;
            plan_refresh_token(&mut batch, session_id, &refresh_token, &scope, expires_seconds)?;
            if attempts.commit(stamp, batch).await.map_err(not_written)?.is_some() {
                return Ok(Refreshed { session, scope, refresh_token });
            }
        }
    }

    /// Ends a session: none of its refresh tokens is accepted any more.
    pub(crate) async fn revoke_session(&self, stamp: &AuditStamp, id: Uuid) -> Result<(), Fault> {
        let mut attempts = self.store.attempts();
        loop {
            let Some(row) = self.store.get(SESSIONS, &id).await? else { return Ok(()) };
            if row.value.revoked {
                return Ok(());
            }
            let mut batch = Batch::new();
            batch.require_revision(SESSIONS, &id, row.revision);
            batch.put(SESSIONS, &id, &Session { revoked: true, ..row.value })?;
            if attempts.commit(stamp, batch).await.map_err(not_written)?.is_some() {
                return Ok(());
            }
        }
    }
}

fn not_written(error: CommitError) -> Fault {
    match error {
        CommitError::Conflict => Fault::unavailable("The session is in use by many requests at once. Retry."),
        CommitError::Store(error) => error.into(),
    }
}

fn plan_refresh_token(
    batch: &mut Batch,
    session: Uuid,
    token: &str,
    scope: &str,
    expires_seconds: i64,
) -> Result<(), Fault> {
    let row = RefreshToken {
        digest: digest(token),
        session,
        scope: scope.to_owned(),
        expires_seconds,
        rotated_seconds: None,
    };
    batch.put(REFRESH_TOKENS, row.digest.as_str(), &row)?;
    Ok(())
}

fn check_alive(token: &RefreshToken, session: &Session, client: &Client, now: i64) -> Result<(), Fault> {
    if session.client != client.app_id {
        return Err(invalid_grant(
            70_000,
            "Provided grant is invalid or malformed: the refresh token was issued to another client.",
        ));
    }
    if session.revoked {
        let message = "The provided grant has expired due to it being revoked, a fresh auth token is needed. \
                       Sign in again.";
        return Err(invalid_grant(50_173, message));
    }
    if token.expires_seconds <= now {
        let message = "The refresh token has expired due to inactivity. Sign in again.";
        return Err(invalid_grant(700_082, message));
    }
    Ok(())
}

fn malformed() -> Fault {
    invalid_grant(
        9_002_313,
        "Invalid request. Request is malformed or invalid: the refresh token is not known.",
    )
}

fn reused() -> Fault {
    let message = "The refresh token was already redeemed; for safety the whole sign-in it belongs to was ended. \
                   Sign in again.";
    invalid_grant(50_173, message)
}
