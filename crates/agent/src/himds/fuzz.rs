//! Fuzz targets for requests of local processes.

use std::cell::RefCell;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arcadia_client::Endpoints;
use arcadia_crypto::SystemEntropy;
use arcadia_kernel::{FixedClock, Query, split_path};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::ask::{self, Selector, TokenAsk};
use super::{LocalCaller, answer, area, check_origin, is_loopback_host};
use crate::accounts::Accounts;
use crate::daemon::Core;
use crate::identity::MachineIdentity;
use crate::{AgentOptions, FactSources, HimdsLimits, Reach};

arcadia_fuzz::target!(himds_request, |data: &[u8]| asks_are_bounded_and_clean(data));

/// A path, a host and a query, a line each.
fn asks_are_bounded_and_clean(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(3, '\n');
    let (path, host, raw) =
        (lines.next().unwrap_or(""), lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let segments = arcadia_kernel::split_path(path);
    let segments: Vec<&str> = segments.iter().flatten().map(String::as_str).collect();
    let area = area(&segments);
    if let Ok(value) = HeaderValue::from_str(host) {
        let headers = HeaderMap::from_iter([(header::HOST, value)]);
        assert_eq!(check_origin(&headers).is_ok(), host.is_ascii() && is_loopback_host(host));
        if is_loopback_host(host) && !host.is_empty() {
            let name = host.trim_start_matches('[').to_ascii_lowercase();
            assert!(
                ["localhost", "127.", "::1", "0:", "0000:", "00:", "000:", ":"]
                    .iter()
                    .any(|start| name.starts_with(start))
            );
        }
    }
    let limits = HimdsLimits::default();
    let Ok(fields) = ask::fields(raw, &limits) else { return };
    assert!(raw.len() <= limits.query_bytes_max && fields.iter().count() <= limits.query_fields_max);
    assert!(fields.iter().all(|(name, value)| !format!("{name}{value}").contains(char::is_control)));
    if ask::api_version(&fields, area).is_ok() {
        assert_eq!(fields.first("api-version").map(str::len), Some(10));
    }
    if let Ok(ask) = TokenAsk::read(&fields) {
        assert_eq!(Some(&*ask.resource), fields.first("resource"));
        let ours = crate::config::tests::example();
        if ask.selector.check(&ours).is_ok() && ask.selector != Selector::Machine {
            let named = ["client_id", "object_id", "msi_res_id"]
                .iter()
                .filter_map(|name| Query::first(&fields, name));
            let known = [ours.client_id.to_string(), ours.principal_id.to_string(), ours.resource_id];
            let plain =
                |text: &str| text.to_ascii_lowercase().replace(['-', '{', '}'], "").replace("urn:uuid:", "");
            assert!(
                named.filter(|id| !id.is_empty()).all(|id| known.iter().any(|own| plain(own) == plain(id)))
            );
        }
    }
}

arcadia_fuzz::target!(himds_answer, 1024 copies, |data: &[u8]| {
    thread_local!(static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) });
    BENCH.with_borrow_mut(|bench| bench.get_or_insert_with(Bench::new).check(data));
});

#[test]
fn whoever_asks_without_end_makes_void_what_the_same_user_asked_for() {
    let mut bench = Bench::new();
    let query = "api-version=2020-06-01&resource=https://vault.azure.net";
    let head =
        head(format!("GET /metadata/identity/oauth2/token?{query}\nmetadata: true").as_bytes(), b"").unwrap();
    let count = bench.core.options.limits.challenges_max;
    let mut asks = |user, times| {
        bench.caller = LocalCaller::known(user);
        let paths = (0..times).map(|_| challenge_of(&bench.ask(&head).0));
        paths.collect::<Vec<PathBuf>>()
    };
    let own = asks(0, 1);
    let others = asks(1000, 2 * count);
    let left = [own, others].concat().iter().map(|path| path.exists()).collect::<Vec<_>>();
    assert!(left[0], "{left:?}");
    assert_eq!(left.iter().filter(|is_there| **is_there).count(), count);
}

