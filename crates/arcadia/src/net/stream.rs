//! Byte streams with something added: bytes read ahead, a bound on silence.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::activity::Activity;

/// Any connected stream.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

pub type BoxStream = Box<dyn Duplex>;

/// A stream whose first bytes were read already.
pub struct Prefixed<S> {
    prefix: io::Cursor<Vec<u8>>,
    inner: S,
}

impl<S> Prefixed<S> {
    pub fn new(prefix: Vec<u8>, inner: S) -> Self {
        Self { prefix: io::Cursor::new(prefix), inner }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let at = self.prefix.position() as usize;
        let left = self.prefix.get_ref().len() - at;
        if left == 0 {
            return Pin::new(&mut self.inner).poll_read(cx, buffer);
        }
        let count = left.min(buffer.remaining());
        buffer.put_slice(&self.prefix.get_ref()[at..at + count]);
        self.prefix.set_position((at + count) as u64);
        if count == left {
            // The memory of the first bytes is not needed for the rest of a long connection.
            self.prefix = io::Cursor::new(Vec::new());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A stream that fails with `TimedOut` when its client keeps the site waiting for too long: between two requests, in
/// the middle of a request's head, or with an answer that it does not take.
pub struct Timed<S> {
    inner: S,
    idle: Duration,
    counts: Counts,
    activity: Arc<Activity>,
    /// When the first byte of a head came, and how many requests had begun by then.
    head_began: Option<(Instant, u64)>,
    alarm: Pin<Box<Sleep>>,
}

/// What a client has to do to be taken for alive.
#[derive(Clone, Copy)]
enum Counts {
    Bytes,
    /// Bytes that make up no request do not keep a connection. `head` bounds a request's head, where requests come
    /// one after the other.
    Requests {
        head: Option<Duration>,
    },
}

impl<S> Timed<S> {
    /// For bytes that are carried and not understood.
    pub fn carried(inner: S, idle: Duration, activity: Arc<Activity>) -> Self {
        Self::new(inner, idle, Counts::Bytes, activity)
    }

    pub fn http1(inner: S, idle: Duration, head: Duration, activity: Arc<Activity>) -> Self {
        Self::new(inner, idle, Counts::Requests { head: Some(head) }, activity)
    }

    /// Frames come at any time, so there is no moment at which a head begins.
    pub fn http2(inner: S, idle: Duration, activity: Arc<Activity>) -> Self {
        Self::new(inner, idle, Counts::Requests { head: None }, activity)
    }

    fn new(inner: S, idle: Duration, counts: Counts, activity: Arc<Activity>) -> Self {
        let alarm = Box::pin(tokio::time::sleep(idle));
        Self { inner, idle, counts, activity, head_began: None, alarm }
    }

    fn moved(&mut self, read: bool) {
        let now = match self.counts {
            Counts::Bytes => self.activity.turned(),
            Counts::Requests { .. } => self.activity.moved(),
        };
        if self.head_began.is_some_and(|(_, before)| before != now.begun) {
            self.head_began = None;
        }
        let quiet = now.running == 0 && now.leaving == 0;
        if read && quiet && self.head_began.is_none() {
            self.head_began = Some((now.moved_at, now.begun));
        }
    }

    fn due(&self, at: Instant) -> Instant {
        let now = self.activity.now();
        let head = match self.counts {
            Counts::Bytes => return now.moved_at + self.idle,
            Counts::Requests { head } => head,
        };
        match (self.head_began, head) {
            (Some((since, before)), Some(head)) if before == now.begun => since + head,
            // The site's own time, or that of a body, which has a pace of its own.
            _ if now.running > 0 => at + self.idle,
            _ if now.leaving > 0 => now.moved_at + self.idle,
            _ => now.turned_at + self.idle,
        }
    }

    /// Ready when the client has had its time; else sees to it that the task wakes in time to notice. An alarm that is
    /// too early stays as it is: to wake for nothing now and then costs less than to move it with every request.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = Instant::now();
            let due = self.due(now);
            if due <= now {
                return Poll::Ready(());
            }
            if self.alarm.is_elapsed() || self.alarm.deadline() > due {
                self.alarm.as_mut().reset(due);
            }
            if self.alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn poll_result<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
        moved: impl FnOnce(&T) -> Option<bool>,
    ) -> Poll<io::Result<T>> {
        match result {
            Poll::Ready(Ok(value)) => {
                if let Some(read) = moved(&value) {
                    self.moved(read);
                }
                Poll::Ready(Ok(value))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => match self.poll_expired(cx) {
                Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let grew = buffer.filled().len() > before;
        self.poll_result(cx, result, |()| grew.then_some(true))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.poll_result(cx, result, |_| Some(false))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, parts);
        self.poll_result(cx, result, |_| Some(false))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.poll_result(cx, result, |()| None)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.poll_result(cx, result, |()| None)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const IDLE: Duration = Duration::from_secs(90);
    const HEAD: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn the_prefix_comes_first_and_in_pieces() {
        let (near, mut far) = duplex(64);
        far.write_all(b" world").await.unwrap();
        drop(far);
        let mut stream = Prefixed::new(b"hello".to_vec(), near);
        let mut piece = [0; 2];
        stream.read_exact(&mut piece).await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&piece, rest.as_str()), (b"he", "llo world"));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_stream_and_a_running_request_does_not() {
        let (near, _far) = duplex(64);
        let activity = Arc::new(Activity::new(Weak::new()));
        let mut stream = Timed::http1(near, IDLE, HEAD, activity.clone());
        let running = activity.begin();
        let start = Instant::now();
        let still = tokio::time::timeout(IDLE * 3, stream.read_u8()).await;
        assert!(still.is_err(), "no timeout while a request runs");
        drop(running);
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), (IDLE * 4).as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickled_head_ends_and_a_quiet_connection_lives_on() {
        let (near, mut far) = duplex(64);
        let activity = Arc::new(Activity::new(Weak::new()));
        let mut stream = Timed::http1(near, IDLE, HEAD, activity.clone());
        far.write_all(b"GET").await.unwrap();
        let mut buffer = [0; 3];
        stream.read_exact(&mut buffer).await.unwrap();
        // The request is complete: answered, and the connection then kept for longer than a head may take.
        drop(activity.begin());
        assert!(tokio::time::timeout(Duration::from_secs(80), stream.read_u8()).await.is_err());
        let start = Instant::now();
        let trickle = tokio::spawn(trickle(far));
        assert_eq!(end(&mut stream).await, io::ErrorKind::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
        trickle.abort();
    }

    /// A byte every three seconds.
    async fn trickle(mut far: tokio::io::DuplexStream) {
        while far.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    }

    async fn end(stream: &mut (impl AsyncRead + Unpin)) -> io::ErrorKind {
        loop {
            if let Err(error) = stream.read_u8().await {
                return error.kind();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn frames_without_a_request_keep_no_connection() {
        let (near, far) = duplex(64);
        let mut stream = Timed::http2(near, IDLE, Arc::new(Activity::new(Weak::new())));
        let start = Instant::now();
        let trickle = tokio::spawn(trickle(far));
        assert_eq!(end(&mut stream).await, io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), IDLE.as_secs());
        trickle.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_ends_and_one_that_is_taken_slowly_does_not() {
        let (near, mut far) = duplex(1);
        let activity = Arc::new(Activity::new(Weak::new()));
        let mut stream = Timed::http1(near, IDLE, HEAD, activity.clone());
        let _answer = activity.begin().leaving(arcadia_kernel::full_body("x"));
        let start = Instant::now();
        let reader = tokio::spawn(async move {
            for _ in 0..10 {
                tokio::time::sleep(IDLE / 2).await;
                far.read_u8().await.unwrap();
            }
            far
        });
        let error = stream.write_all(&[0; 100]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), (IDLE * 6).as_secs());
        drop(reader.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_carried_lives_as_long_as_anything_moves() {
        let (near, far) = duplex(64);
        let mut stream = Timed::carried(near, IDLE, Arc::new(Activity::new(Weak::new())));
        let trickle = tokio::spawn(trickle(far));
        assert!(tokio::time::timeout(IDLE * 5, end(&mut stream)).await.is_err());
        trickle.abort();
        let _ = trickle.await;
    }
}
