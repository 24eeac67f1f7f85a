use std::sync::Arc;

use arcadia_crypto::{b64url, sha256};
use arcadia_directory::AZURE_CLI_APP_ID;
use serde_json::json;

use crate::world::{ARM, Answer, World, encode, text};

pub const UPN: &str = "nina@arcadia.example";

pub async fn begin(world: &World) -> (String, String) {
    begin_as(world, &AZURE_CLI_APP_ID.to_string()).await
}

/// The codes for the device and for its user.
async fn begin_as(world: &World, client: &str) -> (String, String) {
    let scope = format!("{ARM} offline_access openid profile");
    let fields = [("client_id", client), ("scope", scope.as_str())];
    let answer = world.post("/organizations/oauth2/v2.0/devicecode", &fields).await.ok();
    assert_eq!((answer["expires_in"].as_i64(), answer["interval"].as_i64()), (Some(900), Some(5)));
    assert_eq!(answer["verification_uri"], "https://microsoft.com/devicelogin");
    assert!(text(&answer, "message").contains(&text(&answer, "user_code")));
    (text(&answer, "device_code"), text(&answer, "user_code"))
}

/// As `az` polls: without a scope, and with the code twice.
pub async fn poll(world: &World, code: &str) -> Answer {
    let az = AZURE_CLI_APP_ID.to_string();
    let fields = [
        ("client_id", az.as_str()),
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("code", code),
        ("device_code", code),
    ];
    world.token("organizations", &fields).await
}

pub fn cookie(answer: &Answer) -> String {
    let header = answer.headers["set-cookie"].to_str().unwrap();
    assert!(header.contains("HttpOnly") && header.contains("Secure") && header.contains("SameSite=Lax"));
    header.split(';').next().unwrap().to_owned()
}

/// Goes through the pages as a person does, up to the answer.
pub async fn confirm(world: &World, user_code: &str, password: &str, decision: &str) -> Answer {
    steps(world, user_code, password, decision).await.pop().unwrap()
}

/// The pages that a person sees who goes through them: for the password, to confirm, and the answer.
async fn steps(world: &World, user_code: &str, password: &str, decision: &str) -> Vec<Answer> {
    let page = world.get(&format!("/device?otc={user_code}")).await;
    let cookie = cookie(&page);
    let headers = [("cookie", cookie.as_str())];
    let typed = format!(" {}-{} ", &user_code[..4].to_lowercase(), &user_code[4..]);
    let ticket = page.hidden("ticket");
    let sign_in = world.post_with("/device", &headers, &[("ticket", &ticket), ("user_code", &typed)]).await;
    let ticket = sign_in.hidden("ticket");
    let fields = [("ticket", ticket.as_str()), ("username", UPN), ("password", password)];
    let confirm = world.post_with("/device", &headers, &fields).await;
    if confirm.status != 200 {
        return vec![sign_in, confirm];
    }
    let ticket = confirm.hidden("ticket");
    let answer = world.post_with("/device", &headers, &[("ticket", &ticket), ("answer", decision)]).await;
    vec![sign_in, confirm, answer]
}

#[tokio::test]
async fn a_device_code_is_redeemed_once() {
    let world = World::new().await;
    world.user("nina").await;
    let (device_code, user_code) = begin(&world).await;
    let pending = poll(&world, &device_code).await;
    assert_eq!(pending.refusal(), (400, "authorization_pending".into(), 70_016));
    assert_eq!(pending.headers["retry-after"], "0");
    let world = world.restarted().await;
    let wrong = confirm(&world, &user_code, "wrong", "continue").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text.contains("invalid username or password"));
    let pages = steps(&world, &user_code, "Passw0rd!", "continue").await;
    for (page, says) in pages.iter().zip(["Microsoft Azure CLI", "Microsoft Azure CLI", "You have signed in"])
    {
        assert!(page.text.contains(says), "{}", page.text);
    }
    let answer = poll(&world, &device_code).await.ok();
    assert!(text(&answer, "scope").split(' ').any(|scope| scope == ARM), "the scope was remembered");
    assert_eq!(world.claims(&text(&answer, "access_token"))["upn"], UPN);
    assert!(answer["refresh_token"].is_string() && answer["id_token"].is_string());
    assert_eq!(poll(&world, &device_code).await.refusal(), (400, "invalid_grant".into(), 54_005));
}

