//! HTTP/1.1 on the machine's loopback.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arcadia_kernel::{GIVE_WAY_AFTER, Place, Places, Progress};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::daemon::{Core, DRAIN_MAX};
use crate::himds;

/// How long to hold back after a failure to accept, which is a lack of file descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One place for each connection, over all listeners.
pub(crate) fn places(core: &Core) -> Arc<Places<Progress>> {
    Places::new(core.options.limits.connections_max, GIVE_WAY_AFTER)
}

/// Accepts until told to stop, then gives connections time to finish the request they are on.
pub(crate) async fn serve(
    core: Arc<Core>,
    listener: TcpListener,
    places: Arc<Places<Progress>>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            _ = stopping.changed() => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Some((stream, progress, place)) => {
                let served = connection(core.clone(), stream, progress, stopping.clone());
                connections.spawn(async move {
                    if place.hold(served).await.is_none() {
                        tracing::debug!("a connection gave way to a new one");
                    }
                });
            }
            None => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
    drop(listener);
    let drain = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_MAX, drain).await.is_err() {
        tracing::warn!("requests that took too long were cut off");
    }
}

/// The next connection, and a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Places<Progress>>,
) -> Option<(TcpStream, Arc<Progress>, Place<Progress>)> {
    match listener.accept().await {
        Ok((stream, _)) => {
            let progress = Progress::begin();
            let place = places.take(progress.clone()).await;
            Some((stream, progress, place))
        }
        Err(fault) => {
            tracing::warn!(%fault, "cannot accept a connection");
            places.make_room();
            None
        }
    }
}

async fn connection(
    core: Arc<Core>,
    stream: TcpStream,
    progress: Arc<Progress>,
    mut stopping: watch::Receiver<bool>,
) {
    if let Err(fault) = stream.set_nodelay(true) {
        tracing::debug!(%fault, "TCP_NODELAY");
    }
    let caller = match himds::LocalCaller::of(&stream) {
        Ok(caller) => Arc::new(caller),
        Err(fault) => return tracing::debug!(%fault, "a client that is gone already"),
    };
    let limits = &core.options.limits;
    let mut builder = http1::Builder::new();
    builder
        // Scripts look for `Www-Authenticate`, spelled so.
        .title_case_headers(true)
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(limits.headers_max)
        .max_buf_size(limits.header_bytes_max)
        // The buffer alone grows past its bound by what comes in one piece.
        .max_header_size(limits.header_bytes_max);
    let service = {
        let core = core.clone();
        service_fn(move |request: hyper::Request<Incoming>| {
            let (core, caller, serving) = (core.clone(), caller.clone(), progress.serving());
            async move {
                let (head, body) = request.into_parts();
                let answer = himds::answer(&core, &caller, &head).await;
                drop((body, serving));
                Ok::<_, Infallible>(answer)
            }
        })
    };
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        _ = stopping.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(fault) = outcome {
        tracing::debug!(%fault, "a connection ended");
    }
}
