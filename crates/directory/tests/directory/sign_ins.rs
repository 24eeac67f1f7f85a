//! Sign-ins as somebody sends them who may have the right password: what has to have been shown for every token.

use std::collections::{BTreeSet, HashMap};

use arcadia_crypto::{b64, b64_decode, b64url, sha256};
use arcadia_directory::AZURE_CLI_APP_ID;
use arcadia_kernel::{HeaderValue, Query};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::pages::{UPN, VERIFIER};
use crate::world::{Answer, World, encode};

const HOST: &str = "login.microsoftonline.com";
const PASSWORD: &str = "Passw0rd!";
const GRAPH: &str = "https://graph.microsoft.com";
const GRAPH_ID: &str = "00000003-0000-0000-c000-000000000000";
const PAGE: &str = "https://app.example/cb";
const ORIGIN: &str = "https://app.example";
/// What of the services the application may use for people.
const CONSENTED: [&str; 3] = [
    "https://management.azure.com",
    "https://management.core.windows.net",
    "797f4846-ba00-4fd7-ba43-dac1f8f63013",
];
const HEADERS: [&str; 3] = ["cookie", "authorization", "origin"];

/// An application with a secret, whose page in the browser redeems codes itself.
pub struct App {
    pub id: String,
    pub secret: String,
}

impl App {
    pub async fn register(world: &World) -> Self {
        let (object, id, _, secret) = world.application("<b>orders</b>").await;
        let change = json!({
            "spa": { "redirectUris": [PAGE] },
            "publicClient": { "redirectUris": ["http://localhost/cb"] },
        });
        let admin = world.admin_graph_token().await;
        world.graph(&admin, "PATCH", &format!("/v1.0/applications/{object}"), change).await.ok();
        world.consent(&object).await;
        Self { id, secret }
    }
}

/// An application's request for a sign-in, as it was sent.
#[derive(Clone)]
struct Begun {
    client: Uuid,
    place: String,
    challenge: Option<String>,
    state: Option<String>,
    nonce: Option<String>,
}

/// What the answers so far gave to the one who asks.
pub struct SignIns<'a> {
    world: &'a World,
    app: &'a App,
    given: HashMap<&'static str, String>,
    /// What the latest page was shown for.
    begun: Option<Begun>,
    codes: HashMap<String, Begun>,
    /// With the client that each was given to.
    refresh_tokens: HashMap<String, Uuid>,
    /// Every resource that was named so far.
    asked: BTreeSet<String>,
    password_was_right: bool,
    device_confirmed: bool,
    /// The grants and ways back that were seen to succeed.
    pub reached: BTreeSet<String>,
}

impl<'a> SignIns<'a> {
    pub fn new(world: &'a World, app: &'a App) -> Self {
        let basic = b64(format!("{}:{}", app.id, encode(&app.secret)).as_bytes());
        let given = [
            ("{password}", PASSWORD.to_owned()),
            ("{secret}", encode(&app.secret)),
            ("{basic}", basic),
            ("{verifier}", VERIFIER.to_owned()),
            ("{challenge}", b64url(&sha256(VERIFIER.as_bytes()))),
        ];
        Self {
            world,
            app,
            given: HashMap::from(given),
            begun: None,
            codes: HashMap::new(),
            refresh_tokens: HashMap::new(),
            asked: BTreeSet::new(),
            password_was_right: false,
            device_confirmed: false,
            reached: BTreeSet::new(),
        }
    }

