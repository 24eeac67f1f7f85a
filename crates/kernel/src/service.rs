//! What a service tells the dispatcher about itself.

use std::borrow::Cow;

use crate::{ArmId, AuthFailure, Denial, Fault, OpInfo, Proven, Reply, RequestHead, split_path};

/// What a request is about: the scope that is decided on, and what the service found there.
pub struct Located<T> {
    pub scope: ArmId,
    pub target: T,
}

/// A part of Arcadia that answers under its own host names, in its own words.
pub trait Service: Send + Sync + Sized + 'static {
    /// What [`Service::locate`] finds: a vault, an account, or `()` where the path says it all.
    type Target: Send + Sync + 'static;

    /// `keyvault`, `arm`, ...: names the service in audit records and documents.
    const NAME: &'static str;

    /// The decoded segments of a path; `None` when the path cannot be served. A service whose names may hold
    /// slashes, dots and doubled slashes splits its paths itself, at the slashes that mean something to it.
    fn segments(path: &str) -> Option<Vec<String>> {
        split_path(path)
    }

    /// The audiences a token for this service may name; compared by [`crate::trim_audience`].
    fn audiences(&self, head: &RequestHead) -> Vec<Cow<'_, str>>;

    /// A credential other than a bearer token, such as a signature with an account's key, at `now` seconds since
    /// 1970. `None` when the request carries none of the service's own; a fault when it carries one that is
    /// wrong. Must check all of it: what this returns is trusted.
    fn credential(&self, head: &RequestHead, now: i64) -> Result<Option<Proven>, Fault> {
        let _ = (head, now);
        Ok(None)
    }

    /// The resource that `op` acts on, from what is in memory. Runs after the caller is known and before the decision, so
    /// what it reveals by failing must be fit for any signed-in caller. Asked again once a body has arrived.
    fn locate(&self, op: &OpInfo, head: &RequestHead) -> Result<Located<Self::Target>, Fault>;

    /// Whether requests like this one reach the target at all, whoever sends them: network rules. Runs after the
    /// target is located and before roles are asked, and again once a body has arrived; a refusal is recorded like theirs.
    fn admit(&self, head: &RequestHead, target: &Self::Target) -> Result<(), Fault> {
        let _ = (head, target);
        Ok(())
    }

    /// 401 in the service's words, with its challenge header.
    fn challenge(&self, head: &RequestHead, failure: &AuthFailure) -> Fault;

    /// 403 in the service's words.
    fn refuse(&self, head: &RequestHead, caller: &crate::Caller, denial: &Denial) -> Fault;

    /// No row of the table fits: 404, or 405 when `other_method_fits`.
    fn no_such_operation(&self, head: &RequestHead, other_method_fits: bool) -> Fault;

    /// A fault in the service's dialect. The headers of the fault are added by the dispatcher.
    fn render(&self, head: &RequestHead, fault: &Fault) -> Reply;

    /// Headers that every answer of the service carries.
    fn finish(&self, head: &RequestHead, reply: &mut Reply);
}
