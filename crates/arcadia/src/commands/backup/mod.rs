//! `arcadia backup`

mod parts;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use arcadia_crypto::{KeyRing, SystemEntropy};
use arcadia_kernel::Clock as _;
use arcadia_storage::BytePin;
use arcadia_store::StoreReader;
use clap::Args;

use crate::host::SystemClock;
use crate::site::backup::{
    Draft, Entry, Form, MANIFEST, MANIFEST_DATA, MANIFEST_SEAL, Manifest, PARTS, ROOT_KEY, SCHEMA, STORE,
    additional_data, is_inside,
};
use crate::site::{
    DataDir, KeysLock, RingFile, RootSource, SiteFault, SiteKeys, SiteRecord, open_keys, read_bounded,
};
use crate::terminal::{note, say};
use parts::Copier;

/// One of [`PARTS`].
const RING: &str = "ring.json";

/// Copy a site, running or stopped, as of one moment into a new directory
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  arcadia backup /srv/backups/2026-11-21\n  \
                        arcadia backup site-copy && tar -C site-copy -cf site-copy.tar .\n\n\
                        In it, all sealed: every row (resources, identities, roles, secrets) and the audit log, the bytes of \
                        blobs, the data of database servers, machines made by `arcadia machine`, the site's certificate \
                        authority and the first credentials. The site goes on meanwhile; rows and blobs are as of the moment \
                        when it began, each database server as of a moment before it ended.\n\n\
                        It opens with the site's root key only, or its passphrase, which is NOT in it: keep a copy of root.key \
                        elsewhere, or give --with-root-key. Not in it either: logs. What cannot be copied of database servers and \
                        machines is left out and named, and the command exits with 1 once it has everything else.")]
pub struct Arguments {
    /// A directory that is empty or does not exist
    directory: PathBuf,
    /// Put the root key into it: whoever has the backup then has every secret in it
    #[arg(long)]
    with_root_key: bool,
}

