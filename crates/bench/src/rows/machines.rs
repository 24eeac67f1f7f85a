//! What costs more when there are more machines.

use std::sync::Arc;

use anyhow::Result;
use http::{Method, StatusCode};
use serde_json::json;

use super::growth::{FLAT, MEBIBYTES_MAX, START_SECONDS_MAX, restart};
use super::{Bench, CONNECTIONS, comeback};
use crate::fleet::{Fleet, HEARTBEAT_RESOURCE, HEARTBEATS, Machine, VAULT, VAULT_HOST, VAULT_RESOURCE};
use crate::load::{Ask, Load};
use crate::process::resident_bytes;
use crate::row::{Bound, Round, Row};
use crate::site::VAULT_SCOPE;

const FEW: usize = 100;
const MANY: usize = 10_000;
/// Machines that heartbeats and reads come from, from all over the fleet.
const ASKING: usize = 50;
const MEBIBYTE: f64 = 1024.0 * 1024.0;
const SECRET: &str = "/secrets/shared?api-version=7.4";

pub async fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let mut small = Crowd::make(bench, bench.size(FEW, 10)).await?;
    let mut large = Crowd::make(bench, bench.size(MANY, 50)).await?;
    let filled = format!("{} machines against {}", large.fleet.machines.len(), small.fleet.machines.len());
    let mut rows = vec![connecting(&large.fleet)];
    for (work, name) in
        [(Work::Heartbeat, "heartbeat"), (Work::Decision, "secret GET by a machine's own role")]
    {
        let mut rounds = Vec::new();
        for _ in 0..bench.rounds {
            let few = small.cpu_micros(bench, work).await?;
            rounds.push(Round::pair(large.cpu_micros(bench, work).await?, few));
        }
        let row = Row::new(format!("growth: {name}"), format!("CPU with {filled}"), "us");
        rows.push(row.ratio_to("the same with few").gate(FLAT).rounds(rounds).lasting(bench.time));
    }
    rows.push(memory(&small, &large)?);
    rows.extend(starts(bench, &mut small, &mut large, &filled)?);
    rows.extend(comeback::measure(bench, &mut large.fleet).await?);
    Ok(rows)
}

#[derive(Clone, Copy)]
enum Work {
    Heartbeat,
    Decision,
}

/// A fleet, and what some of its machines send.
struct Crowd {
    fleet: Fleet,
    beats: Arc<Vec<Ask>>,
    reads: Arc<Vec<Ask>>,
}

impl Crowd {
    async fn make(bench: &Bench, count: usize) -> Result<Self> {
        let site = bench.site()?;
        let officer = site.make_vault_and_officer(VAULT).await?;
        let token = site.token_of(&officer, VAULT_SCOPE).await?;
        let body = json!({ "value": "a small value" });
        site.must(Method::PUT, VAULT_HOST, SECRET, &token, Some(&body)).await?;
        let fleet = Fleet::make(site, count).await?;
        let some = fleet.some(ASKING);
        let beat = |(token, machine): (String, &Machine)| {
            let body = json!({ "vmId": machine.vm_id, "agentVersion": "1.0", "osName": "linux" });
            Ask::with_body(Method::POST, "/machines/heartbeat", body.to_string()).bearer(&token)?.json()
        };
        let tokens = fleet.tokens(&some, HEARTBEAT_RESOURCE).await?;
        let beats = tokens.into_iter().zip(&some).map(beat).collect::<Result<_>>()?;
        let tokens = fleet.tokens(&some, VAULT_RESOURCE).await?;
        let reads = tokens.iter().map(|token| Ask::get(SECRET).bearer(token)).collect::<Result<_>>()?;
        Ok(Self { fleet, beats: Arc::new(beats), reads: Arc::new(reads) })
    }

    async fn cpu_micros(&self, bench: &Bench, work: Work) -> Result<f64> {
        let (host, asks) = match work {
            Work::Heartbeat => (HEARTBEATS, self.beats.clone()),
            Work::Decision => (VAULT_HOST, self.reads.clone()),
        };
        let site = &self.fleet.site;
        let ask = move |number: u64| asks[number as usize % asks.len()].clone();
        let load = Load::lasting(CONNECTIONS, bench.time)?;
        Ok(load.run(&site.peer(host)?, &site.meter(), StatusCode::OK, ask).await?.cpu_micros())
    }
}

fn connecting(fleet: &Fleet) -> Row {
    let [first, last] = fleet.connecting_micros;
    let what = format!("CPU of a machine's PUT, the last of {} against the first", fleet.machines.len());
    Row::new("growth: connecting a machine", what, "us")
        .ratio_to("among the first")
        .gate(FLAT)
        .rounds(vec![Round::pair(last, first)])
        .note("one round, from filling")
}

fn memory(small: &Crowd, large: &Crowd) -> Result<Row> {
    let resident =
        |crowd: &Crowd| Ok::<_, anyhow::Error>(resident_bytes(crowd.fleet.site.id())? as f64 / MEBIBYTE);
    let machines = large.fleet.machines.len();
    Ok(Row::new(format!("memory with {machines} machines"), "resident, after the load", "MiB")
        .beside(format!("with {}", small.fleet.machines.len()))
        .gate(Bound::AtMost(MEBIBYTES_MAX))
        .rounds(vec![Round::pair(resident(large)?, resident(small)?)]))
}

fn starts(bench: &Bench, small: &mut Crowd, large: &mut Crowd, filled: &str) -> Result<Vec<Row>> {
    let mut rounds = Vec::new();
    for _ in 0..bench.rounds {
        let few = restart(&mut small.fleet.site)?;
        rounds.push(Round::pair(restart(&mut large.fleet.site)?, few));
    }
    let alone = rounds.iter().map(|round| Round::alone(round.ours)).collect();
    let what = "from the program's start to `ready`";
    Ok(vec![
        Row::new("growth: start, by machines", format!("{what}, with {filled}"), "s")
            .ratio_to("the same with few")
            .gate(FLAT)
            .rounds(rounds),
        Row::new(format!("cold start, again, with {} machines", large.fleet.machines.len()), what, "s")
            .gate(Bound::AtMost(START_SECONDS_MAX))
            .rounds(alone),
    ])
}
