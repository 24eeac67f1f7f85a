//! `kill -9`: of whom, and when.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::site::Site;

/// The strike falls within this time after the writers have begun.
const STRIKE_MILLISECONDS_MAX: u64 = 1200;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Victim {
    Site,
    /// The agent's daemon; its machine starts it again.
    Agent,
    /// The process that keeps the machine.
    Machine,
    /// A database server.
    Postmaster,
    /// One session of it, which makes the server recover.
    Backend,
}

const VICTIMS: [Victim; 5] =
    [Victim::Site, Victim::Agent, Victim::Machine, Victim::Postmaster, Victim::Backend];

impl fmt::Display for Victim {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Site => "site",
            Self::Agent => "agent",
            Self::Machine => "machine",
            Self::Postmaster => "postmaster",
            Self::Backend => "backend",
        })
    }
}

/// One round's harm.
#[derive(Clone, Debug)]
pub struct Plan {
    pub after: Duration,
    pub victims: Vec<Victim>,
}

impl Plan {
    /// Two rounds in three are for the site; whoever else may go with it, before it or after it.
    pub fn draw(random: &mut fastrand::Rng, with_machine: bool) -> Self {
        let chance = |victim: Victim| match victim {
            Victim::Site => 0.66,
            Victim::Agent => 0.2,
            Victim::Machine => 0.1,
            Victim::Postmaster | Victim::Backend => 0.25,
        };
        let possible = |victim: &Victim| with_machine || !matches!(victim, Victim::Agent | Victim::Machine);
        let mut victims: Vec<Victim> =
            VICTIMS.into_iter().filter(|victim| random.f64() < chance(*victim)).filter(possible).collect();
        if victims.is_empty() {
            victims.push(Victim::Site);
        }
        random.shuffle(&mut victims);
        Self { after: Duration::from_millis(random.u64(20..STRIKE_MILLISECONDS_MAX)), victims }
    }

    pub fn kills(&self, victim: Victim) -> bool {
        self.victims.contains(&victim)
    }

    /// Kills; who of them was there to be killed.
    pub async fn strike(&self, site: &Site, random: &mut fastrand::Rng) -> Result<Vec<Victim>> {
        // Found out before the first blow, so that the blows fall together.
        let mut found = Vec::new();
        for victim in &self.victims {
            found.push((*victim, find(*victim, site, random).await?));
        }
        let mut struck = Vec::new();
        for (victim, pid) in found {
            if let Some(pid) = pid.and_then(Pid::from_raw)
                && kill_process(pid, Signal::KILL).is_ok()
            {
                struck.push(victim);
            }
        }
        Ok(struck)
    }
}

async fn find(victim: Victim, site: &Site, random: &mut fastrand::Rng) -> Result<Option<i32>> {
    Ok(match victim {
        Victim::Site => Some(site.pid),
        Victim::Machine => holder(site).await?,
        Victim::Agent => match holder(site).await? {
            Some(holder) => descendants(holder).into_iter().find(|pid| words(*pid).contains("himds")),
            None => None,
        },
        Victim::Postmaster => random.choice(postmasters(site.data())),
        Victim::Backend => {
            let all = postmasters(site.data()).into_iter().flat_map(children);
            random
                .choice(all.filter(|pid| words(*pid).starts_with("postgres: arcadmin ")).collect::<Vec<_>>())
        }
    })
}

/// The process that keeps the first machine.
async fn holder(site: &Site) -> Result<Option<i32>> {
    let machines: Value = serde_json::from_str(&site.must(&["machine", "list", "--json"]).await?)?;
    let Some(pid) = machines[0]["pid"].as_i64() else { return Ok(None) };
    Ok(Some(i32::try_from(pid).context("a process's number")?))
}

/// The servers that work below the site's directory.
fn postmasters(data: &Path) -> Vec<i32> {
    let Ok(folders) = fs::read_dir(data.join("postgres")) else { return Vec::new() };
    let locks = folders.flatten().map(|folder| folder.path());
    let running = locks.filter_map(|folder| {
        let text = fs::read_to_string(folder.join("postmaster.pid")).ok()?;
        let pid: i32 = text.lines().next()?.trim().parse().ok()?;
        // The number may be another process's by now.
        let cwd = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
        // The system tells a folder by its own name, also where links lead to it.
        (pid > 1 && cwd == folder.canonicalize().ok()?).then_some(pid)
    });
    running.collect()
}

fn descendants(pid: i32) -> Vec<i32> {
    let mut all = children(pid);
    let mut next = 0;
    while let Some(pid) = all.get(next).copied() {
        all.extend(children(pid));
        next += 1;
    }
    all
}

fn children(parent: i32) -> Vec<i32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// From `/proc/PID/stat`: `PID (NAME) STATE PARENT ...`, where the name may hold anything.
fn parent_of(pid: i32) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn words(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_harm_again() {
        let draw = |with_machine: bool| {
            let mut random = fastrand::Rng::with_seed(11);
            (0..100).map(|_| Plan::draw(&mut random, with_machine)).collect::<Vec<_>>()
        };
        let (first, again) = (draw(true), draw(true));
        assert!(first.iter().zip(&again).all(|(a, b)| a.after == b.after && a.victims == b.victims));
        for victim in VICTIMS {
            assert!(first.iter().filter(|plan| plan.kills(victim)).count() >= 5, "{victim}");
        }
        assert!(first.iter().all(|plan| !plan.victims.is_empty()));
        let without = draw(false);
        assert!(!without.iter().any(|plan| plan.kills(Victim::Agent) || plan.kills(Victim::Machine)));
    }

    #[test]
    fn this_process_has_a_parent_and_words() {
        let own = i32::try_from(std::process::id()).unwrap();
        let parent = parent_of(own).unwrap();
        assert!(children(parent).contains(&own));
        assert!(!words(own).is_empty());
    }
}