/// What an application is called, and what a stranger sends, stands on the page as text.
#[tokio::test]
async fn no_page_has_markup_of_others() {
    let world = World::new().await;
    world.user("nina").await;
    let (id, app_id, ..) = world.application("<i>\"orders\"</i>").await;
    world.consent(&id).await;
    let (_, user_code) = begin_as(&world, &app_id).await;
    let mut pages = steps(&world, &user_code, "Passw0rd!", "continue").await;
    pages.truncate(2);
    let error = world.get(&authorize_path(&encode("<i>\"orders\"</i>"), REDIRECT, "")).await;
    assert_eq!(error.status, 400);
    pages.push(error);
    for page in pages {
        assert!(page.text.contains("&lt;i&gt;&quot;orders&quot;&lt;/i&gt;"), "{}", page.text);
        assert!(!page.text.contains("<i>"), "{}", page.text);
    }
}

#[tokio::test]
async fn a_device_code_is_redeemed_with_the_secret_of_its_application() {
    let world = World::new().await;
    world.user("nina").await;
    let (id, app_id, _, secret) = world.application("web").await;
    world.consent(&id).await;
    let (device_code, user_code) = begin_as(&world, &app_id).await;
    confirm(&world, &user_code, "Passw0rd!", "continue").await;
    let mut fields =
        vec![("client_id", &*app_id), ("grant_type", "device_code"), ("device_code", &*device_code)];
    let refused = world.token("organizations", &fields).await;
    assert_eq!(refused.refusal(), (401, "invalid_client".into(), 7_000_218));
    fields.push(("client_secret", &secret));
    world.token("organizations", &fields).await.ok();
}

#[tokio::test]
async fn of_many_polls_one_is_answered() {
    let world = Arc::new(World::new().await);
    world.user("nina").await;
    let (device_code, user_code) = begin(&world).await;
    confirm(&world, &user_code, "Passw0rd!", "continue").await;
    let polls: Vec<_> = (0..8)
        .map(|_| {
            let (world, code) = (world.clone(), device_code.clone());
            tokio::spawn(async move { poll(&world, &code).await.status.as_u16() })
        })
        .collect();
    let mut statuses = Vec::new();
    for one in polls {
        statuses.push(one.await.unwrap());
    }
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
}

#[tokio::test]
async fn declined_expired_and_foreign_device_codes() {
    let world = World::new().await;
    world.user("nina").await;
    let (device_code, user_code) = begin(&world).await;
    let page = confirm(&world, &user_code, "Passw0rd!", "cancel").await;
    assert!(page.text.contains("cancelled"));
    assert_eq!(poll(&world, &device_code).await.refusal().1, "authorization_declined");
    let (device_code, user_code) = begin(&world).await;
    let (_, app_id, _, secret) = world.application("other").await;
    let fields = [
        ("client_id", app_id.as_str()),
        ("client_secret", secret.as_str()),
        ("grant_type", "device_code"),
        ("device_code", device_code.as_str()),
    ];
    assert_eq!(world.token("organizations", &fields).await.refusal().1, "bad_verification_code");
    world.clock.advance_seconds(901);
    assert_eq!(poll(&world, &device_code).await.refusal().1, "expired_token");
    let page = world.get("/devicelogin").await;
    let cookie = cookie(&page);
    let fields = [("ticket", &*page.hidden("ticket")), ("user_code", &*user_code)];
    let late = world.post_with("/devicelogin", &[("cookie", &*cookie)], &fields).await;
    assert_eq!(late.status, 400);
    assert_eq!(poll(&world, "nonsense").await.refusal().1, "bad_verification_code");
}

