//! The one path that every request takes: find the row, prove the caller, find the target, decide, read the
//! input, run, render, record.

use std::borrow::Cow;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::audit::StampFacts;
use crate::auth::is_same_audience;
use crate::op::Arriving;
use crate::permit::Grant;
use crate::request_ids::RequestIds;
use crate::{
    Access, Action as _, ArmId, At, AuditStamp, AuthFailure, Body, BodyError, BoxError, Caller, Decider,
    Decision, Denial, DenyReason, Fault, Gate, Located, Op, OpInfo, Outcome, Params, Plane, Proven, Query,
    Question, Reply, RequestHead, Service, SignedIn, TokenFault, empty_body,
};

/// A request as a listener hands it in.
pub struct Incoming {
    pub head: Parts,
    pub body: Body,
    /// The host name the client asked for, without port.
    pub host: String,
    /// `https://host[:port]`, as the client sees it.
    pub origin: String,
    pub remote: Option<IpAddr>,
}

/// A service behind its dispatcher, for the listener's host table.
pub trait Endpoint: Send + Sync {
    fn serve(
        self: Arc<Self>,
        incoming: Incoming,
    ) -> Pin<Box<dyn Future<Output = http::Response<Body>> + Send>>;

    fn service_name(&self) -> &'static str;

    /// Every row, for documents and for the tests that walk them all.
    fn catalogue(&self) -> Vec<OpInfo>;
}

/// A service, its table, and the gate.
pub struct Dispatcher<S: Service> {
    service: Arc<S>,
    /// Most specific first.
    table: Vec<Arc<Op<S>>>,
    gate: Arc<Gate>,
    request_ids: RequestIds,
}

impl<S: Service> Dispatcher<S> {
    pub fn new(service: Arc<S>, mut table: Vec<Op<S>>, gate: Arc<Gate>) -> Self {
        table.sort_by_key(|row| std::cmp::Reverse(row.info.weight()));
        let table = table.into_iter().map(Arc::new).collect();
        Self { service, table, gate, request_ids: RequestIds::default() }
    }

    async fn answer(&self, incoming: Incoming) -> http::Response<Body> {
        let Incoming { head: parts, body, host, origin, remote } = incoming;
        let is_head = parts.method == Method::HEAD;
        let (mut head, well_formed) = self.head(parts, host, origin, remote);
        let row = self.find(&mut head);
        let head = Arc::new(head);
        let result = match well_formed {
            Ok(()) => self.handle(row, head.clone(), body).await,
            Err(fault) => Err(fault),
        };
        let mut reply = result.unwrap_or_else(|fault| self.rendered(&head, &fault));
        self.service.finish(&head, &mut reply);
        if is_head {
            reply.body = empty_body();
        }
        let mut response = http::Response::new(reply.body);
        *response.status_mut() = reply.status;
        *response.headers_mut() = reply.headers;
        response
    }

    fn head(
        &self,
        parts: Parts,
        host: String,
        origin: String,
        remote: Option<IpAddr>,
    ) -> (RequestHead, Result<(), Fault>) {
        let path = parts.uri.path().to_owned();
        let raw_query = parts.uri.query().unwrap_or("").to_owned();
        let too_long = path.len() + raw_query.len() > self.gate.limits.target_bytes_max;
        let split = if too_long { None } else { S::segments(&path) };
        let well_formed = match (&split, too_long) {
            (_, true) => {
                Err(Fault::new(StatusCode::URI_TOO_LONG, "UriTooLong", "The request URI is too long."))
            }
            (None, _) => Err(Fault::bad_request("BadRequest", "The request URI is not well formed.")),
            _ => Ok(()),
        };
        let head = RequestHead {
            method: parts.method,
            host,
            origin,
            query: if too_long { Query::default() } else { Query::parse(&raw_query) },
            path,
            segments: split.unwrap_or_default(),
            raw_query,
            headers: parts.headers,
            params: Params::default(),
            remote,
            request_id: self.request_ids.next(&*self.gate.entropy),
            caller_id: OnceLock::new(),
        };
        (head, well_formed)
    }

    fn rendered(&self, head: &RequestHead, fault: &Fault) -> Reply {
        if let Some(source) = fault.source() {
            tracing::error!(request_id = %head.request_id, service = S::NAME, %source, "{fault:?}");
        }
        let mut reply = self.service.render(head, fault);
        for (name, value) in &fault.headers {
            reply.headers.append(name.clone(), value.clone());
        }
        reply
    }

    async fn handle(
        &self,
        row: Option<Arc<Op<S>>>,
        head: Arc<RequestHead>,
        body: Body,
    ) -> Result<Reply, Fault> {
        // A stranger is challenged before anything else is said, even about paths that do not exist.
        let open = row.as_ref().is_some_and(|row| matches!(row.info.access, Access::Public { .. }));
        let proven = if open { Proven::anonymous() } else { self.authenticate(&head)? };
        let Some(row) = row else {
            let other_method = self.table.iter().any(|row| row.info.fits(&head));
            return Err(self.service.no_such_operation(&head, other_method));
        };
        match self.service.locate(&row.info, &head) {
            Ok(located) => self.permitted(row, head, proven, located, body).await,
            Err(fault) => {
                // Nothing to decide on. Who asked for what does not exist is on record all the same.
                let stamp = self.stamp(&row.info, &head, proven.caller, ArmId::root(), None);
                self.record(&row.info, &stamp, fault.outcome()).await?;
                Err(fault)
            }
        }
    }

