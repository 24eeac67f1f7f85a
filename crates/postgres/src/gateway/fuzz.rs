//! Fuzz targets for what a client of a database server says before it is let in.

use std::io::Cursor;
use std::sync::{Arc, OnceLock};

use arcadia_crypto::{RsaBits, RsaKeyPair, self_signed};
use arcadia_kernel::Progress;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::authenticate::pass_through;
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
        Ok(Opening::Cancel(key)) => assert!((8..=260).contains(&key.len())),
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
