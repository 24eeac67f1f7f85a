//! The one door to all servers: TLS, the right server, the firewall, and who may pass.
//!
//! A session goes through these steps, and each of them is bounded in time and bytes: requests for TLS or GSS, the
//! start-up packet, the choice of the server, authentication. After that the bytes are carried as they are. A
//! password is proven between client and server (SCRAM, without channel binding, which would not survive the
//! gateway); a directory token is verified here and stands for a secret that only the gateway has.

mod admission;
mod authenticate;
mod cancel;
mod carry;
#[cfg(test)]
mod fuzz;
mod message;
mod startup;
mod stream;
mod token;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use arcadia_kernel::{AuditSink, Authenticator, Clock, Decider, Entropy, Place, Progress, Serving};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::Postgres;
use admission::Admitted;
use cancel::Cancellations;
use message::{Refusal, refuse};
use startup::{Opening, Startup};
use stream::Stream;

/// From the first byte to the end of the start-up packet, TLS included.
const STARTUP_SECONDS_MAX: u64 = 15;
/// From the start-up packet to the first query; a person may be typing a password.
const AUTHENTICATION_SECONDS_MAX: u64 = 60;
/// How long a client whose session is over may take to read why.
const LINGER_SECONDS_MAX: u64 = 2;
/// How long a client waits for a server that is about to let it in: it says that it takes connections before the site has
/// made sure of it.
const READY_PATIENCE: Duration = Duration::from_secs(3);

/// Whom the gateway believes, and who hears of it.
#[derive(Clone)]
pub struct Trust {
    pub authenticator: Arc<dyn Authenticator>,
    pub decider: Arc<dyn Decider>,
    pub audit: Arc<dyn AuditSink>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
}

/// Serves clients of every server; one for a site.
pub struct Gateway {
    postgres: Arc<Postgres>,
    tls: TlsAcceptor,
    trust: Trust,
    cancellations: Cancellations,
    silent: watch::Sender<bool>,
}

/// Who asks: where from, and whether inside TLS.
struct Peer {
    address: IpAddr,
    /// The name that the client asked for in its hello.
    server_name: Option<String>,
    is_encrypted: bool,
    progress: Arc<Progress>,
}

impl Gateway {
    /// `tls` presents a certificate for [`crate::PostgresNames::wildcard`].
    pub fn new(postgres: Arc<Postgres>, tls: Arc<rustls::ServerConfig>, trust: Trust) -> Arc<Self> {
        Arc::new(Self {
            postgres,
            tls: TlsAcceptor::from(tls),
            trust,
            cancellations: Cancellations::default(),
            silent: watch::Sender::new(false),
        })
    }

    /// Cuts every session, and lets nobody in any more: the site does not know what it could believe.
    pub fn fall_silent(&self) {
        self.silent.send_replace(true);
    }

    /// Serves one client to its end. `remote` is its address; a client without one comes from a machine of the site,
    /// and counts as 127.0.0.1. `progress` says how far the client came: once it is signed in, it keeps its place.
    pub async fn serve<S>(&self, stream: S, remote: Option<IpAddr>, progress: &Arc<Progress>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut silent = self.silent.subscribe();
        tokio::select! {
            biased;
            _ = silent.wait_for(|silent| *silent) => {}
            () = self.serve_one(stream, remote, progress) => {}
        }
    }

