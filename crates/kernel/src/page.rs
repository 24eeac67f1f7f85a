//! Lists come in pages; where one ends is told in an opaque token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::{Fault, Query, RequestHead};

/// The longest continuation token that is read back, in characters.
const TOKEN_CHARS_MAX: usize = 8192;

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Where the next page starts; `None` when this was the last.
    pub next: Option<Continuation>,
}

/// The key after which the next page starts. Clients see it as an opaque token (`$skiptoken`, `marker`), which is good
/// for the list and the caller it was given for.
///
/// It is not secret, and only ever positions a read *within* the range that the request itself names: where everybody
/// who may list sees every row, a forged one reveals nothing that the caller could not list from the start. Whoever
/// shows some of the rows only seals the key before, as the resource manager does. That tokens of other lists are refused
/// keeps clients from mixing them up; it guards nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continuation(pub Vec<u8>);

impl Continuation {
    /// For the list that this request asks for.
    pub fn token(&self, head: &RequestHead) -> String {
        URL_SAFE_NO_PAD.encode([&mark(head)[..], &self.0].concat())
    }

    /// Reads what [`Continuation::token`] gave for the same list and the same caller.
    pub fn parse(token: &str, head: &RequestHead) -> Result<Self, Fault> {
        if token.len() > TOKEN_CHARS_MAX {
            return Err(Self::not_issued());
        }
        let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|_| Self::not_issued())?;
        bytes.strip_prefix(&mark(head)).map(|key| Self(key.to_vec())).ok_or_else(Self::not_issued)
    }

    /// The request's own address with its token in place of the one that was sent, under `$skiptoken` as the service spells
    /// it. What was sent is read as the service will read it: a token that stayed would come first, and be good for ever.
    pub fn link(&self, head: &RequestHead, skiptoken: &str) -> String {
        let is_token = |pair: &str| Query::parse(pair).first("$skiptoken").is_some();
        let kept = head.raw_query.split('&').filter(|pair| !pair.is_empty() && !is_token(pair));
        let token = format!("{skiptoken}={}", self.token(head));
        let query: Vec<&str> = kept.chain([token.as_str()]).collect();
        format!("{}{}?{}", head.origin, head.path, query.join("&"))
    }

    /// 400: the token is none of this list's.
    pub fn not_issued() -> Fault {
        Fault::bad_request(
            "InvalidSkipToken",
            "The continuation token is not one that this service issued for this list.",
        )
    }
}

/// Tells lists and callers apart: FNV-1a of both. Filters and sizes may change from page to page.
fn mark(head: &RequestHead) -> [u8; 8] {
    let path = head.segments.iter().flat_map(|segment| [b"/", segment.as_bytes()]);
    let caller_id = head.caller_id();
    let parts = [caller_id.as_bytes().as_slice(), head.host.as_bytes()].into_iter().chain(path);
    let bytes = parts.flatten().map(u8::to_ascii_lowercase);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.to_be_bytes()
}

#[cfg(test)]
pub(crate) mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{HeaderMap, Method, Params, Query};

    pub(crate) fn list(path: &str, caller_id: u128) -> RequestHead {
        RequestHead {
            method: Method::GET,
            host: "management.azure.com".to_owned(),
            origin: String::new(),
            path: path.to_owned(),
            segments: path.split('/').skip(1).map(str::to_owned).collect(),
            raw_query: String::new(),
            query: Query::default(),
            headers: HeaderMap::new(),
            params: Params::default(),
            remote: None,
            request_id: Uuid::nil(),
            caller_id: Uuid::from_u128(caller_id).into(),
        }
    }

    #[test]
    fn a_link_holds_one_token_however_the_last_was_spelled() {
        let mut head = list("/v1.0/groups", 1);
        let next = Continuation(b"key".to_vec());
        for sent in ["$skiptoken", "%24skiptoken", "$skip%74oken", "%24%53KIPTOKEN"] {
            head.raw_query = format!("&$top=1&{sent}=old&&a=%26$skiptoken&{sent}");
            let link = next.link(&head, "$skiptoken");
            assert_eq!(link, format!("/v1.0/groups?$top=1&a=%26$skiptoken&$skiptoken={}", next.token(&head)));
        }
        head.raw_query = String::new();
        assert_eq!(
            next.link(&head, "%24skiptoken"),
            format!("/v1.0/groups?%24skiptoken={}", next.token(&head))
        );
    }

    #[test]
    fn a_token_is_for_one_list_and_one_caller() {
        let token = Continuation(b"key".to_vec()).token(&list("/subscriptions/s/resources", 1));
        let read = |path, caller_id| Continuation::parse(&token, &list(path, caller_id));
        assert_eq!(read("/Subscriptions/S/resources", 1).unwrap().0, b"key");
        assert!(read("/subscriptions/s/resources", 2).is_err());
        assert!(read("/subscriptions/t/resources", 1).is_err());
        let mut other_host = list("/subscriptions/s/resources", 1);
        other_host.host = "graph.microsoft.com".to_owned();
        assert!(Continuation::parse(&token, &other_host).is_err());
        let head = list("/subscriptions/s/resources", 1);
        // Of this list, and longer than any that is given.
        let long = Continuation(vec![0; 7000]).token(&head);
        for hostile in ["", "=", "AAAA", "%00", "../..", &long, &token[..5], &format!("A{token}")] {
            assert!(Continuation::parse(hostile, &head).is_err(), "{hostile:.20}");
        }
    }
}
