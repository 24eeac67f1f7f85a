//! The limits of a real site, by a clock that does not wait: connections are pipes, and the time is told.

use std::sync::Weak;
use std::task::{Context, Poll};

use arcadia_kernel::BodyError;
use bytes::Bytes;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_rustls::client::TlsStream;

use super::super::activity::Activity;
use super::super::proxy::Peer;
use super::*;

const NAME: &str = "kv1.vault.azure.net";
/// More than what a busy runtime adds to a time that is told.
const SLACK: Duration = Duration::from_millis(500);

struct World {
    proxy: Arc<Proxy>,
    authority: Vec<u8>,
    drain: drain::Drain,
    _drainer: Drainer,
    _no_panics: NoPanics,
}

fn world() -> World {
    world_with(Outside::new(true, None))
}

fn world_with(outside: Outside) -> World {
    let (proxy, authority) = echoing(Limits::default(), outside);
    let (drainer, drain) = Drainer::new();
    World { proxy, authority, drain, _drainer: drainer, _no_panics: NoPanics::watch() }
}

impl World {
    fn connect(&self) -> DuplexStream {
        let (near, far) = duplex(256 * 1024);
        let activity = Arc::new(Activity::new(Weak::new()));
        let peer = Peer { remote: None, drain: self.drain.clone(), activity };
        tokio::spawn(self.proxy.clone().serve(Box::new(near), peer));
        far
    }

