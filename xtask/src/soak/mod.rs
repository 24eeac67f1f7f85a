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
        planned: BTreeMap::new(),
        kills: BTreeMap::new(),
        recorded: Recorded::default(),
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
    planned: BTreeMap<Victim, u64>,
    kills: BTreeMap<Victim, u64>,
    recorded: Recorded,
}

/// What the audit log had when it was last looked at.
#[derive(Clone, Copy, Default)]
struct Recorded {
    records: u64,
    /// Changes that writers were told of by then, each of which has a record.
    acknowledged: u64,
}

impl Recorded {
    /// `now` comes after `self`. What does not fit.
    fn missing(self, now: Self) -> Option<String> {
        let (grown, made) = (now.records.checked_sub(self.records), now.acknowledged - self.acknowledged);
        grown.is_none_or(|grown| grown < made).then(|| {
            let Self { records, .. } = self;
            format!(
                "there were {records} audit records, then {made} changes, and now {} records",
                now.records
            )
        })
    }
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
            for victim in &plan.victims {
                *self.planned.entry(*victim).or_default() += 1;
            }
            let problems = self.round(site, round, &plan, arguments.up_max).await?;
            let victims: Vec<String> = plan.victims.iter().map(ToString::to_string).collect();
            let what = format!(
                "round {round:>4}: {} after {} ms, {} ms in all",
                victims.join(", "),
                plan.after.as_millis(),
                began.elapsed().as_millis()
            );
            tally += told(&what, &problems);
        }
        let problems = self.verify(site, arguments.rounds, Look::Everything).await?;
        tally += told("everything once more", &problems);
        let mut report = Report {
            seed: self.seed,
            rounds: arguments.rounds,
            passed: 0,
            failed: 0,
            planned: self.planned,
            kills: self.kills,
            writers: self.writers.iter().map(|writer| (writer.name().to_owned(), writer.counts())).collect(),
            up: Spread::of(&self.ups),
            token: Spread::of(&self.tokens),
            audit_records: self.recorded.records,
            seconds: began.elapsed().as_secs(),
        };
        tally += told("kills hit, and writers wrote", &report.undone());
        (report.passed, report.failed) = (tally.passed, tally.failed);
        Ok(report)
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
        // Before writers look, as some of them change things again then, beside the walk over the log.
        let recorded = self.writers.iter().filter(|writer| writer.is_recorded());
        let acknowledged = recorded.map(|writer| writer.counts().acknowledged).sum();
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
            Some(records) => {
                let now = Recorded { records, acknowledged };
                problems.extend(self.recorded.missing(now));
                self.recorded = now;
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

/// Says how one check went.
fn told(what: &str, problems: &[String]) -> Tally {
    let passed = problems.is_empty();
    say(format_args!("{:<7} {what}", if passed { "ok" } else { "FAILED" }));
    for problem in problems.iter().take(PROBLEMS_TOLD_MAX) {
        let short: String = problem.chars().take(1000).collect();
        say(format_args!("        {short}"));
    }
    if problems.len() > PROBLEMS_TOLD_MAX {
        say(format_args!("        and {} more", problems.len() - PROBLEMS_TOLD_MAX));
    }
    Tally::one(passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_has_a_record() {
        let before = Recorded { records: 10, acknowledged: 4 };
        let missing = |records, acknowledged| before.missing(Recorded { records, acknowledged });
        assert_eq!(missing(13, 7), None);
        assert_eq!(missing(10, 4), None);
        assert!(missing(12, 7).unwrap().contains("10 audit records, then 3 changes, and now 12"));
        assert!(missing(9, 4).is_some());
    }
}
