//! `arcadia restore`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use arcadia_crypto::{KeyRing, SystemEntropy, Zeroizing};
use arcadia_store::StoreReader;
use clap::Args;

use crate::site::backup::{
    Draft, Entry, Form, MANIFEST, MANIFEST_DATA, MANIFEST_SEAL, Manifest, PARTS, ROOT_KEY, SCHEMA, STORE,
};
use crate::site::{DataDir, KeyPlace, RootSource, SiteFault, SiteKeys, read_bounded};
use crate::terminal::{note, say};

/// Make a site of a backup, in an empty data directory
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  arcadia restore /srv/backups/2026-11-21 --root-key /media/key/root.key --data /srv/again\n  \
                        arcadia restore site-copy --data /srv/again && arcadia up --data /srv/again\n\n\
                        The data directory (--data) must be empty or not exist. Every file is checked first; a backup that was \
                        changed, or a root key that is not its own, is refused and nothing is made. What no backup holds, the \
                        bytes of blobs, the data of database servers and machines, is not there afterwards.\n\n\
                        Do not run a site and its copy at the same time: both answer with the same keys and names."
)]
pub struct Arguments {
    /// What `arcadia backup` made
    backup: PathBuf,
    /// The root key of the site that the backup is of [default: the one in the backup]
    #[arg(long, value_name = "FILE")]
    root_key: Option<PathBuf>,
}

pub fn run(data: &DataDir, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let from = arguments.backup.as_path();
    let (manifest, bytes) = manifest(from)?;
    let draft = Draft::beside(data.path())?;
    let keys = keys(from, arguments.root_key.as_deref(), data)?;
    let ring = keys.ring;
    check_seal(from, &ring, &bytes)?;
    for file in &manifest.files {
        check_file(from, file)?;
    }

    draft.copy(&from.join(STORE), STORE)?;
    if Entry::of(draft.path(), STORE)? != entry(&manifest, STORE)? {
        bail!("{} changed while it was read; try again", from.join(STORE).display());
    }
    if keys.root.source == RootSource::File {
        draft.write(ROOT_KEY, keys.root.key.to_bytes().as_slice(), 0o600)?;
    }
    for part in &PARTS {
        let path = from.join(part.kept_as);
        if part.optional && entry(&manifest, part.kept_as).is_err() {
            continue;
        }
        let kept = read_bounded(&path)?.with_context(|| format!("{} is missing", path.display()))?;
        let opened = match part.form {
            Form::Plain => Zeroizing::new(kept),
            Form::Sealed => ring
                .open(&part.additional_data(), &kept)
                .with_context(|| format!("{} does not open", path.display()))?,
        };
        draft.write(part.name, &opened, part.mode)?;
    }
    check_store(&draft, ring, &manifest)?;
    draft.finish()?;

    say(format!(
        "{}: tenant {} as of {}, {} audit records",
        data.path().display(),
        manifest.tenant_id,
        manifest.made_at,
        manifest.audit_records
    ));
    for what in &manifest.not_included {
        note(format!("not in the backup, and so not there now: {what}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn manifest(from: &Path) -> anyhow::Result<(Manifest, Vec<u8>)> {
    let path = from.join(MANIFEST);
    let bytes = read_bounded(&path)?
        .with_context(|| format!("{} is not a backup: it has no {MANIFEST}", from.display()))?;
    let manifest: Manifest = serde_json::from_slice(&bytes)
        .with_context(|| format!("{} cannot be read; the backup is damaged", path.display()))?;
    if manifest.schema > SCHEMA {
        bail!("the backup was made by a newer Arcadia ({}); use that version", manifest.made_by);
    }
    Ok((manifest, bytes))
}

/// The keys that the backup is sealed under: by the root key given, the one in it, or the passphrase of its site.
fn keys(from: &Path, given: Option<&Path>, data: &DataDir) -> anyhow::Result<SiteKeys> {
    let root_file = given.map_or_else(|| from.join(ROOT_KEY), Path::to_owned);
    let place = KeyPlace { ring_file: from.join("ring.json"), root_file, passphrase: data.passphrase() };
    place.open().map_err(|fault| match fault {
        SiteFault::KeyMissing(path) if path == place.ring_file => {
            anyhow::anyhow!("{} is missing; the backup is damaged", path.display())
        }
        SiteFault::KeyMissing(path) if given.is_some() => {
            anyhow::anyhow!("{} does not exist", path.display())
        }
        SiteFault::KeyMissing(_) => anyhow::anyhow!(
            "the backup has no root key in it; give the one of its site with --root-key FILE (root.key of its data \
             directory)"
        ),
        SiteFault::WrongRootKey(_) => anyhow::anyhow!(
            "this is not the root key of the site that the backup is of, or ring.json was changed; give the right \
             one with --root-key FILE"
        ),
        SiteFault::WrongPassphrase => anyhow::anyhow!(
            "this is not the passphrase that the site had when the backup was made, or ring.json was changed"
        ),
        other => other.into(),
    })
}

fn check_seal(from: &Path, ring: &KeyRing, manifest: &[u8]) -> anyhow::Result<()> {
    let path = from.join(MANIFEST_SEAL);
    let sealed = read_bounded(&path)?
        .with_context(|| format!("{} is missing; the backup is damaged", path.display()))?;
    let opened = ring.open(MANIFEST_DATA, &sealed);
    if opened.is_ok_and(|opened| opened.as_slice() == manifest) {
        return Ok(());
    }
    bail!("{MANIFEST} is not what was written when the backup was made; use another backup")
}

/// Names come from a manifest that was proven to be the site's own; still, only known ones are followed.
fn check_file(from: &Path, file: &Entry) -> anyhow::Result<()> {
    let known =
        [STORE, ROOT_KEY].contains(&file.name.as_str()) || PARTS.iter().any(|part| part.kept_as == file.name);
    if !known {
        bail!("the backup has a file {:?} that this version does not know; use a newer one", file.name);
    }
    // A root key that was given makes the one in the backup unimportant, and it may have been taken out.
    if file.name == ROOT_KEY {
        return Ok(());
    }
    if Entry::of(from, &file.name)? != *file {
        bail!("{} is not what was written when the backup was made; use another backup", file.name);
    }
    Ok(())
}

fn entry(manifest: &Manifest, name: &str) -> anyhow::Result<Entry> {
    let found = manifest.files.iter().find(|file| file.name == name);
    found.cloned().with_context(|| format!("the backup has no {name}"))
}

fn check_store(draft: &Draft, ring: KeyRing, manifest: &Manifest) -> anyhow::Result<()> {
    let store = StoreReader::open(draft.path(), ring, Arc::new(SystemEntropy))?;
    store.check_pages()?;
    store.check_rows()?;
    let check = store.audit_verify()?;
    if check.first_broken.is_some() || check.records != manifest.audit_records {
        bail!("the audit log in the backup is not whole; use another backup");
    }
    Ok(())
}