#[tokio::test]
async fn a_step_is_for_one_browser_and_a_while() {
    let world = World::new().await;
    world.user("nina").await;
    let (device_code, user_code) = begin(&world).await;
    let page = world.get("/device").await;
    let (mine, ticket) = (cookie(&page), page.hidden("ticket"));
    let theirs = cookie(&world.get("/device").await);
    let fields = [("ticket", ticket.as_str()), ("user_code", user_code.as_str())];
    for headers in [vec![], vec![("cookie", theirs.as_str())]] {
        assert_eq!(world.post_with("/device", &headers, &fields).await.status, 400);
    }
    let forged = format!("{}.{}", ticket.split('.').next().unwrap(), b64url(&[0; 32]));
    let fields_forged = [("ticket", forged.as_str()), ("user_code", user_code.as_str())];
    assert_eq!(world.post_with("/device", &[("cookie", &mine)], &fields_forged).await.status, 400);
    assert_eq!(world.post_with("/device", &[("cookie", &mine)], &fields).await.status, 200);
    world.clock.advance_seconds(601);
    assert_eq!(world.post_with("/device", &[("cookie", &mine)], &fields).await.status, 400);
    assert_eq!(poll(&world, &device_code).await.refusal().1, "authorization_pending");
}

#[tokio::test]
async fn guessing_user_codes_is_throttled() {
    let world = World::new().await;
    let (_, user_code) = begin(&world).await;
    let page = world.get("/device").await;
    let (cookie, ticket) = (cookie(&page), page.hidden("ticket"));
    let headers = [("cookie", cookie.as_str())];
    for guess in 0..20 {
        let guess = format!("AAAAAAA{guess:02}");
        let fields = [("ticket", ticket.as_str()), ("user_code", guess.as_str())];
        assert_eq!(world.post_with("/device", &headers, &fields).await.status, 400);
    }
    let fields = [("ticket", ticket.as_str()), ("user_code", user_code.as_str())];
    let refused = world.post_with("/device", &headers, &fields).await;
    assert!(refused.text.contains("Too many"), "{}", refused.text);
    world.clock.advance_seconds(61);
    assert_eq!(world.post_with("/device", &headers, &fields).await.status, 200);
}

#[tokio::test]
async fn device_codes_for_strangers_are_bounded() {
    let world = World::new().await;
    let az = AZURE_CLI_APP_ID.to_string();
    let fields = [("client_id", az.as_str()), ("scope", ARM)];
    for _ in 0..60 {
        world.post("/common/oauth2/v2.0/devicecode", &fields).await.ok();
    }
    assert_eq!(world.post("/common/oauth2/v2.0/devicecode", &fields).await.refusal().0, 429);
    let v1 = [("client_id", az.as_str()), ("resource", "https://management.core.windows.net/")];
    let answer = world.post_from("10.4.4.4", "/common/oauth2/devicecode", &v1).await.ok();
    assert_eq!((&answer["expires_in"], &answer["interval"]), (&json!("900"), &json!("5")));
    assert!(answer["verification_url"].is_string());
    let nobody = [("client_id", "nobody"), ("scope", ARM)];
    assert_eq!(world.post("/common/oauth2/v2.0/devicecode", &nobody).await.refusal().2, 700_016);
}

pub const VERIFIER: &str = "pdsekHLjBhAySHo9Yz3kikUaI7ud4bcY8bMRhhdge3A";
pub const REDIRECT: &str = "http://localhost:46441";

pub fn authorize_path(client: &str, redirect: &str, extra: &str) -> String {
    let challenge = b64url(&sha256(VERIFIER.as_bytes()));
    format!(
        "/organizations/oauth2/v2.0/authorize?client_id={client}&response_type=code&redirect_uri={}&scope={}\
         &state=st%22ate&nonce=n1&code_challenge={challenge}&code_challenge_method=S256&client_info=1\
         &prompt=select_account{extra}",
        encode(redirect),
        encode(&format!("{ARM} offline_access openid profile")),
    )
}

pub async fn sign_in(world: &World, path: &str) -> Answer {
    let page = world.get(path).await;
    assert_eq!(page.status, 200, "{}", page.text);
    let cookie = cookie(&page);
    let fields = [("ticket", &*page.hidden("ticket")), ("username", UPN), ("password", "Passw0rd!")];
    world.post_with("/organizations/login", &[("cookie", &cookie)], &fields).await
}

