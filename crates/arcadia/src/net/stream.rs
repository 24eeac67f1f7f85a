//! Byte streams with something added: bytes read ahead, a bound on silence.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

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

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// How many requests of one connection are being answered, and how many there were.
#[derive(Default)]
pub struct Requests {
    running: AtomicUsize,
    begun: AtomicU64,
}

impl Requests {
    /// Counts one request for as long as the result lives.
    pub fn begin(self: &Arc<Self>) -> impl Drop + use<> {
        self.running.fetch_add(1, Ordering::AcqRel);
        self.begun.fetch_add(1, Ordering::AcqRel);
        Running(self.clone())
    }
}

struct Running(Arc<Requests>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A stream that fails with `TimedOut` when nothing moves in either direction for `idle` while no request is
/// being answered, or when a request head that has begun is not complete after `head`.
pub struct Timed<S> {
    inner: S,
    idle: Duration,
    head: Option<Duration>,
    requests: Arc<Requests>,
    moved_at: Instant,
    /// When the first byte of a head came, and how many requests had begun by then.
    head_began: Option<(Instant, u64)>,
    alarm: Pin<Box<Sleep>>,
}

impl<S> Timed<S> {
    pub fn idle(inner: S, idle: Duration) -> Self {
        Self::new(inner, idle, None, Arc::default())
    }

    pub fn new(inner: S, idle: Duration, head: Option<Duration>, requests: Arc<Requests>) -> Self {
        let alarm = Box::pin(tokio::time::sleep(head.unwrap_or(idle).min(idle)));
        Self { inner, idle, head, requests, moved_at: Instant::now(), head_began: None, alarm }
    }

    fn moved(&mut self, read: bool) {
        self.moved_at = Instant::now();
        let begun = self.requests.begun.load(Ordering::Acquire);
        if self.head_began.is_some_and(|(_, before)| before != begun) {
            self.head_began = None;
        }
        let quiet = self.requests.running.load(Ordering::Acquire) == 0;
        if read && quiet && self.head.is_some() && self.head_began.is_none() {
            self.head_began = Some((self.moved_at, begun));
        }
    }

    /// Ready when the stream has been silent for too long; else sees to it that the task wakes in time to notice.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = Instant::now();
            let busy = self.requests.running.load(Ordering::Acquire) > 0;
            let begun = self.requests.begun.load(Ordering::Acquire);
            let head_due = match (self.head_began, self.head) {
                (Some((since, before)), Some(head)) if before == begun => Some(since + head),
                _ => None,
            };
            let idle_due = if busy { now + self.idle } else { self.moved_at + self.idle };
            let due = head_due.map_or(idle_due, |head_due| head_due.min(idle_due));
            if due <= now {
                return Poll::Ready(());
            }
            self.alarm.as_mut().reset(due);
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
        let requests = Arc::new(Requests::default());
        let mut stream = Timed::new(near, IDLE, Some(HEAD), requests.clone());
        let running = requests.begin();
        let start = Instant::now();
        let still = tokio::time::timeout(IDLE * 3, stream.read_u8()).await;
        assert!(still.is_err(), "no timeout while a request runs");
        drop(running);
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= IDLE * 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickled_head_ends_and_a_quiet_connection_lives_on() {
        let (near, mut far) = duplex(64);
        let requests = Arc::new(Requests::default());
        let mut stream = Timed::new(near, IDLE, Some(HEAD), requests.clone());
        far.write_all(b"GET").await.unwrap();
        let mut buffer = [0; 3];
        stream.read_exact(&mut buffer).await.unwrap();
        // The request is complete: answered, and the connection then kept for longer than a head may take.
        drop(requests.begin());
        assert!(tokio::time::timeout(Duration::from_secs(80), stream.read_u8()).await.is_err());
        let start = Instant::now();
        let trickle = tokio::spawn(async move {
            while far.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
        });
        let error = loop {
            if let Err(error) = stream.read_u8().await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
        trickle.abort();
    }
}
