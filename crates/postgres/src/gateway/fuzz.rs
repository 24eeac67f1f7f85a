//! Fuzz targets for what a client of a database server says before it is let in.

use std::io::Cursor;
use std::sync::{Arc, OnceLock};

use arcadia_crypto::{RsaBits, RsaKeyPair, b64, hmac_sha256, self_signed};
use arcadia_kernel::Progress;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::Ended;
use super::authenticate::{as_role, pass_through};
use super::message::{MESSAGE_BYTES_MAX, Message};
use super::startup::{Opening, Startup, open};
use super::stream::Stream;

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap())
}

fn tls() -> &'static TlsAcceptor {
    static TLS: OnceLock<TlsAcceptor> = OnceLock::new();
    TLS.get_or_init(|| {
        let key = RsaKeyPair::generate(RsaBits::Bits2048).unwrap();
        let certificate = CertificateDer::from(self_signed("x", &key, 1_795_262_400, 1).unwrap());
        let key = PrivatePkcs8KeyDer::from(key.to_pkcs8_der().unwrap().to_vec());
        let config = ServerConfig::builder_with_provider(Arc::new(
            tokio_rustls::rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key))
        .unwrap();
        TlsAcceptor::from(Arc::new(config))
    })
}

/// A client that sends these bytes and then nothing more.
fn client(bytes: &[u8]) -> Stream {
    Box::new(tokio::io::join(Cursor::new(bytes.to_vec()), tokio::io::sink()))
}

arcadia_fuzz::target!(startup, |data: &[u8]| openings_are_bounded(data));

fn openings_are_bounded(data: &[u8]) {
    match runtime().block_on(open(client(data), tls(), &Progress::begin())) {
        Err(_) => {}
        Ok(Opening::Cancel(_, key)) => assert!((8..=260).contains(&key.len())),
        Ok(Opening::Refused(_, refusal)) => assert_eq!(refusal.code.len(), 5),
        Ok(Opening::Session { startup, is_encrypted, server_name, .. }) => {
            assert!(!is_encrypted && server_name.is_none() && startup.major() == 3);
            let packet = startup.for_role("nina");
            assert!(packet.len() <= 4 + data.len() + 64);
            assert_eq!(u32::from_be_bytes(*packet.first_chunk::<4>().unwrap()) as usize, packet.len());
            // One parameter may have come too many by naming user and database.
            if let Some(again) = Startup::parse(&packet[4..]) {
                assert_eq!(again.user(), "nina");
                let database =
                    startup.parameter("database").filter(|name| !name.is_empty()).unwrap_or("nina");
                assert_eq!(again.parameter("database"), Some(database));
                assert_eq!(again.parameter("options"), startup.parameter("options"));
            }
        }
    }
}

arcadia_fuzz::target!(login_messages, |data: &[u8]| logins_end(data));

/// A length, as many bytes of the server's, and the client's: the exchange ends, and passes on no more than came.
fn logins_end(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let (server, from_client) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
    let startup = Startup::parse(b"\0\x03\0\0user\0nina\0\0").unwrap();
    runtime().block_on(async {
        let mut read = from_client;
        while let Ok(message) = Message::read(&mut read).await {
            assert!(message.body.len() <= MESSAGE_BYTES_MAX);
            let mut written = Vec::new();
            message.append_to(&mut written);
            let again = Message::read(&mut &*written).await.unwrap();
            assert_eq!((again.kind, &again.body), (message.kind, &message.body));
            let _ = (message.number(), message.error_code());
        }
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(server).await.unwrap();
        theirs.shutdown().await.unwrap();
        let _ = pass_through(&mut client(from_client), &mut ours, &startup, "nina", &Progress::begin()).await;
        drop(ours);
        let mut passed = Vec::new();
        let _ = theirs.read_to_end(&mut passed).await;
        assert!(passed.len() <= startup.for_role("nina").len() + from_client.len());
    });
}

arcadia_fuzz::target!(role_login, |data: &[u8]| only_who_knows_the_secret_logs_a_role_in(data));

