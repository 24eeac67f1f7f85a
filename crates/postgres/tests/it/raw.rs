//! What no well-behaved client sends.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::gateway::{lock_of, pid_of, signal};
use crate::world::{PASSWORD, World, single, single_body};

async fn answer(world: &World, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(world.gateway).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.unwrap();
    answer
}

pub fn packet(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 4).to_be_bytes()[..], body].concat()
}

/// TLS to a server, from the first byte on.
pub async fn encrypted(world: &World, server: &str) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(world.folder.path().join("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(format!("{server}.postgres.database.azure.com")).unwrap();
    let stream = TcpStream::connect(world.gateway).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// A server's next message.
pub async fn message(stream: &mut (impl AsyncRead + Unpin)) -> (char, Vec<u8>) {
    let kind = stream.read_u8().await.unwrap();
    let mut body = vec![0; stream.read_u32().await.unwrap() as usize - 4];
    stream.read_exact(&mut body).await.unwrap();
    (char::from(kind), body)
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_beginnings_are_closed_or_refused() {
    let world = World::new().await;
    let many: String = (0..10_000).map(|at| format!("p{at}\0v\0")).collect();
    let startup = |text: &str| packet(&[&[0, 3, 0, 0], text.as_bytes()].concat());
    // Closed without a word: not PostgreSQL's protocol.
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 64],
        vec![0, 0, 0, 0],
        vec![0, 0, 0, 7, 1, 2, 3],
        startup(&many),
        [&[0x7f, 0xff, 0xff, 0xff][..], &[0; 64]].concat(),
    ] {
        let said = answer(&world, &bytes).await;
        assert!(said.is_empty(), "{said:?}");
    }
    // A request for TLS, and then no TLS: what is said after the consent is an alert of TLS.
    let bytes = [packet(&80_877_103_u32.to_be_bytes()), startup("user\0arcadmin@x\0\0")].concat();
    let said = answer(&world, &bytes).await;
    assert!(said.starts_with(b"S") && said.get(1).is_none_or(|kind| *kind == 21), "{said:?}");
    for (bytes, words) in [
        (startup("user\0arcadmin"), "invalid startup packet layout"),
        (startup("user\0arcadmin\0"), "invalid startup packet layout"),
        (startup("\0"), "no PostgreSQL user name"),
        (packet(b"\0\x02\0\0user\0x\0\0"), "unsupported frontend protocol"),
    ] {
        let said = String::from_utf8_lossy(&answer(&world, &bytes).await).into_owned();
        assert!(said.starts_with('E') && said.contains(words), "{said:?}");
    }
    // GSS is answered, and TLS can still be asked for.
    let asked = [packet(&80_877_104_u32.to_be_bytes()), packet(&80_877_103_u32.to_be_bytes())].concat();
    assert_eq!(&answer(&world, &asked).await[..2], b"NS");
}

const ASLEEP: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";

/// Waits until a query of another session's sleeps.
async fn until_asleep(observer: &tokio_postgres::Client) {
    while observer.query_one(ASLEEP, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_cancelled_by_its_own_key_only() {
    let world = World::new().await;
    let server = single("pg-c");
    world.server(&server, single_body("Disabled")).await;
    world.admit(&server, "127.0.0.1", "127.0.0.1").await;
    let mut config = tokio_postgres::Config::new();
    config.user("arcadmin@pg-c").password(PASSWORD).dbname("postgres");
    let connect = async || {
        let stream = TcpStream::connect(world.gateway).await.unwrap();
        let (client, connection) = config.connect_raw(stream, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    };
    let (observer, client) = (connect().await, connect().await);
    let own: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let token = client.cancel_token();
    let (mut asked, asking) = tokio::io::duplex(64);
    token.cancel_query_raw(asking, tokio_postgres::NoTls).await.unwrap();
    let mut request = Vec::new();
    asked.read_to_end(&mut request).await.unwrap();
    let key = request[8..].to_vec();
    let mut nearly = key.clone();
    *nearly.last_mut().unwrap() ^= 1;
    let sleeping = tokio::spawn(async move { client.batch_execute("SELECT pg_sleep(120)").await });
    until_asleep(&observer).await;
    for key in [
        // A number alone is not enough.
        nearly,
        [&key[..4], &[0; 4]].concat(),
        [&key[..], &[0]].concat(),
        key[..4].to_vec(),
        // The server's own is not the one that clients are given.
        [&own.to_be_bytes()[..], &[0; 4]].concat(),
        [&own.to_be_bytes()[..], &key[4..]].concat(),
        vec![0; 8],
        vec![0xff; 8],
    ] {
        let said = answer(&world, &packet(&[&80_877_102_u32.to_be_bytes()[..], &key].concat())).await;
        assert!(said.is_empty());
        assert_eq!(observer.query_one(ASLEEP, &[]).await.unwrap().get::<_, i64>(0), 1, "{key:?}");
    }
    let stream = TcpStream::connect(world.gateway).await.unwrap();
    token.cancel_query_raw(stream, tokio_postgres::NoTls).await.unwrap();
    let error = tokio::time::timeout(Duration::from_secs(10), sleeping).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.code().unwrap().code(), "57014");
    world.postgres.stop().await;
}

/// A client that was told of the end believes that its query was: its next one must not be what is cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_cancel_ends_when_it_was_passed_on() {
    let world = World::new().await;
    let server = single("pg-e");
    world.server(&server, single_body("Disabled")).await;
    world.admit(&server, "127.0.0.1", "127.0.0.1").await;
    let mut config = tokio_postgres::Config::new();
    config.user("arcadmin@pg-e").password(PASSWORD).dbname("postgres");
    let postmaster = pid_of(&lock_of(&world));
    let plain = || async {
        let stream = TcpStream::connect(world.gateway).await.unwrap();
        let (client, connection) = config.connect_raw(stream, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    };
    let observer = plain().await;
    for is_encrypted in [false, true] {
        let client = plain().await;
        let token = client.cancel_token();
        let sleeping = tokio::spawn(async move { client.batch_execute("SELECT pg_sleep(120)").await });
        until_asleep(&observer).await;
        // It takes connections, and reads nothing from them.
        signal(postmaster, Signal::STOP);
        let asked = Instant::now();
        if is_encrypted {
            end_follows(asked, token, encrypted(&world, "pg-e").await, postmaster).await;
        } else {
            end_follows(asked, token, TcpStream::connect(world.gateway).await.unwrap(), postmaster).await;
        }
        let ended = tokio::time::timeout(Duration::from_secs(30), sleeping).await.unwrap().unwrap();
        assert_eq!(ended.unwrap_err().code().unwrap().code(), "57014");
    }
    world.postgres.stop().await;
}

/// Asks a server that stands still to cancel, and lets it go on once the client was kept waiting.
async fn end_follows(
    asked: Instant,
    token: tokio_postgres::CancelToken,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    postmaster: i32,
) {
    token.cancel_query_raw(&mut stream, tokio_postgres::NoTls).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut [0])).await;
    // The gateway gives a server five seconds; so long this takes on a machine that stood still itself.
    assert!(early.is_err() || asked.elapsed() > Duration::from_secs(5), "{early:?}");
    signal(postmaster, Signal::CONT);
    let end = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut [0])).await.unwrap();
    assert_eq!(end.unwrap(), 0);
}

