//! Device codes (RFC 8628): sign-in on another screen than the one that needs the token.

use arcadia_kernel::{At, EntropyExt as _, Fault, Form, Open, Permit, Reply};
use arcadia_store::{Batch, Row};
use serde_json::{Value, json};

use crate::directory::{Committed, Directory};
use crate::login::Login;
use crate::login::client::{Client, Presented};
use crate::login::faults::{invalid_grant, missing_parameter, refusal, too_many_requests};
use crate::login::issue::Version;
use crate::login::tenant::TenantPath;
use crate::login::token::{Exchange, Granted, already_redeemed, asked};
use crate::model::{DEVICE_CODES, DeviceCode, DeviceState, USER_CODES, UserCode, digest};
use crate::secret::new_user_code;
use crate::throttle::counted_address;

pub(crate) const DEVICE_CODE_LIFETIME_SECONDS: i64 = 15 * 60;
const POLL_INTERVAL_SECONDS: i64 = 5;
const DEVICE_CODE_BYTES: usize = 48;
const DEVICE_CODE_CHARACTERS_MAX: usize = 256;

pub(super) async fn device_code_v2(at: At<Login>, permit: Permit<Open>, form: Form) -> Result<Reply, Fault> {
    start(at, permit, form, Version::V2).await
}

pub(super) async fn device_code_v1(at: At<Login>, permit: Permit<Open>, form: Form) -> Result<Reply, Fault> {
    start(at, permit, form, Version::V1).await
}

/// Hands out a code. The token request will not say what it wants, so the scope is kept with the code.
async fn start(at: At<Login>, permit: Permit<Open>, form: Form, version: Version) -> Result<Reply, Fault> {
    let directory = &*at.directory;
    let path = TenantPath::resolve(directory, form.head.param("tenant"), "invalid_request")?;
    let presented = Presented::read(&form.fields, &form.head)?;
    let client = Client::find(directory, &presented.client_id, &path)?;
    let wanted = asked(directory, version, &form.fields)?
        .ok_or_else(|| missing_parameter(if version == Version::V1 { "resource" } else { "scope" }))?;
    let resource = wanted.find(directory, &path.tenant)?;
    wanted.delegated(&resource, &client)?;
    let now = directory.clock.epoch_seconds();
    if !directory.throttle.take_device_code(&counted_address(form.head.remote), now) {
        return Err(too_many_requests());
    }
    let device_code = directory.entropy.token(DEVICE_CODE_BYTES);
    let user_code = new_user_code(permit.entropy());
    let expires_seconds = now + DEVICE_CODE_LIFETIME_SECONDS;
    let row = DeviceCode {
        digest: digest(&device_code),
        client: client.app_id,
        scope: wanted.scope,
        expires_seconds,
        state: DeviceState::Pending,
        user_code_digest: digest(&user_code),
    };
    let user_row = UserCode {
        digest: row.user_code_digest.clone(),
        device_code_digest: row.digest.clone(),
        expires_seconds,
    };
    let mut batch = Batch::new();
    batch.require_absent(DEVICE_CODES, row.digest.as_str());
    batch.require_absent(USER_CODES, user_row.digest.as_str());
    batch.put(DEVICE_CODES, row.digest.as_str(), &row)?;
    batch.put(USER_CODES, user_row.digest.as_str(), &user_row)?;
    if directory.commit(permit.stamp(), batch).await? == Committed::LostRace {
        return Err(Fault::unavailable("The code could not be kept. Retry."));
    }
    Reply::ok(&started(directory, version, &device_code, &user_code))
}

fn started(directory: &Directory, version: Version, device_code: &str, user_code: &str) -> Value {
    let page = &directory.names().device_page;
    let message = format!(
        "To sign in, use a web browser to open the page {page} and enter the code {user_code} to authenticate."
    );
    match version {
        Version::V2 => json!({
            "user_code": user_code,
            "device_code": device_code,
            "verification_uri": page,
            "expires_in": DEVICE_CODE_LIFETIME_SECONDS,
            "interval": POLL_INTERVAL_SECONDS,
            "message": message,
        }),
        Version::V1 => json!({
            "user_code": user_code,
            "device_code": device_code,
            "verification_url": page,
            "expires_in": DEVICE_CODE_LIFETIME_SECONDS.to_string(),
            "interval": POLL_INTERVAL_SECONDS.to_string(),
            "message": message,
        }),
    }
}

