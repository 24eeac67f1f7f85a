//! What a site takes of one client, and what it says when that is too much: sizes, slowness, order.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::{Duration, Instant};

use arcadia_client::Call;

use crate::raw::{ARM_HOST, Door, LOGIN_HOST, head, is_closed, whole};
use crate::records::STORAGE_BLOB_DATA_OWNER;
use crate::strangers::{STORAGE_SCOPE, account};
use crate::support::{ARM, ARM_SCOPE, Site};

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
    // The object around them counts as well.
    let nested =
        |deep: usize| format!(r#"{{"location":"uksouth","x":{}{}}}"#, "[".repeat(deep), "]".repeat(deep));
    is_refused(&of_length(nested(126).as_bytes()), 200);
    is_refused(&of_length(nested(127).as_bytes()), 400);
    is_refused(&of_length(nested(10_000).as_bytes()), 400);
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

/// Sends a change and one byte of its body, then `bytes` every second; what it is told, and when.
fn slow_body(door: &Door, head: &str, bytes: &[u8]) -> (String, Duration) {
    let mut stream = door.tls(ARM_HOST, b"http/1.1").unwrap();
    let begun = Instant::now();
    stream.write_all(format!("{head}Content-Length: 1000\r\n\r\n{{").as_bytes()).unwrap();
    stream.sock.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut first = [0];
    while let Err(error) = stream.read_exact(&mut first) {
        let waits = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(waits && begun.elapsed() < crate::raw::PATIENCE * 2, "{error} after {:?}", begun.elapsed());
        stream.write_all(bytes).and_then(|()| stream.flush()).unwrap();
    }
    let took = begun.elapsed();
    stream.sock.set_read_timeout(Some(crate::raw::PATIENCE)).unwrap();
    (String::from_utf8_lossy(&first).into_owned() + &whole(&mut stream).unwrap(), took)
}

/// The real times; how they are kept to the second is shown beside the listener, by a clock that does not wait.
#[tokio::test]
async fn slow_clients_are_cut() {
    let site = Site::start();
    let door = Door::of(&site);
    let wire = site.client();
    let token = wire.admin_token(ARM_SCOPE).await;
    let change = format!(
        "PUT /subscriptions/{}{GROUP} HTTP/1.1\r\nHost: {ARM_HOST}\r\nAuthorization: Bearer {token}\r\n",
        wire.subscription()
    );
    // From here on their time runs.
    let connect = door.connect().unwrap();
    let handshake = door.tunnel(ARM_HOST).unwrap();
    let mut partial = door.tunnel(ARM_HOST).unwrap();
    partial.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").unwrap();
    let mut request = door.tls(ARM_HOST, b"http/1.1").unwrap();
    request.write_all(format!("GET / HTTP/1.1\r\nHost: {ARM_HOST}\r\nX: ").as_bytes()).unwrap();
    let (took, told) = std::thread::scope(|scope| {
        let bodies = [&b""[..], b" "].map(|bytes| {
            let (door, change) = (&door, &change);
            scope.spawn(move || slow_body(door, change, bytes))
        });
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
        (waits.map(|wait| wait.join().unwrap()), bodies.map(|body| body.join().unwrap()))
    });
    assert!(took.iter().all(|took| *took >= Duration::from_secs(9)), "{took:?}");
    for (answer, took) in told {
        is_refused(&answer, 408);
        assert!(answer.contains("RequestTimeout") && answer.contains("too slowly"), "{answer}");
        assert!(took >= Duration::from_secs(29), "{took:?}");
    }
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

#[tokio::test]
async fn a_page_of_groups_has_a_thousand() {
    let site = Site::start();
    let wire = site.client();
    let arm = wire.admin_token(ARM_SCOPE).await;
    let groups = format!("{ARM}/subscriptions/{}/resourceGroups", wire.subscription());
    for at in 0..1001 {
        let url = format!("{groups}/g{at}?api-version=2024-11-01");
        wire.must("PUT", &url, &arm, Some(serde_json::json!({ "location": "uksouth" }))).await;
    }
    let mut next = Some(format!("{groups}?api-version=2024-11-01&$top=5000"));
    let mut pages = Vec::new();
    while let Some(url) = next {
        let page = wire.must("GET", &url, &arm, None).await;
        pages.push(page["value"].as_array().unwrap().len());
        next = page["nextLink"].as_str().map(str::to_owned);
    }
    assert_eq!(pages, [1000, 1]);
}

/// What a list says of a blob may be five times as long as what was sent of it.
#[tokio::test]
async fn a_page_of_blobs_ends_when_it_is_long() {
    const BLOBS: usize = 120;
    let site = Site::start();
    let wire = site.client();
    wire.vault("kvlong").await;
    account(&wire).await;
    let member = wire.application("member").await;
    let group = format!("/subscriptions/{}/resourceGroups/rg1", wire.subscription());
    wire.assign(&group, STORAGE_BLOB_DATA_OWNER, &member.object_id).await;
    let token = wire.token_of(&member.app_id, &member.secret, STORAGE_SCOPE).await;
    let container = "https://kvstrangers.blob.core.windows.net/long";
    let long = "&".repeat(8000);
    let send = async |method: &str, url: String, status: u16| {
        let mut call = Call::new(method.parse().unwrap(), url).bearer(&token).unwrap();
        for (name, value) in
            [("x-ms-version", "2021-12-02"), ("x-ms-blob-type", "BlockBlob"), ("x-ms-meta-m", &long)]
        {
            call = call.header(name.parse().unwrap(), value.parse().unwrap());
        }
        let answer = wire.client.send(call).await.unwrap();
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, status, "{text:.300}");
        text
    };
    send("PUT", format!("{container}?restype=container"), 201).await;
    for at in 0..BLOBS {
        send("PUT", format!("{container}/b{at:03}"), 201).await;
    }
    let list = format!("{container}?restype=container&comp=list&include=metadata");
    let (mut marker, mut pages) = (String::new(), Vec::new());
    loop {
        let page = send("GET", format!("{list}&marker={marker}"), 200).await;
        assert!(page.len() < 4 * 1024 * 1024 + 64 * 1024, "{}", page.len());
        pages.push(page.matches("<Blob>").count());
        let next = page.split_once("<NextMarker>").and_then(|(_, rest)| rest.split_once("</NextMarker>"));
        let Some((next, _)) = next.filter(|(next, _)| !next.is_empty()) else { break };
        marker = next.to_owned();
    }
    assert!(pages.len() == 2 && pages.iter().sum::<usize>() == BLOBS, "{pages:?}");
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
