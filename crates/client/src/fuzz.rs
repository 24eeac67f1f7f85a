//! Fuzz targets for what proxies and sites answer, and for the settings that name a proxy.

use std::sync::OnceLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::oauth::TokenAnswer;
use crate::origin::is_loopback;
use crate::proxy::ENTRIES_MAX;
use crate::tunnel::{ANSWER_BYTES_MAX, read_answer};
use crate::{Answer, DeviceCode, NoProxy, Proxy, Token};

arcadia_fuzz::target!(upstream_answer, |data: &[u8]| what_follows_the_answer_is_left(data));

/// A tunnel begins after an answer of success, exactly behind its empty line.
fn what_follows_the_answer_is_left(data: &[u8]) {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| tokio::runtime::Builder::new_current_thread().build().unwrap());
    let mut rest = data;
    let answer = runtime.block_on(read_answer(&mut rest));
    let read = &data[..data.len() - rest.len()];
    assert!(read.len() <= ANSWER_BYTES_MAX);
    let end = data.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
    match answer {
        Ok(()) => {
            assert_eq!(Some(read.len()), end);
            assert!(read.starts_with(b"HTTP/1.") && read.windows(2).any(|two| two == b" 2"));
            let line = read.split(|byte| *byte == b'\r').next().unwrap();
            let status = line.split(|byte| *byte == b' ').nth(1).unwrap();
            assert!(
                matches!(status, [b'2', b'0'..=b'9', b'0'..=b'9']),
                "{:?}",
                String::from_utf8_lossy(line)
            );
        }
        Err(told) => assert!(told.len() <= 4 * 100 + 64 && !told.contains(char::is_control), "{told:?}"),
    }
}

arcadia_fuzz::target!(proxy_settings, |data: &[u8]| settings_mean_what_they_say(data));

/// An address, a list of exceptions and a host, a line each. What is shown of an address is an address of the same
/// proxy, and the same whatever its credentials are; the exceptions are those of a reading by labels.
fn settings_mean_what_they_say(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(3, '\n');
    let [address, list, host] = [(); 3].map(|()| lines.next().unwrap_or(""));
    let shown = |address: &str| match Proxy::parse(address) {
        Ok(proxy) => (proxy.to_string(), true),
        Err(fault) => (fault.to_string(), false),
    };
    let (told, _) = shown(address);
    assert!(told.len() < 4 * 200 + 200 && !told.contains(char::is_control), "{told:?}");
    if let Ok(proxy) = Proxy::parse(address) {
        let again = Proxy::parse(&told).unwrap();
        assert_eq!((again.host(), again.port()), (proxy.host(), proxy.port()));
        assert_eq!(again.authorization, None);
        assert_eq!(proxy.authorization.is_some(), address.contains('@'));
    }
    if let Some((user, place)) = address.rsplit_once('@') {
        let with = |user: &str| format!("http://{user}@{place}");
        assert_eq!(shown(&with(user)), shown(&with("x")), "{address:?}");
        if let Ok(proxy) = Proxy::parse(&with(user))
            && !user.contains('%')
        {
            let expected = format!("Basic {}", arcadia_crypto::b64(user.as_bytes()));
            assert_eq!(proxy.authorization, Some(expected));
        }
    }
    let exceptions = NoProxy::parse(list);
    let covered = exceptions.covers(host);
    assert_eq!(covered, is_listed(list, host), "{list:?} {host:?}");
    assert_eq!(covered, exceptions.covers(&host.to_ascii_uppercase()));
    if !host.ends_with('.') {
        assert_eq!(covered, exceptions.covers(&format!("{host}.")));
    }
}

/// [`NoProxy::covers`], label by label from the last one.
fn is_listed(list: &str, host: &str) -> bool {
    let labels = |name: &str| -> Vec<String> {
        let mut labels: Vec<String> = name.to_ascii_lowercase().rsplit('.').map(str::to_owned).collect();
        if labels.first().is_some_and(String::is_empty) {
            labels.remove(0);
        }
        labels
    };
    let host = labels(host);
    let plain = host.iter().rev().map(String::as_str).collect::<Vec<_>>().join(".");
    let entries = list.split(|c: char| c == ',' || c.is_whitespace()).map(|mut entry| {
        while let Some(rest) = entry.strip_prefix("*.") {
            entry = rest;
        }
        labels(entry.trim_start_matches('.'))
    });
    entries.filter(|entry| !entry.is_empty()).take(ENTRIES_MAX).any(|entry| {
        entry == ["*"] || host.starts_with(&entry) || (entry == ["localhost"] && is_loopback(&plain))
    })
}

arcadia_fuzz::target!(site_answers, |data: &[u8]| answers_are_bounded_and_clean(data));

/// The value of `Retry-After` and a body. What is shown of an answer is short and moves no terminal's cursor, whatever
/// was expected; a refusal in any envelope has the site's own words; no token is shown.
fn answers_are_bounded_and_clean(data: &[u8]) {
    let (later, body) = match data.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (&b""[..], data),
    };
    let of = |body: &[u8]| Answer {
        status: StatusCode::BAD_REQUEST,
        headers: HeaderMap::from_iter(
            HeaderValue::from_bytes(later).ok().map(|later| (header::RETRY_AFTER, later)),
        ),
        body: Bytes::copy_from_slice(body),
        host: "site.example.net".to_owned(),
    };
    let is_clean = |text: &str| text.len() <= 9000 && !text.contains(|c: char| c.is_control() && c != '\n');
    let answer = of(body);
    let refusal = answer.refusal();
    assert!(refusal.code.len() <= 4096 && refusal.message.len() <= 4096 && is_clean(&refusal.to_string()));
    if let Some(seconds) = refusal.retry_after_seconds {
        let said: u128 = String::from_utf8_lossy(later).trim().trim_start_matches('+').parse().unwrap();
        assert_eq!(said, u128::from(seconds));
    }
    match answer.json::<TokenAnswer>() {
        Ok(told) => {
            let token = Token::from(told);
            let shown = format!("{token:?}");
            assert_eq!(shown, format!("Token {{ expires_in_seconds: {}, .. }}", token.expires_in_seconds));
        }
        Err(fault) => assert!(is_clean(&fault.to_string()), "{fault}"),
    }
    match answer.json::<DeviceCode>() {
        Ok(code) => {
            let shown = [&code.user_code, &code.verification_uri, &code.message];
            assert!(shown.iter().all(|text| text.len() <= 4096 && is_clean(text)), "{shown:?}");
        }
        Err(fault) => assert!(is_clean(&fault.to_string()), "{fault}"),
    }
    let words = String::from_utf8_lossy(body);
    let kept: String = words.chars().filter(|c| !c.is_control() || *c == '\n').collect();
    let envelopes: [Value; 3] = [
        json!({"error": {"code": words, "message": words}}),
        json!({"error": words, "error_description": words}),
        json!({"code": words, "message": words}),
    ];
    for envelope in envelopes.iter().filter(|_| kept.len() <= 4096) {
        let refusal = of(envelope.to_string().as_bytes()).refusal();
        assert_eq!((&refusal.code, &refusal.message), (&kept, &kept));
    }
}
