//! The beginning of a connection: requests for TLS or GSS, a request to cancel, or the start-up packet.

use std::io;

use arcadia_kernel::Progress;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::message::Refusal;
use super::stream::{Stream, Unread};

const PACKET_BYTES_MAX: usize = 10_000;
const PARAMETERS_MAX: usize = 64;
/// TLS and GSS may each be asked for once.
const REQUESTS_MAX: usize = 3;
/// The longest secret of a request to cancel, of protocol 3.2.
const CANCEL_BYTES_MAX: usize = 4 + 256;

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;
/// The first byte of TLS, from clients that do not ask first.
const TLS_HANDSHAKE: u8 = 0x16;

pub(super) enum Opening {
    /// The process number and secret of a session whose query shall end. Clients take the end of the stream for the news
    /// that it was told to, or that the server has not listened for some seconds.
    Cancel(Stream, Vec<u8>),
    Refused(Stream, Refusal),
    Session {
        stream: Stream,
        startup: Startup,
        server_name: Option<String>,
        is_encrypted: bool,
    },
}

/// What a client begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Startup {
    /// The protocol's version as it was sent; the server answers to its minor part.
    version: u32,
    parameters: Vec<(String, String)>,
}

impl Startup {
    /// Reads a packet without its length. `None` for one that is not well formed.
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let (version, rest) = packet.split_first_chunk::<4>()?;
        let version = u32::from_be_bytes(*version);
        // Pairs of texts, each with its end, and one end more.
        let rest = rest.strip_suffix(b"\0")?;
        let mut parameters = Vec::new();
        if !rest.is_empty() {
            let mut texts = rest.strip_suffix(b"\0")?.split(|byte| *byte == 0);
            while let Some(name) = texts.next() {
                let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
                let (name, value) = (text(name)?, text(texts.next()?)?);
                // Of two of one name the gateway would look at the first, and the server at the last.
                let is_double = parameters.iter().any(|(known, _)| *known == name);
                if parameters.len() == PARAMETERS_MAX || name.is_empty() || is_double {
                    return None;
                }
                parameters.push((name, value));
            }
        }
        Some(Self { version, parameters })
    }

    pub(super) fn major(&self) -> u32 {
        self.version >> 16
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn user(&self) -> &str {
        self.parameter("user").unwrap_or_default()
    }

    /// The packet with its length, for another user. The database is named, as it would else follow the user.
    pub(super) fn for_role(&self, role: &str) -> Vec<u8> {
        let mut packet = vec![0; 4];
        packet.extend(self.version.to_be_bytes());
        let database = self.parameter("database").filter(|name| !name.is_empty()).unwrap_or(role);
        let kept = self.parameters.iter().filter(|(name, _)| name != "user" && name != "database");
        let kept = kept.map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in [("user", role), ("database", database)].into_iter().chain(kept) {
            for text in [name, value] {
                packet.extend(text.as_bytes());
                packet.push(0);
            }
        }
        packet.push(0);
        let length = (packet.len() as u32).to_be_bytes();
        packet[..4].copy_from_slice(&length);
        packet
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads up to the start-up packet. What is not PostgreSQL's protocol is an error, and is not answered.
pub(super) async fn open(mut stream: Stream, tls: &TlsAcceptor, progress: &Progress) -> io::Result<Opening> {
    let (mut is_encrypted, mut server_name) = (false, None);
    for _ in 0..=REQUESTS_MAX {
        let first = stream.read_u8().await?;
        if first == TLS_HANDSHAKE && !is_encrypted {
            (stream, server_name) =
                encrypt(Box::new(Unread { first: Some(first), inner: stream }), tls).await?;
            is_encrypted = true;
            continue;
        }
        let mut rest = [0; 3];
        stream.read_exact(&mut rest).await?;
        let length = u32::from_be_bytes([first, rest[0], rest[1], rest[2]]) as usize;
        if !(8..=PACKET_BYTES_MAX).contains(&length) {
            return Err(invalid("the length of the start-up packet is out of bounds"));
        }
        let mut packet = vec![0; length - 4];
        stream.read_exact(&mut packet).await?;
        progress.advanced();
        let code = packet.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        match code {
            SSL_REQUEST if !is_encrypted && length == 8 => {
                stream.write_all(b"S").await?;
                stream.flush().await?;
                (stream, server_name) = encrypt(stream, tls).await?;
                is_encrypted = true;
            }
            GSS_REQUEST if length == 8 => {
                stream.write_all(b"N").await?;
                stream.flush().await?;
            }
            CANCEL_REQUEST if (8..=CANCEL_BYTES_MAX).contains(&(packet.len() - 4)) => {
                return Ok(Opening::Cancel(stream, packet.split_off(4)));
            }
            SSL_REQUEST | GSS_REQUEST | CANCEL_REQUEST => {
                return Err(invalid("a request that does not fit here"));
            }
            _ => {
                let refusal = |message: &str| Refusal::new("08P01", message);
                return Ok(match Startup::parse(&packet) {
                    None => Opening::Refused(stream, refusal("invalid startup packet layout")),
                    Some(startup) if startup.major() != 3 => Opening::Refused(
                        stream,
                        Refusal::new("0A000", "unsupported frontend protocol: the server supports 3"),
                    ),
                    Some(startup) => Opening::Session { stream, startup, server_name, is_encrypted },
                });
            }
        }
    }
    Err(invalid("too many requests before the start-up packet"))
}

async fn encrypt(stream: Stream, tls: &TlsAcceptor) -> io::Result<(Stream, Option<String>)> {
    let encrypted = Box::pin(tls.accept(stream)).await?;
    let server_name = encrypted.get_ref().1.server_name().map(str::to_owned);
    Ok((Box::new(encrypted), server_name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(text: &str) -> Vec<u8> {
        [&[0, 3, 0, 0], text.replace('|', "\0").as_bytes()].concat()
    }

    #[test]
    fn parameters_are_pairs_with_an_end() {
        let startup = Startup::parse(&packet("user|nina|database|db|application_name|psql||")).unwrap();
        assert_eq!((startup.major(), startup.user(), startup.parameter("database")), (3, "nina", Some("db")));
        assert!(Startup::parse(&packet("|")).unwrap().parameters.is_empty());
        let many: String = (0..10_000).map(|at| format!("p{at}|v|")).collect();
        for hostile in [
            "",
            "user",
            "user|nina",
            "user|nina|",
            "user||",
            "|x||",
            "user|nina|x||",
            &format!("{many}|"),
            "user|nina|replication|false|replication|true||",
        ] {
            assert_eq!(Startup::parse(&packet(hostile)), None, "{hostile:.40}");
        }
        assert_eq!(Startup::parse(&[0, 3, 0, 0, 0xff, 0, 0, 0]), None);
        assert_eq!(Startup::parse(&[0, 3]), None);
    }

    #[test]
    fn another_user_keeps_the_rest() {
        let startup = Startup::parse(&packet("user|nina@s|options|-c x=y||")).unwrap();
        let bytes = startup.for_role("nina");
        assert_eq!(u32::from_be_bytes(*bytes.first_chunk::<4>().unwrap()) as usize, bytes.len());
        let again = Startup::parse(&bytes[4..]).unwrap();
        assert_eq!((again.user(), again.parameter("database")), ("nina", Some("nina")));
        assert_eq!(again.parameter("options"), Some("-c x=y"));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(startup) = Startup::parse(&bytes) {
                let again = startup.for_role("x");
                prop_assert!(Startup::parse(&again[4..]).is_some() || startup.parameters.len() >= PARAMETERS_MAX - 1);
            }
        }
    }
}