    /// Sends one request, checks its answer, and keeps what the next ones may show. Below the first line may be headers
    /// before the form.
    pub async fn send(&mut self, request: &str) -> Option<Answer> {
        let mut request = request.to_owned();
        for (name, value) in &self.given {
            request = request.replace(name, value);
        }
        let (method, target, mut form) = crate::fuzz::parts(&request)?;
        let mut headers = vec![("content-type", "application/x-www-form-urlencoded")];
        while let Some((name, value, rest)) = header(form) {
            headers.push((name, value));
            form = rest;
        }
        let answer = self.world.send(self.world.login.clone(), HOST, method, target, &headers, form).await;
        assert!(answer.status.as_u16() < 500, "{request}: {} {}", answer.status, answer.text);
        let path = target.split(['?', '#']).next().unwrap_or("");
        let fields = match method {
            // What is behind a number sign is a browser's own, and no part of a request.
            "GET" => Query::parse(
                target.split('#').next().and_then(|all| all.split_once('?')).map_or("", |it| it.1),
            ),
            _ => Query::parse(form),
        };
        self.asked.extend(asked_for(&fields));
        self.password_was_right |= fields.first("password") == Some(PASSWORD)
            && fields.first("username").is_some_and(|name| name.eq_ignore_ascii_case(UPN));
        // Whose error is sent back is told by the request itself, and so is whose page is shown.
        let own = if method == "GET" { begun(&fields) } else { self.begun.clone() };
        self.check_way_back(&request, &answer, own.as_ref());
        let body: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        if let Some(token) = body["access_token"].as_str() {
            self.check_token(&request, token, &body, &fields, &headers);
        }
        if method != "GET" {
            self.check_reader(&request, &answer, &fields, &headers);
        }
        self.keep(&answer, &body, own.filter(|_| method == "GET" && path.contains("authorize")));
        Some(answer)
    }

    /// The browser is sent to a registered place of the client that asked, and with a code only after the password.
    fn check_way_back(&mut self, request: &str, answer: &Answer, begun: Option<&Begun>) {
        let location = answer.headers.get("location").map(|value| value.as_bytes().to_vec());
        let location = location.map(|location| String::from_utf8(location).unwrap());
        let place = form_action(&answer.text);
        let is_form = place.is_some();
        let Some(way) = location.or(place) else { return };
        let begun = begun.unwrap_or_else(|| panic!("sent to {way} for nothing: {request}"));
        assert!(self.is_registered(begun), "{way}: {request}");
        let rest = way.strip_prefix(&begun.place).unwrap_or_else(|| panic!("sent to {way}: {request}"));
        let (code, state) = match is_form {
            true => {
                assert!(rest.is_empty(), "{way}: {request}");
                (hidden(&answer.text, "code"), hidden(&answer.text, "state").map(|state| plain(&state)))
            }
            false => {
                assert!(rest.starts_with(['?', '&', '#']), "{way}: {request}");
                let fields = Query::parse(&rest[1..]);
                (fields.first("code").map(str::to_owned), fields.first("state").map(str::to_owned))
            }
        };
        assert_eq!(state, begun.state, "{request}");
        let Some(code) = code else { return };
        assert!(self.password_was_right, "a code for nothing: {request}");
        self.reached.insert(if is_form { "form_post" } else { "redirect" }.to_owned());
        self.codes.insert(code.clone(), begun.clone());
        self.given.insert("{code}", code);
    }

    fn is_registered(&self, begun: &Begun) -> bool {
        let local = ["http://localhost", "http://127.0.0.1", "http://[::1]"].iter().find_map(|start| {
            let is_start = begun.place.get(..start.len())?.eq_ignore_ascii_case(start);
            is_start.then(|| &begun.place[start.len()..])
        });
        let local = local.map(|rest| match rest.strip_prefix(':') {
            Some(port) => port.trim_start_matches(|c: char| c.is_ascii_digit()),
            None => rest,
        });
        if begun.client == AZURE_CLI_APP_ID {
            return local.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
        }
        let path = local.map(|rest| rest.split('?').next().unwrap_or(""));
        begun.client.to_string() == self.app.id && (begun.place == PAGE || path == Some("/cb"))
    }

