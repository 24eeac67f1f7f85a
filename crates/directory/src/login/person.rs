//! People: their passwords and whether they may still sign in.

use std::sync::Arc;

use arcadia_crypto::Zeroizing;
use arcadia_kernel::{AuditStamp, Caller, CallerKind, Fault, RequestHead};
use uuid::Uuid;

use crate::directory::Directory;
use crate::login::faults::{
    disabled_user, invalid_grant, locked, no_such_user, too_many_requests, wrong_password,
};
use crate::model::{USER_PASSWORDS, User, fold};
use crate::secret::PASSWORD_CHARACTERS_MAX;
use crate::throttle::Allowance;

const USER_NAME_CHARACTERS_MAX: usize = 320;
/// How a record names whoever typed a name that nobody has.
const UNKNOWN_USER: &str = "unknown user";

impl Directory {
    /// The user with this name and password, enabled. Guesses are counted before they are checked, so that many
    /// at once count as many; those that would be too many if the others were wrong wait until that is known.
    pub(crate) async fn check_password(
        &self,
        head: &RequestHead,
        stamp: &AuditStamp,
        name: &str,
        password: Zeroizing<String>,
    ) -> Result<Arc<User>, Fault> {
        let name = name.trim();
        let found = self.snapshot().user_named(name).cloned();
        stamp.identify(claimed(found.as_ref().map_or(UNKNOWN_USER, |user| user.upn.as_str())));
        if name.is_empty() || name.chars().count() > USER_NAME_CHARACTERS_MAX {
            return Err(wrong_password());
        }
        let tenant = self.founded_tenant()?;
        let account = found.as_ref().map(|user| fold(&user.upn));
        let attempt = self.guess(account.as_deref(), head).await.map_err(|allowance| {
            if allowance == Allowance::ADDRESS { too_many_requests() } else { locked() }
        })?;
        let unknown = || no_such_user(name, &tenant.domain);
        let known = || self.snapshot().user_named(name).cloned().ok_or_else(unknown);
        if found.is_none() {
            return Err(unknown());
        }
        if password.chars().count() > PASSWORD_CHARACTERS_MAX {
            return Err(wrong_password());
        }
        // Guesses and hashes wait for their turns, and what was so before says nothing: the user as it is now signs in,
        // with the password that is its own since its sessions were last ended.
        let user = loop {
            let before = known()?;
            let is_right = self.password_is(before.id, password.clone()).await?;
            let user = known()?;
            if !is_right {
                return Err(wrong_password());
            }
            if (user.id, user.session_epoch) == (before.id, before.session_epoch) {
                break user;
            }
        };
        attempt.was_right();
        stamp.identify(signed_in(&user, Uuid::nil()));
        if !user.enabled {
            return Err(disabled_user());
        }
        Ok(user)
    }

    async fn password_is(&self, user: Uuid, password: Zeroizing<String>) -> Result<bool, Fault> {
        let Some(row) = self.store.get(USER_PASSWORDS, &user).await? else { return Ok(false) };
        self.hashing.matches(row.value.hash, password).await
    }

    /// A user who signed in before, if that still counts.
    pub(crate) fn signed_in_user(&self, id: Uuid, session_epoch: u64) -> Result<Arc<User>, Fault> {
        let tenant = self.founded_tenant()?;
        let found = self.snapshot().users.get(&id).cloned();
        let user = found.ok_or_else(|| no_such_user(&id.to_string(), &tenant.domain))?;
        if !user.enabled {
            return Err(disabled_user());
        }
        if user.session_epoch != session_epoch {
            let message = "The provided grant has expired due to it being revoked, a fresh auth token is needed. \
                           The user might have changed or reset their password. Sign in again.";
            return Err(invalid_grant(50_173, message));
        }
        Ok(user)
    }
}

/// For the record of a sign-in that has proved nothing (yet). `name` is of somebody who exists: what else is typed as
/// a name may be a password in the wrong field.
pub(crate) fn claimed(name: &str) -> Caller {
    Caller { name: name.to_owned(), ..Caller::anonymous() }
}

/// For the record of a person's sign-in.
pub(crate) fn signed_in(user: &User, client: Uuid) -> Caller {
    Caller {
        kind: CallerKind::User,
        object_id: user.id,
        app_id: client,
        name: user.upn.clone(),
        ..Caller::anonymous()
    }
}
