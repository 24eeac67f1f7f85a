//! Fuzz target for the query of a list.

use arcadia_kernel::{Continuation, HeaderMap, Method, Params, Query, RequestHead};
use uuid::Uuid;

use super::{Ask, PAGE_ITEMS_MAX, next_link};

arcadia_fuzz::target!(secret_list_query, |data: &[u8]| the_next_page_is_where_the_link_says(data));

/// A place to go on at and a query, with a null byte between them.
fn the_next_page_is_where_the_link_says(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let place = Continuation(data[..at].to_vec());
    let query = String::from_utf8_lossy(data.get(at + 1..).unwrap_or_default()).into_owned();
    let head = head(query);
    let Ok(ask) = Ask::of(&head) else { return };
    assert!((1..=PAGE_ITEMS_MAX).contains(&ask.limit));
    // The version was read before a list is asked for, and has nothing that would need an escape.
    if head.query.first("api-version").unwrap_or("").trim().parse::<crate::ApiVersion>().is_err() {
        return;
    }
    let link = next_link(&head, &place).unwrap();
    let (start, query) = link.split_once('?').unwrap();
    assert_eq!(start, "https://v.vault.azure.net/secrets");
    assert!(!query.contains(|c: char| c == '#' || c.is_control() || c.is_whitespace()), "{link:?}");
    let Ok(next) = Ask::of(&self::head(query.to_owned())) else {
        assert!(link.len() > 4096, "{link} is not taken");
        return;
    };
    assert_eq!((next.after, next.limit), (Some(place), ask.limit));
}

fn head(raw_query: String) -> RequestHead {
    RequestHead {
        method: Method::GET,
        host: "v.vault.azure.net".to_owned(),
        origin: "https://v.vault.azure.net".to_owned(),
        path: "/secrets".to_owned(),
        segments: vec!["secrets".to_owned()],
        query: Query::parse(&raw_query),
        raw_query,
        headers: HeaderMap::new(),
        params: Params::default(),
        remote: None,
        request_id: Uuid::nil(),
        caller_id: Default::default(),
    }
}
