//! Fuzz target for whole requests to a vault.

use std::cell::RefCell;

use arcadia_kernel::Method;
use bytes::Bytes;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::support::{Answer, Ask, Caller, World};

arcadia_fuzz::target!(vault_requests, 256 copies, |data: &[u8]| requests_keep_their_promises(data));

/// Requests of one input; more are left out.
const REQUESTS_MAX: usize = 8;
/// Vaults that one site gets; then there is a new one, so that what fuzzing piles up stays bounded.
const VAULTS_MAX: usize = 200;

struct Site {
    runtime: Runtime,
    world: World,
    officer: Caller,
    stranger: Caller,
    vaults: usize,
}

impl Site {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (world, officer) = runtime.block_on(async {
            let world = World::new().await;
            let officer = world.officer().await;
            (world, officer)
        });
        let stranger = world.caller("stranger");
        Self { runtime, world, officer, stranger, vaults: 0 }
    }
}

/// Requests with empty lines between them: method and target in the first line, then the body. Each is sent by a
/// stranger, who gets nothing, and by an officer, who is never told of a fault of the service.
fn requests_keep_their_promises(data: &[u8]) {
    thread_local!(static SITE: RefCell<Option<Site>> = const { RefCell::new(None) });
    let text = String::from_utf8_lossy(data);
    SITE.with_borrow_mut(|site| {
        let site = match site {
            Some(site) if site.vaults < VAULTS_MAX => site,
            other => other.insert(Site::new()),
        };
        site.vaults += 1;
        let vault = format!("v{}", 100 + site.vaults);
        let Site { runtime, world, officer, stranger, .. } = site;
        runtime.block_on(async {
            world.make_vault(&vault).await;
            for request in text.split("\n\n").take(REQUESTS_MAX) {
                let Some(ask) = asked(&vault, request) else { continue };
                let refused = world.ask(by(&ask, Some(stranger))).await;
                assert!((400..500).contains(&refused.status), "{request}: {}", refused.status);
                let unknown = world.ask(by(&ask, None)).await;
                // What is no path at all is refused before anybody is asked who they are.
                assert!(matches!(unknown.status, 400 | 401 | 414), "{request}: {}", unknown.text);
                assert!(unknown.status == 401 || refused.status == unknown.status);
                let answer = world.ask(by(&ask, Some(officer))).await;
                let kept = kept_value(world, officer, &ask, &answer).await;
                checked(request, &answer, kept);
            }
        });
    });
}

fn asked(vault: &str, request: &str) -> Option<Ask> {
    let (line, body) = request.split_once('\n').unwrap_or((request, ""));
    let (method, target) = line.split_once(' ')?;
    let target = target.trim();
    // What is no target of HTTP never comes as far as a service.
    target.parse::<http::Uri>().ok().filter(|_| target.starts_with('/'))?;
    Some(Ask {
        method: Method::from_bytes(method.as_bytes()).ok()?,
        host: format!("{vault}.vault.azure.net"),
        target: target.to_owned(),
        headers: Vec::new(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        remote: None,
    })
}

fn by(ask: &Ask, caller: Option<&Caller>) -> Ask {
    let bearer = caller.map(|caller| ("authorization", caller.bearer("https://vault.azure.net")));
    Ask { headers: bearer.into_iter().collect(), ..ask.clone() }
}

/// The value that a secret has after it was set.
async fn kept_value(world: &World, officer: &Caller, ask: &Ask, answer: &Answer) -> Option<Value> {
    let id = answer.json()["id"].as_str()?.to_owned();
    if ask.method != Method::PUT || answer.status != 200 {
        return None;
    }
    let path = id.split_once(".vault.azure.net").map(|(_, path)| format!("{path}?api-version=7.4"))?;
    let read = world.ask(by(
        &Ask { method: Method::GET, target: path, body: Bytes::new(), ..ask.clone() },
        Some(officer),
    ));
    let read = read.await;
    // One that is switched off, or not yet or no longer good, is not given.
    if read.status == 403 {
        return None;
    }
    assert_eq!(read.status, 200, "{id} was set and is not there");
    Some(read.json()["value"].clone())
}

fn checked(request: &str, answer: &Answer, kept: Option<Value>) {
    assert!(answer.status < 500, "{request}: {} {}", answer.status, answer.text);
    if answer.text.is_empty() {
        return;
    }
    let body: Value = serde_json::from_str(&answer.text).unwrap();
    if answer.status >= 400 {
        assert!(body["error"]["code"].is_string() && body["error"]["message"].is_string(), "{body}");
        return;
    }
    if let Some(kept) = kept {
        let asked: Value =
            request.split_once('\n').and_then(|(_, body)| serde_json::from_str(body).ok()).unwrap();
        assert_eq!((&kept, &kept), (&asked["value"], &body["value"]));
    }
    if let Some(items) = body["value"].as_array() {
        assert!(items.len() <= 25 && items.iter().all(|item| item.get("value").is_none()));
    }
    if let Some(link) = body["nextLink"].as_str() {
        assert!(link.parse::<http::Uri>().is_ok() && link.starts_with("https://v"), "{link}");
    }
}
