//! `arcadia keys`

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use arcadia_crypto::SystemEntropy;
use arcadia_kernel::Clock as _;
use arcadia_store::{KeyCount, StoreReader};
use clap::{ArgGroup, Subcommand};
use serde_json::json;

use crate::host::SystemClock;
use crate::site::{
    DataDir, KeysLock, PassphraseSource, RingFile, RootChange, RootSource, SiteFault, SiteRecord, holder,
    new_root_of_passphrase, open_keys, save_ring, settle,
};
use crate::terminal::{BOLD, DIM, RESET, note, say};

/// How long a running site is waited for until it has taken over what was changed.
const PATIENCE: Duration = Duration::from_secs(60);
const GLANCE: Duration = Duration::from_millis(50);

/// The keys that everything is sealed under: show them, replace them
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  arcadia keys show\n  arcadia keys rotate --wait")]
pub enum Command {
    /// Show where the root key comes from, and how much is under each data key
    #[command(after_help = "Examples:\n  arcadia keys show\n  arcadia keys show --json | jq .dataKeys\n\n\
                            Needs no root key and no passphrase. Counting reads the whole store.")]
    Show {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Replace the data key: what is written from now on is sealed under a new one
    #[command(
        after_help = "Examples:\n  arcadia keys rotate\n  arcadia keys rotate --wait && arcadia keys show\n\n\
                            The site may run, and goes on: it takes up the new key within a second, seals what is there \
                            again, a little at a time, and removes the old key when nothing is under it any more. A site \
                            that is stopped does so when it starts. A site also replaces its data key by itself, long before \
                            it has sealed too much."
    )]
    Rotate {
        /// Wait until nothing is under an older key any more
        #[arg(long)]
        wait: bool,
    },
    /// Replace the root key, by one in a file or one made of a passphrase
    #[command(
        group(ArgGroup::new("source").required(true)),
        after_help = "Examples:\n  arcadia keys root --file\n  arcadia keys root --passphrase\n  \
                      arcadia keys root --passphrase --new-passphrase-file /run/credentials/new\n\n\
                      --file also goes from a passphrase back to a file, --passphrase from one passphrase to \
                      another; the present one is asked for, or read from --passphrase-file. The site may run, \
                      and goes on. The old root key opens the data directory no more. It does open backups and \
                      copies that were made before; and whoever had it together with the data directory may \
                      have the data keys: replace these as well, with `arcadia keys rotate`."
    )]
    Root {
        /// A new random key in root.key, readable by the owner only
        #[arg(long, group = "source")]
        file: bool,
        /// A key made of a passphrase (argon2id); nothing on the disk opens the site then
        #[arg(long, group = "source")]
        passphrase: bool,
        /// Read the new passphrase from here instead of asking for it
        #[arg(long, value_name = "FILE", requires = "passphrase")]
        new_passphrase_file: Option<PathBuf>,
    },
}

