//! Fuzz targets for what every request goes through before any service sees it.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::page::tests::list;
use crate::{
    ArmId, At, AuditEvent, AuditFault, AuditSink, AuthFailure, Authenticator, Caller, Continuation, Decider,
    Decision, Denial, DenyReason, Dispatcher, Endpoint as _, Entropy, Fault, FixedClock, Gate, HeaderValue,
    Incoming, Json, Limits, Located, Method, OpInfo, Pattern, Permit, Query, Question, Reply, RequestHead,
    Service, StatusCode, Streamed, TokenFault, VerifiedToken, action, full_body, header, op, op_streamed,
    split_path,
};

arcadia_fuzz::target!(arm_id, |data: &[u8]| arm_id_compares_by_segments(data));

/// Two identifiers, a line each: containment is what comparing their segments one by one says.
fn arm_id_compares_by_segments(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (left, right) = text.split_once('\n').unwrap_or((&text, ""));
    let Ok(left) = ArmId::parse(left) else { return };
    let again = ArmId::parse(left.as_str()).unwrap();
    assert_eq!(again.as_str(), left.as_str());
    let folded = |id: &ArmId| id.segments().map(str::to_lowercase).collect::<Vec<_>>();
    assert_eq!(
        left.folded(),
        if left.is_root() { "/".to_owned() } else { format!("/{}", folded(&left).join("/")) }
    );
    let lineage: Vec<&str> = left.folded_lineage().collect();
    assert_eq!(lineage.len(), left.segments().count() + 1);
    assert_eq!(lineage.last(), Some(&left.folded()));
    for (step, above) in std::iter::successors(left.parent(), ArmId::parent).zip(lineage.iter().rev().skip(1))
    {
        assert!(step.contains(&left) && !left.contains(&step));
        assert_eq!(step.folded(), *above);
    }
    if let (Some(parent), false) = (left.parent(), left.is_root()) {
        assert_eq!(parent.join(left.name()).unwrap(), left);
    }
    let _ = (left.subscription(), left.resource_group_id(), left.resource_type());
    let Ok(right) = ArmId::parse(right) else { return };
    assert_eq!(left.contains(&right), folded(&right).starts_with(&folded(&left)));
    assert_eq!(left == right, folded(&left) == folded(&right));
}

arcadia_fuzz::target!(request_path, |data: &[u8]| path_segments_are_clean(data));

const PATTERNS: [&str; 3] = [
    "/{scope*}/providers/Microsoft.Authorization/roleAssignments/{name}",
    "/secrets/{name}/{version?}",
    "/{all*}",
];

/// What a path is split into is bounded, has nothing that could mean another place, and is a fixed point.
fn path_segments_are_clean(data: &[u8]) {
    let path = String::from_utf8_lossy(data);
    let Some(segments) = split_path(&path) else { return };
    assert!(segments.len() <= 64 && segments.iter().map(String::len).sum::<usize>() <= path.len());
    for segment in &segments {
        assert!(!segment.is_empty() && segment != "." && segment != "..");
        assert!(!segment.contains(|c: char| c == '/' || c.is_control()));
    }
    let encoded =
        segments.iter().map(|segment| format!("/{}", utf8_percent_encode(segment, NON_ALPHANUMERIC)));
    assert_eq!(split_path(&encoded.collect::<String>()).as_ref(), Some(&segments));
    for pattern in PATTERNS {
        let Some(params) = Pattern::new(pattern).matches(&segments) else { continue };
        for rest in [params.value("scope"), params.value("all")].into_iter().flatten() {
            assert!(rest.starts_with('/') && rest.len() <= path.len() + 1);
            if let Ok(id) = ArmId::parse(rest) {
                assert!(id.segments().eq(segments[..id.segments().count()].iter().map(String::as_str)));
            }
        }
        assert!(params.value("name").is_none_or(|name| segments.iter().any(|segment| segment == name)));
    }
}

