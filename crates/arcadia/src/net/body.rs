//! Request bodies that must keep a pace.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arcadia_kernel::BodyError;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::activity::{Activity, Awaiting};
use super::limits::BodyPace;

/// What is still read of a body that nobody wants, and for how long.
const REST_BYTES_MAX: usize = 1024 * 1024;
const REST_TIMEOUT: Duration = Duration::from_secs(5);

/// A request body that ends with an error when its client sends too slowly.
///
/// An answer that does not depend on the body (a refusal) leaves before the body has arrived. To drop the body
/// then would reset the stream under the client, which may take that for a failure and not read the answer; so
/// what is left is read and forgotten, up to a bound.
pub struct PacedBody {
    /// There until it is dropped.
    inner: Option<Incoming>,
    pace: BodyPace,
    bytes: u64,
    /// How long the site has waited so far, in all.
    waited: Duration,
    /// There while the site waits. A body that is here already needs no clock.
    wait: Option<Wait>,
    alarm: Option<Pin<Box<Sleep>>>,
    activity: Arc<Activity>,
}

struct Wait {
    since: Instant,
    _awaiting: Awaiting,
}

impl PacedBody {
    pub fn new(inner: Incoming, pace: BodyPace, activity: Arc<Activity>) -> Self {
        Self { inner: Some(inner), pace, bytes: 0, waited: Duration::ZERO, wait: None, alarm: None, activity }
    }

    fn arrived(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if let Some(wait) = self.wait.take() {
            self.waited += wait.since.elapsed();
        }
    }

    /// Ready when the client has had its time.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let activity = &self.activity;
        let wait =
            self.wait.get_or_insert_with(|| Wait { since: Instant::now(), _awaiting: activity.awaiting() });
        let left = self.pace.patience(self.bytes).saturating_sub(self.waited);
        let due = wait.since + left.min(self.pace.idle_timeout);
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if alarm.deadline() != due {
            alarm.as_mut().reset(due);
        }
        alarm.as_mut().poll(cx)
    }
}

impl hyper::body::Body for PacedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        match Pin::new(inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref);
                self.arrived(data.map_or(0, Bytes::len));
                Poll::Ready(frame.map(|frame| frame.map_err(|error| BodyError(error.into()))))
            }
            Poll::Pending => {
                std::task::ready!(self.poll_late(cx));
                self.wait = None;
                Poll::Ready(Some(Err(BodyError::too_slow())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(SizeHint::default, Incoming::size_hint)
    }
}

impl Drop for PacedBody {
    fn drop(&mut self) {
        let Some(rest) = self.inner.take().filter(|inner| !inner.is_end_stream()) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(REST_TIMEOUT, forget(rest)));
        }
    }
}

async fn forget(rest: Incoming) {
    let mut rest = Limited::new(rest, REST_BYTES_MAX);
    while let Some(Ok(_)) = rest.frame().await {}
}