    /// A token follows what only this sign-in was given, and says for whom and for what it was asked.
    fn check_token(
        &mut self,
        request: &str,
        token: &str,
        body: &Value,
        fields: &Query,
        headers: &[(&str, &str)],
    ) {
        let claims = self.world.claims(token);
        let client: Uuid = claims["appid"].as_str().unwrap().parse().unwrap();
        let is_v1 = body["resource"].is_string();
        let named = if is_v1 { fields.first("resource").map(str::to_owned) } else { scope_asks(fields) };
        let audience = claims["aud"].as_str().unwrap();
        match named {
            Some(named) => assert_eq!(named, audience, "{request}"),
            None => assert!(self.asked.contains(audience), "{audience}: {request}"),
        }
        let is_app = client != AZURE_CLI_APP_ID;
        let grant = fields.first("grant_type").unwrap().rsplit(':').next().unwrap();
        let mut nonce = None;
        match grant {
            "client_credentials" => assert!(is_app && self.proves(fields, headers), "{request}"),
            "password" => {
                assert!(fields.first("password") == Some(PASSWORD) && self.password_was_right, "{request}");
                assert!(!is_app || self.proves(fields, headers), "{request}");
            }
            "authorization_code" => {
                let kept = fields.first("code").and_then(|code| self.codes.remove(code));
                let kept = kept.unwrap_or_else(|| panic!("a token for nothing: {request}"));
                assert_eq!(fields.first("redirect_uri"), Some(&*kept.place), "{request}");
                assert_eq!(kept.client, client, "{request}");
                let verifier = fields.first("code_verifier").filter(|verifier| !verifier.is_empty());
                let challenge = verifier.map(|verifier| b64url(&sha256(verifier.as_bytes())));
                assert_eq!(kept.challenge, challenge, "{request}");
                nonce = kept.nonce;
            }
            "refresh_token" => {
                let holder = fields.first("refresh_token").and_then(|token| self.refresh_tokens.get(token));
                assert_eq!(holder, Some(&client), "{request}");
            }
            "device_code" => {
                let shown = fields.first("device_code").or(fields.first("code"));
                assert_eq!(shown, self.given.get("{device}").map(String::as_str), "{request}");
                assert!(self.device_confirmed && self.password_was_right, "{request}");
            }
            other => panic!("a token by {other}: {request}"),
        }
        let is_person = grant != "client_credentials";
        assert_eq!(claims.contains_key("scp"), is_person, "{request}");
        if is_person && is_app {
            let resource = audience.trim_end_matches('/').to_ascii_lowercase();
            let own = [GRAPH, GRAPH_ID].contains(&&*resource) || resource.ends_with(&self.app.id);
            assert!(own || CONSENTED.contains(&&*resource), "{audience} without consent: {request}");
        }
        if let Some(id_token) = body["id_token"].as_str() {
            let about = arcadia_crypto::peek(id_token).unwrap().1;
            assert_eq!(about["aud"], client.to_string(), "{request}");
            assert_eq!(about.get("nonce").and_then(Value::as_str), nonce.as_deref(), "{request}");
        }
        if let Some(token) = body["refresh_token"].as_str() {
            self.refresh_tokens.insert(token.to_owned(), client);
        }
        self.reached.insert(grant.to_owned());
    }

    /// Whether the application's secret is in the form or the header.
    fn proves(&self, fields: &Query, headers: &[(&str, &str)]) -> bool {
        let in_header = |(name, value): &(&str, &str)| {
            let encoded = value.split_once(' ').filter(|_| *name == "authorization").map(|(_, rest)| rest);
            let text = encoded.and_then(|encoded| String::from_utf8(b64_decode(encoded.trim())?).ok());
            text.is_some_and(|text| {
                let secret = text.split_once(':').map_or("", |(_, secret)| secret).replace('+', " ");
                percent_decode_str(&secret).decode_utf8_lossy() == self.app.secret
            })
        };
        match fields.first("client_secret") {
            Some(secret) => secret == self.app.secret,
            None => headers.iter().any(in_header),
        }
    }

