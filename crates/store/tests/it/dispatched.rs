//! The store behind a real dispatcher: each request has its record, a change exactly one and in its own commit,
//! and without a record there is no answer.

use std::borrow::Cow;
use std::sync::Arc;

use arcadia_crypto::SystemEntropy;
use arcadia_kernel::{
    ArmId, At, AuthFailure, Authenticator, Caller, CallerKind, Decider, Decision, Denial, DenyReason,
    Dispatcher, Endpoint as _, Fault, Gate, Incoming, Limits, Located, Method, Op, OpInfo, Outcome, Permit,
    Question, Reply, Request, RequestHead, Service, StatusCode, TokenFault, VerifiedToken, action, full_body,
    op,
};
use arcadia_store::{Batch, SqliteBackend, SqliteOptions, Store};

use crate::support::{NOTES, NOW, clock, in_memory, note, ring};

action!(ReadNote, Data, "Arcadia.Tests/notes/read");
action!(WriteNote, Data, "Arcadia.Tests/notes/write");

struct Notes(Store);

impl Service for Notes {
    type Target = ();
    const NAME: &'static str = "notes";

    fn audiences(&self, _: &RequestHead) -> Vec<Cow<'_, str>> {
        vec!["notes".into()]
    }

    fn locate(&self, _: &OpInfo, head: &RequestHead) -> Result<Located<()>, Fault> {
        Ok(Located { scope: ArmId::parse(&head.path).map_err(Fault::internal)?, target: () })
    }

    fn challenge(&self, _: &RequestHead, _: &AuthFailure) -> Fault {
        Fault::new(StatusCode::UNAUTHORIZED, "Unauthorized", "")
    }

    fn refuse(&self, _: &RequestHead, _: &Caller, _: &Denial) -> Fault {
        Fault::forbidden("Forbidden", "")
    }

    fn no_such_operation(&self, _: &RequestHead, _: bool) -> Fault {
        Fault::not_found("NotFound", "")
    }

    fn render(&self, _: &RequestHead, fault: &Fault) -> Reply {
        Reply::empty(fault.status)
    }

    fn finish(&self, _: &RequestHead, _: &mut Reply) {}
}

async fn read(notes: At<Notes>, _: Permit<ReadNote>, request: Request) -> Result<Reply, Fault> {
    let row = notes.0.get(NOTES, request.head.param("name")).await?;
    let row = row.ok_or_else(|| Fault::not_found("NoteNotFound", "There is no such note."))?;
    Reply::ok(&row.value)
}

async fn create(notes: At<Notes>, permit: Permit<WriteNote>, request: Request) -> Result<Reply, Fault> {
    let mut batch = Batch::new();
    let name = request.head.param("name");
    batch.require_absent(NOTES, name);
    batch.put(NOTES, name, &note(&String::from_utf8_lossy(&request.body)))?;
    notes.0.commit(permit.stamp(), batch).await?;
    Ok(Reply::empty(StatusCode::CREATED))
}

/// The token is the caller's name; `reader` may read, `writer` may write.
struct ByName;

impl Authenticator for ByName {
    fn verify(&self, token: &str, now: i64) -> Result<VerifiedToken, TokenFault> {
        let caller = Caller { kind: CallerKind::User, name: token.to_owned(), ..Caller::anonymous() };
        Ok(VerifiedToken { caller: Arc::new(caller), audience: "notes".into(), expires_at: now + 1 })
    }
}

impl Decider for ByName {
    fn decide(&self, question: &Question<'_>) -> Decision {
        match (question.caller.name.as_str(), question.action.ends_with("/read")) {
            ("reader", true) | ("writer", false) => Decision::Allowed { by: "assignment".into() },
            _ => Decision::Denied(DenyReason::NoAssignment),
        }
    }
}

