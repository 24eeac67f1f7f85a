//! What a sign-in page hands itself from one step to the next: authenticated, short-lived, bound to one browser.

use arcadia_crypto::{b64url, b64url_decode, constant_time_eq, hmac_sha256};
use arcadia_kernel::{EntropyExt as _, Fault, RequestHead, header};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::directory::Directory;
use crate::login::authorize::AuthorizeRequest;
use crate::model::digest;

const LIFETIME_SECONDS: i64 = 10 * 60;
const TICKET_CHARACTERS_MAX: usize = 64 * 1024;
const COOKIE: &str = "__Host-arcadia-sign-in";
const COOKIE_BYTES: usize = 24;
const COOKIE_CHARACTERS_MAX: usize = 64;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Step {
    EnterDeviceCode,
    /// The device code's digest.
    DeviceSignIn(String),
    DeviceConfirm {
        device: String,
        user: Uuid,
        session_epoch: u64,
    },
    Authorize(Box<AuthorizeRequest>),
}

#[derive(Serialize, Deserialize)]
struct Ticket {
    /// Digest of the cookie of the browser that asked for the page.
    browser: String,
    expires_seconds: i64,
    step: Step,
}

/// The browser a page is for.
pub(crate) struct Browser {
    cookie: String,
    is_new: bool,
}

impl Browser {
    /// The browser that sent this request; it is given a cookie if it has none.
    pub(crate) fn of(directory: &Directory, head: &RequestHead) -> Self {
        match cookie(head) {
            Some(cookie) => Self { cookie, is_new: false },
            None => Self { cookie: directory.entropy.token(COOKIE_BYTES), is_new: true },
        }
    }

    pub(crate) fn set_cookie(&self) -> Option<String> {
        let cookie = &self.cookie;
        self.is_new.then(|| format!("{COOKIE}={cookie}; Path=/; Secure; HttpOnly; SameSite=Lax"))
    }
}

/// The header that makes a browser forget.
pub(crate) fn forget_cookie() -> String {
    format!("{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0")
}

pub(super) fn cookie(head: &RequestHead) -> Option<String> {
    let cookies = head.headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, value)| *name == COOKIE && (1..=COOKIE_CHARACTERS_MAX).contains(&value.len()))
        .map(|(_, value)| value.to_owned())
}

impl Directory {
    /// Seals `step` for `browser`.
    pub(crate) fn seal_step(&self, browser: &Browser, step: Step) -> Result<String, Fault> {
        let ticket = Ticket {
            browser: digest(&browser.cookie),
            expires_seconds: self.clock.epoch_seconds() + LIFETIME_SECONDS,
            step,
        };
        let body = serde_json::to_vec(&ticket).map_err(Fault::internal)?;
        let tag = hmac_sha256(&self.form_key()?, &body);
        Ok(format!("{}.{}", b64url(&body), b64url(&tag)))
    }

    /// The step that this browser was at. `None` for a ticket that is forged, expired or another browser's.
    pub(crate) fn open_step(&self, head: &RequestHead, ticket: &str) -> Result<Option<Step>, Fault> {
        if ticket.len() > TICKET_CHARACTERS_MAX {
            return Ok(None);
        }
        let parts =
            ticket.split_once('.').and_then(|(body, tag)| b64url_decode(body).zip(b64url_decode(tag)));
        let Some((body, tag)) = parts else { return Ok(None) };
        if !constant_time_eq(&hmac_sha256(&self.form_key()?, &body), &tag) {
            return Ok(None);
        }
        let ticket: Ticket = serde_json::from_slice(&body).map_err(Fault::internal)?;
        let cookie = cookie(head).unwrap_or_default();
        let same_browser = constant_time_eq(digest(&cookie).as_bytes(), ticket.browser.as_bytes());
        let in_time = self.clock.epoch_seconds() < ticket.expires_seconds;
        Ok((same_browser && in_time).then_some(ticket.step))
    }

    /// The key for what only this site can have made.
    pub(crate) fn form_key(&self) -> Result<std::sync::Arc<[u8]>, Fault> {
        let key = self.snapshot().form_key();
        key.ok_or_else(|| Fault::unavailable("The directory is not set up yet. Retry in a moment."))
    }
}
