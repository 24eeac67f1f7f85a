//! Fuzz targets for what browsers and clients say when somebody signs in.

use arcadia_kernel::{HeaderMap, HeaderValue, Method, Params, Query, RequestHead, header};
use uuid::Uuid;

use super::client::{Presented, basic_credentials};
use super::page::escape;
use super::redirect::{form_target, loopback, same_redirect};
use super::resource::Wanted;
use super::ticket::cookie;

arcadia_fuzz::target!(redirect, |data: &[u8]| redirects_stay_where_they_may(data));

/// A registered address and the one that is asked for, a line each. What passes is the registered place on this
/// computer with another port, spelled so that no browser reads another host in it.
fn redirects_stay_where_they_may(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (registered, asked) = text.split_once('\n').unwrap_or(("http://localhost/cb", &text));
    if loopback(asked).is_some() {
        let rest = asked.get("http://".len()..).unwrap();
        let hosts = ["localhost", "127.0.0.1", "[::1]"];
        let after = hosts.iter().find_map(|host| rest.strip_prefix(host)).unwrap();
        let port = after
            .strip_prefix(':')
            .map_or(after, |port| port.trim_start_matches(|c: char| c.is_ascii_digit()));
        assert!(
            asked[..7].eq_ignore_ascii_case("http://") && (port.is_empty() || port.starts_with(['/', '?']))
        );
    }
    if same_redirect(registered, asked) && registered != asked {
        let place = |text: &str| {
            let (scheme, rest) = text.split_once("://").unwrap();
            let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            let host =
                authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
            let path = path.split('?').next().unwrap_or("").to_owned();
            let path = if path.is_empty() { "/".to_owned() } else { path };
            (scheme.to_ascii_lowercase(), host.map_or(authority, |(host, _)| host).to_owned(), path)
        };
        assert_eq!(place(registered), place(asked));
    }
    if let Some(target) = form_target(asked) {
        // It becomes a part of the page's policy, where these would begin another.
        assert!(!target.contains([' ', ';', ',', '\'', '"', '*', '@']) && !target.contains(char::is_control));
    }
    let escaped = escape(&text);
    assert!(!escaped.contains(['<', '>', '"', '\'']) && escaped.len() <= 6 * text.len());
}

arcadia_fuzz::target!(sign_in_fields, |data: &[u8]| fields_are_what_was_sent(data));

/// An `Authorization` header, a `Cookie` header and a form, a line each.
fn fields_are_what_was_sent(data: &[u8]) {
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let mut headers = HeaderMap::new();
    for name in [header::AUTHORIZATION, header::COOKIE] {
        let value = lines.next().and_then(|line| HeaderValue::from_bytes(line).ok());
        headers.extend(value.map(|value| (name, value)));
    }
    let form = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let fields = Query::parse(&form);
    let head = head(headers);
    if let Some(cookie) = cookie(&head) {
        assert!((1..=64).contains(&cookie.len()) && !cookie.contains(';'));
    }
    let basic = head.header(&header::AUTHORIZATION).and_then(basic_credentials);
    if let Ok(presented) = Presented::read(&fields, &head) {
        let from_form = fields.first("client_id").map(str::to_owned);
        assert_eq!(Some(presented.client_id), from_form.or(basic.map(|(id, _)| id)));
    }
    let scope = fields.first("scope").unwrap_or("");
    if let Ok(wanted) = Wanted::from_scope(scope, "graph.microsoft.com") {
        // What is kept of a sign-in and read again means the same.
        let again = Wanted::from_scope(&wanted.scope, "graph.microsoft.com");
        assert_eq!(again.ok().map(|again| again.scope), Some(wanted.scope));
    }
    let _ = Wanted::from_resource(fields.first("resource").unwrap_or(""));
}

fn head(headers: HeaderMap) -> RequestHead {
    RequestHead {
        method: Method::POST,
        host: "login.microsoftonline.com".to_owned(),
        origin: "https://login.microsoftonline.com".to_owned(),
        path: "/common/oauth2/v2.0/token".to_owned(),
        segments: Vec::new(),
        raw_query: String::new(),
        query: Query::default(),
        headers,
        params: Params::default(),
        remote: None,
        request_id: Uuid::nil(),
        caller_id: Default::default(),
    }
}