arcadia_fuzz::target!(form_fields, |data: &[u8]| fields_are_read_once(data));

/// Queries and forms: as many fields as were sent, none longer than it was sent, and written again the same.
fn fields_are_read_once(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let query = Query::parse(&text);
    let fields: Vec<(&str, &str)> = query.iter().collect();
    assert_eq!(fields.len(), text.split('&').filter(|pair| !pair.is_empty()).count());
    assert!(fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= text.len());
    let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let again: Vec<String> =
        fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    assert_eq!(Query::parse(&again.join("&")).iter().collect::<Vec<_>>(), fields);
    for (name, _) in &fields {
        let first =
            fields.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| *value);
        assert_eq!(query.first(&name.to_ascii_uppercase()), first);
    }
}

arcadia_fuzz::target!(page_token, |data: &[u8]| tokens_of_pages_come_back(data));

/// A token that was given is read as the same place; a token that is read is one that could have been given.
fn tokens_of_pages_come_back(data: &[u8]) {
    let given = Continuation(data.to_vec());
    let head = list("/subscriptions/s/resources", 1);
    match Continuation::parse(&given.token(&head), &head) {
        Ok(read) => assert_eq!(read, given),
        Err(_) => assert!(given.token(&head).len() > 4096),
    }
    let text = String::from_utf8_lossy(data);
    if let Ok(read) = Continuation::parse(&text, &head) {
        assert_eq!(read.token(&head), text.trim_end_matches('='));
    }
}

arcadia_fuzz::target!(dispatch, |data: &[u8]| nothing_runs_without_its_right(data));

const BODY_BYTES_MAX: usize = 64;

/// What happened while one request was answered.
#[derive(Default)]
struct Seen {
    decided: AtomicUsize,
    ran: AtomicUsize,
    recorded: AtomicUsize,
}

action!(WriteThing, Data, "x/things/write");

struct Things(Arc<Seen>);

impl Service for Things {
    type Target = ();
    const NAME: &'static str = "things";

    fn audiences(&self, _: &RequestHead) -> Vec<Cow<'_, str>> {
        vec![Cow::from("https://things/")]
    }

    fn locate(&self, _: &OpInfo, head: &RequestHead) -> Result<Located<()>, Fault> {
        let scope = ArmId::parse(&format!("/things/{}", head.param("name")));
        let scope = scope.map_err(|_| Fault::bad_request("Name", "That is no name."))?;
        Ok(Located { scope, target: () })
    }

    fn challenge(&self, _: &RequestHead, _: &AuthFailure) -> Fault {
        Fault::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Who are you?")
    }

    fn refuse(&self, _: &RequestHead, _: &Caller, _: &Denial) -> Fault {
        Fault::forbidden("Forbidden", "Not you.")
    }

    fn no_such_operation(&self, _: &RequestHead, _: bool) -> Fault {
        Fault::new(StatusCode::NOT_FOUND, "NotFound", "There is no such thing.")
    }

    fn render(&self, _: &RequestHead, fault: &Fault) -> Reply {
        Reply::empty(fault.status)
    }

    fn finish(&self, _: &RequestHead, _: &mut Reply) {}
}

async fn write(at: At<Things>, _: Permit<WriteThing>, input: Json<Value>) -> Result<Reply, Fault> {
    at.0.ran.fetch_add(1, Ordering::Relaxed);
    assert!(serde_json::to_vec(&input.value).unwrap().len() <= 8 * BODY_BYTES_MAX);
    Reply::ok(&input.value)
}

