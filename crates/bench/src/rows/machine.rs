//! The agent of a connected machine: tokens for local processes, and what the daemon has in memory.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http::{HeaderValue, StatusCode, header};
use tokio::task::JoinSet;

use super::start::settle;
use super::{Bench, CONNECTIONS};
use crate::agent::Daemon;
use crate::load::{Ask, Peer, connect, exchange, send};
use crate::loopback::LoopbackTarget;
use crate::process::{Meter, Process, anonymous_bytes, free_port, resident_bytes};
use crate::row::{Bound, Middle, Round, Row};
use crate::site::{ARM, GROUP, Site};

const TOKEN_PATH: &str =
    "/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fvault.azure.net";
const INFO_PATH: &str = "/metadata/identity/info?api-version=2019-11-01";
const MEBIBYTE: f64 = 1024.0 * 1024.0;
const STANDS_WAIT_MAX: Duration = Duration::from_secs(30);

pub async fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let site = bench.site()?;
    site.make_group().await?;
    let place = tempfile::Builder::new().prefix("agent").tempdir_in(&bench.folder)?;
    let root = place.path().join("azcmagent");
    let target = LoopbackTarget::new(false, free_port()?)?;
    onboard(&site, &bench.arcadia, &root, target)?;
    let mut memory = Vec::new();
    let mut own = 0.0;
    for _ in 0..bench.rounds {
        let process = Process::spawn(daemon(&bench.arcadia, &site, &root, target).stderr(Stdio::null()))?;
        let peer = peer(&site, target)?;
        stands(&peer).await?;
        // One token, so that what its making takes is in memory as it is on a machine.
        cycle(&mut connect(&peer).await?, &peer).await?;
        settle(&Meter::of([process.id()]), bench.is_smoke).await?;
        memory.push(Round::alone(resident_bytes(process.id())? as f64 / MEBIBYTE));
        own = anonymous_bytes(process.id())? as f64 / MEBIBYTE;
    }
    let mut rows = tokens(bench, &site, &root).await?;
    rows.push(
        Row::new("memory of an idle agent", "resident, connected, after one token", "MiB")
            .gate(Bound::AtMost(10.0))
            .stretch(Bound::AtMost(6.0))
            .rounds(memory)
            .note(format!("{own:.1} MiB of it anonymous")),
    );
    Ok(rows)
}

async fn tokens(bench: &Bench, site: &Site, root: &Path) -> Result<Vec<Row>> {
    let agent = Daemon::start(root)?;
    let peer = peer(site, agent.target)?;
    stands(&peer).await?;
    let (mut alone, mut together, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let (mut times, _) = cycles(&peer, 1, bench.time).await?;
        times.sort_unstable();
        let middle = times.get(times.len() / 2).context("a token was given")?;
        alone.push(Round::alone(middle.as_secs_f64() * 1e3));
        let before = agent.meter().cpu()?;
        let (times, elapsed) = cycles(&peer, CONNECTIONS, bench.time).await?;
        let spent = agent.meter().cpu()?.saturating_sub(before);
        together.push(Round::alone(times.len() as f64 / elapsed.as_secs_f64()));
        cpu.push(spent.as_secs_f64() * 1e6 / times.len() as f64);
    }
    let cpu = Middle::of(cpu).context("at least one round")?.median;
    Ok(vec![
        Row::new(
            "HIMDS: challenge, file, token",
            "three steps over HTTP, token held by the agent: median latency",
            "ms",
        )
        .gate(Bound::AtMost(1.0))
        .rounds(alone)
        .lasting(bench.time),
        Row::new("HIMDS: tokens given", "32 clients, each token after a challenge and its file", "/s")
            .gate(Bound::AtLeast(10_000.0))
            .rounds(together)
            .lasting(bench.time)
            .note(format!(
                "CPU {cpu:.0} us a token on the agent's one thread; its limit of requests raised for the row"
            )),
    ])
}

