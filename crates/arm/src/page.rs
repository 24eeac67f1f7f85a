//! Lists: `$top`, `$skiptoken`, `nextLink`.
//!
//! A list shows of its rows what the caller may read, and a page may end at one that is not shown. So where a page ends is
//! sealed, for the list and the caller: a token tells no name, and nobody makes one.

use std::time::Duration;

use arcadia_kernel::{Continuation, Fault, Page, Query, Reply, RequestHead};
use arcadia_store::{Key, Record, Row, Store, Table};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::Arm;
use crate::size::json_bytes;

/// The most items of one page, and how many there are when the client does not say.
const ITEMS_MAX: usize = 1000;
/// How many rows one request looks at before it answers with what it has so far and a `nextLink`.
const ROWS_EXAMINED_MAX: usize = 20_000;
/// A page ends once its items have so many bytes, however many more are asked for; with the rows that were read together.
const ITEM_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Who works through a list lets others go on after this time.
const TURN_TIME_MAX: Duration = Duration::from_millis(1);

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

/// Items of one page, until it is full.
pub(crate) struct Items {
    limit: usize,
    bytes: usize,
    found: Vec<Value>,
}

impl Items {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, bytes: 0, found: Vec::new() }
    }

    pub(crate) fn push(&mut self, item: Value) {
        self.bytes += json_bytes(&item);
        self.found.push(item);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.found.len() >= self.limit || self.bytes >= ITEM_BYTES_MAX
    }

    /// How many more there may be.
    fn room(&self) -> usize {
        self.limit - self.found.len()
    }

    /// What was found, and where more of it is.
    pub(crate) fn page(self, next: Option<Continuation>) -> Page<Value> {
        Page { items: self.found, next }
    }
}

/// Whose turn it is to work. Deciding about each row of a long list takes long, and nothing else runs meanwhile unless it
/// is let.
pub(crate) struct Turn(Instant);

impl Turn {
    pub(crate) fn begin() -> Self {
        Self(Instant::now())
    }

    /// Lets others go on when this turn took its time.
    pub(crate) async fn passes(&mut self) {
        if self.0.elapsed() >= TURN_TIME_MAX {
            tokio::task::yield_now().await;
            *self = Self::begin();
        }
    }
}

/// Rows below `prefix` that `wanted` turns into items, one window of them.
pub(crate) async fn collect<K, V, P>(
    store: &Store,
    table: Table<K, V>,
    prefix: &P,
    window: Window,
    wanted: impl FnMut(Row<V>) -> Result<Option<Value>, Fault>,
) -> Result<Page<Value>, Fault>
where
    K: Key + ?Sized,
    V: Record,
    P: Key + ?Sized,
{
    let mut items = Items::new(window.limit);
    let next = fill(&mut items, store, table, prefix, window.after, wanted).await?;
    Ok(items.page(next))
}

/// Adds what is wanted of the rows below `prefix` until there are no more, or enough; where the rest starts.
async fn fill<K, V, P>(
    items: &mut Items,
    store: &Store,
    table: Table<K, V>,
    prefix: &P,
    mut after: Option<Continuation>,
    mut wanted: impl FnMut(Row<V>) -> Result<Option<Value>, Fault>,
) -> Result<Option<Continuation>, Fault>
where
    K: Key + ?Sized,
    V: Record,
    P: Key + ?Sized,
{
    let (mut examined, mut turn) = (0, Turn::begin());
    loop {
        // Never more than still fits, so that a page always ends where the next one starts.
        let page = store.range(table, prefix, after.as_ref(), items.room()).await?;
        examined += page.items.len();
        for row in page.items {
            if let Some(item) = wanted(row)? {
                items.push(item);
            }
            turn.passes().await;
        }
        if page.next.is_none() || items.is_full() || examined >= ROWS_EXAMINED_MAX {
            return Ok(page.next);
        }
        after = page.next;
    }
}

/// The same, of several ranges one after the other. Where a page ends is told by the number of its range and the place
/// in it.
pub(crate) async fn collect_all<K, V, P>(
    store: &Store,
    table: Table<K, V>,
    prefixes: &[P],
    window: Window,
    mut wanted: impl FnMut(Row<V>) -> Result<Option<Value>, Fault>,
) -> Result<Page<Value>, Fault>
where
    K: Key + ?Sized,
    V: Record,
    P: Key,
{
    let (mut at, mut after) = match window.after.as_ref().and_then(|token| token.0.split_first()) {
        Some((at, place)) => (usize::from(*at), Some(place.to_vec()).filter(|place| !place.is_empty())),
        None => (0, None),
    };
    let mut items = Items::new(window.limit);
    while let Some(prefix) = prefixes.get(at) {
        let after = after.take().map(Continuation);
        let next = fill(&mut items, store, table, prefix, after, &mut wanted).await?;
        let (reached, place) = match next {
            Some(place) => (at, place.0),
            None => (at + 1, Vec::new()),
        };
        let ends = !place.is_empty() || items.is_full();
        if ends && reached < prefixes.len() {
            let number = u8::try_from(reached).map_err(Fault::internal)?;
            return Ok(items.page(Some(Continuation([&[number][..], &place].concat()))));
        }
        at = reached;
    }
    Ok(items.page(None))
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::sync::Arc;

    use arcadia_crypto::SystemEntropy;
    use arcadia_kernel::{
        Authenticator, Decider, Decision, DenyReason, FixedClock, Gate, Limits, Question, Reason, TokenFault,
        VerifiedToken,
    };

    use super::*;

    struct Nobody;

    impl Authenticator for Nobody {
        fn verify(&self, _: &str, _: i64) -> Result<VerifiedToken, TokenFault> {
            Err(TokenFault::Malformed)
        }
    }

    impl Decider for Nobody {
        fn decide(&self, _: &Question<'_>) -> Decision {
            Decision::Denied(DenyReason::NoAssignment)
        }
    }

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Number(u8);

    impl Record for Number {}

    const NUMBERS: Table<str, Number> = Table::new("test/numbers");

    /// On one thread: what else is to be done is done while a list is decided on.
    #[tokio::test]
    async fn a_list_that_takes_long_lets_others_go_on() {
        let clock = Arc::new(FixedClock::at_epoch_seconds(0));
        let store = Store::in_memory(clock.clone(), Arc::new(SystemEntropy));
        let mut batch = arcadia_store::Batch::new();
        for number in 0..20 {
            batch.put(NUMBERS, format!("{number:02}").as_str(), &Number(number)).unwrap();
        }
        let gate = Arc::new(Gate {
            authenticator: Arc::new(Nobody),
            decider: Arc::new(Nobody),
            audit: store.audit_sink(),
            clock,
            entropy: Arc::new(SystemEntropy),
            limits: Limits::default(),
        });
        store.commit(gate.as_system(Reason::Sweep).stamp(), batch).await.unwrap();
        let (others, at) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
        let wanted = |row: Row<Number>| {
            at.set(at.get().or(Some(others.get())));
            std::thread::sleep(TURN_TIME_MAX * 2);
            Ok(Some(json!(row.value.0)))
        };
        let window = Window { limit: ITEMS_MAX, after: None };
        let other = async {
            loop {
                others.set(others.get() + 1);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            page = collect(&store, NUMBERS, &(), window, wanted) => assert_eq!(page.unwrap().items.len(), 20),
            () = other => {}
        }
        assert!(others.get() - at.get().unwrap() >= 19, "{} {at:?}", others.get());
    }
}