/// Whoever is in when the site falls silent is cut, in the middle of a statement and between two; nobody comes in.
#[tokio::test(flavor = "multi_thread")]
async fn silence_cuts_every_session() {
    let world = World::new().await;
    let server = single("pg-q");
    world.server(&server, single_body("Disabled")).await;
    world.admit(&server, "127.0.0.1", "127.0.0.1").await;
    let mut config = tokio_postgres::Config::new();
    config.user("arcadmin@pg-q").password(PASSWORD).dbname("postgres");
    let connect = async || {
        let stream = TcpStream::connect(world.gateway).await.unwrap();
        let (client, connection) = config.connect_raw(stream, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok::<_, tokio_postgres::Error>(client)
    };
    let (idle, busy) = (connect().await.unwrap(), connect().await.unwrap());
    idle.batch_execute("SELECT 1").await.unwrap();
    let sleeping = tokio::spawn(async move { busy.batch_execute("SELECT pg_sleep(60)").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!sleeping.is_finished());
    world.served.fall_silent();
    let cut = tokio::time::timeout(Duration::from_secs(30), sleeping).await.unwrap().unwrap();
    assert!(cut.unwrap_err().is_closed());
    // Each session is cut by its own task, in no order; this one without having asked for anything.
    let cut = async {
        while !idle.is_closed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), cut).await.unwrap();
    assert!(idle.batch_execute("SELECT 1").await.unwrap_err().is_closed());
    assert!(connect().await.is_err());
    world.postgres.stop().await;
}
