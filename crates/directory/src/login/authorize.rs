//! Authorization codes (RFC 6749 section 4.1, RFC 7636): sign-in in the browser of the same machine.

use arcadia_crypto::{Zeroizing, b64url, constant_time_eq, sha256};
use arcadia_kernel::{
    At, EntropyExt as _, Fault, Form, HeaderValue, Open, Permit, Query, Reply, Request, RequestHead,
    StatusCode, header,
};
use arcadia_store::Batch;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::directory::{Committed, Directory};
use crate::login::Login;
use crate::login::client::Client;
use crate::login::faults::{invalid_grant, invalid_request, missing_parameter, refusal, shown};
use crate::login::issue::Version;
use crate::login::page::{Page, escape, sign_in_form};
use crate::login::redirect::{form_target, is_public_redirect, may_redirect};
use crate::login::resource::Wanted;
use crate::login::tenant::TenantPath;
use crate::login::ticket::{Browser, Step};
use crate::login::token::{Exchange, Granted, already_redeemed, asked};
use crate::model::{AUTHORIZATION_CODES, AuthorizationCode, User, digest};

const CODE_BYTES: usize = 48;
const CODE_CHARACTERS_MAX: usize = 256;
const CODE_LIFETIME_SECONDS: i64 = 10 * 60;
const PARAMETER_CHARACTERS_MAX: usize = 4096;
const VERIFIER_CHARACTERS: std::ops::RangeInclusive<usize> = 43..=128;
/// Percent-encodes everything but the unreserved characters of RFC 3986.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const AUTO_SUBMIT: &str = "document.forms[0].submit()";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum ResponseMode {
    Query,
    Fragment,
    FormPost,
}

/// An application's request for a person's sign-in, checked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AuthorizeRequest {
    client: Uuid,
    client_name: String,
    redirect_uri: String,
    scope: String,
    state: Option<String>,
    nonce: Option<String>,
    challenge: Option<String>,
    response_mode: ResponseMode,
    client_info: bool,
    /// The tenant as the path named it.
    tenant: String,
}

pub(super) async fn show_v2(at: At<Login>, _: Permit<Open>, request: Request) -> Result<Reply, Fault> {
    show(at, request, Version::V2)
}

pub(super) async fn show_v1(at: At<Login>, _: Permit<Open>, request: Request) -> Result<Reply, Fault> {
    show(at, request, Version::V1)
}

fn show(at: At<Login>, request: Request, version: Version) -> Result<Reply, Fault> {
    let directory = &*at.directory;
    let (client, mut asking) = match addressed(directory, &request.head) {
        Ok(found) => found,
        // Where to send the browser back to is not known to be the application's: say it here.
        Err(fault) => return error_page(directory, fault),
    };
    if let Err(fault) = complete(directory, version, &request.query, &client, &mut asking) {
        return send_back(directory, &asking, Err(fault));
    }
    let browser = Browser::of(directory, &request.head);
    let hint = request.query.first("login_hint").unwrap_or("");
    page(directory, &browser, asking, hint, None)
}

/// The client and its address: all that must be right before an error may be sent there.
fn addressed(directory: &Directory, head: &RequestHead) -> Result<(Client, AuthorizeRequest), Fault> {
    let path = TenantPath::resolve(directory, head.param("tenant"), "invalid_request")?;
    let field = |name: &str| head.query.first(name).filter(|value| !value.is_empty());
    let client_id = field("client_id").ok_or_else(|| missing_parameter("client_id"))?;
    let client = Client::find(directory, client_id, &path)?;
    let redirect_uri = field("redirect_uri").ok_or_else(|| missing_parameter("redirect_uri"))?;
    check_redirect(&client, redirect_uri)?;
    let response_mode = match field("response_mode") {
        None | Some("query") => ResponseMode::Query,
        Some("fragment") => ResponseMode::Fragment,
        Some("form_post") => ResponseMode::FormPost,
        Some(other) => {
            let message = format!("The response_mode '{}' is not supported.", shown(other));
            return Err(invalid_request(70_007, message));
        }
    };
    let bounded = |name: &str| {
        let value = field(name);
        if value.is_some_and(|value| value.len() > PARAMETER_CHARACTERS_MAX) {
            return Err(invalid_request(9_002_313, format!("The parameter '{name}' is too long.")));
        }
        Ok(value.map(str::to_owned))
    };
    let asking = AuthorizeRequest {
        client: client.app_id,
        client_name: client.display_name(),
        redirect_uri: redirect_uri.to_owned(),
        scope: String::new(),
        state: bounded("state")?,
        nonce: bounded("nonce")?,
        challenge: None,
        response_mode,
        client_info: field("client_info") == Some("1"),
        tenant: path.text,
    };
    Ok((client, asking))
}

