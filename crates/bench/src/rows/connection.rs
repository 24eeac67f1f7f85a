//! New connections.

use anyhow::{Context as _, Result};
use http::StatusCode;

use super::{Bench, CONNECTIONS};
use crate::floor::{Floor, Kind};
use crate::load::{Ask, Load, Loaded, Peer};
use crate::nginx::{self, Nginx};
use crate::process::Meter;
use crate::row::{Bound, Middle, Round, Row};
use crate::site::ARM;

/// Public, and small.
const PATH: &str = "/metadata/endpoints?api-version=2022-09-01";

pub async fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let site = bench.site()?;
    let floor = Floor::start(Kind::Small, &bench.certificates, true)?;
    let nginx =
        if nginx::is_installed() { Some(Nginx::start(&bench.certificates, &bench.folder)?) } else { None };
    let (mut rounds, mut bares) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let ours = connect(bench, &site.peer(ARM)?, &site.meter(), PATH).await?.cpu_micros();
        bares.push(connect(bench, &floor.peer()?, &floor.meter(), "/").await?.cpu_micros());
        rounds.push(match &nginx {
            Some(nginx) => {
                let peer = connect(bench, &nginx.peer()?, &nginx.meter()?, "/small").await?;
                Round::pair(ours, peer.cpu_micros())
            }
            None => Round::alone(ours),
        });
    }
    let bare = Middle::of(bares).context("at least one round")?.median;
    let note = if nginx.is_some() { "" } else { "nginx is not installed, so nothing stands beside it; " };
    Ok(vec![
        Row::new("new TLS connection and a small GET", "P-256 leaf, TLS 1.3, nothing resumed: CPU", "us")
            .ratio_to("nginx")
            .gate(Bound::AtMost(0.8))
            .rounds(rounds)
            .lasting(bench.time)
            .note(format!("{note}bare hyper and rustls {bare:.0} us")),
    ])
}

async fn connect(bench: &Bench, peer: &Peer, meter: &Meter, path: &str) -> Result<Loaded> {
    let ask = Ask::get(path);
    let load = Load::lasting(CONNECTIONS, bench.time)?.fresh();
    load.run(peer, meter, StatusCode::OK, move |_| ask.clone()).await
}
