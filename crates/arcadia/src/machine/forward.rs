//! The way from a machine to its site: ports of the machine's loopback, carried to Unix sockets of the site.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arcadia_kernel::{Places, Waited};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::Instant;

/// Connections through one port at the same time.
pub const CONNECTIONS_MAX: usize = 512;
/// How long nothing moves in a connection that has spoken until it may give way: sessions of databases and kept
/// connections are silent for long, and are in use.
const SPOKEN_PATIENCE: Duration = Duration::from_secs(10 * 60);
/// How long a client may still send, or take what is left for it, once the site has ended its side.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// Rest after an accept that failed, for example because the process is out of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
const COPY_BYTES: usize = 8 * 1024;

/// Carries connections to a port of the machine to a Unix socket of the site, which is not bound to a network
/// namespace. The socket may go and come back with the site; `otherwise` is what HTTP clients are told without it.
///
/// Any user of the machine connects here, and who is served cannot be told from outside. So whoever comes cuts nobody
/// who is in use: when all places are taken, a connection gives way that has not been spoken in both ways, or not for
/// [`SPOKEN_PATIENCE`], and without any new ones wait.
pub async fn forward(
    listener: TcpListener,
    socket: PathBuf,
    otherwise: Option<&'static str>,
    places: Arc<Places<Conversation>>,
) {
    loop {
        let Ok((inner, _)) = listener.accept().await else {
            places.make_room();
            tokio::time::sleep(ACCEPT_RETRY).await;
            continue;
        };
        let conversation = Arc::new(Conversation::begin());
        let place = places.take(conversation.clone()).await;
        let socket = socket.clone();
        tokio::spawn(async move {
            place.hold(connection(inner, &socket, otherwise, &conversation)).await;
        });
    }
}

/// Whether bytes went both ways, and when the last did: all that is known of a connection that is carried.
pub struct Conversation(Mutex<Moved>);

enum Way {
    Out,
    Back,
}

struct Moved {
    /// What goes one way alone is no conversation, and does not count.
    at: Instant,
    out: bool,
    back: bool,
}

impl Moved {
    fn is_spoken(&self) -> bool {
        self.out && self.back
    }
}

impl Conversation {
    fn begin() -> Self {
        Self(Mutex::new(Moved { at: Instant::now(), out: false, back: false }))
    }

    fn moved(&self, way: Way) {
        let mut moved = self.lock();
        match way {
            Way::Out => moved.out = true,
            Way::Back => moved.back = true,
        }
        if moved.is_spoken() {
            moved.at = Instant::now();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Moved> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waited for Conversation {
    fn waited_since(&self) -> Option<Instant> {
        let moved = self.lock();
        let since = if moved.is_spoken() { moved.at + SPOKEN_PATIENCE } else { moved.at };
        (since <= Instant::now()).then_some(since)
    }
}

async fn connection(
    mut inner: TcpStream,
    socket: &Path,
    otherwise: Option<&'static str>,
    conversation: &Conversation,
) {
    match UnixStream::connect(socket).await {
        Ok(outer) => {
            let _ = inner.set_nodelay(true);
            carry(inner, outer, conversation).await;
        }
        Err(_) => {
            let Some(body) = otherwise else { return };
            let answer = format!(
                "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = inner.write_all(answer.as_bytes()).await;
        }
    }
}

/// Carries bytes both ways until both sides have ended. A client that does not end its own after the site did, such as a
/// pool that does not look at what it keeps, has a little time: nobody else would ever end the connection.
async fn carry<I, O>(inner: I, outer: O, conversation: &Conversation)
where
    I: AsyncRead + AsyncWrite,
    O: AsyncRead + AsyncWrite,
{
    let (from_inner, to_inner) = tokio::io::split(inner);
    let (from_outer, to_outer) = tokio::io::split(outer);
    let mut out = pin!(pass(from_inner, to_outer, || conversation.moved(Way::Out)));
    let mut back = pin!(pass(from_outer, to_inner, || conversation.moved(Way::Back)));
    tokio::select! {
        _ = &mut back => {
            let _ = tokio::time::timeout(LINGER_TIMEOUT, out).await;
        }
        ended = &mut out => if ended.is_ok() {
            let _ = back.await;
        },
    }
}

/// Carries bytes one way until they end, and passes the end on.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: impl Fn(),
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(COPY_BYTES);
    while from.read_buf(&mut bytes).await? > 0 {
        to.write_all(&bytes).await?;
        bytes.clear();
        moved();
    }
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_end_is_left_once_the_site_has_ended() {
        let ((mut client, inner), (outer, mut site)) = (duplex(64), duplex(64));
        let conversation = Conversation::begin();
        let carried = tokio::spawn(async move { carry(inner, outer, &conversation).await });
        site.write_all(b"bye").await.unwrap();
        drop(site);
        let begun = Instant::now();
        let mut last = String::new();
        client.read_to_string(&mut last).await.unwrap();
        assert_eq!(last, "bye");
        carried.await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), LINGER_TIMEOUT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_said_all_is_answered_for_as_long_as_it_takes() {
        let ((mut client, inner), (outer, mut site)) = (duplex(64), duplex(64));
        let conversation = Conversation::begin();
        let carried = tokio::spawn(async move { carry(inner, outer, &conversation).await });
        client.write_all(b"all").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = String::new();
        site.read_to_string(&mut asked).await.unwrap();
        tokio::time::sleep(LINGER_TIMEOUT * 10).await;
        site.write_all(asked.as_bytes()).await.unwrap();
        drop(site);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "all");
        carried.await.unwrap();
    }

    /// Whether what is sent comes back.
    async fn is_carried(client: &mut TcpStream) -> bool {
        let mut byte = [0];
        client.write_all(b"x").await.is_ok() && matches!(client.read(&mut byte).await, Ok(1))
    }

    #[tokio::test]
    async fn who_says_nothing_gives_way() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("site");
        let site = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = site.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let patience = Duration::from_millis(50);
        tokio::spawn(forward(listener, socket, None, Places::new(2, patience)));
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut spoken = TcpStream::connect(address).await.unwrap();
        assert!(is_carried(&mut spoken).await);
        let mut newcomer = TcpStream::connect(address).await.unwrap();
        assert!(is_carried(&mut newcomer).await);
        assert!(!is_carried(&mut silent).await);
        // Those that have spoken stay, however long they are silent for somebody who comes.
        let mut last = TcpStream::connect(address).await.unwrap();
        assert!(tokio::time::timeout(patience * 10, is_carried(&mut last)).await.is_err());
        assert!(is_carried(&mut spoken).await && is_carried(&mut newcomer).await);
        drop(spoken);
        assert!(is_carried(&mut last).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_spoken_both_ways_may_be_silent_for_long() {
        let conversation = Conversation::begin();
        let begun = Instant::now();
        for _ in 0..3 {
            conversation.moved(Way::Out);
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(conversation.waited_since(), Some(begun), "nobody answers");
        }
        for way in [Way::Back, Way::Out] {
            conversation.moved(way);
            assert_eq!(conversation.waited_since(), None);
            tokio::time::sleep(SPOKEN_PATIENCE - Duration::from_secs(1)).await;
            assert_eq!(conversation.waited_since(), None);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(conversation.waited_since(), Some(Instant::now()));
    }
}
