//! What costs more when there is more: the same work in a small site and in a large one, side by side.

use std::time::Duration;

use anyhow::{Result, ensure};
use http::{Method, StatusCode};
use serde_json::json;

use super::Bench;
use crate::blob_site::{BlobSite, blob};
use crate::load::{Ask, Load, Peer};
use crate::process::resident_bytes;
use crate::row::{Bound, Round, Row};
use crate::site::{Site, VAULT_SCOPE};

const VAULT: &str = "bench-growth";
const HOST: &str = "bench-growth.vault.azure.net";
const VERSION: &str = "?api-version=7.4";
const CONTAINER: &str = "growth";
const SMALL: usize = 1000;
/// What the gate for memory is about.
const GATED: f64 = 1e6;
pub const MEBIBYTES_MAX: f64 = 300.0;
pub const START_SECONDS_MAX: f64 = 0.2;
const MEBIBYTE: f64 = 1024.0 * 1024.0;
const PAGE: usize = 1000;
const FILL_CONNECTIONS: usize = 32;
/// Secrets or blobs that are made in one go.
const FILLED_AT_ONCE: u64 = 100_000;
/// What is not there by then, and all that would come after it, is not measured, and that is told.
const FILL_TIME_MAX: Duration = Duration::from_secs(90);
const CONNECTIONS: usize = 8;
const BLOB_BYTES: usize = 256;
pub const FLAT: Bound = Bound::AtMost(1.5);

/// A site with so many secrets and as many blobs.
struct Filled {
    blobs: BlobSite,
    secret_token: String,
    count: u64,
}

/// What is asked of both.
#[derive(Clone, Copy)]
enum Work {
    SecretGet,
    SecretSet,
    SecretList,
    BlobGet,
    BlobPut,
    BlobList,
}

const WORKS: [(Work, &str); 6] = [
    (Work::SecretGet, "secret GET"),
    (Work::SecretSet, "secret SET"),
    (Work::SecretList, "secret LIST, a page of 25"),
    (Work::BlobGet, "blob GET 256 B"),
    (Work::BlobPut, "blob PUT 256 B, replacing"),
    (Work::BlobList, "blob LIST 1000"),
];

pub async fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let mut small = Filled::make(bench, bench.size(SMALL, 20)).await?;
    let mut large = Filled::make(bench, bench.size(bench.objects, 100)).await?;
    let filled = format!("{} of each against {}", large.count, small.count);
    let mut rows = Vec::new();
    for (work, name) in WORKS {
        let mut rounds = Vec::new();
        for _ in 0..bench.rounds {
            let few = small.cpu_micros(bench, work).await?;
            rounds.push(Round::pair(large.cpu_micros(bench, work).await?, few));
        }
        let row = Row::new(format!("growth: {name}"), format!("CPU with {filled}"), "us");
        rows.push(
            row.ratio_to("the same in the small site").gate(FLAT).rounds(rounds.clone()).lasting(bench.time),
        );
        if matches!(work, Work::BlobList) {
            let alone = rounds.iter().map(|round| Round::alone(round.ours / 1e3)).collect();
            large.expect_page().await?;
            rows.push(
                Row::new("blob LIST 1000", format!("CPU, of {} blobs", large.count), "ms")
                    .gate(Bound::AtMost(3.0))
                    .stretch(Bound::AtMost(1.5))
                    .rounds(alone)
                    .lasting(bench.time),
            );
        }
    }
    rows.extend(memory(&small, &large)?);
    rows.extend(restarts(bench, &mut small, &mut large, &filled)?);
    Ok(rows)
}

/// What is in memory, and the line through both sites, carried on to what the gate is about.
fn memory(small: &Filled, large: &Filled) -> Result<Vec<Row>> {
    let resident =
        |filled: &Filled| Ok::<_, anyhow::Error>(resident_bytes(filled.blobs.site.id())? as f64 / MEBIBYTE);
    let (few, many) = (resident(small)?, resident(large)?);
    let row = |name: String, what: &str, rounds| {
        Row::new(name, what, "MiB").gate(Bound::AtMost(MEBIBYTES_MAX)).rounds(rounds)
    };
    let name = format!("memory with {} secrets and as many blobs", large.count);
    let mut rows = vec![
        row(name, "resident, after the load", vec![Round::pair(many, few)])
            .beside(format!("with {}", small.count)),
    ];
    let missing = GATED - large.count as f64;
    if missing > 0.0 {
        let each = ((many - few) / (large.count - small.count) as f64).max(0.0);
        let what = "not measured: the line through the two above, carried on";
        let reached = vec![Round::alone(many + each * missing)];
        rows.push(row("memory with 1e6 secrets and 1e6 blobs".to_owned(), what, reached));
    }
    Ok(rows)
}