pub async fn redeem(world: &World, code: &str, verifier: &str, redirect: &str) -> Answer {
    let az = AZURE_CLI_APP_ID.to_string();
    let fields = [
        ("client_id", az.as_str()),
        ("grant_type", "authorization_code"),
        ("code", code),
        ("code_verifier", verifier),
        ("redirect_uri", redirect),
        ("scope", ARM),
    ];
    world.token("organizations", &fields).await
}

#[tokio::test]
async fn a_browser_sign_in_posts_its_code_and_the_code_is_good_once() {
    let world = World::new().await;
    world.user("nina").await;
    let az = AZURE_CLI_APP_ID.to_string();
    let page = sign_in(&world, &authorize_path(&az, REDIRECT, "&response_mode=form_post")).await;
    assert!(page.text.contains(&format!("action=\"{REDIRECT}\"")), "{}", page.text);
    assert_eq!(page.hidden("state"), "st&quot;ate");
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("form-action 'self' http://localhost:46441;"), "{policy}");
    let code = page.hidden("code");
    assert_eq!(redeem(&world, &code, &"x".repeat(43), REDIRECT).await.refusal().2, 501_481);
    assert_eq!(redeem(&world, &code, VERIFIER, "http://localhost:1").await.refusal().2, 50_011);
    let fields = [("ticket", "x"), ("username", UPN), ("password", "Passw0rd!")];
    assert_eq!(world.post("/organizations/login", &fields).await.status, 400);
    let az_scope = [
        ("client_id", az.as_str()),
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("code_verifier", VERIFIER),
        ("redirect_uri", REDIRECT),
    ];
    let answer = world.token("organizations", &az_scope).await.ok();
    let id_token = arcadia_crypto::peek(&text(&answer, "id_token")).unwrap().1;
    assert_eq!(id_token["nonce"], "n1");
    assert_eq!(redeem(&world, &code, VERIFIER, REDIRECT).await.refusal().2, 54_005);
    let token = text(&answer, "refresh_token");
    let fields =
        [("client_id", az.as_str()), ("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
    assert_eq!(
        world.token("organizations", &fields).await.refusal().2,
        50_173,
        "a stolen code ends the session"
    );
}

#[tokio::test]
async fn a_code_expires() {
    let world = World::new().await;
    world.user("nina").await;
    let az = AZURE_CLI_APP_ID.to_string();
    let answer = sign_in(&world, &authorize_path(&az, REDIRECT, "")).await;
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    assert!(location.starts_with("http://localhost:46441?code="), "{location}");
    assert!(location.contains("&state=st%22ate"));
    let code = location.split(['=', '&']).nth(1).unwrap().to_owned();
    world.clock.advance_seconds(601);
    assert_eq!(redeem(&world, &code, VERIFIER, REDIRECT).await.refusal().2, 70_008);
}

#[tokio::test]
async fn codes_are_sent_to_registered_addresses_only() {
    let world = World::new().await;
    world.user("nina").await;
    let az = AZURE_CLI_APP_ID.to_string();
    for foreign in ["https://evil.example/", "http://localhost.evil.example", "http://localhost@evil.example"]
    {
        let page = world.get(&authorize_path(&az, foreign, "")).await;
        assert_eq!(page.status, 400, "{foreign}");
        assert!(page.text.contains("AADSTS50011") && page.headers.get("location").is_none());
    }
    let (id, app_id, _, secret) = world.application("web").await;
    world.consent(&id).await;
    let admin = world.admin_graph_token().await;
    let body = json!({ "web": { "redirectUris": ["https://web.example/cb"] } });
    world.graph(&admin, "PATCH", &format!("/v1.0/applications/{id}"), body).await.ok();
    assert_eq!(world.get(&authorize_path(&app_id, "https://web.example/cb/x", "")).await.status, 400);
    let answer = sign_in(&world, &authorize_path(&app_id, "https://web.example/cb", "")).await;
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    let code = location.split(['=', '&']).nth(1).unwrap().to_owned();
    let mut fields = vec![
        ("client_id", app_id.as_str()),
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("code_verifier", VERIFIER),
        ("redirect_uri", "https://web.example/cb"),
    ];
    assert_eq!(world.token("organizations", &fields).await.refusal().2, 7_000_218, "a web app has a secret");
    let other = redeem(&world, &code, VERIFIER, "https://web.example/cb").await;
    assert_eq!(other.refusal(), (400, "invalid_grant".into(), 70_000), "nor is it another's");
    fields.push(("client_secret", secret.as_str()));
    let answer = world.token("organizations", &fields).await.ok();
    assert!(answer.get("foci").is_none());
    let refresh = text(&answer, "refresh_token");
    let mut fields = vec![
        ("client_id", app_id.as_str()),
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh.as_str()),
    ];
    assert_eq!(world.token("organizations", &fields).await.refusal().2, 7_000_218);
    // Also when other sign-ins to the application are without one.
    let body = json!({ "publicClient": { "redirectUris": ["http://localhost/cb"] } });
    world.graph(&admin, "PATCH", &format!("/v1.0/applications/{id}"), body).await.ok();
    assert_eq!(world.token("organizations", &fields).await.refusal().2, 7_000_218);
    fields.push(("client_secret", secret.as_str()));
    world.token("organizations", &fields).await.ok();
}

