//! Bytes that no client means well by: before TLS, in it, and in HTTP of either version.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use crate::raw::{ARM_HOST, Door, LOGIN_HOST, Tls, is_closed, whole};
use crate::support::Site;

/// The site's memory in KiB, as the system counts it.
pub fn memory(site: &Site) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", site.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A TLS record of some type that says how long it is.
fn record(kind: u8, length: u16, content: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1][..], &length.to_be_bytes(), content].concat()
}

fn not_tls() -> Vec<Vec<u8>> {
    let hello = |length: u32, content: &[u8]| {
        let body = [&[1, (length >> 16) as u8, (length >> 8) as u8, length as u8][..], content].concat();
        record(22, body.len() as u16, &body)
    };
    // Nothing here is random: what is found once is found again.
    let noise: Vec<u8> = (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    vec![
        b"GET / HTTP/1.1\r\nHost: management.azure.com\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(),
        noise,
        vec![0; 4096],
        vec![0xff; 4096],
        // The hello of SSLv2, and of SSLv3.
        [&[0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10][..], &[7; 37]].concat(),
        [&[22, 3, 0][..], &[0, 4, 1, 0, 0, 0]].concat(),
        // Records that are empty, longer than may be, or of no type.
        record(22, 0, b""),
        record(22, u16::MAX, &[1; 100]),
        record(22, 16_641, &[1; 16_641]),
        record(99, 4, &[0; 4]),
        // Application data, an alert, a change of ciphers before any hello.
        record(23, 5, b"hello"),
        record(21, 2, &[2, 40]),
        record(20, 1, &[1]),
        // Hellos that are cut short, or say that they are longer than they are, or end within a field.
        hello(4, &[3, 3, 0, 0]),
        hello(0xff_ffff, &[3; 200]),
        hello(0, &[]),
        [record(22, 4, &[1, 0, 0xff, 0xff]), record(22, 1, &[3]).repeat(2000)].concat(),
    ]
}

fn ended_after(mut stream: TcpStream, bytes: &[u8]) -> bool {
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    is_closed(&mut stream)
}

#[test]
fn what_is_not_tls_ends_and_harms_nobody() {
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let site = Site::start_with(&["--offline", "--listen", &listen]);
    let door = Door::of(&site);
    for garbage in not_tls() {
        assert!(ended_after(door.tunnel(ARM_HOST).unwrap(), &garbage), "{garbage:.20x?}");
        let direct = TcpStream::connect(&listen).unwrap();
        direct.set_read_timeout(Some(crate::raw::PATIENCE)).unwrap();
        assert!(ended_after(direct, &garbage), "{garbage:.20x?} without the proxy");
        // As the proxy's own request.
        assert!(ended_after(door.connect().unwrap(), &garbage), "{garbage:.20x?} to the proxy");
    }
    // Names in the hello: one that is not served, another than the proxy was asked for, none without the proxy.
    let openssl = |arguments: &[&str]| {
        let output = std::process::Command::new("openssl")
            .arg("s_client")
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let names = |arguments: &[&str]| openssl(arguments).contains("BEGIN CERTIFICATE");
    assert!(names(&["-connect", &listen, "-servername", ARM_HOST]));
    assert!(!names(&["-connect", &listen, "-servername", "example.com"]));
    assert!(!names(&["-connect", &listen, "-noservername"]));
    // Versions of TLS, of which openssl offers old ones only when it is told to.
    let versions = |version: &str| {
        let weak = ["-connect", &listen, "-servername", ARM_HOST, "-cipher", "DEFAULT@SECLEVEL=0", "-msg"];
        let output = openssl(&[&weak[..], &[version]].concat());
        assert!(output.contains("ClientHello"), "it is sent: {output}");
        output.contains("BEGIN CERTIFICATE")
    };
    let offered = ["-tls1", "-tls1_1", "-tls1_2", "-tls1_3"].map(versions);
    assert_eq!(offered, [false, false, true, true]);
    // Plain HTTP to the listener of TLS is no way around it.
    let plain =
        site.curl(&["--noproxy", "*", &format!("http://{listen}/subscriptions?api-version=2022-12-01")]);
    assert!(plain.exit != 0 && plain.status == 0, "{plain:?}");
    door.is_served().unwrap();
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What a server in front of, or behind, another one might understand otherwise.
#[test]
fn requests_with_two_meanings_are_refused() {
    let site = Site::start();
    let door = Door::of(&site);
    let second = format!("GET /common/discovery/v2.0/keys HTTP/1.1\r\nHost: {LOGIN_HOST}\r\n\r\n");
    let post = |headers: &str, body: &str| {
        let head = format!("POST /common/oauth2/v2.0/token HTTP/1.1\r\nHost: {LOGIN_HOST}\r\n{headers}\r\n");
        [head.as_bytes(), body.as_bytes(), second.as_bytes()].concat()
    };
    for (what, request) in [
        ("two lengths", post("Content-Length: 3\r\nContent-Length: 4\r\n", "abc")),
        ("two lengths in one", post("Content-Length: 3, 4\r\n", "abc")),
        ("a signed length", post("Content-Length: +3\r\n", "abc")),
        ("a negative length", post("Content-Length: -1\r\n", "")),
        ("a length in hex", post("Content-Length: 0x3\r\n", "abc")),
        ("a folded header", post("X: a\r\n b\r\n", "")),
        ("a folded length", post("Content-Length:\r\n 3\r\n", "abc")),
        ("a space before the colon", post("Content-Length : 3\r\n", "abc")),
        ("a space before the name", post(" Content-Length: 3\r\n", "abc")),
        ("a bare CR in a value", post("X: a\rContent-Length: 3\r\n", "abc")),
        ("a NUL in a value", post("X: a\0b\r\n", "")),
        ("a name that is none", post("Content\u{a0}Length: 3\r\n", "abc")),
        ("a coding after chunked", post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n")),
        ("a coding that is unknown", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n")),
        ("chunked in HTTP/1.0", {
            let text = String::from_utf8(post("Transfer-Encoding: chunked\r\n", "0\r\n\r\n")).unwrap();
            text.replacen("HTTP/1.1", "HTTP/1.0", 1).into_bytes()
        }),
        ("a space in the target", b"GET /a b HTTP/1.1\r\nHost: login.microsoftonline.com\r\n\r\n".to_vec()),
        (
            "two Hosts",
            format!("GET / HTTP/1.1\r\nHost: {LOGIN_HOST}\r\nHost: {LOGIN_HOST}\r\n\r\n").into_bytes(),
        ),
        ("no Host", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("HTTP/1.2", format!("GET / HTTP/1.2\r\nHost: {LOGIN_HOST}\r\n\r\n").into_bytes()),
        ("HTTP/0.9", b"GET /\r\n\r\n".to_vec()),
        ("HTTP/2 unasked", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
    ] {
        let mut stream = door.tls(LOGIN_HOST, b"http/1.1").unwrap();
        stream.write_all(&request).unwrap();
        let answer = whole(&mut stream).unwrap_or_default();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{what}: {answer:.200}");
        let rest = whole(&mut stream).unwrap_or_default();
        assert!(!rest.contains("\"keys\""), "{what}: what came after it was answered");
    }
    // Chunks that are none: nothing of it is taken for the next request.
    for (what, body) in [
        ("a size that is no number", "zz\r\nabc\r\n0\r\n\r\n"),
        ("a negative size", "-1\r\nabc\r\n0\r\n\r\n"),
        ("a size that wraps", "10000000000000003\r\nabc\r\n0\r\n\r\n"),
        ("bytes beyond the size", "1\r\nabc\r\n0\r\n\r\n"),
        ("a bare LF", "3\nabc\n0\n\n"),
    ] {
        let answer = door.answer(LOGIN_HOST, &post("Transfer-Encoding: chunked\r\n", body));
        assert!(!answer.contains("\"keys\""), "{what}: {answer:.200}");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{what}: {answer:.200}");
    }
    the_length_beside_chunks_counts_for_nothing(&door, &post);
    names_that_do_not_fit(&door);
    door.is_served().unwrap();
}

/// RFC 9112, 6.3: chunks win, and the connection ends. What a reader of the length would take for the body is neither
/// that nor a request.
fn the_length_beside_chunks_counts_for_nothing(door: &Door, post: &dyn Fn(&str, &str) -> Vec<u8>) {
    for headers in [
        "Content-Length: 100\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 100\r\n",
    ] {
        let mut stream = door.tls(LOGIN_HOST, b"http/1.1").unwrap();
        stream.write_all(&post(headers, "0\r\n\r\n")).unwrap();
        let first = whole(&mut stream).unwrap();
        assert!(first.starts_with("HTTP/1.1 400 ") && first.contains("grant_type"), "{first:.400}");
        let rest = whole(&mut stream).unwrap_or_default();
        assert_eq!(rest, "", "{headers}");
    }
}

/// A connection is for one name, wherever a request says another.
fn names_that_do_not_fit(door: &Door) {
    for (target, host) in [
        ("/", ARM_HOST),
        ("/", "login.microsoftonline.com.evil.example"),
        ("/", "login.microsoftonline.com@evil.example"),
        ("/", "login.microsoftonline.com:8443"),
        ("/", "127.0.0.1"),
        ("/", ""),
        ("https://management.azure.com/", LOGIN_HOST),
        ("https://login.microsoftonline.com/", ARM_HOST),
        ("https://evil@login.microsoftonline.com/", LOGIN_HOST),
        ("http://169.254.169.254/metadata/instance", LOGIN_HOST),
    ] {
        let answer =
            door.answer(LOGIN_HOST, format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        let is_right = answer.starts_with("HTTP/1.1 421 ") || answer.starts_with("HTTP/1.1 400 ");
        assert!(is_right, "{target} {host}: {answer:.200}");
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A request in HPACK without a table: method, scheme, path, authority.
fn request(method: u8, path: &str) -> Vec<u8> {
    let literal = |index: u8, value: &str| [&[index, value.len() as u8][..], value.as_bytes()].concat();
    [&[method, 0x87][..], &literal(0x04, path), &literal(0x01, LOGIN_HOST)].concat()
}

fn keys_request() -> Vec<u8> {
    request(0x82, "/common/discovery/v2.0/keys")
}

/// A sign-in, for whose form the site waits.
fn sign_in_request() -> Vec<u8> {
    request(0x83, "/common/oauth2/v2.0/token")
}

struct Http2(Tls);

impl Http2 {
    fn open(door: &Door) -> Self {
        let stream = door.tunnel(LOGIN_HOST).unwrap();
        // What is not read is soon too much for the system to keep.
        rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 4096).unwrap();
        let mut stream = door.tls_over(stream, LOGIN_HOST, b"h2").unwrap();
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()).unwrap();
        Self(stream)
    }

    /// Sends the same again and again without reading a byte, until it is cut off or not taken any more. Returns how
    /// many bytes went out.
    fn flood(&mut self, most: usize, mut next: impl FnMut(u32) -> Vec<u8>) -> usize {
        let stalled = Some(std::time::Duration::from_secs(3));
        self.0.sock.set_write_timeout(stalled).unwrap();
        self.0.sock.set_read_timeout(stalled).unwrap();
        let mut sent = 0;
        for at in 0.. {
            let bytes = next(at);
            if sent >= most || self.0.write_all(&bytes).and_then(|()| self.0.flush()).is_err() {
                break;
            }
            sent += bytes.len();
        }
        sent
    }

    /// Sends. The other side may have had enough before all of it is out.
    fn say(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).and_then(|()| self.0.flush());
    }

    /// Says that nothing more comes.
    fn say_no_more(&mut self) {
        self.0.conn.send_close_notify();
        self.say(b"");
    }

    /// What comes until the other side ends the connection.
    fn heard(&mut self) -> Heard {
        let mut heard = Heard { frames: Vec::new(), is_cut: false };
        let ended = loop {
            match self.frame() {
                Ok(frame) => heard.frames.push(frame),
                Err(error) => break error.kind(),
            }
        };
        heard.is_cut = matches!(ended, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
        heard
    }

    /// The next frame: type, stream, payload.
    fn frame(&mut self) -> io::Result<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head)?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload)?;
        Ok((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }
}

#[derive(Debug)]
struct Heard {
    /// Type, stream, payload.
    frames: Vec<(u8, u32, Vec<u8>)>,
    /// Closed while more was on its way, which takes along what was said last.
    is_cut: bool,
}

impl Heard {
    /// Whether the connection was ended as one with an error.
    fn was_sent_away(&self) -> bool {
        let away = self.frames.iter().rfind(|(kind, ..)| *kind == 7);
        self.is_cut || away.and_then(|(.., payload)| payload.get(4..8)).is_some_and(|code| code != [0; 4])
    }

    fn any(&self, kind: u8, fits: impl Fn(u32, &[u8]) -> bool) -> bool {
        self.frames.iter().any(|(found, stream, payload)| *found == kind && fits(*stream, payload))
    }
}

#[test]
fn floods_of_http2_end_the_connection_and_cost_little() {
    let site = Site::start();
    let door = Door::of(&site);
    door.is_served().unwrap();
    let before = memory(&site);

    // Opened and reset at once, again and again (CVE-2023-44487).
    let mut rapid = Http2::open(&door);
    let request = keys_request();
    let sent = rapid.flood(20 << 20, |at| {
        let stream = 2 * at + 1;
        let open = frame(HEADERS, END_STREAM | END_HEADERS, stream, &request);
        [open, frame(RESET, 0, stream, &8_u32.to_be_bytes())].concat()
    });
    assert!(sent < 20 << 20, "20 MiB of requests were taken and dropped");

    // A head that never ends (CVE-2024-27316).
    let mut endless = Http2::open(&door);
    let open = frame(HEADERS, END_STREAM, 1, &request);
    let more =
        frame(CONTINUATION, 0, 1, &[&[0x00, 0x01, b'x', 0x7f][..], &[0x81, 0x7e], &[b'a'; 16_000]].concat());
    let sent = endless.flood(64 << 20, |at| if at == 0 { open.clone() } else { more.clone() });
    assert!(sent < 64 << 20, "a head of 64 MiB was taken");

    // Questions whose answers nobody reads.
    for kind in [PING, SETTINGS] {
        let mut asking = Http2::open(&door);
        let payload: &[u8] = if kind == PING { &[7; 8] } else { &[0, 4, 0, 0, 0xff, 0xff] };
        let many = frame(kind, 0, 0, payload).repeat(1000);
        let sent = asking.flood(64 << 20, |_| many.clone());
        assert!(sent < 64 << 20, "frames of type {kind} were taken without end");
    }

    let grown = memory(&site).saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB more than before the floods");
    door.is_served().unwrap();
}

#[test]
fn http2_is_bounded_in_streams_and_heads() {
    let site = Site::start();
    let door = Door::of(&site);
    // 65 requests whose bodies do not come.
    let mut many = Http2::open(&door);
    for at in 0..65 {
        many.say(&frame(HEADERS, END_HEADERS, 2 * at + 1, &sign_in_request()));
    }
    many.say_no_more();
    let heard = many.heard();
    let refused = heard.any(RESET, |stream, payload| stream == 129 && payload == 7_u32.to_be_bytes());
    assert!(refused || heard.was_sent_away(), "{heard:?}");

    // A head of few bytes that stands for many: one long field, named again and again (a bomb of HPACK).
    let mut bomb = Http2::open(&door);
    let field = [&[0x40, 0x01, b'x', 0x7f, 0x81, 0x1e][..], &[b'a'; 4000]].concat();
    let head = [keys_request(), field, vec![0xbe; 12_000]].concat();
    for (at, part) in head.chunks(16_000).enumerate() {
        let (kind, flags) = if at == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
        bomb.say(&frame(kind, flags, 1, part));
    }
    bomb.say(&frame(CONTINUATION, END_HEADERS, 1, b""));
    bomb.say_no_more();
    let heard = bomb.heard();
    // 431 as HPACK writes it without its table, or the stream or the connection is ended.
    let is_431 = heard.any(HEADERS, |_, head| head.first() != Some(&0x88));
    assert!(is_431 || heard.any(RESET, |_, _| true) || heard.was_sent_away(), "{heard:?}");

    // What is no frame.
    for garbage in [
        frame(HEADERS, END_HEADERS, 0, b"x"),
        frame(HEADERS, END_HEADERS, 2, &keys_request()),
        frame(HEADERS, END_HEADERS, 1, &[0xff; 100]),
        frame(SETTINGS, 0, 1, b""),
        frame(PING, 0, 0, b"short"),
        frame(8, 0, 0, &[0; 4]),
        vec![0xff; 100],
    ] {
        let mut stream = Http2::open(&door);
        stream.say(&garbage);
        let heard = stream.heard();
        assert!(heard.was_sent_away(), "{garbage:.20x?}: {heard:?}");
    }
    let mut preface = door.tls(LOGIN_HOST, b"h2").unwrap();
    preface.write_all(b"GET / HTTP/1.1\r\nHost: login.microsoftonline.com\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let ended = preface.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 2"), "{answer:?}");
    assert!(!matches!(ended, Err(error) if error.kind() == io::ErrorKind::WouldBlock));
    door.is_served().unwrap();
}

/// What came of a body is kept until the rest comes; strangers can begin many.
#[test]
fn forms_that_do_not_come_are_waited_for_so_many_at_a_time() {
    let site = Site::start();
    let door = Door::of(&site);
    let mut open: Vec<_> = (0..24).map(|_| Http2::open(&door)).collect();
    for connection in &mut open {
        for at in 0..60 {
            let begun = frame(HEADERS, END_HEADERS, 2 * at + 1, &sign_in_request());
            let part = frame(0, 0, 2 * at + 1, &[b'a'; 1000]);
            connection.say(&[begun, part].concat());
        }
    }
    // 1440 were begun, and 1024 are waited for: 7 of the connections at least are not there any more.
    let begun = std::time::Instant::now();
    let mut ended = std::collections::BTreeSet::new();
    while ended.len() < 7 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{} connections ended", ended.len());
        for (at, connection) in open.iter_mut().enumerate() {
            connection.0.sock.set_read_timeout(Some(std::time::Duration::from_millis(20))).unwrap();
            let error = loop {
                match connection.0.read(&mut [0; 4096]) {
                    Ok(0) => break None,
                    Ok(_) => {}
                    Err(error) => break Some(error.kind()),
                }
            };
            if error != Some(io::ErrorKind::WouldBlock) {
                ended.insert(at);
            }
        }
    }
    assert!(ended.len() < 24, "and others are");
    door.is_served().unwrap();
}