fn check_redirect(client: &Client, uri: &str) -> Result<(), Fault> {
    if uri.len() <= PARAMETER_CHARACTERS_MAX && may_redirect(client, uri) {
        return Ok(());
    }
    let message = format!(
        "The redirect URI '{}' specified in the request does not match the redirect URIs configured for the \
         application '{}'. Add it to the application's registration.",
        shown(uri),
        client.app_id
    );
    Err(invalid_request(50_011, message))
}

/// The page was open for as long as the person took: what held when it was asked for may not hold any more.
fn still_addressed(directory: &Directory, asking: &AuthorizeRequest) -> Result<(), Fault> {
    let path = TenantPath::resolve(directory, &asking.tenant, "invalid_request")?;
    let client = Client::find(directory, &asking.client.to_string(), &path)?;
    check_redirect(&client, &asking.redirect_uri)
}

/// The rest of the request; its errors go back to the application.
fn complete(
    directory: &Directory,
    version: Version,
    query: &Query,
    client: &Client,
    asking: &mut AuthorizeRequest,
) -> Result<(), Fault> {
    if query.first("response_type") != Some("code") {
        let message = "The response_type must be 'code'.";
        return Err(refusal(400, "unsupported_response_type", 700_054, message));
    }
    if query.first("prompt") == Some("none") {
        let message = "Session information is not sufficient for single-sign-on: the person has to sign in.";
        return Err(refusal(400, "login_required", 50_058, message));
    }
    let tenant = directory.founded_tenant()?;
    let wanted: Wanted = asked(directory, version, query)?.ok_or_else(|| missing_parameter("scope"))?;
    let resource = wanted.find(directory, &tenant)?;
    wanted.delegated(&resource, client)?;
    asking.scope = wanted.scope;
    let method = query.first("code_challenge_method");
    asking.challenge = match (query.first("code_challenge"), method) {
        (Some(challenge), Some("S256")) if challenge.len() == 43 => Some(challenge.to_owned()),
        (None, None) => None,
        _ => {
            let message = "The code_challenge must be 43 characters with code_challenge_method 'S256'.";
            return Err(invalid_request(501_491, message));
        }
    };
    if asking.challenge.is_none() && redeems_without_secret(client, &asking.redirect_uri) {
        let message = "Proof Key for Code Exchange is required: send a code_challenge with method 'S256'.";
        return Err(invalid_request(9_002_325, message));
    }
    Ok(())
}

/// Whether its codes are redeemed by clients that can keep no secret.
fn redeems_without_secret(client: &Client, redirect_uri: &str) -> bool {
    client.is_public() || client.application.as_ref().is_some_and(|app| is_public_redirect(app, redirect_uri))
}

fn page(
    directory: &Directory,
    browser: &Browser,
    asking: AuthorizeRequest,
    user: &str,
    error: Option<&str>,
) -> Result<Reply, Fault> {
    let purpose = format!("to continue to {}", asking.client_name);
    let action = format!("/{}/login", asking.tenant);
    let target = form_target(&asking.redirect_uri);
    let ticket = directory.seal_step(browser, Step::Authorize(Box::new(asking)))?;
    let mut page = Page::new("Sign in", sign_in_form(&action, &ticket, &purpose, user, error));
    page.form_target = target;
    if error.is_some() {
        page.status = StatusCode::BAD_REQUEST;
    }
    page.render(directory, Some(browser))
}

