//! Carrying the bytes of a session that has begun.
//!
//! A query is a few small messages, so what each of them costs beside its bytes is most of what the gateway costs:
//! how often the thread is woken, and through how many futures that wake goes.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, copy_bidirectional_with_sizes};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::LINGER_SECONDS_MAX;
use super::stream::Stream;

const COPY_BYTES: usize = 32 * 1024;
/// How long a client may take for the last bytes of a server that has ended.
const LAST_BYTES_SECONDS_MAX: u64 = 60;

/// Carries bytes both ways until both sides have ended, until the client has had time to take the last bytes and to go
/// after the server has ended, or until this is dropped. In a task of its own, which a message wakes without everything
/// that waits for the session's end.
pub(super) async fn carry(client: Stream, server: tokio::net::UnixStream) -> io::Result<()> {
    let socket = Arc::new(server.into_std()?);
    let mut server = Server::new(socket.clone())?;
    let (ended, behind) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut client = Client { stream: client, ended: ended.clone(), behind: behind.clone() };
    let mut task = JoinSet::new();
    task.spawn(async move {
        copy_bidirectional_with_sizes(&mut client, &mut server, COPY_BYTES, COPY_BYTES).await
    });
    let over = async {
        tokio::select! {
            () = ended.notified() => {}
            () = hung_up(&behind, &socket) => {
                let last = Duration::from_secs(LAST_BYTES_SECONDS_MAX);
                let _ = tokio::time::timeout(last, ended.notified()).await;
            }
        }
        tokio::time::sleep(Duration::from_secs(LINGER_SECONDS_MAX)).await;
    };
    let carried = tokio::select! {
        carried = task.join_next() => carried,
        () = over => None,
    };
    match carried {
        Some(Ok(carried)) => carried.map(|_| ()),
        Some(Err(fault)) => Err(io::Error::other(fault)),
        None => Ok(()),
    }
}

/// Waits until the server has gone, whatever of its bytes the client has not taken; never returns when it cannot know.
/// Reading shows that too, but not while there is no room for more: a client that takes nothing would keep its place
/// for good. The socket is watched once the client was behind for the first time: most never are.
async fn hung_up(behind: &Notify, socket: &UnixStream) {
    behind.notified().await;
    let seen = async {
        // Who watches for this alone is not told of bytes or of room.
        let watch = watched(socket.try_clone()?, Interest::PRIORITY)?;
        loop {
            let mut there = watch.ready(Interest::PRIORITY).await?;
            if there.ready().is_read_closed() {
                return io::Result::Ok(());
            }
            there.clear_ready();
        }
    };
    if let Err(error) = seen.await {
        tracing::debug!(%error, "a server's end cannot be watched for");
        std::future::pending().await
    }
}

/// A client, and who is told when the server has ended and its last bytes are on their way. A pool that does not use
/// the session would not notice for hours, and keep its place.
struct Client {
    stream: Stream,
    ended: Arc<Notify>,
    /// Told when the client does not take what there is for it.
    behind: Arc<Notify>,
}

impl Client {
    fn noted<T>(&self, taken: Poll<T>) -> Poll<T> {
        if taken.is_pending() {
            self.behind.notify_one();
        }
        taken
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let taken = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.noted(taken)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let taken = Pin::new(&mut self.stream).poll_flush(cx);
        self.noted(taken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Comes after the last byte and its flush.
        self.ended.notify_one();
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A server's socket. Linux wakes whoever watches a Unix socket for room each time that its other end has read; so
/// this one is watched for bytes alone, and for room only while there is none.
struct Server {
    socket: AsyncFd<Arc<UnixStream>>,
    /// The same socket, while it takes no more.
    full: Option<AsyncFd<UnixStream>>,
}

#[allow(
    deprecated,
    reason = "a socket owns its descriptor and keeps it, so nothing unsafe is needed to watch it"
)]
fn watched<S: AsRawFd>(socket: S, interest: Interest) -> io::Result<AsyncFd<S>> {
    AsyncFd::with_interest(socket, interest)
}

impl Server {
    /// `socket` does not block.
    fn new(socket: Arc<UnixStream>) -> io::Result<Self> {
        Ok(Self { socket: watched(socket, Interest::READABLE)?, full: None })
    }