    /// Only the application's own page may read what it was answered.
    fn check_reader(&mut self, request: &str, answer: &Answer, fields: &Query, headers: &[(&str, &str)]) {
        let Some(reader) = answer.headers.get("access-control-allow-origin") else { return };
        let sent = headers.iter().find(|(name, _)| *name == "origin").map(|(_, value)| *value);
        assert_eq!(sent, Some(reader.to_str().unwrap()), "{request}");
        assert!(sent.is_some_and(|origin| origin.eq_ignore_ascii_case(ORIGIN)), "{request}");
        // A refresh was sent to no page.
        let is_refresh = fields.first("grant_type") == Some("refresh_token");
        let sent_to = fields.first("redirect_uri").filter(|_| !is_refresh);
        assert!(sent_to.is_none_or(|place| place == PAGE), "{request}");
        if answer.status.is_success() {
            self.reached.insert("page".to_owned());
        }
    }

    fn keep(&mut self, answer: &Answer, body: &Value, begun: Option<Begun>) {
        if let Some(ticket) = hidden(&answer.text, "ticket") {
            self.given.insert("{ticket}", ticket);
            self.begun = begun.or(self.begun.take());
        }
        if let Some(cookie) = answer.headers.get("set-cookie") {
            let cookie = cookie.to_str().unwrap().split(';').next().unwrap_or("");
            self.given.insert("{cookie}", cookie.to_owned());
        }
        for (place, name) in
            [("{device}", "device_code"), ("{user_code}", "user_code"), ("{refresh}", "refresh_token")]
        {
            if let Some(text) = body[name].as_str() {
                self.given.insert(place, text.to_owned());
            }
        }
        self.device_confirmed |= answer.text.contains("You have signed in on your device");
    }
}

/// The first line of the text, if it is one of the headers that a sign-in looks at.
fn header(text: &str) -> Option<(&'static str, &str, &str)> {
    let (line, rest) = text.split_once('\n').unwrap_or((text, ""));
    let (name, value) = line.split_once(": ")?;
    let name = HEADERS.into_iter().find(|known| known.eq_ignore_ascii_case(name))?;
    HeaderValue::from_str(value).is_ok().then_some((name, value, rest))
}

fn begun(fields: &Query) -> Option<Begun> {
    let field = |name: &str| fields.first(name).filter(|value| !value.is_empty()).map(str::to_owned);
    Some(Begun {
        client: Uuid::try_parse(&field("client_id")?).ok()?,
        place: field("redirect_uri")?,
        challenge: fields.first("code_challenge").map(str::to_owned),
        state: field("state"),
        nonce: field("nonce"),
    })
}

/// The resource of the first permission that a scope names; Graph's, where it names none or only a permission.
fn scope_asks(fields: &Query) -> Option<String> {
    let scope = fields.first("scope").filter(|scope| !scope.trim().is_empty())?;
    let permission = scope
        .split_whitespace()
        .find(|item| !["openid", "profile", "email", "offline_access"].contains(item));
    Some(match permission.map(|item| item.rsplit_once('/')) {
        Some(Some((resource, _))) => resource.to_owned(),
        Some(None) => GRAPH.to_owned(),
        None => GRAPH_ID.to_owned(),
    })
}

fn asked_for(fields: &Query) -> impl Iterator<Item = String> {
    scope_asks(fields).into_iter().chain(fields.first("resource").map(str::to_owned))
}

/// Where a page's form leads, when that is not the site.
fn form_action(html: &str) -> Option<String> {
    let (_, after) = html.split_once("<form method=\"post\" action=\"")?;
    let action = after.split('"').next().unwrap_or("");
    (!action.starts_with('/') && !action.is_empty()).then(|| plain(action))
}

/// The value of a hidden field, as it stands in the page.
fn hidden(html: &str, name: &str) -> Option<String> {
    let (_, after) = html.split_once(&format!("name=\"{name}\" value=\""))?;
    after.split('"').next().map(str::to_owned)
}

fn plain(escaped: &str) -> String {
    let marks = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    marks.iter().fold(escaped.to_owned(), |text, (from, to)| text.replace(from, to))
}
