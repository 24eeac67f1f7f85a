//! Lists: `$top`, `$skiptoken`, `nextLink`.
//!
//! A list shows of its rows what the caller may read, and a page may end at one that is not shown. So where a page ends is
//! sealed, for the list and the caller: a token tells no name, and nobody makes one.

use arcadia_kernel::{Continuation, Fault, Page, Query, Reply, RequestHead};
use arcadia_store::{Key, Record, Row, Store, Table};
use serde_json::{Value, json};

use crate::Arm;

/// The most items of one page, and how many there are when the client does not say.
const ITEMS_MAX: usize = 1000;
/// How many rows one request looks at before it answers with what it has so far and a `nextLink`.
const ROWS_EXAMINED_MAX: usize = 20_000;

/// What part of a list is asked for.
pub(crate) struct Window {
    pub(crate) limit: usize,
    pub(crate) after: Option<Continuation>,
}

impl Window {
    pub(crate) fn of(arm: &Arm, head: &RequestHead) -> Result<Self, Fault> {
        let limit = Self::limit(&head.query)?;
        let token = head.query.first("$skiptoken").filter(|token| !token.is_empty());
        let after = token.map(|token| opened(arm, head, token)).transpose()?;
        Ok(Self { limit, after })
    }

    pub(crate) fn limit(query: &Query) -> Result<usize, Fault> {
        match query.first("$top") {
            None | Some("") => Ok(ITEMS_MAX),
            Some(text) => match text.parse::<usize>() {
                Ok(top) if top > 0 => Ok(top.min(ITEMS_MAX)),
                _ => {
                    let message = "The value of $top is not valid. Use a whole number from 1 on.";
                    Err(Fault::bad_request("InvalidTopParameter", message))
                }
            },
        }
    }
}

/// Rows below `prefix` that `wanted` turns into items, one window of them.
pub(crate) async fn collect<K, V, P, T>(
    store: &Store,
    table: Table<K, V>,
    prefix: &P,
    window: Window,
    mut wanted: impl FnMut(Row<V>) -> Result<Option<T>, Fault>,
) -> Result<Page<T>, Fault>
where
    K: Key + ?Sized,
    V: Record,
    P: Key + ?Sized,
{
    let (mut items, mut after, mut examined) = (Vec::new(), window.after, 0);
    loop {
        // Never more than still fits, so that a page always ends where the next one starts.
        let room = window.limit - items.len();
        let page = store.range(table, prefix, after.as_ref(), room).await?;
        examined += page.items.len();
        for row in page.items {
            items.extend(wanted(row)?);
        }
        if page.next.is_none() || items.len() >= window.limit || examined >= ROWS_EXAMINED_MAX {
            return Ok(Page { items, next: page.next });
        }
        after = page.next;
    }
}

/// The same, of several ranges one after the other. Where a page ends is told by the number of its range and the place
/// in it.
pub(crate) async fn collect_all<K, V, P, T>(
    store: &Store,
    table: Table<K, V>,
    prefixes: &[P],
    window: Window,
    mut wanted: impl FnMut(Row<V>) -> Result<Option<T>, Fault>,
) -> Result<Page<T>, Fault>
where
    K: Key + ?Sized,
    V: Record,
    P: Key,
{
    let (mut at, mut after) = match window.after.as_ref().and_then(|token| token.0.split_first()) {
        Some((at, place)) => (usize::from(*at), Some(place.to_vec()).filter(|place| !place.is_empty())),
        None => (0, None),
    };
    let mut items = Vec::new();
    while let Some(prefix) = prefixes.get(at) {
        let room = Window { limit: window.limit - items.len(), after: after.take().map(Continuation) };
        let page = collect(store, table, prefix, room, &mut wanted).await?;
        items.extend(page.items);
        let (reached, place) = match page.next {
            Some(place) => (at, place.0),
            None => (at + 1, Vec::new()),
        };
        let ends = !place.is_empty() || items.len() >= window.limit;
        if ends && reached < prefixes.len() {
            let number = u8::try_from(reached).map_err(Fault::internal)?;
            return Ok(Page { items, next: Some(Continuation([&[number][..], &place].concat())) });
        }
        at = reached;
    }
    Ok(Page { items, next: None })
}

/// `{"value":[…],"nextLink"}`; the link repeats the request with the token of the next page.
pub(crate) fn reply(arm: &Arm, head: &RequestHead, page: Page<Value>) -> Result<Reply, Fault> {
    let mut body = json!({ "value": page.items });
    if let Some(next) = &page.next {
        body["nextLink"] = sealed(arm, head, next)?.link(head, "%24skiptoken").into();
    }
    Reply::ok(&body)
}

fn sealed(arm: &Arm, head: &RequestHead, next: &Continuation) -> Result<Continuation, Fault> {
    let sealed = arm.page_keys.seal(&binding(head), &next.0, &*arm.entropy);
    sealed.map(Continuation).map_err(Fault::internal)
}

fn opened(arm: &Arm, head: &RequestHead, token: &str) -> Result<Continuation, Fault> {
    let sealed = Continuation::parse(token, head)?;
    let place = arm.page_keys.open(&binding(head), &sealed.0).map_err(|_| Continuation::not_issued())?;
    Ok(Continuation(place.to_vec()))
}

/// What a token is good for: one caller and one list, whose spelling may change from page to page.
fn binding(head: &RequestHead) -> Vec<u8> {
    format!("{} {} {}", head.caller_id(), head.host, head.segments.join("/")).to_lowercase().into_bytes()
}
