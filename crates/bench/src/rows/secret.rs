//! Reading and writing secrets.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use http::{Method, StatusCode};
use serde_json::json;

use super::{Bench, CONNECTIONS};
use crate::disk;
use crate::floor::{Floor, Kind, SECRET_BYTES};
use crate::load::{Ask, Load, Peer};
use crate::process::Meter;
use crate::row::{Bound, Middle, Round, Row};
use crate::site::{Application, LOGIN, Site, VAULT_SCOPE};

const VAULT: &str = "bench-vault";
const HOST: &str = "bench-vault.vault.azure.net";
const PATH: &str = "/secrets/large?api-version=7.4";
/// More than a site remembers, so that each is new when its turn comes again.
const TOKENS: usize = 5000;
/// Where one synced append takes longer, the disk and not the program bounds grouped writes.
const FAST_DISK_MICROS: f64 = 1000.0;
const NAMES: u64 = 1000;
const FLOOR: &str = "bare hyper, rustls, token by hash, AES-256-GCM";

pub async fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let site = bench.site()?;
    let officer = site.make_vault_and_officer(VAULT).await?;
    let token = site.token_of(&officer, VAULT_SCOPE).await?;
    let body = json!({ "value": "x".repeat(SECRET_BYTES) });
    site.must(Method::PUT, HOST, PATH, &token, Some(&body)).await?;
    let floor = Floor::start(Kind::Secret, &bench.certificates, true)?;
    let mut rows = reads(bench, &site, &floor, &officer, &token).await?;
    rows.extend(writes(bench, &site, &floor, &token).await?);
    Ok(rows)
}

async fn reads(
    bench: &Bench,
    site: &Site,
    floor: &Floor,
    officer: &Application,
    token: &str,
) -> Result<Vec<Row>> {
    let (peer, floor_peer) = (site.peer(HOST)?, floor.peer()?);
    let ask = Ask::get(PATH).bearer(token)?;
    let tokens = new_tokens(bench, site, officer).await?;
    let (mut known, mut new, mut latency, mut rates) = (vec![], vec![], vec![], vec![]);
    for _ in 0..bench.rounds {
        let again = ask.clone();
        let ours = bench.load(&peer, &site.meter(), move |_| again.clone()).await?;
        let again = ask.clone();
        let bare = bench.load(&floor_peer, &floor.meter(), move |_| again.clone()).await?;
        let each = tokens.clone();
        let first = bench
            .load(&peer, &site.meter(), move |number| each[number as usize % each.len()].clone())
            .await?;
        known.push(Round::pair(ours.cpu_micros(), bare.cpu_micros()));
        new.push(Round::pair(first.cpu_micros(), ours.cpu_micros()));
        let alone = one_by_one_micros(bench, &peer, &site.meter(), &ask).await?;
        latency.push(Round::pair(alone, one_by_one_micros(bench, &floor_peer, &floor.meter(), &ask).await?));
        rates.push(ours.per_second());
    }
    let rate = Middle::of(rates).context("at least one round")?.median;
    Ok(vec![
        Row::new("secret GET 4 KiB", "over TLS, token known, decided, unsealed, recorded durably: CPU", "us")
            .ratio_to(FLOOR)
            .gate(Bound::AtMost(3.0))
            .stretch(Bound::AtMost(2.0))
            .rounds(known)
            .lasting(bench.time)
            .note(format!("{rate:.0} requests/s")),
        Row::new("secret GET 4 KiB, a new token each time", "as above, token verified: CPU", "us")
            .difference_from("the same with a known token")
            .gate(Bound::AtMost(25.0))
            .rounds(new)
            .lasting(bench.time),
        Row::new("secret GET 4 KiB, one connection", "one request after the other: median latency", "us")
            .ratio_to(FLOOR)
            .rounds(latency)
            .lasting(bench.time),
    ])
}