fn restarts(bench: &Bench, small: &mut Filled, large: &mut Filled, filled: &str) -> Result<Vec<Row>> {
    let mut rounds = Vec::new();
    for _ in 0..bench.rounds {
        let few = restart(&mut small.blobs.site)?;
        rounds.push(Round::pair(restart(&mut large.blobs.site)?, few));
    }
    let alone = rounds.iter().map(|round| Round::alone(round.ours)).collect();
    let what = "from the program's start to `ready`";
    Ok(vec![
        Row::new("growth: start", format!("{what}, with {filled}"), "s")
            .ratio_to("the same in the small site")
            .gate(FLAT)
            .rounds(rounds),
        Row::new(format!("cold start, again, with {} secrets and as many blobs", large.count), what, "s")
            .gate(Bound::AtMost(START_SECONDS_MAX))
            .rounds(alone),
    ])
}

impl Filled {
    async fn make(bench: &Bench, count: usize) -> Result<Self> {
        let site = bench.site()?;
        let officer = site.make_vault_and_officer(VAULT).await?;
        let secret_token = site.token_of(&officer, VAULT_SCOPE).await?;
        let blobs = BlobSite::furnish(site).await?;
        blobs.make_container(CONTAINER).await?;
        let mut made = Self { blobs, secret_token, count: count as u64 };
        let mut there = 0;
        while there < made.count {
            let until = made.count.min(there + FILLED_AT_ONCE);
            let secrets = made.fill_secrets(there, until).await?;
            let bytes = vec![b'x'; BLOB_BYTES];
            let blobs = made.blobs.fill(CONTAINER, there, until, bytes, FILL_TIME_MAX).await?.requests();
            there += secrets.min(blobs);
            if there < until {
                made.count = there;
            }
        }
        ensure!(made.count > 0, "nothing could be made");
        Ok(made)
    }

    async fn fill_secrets(&self, from: u64, until: u64) -> Result<u64> {
        let load = Load::new(FILL_CONNECTIONS, FILL_TIME_MAX, until - from)?;
        let set = self.secret(Method::PUT, 0)?;
        let ask = move |number: u64| Ask { path: secret(from + number), ..set.clone() };
        let site = &self.blobs.site;
        Ok(load.run(&site.peer(HOST)?, &site.meter(), StatusCode::OK, ask).await?.requests())
    }

    fn secret(&self, method: Method, number: u64) -> Result<Ask> {
        let body = if method == Method::PUT {
            json!({ "value": "a small value" }).to_string()
        } else {
            String::new()
        };
        let ask = Ask::with_body(method, secret(number), body).bearer(&self.secret_token)?;
        if ask.body.is_empty() { Ok(ask) } else { ask.json() }
    }

    /// The request for a page in the middle of the container.
    fn page(&self) -> String {
        let middle = blob(CONTAINER, self.count / 2 / PAGE as u64 * PAGE as u64);
        let prefix = middle.trim_start_matches(&format!("/{CONTAINER}/")).trim_end_matches("000");
        format!("/{CONTAINER}?restype=container&comp=list&maxresults={PAGE}&prefix={prefix}")
    }

    /// A page has as many blobs as it is measured for.
    async fn expect_page(&self) -> Result<()> {
        let page = self.blobs.must(self.blobs.get(&self.page())?).await?;
        let found = String::from_utf8_lossy(&page).matches("<Blob>").count();
        let expected = PAGE.min(usize::try_from(self.count)?);
        ensure!(found == expected, "a page has {found} blobs and not {expected}");
        Ok(())
    }

    async fn cpu_micros(&self, bench: &Bench, work: Work) -> Result<f64> {
        let (site, count) = (&self.blobs.site, self.count);
        let vault = || site.peer(HOST);
        let (peer, status, ask): (Peer, StatusCode, Ask) = match work {
            Work::SecretGet => (vault()?, StatusCode::OK, self.secret(Method::GET, 0)?),
            Work::SecretSet => (vault()?, StatusCode::OK, self.secret(Method::PUT, 0)?),
            Work::SecretList => {
                let path = format!("/secrets{VERSION}&maxresults=25");
                (vault()?, StatusCode::OK, Ask { path, ..self.secret(Method::GET, 0)? })
            }
            Work::BlobGet => (self.blobs.peer()?, StatusCode::OK, self.blobs.get("")?),
            Work::BlobPut => {
                (self.blobs.peer()?, StatusCode::CREATED, self.blobs.put("", vec![b'y'; BLOB_BYTES])?)
            }
            Work::BlobList => (self.blobs.peer()?, StatusCode::OK, self.blobs.get(&self.page())?),
        };
        let ask = move |number: u64| {
            // A step that meets every one before it meets one again.
            let at = number.wrapping_mul(7919) % count;
            let path = match work {
                Work::SecretGet | Work::SecretSet => secret(at),
                Work::BlobGet | Work::BlobPut => blob(CONTAINER, at),
                Work::SecretList | Work::BlobList => ask.path.clone(),
            };
            Ask { path, ..ask.clone() }
        };
        let loaded = Load::lasting(CONNECTIONS, bench.time)?.run(&peer, &site.meter(), status, ask).await?;
        Ok(loaded.cpu_micros())
    }
}

pub fn restart(site: &mut Site) -> Result<f64> {
    site.down()?;
    Ok(site.up()?.as_secs_f64())
}

fn secret(number: u64) -> String {
    format!("/secrets/s{number:08}{VERSION}")
}
