//! Fuzz targets for whole requests to the sign-in endpoints and to Graph, and for the pages of a device's sign-in.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use arcadia_directory::AZURE_CLI_APP_ID;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::pages::{begin, cookie};
use crate::sign_ins::{App, SignIns};
use crate::world::{Answer, World};

/// Requests of one input; more are left out.
const REQUESTS_MAX: usize = 6;
/// Inputs that one site gets; then there is a new one, so that what fuzzing piles up stays bounded.
const INPUTS_MAX: usize = 200;
/// What refills every allowance between two inputs.
const PAUSE_SECONDS: i64 = 3600;

struct Site {
    runtime: Runtime,
    world: World,
    /// An application without any role.
    stranger: App,
    inputs: usize,
}

fn with_site<T>(run: impl AsyncFnOnce(&World, &App) -> T) -> T {
    thread_local!(static SITE: RefCell<Option<Site>> = const { RefCell::new(None) });
    SITE.with_borrow_mut(|site| {
        let site = match site {
            Some(site) if site.inputs < INPUTS_MAX => site,
            other => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let (world, stranger) = runtime.block_on(async {
                    let world = World::new().await;
                    world.user("nina").await;
                    let stranger = App::register(&world).await;
                    (world, stranger)
                });
                other.insert(Site { runtime, world, stranger, inputs: 0 })
            }
        };
        site.inputs += 1;
        site.world.clock.advance_seconds(PAUSE_SECONDS);
        site.runtime.block_on(run(&site.world, &site.stranger))
    })
}

/// Method, target and body of a request that HTTP lets through.
pub fn parts(request: &str) -> Option<(&str, &str, &str)> {
    let (line, body) = request.split_once('\n').unwrap_or((request, ""));
    let (method, target) = line.split_once(' ')?;
    let target = target.trim();
    target.parse::<http::Uri>().ok().filter(|_| target.starts_with('/'))?;
    http::Method::from_bytes(method.as_bytes()).ok()?;
    Some((method, target, body))
}

arcadia_fuzz::target!(sign_in_requests, 192 copies, |data: &[u8]| {
    sign_in_gives_what_it_may(data);
});

/// Requests with empty lines between them: method and target in the first line, headers, then the form; `@` is az's
/// application, `^` another with a secret, and `~` the tenant. Words in braces are what a person or an application has,
/// or was just given: `{password}`, `{secret}`, `{ticket}` and `{cookie}`, `{code}`, `{refresh}`, `{device}`. No
/// answer is a fault of the service, no page has markup that a client wrote, nobody is sent to a place that is not the
/// application's, and a token is for who showed one of these, unedited, and for what was asked. Returns what
/// succeeded.
fn sign_in_gives_what_it_may(data: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(data);
    with_site(async |world, app| {
        let az = AZURE_CLI_APP_ID.to_string();
        let text = text.replace('@', &az).replace('^', &app.id).replace('~', &world.tenant());
        let mut sign_ins = SignIns::new(world, app);
        for request in text.split("\n\n").take(REQUESTS_MAX) {
            if let Some(answer) = sign_ins.send(request).await {
                says_no_more(request, &answer);
            }
        }
        sign_ins.reached
    })
}

/// Without which the target would only see refusals.
#[test]
fn the_examples_of_sign_in_reach_every_grant() {
    let examples = "tests/directory/__fuzz__/sign_in_requests/corpus";
    let mut reached = BTreeSet::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(examples)).unwrap() {
        reached.append(&mut sign_in_gives_what_it_may(&std::fs::read(entry.unwrap().path()).unwrap()));
    }
    let grants = ["authorization_code", "client_credentials", "device_code", "password", "refresh_token"];
    let ways = ["form_post", "page", "redirect"];
    assert_eq!(reached, grants.into_iter().chain(ways).map(str::to_owned).collect());
}