pub fn run(data: &DataDir, command: &Command) -> anyhow::Result<ExitCode> {
    SiteRecord::expect(data)?;
    match command {
        Command::Show { json } => show(data, *json)?,
        Command::Rotate { wait } => rotate(data, *wait)?,
        Command::Root { file, new_passphrase_file, .. } => root(data, *file, new_passphrase_file.as_deref())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show(data: &DataDir, json: bool) -> anyhow::Result<()> {
    let file = ring_file(data)?;
    let counts = StoreReader::key_counts(data.path())?;
    if json {
        say(serde_json::to_string_pretty(&described(&file, &counts))?);
        return Ok(());
    }
    for root in &file.roots {
        let from = match &root.source {
            RootSource::File => data.root_key_file().display().to_string(),
            RootSource::Passphrase(costs) => {
                format!("a passphrase (argon2id, {} MiB, {} passes)", costs.memory_kib / 1024, costs.passes)
            }
        };
        let since = root.made_at.map(|at| format!(" {DIM}since {at:.0}{RESET}")).unwrap_or_default();
        say(format!("{BOLD}root key{RESET}  from {from}{since}"));
    }
    say(format!("{BOLD}{:>8}  {:<22} {:>12} {:>14}{RESET}", "data key", "made", "rows", "audit records"));
    let current = file.data_keys.iter().map(|key| key.id).max();
    for key in &file.data_keys {
        let count = counts.get(&key.id).copied().unwrap_or_default();
        let made = key.made_at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"));
        let state = if Some(key.id) == current { "" } else { "  until nothing is under it" };
        say(format!("{:>8}  {made:<22} {:>12} {:>14}{DIM}{state}{RESET}", key.id, count.rows, count.records));
    }
    Ok(())
}

fn described(file: &RingFile, counts: &BTreeMap<u32, KeyCount>) -> serde_json::Value {
    let roots = file.roots.iter().map(|root| match &root.source {
        RootSource::File => json!({ "id": root.id, "source": "file", "madeAt": root.made_at }),
        RootSource::Passphrase(costs) => json!({
            "id": root.id, "source": "passphrase", "madeAt": root.made_at,
            "memoryKib": costs.memory_kib, "passes": costs.passes, "lanes": costs.lanes,
        }),
    });
    let current = file.data_keys.iter().map(|key| key.id).max();
    let keys = file.data_keys.iter().map(|key| {
        let count = counts.get(&key.id).copied().unwrap_or_default();
        json!({
            "id": key.id, "madeAt": key.made_at, "current": Some(key.id) == current,
            "rows": count.rows, "auditRecords": count.records,
        })
    });
    json!({ "rootKeys": roots.collect::<Vec<_>>(), "dataKeys": keys.collect::<Vec<_>>() })
}

fn rotate(data: &DataDir, wait: bool) -> anyhow::Result<()> {
    // Asks for the passphrase, if need be, before others are kept waiting.
    open_keys(data)?;
    let id = {
        let _alone = KeysLock::exclusive(data)?;
        let mut keys = data.key_place().open()?;
        let id = keys.ring.rotate(&SystemEntropy)?;
        save_ring_beside(data, &mut keys)?;
        id
    };
    if !is_running(data)? {
        note(format!("data key {id} is made; the site is stopped, and goes over to it when it starts"));
        return Ok(());
    }
    await_site(data, "has not gone over to the new data key", || {
        Ok(StoreReader::head_key(data.path())?.is_some_and(|used| used >= id))
    })?;
    say(format!("the site seals under data key {id}"));
    if wait {
        // As long as it takes: how long depends on how much there is.
        while ring_file(data)?.data_keys.iter().any(|key| key.id < id) {
            if !is_running(data)? {
                bail!("the site was stopped meanwhile; it goes on when it starts");
            }
            std::thread::sleep(GLANCE);
        }
        say("nothing is under an older data key any more");
    }
    Ok(())
}

/// What is handed to a running site stays.
fn save_ring_beside(data: &DataDir, keys: &mut crate::site::SiteKeys) -> anyhow::Result<()> {
    let handover = keys.file.handover.take();
    let (now, path) = (SystemClock.now(), data.ring_file());
    match handover {
        None => Ok(save_ring(data, keys, now, &SystemEntropy)?),
        Some(handover) => {
            keys.file.set(&[&keys.root], &keys.ring, now, &SystemEntropy)?;
            keys.file.handover = Some(handover);
            Ok(keys.file.save(&path)?)
        }
    }
}

fn root(data: &DataDir, to_file: bool, new_passphrase_file: Option<&std::path::Path>) -> anyhow::Result<()> {
    let now = SystemClock.now();
    open_keys(data)?;
    let new = if to_file {
        RootChange::new_file_root(&SystemEntropy, now)
    } else {
        let chosen =
            PassphraseSource::file(new_passphrase_file.map(PathBuf::from)).choose("--new-passphrase-file")?;
        new_root_of_passphrase(&chosen, &SystemEntropy, now)?
    };
    let id = new.key.id();
    let running = {
        let _alone = KeysLock::exclusive(data)?;
        let running = is_running(data)?;
        let mut keys = data.key_place().open()?;
        if running && keys.file.handover.is_some() {
            bail!("the running site has not taken over the last root key yet; try again in a moment");
        }
        settle(data, &mut keys, now, &SystemEntropy)?;
        RootChange { data, keys, new, running, now, entropy: &SystemEntropy }.run()?;
        running
    };
    if running {
        await_site(data, "has not taken over the new root key; it will when it starts again", || {
            Ok(ring_file(data)?.handover.is_none())
        })?;
    }
    if to_file {
        say(format!("root key {id} is in {}; keep a copy of it elsewhere", data.root_key_file().display()));
    } else {
        say(format!("root key {id} is made of the new passphrase; without it nothing opens"));
    }
    note("backups made before open with the old root key");
    Ok(())
}

fn ring_file(data: &DataDir) -> anyhow::Result<RingFile> {
    let path = data.ring_file();
    Ok(RingFile::load(&path)?.ok_or(SiteFault::KeyMissing(path))?)
}

fn is_running(data: &DataDir) -> anyhow::Result<bool> {
    let lock = data.lock_file();
    Ok(holder(&lock).with_context(|| lock.display().to_string())?.is_some())
}

/// Until the site has done it, or has stopped.
fn await_site(data: &DataDir, not: &str, done: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !done()? {
        if !is_running(data)? {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            bail!("the change is made, and the running site {not}; its log says why");
        }
        std::thread::sleep(GLANCE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::site::{Lock, open_or_create_keys};

    /// Where a running site was handed a root key that it has not taken over yet.
    fn handed_over() -> (TempDir, DataDir) {
        let folder = TempDir::new().unwrap();
        let data = DataDir::at(folder.path().to_owned()).unlocked_by(None);
        let now = SystemClock.now();
        let keys = open_or_create_keys(&data, &SystemEntropy, now).unwrap();
        let new = RootChange::new_file_root(&SystemEntropy, now);
        RootChange { data: &data, keys, new, running: true, now, entropy: &SystemEntropy }.run().unwrap();
        assert!(ring_file(&data).unwrap().handover.is_some());
        (folder, data)
    }

    #[test]
    fn a_new_data_key_takes_nothing_from_what_is_handed_over() {
        let (_folder, data) = handed_over();
        rotate(&data, false).unwrap();
        let file = ring_file(&data).unwrap();
        assert!(file.handover.is_some() && file.data_keys.len() == 2);
    }

    #[test]
    fn a_root_key_that_is_not_taken_over_yet_is_not_replaced_under_a_running_site() {
        let (_folder, data) = handed_over();
        let before = std::fs::read(data.ring_file()).unwrap();
        let lock = Lock::take(&data.lock_file()).unwrap();
        let told = root(&data, true, None).unwrap_err().to_string();
        assert!(told.contains("try again in a moment"), "{told}");
        assert_eq!(std::fs::read(data.ring_file()).unwrap(), before);
        drop(lock);
        root(&data, true, None).unwrap();
        assert!(
            ring_file(&data).unwrap().handover.is_none(),
            "a stopped one takes the new one when it starts"
        );
    }
}
