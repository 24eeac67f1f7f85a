//! `cargo xtask soak`: eight writers, `kill -9` at random moments, and nothing lost.
//!
//! Whatever was acknowledged must be there after every kill, with its exact value; what was sent and not answered
//! may be there or not, and never half. The same seed gives the same harm again, as far as time allows.

mod faults;
mod http;
mod journal;
mod report;
mod setup;
mod site;
mod writers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::output::say;
use crate::tally::Tally;
use faults::{Plan, Victim};
use report::{Report, Spread};
use setup::World;
use site::Site;
use writers::{Look, Tools, Trouble, Writer};

/// How long writers that were not killed go on after the strike.
const AFTER_STRIKE_MILLISECONDS: std::ops::Range<u64> = 100..500;
/// Problems of one round that are told; more are counted.
const PROBLEMS_TOLD_MAX: usize = 8;

#[derive(Args)]
#[command(after_help = "Examples:\n  cargo xtask soak\n  cargo xtask soak --rounds 20 --seed 7\n  \
    cargo xtask soak --rounds 1000 --json soak.json\n\n\
    Needs root or user namespaces for its machine, and PostgreSQL. Looks at what changed after every round, and at \
    everything at the end.")]
pub struct Arguments {
    /// How many times something is killed
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rounds: u64,
    /// The same number draws the same harm again; drawn and told when not given
    #[arg(long)]
    seed: Option<u64>,
    /// A killed site that takes longer to be ready again has failed; 0 only tells how long it took
    #[arg(long, default_value_t = 1000, value_name = "MILLISECONDS")]
    up_max: u128,
    /// Leave the agent out, where no machine can be made
    #[arg(long)]
    without_machine: bool,
    /// What to try, in place of target/debug/arcadia
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Also write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep the site's directory
    #[arg(long)]
    keep: bool,
}

pub fn run(root: &Path, arguments: &Arguments) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let report = runtime.block_on(soak(root, arguments))?;
    report.show();
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)? + "\n")
            .with_context(|| path.display().to_string())?;
    }
    say(Tally { passed: report.passed, failed: report.failed });
    Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn soak(root: &Path, arguments: &Arguments) -> Result<Report> {
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let with_machine = !arguments.without_machine;
    say(format_args!(
        "seed {seed}; again with: cargo xtask soak --rounds {} --seed {seed}",
        arguments.rounds
    ));
    let built = root.join("target/debug/arcadia");
    let mut site = Site::new(root, arguments.program.as_deref().unwrap_or(&built))?;
    let outcome = match prepare(&mut site, seed, with_machine).await {
        Ok(soak) => soak.rounds(&mut site, arguments).await,
        Err(error) => Err(error.context("before the first round")),
    };
    let keep = arguments.keep || !outcome.as_ref().is_ok_and(|report| report.failed == 0);
    let ended = site.end(keep).await;
    let report = outcome?;
    ended.context("the site does not end as it should")?;
    Ok(report)
}

async fn prepare(site: &mut Site, seed: u64, with_machine: bool) -> Result<Soak> {
    let took = site.up().await?;
    say(format_args!("a site in {}, founded in {} ms", site.data().display(), took.as_millis()));
    let mark = format!("{seed:06}");
    let world = World::make(site, mark, with_machine).await?;
    Ok(Soak {
        world,
        writers: writers::all(),
        random: fastrand::Rng::with_seed(seed),
        seed,
        with_machine,
        ups: Vec::new(),
        tokens: Vec::new(),
        kills: BTreeMap::new(),
        audit_records: 0,
    })
}

struct Soak {
    world: World,
    writers: Vec<Box<dyn Writer>>,
    random: fastrand::Rng,
    seed: u64,
    with_machine: bool,
    ups: Vec<Duration>,
    tokens: Vec<Duration>,
    kills: BTreeMap<Victim, u64>,
    audit_records: u64,
}

/// What the writers are told while they write.
struct Signals {
    stop: AtomicBool,
    struck: AtomicBool,
}

impl Soak {
    async fn rounds(mut self, site: &mut Site, arguments: &Arguments) -> Result<Report> {
        let began = Instant::now();
        let mut tally = Tally::default();
        for round in 1..=arguments.rounds {
            let began = Instant::now();
            let plan = Plan::draw(&mut self.random, self.with_machine);
            let problems = self.round(site, round, &plan, arguments.up_max).await?;
            tally += Tally::one(problems.is_empty());
            let victims: Vec<String> = plan.victims.iter().map(ToString::to_string).collect();
            let told = if problems.is_empty() { "ok" } else { "FAILED" };
            say(format_args!(
                "{told:<7} round {round:>4}: {} after {} ms, {} ms in all",
                victims.join(", "),
                plan.after.as_millis(),
                began.elapsed().as_millis()
            ));
            tell(&problems);
        }
        let problems = self.verify(site, arguments.rounds, Look::Everything).await?;
        tally += Tally::one(problems.is_empty());
        say(if problems.is_empty() {
            "ok      everything once more"
        } else {
            "FAILED  everything once more"
        });
        tell(&problems);
        Ok(Report {
            seed: self.seed,
            rounds: arguments.rounds,
            passed: tally.passed,
            failed: tally.failed,
            kills: self.kills,
            writers: self.writers.iter().map(|writer| (writer.name().to_owned(), writer.counts())).collect(),
            up: Spread::of(&self.ups),
            token: Spread::of(&self.tokens),
            audit_records: self.audit_records,
            seconds: began.elapsed().as_secs(),
        })
    }