fn site(store: &Store) -> Arc<Dispatcher<Notes>> {
    let gate = Gate {
        authenticator: Arc::new(ByName),
        decider: Arc::new(ByName),
        audit: store.audit_sink(),
        clock: clock(),
        entropy: Arc::new(SystemEntropy),
        limits: Limits::default(),
    };
    let table: Vec<Op<Notes>> = vec![
        op("NoteRead", Method::GET, "/notes/{name}", read),
        op("NoteCreate", Method::PUT, "/notes/{name}", create),
    ];
    Arc::new(Dispatcher::new(Arc::new(Notes(store.clone())), table, Arc::new(gate)))
}

async fn ask(site: &Arc<Dispatcher<Notes>>, caller: &str, method: Method, name: &str, body: &str) -> u16 {
    let request = http::Request::builder()
        .method(method)
        .uri(format!("/notes/{name}"))
        .header("authorization", format!("Bearer {caller}"))
        .body(())
        .unwrap();
    let incoming = Incoming {
        head: request.into_parts().0,
        body: full_body(body.to_owned()),
        host: "notes.example".to_owned(),
        origin: "https://notes.example".to_owned(),
        remote: None,
    };
    site.clone().serve(incoming).await.status().as_u16()
}

async fn outcomes(store: &Store) -> Vec<(String, Outcome)> {
    let page = store.audit_page(0, 1000).await.unwrap();
    page.into_iter().map(|(_, event)| (event.operation.into_owned(), event.outcome)).collect()
}

#[tokio::test]
async fn every_decision_has_one_record() {
    let store = in_memory();
    let site = site(&store);
    assert_eq!(ask(&site, "writer", Method::PUT, "a", "one").await, 201);
    assert_eq!(ask(&site, "reader", Method::GET, "a", "").await, 200);
    assert_eq!(
        ask(&site, "writer", Method::PUT, "a", "again").await,
        409,
        "a requirement that does not hold"
    );
    assert_eq!(ask(&site, "reader", Method::PUT, "a", "no").await, 403);
    assert_eq!(ask(&site, "reader", Method::GET, "none", "").await, 404);
    let denied = Outcome::Denied { reason: DenyReason::NoAssignment.to_string() };
    let expected = [
        ("NoteCreate", Outcome::Committed),
        ("NoteRead", Outcome::Answered { status: 200 }),
        ("NoteCreate", Outcome::Answered { status: 409 }),
        ("NoteCreate", denied),
        ("NoteRead", Outcome::Answered { status: 404 }),
    ];
    assert_eq!(outcomes(&store).await, expected.map(|(operation, outcome)| (operation.to_owned(), outcome)));
    assert_eq!(store.get(NOTES, "a").await.unwrap().unwrap().value, note("one"));
}

#[tokio::test]
async fn without_a_record_there_is_no_answer() {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions { database_bytes_max: 256 * 1024, ..SqliteOptions::default() };
    let backend = SqliteBackend::open(&directory.path().join("site"), &options, NOW).unwrap();
    let store =
        Store::over(Arc::new(backend), ring(directory.path()), Arc::new(SystemEntropy)).await.unwrap();
    let site = site(&store);
    assert_eq!(ask(&site, "writer", Method::PUT, "a", "one").await, 201);
    let (mut answered, mut last) = (0, 200);
    // Each read writes a record, until the database is full.
    while last == 200 && answered < 5000 {
        last = ask(&site, "reader", Method::GET, "a", "").await;
        answered += u64::from(last == 200);
    }
    assert_eq!(last, 503, "after {answered} answers");
    assert!(answered > 10);
    let records = store.audit_verify().await.unwrap();
    assert_eq!((records.records, records.first_broken), (answered + 1, None), "as many records as answers");
    assert_eq!(ask(&site, "stranger", Method::GET, "a", "").await, 503, "nor is a refusal given unrecorded");
    assert_eq!(ask(&site, "writer", Method::PUT, "b", "two").await, 503);
    assert!(store.get(NOTES, "b").await.unwrap().is_none());
}
