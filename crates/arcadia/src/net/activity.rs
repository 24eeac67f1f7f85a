//! What goes on in one connection: whether its client waits for the site, or the site for its client, and since when.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use arcadia_kernel::{Body, BodyError, Waited};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

use super::bodies::Bodies;

/// Shared by a connection, its requests, and the list of its listener's connections.
pub struct Activity {
    now: Mutex<Now>,
    /// Of the same listener.
    bodies: Weak<Bodies>,
}

#[derive(Clone, Copy)]
pub struct Now {
    /// When bytes last moved, in either direction.
    pub moved_at: Instant,
    /// When the client last did what it was waited for: a tunnel or its TLS began, a request did, its answer ended.
    pub turned_at: Instant,
    /// Requests so far.
    pub begun: u64,
    /// Requests that are being answered.
    pub running: usize,
    /// Those of them whose body the site waits for.
    pub awaited: usize,
    /// Answers on their way to the client.
    pub leaving: usize,
}

impl Activity {
    pub fn new(bodies: Weak<Bodies>) -> Self {
        let opened = Instant::now();
        let now = Now { moved_at: opened, turned_at: opened, begun: 0, running: 0, awaited: 0, leaving: 0 };
        Self { now: Mutex::new(now), bodies }
    }

    pub fn now(&self) -> Now {
        *self.lock()
    }

    /// Notes that bytes moved. Gives what goes on then.
    pub fn moved(&self) -> Now {
        let mut now = self.lock();
        now.moved_at = Instant::now();
        *now
    }

    /// Notes that the client did what it was waited for, and is waited for anew. Gives what goes on then.
    pub fn turned(&self) -> Now {
        let mut now = self.lock();
        now.moved_at = Instant::now();
        now.turned_at = now.moved_at;
        *now
    }

    /// Counts a request for as long as the result lives.
    pub fn begin(self: &Arc<Self>) -> Running {
        let mut now = self.lock();
        now.begun += 1;
        now.running += 1;
        now.turned_at = Instant::now();
        Running(self.clone())
    }

    /// Notes that a request waits for its body, for as long as the result lives.
    pub fn awaiting(self: &Arc<Self>) -> Awaiting {
        self.lock().awaited += 1;
        if let Some(bodies) = self.bodies.upgrade() {
            bodies.awaited();
        }
        Awaiting(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waited for Activity {
    /// A request whose body has not come yet waits for its client, and not for the site. Where no request is under way,
    /// bytes that make up none are no progress.
    fn waited_since(&self) -> Option<Instant> {
        let now = self.lock();
        let is_under_way = now.running > 0 || now.leaving > 0;
        let since = if is_under_way { now.moved_at.max(now.turned_at) } else { now.turned_at };
        (now.running <= now.awaited).then_some(since)
    }

    /// A body, an answer, or what a tunnel carries: of that no request is seen.
    fn is_under_way(&self) -> bool {
        let now = self.lock();
        now.running > 0 || now.leaving > 0 || now.begun == 0
    }
}

/// A request that is being answered.
pub struct Running(Arc<Activity>);

impl Running {
    /// The answer begins to leave; it is under way until its body is gone.
    pub fn leaving(self, body: Body) -> LeavingBody {
        self.0.lock().leaving += 1;
        LeavingBody { inner: body, _leaving: Leaving(self.0.clone()) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut now = self.0.lock();
        now.running -= 1;
        now.turned_at = Instant::now();
    }
}

pub struct Awaiting(Arc<Activity>);

impl Drop for Awaiting {
    fn drop(&mut self) {
        self.0.lock().awaited -= 1;
        if let Some(bodies) = self.0.bodies.upgrade() {
            bodies.came();
        }
    }
}

struct Leaving(Arc<Activity>);

impl Drop for Leaving {
    fn drop(&mut self) {
        let mut now = self.0.lock();
        now.leaving -= 1;
        now.turned_at = Instant::now();
    }
}

/// An answer's body on its way.
pub struct LeavingBody {
    inner: Body,
    _leaving: Leaving,
}

impl hyper::body::Body for LeavingBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_count_while_a_request_is_under_way() {
        let activity = Arc::new(Activity::new(Weak::new()));
        let pause = || tokio::time::sleep(Duration::from_secs(1));
        let opened = Instant::now();
        pause().await;
        activity.moved();
        assert_eq!(activity.waited_since(), Some(opened), "frames that make up no request");
        assert!(activity.is_under_way(), "it may be a tunnel");
        let running = activity.begin();
        assert_eq!(activity.waited_since(), None);
        let awaiting = activity.awaiting();
        pause().await;
        activity.moved();
        assert_eq!(activity.waited_since(), Some(Instant::now()), "a body");
        assert!(activity.is_under_way());
        drop(awaiting);
        let leaving = running.leaving(arcadia_kernel::empty_body());
        pause().await;
        activity.moved();
        assert_eq!(activity.waited_since(), Some(Instant::now()), "an answer");
        assert!(activity.is_under_way());
        drop(leaving);
        assert!(!activity.is_under_way());
        let answered = Instant::now();
        pause().await;
        activity.moved();
        assert_eq!(activity.waited_since(), Some(answered));
        activity.turned();
        assert_eq!(activity.waited_since(), Some(Instant::now()));
    }
}
