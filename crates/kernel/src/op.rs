//! One row of a service's URL surface: method, path, what it needs, and the function that does it.

use std::borrow::Cow;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;

use http::Method;
use http_body::Body as _;

use crate::dispatch::read_body;
use crate::permit::Grant;
use crate::{
    Action, Body, Fault, Input, Open, Pattern, Permit, Plane, Reply, Request, RequestHead, Service, SignedIn,
    Streamed,
};

/// What a caller needs to run an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// A token for the service, and a role that allows `action` at the target.
    Decided { action: Cow<'static, str>, plane: Plane },
    /// A token for the service; the handler itself shows only what is the caller's.
    SignedIn { because: &'static str },
    /// Nothing.
    Public { because: &'static str },
}

/// What is known of an operation without running it; documents, tests and audit read it.
#[derive(Clone, Debug)]
pub struct OpInfo {
    pub name: Cow<'static, str>,
    pub method: Method,
    pub pattern: Pattern,
    pub access: Access,
    pub body_bytes_max: Option<usize>,
    /// `name=value` that the query must have; `name` alone means present.
    pub query: Vec<(&'static str, Option<&'static str>)>,
    /// Whether a record is written although anyone may (sign-ins).
    pub audited: bool,
}

impl OpInfo {
    fn new(name: Cow<'static, str>, method: Method, path: &'static str, access: Access) -> Self {
        Self {
            name,
            method,
            pattern: Pattern::new(path),
            access,
            body_bytes_max: None,
            query: Vec::new(),
            audited: false,
        }
    }

    pub fn action(&self) -> Cow<'static, str> {
        match &self.access {
            Access::Decided { action, .. } => action.clone(),
            Access::SignedIn { .. } => SignedIn::name(),
            Access::Public { .. } => Open::name(),
        }
    }

    /// Whether the row fits, whatever the method.
    pub(crate) fn fits(&self, head: &RequestHead) -> bool {
        self.pattern.fits(&head.segments)
            && self.query.iter().all(|(name, value)| match (head.query.first(name), value) {
                (Some(found), Some(wanted)) => found.eq_ignore_ascii_case(wanted),
                (Some(_), None) => true,
                (None, _) => false,
            })
    }

    pub(crate) fn weight(&self) -> (usize, usize) {
        (self.pattern.weight(), self.query.len())
    }
}

/// A service together with what was located for this request.
pub struct At<S: Service> {
    pub service: Arc<S>,
    pub target: S::Target,
}

impl<S: Service> Deref for At<S> {
    type Target = S;
    fn deref(&self) -> &S {
        &self.service
    }
}

type Running = Pin<Box<dyn Future<Output = Result<Reply, Fault>> + Send>>;
type Run<S> = Box<dyn Fn(At<S>, Grant, Arriving) -> Running + Send + Sync>;

/// Decides once more; a fault when what was allowed is allowed no longer.
pub(crate) type StillAllowed = Box<dyn Fn() -> Result<(), Fault> + Send + Sync>;

/// A request whose operation was allowed and whose body may still be on its way.
pub(crate) struct Arriving {
    pub head: Arc<RequestHead>,
    pub body: Body,
    pub body_bytes_max: usize,
    pub still_allowed: StillAllowed,
}

/// A row: what it needs and what it does.
pub struct Op<S: Service> {
    pub info: OpInfo,
    pub(crate) run: Run<S>,
}

impl<S: Service> Op<S> {
    fn new<A, I, F, Fut>(
        name: Cow<'static, str>,
        method: Method,
        path: &'static str,
        access: Access,
        f: F,
    ) -> Self
    where
        A: Action,
        I: Input,
        F: Fn(At<S>, Permit<A>, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply, Fault>> + Send + 'static,
    {
        let f = Arc::new(f);
        let run: Run<S> = Box::new(move |at, grant, arriving| {
            let f = f.clone();
            Box::pin(async move {
                let Arriving { head, body, body_bytes_max, still_allowed } = arriving;
                let has_body = !body.is_end_stream();
                let body = read_body(&head, body, body_bytes_max).await?;
                if has_body {
                    still_allowed()?;
                }
                let input = I::read(Request { head, body })?;
                f(at, Permit::new(grant), input).await
            })
        });
        Self { info: OpInfo::new(name, method, path, access), run }
    }

    /// A bound on the body other than the site's default.
    pub fn body_bytes_max(mut self, bytes: usize) -> Self {
        self.info.body_bytes_max = Some(bytes);
        self
    }

    /// The row only fits when the query has this field (with this value).
    pub fn when_query(mut self, name: &'static str, value: Option<&'static str>) -> Self {
        self.info.query.push((name, value));
        self
    }

    /// Writes an audit record for an operation that is open to anyone.
    pub fn audited(mut self) -> Self {
        self.info.audited = true;
        self
    }
}

/// An operation that needs a role: `op("SecretGet", Method::GET, "/secrets/{name}/{version?}", secret_get)`,
/// where the function's `Permit<A>` says which action is decided on.
pub fn op<S, A, I, F, Fut>(
    name: impl Into<Cow<'static, str>>,
    method: Method,
    path: &'static str,
    f: F,
) -> Op<S>
where
    S: Service,
    A: Action,
    I: Input,
    F: Fn(At<S>, Permit<A>, I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Reply, Fault>> + Send + 'static,
{
    let access = Access::Decided { action: A::name(), plane: A::PLANE };
    Op::new::<A, I, F, Fut>(name.into(), method, path, access, f)
}

/// An operation that needs a role and reads its body as it arrives. What it has read is bounded like any other
/// body, but not held in memory.
pub fn op_streamed<S, A, F, Fut>(
    name: impl Into<Cow<'static, str>>,
    method: Method,
    path: &'static str,
    f: F,
) -> Op<S>
where
    S: Service,
    A: Action,
    F: Fn(At<S>, Permit<A>, Streamed) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Reply, Fault>> + Send + 'static,
{
    let access = Access::Decided { action: A::name(), plane: A::PLANE };
    let run: Run<S> = Box::new(move |at, grant, arriving| match Streamed::new(arriving) {
        Ok(streamed) => Box::pin(f(at, Permit::new(grant), streamed)),
        Err(fault) => Box::pin(std::future::ready(Err(fault))),
    });
    Op { info: OpInfo::new(name.into(), method, path, access), run }
}

/// An operation for any signed-in caller, with the reason why no role is asked.
pub fn signed_in<S, I, F, Fut>(
    name: impl Into<Cow<'static, str>>,
    method: Method,
    path: &'static str,
    because: &'static str,
    f: F,
) -> Op<S>
where
    S: Service,
    I: Input,
    F: Fn(At<S>, Permit<SignedIn>, I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Reply, Fault>> + Send + 'static,
{
    Op::new::<SignedIn, I, F, Fut>(name.into(), method, path, Access::SignedIn { because }, f)
}

/// An operation for anyone, with the reason why.
pub fn public<S, I, F, Fut>(
    name: impl Into<Cow<'static, str>>,
    method: Method,
    path: &'static str,
    because: &'static str,
    f: F,
) -> Op<S>
where
    S: Service,
    I: Input,
    F: Fn(At<S>, Permit<Open>, I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Reply, Fault>> + Send + 'static,
{
    Op::new::<Open, I, F, Fut>(name.into(), method, path, Access::Public { because }, f)
}