    fn find(&self, head: &mut RequestHead) -> Option<Arc<Op<S>>> {
        // HEAD is answered by a HEAD row, else as a GET without its body.
        let by_method =
            |method: &Method| self.table.iter().find(|row| row.info.method == *method && row.info.fits(head));
        let found = by_method(&head.method)
            .or_else(|| if head.method == Method::HEAD { by_method(&Method::GET) } else { None });
        let row = found?.clone();
        head.params = row.info.pattern.matches(&head.segments)?;
        Some(row)
    }

    /// The service's own credentials first, then a bearer token.
    fn authenticate(&self, head: &RequestHead) -> Result<Proven, Fault> {
        if let Some(proven) = self.service.credential(head, self.gate.clock.epoch_seconds())? {
            return Ok(proven);
        }
        self.bearer(head).map(|caller| Proven { caller, decider: None }).map_err(|failure| {
            tracing::debug!(service = S::NAME, path = head.path, ?failure, "not authenticated");
            self.service.challenge(head, &failure)
        })
    }

    fn bearer(&self, head: &RequestHead) -> Result<Arc<Caller>, AuthFailure> {
        let mut values = head.headers.get_all(AUTHORIZATION).iter();
        let value = values.next().ok_or(AuthFailure::Missing)?;
        if values.next().is_some() {
            return Err(AuthFailure::Scheme);
        }
        let value = value.to_str().map_err(|_| AuthFailure::Scheme)?.trim();
        if value.is_empty() {
            return Err(AuthFailure::Missing);
        }
        let (scheme, token) = value.split_once(' ').ok_or(AuthFailure::Scheme)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(AuthFailure::Scheme);
        }
        let token = token.trim();
        if token.len() > self.gate.limits.bearer_bytes_max {
            return Err(AuthFailure::Token(TokenFault::Malformed));
        }
        let now = self.gate.clock.epoch_seconds();
        let verified = self.gate.authenticator.verify(token, now).map_err(AuthFailure::Token)?;
        let expected = self.service.audiences(head);
        if !expected.iter().any(|audience| is_same_audience(audience, &verified.audience)) {
            let expected = expected.into_iter().map(Cow::into_owned).collect();
            let fault = TokenFault::Audience { expected, found: verified.audience.as_ref().to_owned() };
            return Err(AuthFailure::Token(fault));
        }
        Ok(verified.caller)
    }

    async fn permitted(
        &self,
        row: Arc<Op<S>>,
        head: Arc<RequestHead>,
        proven: Proven,
        located: Located<S::Target>,
        body: Body,
    ) -> Result<Reply, Fault> {
        let Located { scope, target } = located;
        let Proven { caller, decider } = proven;
        let decider = decider.unwrap_or_else(|| self.gate.decider.clone());
        let asked = Asked {
            service: self.service.clone(),
            head: head.clone(),
            row: row.clone(),
            caller: caller.clone(),
            decider: decider.clone(),
            scope: scope.clone(),
        };
        let decided = self.service.admit(&head, &target).and_then(|()| asked.decide());
        let by = decided.as_ref().ok().cloned().flatten();
        let stamp = self.stamp(&row.info, &head, caller.clone(), scope.clone(), by.clone());
        if let Err(refusal) = decided {
            self.record(&row.info, &stamp, refusal.outcome()).await?;
            return Err(refusal);
        }
        let grant = Grant { caller, scope, by, stamp: stamp.clone(), decider, gate: self.gate.clone() };
        let arriving = self.arriving(asked, stamp.clone(), head, body);
        let result = self.run(&row, target, grant, arriving).await;
        let outcome = match &result {
            // A change has its record already, in its own commit.
            Ok(_) if stamp.commits() > 0 => return result,
            Ok(reply) => Outcome::Answered { status: reply.status.as_u16() },
            Err(fault) => fault.outcome(),
        };
        self.record(&row.info, &stamp, outcome).await?;
        result
    }

    fn stamp(
        &self,
        row: &OpInfo,
        head: &RequestHead,
        caller: Arc<Caller>,
        scope: ArmId,
        assignment: Option<Arc<str>>,
    ) -> AuditStamp {
        AuditStamp::new(StampFacts {
            request_id: head.request_id,
            service: S::NAME,
            operation: row.name.clone(),
            action: row.action(),
            scope,
            caller,
            remote: head.remote,
            assignment,
            clock: self.gate.clock.clone(),
        })
    }

    /// Without a record there is no answer. What is open to anyone leaves one only where the row says so.
    async fn record(&self, row: &OpInfo, stamp: &AuditStamp, outcome: Outcome) -> Result<(), Fault> {
        if matches!(row.access, Access::Public { .. }) && !row.audited {
            return Ok(());
        }
        self.gate.audit.append(stamp.event(outcome)).await.map_err(Fault::from)
    }

    async fn run(
        &self,
        row: &Op<S>,
        target: S::Target,
        grant: Grant,
        arriving: Arriving,
    ) -> Result<Reply, Fault> {
        let at = At { service: self.service.clone(), target };
        let running = (row.run)(at, grant, arriving);
        running.await
    }

    fn arriving(&self, asked: Asked<S>, stamp: AuditStamp, head: Arc<RequestHead>, body: Body) -> Arriving {
        let body_bytes_max = asked.row.info.body_bytes_max.unwrap_or(self.gate.limits.body_bytes_max);
        // Nobody else knows the caller, so it is not set yet.
        let _ = head.caller_id.set(asked.caller.object_id);
        let still_allowed = Box::new(move || {
            let decided = asked.still_allowed();
            // The record names what allows it now, which need not be what did before.
            stamp.allowed_by(decided.as_ref().ok().cloned().flatten());
            decided.map(|_| ())
        });
        Arriving { head, body, body_bytes_max, still_allowed }
    }
}

