//! What is recorded of every decision, and the stamp without which nothing can be written.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use uuid::Uuid;

use crate::{ArmId, Caller, CallerKind, Clock};

/// How a request ended, as far as its record knows.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", tag = "result")]
pub enum Outcome {
    /// A change; this record is in the same commit.
    Committed,
    /// Answered with this status.
    Answered { status: u16 },
    /// Refused by the access decision.
    Denied { reason: String },
    /// Not one request: so many of strangers have no record of their own, the first of them at `since`.
    LeftOut { requests: u64, since: Timestamp },
}

/// One record of the audit log. Holds names and numbers only: never a value, token or password.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    pub time: Timestamp,
    /// The same for every record of one request; it is also the answer's `x-ms-request-id`.
    pub request_id: Uuid,
    pub service: Cow<'static, str>,
    pub operation: Cow<'static, str>,
    pub action: Cow<'static, str>,
    pub scope: ArmId,
    pub caller_kind: CallerKind,
    pub caller_object_id: Uuid,
    pub caller_app_id: Uuid,
    pub caller_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<IpAddr>,
    /// The role assignment that allowed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assignment: Option<Arc<str>>,
    /// What else was decided for the request, such as the right to read what it copies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<AlsoDecided>,
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// A further right that a request needed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlsoDecided {
    pub action: String,
    pub scope: ArmId,
    /// The role assignment that gave it. Without one it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assignment: Option<Arc<str>>,
}

/// The audit log could not be written; no answer may leave.
#[derive(Debug, thiserror::Error)]
#[error("the audit record could not be written: {0}")]
pub struct AuditFault(pub crate::BoxError);

impl From<AuditFault> for crate::Fault {
    /// 503: what keeps a record from being written, such as a full disk, passes or is mended.
    fn from(fault: AuditFault) -> Self {
        let message = "The service cannot record the request at the moment, and answers nothing that is not on \
                       record. Please retry; the site's operator finds the reason in its status.";
        Self::unavailable(message).caused_by(fault)
    }
}

/// Where records go that belong to no change: reads, refusals.
#[async_trait::async_trait]
pub trait AuditSink: Send + Sync + 'static {
    /// Returns once the record is durable.
    async fn append(&self, event: AuditEvent) -> Result<(), AuditFault>;
}

/// The right to change something, and the record that goes with it. Only the dispatcher and
/// [`crate::Gate::as_system`] make one; the store takes one with each commit and writes its record in the
/// same transaction.
#[derive(Clone)]
pub struct AuditStamp(Arc<Inner>);

struct Inner {
    facts: StampFacts,
    commits: AtomicU32,
    learned: Mutex<Learned>,
}

/// What came out while the request was carried out.
struct Learned {
    /// What allows it; another than at first where more became known of the request.
    assignment: Option<Arc<str>>,
    /// Whom an open operation found its caller to be, or to claim to be.
    caller: Option<Caller>,
    also: Vec<AlsoDecided>,
}

impl AuditStamp {
    pub(crate) fn new(mut facts: StampFacts) -> Self {
        let learned = Learned { assignment: facts.assignment.take(), caller: None, also: Vec::new() };
        Self(Arc::new(Inner { facts, commits: AtomicU32::new(0), learned: Mutex::new(learned) }))
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.0.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record for a commit that is about to be written. Call [`PendingRecord::written`] once it is durable.
    pub fn record(&self) -> PendingRecord {
        PendingRecord { event: self.event(Outcome::Committed), stamp: self.clone() }
    }

    pub fn request_id(&self) -> Uuid {
        self.0.facts.request_id
    }

    /// Names the caller of an open operation that checks its own credentials, so that a sign-in is recorded under
    /// whoever proved (or, with [`CallerKind::Anonymous`], merely claimed) to sign in. Later calls replace earlier
    /// ones; where the dispatcher knew the caller, nothing changes.
    pub fn identify(&self, caller: Caller) {
        if self.0.facts.caller.kind == CallerKind::Anonymous {
            self.learned().caller = Some(caller);
        }
    }

    /// The request was decided on again: what allows it now, nothing where it is refused.
    pub(crate) fn allowed_by(&self, assignment: Option<Arc<str>>) {
        self.learned().assignment = assignment;
    }

    /// Puts a further decision on record. What was decided twice counts once, the request's own right that holds still
    /// among it.
    pub(crate) fn note(&self, decided: AlsoDecided) {
        let facts = &self.0.facts;
        let is_own = decided.scope == facts.scope && decided.action == facts.action;
        let mut learned = self.learned();
        if !(is_own && decided.assignment.is_some() || learned.also.contains(&decided)) {
            learned.also.push(decided);
        }
    }

    pub(crate) fn event(&self, outcome: Outcome) -> AuditEvent {
        let facts = &self.0.facts;
        let learned = self.learned();
        let caller = learned.caller.as_ref().unwrap_or(&*facts.caller);
        AuditEvent {
            time: facts.clock.now(),
            request_id: facts.request_id,
            service: facts.service.into(),
            operation: facts.operation.clone(),
            action: facts.action.clone(),
            scope: facts.scope.clone(),
            caller_kind: caller.kind,
            caller_object_id: caller.object_id,
            caller_app_id: caller.app_id,
            caller_name: caller.name.clone(),
            remote: facts.remote,
            assignment: learned.assignment.clone(),
            also: learned.also.clone(),
            outcome,
        }
    }

    pub(crate) fn commits(&self) -> u32 {
        self.0.commits.load(Ordering::Acquire)
    }
}

/// A record on its way into a commit.
pub struct PendingRecord {
    pub event: AuditEvent,
    stamp: AuditStamp,
}

impl PendingRecord {
    /// Says that the record is durable together with its change.
    pub fn written(self) {
        self.stamp.0.commits.fetch_add(1, Ordering::AcqRel);
    }
}

/// What a record says; made into one only when there is something to record.
pub(crate) struct StampFacts {
    pub request_id: Uuid,
    pub service: &'static str,
    pub operation: Cow<'static, str>,
    pub action: Cow<'static, str>,
    pub scope: ArmId,
    pub caller: Arc<Caller>,
    pub remote: Option<IpAddr>,
    pub assignment: Option<Arc<str>>,
    pub clock: Arc<dyn Clock>,
}