const SECRET: &[u8] = b"the role's secret";
const SALT: &[u8] = b"salt";
/// The server's steps: it asks for a proof, challenges it, gives its own, and consents.
const STEPS: [u32; 4] = [10, 11, 12, 0];

/// What a server says: a byte for each of the four steps of a login, done right, or a kind, a length and as many bytes of
/// any other message. Only the four in their order log a role in, whatever else is said.
fn only_who_knows_the_secret_logs_a_role_in(data: &[u8]) {
    let startup = Startup::parse(b"\0\x03\0\0user\0x\0\0").unwrap();
    let secret = str::from_utf8(SECRET).unwrap();
    let (outcome, said) = runtime().block_on(async {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let login = async {
            let outcome = as_role(&mut ours, &startup, "nina", secret).await;
            drop(ours);
            outcome
        };
        tokio::join!(login, serve(data, &mut theirs))
    });
    let notices = said.iter().filter(|(kind, _)| *kind == b'N').count();
    let said: Vec<_> = said.into_iter().filter(|(kind, _)| *kind != b'N').collect();
    let steps = &said[usize::from(said.first().is_some_and(|(kind, _)| *kind == b'v'))..];
    let is_end = |kind: u8| matches!(kind, b'Z' | b'E');
    match outcome {
        Ok(greeting) => {
            assert!(steps.starts_with(&STEPS.map(|number| (b'R', Some(number)))));
            let (end, _) = steps[4..].iter().find(|(kind, _)| is_end(*kind)).unwrap();
            assert_eq!(greeting.is_refusal(), *end == b'E');
        }
        Err(Ended::Refused(refusal)) => {
            assert!(["3D000", "53300", "57P03", "28P01", "28000"].contains(&refusal.code));
            assert!(steps.iter().any(|(kind, _)| *kind == b'E'));
        }
        Err(Ended::Broken(error)) => {
            assert!(notices > 0 || !data.starts_with(&[0, 1, 2, 3, b'Z', 0]), "{error}");
        }
    }
}

/// Says what it is told to for as long as it is heard, and returns the kinds and numbers of what it said.
async fn serve(script: &[u8], stream: &mut UnixStream) -> Vec<(u8, Option<u32>)> {
    let mut said = Vec::new();
    let length = stream.read_u32().await.unwrap() as usize;
    stream.read_exact(&mut vec![0; length - 4]).await.unwrap();
    let (mut nonce, mut signature, mut left) = (String::new(), String::new(), script);
    while let Some((&kind, rest)) = left.split_first() {
        left = rest;
        let message = match kind {
            0 => Message::new(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0".to_vec()),
            1 => {
                // Whoever was asked for a proof gives it or goes.
                if nonce.is_empty() && said.contains(&(b'R', Some(STEPS[0]))) {
                    let Ok(proof) = Message::read(stream).await else { break };
                    let proof = String::from_utf8(proof.body).unwrap();
                    nonce = proof.split_once("n=,r=").unwrap().1.to_owned();
                }
                let challenge = format!("r={nonce}+,s={},i=1", b64(SALT));
                let signed = format!("n=,r={nonce},{challenge},c=biws,r={nonce}+");
                let salted = hmac_sha256(SECRET, &[SALT, &[0, 0, 0, 1]].concat());
                signature = b64(&hmac_sha256(&hmac_sha256(&salted, b"Server Key"), signed.as_bytes()));
                Message::new(b'R', [b"\0\0\0\x0b", challenge.as_bytes()].concat())
            }
            2 => Message::new(b'R', format!("\0\0\0\x0cv={signature}").into_bytes()),
            3 => Message::new(b'R', vec![0; 4]),
            _ => {
                let Some((length, rest)) = left.split_first() else { break };
                let (body, rest) = rest.split_at(usize::from(*length).min(rest.len()));
                left = rest;
                Message::new(kind, body.to_vec())
            }
        };
        if message.write(stream).await.is_err() {
            break;
        }
        said.push((message.kind, message.number()));
    }
    let _ = stream.shutdown().await;
    said
}