    async fn serve_one<S>(&self, stream: S, remote: Option<IpAddr>, progress: &Arc<Progress>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let address = remote.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)).to_canonical();
        let opening = startup::open(Box::new(stream), &self.tls, progress);
        let opened = tokio::time::timeout(Duration::from_secs(STARTUP_SECONDS_MAX), opening).await;
        match opened {
            Err(_) => tracing::debug!(%address, "no start-up packet in time"),
            Ok(Err(error)) => tracing::debug!(%address, %error, "no session"),
            Ok(Ok(Opening::Cancel(mut stream, key))) => {
                {
                    // Who waits for the server does not give way to newcomers.
                    let _serving = progress.serving();
                    self.cancellations.cancel(&self.postgres, &key).await;
                }
                part(&mut stream).await;
            }
            Ok(Ok(Opening::Refused(mut stream, refusal))) => tell(&mut stream, &refusal).await,
            Ok(Ok(Opening::Session { stream, startup, server_name, is_encrypted })) => {
                let peer = Peer { address, server_name, is_encrypted, progress: progress.clone() };
                self.session(stream, startup, &peer).await;
            }
        }
    }

    async fn session(&self, mut client: Stream, startup: Startup, peer: &Peer) {
        let limit = Duration::from_secs(AUTHENTICATION_SECONDS_MAX);
        let begun = tokio::time::timeout(limit, self.begin(&mut client, &startup, peer)).await;
        let (server, hold) = match begun {
            Ok(Ok(Some(begun))) => begun,
            Ok(Ok(None)) => return part(&mut client).await,
            Ok(Err(Ended::Refused(refusal))) => return tell(&mut client, &refusal).await,
            Ok(Err(Ended::Broken(error))) => {
                tracing::debug!(%error, "a session broke off before it began");
                return;
            }
            Err(_) => return,
        };
        if let Err(error) = carry::carry(client, server).await {
            tracing::debug!(%error, "a session broke off");
        }
        drop(hold);
    }

    /// From the start-up packet to the server's first readiness. `None` when the server itself refused, and said so.
    async fn begin(
        &self,
        client: &mut Stream,
        startup: &Startup,
        peer: &Peer,
    ) -> Result<Option<(UnixStream, Hold)>, Ended> {
        let admitted = self.admit(startup, peer)?;
        let too_many = || Refusal::new("53300", "sorry, too many clients already");
        // Who has not signed in yet gives way to who may.
        let place = admitted.cluster.sessions.take_of_waiting(peer.progress.clone()).await;
        let place = place.ok_or_else(too_many)?;
        let mut server = admitted.connect().await?;
        let signing_in = async {
            let (caller, outcome) = match &admitted.administrator {
                Some(administrator) => {
                    self.by_token(client, &mut server, startup, &admitted, administrator, peer).await
                }
                None => {
                    let role = &admitted.role;
                    let through = authenticate::pass_through;
                    (None, through(client, &mut server, startup, role, &peer.progress).await)
                }
            };
            (caller, outcome, peer.progress.serving())
        };
        let signed_in = place.hold(signing_in).await;
        if !matches!(&signed_in, Some((_, Ok(greeting), _)) if !greeting.is_refusal()) {
            leave(&mut server).await;
        }
        let (caller, outcome, serving) = signed_in.ok_or_else(too_many)?;
        self.record(&admitted, peer, caller.as_deref(), &outcome).await?;
        let mut greeting = outcome?;
        if greeting.is_refusal() {
            greeting.send(client, None).await?;
            return Ok(None);
        }
        let key =
            greeting.key.take().map(|key| self.cancellations.replace(&admitted, key, &*self.trust.entropy));
        greeting.send(client, key.as_ref()).await?;
        Ok(Some((server, Hold { _place: place, _serving: serving, _key: key })))
    }
}

/// What a session has while it lasts.
struct Hold {
    _place: Place<Progress>,
    _serving: Serving,
    _key: Option<cancel::Registered>,
}

/// Why there is no session.
enum Ended {
    /// The client is told.
    Refused(Refusal),
    Broken(io::Error),
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl Admitted {
    async fn connect(&self) -> Result<UnixStream, Refusal> {
        let ready = tokio::time::timeout(READY_PATIENCE, self.cluster.until_ready());
        if !matches!(ready.await, Ok(Ok(()))) {
            return Err(Refusal::new("57P03", "the database system is starting up"));
        }
        self.cluster.connect().await.map_err(|error| {
            tracing::warn!(server = %self.server.id, %error, "a database server takes no connection");
            Refusal::new("57P03", "the database system is starting up")
        })
    }
}

/// Waits until the server's process has seen that its client is gone: a server takes few more than it has places for,
/// so a place is given on only then.
async fn leave(server: &mut UnixStream) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let gone = async {
        server.shutdown().await?;
        tokio::io::copy(&mut server.take(64 * 1024), &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(Duration::from_secs(LINGER_SECONDS_MAX), gone).await;
}

/// Tells a client why it is refused.
async fn tell(stream: &mut Stream, refusal: &Refusal) {
    let told = async {
        if refuse(stream, refusal).await.is_ok() {
            part(stream).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(LINGER_SECONDS_MAX), told).await;
}

/// Parts from a client that needs to hear nothing more. Closing with unread bytes would take the words away from it.
async fn part(stream: &mut Stream) {
    use tokio::io::AsyncReadExt as _;
    let parted = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(64 * 1024), &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(Duration::from_secs(LINGER_SECONDS_MAX), parted).await;
}