fn says_no_more(request: &str, answer: &Answer) {
    let header = |name: &str| answer.headers.get(name).map_or("", |value| value.to_str().unwrap());
    match header("content-type").split(';').next() {
        Some("text/html") => assert!(is_own_markup(&answer.text), "{request}: {}", answer.text),
        Some("application/json") if !answer.text.is_empty() => {
            assert!(serde_json::from_str::<Value>(&answer.text).is_ok(), "{request}: {}", answer.text);
        }
        _ => {}
    }
}

/// The site's pages inside their frame: their tags with the names of attributes. Hidden fields, and lines that say what
/// went wrong, are left out.
const PAGES: [&str; 8] = [
    "<p></p>",
    "<p class=></p>",
    "<p></p><form method=><label for=></label>\
     <input id= class= name= value= autocomplete= required maxlength= autofocus><button type=></button></form>",
    "<p></p><form method=><label for=></label><input id= name= autocomplete= value= required maxlength= autofocus>\
     <label for=></label><input id= name= type= autocomplete= required maxlength=><button type=></button></form>",
    "<p></p><form method= action=><label for=></label>\
     <input id= name= autocomplete= value= required maxlength= autofocus><label for=></label>\
     <input id= name= type= autocomplete= required maxlength=><button type=></button></form>",
    "<p><strong></strong><strong></strong></p><p></p><form method=><button name= value=></button>\
     <button class= name= value=></button></form>",
    SENT_BACK,
    TOKEN,
];
const SENT_BACK: &str = "<form method= action=><p></p><button></button></form>";
const TOKEN: &str = "<p></p><label for=></label><textarea id= rows= spellcheck= autocomplete=></textarea>\
                     <h2></h2><pre id=></pre><h2></h2><pre id=></pre><p id=></p><p class=></p>";
const FRAME: &str = "<!doctype html><html lang=><head><meta charset=><meta name= content=><title></title>\
                     <style nonce=></style></head><body><main><h1></h1>";

/// Whether it is one of the site's pages, tag by tag, with that page's own script and with no other.
fn is_own_markup(html: &str) -> bool {
    let (page, end) = html.split_once("</main>").unwrap_or((html, ""));
    let tags = page.split('<').skip(1).map(|tag| tag.split('>').next().unwrap_or(""));
    // Between quotes is what a client wrote, with its own quotes escaped.
    let outline: String =
        tags.clone().map(|tag| format!("<{}>", tag.split('"').step_by(2).collect::<String>())).collect();
    let outline = outline
        .replace("<input type= name= value=>", "")
        .replace("<p class= role=></p>", "")
        .replace("<p id= class= role=></p>", "")
        .replace("<main class=>", "<main>");
    let Some(inside) = outline.strip_prefix(FRAME) else { return false };
    let (script, end) = match end.split_once("</script>") {
        Some((script, end)) => (script.split_once('>').map_or("", |(_, script)| script), end),
        None => ("", end),
    };
    let is_own_script = match inside {
        SENT_BACK => script == "document.forms[0].submit()",
        TOKEN => script.starts_with("\nconst at = id => document"),
        _ => script.is_empty(),
    };
    let leads_to_script =
        |tag: &str| ["javascript:", "data:"].iter().any(|scheme| tag.contains(&format!("action=\"{scheme}")));
    PAGES.contains(&inside)
        && is_own_script
        && end == "</body></html>"
        && !tags.map(str::to_ascii_lowercase).any(|tag| leads_to_script(&tag))
}

arcadia_fuzz::target!(device_pages, 128 copies, |data: &[u8]| a_step_follows_only_its_ticket(data));