    /// Writes, kills, starts again, looks. What is wrong, a line each.
    async fn round(&mut self, site: &mut Site, round: u64, plan: &Plan, up_max: u128) -> Result<Vec<String>> {
        let signals = Arc::new(Signals { stop: AtomicBool::new(false), struck: AtomicBool::new(false) });
        for writer in &mut self.writers {
            writer.ready(&self.world).await.with_context(|| writer.name())?;
        }
        let mut tasks = Vec::new();
        for (place, writer) in std::mem::take(&mut self.writers).into_iter().enumerate() {
            let tools = self.tools(site, round, place)?;
            let hit = plan.kills(Victim::Site)
                || (writer.needs_database()
                    && (plan.kills(Victim::Postmaster) || plan.kills(Victim::Backend)));
            tasks.push(tokio::spawn(write(writer, tools, signals.clone(), hit)));
        }
        tokio::time::sleep(plan.after).await;
        // The blow comes after this mark, so nobody is silenced by it before the mark.
        signals.struck.store(true, Ordering::SeqCst);
        let struck = plan.strike(site, &mut self.random).await?;
        if !plan.kills(Victim::Site) {
            tokio::time::sleep(Duration::from_millis(self.random.u64(AFTER_STRIKE_MILLISECONDS))).await;
        }
        signals.stop.store(true, Ordering::SeqCst);
        let mut problems = Vec::new();
        for task in tasks {
            let (writer, problem) = task.await?;
            self.writers.push(writer);
            problems.extend(problem);
        }
        for victim in struck {
            *self.kills.entry(victim).or_default() += 1;
        }
        if plan.kills(Victim::Site) {
            let took = site.up().await.context("the site does not start again")?;
            self.ups.push(took);
            if up_max > 0 && took.as_millis() > up_max {
                problems.push(format!("up again took {} ms", took.as_millis()));
            }
            self.world.refresh(site).await?;
        }
        problems.extend(self.verify(site, round, Look::Changes).await?);
        Ok(problems)
    }

    fn tools(&mut self, site: &Site, round: u64, place: usize) -> Result<Tools> {
        Ok(Tools {
            world: Arc::new(self.world.clone()),
            client: site.client()?,
            random: fastrand::Rng::with_seed(self.seed ^ (round << 8) ^ place as u64),
            round,
        })
    }

    async fn verify(&mut self, site: &Site, round: u64, look: Look) -> Result<Vec<String>> {
        let mut tasks = Vec::new();
        for (place, mut writer) in std::mem::take(&mut self.writers).into_iter().enumerate() {
            let mut tools = self.tools(site, round, place + 100)?;
            tasks.push(tokio::spawn(async move {
                let problems = writer.verify(&mut tools, look).await;
                let problems = problems.unwrap_or_else(|error| vec![format!("{error:#}")]);
                let name = writer.name();
                (writer, problems.into_iter().map(|problem| format!("{name}: {problem}")).collect::<Vec<_>>())
            }));
        }
        let token =
            async { if self.with_machine { setup::until_token(site).await.map(Some) } else { Ok(None) } };
        let audit = site.run(&["audit", "verify"]);
        let (token, audit) = tokio::join!(token, audit);
        let mut problems = Vec::new();
        for task in tasks {
            let (writer, found) = task.await?;
            self.writers.push(writer);
            problems.extend(found);
        }
        match token {
            Ok(took) => self.tokens.extend(took),
            Err(error) => problems.push(format!("{error:#}")),
        }
        let audit = audit?;
        let told = String::from_utf8_lossy(&audit.stdout).into_owned();
        // `N records, unbroken`, and whatever else it looked at.
        let records = told.split(' ').next().filter(|_| audit.status.success());
        match records.and_then(|count| count.parse().ok()) {
            Some(records) if records >= self.audit_records => self.audit_records = records,
            Some(records) => {
                problems.push(format!("there were {} audit records, and now {records}", self.audit_records));
            }
            None => problems
                .push(format!("audit verify: {told} {}", String::from_utf8_lossy(&audit.stderr).trim())),
        }
        Ok(problems)
    }
}

/// One writer's turn: until it is stopped or nobody answers. What it was refused, or a silence that nothing explains.
async fn write(
    mut writer: Box<dyn Writer>,
    mut tools: Tools,
    signals: Arc<Signals>,
    hit: bool,
) -> (Box<dyn Writer>, Option<String>) {
    while !signals.stop.load(Ordering::SeqCst) {
        let done = writer.write(&mut tools).await;
        let (what, expected) = match done {
            Ok(()) => continue,
            Err(Trouble::Silence(what)) => (what, hit && signals.struck.load(Ordering::SeqCst)),
            Err(Trouble::Refused(what)) => (what, false),
        };
        let problem = format!("{}: {what}", writer.name());
        return (writer, (!expected).then_some(problem));
    }
    (writer, None)
}

fn tell(problems: &[String]) {
    for problem in problems.iter().take(PROBLEMS_TOLD_MAX) {
        let short: String = problem.chars().take(1000).collect();
        say(format_args!("        {short}"));
    }
    if problems.len() > PROBLEMS_TOLD_MAX {
        say(format_args!("        and {} more", problems.len() - PROBLEMS_TOLD_MAX));
    }
}