    async fn tunnel(&self) -> DuplexStream {
        let mut stream = self.connect();
        stream.write_all(format!("CONNECT {NAME}:443 HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
        let expected = b"HTTP/1.1 200 Connection established\r\n\r\n";
        let mut answer = vec![0; expected.len()];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, expected);
        stream
    }

    async fn tls(&self, alpn: &[u8]) -> TlsStream<DuplexStream> {
        let name = ServerName::try_from(NAME).unwrap();
        connector(&self.authority, &[alpn], true).connect(name, self.tunnel().await).await.unwrap()
    }

    async fn http2(&self) -> hyper::client::conn::http2::SendRequest<Body> {
        let io = TokioIo::new(self.tls(b"h2").await);
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender
    }
}

/// Sends the same bytes again and again, and returns how long the other side put up with it.
async fn trickle<S>(stream: S, bytes: &'static [u8], pause: Duration) -> Duration
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let begun = Instant::now();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sending = tokio::spawn(async move {
        while writer.write_all(bytes).await.is_ok() && writer.flush().await.is_ok() {
            sleep(pause).await;
        }
    });
    let mut chunk = [0; 4096];
    while reader.read(&mut chunk).await.unwrap_or(0) > 0 {}
    sending.abort();
    begun.elapsed()
}

#[track_caller]
fn is_about(found: Duration, expected: Duration) {
    assert!(found >= expected && found < expected + SLACK, "{found:?} and not {expected:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_connect_is_cut() {
    let world = world();
    let limit = world.proxy.limits.connect_head_timeout;
    is_about(trickle(world.connect(), b"A", Duration::from_secs(1)).await, limit);
    is_about(trickle(world.connect(), b"", Duration::from_secs(1)).await, limit);
}

#[tokio::test(start_paused = true)]
async fn a_slow_handshake_is_cut() {
    let world = world();
    let limit = world.proxy.limits.handshake_timeout;
    is_about(trickle(world.tunnel().await, b"", Duration::from_secs(1)).await, limit);
    // A record of 512 bytes that never ends.
    let mut stream = world.tunnel().await;
    stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await.unwrap();
    is_about(trickle(stream, b"\0", Duration::from_secs(1)).await, limit);
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_cut() {
    let world = world();
    let mut stream = world.tls(b"http/1.1").await;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nX: ").as_bytes()).await.unwrap();
    is_about(trickle(stream, b"a", Duration::from_secs(1)).await, world.proxy.limits.head_timeout);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_in_its_time() {
    let world = world();
    let limit = world.proxy.limits.idle_timeout;
    for alpn in [&b"http/1.1"[..], b"h2"] {
        let mut stream = world.tls(alpn).await;
        if alpn == b"h2" {
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        }
        is_about(trickle(stream, b"", Duration::from_secs(1)).await, limit);
    }
    // Between two requests it is as long.
    let request = format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    let mut stream = world.tls(b"http/1.1").await;
    for _ in 0..3 {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let count = stream.read(&mut answer).await.unwrap();
        assert!(answer[..count].starts_with(b"HTTP/1.1 200 "));
        sleep(limit - SLACK).await;
    }
    is_about(trickle(stream, b"", Duration::from_secs(1)).await, SLACK);
}

#[tokio::test(start_paused = true)]
async fn frames_that_ask_for_nothing_keep_no_connection() {
    let world = world();
    let mut stream = world.tls(b"h2").await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let ping = b"\0\0\x08\x06\0\0\0\0\0pingpong";
    is_about(trickle(stream, ping, Duration::from_secs(10)).await, world.proxy.limits.idle_timeout);
}

/// A body that is sent by a task.
struct Sent(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// A body of `parts` of `bytes` bytes, each after a pause.
fn paced(parts: usize, bytes: usize, pause: Duration) -> Body {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        for _ in 0..parts {
            sleep(pause).await;
            if sender.send(Bytes::from(vec![0; bytes])).await.is_err() {
                return;
            }
        }
    });
    Sent(receiver).boxed_unsync()
}

async fn put(world: &World, body: Body) -> (String, Duration) {
    let begun = Instant::now();
    let request = http::Request::put(format!("https://{NAME}/b")).body(body).unwrap();
    let answer = world.http2().await.send_request(request).await.unwrap();
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    (String::from_utf8(text.to_vec()).unwrap(), begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_that_keeps_its_pace_is_taken() {
    let world = world();
    let pace = world.proxy.limits.body;
    // A little faster than it must be, for much longer than a minute.
    let rate = pace.bytes_per_second_min as usize * 11 / 10;
    let (answer, took) = put(&world, paced(500, rate, Duration::from_secs(1))).await;
    assert!(answer.ends_with(&format!("Ok({})", 500 * rate)), "{answer}");
    assert!(took >= Duration::from_secs(500), "{took:?}");
    // In a few large pieces with long silences.
    let bytes = pace.bytes_per_second_min as usize * 30;
    let (answer, took) = put(&world, paced(10, bytes, pace.idle_timeout - SLACK)).await;
    assert!(answer.ends_with(&format!("Ok({})", 10 * bytes)), "{answer}");
    assert!(took >= Duration::from_secs(290), "{took:?}");
    // A small one may take as long as it likes within the first seconds.
    let (answer, _) = put(&world, paced(25, 1, Duration::from_secs(1))).await;
    assert!(answer.ends_with("Ok(25)"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_or_stops_is_cut() {
    let world = world();
    let pace = world.proxy.limits.body;
    let too_slow = "Err(true)";
    let (answer, took) = put(&world, paced(1_000_000, 1, Duration::from_secs(1))).await;
    assert!(answer.ends_with(too_slow), "{answer}");
    is_about(took, pace.grace);
    let (answer, took) = put(&world, paced(1, 1, pace.idle_timeout * 2)).await;
    assert!(answer.ends_with(too_slow), "{answer}");
    is_about(took, pace.idle_timeout);
    // Half as fast as it must be: the grace is used up after as long again.
    let half = pace.bytes_per_second_min as usize / 2;
    let (answer, took) = put(&world, paced(1000, half, Duration::from_secs(1))).await;
    assert!(answer.ends_with(too_slow), "{answer}");
    assert!(took > pace.grace * 3 / 2 && took < pace.grace * 5 / 2, "{took:?}");
    // The same in HTTP/1, and the connection ends.
    let mut stream = world.tls(b"http/1.1").await;
    let request = format!("PUT / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 100\r\n\r\nabc");
    stream.write_all(request.as_bytes()).await.unwrap();
    let begun = Instant::now();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(String::from_utf8_lossy(&answer).ends_with(too_slow));
    assert!(begun.elapsed() < pace.idle_timeout + Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_taken_is_given_up() {
    let world = world();
    let (near, mut far) = duplex(2048);
    let activity = Arc::new(Activity::new(Weak::new()));
    let peer = Peer { remote: None, drain: world.drain.clone(), activity };
    let served = tokio::spawn(world.proxy.clone().serve(Box::new(near), peer));
    far.write_all(format!("CONNECT {NAME}:443 HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
    far.read_exact(&mut [0; 39]).await.unwrap();
    let name = ServerName::try_from(NAME).unwrap();
    let mut stream = connector(&world.authority, &[b"http/1.1"], true).connect(name, far).await.unwrap();
    // Pipelined until nothing goes any more, because no answer is read.
    let request = format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    let mut sent = 0;
    while tokio::time::timeout(Duration::from_secs(5), stream.write_all(request.as_bytes())).await.is_ok() {
        sent += 1;
        assert!(sent < 10_000, "what nobody reads is kept without bound");
    }
    let begun = Instant::now();
    served.await.unwrap();
    assert!(begun.elapsed() <= world.proxy.limits.idle_timeout + SLACK, "{:?}", begun.elapsed());
}

/// Sockets are real here, so time is told only while none of them is waited for.
async fn later(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_tunnel_in_which_nothing_moves_is_closed_in_its_time() {
    /// What a busy machine may take of the time.
    const BUSY: Duration = Duration::from_secs(60);
    let upstream = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", upstream.local_addr().unwrap());
    let way = Upstream::parse(&address, "").unwrap();
    let world = world_with(Outside::with_resolver(false, Some(way), Arc::new(Public)));
    let mut client = world.connect();
    client.write_all(b"CONNECT example.com:443 HTTP/1.1\r\n\r\n").await.unwrap();
    let (mut server, _) = upstream.accept().await.unwrap();
    server.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    for end in [&mut client as &mut (dyn tokio::io::AsyncRead + Unpin), &mut server] {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(end.read_u8().await.unwrap());
        }
    }
    let limit = world.proxy.limits.tunnel_idle_timeout;
    // What moves either way keeps it.
    for _ in 0..3 {
        later(limit - BUSY).await;
        client.write_all(b"a").await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), b'a');
        later(limit - BUSY).await;
        server.write_all(b"b").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'b');
    }
    tokio::time::pause();
    let begun = Instant::now();
    assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
    let took = begun.elapsed();
    assert!(took > limit - BUSY && took < limit + SLACK, "{took:?} and not {limit:?}");
    tokio::time::resume();
    assert_eq!(server.read(&mut [0]).await.unwrap_or(0), 0);
}
