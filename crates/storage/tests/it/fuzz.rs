//! Fuzz targets for whole requests to a storage account, and for its lists.

use std::cell::RefCell;
use std::collections::BTreeSet;

use arcadia_kernel::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::runtime::Runtime;

use crate::lists::model;
use crate::support::*;

/// Requests of one input, and blobs of one list; more are left out.
const REQUESTS_MAX: usize = 8;
const BLOBS_MAX: usize = 12;
/// Inputs that one site gets; then there is a new one, so that what fuzzing piles up stays bounded.
const INPUTS_MAX: usize = 200;

struct Site {
    runtime: Runtime,
    world: World,
    member: Caller,
    stranger: Caller,
    inputs: usize,
}

impl Site {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (world, member) = runtime.block_on(World::with_account("acct1"));
        let stranger = world.caller("stranger");
        Self { runtime, world, member, stranger, inputs: 0 }
    }

    /// A site, and a container of it that nobody has used.
    fn with<T>(run: impl AsyncFnOnce(&Site, &str) -> T) -> T {
        thread_local!(static SITE: RefCell<Option<Site>> = const { RefCell::new(None) });
        SITE.with_borrow_mut(|site| {
            let site = match site {
                Some(site) if site.inputs < INPUTS_MAX => site,
                other => other.insert(Site::new()),
            };
            site.inputs += 1;
            let container = format!("c{:03}", site.inputs);
            site.runtime.block_on(async {
                site.world.make_container(&site.member, "acct1", &container).await;
                run(site, &container).await
            })
        })
    }
}

arcadia_fuzz::target!(blob_requests, 256 copies, |data: &[u8]| requests_keep_their_promises(data));

/// Requests with a line `--` between them: method and target, headers, an empty line, the body; `~` in a target is a
/// container that exists. Each is sent by a stranger, who gets nothing, and by a contributor, who is never told of a
/// fault of the service.
fn requests_keep_their_promises(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    Site::with(async |site, container| {
        for request in text.split("\n--\n").take(REQUESTS_MAX) {
            let ask = |caller: Option<&Caller>| {
                let ask = asked(&request.replace('~', container))?;
                Some(caller.into_iter().fold(ask, Ask::by))
            };
            let (Some(unknown), Some(foreign), Some(own)) =
                (ask(None), ask(Some(&site.stranger)), ask(Some(&site.member)))
            else {
                continue;
            };
            for refused in [unknown, foreign] {
                let refused = site.world.ask(refused).await;
                assert!((400..500).contains(&refused.status), "{request}: {}", refused.outcome());
            }
            let (method, target) = (own.method.clone(), own.target.clone());
            let answer = site.world.ask(own).await;
            checked(request, &method, &answer);
            if method == Method::PUT && answer.status == 201 && !target.contains('?') {
                let (_, body) = request.split_once("\n\n").unwrap_or((request, ""));
                let read = site.world.get(&site.member, "acct1", &target).await;
                assert_eq!(
                    (read.status, &*read.bytes),
                    (200, body.replace('~', container).as_bytes()),
                    "{request}"
                );
                assert_eq!(read.header("etag"), answer.header("etag"));
            }
            if method == Method::PUT && answer.status == 202 {
                let copy = site.world.get(&site.member, "acct1", &target).await;
                assert_eq!((copy.status, copy.header("x-ms-copy-status")), (200, "success"), "{request}");
                for name in ["etag", "x-ms-copy-id"] {
                    assert_eq!(copy.header(name), answer.header(name), "{request}");
                }
                assert_eq!(
                    copy.header("x-ms-copy-progress"),
                    format!("{0}/{0}", copy.bytes.len()),
                    "{request}"
                );
            }
        }
    });
}