/// What a request asks for, and by whom: decided before its body is read, and again once the body has arrived.
struct Asked<S: Service> {
    service: Arc<S>,
    head: Arc<RequestHead>,
    row: Arc<Op<S>>,
    caller: Arc<Caller>,
    decider: Arc<dyn Decider>,
    scope: ArmId,
}

impl<S: Service> Asked<S> {
    /// What allows it, nothing where no role is asked for; or the refusal in the service's words.
    fn decide(&self) -> Result<Option<Arc<str>>, Fault> {
        let (action, plane) = match &self.row.info.access {
            Access::Public { .. } => return Ok(None),
            Access::Decided { action, plane } => (action.clone(), *plane),
            Access::SignedIn { .. } => (SignedIn::name(), Plane::None),
        };
        let Self { caller, scope, .. } = self;
        match self.decider.decide(&Question { caller, action: &action, plane, scope }) {
            Decision::Allowed { by } => Ok(Some(by)),
            // No role is asked for, but a token does not outlive its principal.
            Decision::Denied(reason) if plane == Plane::None && reason != DenyReason::NoSuchPrincipal => {
                Ok(None)
            }
            Decision::Denied(reason) => {
                let told = reason.to_string();
                let denial = Denial { action: action.into_owned(), plane, scope: scope.clone(), reason };
                Err(self.service.refuse(&self.head, caller, &denial).denied(told))
            }
        }
    }

    /// A body may take long to arrive. What was taken away meanwhile must not be used any more, nor the way to it.
    fn still_allowed(&self) -> Result<Option<Arc<str>>, Fault> {
        let now = self.service.locate(&self.row.info, &self.head)?;
        self.service.admit(&self.head, &now.target)?;
        self.decide()
    }
}

pub(crate) fn too_large(limit: usize) -> Fault {
    let message = format!("The request body is larger than the {limit} bytes that this operation accepts.");
    Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
        .header(http::header::CONNECTION, HeaderValue::from_static("close"))
}

/// Refuses a body that says of itself that it is too large.
pub(crate) fn check_announced(head: &RequestHead, limit: usize) -> Result<(), Fault> {
    let announced = head.header(&CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) { Err(too_large(limit)) } else { Ok(()) }
}

/// Reads at most `limit` bytes; time is bounded by the listener, which owns the connection.
pub(crate) async fn read_body(head: &RequestHead, body: Body, limit: usize) -> Result<Bytes, Fault> {
    check_announced(head, limit)?;
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => Err(unread(error, limit)),
    }
}

/// Why a body was not read to its end.
pub(crate) fn unread(error: BoxError, limit: usize) -> Fault {
    if error.is::<LengthLimitError>() {
        return too_large(limit);
    }
    if error.downcast_ref().is_some_and(BodyError::is_too_slow) {
        let message = "The request body arrived too slowly. Send it again, or in smaller parts.";
        return Fault::new(StatusCode::REQUEST_TIMEOUT, "RequestTimeout", message)
            .header(http::header::CONNECTION, HeaderValue::from_static("close"));
    }
    // The client's doing, and no error of the site's.
    tracing::debug!(%error, "a request body broke off");
    Fault::bad_request("BadRequest", "The request body could not be read to its end.")
}

impl<S: Service> Endpoint for Dispatcher<S> {
    fn serve(
        self: Arc<Self>,
        incoming: Incoming,
    ) -> Pin<Box<dyn Future<Output = http::Response<Body>> + Send>> {
        Box::pin(async move { self.answer(incoming).await })
    }

    fn service_name(&self) -> &'static str {
        S::NAME
    }

    fn catalogue(&self) -> Vec<OpInfo> {
        self.table.iter().map(|row| row.info.clone()).collect()
    }
}