/// What is typed as a code, with `*` for the real one, then edits of the ticket, a line each. The sign-in page
/// follows only where the ticket is the page's own and the letters and digits typed are the code's.
fn a_step_follows_only_its_ticket(data: &[u8]) {
    let (typed, edits) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len()));
    let typed = String::from_utf8_lossy(typed);
    with_site(async |world, _| {
        let (device_code, user_code) = begin(world).await;
        let typed = typed.replace('*', &user_code);
        let page = world.get(&format!("/device?otc={}", crate::world::encode(&typed))).await;
        says_no_more(&typed, &page);
        let (own, ticket) = (cookie(&page), page.hidden("ticket"));
        let edited = edited(&ticket, edits.get(1..).unwrap_or_default());
        let fields = [("ticket", edited.as_str()), ("user_code", typed.as_str())];
        let next = world.post_with("/device", &[("cookie", own.as_str())], &fields).await;
        says_no_more(&typed, &next);
        assert!(next.status.as_u16() < 500, "{} {}", next.status, next.text);
        assert!(!next.headers.contains_key("location"), "{:?}", next.headers);
        let code: String = typed.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
        let is_own = without_padding(&edited) == without_padding(&ticket);
        let expected = is_own && code.eq_ignore_ascii_case(&user_code.replace('-', ""));
        assert_eq!(next.text.contains("name=\"password\""), expected, "{typed:?} {}", next.text);
        let polled = crate::pages::poll(world, &device_code).await;
        assert_eq!(polled.refusal().1, "authorization_pending");
    });
}

/// Base64 may end in the signs that fill it up.
fn without_padding(ticket: &str) -> Vec<&str> {
    ticket.splitn(2, '.').map(|part| part.trim_end_matches('=')).collect()
}

/// A place and the character that is written there, three bytes each.
fn edited(text: &str, edits: &[u8]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % bytes.len();
        match edit[2] {
            240.. => bytes.truncate(at.max(1)),
            224..240 => bytes.insert(at, b'.'),
            letter => bytes[at] = letter & 0x7f,
        }
    }
    String::from_utf8(bytes).unwrap()
}

arcadia_fuzz::target!(graph_requests, 192 copies, |data: &[u8]| graph_keeps_its_promises(data));

/// Requests with empty lines between them: method and target in the first line, then the body; `^` is an application. Each is sent by
/// nobody, by an application without a role, which changes nothing, and by an administrator, who is never told of a
/// fault of the service.
fn graph_keeps_its_promises(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    with_site(async |world, App { id: app, secret }| {
        let scope = "https://graph.microsoft.com/.default";
        let token = world.secret_token(app, secret, scope).await.ok();
        let (stranger, admin) = (token["access_token"].as_str().unwrap(), world.admin_graph_token().await);
        let text = text.replace('^', app);
        for request in text.split("\n\n").take(REQUESTS_MAX) {
            let Some((method, target, body)) = parts(request) else { continue };
            let send = async |token: &str| {
                let bearer = format!("Bearer {token}");
                let mut headers =
                    vec![("content-type", "application/json"), ("authorization", bearer.as_str())];
                headers.truncate(if token.is_empty() { 1 } else { 2 });
                let host = "graph.microsoft.com";
                world.send(world.graph.clone(), host, method, target, &headers, body).await
            };
            let unknown = send("").await;
            assert!(matches!(unknown.status.as_u16(), 400 | 401 | 414), "{request}: {}", unknown.status);
            let refused = send(stranger).await;
            let is_change = ["PUT", "PATCH", "DELETE"].contains(&method)
                || method == "POST" && !target.to_ascii_lowercase().contains("userinfo");
            assert!(
                refused.status.as_u16() >= 400 || !is_change,
                "{request}: {} {}",
                refused.status,
                refused.text
            );
            let answer = send(&admin).await;
            assert!(answer.status.as_u16() < 500, "{request}: {} {}", answer.status, answer.text);
            for answer in [&unknown, &refused, &answer].into_iter().filter(|answer| !answer.text.is_empty()) {
                let body: Value = serde_json::from_str(&answer.text)
                    .unwrap_or_else(|_| panic!("{request}: {}", answer.text));
                assert_eq!(
                    answer.status.as_u16() >= 400,
                    body["error"]["code"].is_string(),
                    "{request}: {body}"
                );
                let next = body["@odata.nextLink"].as_str();
                assert!(next.is_none_or(|next| next.starts_with("https://graph.microsoft.com/")
                    && next.parse::<http::Uri>().is_ok()));
            }
        }
    });
}