impl Exchange<'_> {
    pub(super) async fn device_code(&self) -> Result<Granted, Fault> {
        let code = match self.fields.first("device_code") {
            Some(code) => code,
            None => self.required("code").map_err(|_| missing_parameter("device_code"))?,
        };
        let unknown = || {
            let message = "The verification code is not recognized: the device code is not known to this tenant. \
                           Start again.";
            refusal(400, "bad_verification_code", 70_018, message)
        };
        if code.len() > DEVICE_CODE_CHARACTERS_MAX {
            return Err(unknown());
        }
        let row = self.directory.store.get(DEVICE_CODES, digest(code).as_str()).await?;
        self.again()?.check_may_sign_people_in(None)?;
        let row = row.ok_or_else(unknown)?;
        if row.value.client != self.client.app_id {
            return Err(unknown());
        }
        let (user, session_epoch, signed_in_seconds) = self.approved(&row)?;
        let scope = row.value.scope.clone();
        self.finish_page_sign_in(&scope, (user, session_epoch, signed_in_seconds), None, |batch, _| {
            batch.require_revision(DEVICE_CODES, row.value.digest.as_str(), row.revision);
            let digest = row.value.digest.clone();
            let redeemed = DeviceCode { state: DeviceState::Redeemed, ..row.value };
            batch.put(DEVICE_CODES, digest.as_str(), &redeemed)?;
            batch.delete(USER_CODES, redeemed.user_code_digest.as_str());
            Ok(())
        })
        .await
    }

    fn approved(&self, row: &Row<DeviceCode>) -> Result<(uuid::Uuid, u64, i64), Fault> {
        if row.value.state == DeviceState::Redeemed {
            return Err(already_redeemed());
        }
        if row.value.expires_seconds <= self.now {
            let message = "The provided value for the input parameter 'device_code' is not valid. The device code \
                           has expired. Start again.";
            return Err(refusal(400, "expired_token", 70_020, message));
        }
        match row.value.state {
            DeviceState::Approved { user, session_epoch, signed_in_seconds } => {
                Ok((user, session_epoch, signed_in_seconds))
            }
            DeviceState::Declined => {
                let message = "User declined to consent to access the app.";
                Err(refusal(400, "authorization_declined", 65_004, message))
            }
            DeviceState::Pending => {
                let message = "OAuth 2.0 device flow error. Authorization is pending. Continue polling.";
                Err(refusal(400, "authorization_pending", 70_016, message))
            }
            DeviceState::Redeemed => Err(already_redeemed()),
        }
    }
}

impl Directory {
    /// The pending sign-in that a person's code stands for. People type lower case, blanks and hyphens.
    pub(crate) async fn pending_device(&self, typed: &str) -> Result<Option<Row<DeviceCode>>, Fault> {
        let code: String = typed.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
        let code = code.to_ascii_uppercase();
        let Some(named) = self.store.get(USER_CODES, digest(&code).as_str()).await? else { return Ok(None) };
        self.pending_device_by_digest(&named.value.device_code_digest).await
    }

    pub(crate) async fn pending_device_by_digest(
        &self,
        digest: &str,
    ) -> Result<Option<Row<DeviceCode>>, Fault> {
        let now = self.clock.epoch_seconds();
        let row = self.store.get(DEVICE_CODES, digest).await?;
        Ok(row.filter(|row| row.value.state == DeviceState::Pending && row.value.expires_seconds > now))
    }

    /// Records a person's answer. `false` when the code was answered or expired meanwhile.
    pub(crate) async fn answer_device(
        &self,
        permit: &Permit<Open>,
        digest: &str,
        state: DeviceState,
    ) -> Result<bool, Fault> {
        let Some(row) = self.pending_device_by_digest(digest).await? else { return Ok(false) };
        let mut batch = Batch::new();
        batch.require_revision(DEVICE_CODES, digest, row.revision);
        batch.put(DEVICE_CODES, digest, &DeviceCode { state, ..row.value })?;
        Ok(self.commit(permit.stamp(), batch).await? == Committed::Written)
    }
}

/// The person's code is not one that waits for an answer.
pub(crate) fn wrong_user_code() -> Fault {
    invalid_grant(70_018, "That code didn't work. Check the code and try again, or start the sign-in anew.")
}