pub fn run(data: &DataDir, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let record = SiteRecord::expect(data)?;
    let to = &arguments.directory;
    if is_inside(to, data.path()).map_err(SiteFault::file(to))? {
        bail!("{} is in the data directory itself; name a directory elsewhere", to.display());
    }
    let keys = open_keys(data)?;
    if arguments.with_root_key && keys.root.source != RootSource::File {
        bail!("the root key is made of a passphrase, which opens the backup too; leave out --with-root-key");
    }
    let draft = Draft::of(&arguments.directory)?;
    draft.remove_at_signals()?;

    // Before the rows: what they name stays until it is copied.
    let pin = BytePin::take(&data.blobs_folder()).map_err(SiteFault::file(&data.blobs_folder()))?;
    // Until the ring and its root key are copied: no data key leaves that the rows of the copy are under.
    let reading = KeysLock::shared(data)?;
    StoreReader::open(data.path(), keys.ring, Arc::new(SystemEntropy))?.copy(&draft.path().join(STORE))?;
    // After the rows: a data key is in the ring before the first row is sealed under it.
    let SiteKeys { ring, root, .. } = open_keys(data)?;
    let mut files = vec![Entry::of(draft.path(), STORE)?];
    copy_small_files(data, &draft, &ring, &mut files)?;
    if arguments.with_root_key {
        draft.copy(&data.root_key_file(), ROOT_KEY)?;
        files.push(Entry::of(draft.path(), ROOT_KEY)?);
    }
    drop(reading);
    let (rows, audit_records) = checked_copy(&record, ring.clone(), &draft)?;
    let copier = Copier { data, draft: &draft, ring: &ring, rows: &rows };
    // First: the bytes of blobs stay as long as it takes, and a server may be deleted.
    let (database_servers, mut left_out) = copier.servers()?;
    let blobs = copier.blobs()?;
    drop(pin);
    let machines = copier.machines(&mut left_out)?;
    drop(rows);
    for archive in database_servers.iter().chain(&machines) {
        files.push(Entry::of(draft.path(), &archive.kept_as())?);
    }
    let manifest = Manifest {
        schema: SCHEMA,
        made_by: crate::VERSION.to_owned(),
        made_at: SystemClock.now(),
        tenant_id: record.tenant_id,
        audit_records,
        with_root_key: arguments.with_root_key,
        files,
        blobs,
        database_servers,
        machines,
        not_included: left_out.what,
    };
    finish(data, draft, &ring, &manifest)?;
    tell(arguments, &manifest, &root.source);
    if left_out.is_missed {
        note("the backup has everything else; put right what is named above and make another one");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Gives the copy its seal and its name.
fn finish(data: &DataDir, draft: Draft, ring: &KeyRing, manifest: &Manifest) -> anyhow::Result<()> {
    // Until it has its name: whoever keeps the root key of now can restore it.
    let _reading = KeysLock::shared(data)?;
    check_root(&draft.path().join(RING), &data.ring_file())?;
    seal(&draft, ring, manifest)?;
    Ok(draft.finish()?)
}

/// Refuses a copy of the ring that only a root key opens which the site no longer has.
fn check_root(copied: &Path, present: &Path) -> anyhow::Result<()> {
    let roots = |path: &Path| {
        let ring = RingFile::load(path)?.ok_or_else(|| SiteFault::KeyMissing(path.to_owned()))?;
        Ok::<_, SiteFault>(ring.roots)
    };
    let present = roots(present)?;
    if roots(copied)?.iter().any(|root| present.iter().any(|other| other.id == root.id)) {
        return Ok(());
    }
    bail!(
        "the root key was replaced meanwhile, and the copy opens with the old one only: nothing is kept of it; make another \
         backup"
    );
}

fn copy_small_files(
    data: &DataDir,
    draft: &Draft,
    ring: &KeyRing,
    files: &mut Vec<Entry>,
) -> anyhow::Result<()> {
    for part in &PARTS {
        let path = data.path().join(part.name);
        let Some(bytes) = read_bounded(&path)?.map(arcadia_crypto::Zeroizing::new) else {
            if part.optional {
                continue;
            }
            return Err(SiteFault::KeyMissing(path).into());
        };
        match part.form {
            Form::Plain => draft.write(part.kept_as, &bytes, 0o600)?,
            Form::Sealed => {
                let sealed = ring.seal(&additional_data(part.name), &bytes, &SystemEntropy)?;
                draft.write(part.kept_as, &sealed, 0o600)?;
            }
        }
        files.push(Entry::of(draft.path(), part.kept_as)?);
    }
    Ok(())
}

/// A copy that does not open is found out now and not when it is needed. Its rows, and how many audit records it has.
fn checked_copy(site: &SiteRecord, ring: KeyRing, draft: &Draft) -> anyhow::Result<(StoreReader, u64)> {
    let copy =
        StoreReader::open(draft.path(), ring, Arc::new(SystemEntropy)).context("the copy cannot be read")?;
    copy.check_pages()?;
    copy.check_rows()?;
    let check = site.verify_log(&copy)?;
    if let Some(first) = check.first_broken {
        bail!(
            "the audit log is broken: record {first} is missing or is not what was written. A backup of it would \
             not tell when that happened; keep the data directory as it is"
        );
    }
    Ok((copy, check.records))
}

fn seal(draft: &Draft, ring: &KeyRing, manifest: &Manifest) -> anyhow::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(manifest)?;
    bytes.push(b'\n');
    draft.write(MANIFEST_SEAL, &ring.seal(MANIFEST_DATA, &bytes, &SystemEntropy)?, 0o600)?;
    Ok(draft.write(MANIFEST, &bytes, 0o600)?)
}

fn tell(arguments: &Arguments, manifest: &Manifest, root: &RootSource) {
    say(format!(
        "{}: tenant {}, {}, {} bytes",
        arguments.directory.display(),
        manifest.tenant_id,
        manifest.contents(),
        manifest.blobs.bytes + manifest.files.iter().map(|file| file.bytes).sum::<u64>()
    ));
    note(match root {
        RootSource::Passphrase(_) => {
            "it opens with the passphrase that the site has now, which is not in it: without it nobody can restore it"
        }
        RootSource::File if manifest.with_root_key => {
            "the root key is in it: keep it as secret as everything that the site holds"
        }
        RootSource::File => {
            "the root key is not in it: keep a copy of root.key elsewhere, or nobody can restore it"
        }
    });
    for what in &manifest.not_included {
        note(format!("not in it: {what}"));
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tempfile::TempDir;

    use super::*;
    use crate::site::{RootChange, open_or_create_keys};

    #[test]
    fn a_copy_that_only_a_former_root_key_opens_is_refused() {
        let (folder, copies) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let data = DataDir::at(folder.path().to_owned()).unlocked_by(None);
        let now = Timestamp::UNIX_EPOCH;
        let keys = open_or_create_keys(&data, &SystemEntropy, now).unwrap();
        let ring = keys.ring.clone();
        let manifest = Manifest::of_nothing(SCHEMA);
        let begun = |name: &str| {
            let draft = Draft::of(&copies.path().join(name)).unwrap();
            draft.copy(&data.ring_file(), RING).unwrap();
            draft
        };
        let (before, meanwhile) = (begun("before"), begun("meanwhile"));
        finish(&data, before, &ring, &manifest).unwrap();
        let new = RootChange::new_file_root(&SystemEntropy, now);
        RootChange { data: &data, keys, new, running: false, now, entropy: &SystemEntropy }.run().unwrap();
        let refused = finish(&data, meanwhile, &ring, &manifest).unwrap_err();
        assert!(refused.to_string().contains("make another backup"), "{refused}");
        finish(&data, begun("after"), &ring, &manifest).unwrap();
        let is_made = ["before", "meanwhile", "after"].map(|name| copies.path().join(name).exists());
        assert_eq!(is_made, [true, false, true]);
    }
}