/// Browsers hold the redirect after a form to the policy of the form's page.
#[tokio::test]
async fn the_page_lets_its_form_lead_to_an_application_on_the_device() {
    let world = World::new().await;
    world.user("nina").await;
    let (id, app_id, ..) = world.application("mobile").await;
    world.consent(&id).await;
    let admin = world.admin_graph_token().await;
    let body = json!({ "publicClient": { "redirectUris": ["msal.mobile://auth"] } });
    world.graph(&admin, "PATCH", &format!("/v1.0/applications/{id}"), body).await.ok();
    let path = authorize_path(&app_id, "msal.mobile://auth", "");
    let page = world.get(&path).await;
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("form-action 'self' msal.mobile:;"), "{policy}");
    let answer = sign_in(&world, &path).await;
    assert!(answer.headers["location"].to_str().unwrap().starts_with("msal.mobile://auth?code="));
}

#[tokio::test]
async fn a_page_may_read_what_its_own_code_is_redeemed_for() {
    const PAGE: &str = "https://spa.example/cb";
    let world = World::new().await;
    world.user("nina").await;
    let (id, app_id, ..) = world.application("page").await;
    world.consent(&id).await;
    let admin = world.admin_graph_token().await;
    let body =
        json!({ "spa": { "redirectUris": [PAGE] }, "web": { "redirectUris": ["https://web.example/cb"] } });
    world.graph(&admin, "PATCH", &format!("/v1.0/applications/{id}"), body).await.ok();
    let answer = sign_in(&world, &authorize_path(&app_id, PAGE, "&response_mode=fragment")).await;
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    let code = location.split(['=', '&']).nth(1).unwrap();
    let ask = async |origin: &str, fields: &[(&str, &str)]| {
        let fields = [&[("client_id", app_id.as_str())], fields].concat();
        world.post_with("/organizations/oauth2/v2.0/token", &[("origin", origin)], &fields).await
    };
    let readable = |answer: &Answer, origin: &str| {
        let header = |name: &str| answer.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        assert!(header("access-control-allow-credentials").is_none());
        match header("access-control-allow-origin") {
            Some(named) => named == origin && header("vary").as_deref() == Some("Origin"),
            None => false,
        }
    };
    let own = "https://spa.example";
    let mut fields = vec![
        ("grant_type", "authorization_code"),
        ("code_verifier", VERIFIER),
        ("redirect_uri", PAGE),
        ("code", "wrong"),
    ];
    let refused = ask(own, &fields).await;
    assert_eq!(refused.refusal().2, 70_008);
    assert!(readable(&refused, own), "also what went wrong");
    for (origin, redirect) in
        [("https://evil.example", PAGE), ("null", PAGE), (own, "https://web.example/cb"), ("", PAGE)]
    {
        fields[2].1 = redirect;
        let answer = ask(origin, &fields).await;
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{origin} {redirect}");
    }
    (fields[2].1, fields[3].1) = (PAGE, code);
    let answer = ask(own, &fields).await;
    assert!(readable(&answer, own));
    let token = text(&answer.ok(), "refresh_token");
    let fields = [("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
    let answer = ask(own, &fields).await;
    answer.ok();
    assert!(readable(&answer, own));
    let fields = [("grant_type", "password"), ("username", UPN), ("password", "Passw0rd!"), ("scope", ARM)];
    assert!(!readable(&ask(own, &fields).await, own));
}

/// The path as [`authorize_path`] makes it, but without a challenge.
fn without_challenge(path: &str) -> String {
    let (before, rest) = path.split_once("&code_challenge=").unwrap();
    let (_, after) = rest.split_once("S256").unwrap();
    format!("{before}{after}")
}

/// The page and the program on a device show no secret for their codes, whatever the application has elsewhere.
#[tokio::test]
async fn codes_for_a_page_or_a_device_need_a_challenge() {
    const WEB: &str = "https://web.example/cb";
    let places = ["https://spa.example/cb", "http://localhost/cb", WEB];
    let world = World::new().await;
    let (id, app_id, ..) = world.application("orders").await;
    world.consent(&id).await;
    let admin = world.admin_graph_token().await;
    let [spa, device, web] = places.map(|place| json!({ "redirectUris": [place] }));
    let body = json!({ "spa": spa, "publicClient": device, "web": web });
    world.graph(&admin, "PATCH", &format!("/v1.0/applications/{id}"), body).await.ok();
    for place in places {
        let path = authorize_path(&app_id, place, "");
        assert_eq!(world.get(&path).await.status, 200, "{place}");
        let answer = world.get(&without_challenge(&path)).await;
        if place == WEB {
            assert_eq!(answer.status, 200, "{place}");
            continue;
        }
        let back = answer.headers["location"].to_str().unwrap();
        assert!(back.starts_with(place) && back.contains("AADSTS9002325"), "{back}");
    }
}

/// Whoever takes the challenge out of the browser's request must not be able to use the code (RFC 9700, 2.1.1).
#[tokio::test]
async fn a_verifier_without_a_challenge_is_refused() {
    let world = World::new().await;
    world.user("nina").await;
    let (id, app_id, _, secret) = world.application("web").await;
    world.consent(&id).await;
    let admin = world.admin_graph_token().await;
    let body = json!({ "web": { "redirectUris": ["https://web.example/cb"] } });
    world.graph(&admin, "PATCH", &format!("/v1.0/applications/{id}"), body).await.ok();
    let path = authorize_path(&app_id, "https://web.example/cb", "");
    let answer = sign_in(&world, &without_challenge(&path)).await;
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    let code = location.split(['=', '&']).nth(1).unwrap();
    let mut fields = vec![
        ("client_id", app_id.as_str()),
        ("client_secret", secret.as_str()),
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", "https://web.example/cb"),
        ("code_verifier", VERIFIER),
    ];
    assert_eq!(world.token("organizations", &fields).await.refusal(), (400, "invalid_grant".into(), 501_481));
    fields.pop();
    world.token("organizations", &fields).await.ok();
}

#[tokio::test]
async fn errors_of_a_known_application_go_back_to_it() {
    let world = World::new().await;
    let az = AZURE_CLI_APP_ID.to_string();
    let answer = world
        .get(&authorize_path(&az, REDIRECT, "&x=y").replace("prompt=select_account", "prompt=none"))
        .await;
    let location = answer.headers["location"].to_str().unwrap();
    assert!(location.contains("error=login_required") && location.contains("state="), "{location}");
    let plain = format!(
        "/common/oauth2/v2.0/authorize?client_id={az}&response_type=code&redirect_uri={}&scope=openid",
        encode(REDIRECT)
    );
    let location = world.get(&plain).await.headers["location"].to_str().unwrap().to_owned();
    assert!(location.contains("AADSTS9002325"), "PKCE is required: {location}");
    let implicit = plain.replace("response_type=code", "response_type=token");
    let location = world.get(&implicit).await.headers["location"].to_str().unwrap().to_owned();
    assert!(location.contains("unsupported_response_type"));
    let foreign = authorize_path(&az, REDIRECT, "")
        .replace("management.core", "nobody.core")
        .replace(&encode("management.core"), &encode("nobody.core"));
    let location = world.get(&foreign).await.headers["location"].to_str().unwrap().to_owned();
    assert!(location.contains("invalid_resource"), "{location}");
}
