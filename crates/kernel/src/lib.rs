//! Names and laws. No I/O happens here.
//!
//! Everything a service needs to be *reached* and *refused* lives in this crate: the resource identifiers
//! ([`ArmId`]), who asks ([`Caller`]), what is asked ([`Action`]), the right to do it ([`Permit`]), one row of
//! a service's URL surface ([`Op`]), the one place that decides ([`Dispatcher`]) and the one shape of a refusal
//! ([`Fault`]).

mod action;
mod address;
mod arm_id;
mod audit;
mod auth;
mod caller;
mod clock;
mod decide;
mod dispatch;
mod fault;
#[cfg(test)]
mod fuzz;
mod gate;
mod host;
mod op;
mod page;
mod permit;
mod places;
mod reply;
mod request;
mod request_ids;
mod route;
mod service;
mod strangers;

pub use action::{Action, Open, Plane, SignedIn, SystemWork};
pub use address::counted_address;
pub use arm_id::{ArmId, ArmIdError};
pub use audit::{AlsoDecided, AuditEvent, AuditFault, AuditSink, AuditStamp, Outcome, PendingRecord};
pub use auth::{AuthFailure, Authenticator, Proven, TokenFault, VerifiedToken, trim_audience};
pub use caller::{Caller, CallerKind};
pub use clock::{Clock, Entropy, EntropyExt, FixedClock};
pub use decide::{Decider, Decision, Denial, DenyReason, Question};
pub use dispatch::{Dispatcher, Endpoint, Incoming};
pub use fault::Fault;
pub use gate::{Gate, Limits, Reason};
pub use host::{is_domain, is_site_domain, parse_authority};
pub use op::{Access, At, Op, OpInfo, op, op_streamed, public, signed_in};
pub use page::{Continuation, Page};
pub use permit::Permit;
pub use places::{GIVE_WAY_AFTER, Place, Places, Progress, Serving, Waited};
pub use reply::{Body, BodyError, BoxError, Reply, empty_body, full_body};
pub use request::{Form, Input, Json, Query, Request, RequestHead, Streamed};
pub use route::{Params, Pattern, split_path};
pub use service::{Located, Service};
pub use strangers::StrangersBounded;

/// Re-exported so that a service names the same versions the dispatcher does.
pub use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
