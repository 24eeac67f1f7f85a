//! One client of the proxy, from its first line to its end.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::DnsName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::activity::Activity;
use super::drain::Drain;
use super::hosts::{HostTable, Route, fold_host};
use super::http_connection::{self, Connection};
use super::limits::Limits;
use super::outside::{Outside, Refusal, TUNNEL_PORT, tunnel};
use super::request_head::{Ask, HeadFault, read_head};
use super::stream::{BoxStream, Prefixed};
use super::tls::SiteTls;

/// How long a refused client may take to read its answer.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: u64 = 64 * 1024;

/// What the proxy answers with and passes on to; shared by all connections.
pub struct Proxy {
    pub hosts: Arc<HostTable>,
    pub tls: SiteTls,
    pub outside: Outside,
    pub limits: Limits,
}

/// One client: its address, where it has one, and the hold on the site.
pub struct Peer {
    pub remote: Option<IpAddr>,
    pub drain: Drain,
    pub activity: Arc<Activity>,
}

/// A refusal as the client is told.
struct Refused {
    status: &'static str,
    text: String,
}

impl Refused {
    fn bad_request(text: impl Into<String>) -> Self {
        Self { status: "400 Bad Request", text: text.into() }
    }

    fn forbidden(text: impl Into<String>) -> Self {
        Self { status: "403 Forbidden", text: text.into() }
    }

    fn bad_gateway(text: impl Into<String>) -> Self {
        Self { status: "502 Bad Gateway", text: text.into() }
    }
}

impl Proxy {
    /// Serves one connection to its end.
    pub async fn serve(self: Arc<Self>, mut stream: BoxStream, peer: Peer) {
        let mut stopping = peer.drain.clone();
        let head = tokio::select! {
            head = tokio::time::timeout(self.limits.connect_head_timeout, read_head(&mut stream)) => head,
            () = stopping.requested() => return,
        };
        let refused = match head {
            Err(_) | Ok(Err(HeadFault::Closed)) => return,
            Ok(Err(fault)) => Refused::bad_request(format!("Arcadia's proxy cannot read this: {fault}.")),
            Ok(Ok((Ask::Connect { host, port }, rest))) => {
                match self.clone().connect(stream, From { peer, rest }, &host, port).await {
                    Ok(()) => return,
                    Err((refused, back)) => {
                        tracing::info!(host, port, answer = refused.status, "not connected");
                        stream = back;
                        refused
                    }
                }
            }
            Ok(Ok((Ask::Forward, _))) => Refused::forbidden(
                "Arcadia's proxy carries HTTPS (CONNECT) and no plain HTTP. HTTP_PROXY or http_proxy is set to it: \
                 unset them, set HTTPS_PROXY alone, and NO_PROXY to localhost,127.0.0.1. \
                 `arcadia env` prints exactly that.",
            ),
            Ok(Ok((Ask::Origin, _))) => Refused::bad_request(
                "This is Arcadia's proxy, not a web server. Set HTTPS_PROXY to it: `arcadia env` prints what a shell \
                 needs.",
            ),
        };
        refuse(&mut stream, &refused).await;
    }

    /// Answers CONNECT. Gives the stream back when it is refused.
    async fn connect(
        self: Arc<Self>,
        stream: BoxStream,
        from: From,
        host: &str,
        port: u16,
    ) -> Result<(), (Refused, BoxStream)> {
        let not_connected = |reason: &str| format!("Arcadia's proxy does not connect to {host}: {reason}.");
        let route = if port == TUNNEL_PORT { self.hosts.route(host) } else { Route::Outside };
        match route {
            Route::Here if DnsName::try_from(fold_host(host)).is_err() => {
                Err((Refused::bad_request(not_connected("no host can have this name")), stream))
            }
            Route::Here => {
                self.serve_here(stream, from, host).await;
                Ok(())
            }
            Route::Withheld(reason) => Err((Refused::forbidden(not_connected(&reason)), stream)),
            Route::Outside => {
                if port != TUNNEL_PORT {
                    let reason = not_connected("only port 443 is carried");
                    return Err((Refused::forbidden(reason), stream));
                }
                match self.outside.connect(host).await {
                    Err(refusal @ (Refusal::Offline | Refusal::NotPublic)) => {
                        Err((Refused::forbidden(not_connected(&refusal.to_string())), stream))
                    }
                    Err(refusal) => Err((Refused::bad_gateway(not_connected(&refusal.to_string())), stream)),
                    Ok(server) => {
                        if let Some((stream, peer)) = established(stream, from).await {
                            tunnel(stream, server, peer, self.limits.tunnel_idle_timeout).await;
                        }
                        Ok(())
                    }
                }
            }
        }
    }

    /// The far end of the tunnel is this site: TLS begins right here.
    async fn serve_here(&self, stream: BoxStream, from: From, host: &str) {
        let Some((stream, peer)) = established(stream, from).await else { return };
        self.serve_tls(stream, peer, Some(host)).await;
    }

    /// TLS and then requests. `host` is the name the client asked the proxy for, where there was a proxy.
    pub async fn serve_tls(&self, stream: BoxStream, peer: Peer, host: Option<&str>) {
        let Peer { remote, mut drain, activity } = peer;
        let handshake = tokio::time::timeout(self.limits.handshake_timeout, self.tls.accept(stream, host));
        let accepted = tokio::select! {
            accepted = handshake => accepted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            () = drain.requested() => return,
        };
        let (stream, name) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(host = host.map(fold_host), %error, "no TLS session");
                return;
            }
        };
        activity.turned();
        let Some(endpoint) = self.hosts.find(&name).cloned() else { return };
        let connection = Connection { name, endpoint, remote, limits: self.limits.clone(), activity };
        http_connection::serve(stream, connection, drain).await;
    }
}

/// Where a CONNECT came from, and the bytes that it sent along.
struct From {
    peer: Peer,
    rest: Vec<u8>,
}

/// Says that the tunnel stands; `None` when the client is gone.
async fn established(mut stream: BoxStream, from: From) -> Option<(BoxStream, Peer)> {
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok()?;
    from.peer.activity.turned();
    let stream: BoxStream =
        if from.rest.is_empty() { stream } else { Box::new(Prefixed::new(from.rest, stream)) };
    Some((stream, from.peer))
}

async fn refuse(stream: &mut BoxStream, refused: &Refused) {
    let answer = format!(
        "HTTP/1.1 {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}\n",
        refused.status,
        refused.text.len() + 1,
        refused.text
    );
    let told = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // Closing with unread bytes resets the connection, which would take the answer away from the client.
        tokio::io::copy(&mut stream.take(LINGER_BYTES_MAX), &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(LINGER_TIMEOUT, told).await;
}