/// A connected machine and its site, which gives every token that it is asked for.
struct Bench {
    runtime: Runtime,
    core: Core,
    caller: LocalCaller,
    /// How often the site was asked.
    asked: Arc<AtomicUsize>,
    /// One that was not used yet: its file and what is in it.
    challenge: (PathBuf, Vec<u8>),
    /// All of `/metadata/instance`.
    whole: Value,
    _folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let login = runtime.block_on(serve_tokens(asked.clone()));
        let folder = tempfile::tempdir().unwrap();
        let none = folder.path().join("no accounts");
        let clock = Arc::new(FixedClock::at_epoch_seconds(1_800_000_000));
        let options = AgentOptions {
            root: folder.path().join("azcmagent"),
            reach: Reach { endpoints: Some(Endpoints { login, ..Endpoints::default() }), ..Reach::default() },
            limits: HimdsLimits {
                metadata_per_second: u32::MAX,
                identity_per_second: u32::MAX,
                challenges_max: 4,
                ..HimdsLimits::default()
            },
            sources: FactSources { passwd: none.clone(), group: none, ..FactSources::default() },
            ..AgentOptions::new(clock, Arc::new(SystemEntropy))
        };
        let layout = options.layout();
        let core = Core::open(options).unwrap();
        let accounts = Accounts::default();
        MachineIdentity::load_or_make(&layout, &accounts, &SystemEntropy).unwrap();
        crate::config::tests::example().write(&layout, &accounts, &SystemEntropy).unwrap();
        let caller = LocalCaller::known(1000);
        let challenge = (PathBuf::new(), Vec::new());
        let mut bench = Self { runtime, core, caller, asked, challenge, whole: Value::Null, _folder: folder };
        let whole = b"GET /metadata/instance?api-version=2021-02-01\nmetadata: true";
        let (parts, body) = bench.ask(&head(whole, b"").unwrap());
        assert_eq!(parts.status, StatusCode::OK);
        bench.whole = serde_json::from_str(&body).unwrap();
        bench
    }

    fn ask(&self, head: &Parts) -> (http::response::Parts, String) {
        self.runtime.block_on(async {
            let (parts, body) = answer(&self.core, &self.caller, head).await.into_parts();
            (parts, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
        })
    }

    /// A token is given to who sends what is in the challenge's file, and once; what is wrong with a request otherwise
    /// does not use the challenge up; nobody else makes the site be asked. Metadata are the same in every form.
    fn check(&mut self, data: &[u8]) {
        if !self.challenge.0.exists() {
            let path = self.core.challenges.issue(None).unwrap();
            self.challenge = (path.clone(), std::fs::read(path).unwrap());
        }
        let (file, secret) = &self.challenge;
        let Some(head) = head(data, secret) else { return };
        let is_proven = proves(&head.headers, secret);
        let asked = self.asked.load(Ordering::SeqCst);
        let (parts, body) = self.ask(&head);
        assert!(!parts.status.is_server_error(), "{} {body}", parts.status);
        assert_eq!(parts.headers[header::CACHE_CONTROL], "no-store");
        assert!(!body.contains(std::str::from_utf8(secret).unwrap()));
        let is_asked = self.asked.load(Ordering::SeqCst) > asked;
        let is_given = parts.status == StatusCode::OK && body.contains("access_token");
        assert!(is_proven || !is_given && !is_asked, "{:?}", String::from_utf8_lossy(data));
        if parts.status == StatusCode::UNAUTHORIZED {
            assert!(!is_proven);
            assert!(challenge_of(&parts).is_file());
        } else {
            assert_eq!(file.exists(), !is_given);
        }
        if is_given {
            let token: Value = serde_json::from_str(&body).unwrap();
            let fields = Query::parse(head.uri.query().unwrap());
            assert_eq!(token["resource"].as_str(), fields.first("resource"));
            assert_eq!(token["access_token"], token["resource"], "another's token");
            let asked = self.asked.load(Ordering::SeqCst);
            assert_eq!(self.ask(&head).0.status, StatusCode::UNAUTHORIZED, "twice");
            assert_eq!(self.asked.load(Ordering::SeqCst), asked);
        }
        if parts.status == StatusCode::OK {
            self.check_answer(&head, &parts, &body);
        }
    }

    fn check_answer(&self, head: &Parts, parts: &http::response::Parts, body: &str) {
        assert!(head.method == Method::GET && !head.headers.contains_key("x-forwarded-for"));
        let path = split_path(head.uri.path()).unwrap();
        let is = |at: usize, name: &str| path.get(at).is_some_and(|found| found.eq_ignore_ascii_case(name));
        if !is(0, "agentstatus") {
            assert!(head.headers["metadata"].as_bytes().eq_ignore_ascii_case(b"true"));
        }
        if !is(1, "instance") {
            return assert!(serde_json::from_str::<Value>(body).is_ok());
        }
        let value = path[2..].iter().fold(&self.whole, |value, segment| match value {
            Value::Object(fields) => {
                fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(segment)).unwrap().1
            }
            other => &other[segment.parse::<usize>().unwrap()],
        });
        let is_json = parts.headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("application/json");
        match value {
            value if is_json => assert_eq!(*value, serde_json::from_str::<Value>(body).unwrap()),
            Value::Object(fields) => assert_eq!(body.lines().count(), fields.len()),
            Value::Array(items) => assert_eq!(body.lines().count(), items.len()),
            leaf => assert_eq!(body, leaf.as_str().unwrap_or_default()),
        }
    }
}

/// A method and a target, and headers, a line each; `~` in a header is the challenge's content.
fn head(data: &[u8], secret: &[u8]) -> Option<Parts> {
    let mut lines = data.split(|byte| *byte == b'\n');
    let (method, target) = std::str::from_utf8(lines.next()?).ok()?.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(target);
    for line in lines {
        let (name, value) = line.split_at(line.iter().position(|byte| *byte == b':')?);
        let value: Vec<&[u8]> = value[1..].trim_ascii().split(|byte| *byte == b'~').collect();
        request = request.header(name, value.join(secret));
    }
    Some(request.body(()).ok()?.into_parts().0)
}

/// The file that an answer names.
fn challenge_of(parts: &http::response::Parts) -> PathBuf {
    let realm = parts.headers[header::WWW_AUTHENTICATE].to_str().unwrap();
    realm.strip_prefix("Basic realm=").unwrap().into()
}

/// `Basic`, in letters of any case, and the secret, in the one such header.
fn proves(headers: &HeaderMap, secret: &[u8]) -> bool {
    let sent: Vec<_> = headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes).collect();
    let [sent] = sent.as_slice() else { return false };
    sent.len() > 6 && sent[..6].eq_ignore_ascii_case(b"basic ") && sent[6..].trim_ascii() == secret
}

/// A directory whose tokens are what they are for. Gives its address.
async fn serve_tokens(asked: Arc<AtomicUsize>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let asked = asked.clone();
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                asked.fetch_add(1, Ordering::SeqCst);
                async move {
                    let form = request.into_body().collect().await.unwrap().to_bytes();
                    let form = Query::parse(std::str::from_utf8(&form).unwrap());
                    let token = json!({"access_token": form.first("resource"), "expires_in": "86400"});
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(token.to_string()))))
                }
            });
            let served = hyper::server::conn::http1::Builder::new();
            tokio::spawn(served.serve_connection(TokioIo::new(stream), service));
        }
    });
    format!("http://{address}")
}
