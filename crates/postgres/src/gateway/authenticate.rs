//! Authentication: passed through between client and server, or done here in a role's name.

use std::io;

use arcadia_kernel::Progress;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::cancel::Registered;
use super::message::{Message, Refusal};
use super::startup::Startup;
use super::stream::Stream;

/// Messages of a server before it is ready, at most.
const MESSAGES_MAX: usize = 256;

pub(super) const WRONG_PASSWORD: &str = "28P01";

const OK: u32 = 0;
pub(super) const CLEARTEXT_PASSWORD: u32 = 3;
const SASL: u32 = 10;
const SASL_CONTINUE: u32 = 11;
const SASL_FINAL: u32 = 12;

/// What a server says once it has seen the proof: from its consent to its readiness, or why it refuses. Kept back until
/// the login is recorded.
pub(super) struct Greeting {
    messages: Vec<Message>,
    /// The process number and secret by which a query is cancelled.
    pub key: Option<Vec<u8>>,
}

pub(super) type Outcome = Result<Greeting, super::Ended>;

impl Greeting {
    /// Whether the server refused: a wrong password, no such database, too many sessions.
    pub(super) fn is_refusal(&self) -> bool {
        self.messages.last().is_some_and(|last| last.kind == b'E')
    }

    /// Sends it to the client, with another key in place of the server's.
    pub(super) async fn send(
        self,
        client: &mut (impl AsyncWrite + Unpin),
        key: Option<&Registered>,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        for message in self.messages {
            match (message.kind, key) {
                (b'K', Some(key)) => Message::new(b'K', key.bytes().to_vec()).append_to(&mut bytes),
                _ => message.append_to(&mut bytes),
            }
        }
        client.write_all(&bytes).await?;
        client.flush().await
    }
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Lets client and server prove the password to one another. The server offers no channel binding, as its socket
/// has no TLS; what it would offer is taken away.
pub(super) async fn pass_through(
    client: &mut Stream,
    server: &mut UnixStream,
    startup: &Startup,
    role: &str,
    progress: &Progress,
) -> Outcome {
    server.write_all(&startup.for_role(role)).await?;
    let mut verdict = Vec::new();
    for _ in 0..MESSAGES_MAX {
        let message = Message::read(server).await?;
        match (message.kind, message.number()) {
            (b'R', Some(OK)) => {
                verdict.push(message);
                return Ok(greeting(verdict, server).await?);
            }
            (b'R', Some(SASL_FINAL)) => verdict.push(message),
            (b'R', Some(SASL)) => {
                without_binding(message)?.write(client).await?;
                answer(client, server, progress).await?;
            }
            (b'R', Some(SASL_CONTINUE)) => {
                message.write(client).await?;
                answer(client, server, progress).await?;
            }
            // No other way is configured; a server that asks for one is not what was made.
            (b'R', _) => return Err(broken("the server asks for another authentication").into()),
            (b'E', _) => {
                verdict.push(message);
                return Ok(Greeting { messages: verdict, key: None });
            }
            (b'N' | b'v', _) => message.write(client).await?,
            _ => return Err(broken("the server says what does not fit here").into()),
        }
    }
    Err(broken("the server says too much").into())
}

/// One answer of the client's.
async fn answer(client: &mut Stream, server: &mut UnixStream, progress: &Progress) -> io::Result<()> {
    let message = Message::read(client).await?;
    progress.advanced();
    if message.kind != b'p' {
        return Err(broken("the client says something else than its proof"));
    }
    message.write(server).await
}

fn without_binding(mut message: Message) -> io::Result<Message> {
    let mechanisms = message.body.get(4..).unwrap_or_default().split(|byte| *byte == 0);
    let mut kept = SASL.to_be_bytes().to_vec();
    for mechanism in mechanisms.filter(|name| *name == SCRAM_SHA_256.as_bytes()) {
        kept.extend(mechanism);
        kept.push(0);
    }
    if kept.len() == 4 {
        return Err(broken("the server does not offer SCRAM-SHA-256"));
    }
    kept.push(0);
    message.body = kept;
    Ok(message)
}

/// Tells a server whose role logs in, up to where it asks for a proof. Returns what it says of the protocol's version to a
/// client that asked for more than it has.
pub(super) async fn introduce(
    server: &mut UnixStream,
    startup: &Startup,
    role: &str,
) -> Result<Option<Message>, super::Ended> {
    server.write_all(&startup.for_role(role)).await?;
    let message = next(server, role).await?;
    if message.kind == b'v' {
        step(server, role, SASL).await?;
        return Ok(Some(message));
    }
    is_step(&message, SASL)?;
    Ok(None)
}

/// Logs in at the server in a role's name, with the role's secret. Each step is the server's one answer to the one before.
pub(super) async fn as_role(server: &mut UnixStream, startup: &Startup, role: &str, secret: &str) -> Outcome {
    introduce(server, startup, role).await?;
    let mut scram = ScramSha256::new(secret.as_bytes(), ChannelBinding::unsupported());
    let mut body = SCRAM_SHA_256.as_bytes().to_vec();
    body.push(0);
    body.extend((scram.message().len() as u32).to_be_bytes());
    body.extend(scram.message());
    Message::new(b'p', body).write(server).await?;
    scram.update(step(server, role, SASL_CONTINUE).await?.rest())?;
    Message::new(b'p', scram.message().to_vec()).write(server).await?;
    scram.finish(step(server, role, SASL_FINAL).await?.rest())?;
    let consent = step(server, role, OK).await?;
    Ok(greeting(vec![consent], server).await?)
}

/// The server's next step, which must be this one.
async fn step(server: &mut UnixStream, role: &str, number: u32) -> Result<Message, super::Ended> {
    let message = next(server, role).await?;
    is_step(&message, number)?;
    Ok(message)
}

fn is_step(message: &Message, number: u32) -> io::Result<()> {
    let fits = message.kind == b'R' && message.number() == Some(number);
    if fits { Ok(()) } else { Err(broken("the server says what does not fit here")) }
}

/// The server's next message that is no notice.
async fn next(server: &mut UnixStream, role: &str) -> Result<Message, super::Ended> {
    for _ in 0..MESSAGES_MAX {
        let message = Message::read(server).await?;
        match message.kind {
            b'N' => {}
            b'E' => {
                tracing::warn!(role, code = message.error_code(), "a server refuses a role of the gateway's");
                return Err(said(&message).into());
            }
            _ => return Ok(message),
        }
    }
    Err(broken("the server says too much").into())
}

/// A server's refusal, with a code that is known here; its words are fit for the client that it is about.
fn said(message: &Message) -> Refusal {
    let code = match message.error_code() {
        Some("3D000") => "3D000",
        Some("53300") => "53300",
        Some("57P03") => "57P03",
        Some(WRONG_PASSWORD) => WRONG_PASSWORD,
        _ => "28000",
    };
    let text = message.body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"M"));
    Refusal::new(code, String::from_utf8_lossy(text.unwrap_or(b"the server refuses the login")))
}

/// From the server's consent to its readiness.
async fn greeting(consent: Vec<Message>, server: &mut UnixStream) -> io::Result<Greeting> {
    let mut greeting = Greeting { messages: consent, key: None };
    for _ in 0..MESSAGES_MAX {
        let message = Message::read(server).await?;
        let kind = message.kind;
        if kind == b'K' {
            greeting.key = Some(message.body.clone());
        }
        greeting.messages.push(message);
        // After an error (no such database, too many sessions) the server closes; the client is told both.
        if kind == b'Z' || kind == b'E' {
            return Ok(greeting);
        }
    }
    Err(broken("the server says too much"))
}