/// The posted sign-in form.
pub(super) async fn submit(at: At<Login>, permit: Permit<Open>, form: Form) -> Result<Reply, Fault> {
    let directory = &*at.directory;
    let ticket = form.fields.first("ticket").unwrap_or("");
    let Some(Step::Authorize(asking)) = directory.open_step(&form.head, ticket)? else {
        let message = "The page was open for too long, or cookies are switched off. Go back to the application and \
                       start the sign-in again.";
        return error_page(directory, invalid_request(90_015, message));
    };
    let name = form.fields.first("username").unwrap_or("");
    let password = Zeroizing::new(form.fields.first("password").unwrap_or("").to_owned());
    let user = match directory.check_password(&form.head, permit.stamp(), name, password).await {
        Ok(user) => user,
        Err(fault) if fault.status.is_server_error() => return Err(fault),
        Err(fault) => {
            let browser = Browser::of(directory, &form.head);
            return page(directory, &browser, *asking, name, Some(&fault.message));
        }
    };
    if let Err(fault) = still_addressed(directory, &asking) {
        return error_page(directory, fault);
    }
    let code = keep_code(directory, &permit, &asking, &user).await?;
    let client_info = asking.client_info.then(|| client_info(directory, &user)).transpose()?;
    send_back(directory, &asking, Ok((code, client_info)))
}

fn client_info(directory: &Directory, user: &User) -> Result<String, Fault> {
    let tenant = directory.founded_tenant()?;
    let info = serde_json::json!({ "uid": user.id, "utid": tenant.id }).to_string();
    Ok(b64url(info.as_bytes()))
}

async fn keep_code(
    directory: &Directory,
    permit: &Permit<Open>,
    asking: &AuthorizeRequest,
    user: &User,
) -> Result<String, Fault> {
    let now = directory.clock.epoch_seconds();
    let code = format!("1.{}", directory.entropy.token(CODE_BYTES));
    let row = AuthorizationCode {
        digest: digest(&code),
        client: asking.client,
        user: user.id,
        session_epoch: user.session_epoch,
        redirect_uri: asking.redirect_uri.clone(),
        scope: asking.scope.clone(),
        nonce: asking.nonce.clone(),
        challenge: asking.challenge.clone(),
        expires_seconds: now + CODE_LIFETIME_SECONDS,
        signed_in_seconds: now,
        redeemed: None,
    };
    let mut batch = Batch::new();
    batch.require_absent(AUTHORIZATION_CODES, row.digest.as_str());
    batch.put(AUTHORIZATION_CODES, row.digest.as_str(), &row)?;
    match directory.commit(permit.stamp(), batch).await? {
        Committed::Written => Ok(code),
        Committed::LostRace => Err(Fault::unavailable("The code could not be kept. Retry.")),
    }
}

/// Brings the browser back to the application, with a code or an error.
fn send_back(
    directory: &Directory,
    asking: &AuthorizeRequest,
    result: Result<(String, Option<String>), Fault>,
) -> Result<Reply, Fault> {
    let mut fields: Vec<(&str, String)> = Vec::new();
    match result {
        Ok((code, client_info)) => {
            fields.push(("code", code));
            fields.extend(client_info.map(|info| ("client_info", info)));
        }
        Err(fault) if fault.status.is_server_error() => return Err(fault),
        Err(fault) => {
            let number = fault.inner.as_deref().unwrap_or("900000");
            // There is no grant yet that could be invalid.
            let code = match &*fault.code {
                "invalid_grant" if fault.extra.contains_key("suberror") => "consent_required",
                "invalid_grant" => "access_denied",
                code => code,
            };
            fields.push(("error", code.to_owned()));
            fields.push(("error_description", format!("AADSTS{number}: {}", fault.message)));
        }
    }
    fields.extend(asking.state.clone().map(|state| ("state", state)));
    match asking.response_mode {
        ResponseMode::FormPost => form_post(directory, &asking.redirect_uri, &fields),
        mode => redirect(&asking.redirect_uri, mode, &fields),
    }
}

fn form_post(directory: &Directory, uri: &str, fields: &[(&str, String)]) -> Result<Reply, Fault> {
    let mut body = format!("<form method=\"post\" action=\"{}\">", escape(uri));
    for (name, value) in fields {
        body.push_str(&format!("<input type=\"hidden\" name=\"{name}\" value=\"{}\">", escape(value)));
    }
    body.push_str("<p>You are being sent back to the application.</p><button>Continue</button></form>");
    let mut page = Page::new("Signed in", body);
    page.script = Some(AUTO_SUBMIT);
    page.form_target = form_target(uri);
    page.render(directory, None)
}

fn redirect(uri: &str, mode: ResponseMode, fields: &[(&str, String)]) -> Result<Reply, Fault> {
    let pairs: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, QUERY))).collect();
    let separator = match (mode, uri.contains('?')) {
        (ResponseMode::Fragment, _) => '#',
        (_, true) => '&',
        (_, false) => '?',
    };
    let location = format!("{uri}{separator}{}", pairs.join("&"));
    Reply::empty(StatusCode::FOUND).with_text(header::LOCATION, &location)
}

