//! What a site takes of one client, and what it says when that is too much: sizes, slowness, order.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use crate::raw::{ARM_HOST, Door, LOGIN_HOST, head, is_closed, whole};
use crate::support::{ARM_SCOPE, Site};

const GROUP: &str = "/resourceGroups/limits?api-version=2024-11-01";

#[track_caller]
fn is_refused(answer: &str, status: u16) {
    let expected = format!("HTTP/1.1 {status} ");
    assert!(answer.starts_with(&expected), "{status} expected: {answer:.300}");
}

fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {ARM_HOST}\r\n{headers}\r\n").into_bytes()
}

#[test]
fn heads_are_bounded() {
    let site = Site::start();
    let door = Door::of(&site);
    let ask = |path: &str, headers: &str| door.answer(ARM_HOST, &get(path, headers));
    let subscriptions = "/subscriptions?api-version=2022-12-01";
    is_refused(&ask(subscriptions, &format!("X: {}\r\n", "a".repeat(60 * 1024))), 401);
    is_refused(&ask(subscriptions, &format!("X: {}\r\n", "a".repeat(64 * 1024))), 431);
    is_refused(&ask(subscriptions, &"X: a\r\n".repeat(99)), 401);
    is_refused(&ask(subscriptions, &"X: a\r\n".repeat(100)), 431);
    is_refused(&ask(&format!("/{}", "a".repeat(16 * 1024 - 1)), ""), 401);
    is_refused(&ask(&format!("/{}", "a".repeat(16 * 1024)), ""), 414);
    let token = format!("Authorization: Bearer {}\r\n", "a".repeat(17 * 1024));
    is_refused(&ask(subscriptions, &token), 401);
    // The same in HTTP/2.
    let url = format!("https://{ARM_HOST}{subscriptions}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("headers");
    std::fs::write(&file, format!("X-A: {0}\nX-B: {0}\n", "a".repeat(33 * 1024))).unwrap();
    let long = site.curl(&["--http2", "--header", &format!("@{}", file.display()), &url]);
    assert!(long.status == 431 || long.exit != 0, "{long:?}");
    assert_eq!(site.curl(&["--http2", &url]).status, 401);
    // The proxy's own head.
    let mut stream = door.connect().unwrap();
    let connect = format!("CONNECT {ARM_HOST}:443 HTTP/1.1\r\nX: {}", "a".repeat(16 * 1024));
    stream.write_all(connect.as_bytes()).unwrap();
    let answer = whole(&mut stream).unwrap();
    is_refused(&answer, 400);
    assert!(answer.contains("longer than 16384 bytes"), "{answer}");
    door.is_served().unwrap();
}

#[tokio::test]
async fn bodies_are_bounded_however_they_come() {
    let site = Site::start();
    let door = Door::of(&site);
    let wire = site.client();
    let token = wire.admin_token(ARM_SCOPE).await;
    let put = |framing: &str, body: &[u8]| {
        let head = format!(
            "PUT /subscriptions/{}{GROUP} HTTP/1.1\r\nHost: {ARM_HOST}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\n{framing}\r\n\r\n",
            wire.subscription()
        );
        [head.as_bytes(), body].concat()
    };
    let of_length =
        |body: &[u8]| door.answer(ARM_HOST, &put(&format!("Content-Length: {}", body.len()), body));
    let good = br#"{"location":"uksouth"}"#;
    is_refused(&of_length(good), 201);
    let max = 4 * 1024 * 1024;
    let padded = |bytes: usize| [&good[..], &vec![b' '; bytes - good.len()]].concat();
    is_refused(&of_length(&padded(max)), 200);
    is_refused(&door.answer(ARM_HOST, &put(&format!("Content-Length: {}", max + 1), b"")), 413);
    is_refused(&door.answer(ARM_HOST, &put("Content-Length: 18446744073709551616", b"")), 400);
    // Chunks do not say how long the whole is; it is counted.
    let chunk = [format!("{:x}\r\n", 64 * 1024).as_bytes(), &vec![b' '; 64 * 1024], b"\r\n"].concat();
    is_refused(&door.answer(ARM_HOST, &put("Transfer-Encoding: chunked", &chunk.repeat(65))), 413);
    let nested = [br#"{"location":"uksouth","tags":"#.to_vec(), b"[".repeat(10_000)].concat();
    is_refused(&of_length(&nested), 400);
    // A length that lies: what is too much is a request of its own, and none; what is missing makes none.
    let much = door.answer(ARM_HOST, &put("Content-Length: 2", good));
    is_refused(&much, 400);
    let mut stream = door.tls(ARM_HOST, b"http/1.1").unwrap();
    stream.write_all(&put("Content-Length: 100", good)).unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    let less = whole(&mut stream).unwrap_or_default();
    assert!(less.is_empty() || less.starts_with("HTTP/1.1 400 "), "{less}");
    // Strangers send forms, and small ones.
    let form = format!("grant_type={}", "a".repeat(128 * 1024));
    let request = format!(
        "POST /{}/oauth2/v2.0/token HTTP/1.1\r\nHost: {LOGIN_HOST}\r\nContent-Length: {}\r\n\r\n{form}",
        wire.tenant(),
        form.len()
    );
    is_refused(&door.answer(LOGIN_HOST, request.as_bytes()), 413);
    door.is_served().unwrap();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let site = Site::start();
    let door = Door::of(&site);
    let mut stream = door.tls(LOGIN_HOST, b"http/1.1").unwrap();
    let paths =
        ["/common/discovery/v2.0/keys", "/common/v2.0/.well-known/openid-configuration", "/nothing/here"];
    let mut requests = String::new();
    for at in 0..60 {
        requests.push_str(&format!("GET {} HTTP/1.1\r\nHost: {LOGIN_HOST}\r\n\r\n", paths[at % 3]));
    }
    stream.write_all(requests.as_bytes()).unwrap();
    for at in 0..60 {
        let answer = whole(&mut stream).unwrap();
        let is_right = match at % 3 {
            0 => answer.contains("\"keys\""),
            1 => answer.contains("\"token_endpoint\""),
            _ => answer.starts_with("HTTP/1.1 404 "),
        };
        assert!(is_right, "{at}: {answer:.200}");
    }
}

/// Sends something every second, until the site ends the connection.
fn trickled(mut stream: std::net::TcpStream, bytes: &'static [u8]) -> Duration {
    let begun = Instant::now();
    let mut sending = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        while !bytes.is_empty() && sending.write_all(bytes).is_ok() {
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    let closed = is_closed(&mut stream);
    let took = begun.elapsed();
    assert!(closed, "it was put up with for {took:?}");
    let _ = stream.shutdown(std::net::Shutdown::Both);
    sender.join().unwrap();
    took
}

/// The real times; how they are kept to the second is shown beside the listener, by a clock that does not wait.
#[test]
fn slow_clients_are_cut() {
    let site = Site::start();
    let door = Door::of(&site);
    let connect = door.connect().unwrap();
    let handshake = door.tunnel(ARM_HOST).unwrap();
    let mut partial = door.tunnel(ARM_HOST).unwrap();
    partial.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").unwrap();
    let mut request = door.tls(ARM_HOST, b"http/1.1").unwrap();
    request.write_all(format!("GET / HTTP/1.1\r\nHost: {ARM_HOST}\r\nX: ").as_bytes()).unwrap();
    let took = std::thread::scope(|scope| {
        let waits = [
            scope.spawn(|| trickled(connect, b"A")),
            scope.spawn(|| trickled(handshake, b"")),
            scope.spawn(|| trickled(partial, b"\0")),
            scope.spawn(move || {
                let begun = Instant::now();
                while request.write_all(b"a").and_then(|()| request.flush()).is_ok() {
                    assert!(begun.elapsed() < crate::raw::PATIENCE, "it is put up with");
                    std::thread::sleep(Duration::from_secs(1));
                }
                begun.elapsed()
            }),
        ];
        waits.map(|wait| wait.join().unwrap())
    });
    assert!(took.iter().all(|took| *took >= Duration::from_secs(9)), "{took:?}");
    door.is_served().unwrap();
}

#[tokio::test]
async fn lists_come_in_pages() {
    let site = Site::start();
    let wire = site.client();
    let vault = wire.vault("kvlimits").await;
    let officer = wire.application("officer").await;
    wire.assign(&vault, crate::support::SECRETS_OFFICER, &officer.object_id).await;
    let token = wire.token_of(&officer.app_id, &officer.secret, crate::support::VAULT_SCOPE).await;
    let origin = "https://kvlimits.vault.azure.net";
    for at in 0..60 {
        let body = serde_json::json!({ "value": "x" });
        wire.must("PUT", &format!("{origin}/secrets/s{at}?api-version=7.4"), &token, Some(body)).await;
    }
    let mut url = format!("{origin}/secrets?api-version=7.4");
    let mut pages = Vec::new();
    while !url.is_empty() {
        let page = wire.must("GET", &url, &token, None).await;
        pages.push(page["value"].as_array().unwrap().len());
        url = page["nextLink"].as_str().unwrap_or_default().to_owned();
    }
    assert_eq!(pages, [25, 25, 10]);
    let graph = wire.admin_token(crate::support::GRAPH_SCOPE).await;
    for (url, token) in [
        (format!("{origin}/secrets?api-version=7.4&maxresults=26"), &token),
        (format!("{}/v1.0/users?$top=1000", crate::support::GRAPH), &graph),
    ] {
        assert_eq!(wire.send("GET", &url, Some(token), None).await.status, 400, "{url}");
    }
}

#[test]
fn the_databases_door_is_bounded_too() {
    let site = Site::start();
    let door = || {
        let stream = std::os::unix::net::UnixStream::connect(site.data.join("pg.sock")).unwrap();
        stream.set_read_timeout(Some(crate::raw::PATIENCE)).unwrap();
        stream
    };
    let start = |bytes: u32| [&bytes.to_be_bytes()[..], &196_608_u32.to_be_bytes()].concat();
    for garbage in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        start(u32::MAX),
        start(10_001),
        start(0),
        start(7),
        [start(10_000), vec![b'a'; 9_992]].concat(),
        vec![0; 64],
        vec![0xff; 64],
    ] {
        let mut stream = door();
        stream.write_all(&garbage).unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.take(64 * 1024).read_to_end(&mut answer);
        assert!(answer.is_empty() || answer[0] == b'E', "{garbage:x?}: {answer:x?}");
    }
    // TLS is offered, and what follows is not TLS.
    let mut stream = door();
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
    let mut offered = [0];
    stream.read_exact(&mut offered).unwrap();
    assert_eq!(&offered, b"S");
    stream.write_all(b"\x16\x03\x01\xff\xff garbage").unwrap();
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = head(&mut stream);
    Door::of(&site).is_served().unwrap();
}