    fn poll_room(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let full = match &self.full {
            Some(full) => full,
            None => {
                let again = self.socket.get_ref().try_clone()?;
                self.full.insert(watched(again, Interest::WRITABLE)?)
            }
        };
        loop {
            let mut room = ready!(full.poll_write_ready(cx))?;
            if let Ok(written) = room.try_io(|socket| socket.get_ref().write(bytes)) {
                return Poll::Ready(written);
            }
        }
    }
}

impl AsyncRead for Server {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut there = ready!(self.socket.poll_read_ready(cx))?;
            let room = buffer.initialize_unfilled();
            let length = room.len();
            if let Ok(read) = there.try_io(|socket| socket.get_ref().as_ref().read(room)) {
                let count = read?;
                if 0 < count && count < length {
                    // That was all, and what comes later wakes again: no need to ask.
                    there.clear_ready();
                }
                buffer.advance(count);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Server {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.full.is_none() {
            match self.socket.get_ref().as_ref().write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
        let written = ready!(self.poll_room(cx, bytes));
        self.full = None;
        Poll::Ready(written)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.socket.get_ref().shutdown(Shutdown::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            done => done,
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn pair() -> (Server, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        (Server::new(Arc::new(near)).unwrap(), far)
    }

    /// More than a socket holds, so that writing has to wait for room, again and again.
    #[tokio::test]
    async fn much_is_carried_whole_and_in_order() {
        const BYTES: usize = 4 << 20;
        let sent: Vec<u8> = (0..BYTES).map(|at| (at / 7) as u8).collect();
        let (mut server, mut far) = pair();
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            far.read_to_end(&mut all).unwrap();
            far.write_all(&all).unwrap();
            all
        });
        server.write_all(&sent).await.unwrap();
        assert!(server.full.is_none(), "room is watched for only while there is none");
        server.shutdown().await.unwrap();
        let mut back = Vec::new();
        server.read_to_end(&mut back).await.unwrap();
        assert!(back == sent && reading.join().unwrap() == sent);
    }

    #[tokio::test]
    async fn an_end_right_after_bytes_is_seen() {
        let (mut server, mut far) = pair();
        let mut back = [0; 64];
        far.write_all(b"first").unwrap();
        assert_eq!(server.read(&mut back).await.unwrap(), 5);
        far.write_all(b"last").unwrap();
        drop(far);
        assert_eq!(server.read(&mut back).await.unwrap(), 4);
        assert_eq!(server.read(&mut back).await.unwrap(), 0);
        assert!(server.write_all(b"x").await.is_err());
    }

    #[tokio::test]
    async fn who_is_dropped_carries_nothing_more() {
        let (client, mut outside) = tokio::io::duplex(64);
        let (near, far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        near.set_nonblocking(true).unwrap();
        let near = tokio::net::UnixStream::from_std(near).unwrap();
        let mut far = tokio::net::UnixStream::from_std(far).unwrap();
        let mut carrying = Box::pin(carry(Box::new(client), near));
        let mut there = [0; 2];
        outside.write_all(b"in").await.unwrap();
        tokio::select! {
            _ = &mut carrying => unreachable!("both sides are open"),
            read = far.read_exact(&mut there) => assert_eq!(read.unwrap(), 2),
        }
        drop(carrying);
        assert_eq!(far.read(&mut there).await.unwrap(), 0, "the server sees an end");
        assert_eq!(outside.read(&mut there).await.unwrap(), 0, "and so does the client");
    }

    #[tokio::test]
    async fn an_idle_client_does_not_keep_a_session_whose_server_ended() {
        let (client, mut outside) = tokio::io::duplex(64);
        let (near, far) = tokio::net::UnixStream::pair().unwrap();
        let carrying = tokio::spawn(carry(Box::new(client), near));
        let mut far = far;
        far.write_all(b"terminated").await.unwrap();
        drop(far);
        let mut said = Vec::new();
        outside.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"terminated");
        let over = tokio::time::timeout(Duration::from_secs(LINGER_SECONDS_MAX + 20), carrying).await;
        over.expect("the session is over").unwrap().unwrap();
    }

    /// A session whose client took 64 bytes of `count`, and whose server ended then.
    async fn behind(count: usize) -> (tokio::io::DuplexStream, tokio::task::JoinHandle<io::Result<()>>) {
        let (client, outside) = tokio::io::duplex(64);
        let (near, mut far) = tokio::net::UnixStream::pair().unwrap();
        let carrying = tokio::spawn(carry(Box::new(client), near));
        far.write_all(&vec![b'x'; count]).await.unwrap();
        // Long enough that the end is not there yet when the client falls behind.
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(far);
        tokio::time::sleep(Duration::from_millis(200)).await;
        (outside, carrying)
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_does_not_keep_a_session_whose_server_ended() {
        let (outside, carrying) = behind(2 * COPY_BYTES).await;
        assert!(!carrying.is_finished(), "it has time to take the rest");
        tokio::time::pause();
        let bound = Duration::from_secs(LAST_BYTES_SECONDS_MAX + LINGER_SECONDS_MAX + 1);
        tokio::time::timeout(bound, carrying).await.expect("the session is over").unwrap().unwrap();
        drop(outside);
    }

    #[tokio::test]
    async fn a_slow_client_still_gets_the_rest() {
        let (mut outside, carrying) = behind(2 * COPY_BYTES).await;
        let mut said = Vec::new();
        outside.read_to_end(&mut said).await.unwrap();
        assert_eq!(said.len(), 2 * COPY_BYTES);
        drop(outside);
        carrying.await.unwrap().unwrap();
    }
}
