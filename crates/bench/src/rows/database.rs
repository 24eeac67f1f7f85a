//! PostgreSQL: queries through the gateway, and how soon a new server answers.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::Bench;
use crate::database_site::{DatabaseSite, first_query};
use crate::postgres::{Direct, Door, must, programs};
use crate::row::{Bound, Middle, Round, Row};

const CLIENTS: usize = 8;
/// 100,000 rows each.
const SCALE: usize = 5;
const GATE: Bound = Bound::AtLeast(0.9);
const STRETCH: Bound = Bound::AtLeast(0.97);
/// Made one after the other in one site.
const LATER_SERVERS: usize = 5;

pub async fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let programs = programs().context("PostgreSQL is not installed")?;
    let mut rows = gateway(bench, &programs).await?;
    rows.extend(servers(bench, &programs).await?);
    Ok(rows)
}

async fn gateway(bench: &Bench, programs: &Path) -> Result<Vec<Row>> {
    let site = DatabaseSite::furnish(bench.site()?).await?;
    let door = site.make_server("bench-queries").await?;
    let direct = Direct::start(programs, Some(&bench.certificates))?;
    direct.create_database("bench")?;
    let beside = direct.door("bench")?;
    let scale = bench.size(SCALE, 1).to_string();
    for door in [&door, &beside] {
        must(door.client(programs, "pgbench").args(["--initialize", "--quiet", "--scale", &scale]))?;
    }
    let mut rows = Vec::new();
    for (name, kind) in [("reads", "--select-only"), ("writes", "--skip-some-updates")] {
        let (mut rounds, mut micros) = (Vec::new(), Vec::new());
        for round in 0..bench.rounds {
            // What one leaves to be written, the next one meets: so each comes first in turn.
            let early =
                if round % 2 == 1 { Some(transactions(bench, programs, &beside, kind)?) } else { None };
            let before = site.site.meter().cpu()?;
            let ours = transactions(bench, programs, &door, kind)?;
            let used = (site.site.meter().cpu()? - before).as_secs_f64();
            micros.push(used * 1e6 / (ours * seconds(bench)));
            let direct = early.map_or_else(|| transactions(bench, programs, &beside, kind), Ok)?;
            rounds.push(Round::pair(ours, direct));
        }
        let micros = Middle::of(micros).context("at least one round")?.median;
        let what = format!("pgbench {kind}, {CLIENTS} clients over TLS, through the gateway");
        rows.push(
            Row::new(format!("PostgreSQL through the gateway, {name}"), what, "/s")
                .ratio_to("the same version and settings, its own TLS")
                .gate(GATE)
                .stretch(STRETCH)
                .rounds(rounds)
                .lasting(Duration::from_secs_f64(seconds(bench)))
                .note(format!("the site's CPU {micros:.0} us")),
        );
    }
    Ok(rows)
}

/// pgbench counts whole seconds.
fn seconds(bench: &Bench) -> f64 {
    bench.time.as_secs_f64().ceil()
}

fn transactions(bench: &Bench, programs: &Path, door: &Door, kind: &str) -> Result<f64> {
    let mut command = door.client(programs, "pgbench");
    command.args([
        kind,
        "--no-vacuum",
        "--client",
        &CLIENTS.to_string(),
        "--time",
        &seconds(bench).to_string(),
    ]);
    let said = must(&mut command)?;
    let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    rate.with_context(|| format!("pgbench says {said}"))
}

async fn servers(bench: &Bench, programs: &Path) -> Result<Vec<Row>> {
    let (mut first, mut later) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let beside = by_hand(programs)?;
        let site = DatabaseSite::furnish(bench.site()?).await?;
        first.push(Round::pair(through_site(&site, programs, "bench-first").await?, beside));
    }
    let site = DatabaseSite::furnish(bench.site()?).await?;
    site.make_server("bench-before").await?;
    for number in 0..bench.size(LATER_SERVERS, 1) {
        let beside = by_hand(programs)?;
        let ours = through_site(&site, programs, &format!("bench-{number}")).await?;
        later.push(Round::pair(ours, beside));
    }
    let what = "server, firewall rule and database through the resource manager, to the first answer in psql";
    let row = |name: &str| {
        Row::new(name, what, "s")
            .ratio_to("initdb, start, createdb, psql")
            .gate(Bound::AtMost(1.3))
            .stretch(Bound::AtMost(0.4))
    };
    Ok(vec![
        row("new PostgreSQL server, the first of a site").rounds(first),
        row("new PostgreSQL server, a later one").rounds(later),
    ])
}

fn by_hand(programs: &Path) -> Result<f64> {
    let start = Instant::now();
    let direct = Direct::start(programs, None)?;
    direct.create_database("bench")?;
    let door = direct.door("bench")?.without_tls();
    first_query(programs, &door)?;
    Ok(start.elapsed().as_secs_f64())
}

async fn through_site(site: &DatabaseSite, programs: &Path, name: &str) -> Result<f64> {
    let start = Instant::now();
    let door = site.make_server(name).await?;
    first_query(programs, &door)?;
    Ok(start.elapsed().as_secs_f64())
}
