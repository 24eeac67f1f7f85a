//! `arcadia backup`

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use arcadia_crypto::{KeyRing, SystemEntropy};
use arcadia_kernel::Clock as _;
use arcadia_store::StoreReader;
use clap::Args;

use crate::host::SystemClock;
use crate::site::backup::{
    Draft, Entry, Form, MANIFEST, MANIFEST_DATA, MANIFEST_SEAL, Manifest, PARTS, ROOT_KEY, SCHEMA, STORE,
    not_included,
};
use crate::site::{
    DataDir, KeysLock, RootSource, SiteFault, SiteRecord, load_ring, open_keys, read_bounded,
};
use crate::terminal::{note, say};

/// Copy a site, running or stopped, as of one moment into a new directory
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  arcadia backup /srv/backups/2026-11-21\n  \
                        arcadia backup site-copy && tar -C site-copy -cf site-copy.tar .\n\n\
                        In it: every row (resources, identities, roles, secrets) and the audit log, the site's certificate \
                        authority and the first credentials, all sealed. It opens with the site's root key only, which is \
                        NOT in it: keep a copy of root.key elsewhere, or give --with-root-key.\n\n\
                        NOT in it: the bytes of blobs, the data of database servers (use pg_dump), and machines made by \
                        `arcadia machine`. The command says which of these the site has. To copy those too, stop the site \
                        and copy the whole data directory.")]
pub struct Arguments {
    /// A directory that is empty or does not exist
    directory: PathBuf,
    /// Put the root key into it: whoever has the backup then has every secret in it
    #[arg(long)]
    with_root_key: bool,
}

pub fn run(data: &DataDir, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let record = SiteRecord::expect(data)?;
    let keys = open_keys(data)?;
    if arguments.with_root_key && keys.root.source != RootSource::File {
        bail!("the root key is made of a passphrase, which opens the backup too; leave out --with-root-key");
    }
    // Until the ring is copied: no data key leaves that the rows of the copy are under.
    let reading = KeysLock::shared(data)?;
    let draft = Draft::beside(&arguments.directory)?;

    let store = StoreReader::open(data.path(), keys.ring, Arc::new(SystemEntropy))?;
    store.copy(&draft.path().join(STORE))?;
    // After the rows: a data key is in the ring before the first row is sealed under it.
    let ring = load_ring(data)?;
    let mut files = vec![Entry::of(draft.path(), STORE)?];
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
                let sealed = ring.seal(&part.additional_data(), &bytes, &SystemEntropy)?;
                draft.write(part.kept_as, &sealed, 0o600)?;
            }
        }
        files.push(Entry::of(draft.path(), part.kept_as)?);
    }
    drop(reading);
    if arguments.with_root_key {
        draft.copy(&data.root_key_file(), ROOT_KEY)?;
        files.push(Entry::of(draft.path(), ROOT_KEY)?);
    }
    let audit_records = checked_copy(ring.clone(), &draft)?;
    let manifest = Manifest {
        schema: SCHEMA,
        made_by: crate::VERSION.to_owned(),
        made_at: SystemClock.now(),
        tenant_id: record.tenant_id,
        audit_records,
        with_root_key: arguments.with_root_key,
        files,
        not_included: not_included(data),
    };
    seal(&draft, &ring, &manifest)?;
    draft.finish()?;
    tell(arguments, &manifest);
    Ok(ExitCode::SUCCESS)
}

/// A copy that does not open is found out now and not when it is needed. How many audit records it has.
fn checked_copy(ring: KeyRing, draft: &Draft) -> anyhow::Result<u64> {
    let copy = StoreReader::open(draft.path(), ring, Arc::new(SystemEntropy))
        .context("the copy cannot be read")?;
    copy.check_pages()?;
    copy.check_rows()?;
    let check = copy.audit_verify()?;
    if let Some(first) = check.first_broken {
        bail!(
            "the audit log is broken: record {first} is missing or is not what was written. A backup of it would \
             not tell when that happened; keep the data directory as it is"
        );
    }
    Ok(check.records)
}

fn seal(draft: &Draft, ring: &KeyRing, manifest: &Manifest) -> anyhow::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(manifest)?;
    bytes.push(b'\n');
    draft.write(MANIFEST_SEAL, &ring.seal(MANIFEST_DATA, &bytes, &SystemEntropy)?, 0o600)?;
    Ok(draft.write(MANIFEST, &bytes, 0o600)?)
}

fn tell(arguments: &Arguments, manifest: &Manifest) {
    say(format!(
        "{}: tenant {}, {} audit records, {} bytes",
        arguments.directory.display(),
        manifest.tenant_id,
        manifest.audit_records,
        manifest.files.iter().map(|file| file.bytes).sum::<u64>()
    ));
    if manifest.with_root_key {
        note("the root key is in it: keep it as secret as everything that the site holds");
    } else {
        note("the root key is not in it: keep a copy of root.key elsewhere, or nobody can restore it");
    }
    for what in &manifest.not_included {
        note(format!("not in it: {what}"));
    }
}
