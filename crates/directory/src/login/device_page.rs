//! The page on which a person enters a device's code, signs in and confirms.

use arcadia_crypto::Zeroizing;
use arcadia_kernel::{At, Fault, Form, Open, Permit, Reply, Request, StatusCode};

use crate::login::Login;
use crate::login::client::Client;
use crate::login::device::wrong_user_code;
use crate::login::faults::too_many_requests;
use crate::login::page::{Page, error_line, escape, sign_in_form};
use crate::login::person::signed_in;
use crate::login::tenant::TenantPath;
use crate::login::ticket::{Browser, Step};
use crate::model::{DeviceCode, DeviceState};
use crate::throttle::{Allowance, counted_address};

const TITLE: &str = "Sign in to a device";

pub(super) async fn show(at: At<Login>, _: Permit<Open>, request: Request) -> Result<Reply, Fault> {
    let typed = ["otc", "user_code"].iter().find_map(|name| request.query.first(name)).unwrap_or("");
    let browser = Browser::of(&at.directory, &request.head);
    code_page(&at, &browser, typed, None)
}

pub(super) async fn submit(at: At<Login>, permit: Permit<Open>, form: Form) -> Result<Reply, Fault> {
    let browser = Browser::of(&at.directory, &form.head);
    let ticket = form.fields.first("ticket").unwrap_or("");
    match at.directory.open_step(&form.head, ticket)? {
        Some(Step::EnterDeviceCode) => enter_code(&at, &browser, &form).await,
        Some(Step::DeviceSignIn(device)) => sign_in(&at, &permit, &browser, &form, device).await,
        Some(Step::DeviceConfirm { device, user, session_epoch }) => {
            let agreed = form.fields.first("answer") == Some("continue");
            let signed_in_seconds = permit.epoch_seconds();
            let state = match agreed {
                true => DeviceState::Approved { user, session_epoch, signed_in_seconds },
                false => DeviceState::Declined,
            };
            confirm(&at, &browser, &permit, &device, state).await
        }
        // A ticket of another page, another browser, or an old one: begin again.
        Some(Step::Authorize(_)) | None => {
            let error = "The page was open for too long, or cookies are switched off. Enter the code again.";
            code_page(&at, &browser, "", Some(error))
        }
    }
}

fn code_page(at: &At<Login>, browser: &Browser, typed: &str, error: Option<&str>) -> Result<Reply, Fault> {
    let ticket = at.directory.seal_step(browser, Step::EnterDeviceCode)?;
    let body = format!(
        "<p>Enter the code that is shown on your device or in your terminal.</p>{}<form method=\"post\">\
         <input type=\"hidden\" name=\"ticket\" value=\"{}\"><label for=\"c\">Code</label>\
         <input id=\"c\" class=\"code\" name=\"user_code\" value=\"{}\" autocomplete=\"off\" required \
         maxlength=\"32\" autofocus><button type=\"submit\">Next</button></form>",
        error_line(error),
        escape(&ticket),
        escape(&typed.chars().take(32).collect::<String>()),
    );
    let mut page = Page::new(TITLE, body);
    if error.is_some() {
        page.status = StatusCode::BAD_REQUEST;
    }
    page.render(&at.directory, Some(browser))
}

async fn enter_code(at: &At<Login>, browser: &Browser, form: &Form) -> Result<Reply, Fault> {
    let directory = &at.directory;
    let address = counted_address(form.head.remote);
    let subjects = [(Allowance::USER_CODE, address.as_str())];
    let Ok(attempt) = directory.throttle.begin(&subjects, &*directory.clock).await else {
        return code_page(at, browser, "", Some(&too_many_requests().message));
    };
    let typed = form.fields.first("user_code").unwrap_or("");
    let Some(row) = directory.pending_device(typed).await? else {
        return code_page(at, browser, typed, Some(&wrong_user_code().message));
    };
    attempt.was_right();
    sign_in_page(at, browser, row.value, "", None)
}

/// What the person is about to sign in to, by the name its application has here.
fn purpose(at: &At<Login>, device: &DeviceCode) -> Result<String, Fault> {
    let tenant = at.directory.founded_tenant()?;
    let path = TenantPath::resolve(&at.directory, &tenant.id.to_string(), "invalid_request")?;
    let client = Client::find(&at.directory, &device.client.to_string(), &path)?;
    Ok(client.display_name())
}

fn sign_in_page(
    at: &At<Login>,
    browser: &Browser,
    device: DeviceCode,
    user: &str,
    error: Option<&str>,
) -> Result<Reply, Fault> {
    let purpose = format!(
        "You are signing in to {} on another device or in a terminal. Do not go on if someone else sent you the \
         code.",
        purpose(at, &device)?
    );
    let ticket = at.directory.seal_step(browser, Step::DeviceSignIn(device.digest))?;
    let mut page = Page::new(TITLE, sign_in_form("", &ticket, &purpose, user, error));
    if error.is_some() {
        page.status = StatusCode::BAD_REQUEST;
    }
    page.render(&at.directory, Some(browser))
}

async fn sign_in(
    at: &At<Login>,
    permit: &Permit<Open>,
    browser: &Browser,
    form: &Form,
    device: String,
) -> Result<Reply, Fault> {
    let directory = &at.directory;
    let Some(row) = directory.pending_device_by_digest(&device).await? else {
        return code_page(at, browser, "", Some(&wrong_user_code().message));
    };
    let name = form.fields.first("username").unwrap_or("");
    let password = Zeroizing::new(form.fields.first("password").unwrap_or("").to_owned());
    let user = match directory.check_password(&form.head, permit.stamp(), name, password).await {
        Ok(user) => user,
        Err(fault) if fault.status.is_server_error() => return Err(fault),
        Err(fault) => return sign_in_page(at, browser, row.value, name, Some(&fault.message)),
    };
    let application = purpose(at, &row.value)?;
    let step = Step::DeviceConfirm { device, user: user.id, session_epoch: user.session_epoch };
    let ticket = directory.seal_step(browser, step)?;
    let body = format!(
        "<p>Are you trying to sign in to <strong>{}</strong> as <strong>{}</strong>?</p>\
         <p>Only continue if you started this on your own device.</p><form method=\"post\">\
         <input type=\"hidden\" name=\"ticket\" value=\"{}\"><button name=\"answer\" value=\"continue\">Continue\
         </button><button class=\"plain\" name=\"answer\" value=\"cancel\">Cancel</button></form>",
        escape(&application),
        escape(&user.upn),
        escape(&ticket),
    );
    Page::new(TITLE, body).render(directory, Some(browser))
}

async fn confirm(
    at: &At<Login>,
    browser: &Browser,
    permit: &Permit<Open>,
    device: &str,
    state: DeviceState,
) -> Result<Reply, Fault> {
    if let DeviceState::Approved { user, session_epoch, .. } = state {
        let user = at.directory.signed_in_user(user, session_epoch)?;
        permit.stamp().identify(signed_in(&user, uuid::Uuid::nil()));
    }
    let approved = state != DeviceState::Declined;
    if !at.directory.answer_device(permit, device, state).await? {
        return code_page(at, browser, "", Some(&wrong_user_code().message));
    }
    let body = match approved {
        true => "<p>You have signed in on your device. You may now close this window.</p>",
        false => "<p>The sign-in was cancelled. You may now close this window.</p>",
    };
    Page::new(TITLE, body.to_owned()).render(&at.directory, Some(browser))
}