fn error_page(directory: &Directory, fault: Fault) -> Result<Reply, Fault> {
    if fault.status.is_server_error() {
        return Err(fault);
    }
    let number = fault.inner.as_deref().unwrap_or("900000");
    let body = format!("<p class=\"error\">AADSTS{number}: {}</p>", escape(&fault.message));
    let mut page = Page::new("Sorry, but we're having trouble signing you in.", body);
    page.status = fault.status;
    page.render(directory, None)
}

impl Exchange<'_> {
    pub(super) async fn authorization_code(&self) -> Result<Granted, Fault> {
        let code = self.required("code")?;
        let unknown = || {
            let message =
                "The provided authorization code is invalid or has expired. Start the sign-in again.";
            invalid_grant(70_008, message)
        };
        if code.len() > CODE_CHARACTERS_MAX {
            return Err(unknown());
        }
        let row = self.directory.store.get(AUTHORIZATION_CODES, digest(code).as_str()).await?;
        let row = row.ok_or_else(unknown)?;
        let kept = row.value;
        if kept.client != self.client.app_id {
            return Err(invalid_grant(
                70_000,
                "The provided authorization code was issued to another client.",
            ));
        }
        if self.required("redirect_uri")? != kept.redirect_uri {
            let message = "The reply address does not match the one the authorization code was sent to.";
            return Err(invalid_grant(50_011, message));
        }
        self.again()?.check_may_sign_people_in(Some(&kept.redirect_uri))?;
        let verifier = self.fields.first("code_verifier").filter(|verifier| !verifier.is_empty());
        check_verifier(&kept, verifier)?;
        if let Some(session) = kept.redeemed {
            // Someone has the code who should not: end what it was exchanged for (RFC 6749 section 4.1.2).
            self.directory.revoke_session(self.stamp, session).await?;
            return Err(already_redeemed());
        }
        if kept.expires_seconds <= self.now {
            return Err(unknown());
        }
        let signed_in = (kept.user, kept.session_epoch, kept.signed_in_seconds);
        let (scope, nonce) = (self.code_scope(&kept)?, kept.nonce.clone());
        self.finish_page_sign_in(&scope, signed_in, nonce, |batch, session| {
            batch.require_revision(AUTHORIZATION_CODES, kept.digest.as_str(), row.revision);
            let digest = kept.digest.clone();
            // Without a session there is nothing to revoke; a nil id still marks the code as used.
            let used = AuthorizationCode { redeemed: Some(session.unwrap_or(Uuid::nil())), ..kept };
            batch.put(AUTHORIZATION_CODES, digest.as_str(), &used)?;
            Ok(())
        })
        .await
    }

    /// The token request may name the scope again, of the same sign-in.
    fn code_scope(&self, kept: &AuthorizationCode) -> Result<String, Fault> {
        let asked = asked(self.directory, self.version, self.fields)?;
        Ok(asked.map_or_else(|| kept.scope.clone(), |wanted| wanted.scope))
    }
}

fn check_verifier(kept: &AuthorizationCode, verifier: Option<&str>) -> Result<(), Fault> {
    let matches = match (&kept.challenge, verifier) {
        (None, None) => true,
        // Somebody took the challenge out of the authorization request (RFC 9700 section 2.1.1).
        (None, Some(_)) => false,
        (Some(_), None) => return Err(missing_parameter("code_verifier")),
        (Some(challenge), Some(verifier)) => {
            VERIFIER_CHARACTERS.contains(&verifier.len())
                && constant_time_eq(b64url(&sha256(verifier.as_bytes())).as_bytes(), challenge.as_bytes())
        }
    };
    if matches {
        return Ok(());
    }
    let message =
        "The Code_Verifier does not match the code_challenge supplied in the authorization request.";
    Err(invalid_grant(501_481, message))
}

/// What every sign-out address answers: there is no session in the browser to end.
pub(super) async fn logout(at: At<Login>, _: Permit<Open>, _: Request) -> Result<Reply, Fault> {
    let body =
        "<p>You signed out of your account. It's a good idea to close all browser windows.</p>".to_owned();
    let reply = Page::new("Signed out", body).render(&at.directory, None)?;
    let cookie = crate::login::ticket::forget_cookie();
    Ok(reply
        .with_text(header::SET_COOKIE, &cookie)?
        .with(header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
}