async fn read(at: At<Things>, _: Permit<WriteThing>, mut body: Streamed) -> Result<Reply, Fault> {
    let mut read = 0;
    while let Some(bytes) = body.next().await? {
        read += bytes.len();
    }
    assert!(read <= BODY_BYTES_MAX);
    at.0.ran.fetch_add(1, Ordering::Relaxed);
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

impl Authenticator for Seen {
    fn verify(&self, token: &str, now: i64) -> Result<VerifiedToken, TokenFault> {
        let caller = Arc::new(Caller::system("someone"));
        let audience = token.strip_prefix("good:").ok_or(TokenFault::Signature)?.to_owned();
        Ok(VerifiedToken { caller, audience: audience.into(), expires_at: now })
    }
}

impl Decider for Seen {
    fn decide(&self, question: &Question<'_>) -> Decision {
        self.decided.fetch_add(1, Ordering::Relaxed);
        if question.scope.folded() == "/things/mine" {
            Decision::Allowed { by: "it is mine".into() }
        } else {
            Decision::Denied(DenyReason::NoAssignment)
        }
    }
}

#[async_trait::async_trait]
impl AuditSink for Seen {
    async fn append(&self, _: AuditEvent) -> Result<(), AuditFault> {
        self.recorded.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

struct Counting;

impl Entropy for Counting {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(7);
    }
}

/// Lines: method, target, headers; after an empty line the body. An operation runs only for the one right token, at
/// the one scope that is allowed, with a body within its bound; each decision has a record.
fn nothing_runs_without_its_right(data: &[u8]) {
    let at = data.windows(2).position(|two| two == b"\n\n").unwrap_or(data.len());
    let Ok(head) = std::str::from_utf8(&data[..at]) else { return };
    let body = data.get(at + 2..).unwrap_or_default().to_vec();
    let mut lines = head.split('\n');
    let mut request =
        http::Request::builder().method(lines.next().unwrap_or("")).uri(lines.next().unwrap_or(""));
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        request = request.header(name, value.trim());
    }
    let Ok(request) = request.body(()) else { return };
    let (head, ()) = request.into_parts();
    let seen = Arc::new(Seen::default());
    let mut limits = Limits::default();
    (limits.target_bytes_max, limits.body_bytes_max, limits.bearer_bytes_max) = (1024, BODY_BYTES_MAX, 128);
    let gate = Arc::new(Gate {
        authenticator: seen.clone(),
        decider: seen.clone(),
        audit: seen.clone(),
        clock: Arc::new(FixedClock::at_epoch_seconds(1_795_262_400)),
        entropy: Arc::new(Counting),
        limits,
    });
    let rows = vec![
        op("ThingWrite", Method::PUT, "/things/{name}", write),
        op_streamed("ThingRead", Method::POST, "/things/{name}", read),
        op("ThingGet", Method::GET, "/things/{name}/{version?}", write).when_query("api-version", None),
    ];
    let tokens: Vec<HeaderValue> = head.headers.get_all(header::AUTHORIZATION).iter().cloned().collect();
    let is_head = head.method == Method::HEAD;
    let dispatcher = Arc::new(Dispatcher::new(Arc::new(Things(seen.clone())), rows, gate));
    let incoming = Incoming {
        head,
        body: full_body(body.clone()),
        host: "things".to_owned(),
        origin: "https://things".to_owned(),
        remote: None,
    };
    let answer = dispatcher.serve(incoming).now_or_never().unwrap();
    assert!(!answer.status().is_server_error(), "{}", answer.status());
    let answered = answer.into_body().collect().now_or_never().unwrap().unwrap().to_bytes();
    assert!(!is_head || answered.is_empty());
    let [decided, ran, recorded] =
        [&seen.decided, &seen.ran, &seen.recorded].map(|count| count.load(Ordering::Relaxed));
    assert!(ran <= 1 && (decided == 0 || recorded >= 1));
    if ran == 1 {
        assert!(body.len() <= BODY_BYTES_MAX && decided >= 1);
        let [token] = tokens.as_slice() else { panic!("ran for {} tokens", tokens.len()) };
        let token = token.to_str().unwrap().to_ascii_lowercase();
        assert!(token.starts_with("bearer ") && token.contains("good:https://things"));
    }
}