/// How long each of the cycles took, and all of them.
async fn cycles(peer: &Peer, clients: usize, time: Duration) -> Result<(Vec<Duration>, Duration)> {
    const CYCLES_MAX: u64 = 1_000_000;
    let count = Arc::new(AtomicU64::new(0));
    let mut running = JoinSet::new();
    let start = Instant::now();
    for _ in 0..clients {
        let (peer, count) = (peer.clone(), count.clone());
        running.spawn(async move {
            let mut sender = connect(&peer).await?;
            let mut times = Vec::new();
            while start.elapsed() < time && count.fetch_add(1, Ordering::Relaxed) < CYCLES_MAX {
                let begun = Instant::now();
                cycle(&mut sender, &peer).await?;
                times.push(begun.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut all = Vec::new();
    while let Some(done) = running.join_next().await {
        all.extend(done??);
    }
    Ok((all, start.elapsed()))
}

type Sender = hyper::client::conn::http1::SendRequest<http_body_util::Full<bytes::Bytes>>;

/// A challenge, its file, a token.
async fn cycle(sender: &mut Sender, peer: &Peer) -> Result<()> {
    let mut ask = Ask::get(TOKEN_PATH);
    ask.headers.insert("metadata", HeaderValue::from_static("true"));
    let challenge = send(sender, peer, ask.clone()).await?;
    let status = challenge.status();
    let told = challenge.headers().get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
    let path = told.and_then(|told| told.split_once("realm=")).map(|(_, path)| path.to_owned());
    drop(http_body_util::BodyExt::collect(challenge.into_body()).await?);
    let path = path.with_context(|| format!("no challenge: {status}"))?;
    // What is in a page cache is read faster than a thread is found to read it.
    let secret = fs::read_to_string(&path).with_context(|| path.clone())?;
    let ask = ask.header(header::AUTHORIZATION, &format!("Basic {secret}"))?;
    let (status, body) = exchange(sender, peer, ask).await?;
    ensure!(status == StatusCode::OK, "{status}: {}", String::from_utf8_lossy(&body));
    Ok(())
}

async fn stands(peer: &Peer) -> Result<()> {
    let start = Instant::now();
    loop {
        let mut ask = Ask::get(INFO_PATH);
        ask.headers.insert("metadata", HeaderValue::from_static("true"));
        if let Ok(mut sender) = connect(peer).await
            && exchange(&mut sender, peer, ask).await.is_ok()
        {
            return Ok(());
        }
        ensure!(start.elapsed() < STANDS_WAIT_MAX, "the agent does not answer on {}", peer.target);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn peer(site: &Site, target: LoopbackTarget) -> Result<Peer> {
    Ok(Peer { target, name: "localhost".to_owned(), ..site.peer(ARM)? })
}

/// Connects the machine whose files are in `root`, with the program's own command.
fn onboard(site: &Site, program: &Path, root: &Path, target: LoopbackTarget) -> Result<()> {
    let first = site.first_application()?;
    let mut command = agent_command(program, site);
    command.arg0("azcmagent").arg("connect").arg("--root").arg(root);
    command.args(["--address", &target.address().to_string(), "--resource-name", "bench-machine"]);
    command.args(["--subscription-id", site.subscription()?, "--tenant-id", site.tenant()?]);
    command.args(["--resource-group", GROUP, "--location", "uksouth"]);
    command.args(["--service-principal-id", &first.app_id, "--service-principal-secret", &first.secret]);
    let done = command.stdin(Stdio::null()).output()?;
    let told = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "azcmagent connect: {}{told}", String::from_utf8_lossy(&done.stdout));
    Ok(())
}

fn daemon(program: &Path, site: &Site, root: &Path, target: LoopbackTarget) -> Command {
    let mut command = agent_command(program, site);
    command.arg0("himds").arg("--root").arg(root);
    command.args(["--address", &target.address().to_string()]);
    command
}

fn agent_command(program: &Path, site: &Site) -> Command {
    let mut command = crate::process::clean(program);
    let authority: PathBuf = site.authority();
    command.env("HTTPS_PROXY", site.proxy()).env("SSL_CERT_FILE", authority);
    command
}