/// The median latency of one client that asks again and again.
async fn one_by_one_micros(bench: &Bench, peer: &Peer, meter: &Meter, ask: &Ask) -> Result<f64> {
    let ask = ask.clone();
    let load = Load::lasting(1, bench.time)?;
    Ok(load.run(peer, meter, StatusCode::OK, move |_| ask.clone()).await?.quantile_millis(0.5) * 1e3)
}

async fn new_tokens(bench: &Bench, site: &Site, officer: &Application) -> Result<Arc<Vec<Ask>>> {
    let ask = site.token_ask(&officer.app_id, &officer.secret, VAULT_SCOPE)?;
    let login = site.peer(LOGIN)?;
    let mut made = Vec::new();
    let mut connection = crate::load::connect(&login).await?;
    for _ in 0..bench.size(TOKENS, 50) {
        let (status, body) = crate::load::exchange(&mut connection, &login, ask.clone()).await?;
        let answer: serde_json::Value = serde_json::from_slice(&body)?;
        let token = answer.get("access_token").and_then(serde_json::Value::as_str);
        made.push(Ask::get(PATH).bearer(token.with_context(|| format!("no token: {status} {answer}"))?)?);
    }
    Ok(Arc::new(made))
}

async fn writes(bench: &Bench, site: &Site, floor: &Floor, token: &str) -> Result<Vec<Row>> {
    let (peer, floor_peer) = (site.peer(HOST)?, floor.peer()?);
    let get = Ask::get(PATH).bearer(token)?;
    let (mut single, mut grouped, mut absolute, mut shares) = (vec![], vec![], vec![], vec![]);
    let mut with_way = Vec::new();
    for _ in 0..bench.rounds {
        let alone = write(bench, site, &peer, token, 1).await?;
        let append = disk::append_micros(&bench.folder)?;
        let way = one_by_one_micros(bench, &floor_peer, &floor.meter(), &get).await?;
        let together = write(bench, site, &peer, token, CONNECTIONS).await?;
        let alone_micros = alone.quantile_millis(0.5) * 1e3;
        single.push(Round::pair(alone_micros, append));
        with_way.push(Round::pair(alone_micros, way + append));
        grouped.push(Round::pair(together.per_second(), alone.per_second()));
        absolute.push(append);
        shares.push(together.cpu_micros());
    }
    let append = Middle::of(absolute).context("at least one round")?.median;
    let cpu = Middle::of(shares).context("at least one round")?.median;
    let many = Row::new("secret SET, 32 writers", "over TLS, durable, grouped", "/s");
    let many = if append > FAST_DISK_MICROS {
        many.ratio_to("1 writer").gate(Bound::AtLeast(8.0))
    } else {
        many.beside("1 writer").gate(Bound::AtLeast(5000.0)).stretch(Bound::AtLeast(10_000.0))
    };
    Ok(vec![
        Row::new("secret SET, 1 writer", "over TLS, durable before the answer: median latency", "us")
            .ratio_to("append of 600 B and fdatasync")
            .gate(Bound::AtMost(1.5))
            .rounds(single)
            .lasting(bench.time),
        // Where the disk is as quick as the way to the site and back, the disk alone is half of the floor.
        Row::new("secret SET, 1 writer, with the way there", "the same latency", "us")
            .ratio_to("GET of the floor on one connection, and append of 600 B and fdatasync")
            .rounds(with_way)
            .lasting(bench.time),
        many.rounds(grouped).lasting(bench.time).note(format!("CPU {cpu:.0} us")),
    ])
}

async fn write(
    bench: &Bench,
    site: &Site,
    peer: &Peer,
    token: &str,
    writers: usize,
) -> Result<crate::load::Loaded> {
    let ask = Ask::with_body(Method::PUT, "", json!({ "value": "a small value" }).to_string());
    let ask = ask.bearer(token)?.json()?;
    let load = Load::lasting(writers, bench.time)?;
    load.run(peer, &site.meter(), StatusCode::OK, move |number| Ask {
        path: format!("/secrets/small-{}?api-version=7.4", number % NAMES),
        ..ask.clone()
    })
    .await
}