fn asked(request: &str) -> Option<Ask> {
    let (head, body) = request.split_once("\n\n").unwrap_or((request, ""));
    let mut lines = head.split('\n');
    let (method, target) = lines.next()?.split_once(' ')?;
    let target = target.trim();
    // What is no target of HTTP, or no header, never comes as far as a service.
    target.parse::<http::Uri>().ok().filter(|_| target.starts_with('/'))?;
    let mut ask = Ask::new(Method::from_bytes(method.as_bytes()).ok()?, "acct1", target);
    for line in lines {
        let (name, value) = line.split_once(':')?;
        http::HeaderName::try_from(name).ok()?;
        http::HeaderValue::from_str(value.trim()).ok()?;
        ask = ask.with(name, value.trim());
    }
    // Connections are answered only where the length is true.
    ask.headers
        .retain(|(name, _)| !["content-length", "authorization"].contains(&&*name.to_ascii_lowercase()));
    Some(if body.is_empty() { ask.with("content-length", "0") } else { ask.body(body.to_owned()) })
}

fn checked(request: &str, method: &Method, answer: &Answer) {
    assert!(answer.status < 500, "{request}: {} {}", answer.outcome(), answer.text());
    let refused = answer.status >= 400;
    if refused && *method != Method::HEAD {
        assert!(!answer.header("x-ms-error-code").is_empty(), "{request}: {}", answer.outcome());
    }
    if answer.header("content-type").starts_with("application/xml") && answer.header("etag").is_empty() {
        assert!(is_xml(&answer.text()), "{request}: {}", answer.text());
    }
}

/// Tags that close in order, and characters that XML has.
fn is_xml(text: &str) -> bool {
    let mut open = Vec::new();
    let mut rest = text.trim_start_matches('\u{feff}');
    let is_character = |c: char| {
        matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
            && !('\u{7f}'..='\u{9f}').contains(&c)
    };
    if !rest.chars().all(is_character) {
        return false;
    }
    while let Some((_, after)) = rest.split_once('<') {
        let Some((tag, after)) = after.split_once('>') else { return false };
        match tag.strip_prefix('/') {
            Some(name) if open.pop() != Some(name) => return false,
            None if !tag.starts_with('?') && !tag.ends_with('/') => open.push(tag.split(' ').next().unwrap()),
            _ => {}
        }
        rest = after;
    }
    open.is_empty() && !rest.contains('>')
}

arcadia_fuzz::target!(blob_list, 128 copies, |data: &[u8]| lists_are_those_of_the_model(data));

/// Lines: results of a page, prefix, delimiter, and the names of blobs.
fn lists_are_those_of_the_model(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    let results = lines.next().and_then(|line| line.parse::<usize>().ok()).filter(|results| *results > 0);
    let (Some(results), Some(prefix), Some(delimiter)) = (results, lines.next(), lines.next()) else {
        return;
    };
    Site::with(async |site, container| {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut names = BTreeSet::new();
        for name in lines.take(BLOBS_MAX).filter(|name| !name.is_empty()) {
            let made =
                site.world.put(&site.member, "acct1", &format!("/{container}/{}", encode(name)), "").await;
            assert!(matches!(made.status, 201 | 400), "{name:?}: {}", made.outcome());
            if made.status == 201 {
                names.insert(name.to_owned());
            }
        }
        let query =
            format!("&prefix={}&delimiter={}&maxresults={results}", encode(prefix), encode(delimiter));
        let mut found = Vec::new();
        let mut marker = String::new();
        for page in 0.. {
            assert!(page <= 2 * names.len() + 1, "the list has no end");
            let target = format!("/{container}?restype=container&comp=list{query}{marker}");
            let answer = site.world.get(&site.member, "acct1", &target).await;
            if answer.status == 400 {
                return assert!(
                    prefix.len() > 1024 || delimiter.len() > 1024 || target.len() > 4096,
                    "{target}"
                );
            }
            assert!(answer.status == 200 && is_xml(&answer.text()), "{target}: {}", answer.text());
            let of_page = answer.all("Name");
            assert!(of_page.len() <= results);
            found.extend(of_page.iter().map(|name| unescaped(name)));
            match answer.all("NextMarker").first() {
                Some(next) => marker = format!("&marker={next}"),
                None => break,
            }
        }
        assert_eq!(found, model(&names, prefix, delimiter), "{prefix:?} {delimiter:?} {names:?}");
    });
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}
