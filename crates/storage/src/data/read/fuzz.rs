//! Fuzz target for the part of a blob that is asked for.

use arcadia_kernel::{HeaderMap, HeaderValue, Method, Params, Query, RequestHead};
use uuid::Uuid;

use super::asked_range;

arcadia_fuzz::target!(blob_range, |data: &[u8]| ranges_are_those_of_http(data));

/// A length, `Range` and `x-ms-range`, a line each.
fn ranges_are_those_of_http(data: &[u8]) {
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let length = lines.next().and_then(|line| std::str::from_utf8(line).ok()?.parse::<u64>().ok());
    let Some(length) = length else { return };
    let mut headers = HeaderMap::new();
    for name in ["range", "x-ms-range"] {
        let Some(line) = lines.next().filter(|line| !line.is_empty()) else { continue };
        let Ok(value) = HeaderValue::from_bytes(line) else { return };
        headers.append(name, value);
    }
    let (head, text) =
        (head(headers.clone()), |name| headers.get(name).and_then(|value| value.to_str().ok()));
    let answer = asked_range(&head, length);
    if headers.get("x-ms-range").is_some_and(|value| value.to_str().is_err()) {
        return assert!(answer.is_err());
    }
    let own = text("x-ms-range");
    let Some(asked) = own.or(text("range")) else { return assert!(matches!(answer, Ok(None))) };
    match (expected(asked, length), answer) {
        (Expected::Part(from, until), Ok(Some(found))) => {
            assert!(from < until && until <= u128::from(length));
            assert_eq!((u128::from(found.0), u128::from(found.1)), (from, until));
        }
        (Expected::Behind, Err(fault)) => assert_eq!(fault.status.as_u16(), 416),
        (Expected::Unread, Err(fault)) => assert!(own.is_some() && fault.status.as_u16() == 400),
        (Expected::Unread, Ok(None)) => assert!(own.is_none()),
        (_, answer) => panic!("{asked:?} of {length}: {:?}", answer.ok()),
    }
}

enum Expected {
    Part(u128, u128),
    Behind,
    Unread,
}

/// The same by wide numbers and one digit after the other.
fn expected(text: &str, length: u64) -> Expected {
    let number = |digits: &str| -> Option<u128> {
        let value = digits.chars().try_fold(0_u128, |sum, digit| {
            Some(sum * 10 + u128::from(digit.to_digit(10)?)).filter(|sum| *sum <= u128::from(u64::MAX))
        });
        value.filter(|_| !digits.is_empty())
    };
    let Some((first, last)) = text.trim().strip_prefix("bytes=").and_then(|rest| rest.split_once('-')) else {
        return Expected::Unread;
    };
    let (Some(first), last) = (number(first), (last, number(last))) else { return Expected::Unread };
    let until = match last {
        ("", _) => u128::from(length),
        (_, Some(last)) if last >= first => (last + 1).min(u128::from(length)),
        _ => return Expected::Unread,
    };
    if first >= u128::from(length) { Expected::Behind } else { Expected::Part(first, until) }
}

fn head(headers: HeaderMap) -> RequestHead {
    RequestHead {
        method: Method::GET,
        host: "a1.blob.core.windows.net".to_owned(),
        origin: "https://a1.blob.core.windows.net".to_owned(),
        path: "/c/b".to_owned(),
        segments: vec!["c".to_owned(), "b".to_owned()],
        raw_query: String::new(),
        query: Query::default(),
        headers,
        params: Params::default(),
        remote: None,
        request_id: Uuid::nil(),
        caller_id: Default::default(),
    }
}
