//! `arcadia restore`

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use arcadia_crypto::{KeyRing, SystemEntropy, Wiped};
use arcadia_storage::copy_bytes;
use arcadia_store::StoreReader;
use clap::Args;
use tar::EntryType;

use crate::host::is_root;
use crate::machine;
use crate::site::backup::{
    Archived, BLOBS, Blobs, Draft, Entry, Form, MACHINES, MANIFEST, MANIFEST_DATA, MANIFEST_SEAL, Manifest,
    PARTS, ROOT_KEY, SCHEMA, SERVERS, STORE, additional_data,
};
use crate::site::{ArchiveReader, DataDir, KeyPlace, RootSource, SiteFault, SiteKeys, read_bounded};
use crate::terminal::{note, progress, say};
use crate::wiring::databases;

/// The first form of a backup that holds the bytes of blobs.
const FIRST_WITH_BLOBS: u32 = 2;
/// What a database server's directory is made of. A link would lead out of it, to what is then given away.
const SERVER_ENTRIES: [EntryType; 2] = [EntryType::Directory, EntryType::Regular];
const MACHINE_ENTRIES: [EntryType; 3] = [EntryType::Directory, EntryType::Regular, EntryType::Symlink];

/// Make a site of a backup, in an empty data directory
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  arcadia restore /srv/backups/2026-11-21 \\\n    \
                        --root-key /media/key/root.key --data /srv/again\n  \
                        arcadia restore site-copy --data /srv/again && arcadia up --data /srv/again\n\n\
                        The data directory (--data) must be empty or not exist. Every file is checked first; a backup that was \
                        changed, or a root key that is not its own, is refused and nothing is made. Every blob is opened on the \
                        way. As root, database servers get back the user that they run as, and need the version of \
                        PostgreSQL that they had. A machine that cannot be unpacked is left out and named, and the command \
                        exits with 1.\n\n\
                        Do not run a site and its copy at the same time: both answer with the same keys and names.")]
pub struct Arguments {
    /// What `arcadia backup` made
    backup: PathBuf,
    /// The root key of the site that the backup is of [default: the one in the backup]
    #[arg(long, value_name = "FILE")]
    root_key: Option<PathBuf>,
}

pub fn run(data: &DataDir, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let from = arguments.backup.as_path();
    let (mut manifest, bytes) = manifest(from)?;
    data.check_path()?;
    let draft = Draft::of(data.path())?;
    draft.remove_at_signals()?;
    let keys = keys(from, arguments.root_key.as_deref(), data)?;
    let ring = keys.ring;
    check_seal(from, &ring, &bytes)?;
    for file in &manifest.files {
        check_file(from, &manifest, file)?;
    }

    draft.copy(&from.join(STORE), STORE)?;
    if Entry::of(draft.path(), STORE)? != entry(&manifest, STORE)? {
        bail!("{} changed while it was read; try again", from.join(STORE).display());
    }
    if keys.root.source == RootSource::File {
        draft.write(ROOT_KEY, keys.root.key.to_bytes().as_slice(), 0o600)?;
    }
    put_servers(from, &draft, &ring, &manifest.database_servers)?;
    let left_out = put_machines(from, &draft, &ring, &mut manifest.machines)?;
    put_small_files(from, &draft, &ring, &manifest)?;
    let rows = checked_rows(&draft, ring, &manifest)?;
    put_blobs(from, &draft, &rows, &manifest)?;
    drop(rows);
    draft.finish()?;

    say(format!(
        "{}: tenant {} as of {}, {}",
        data.path().display(),
        manifest.tenant_id,
        manifest.made_at,
        manifest.contents()
    ));
    for what in &manifest.not_included {
        note(format!("not in the backup, and so not there now: {what}"));
    }
    for what in &left_out {
        note(format!("not there now: {what}"));
    }
    Ok(if left_out.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn put_small_files(from: &Path, draft: &Draft, ring: &KeyRing, manifest: &Manifest) -> anyhow::Result<()> {
    for part in &PARTS {
        let path = from.join(part.kept_as);
        let listed = match entry(manifest, part.kept_as) {
            Err(_) if part.optional => continue,
            listed => listed?,
        };
        let kept = read_bounded(&path)?.with_context(|| format!("{} is missing", path.display()))?;
        // Every file was checked, and this one is read once more since.
        if !listed.is_of(&kept) {
            bail!("{} changed while it was read; try again", path.display());
        }
        let opened = match part.form {
            Form::Plain => Wiped::from(kept),
            Form::Sealed => ring
                .open(&additional_data(part.name), &kept)
                .with_context(|| format!("{} does not open", path.display()))?,
        };
        draft.write(part.name, &opened, part.mode)?;
    }
    Ok(())
}

/// Every piece is opened with the key in its row: what is changed or missing is found here.
fn put_blobs(from: &Path, draft: &Draft, rows: &StoreReader, manifest: &Manifest) -> anyhow::Result<()> {
    let to = draft.folder(BLOBS)?;
    if manifest.schema < FIRST_WITH_BLOBS {
        // With this a site starts without the bytes that its rows lead to.
        draft.folder(&format!("{BLOBS}/segments"))?;
        return Ok(());
    }
    let shown = progress("blobs");
    let copied = copy_bytes(rows, &from.join(BLOBS), &to, &mut |bytes| shown.inc(bytes))
        .context("the backup is not whole; use another one")?;
    if Blobs::from(copied) != manifest.blobs {
        bail!("the backup has other blobs than were put into it; use another one");
    }
    Ok(())
}

fn put_servers(from: &Path, draft: &Draft, ring: &KeyRing, servers: &[Archived]) -> anyhow::Result<()> {
    let account = databases::place(&DataDir::ours(draft.path().to_owned())?).account;
    if !servers.is_empty() {
        draft.folder(SERVERS)?;
    }
    for archive in servers {
        let folder = draft.folder(archive.folder())?;
        unpack(from, archive, &SERVER_ENTRIES, ring, &folder)
            .with_context(|| format!("{} does not open", from.join(archive.kept_as()).display()))?;
        arcadia_postgres::give(&folder, account)?;
    }
    Ok(())
}

/// Those that cannot be unpacked are taken out of `machines` and returned in words: what a machine's users put into it
/// must not cost everything else.
fn put_machines(
    from: &Path,
    draft: &Draft,
    ring: &KeyRing,
    machines: &mut Vec<Archived>,
) -> anyhow::Result<Vec<String>> {
    if !machines.is_empty() {
        draft.folder(MACHINES)?;
    }
    let (mut put, mut left_out) = (Vec::new(), Vec::new());
    for archive in machines.drain(..) {
        let folder = draft.folder(archive.folder())?;
        let Err(error) = unpack(from, &archive, &MACHINE_ENTRIES, ring, &folder) else {
            put.push(archive);
            continue;
        };
        machine::remove_tree(&folder).with_context(|| folder.display().to_string())?;
        // The cause alone: what is around it has names in it that the machine's users have chosen.
        let (file, cause) = (from.join(archive.kept_as()), error.root_cause().to_string());
        left_out.push(format!(
            "machine {}, as {} cannot be unpacked: {}",
            archive.name(),
            file.display(),
            cause.escape_debug()
        ));
    }
    *machines = put;
    Ok(left_out)
}

/// With the owners that the files had, where that is possible. What is none of `kinds` is refused.
fn unpack(
    from: &Path,
    archive: &Archived,
    kinds: &[EntryType],
    ring: &KeyRing,
    folder: &Path,
) -> anyhow::Result<()> {
    let sealed = ArchiveReader::open(from, &archive.kept_as(), ring)?;
    let shown = progress(archive.name());
    let mut tree = tar::Archive::new(shown.wrap_read(sealed));
    tree.set_preserve_permissions(true);
    tree.set_preserve_ownerships(is_root());
    tree.set_overwrite(false);
    put_entries(&mut tree, kinds, folder)?;
    // Its end is what shows that it is whole.
    std::io::copy(&mut tree.into_inner(), &mut std::io::sink())?;
    Ok(())
}

fn put_entries<R: Read>(
    tree: &mut tar::Archive<R>,
    kinds: &[EntryType],
    folder: &Path,
) -> anyhow::Result<()> {
    let mut folders = Vec::new();
    for entry in tree.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if !kinds.contains(&kind) {
            bail!("{:?} in it is a {kind:?}, which no backup has there; use another backup", entry.path()?);
        }
        if kind.is_dir() {
            folders.push(entry);
        } else {
            put(&mut entry, folder)?;
        }
    }
    // Last, and from the bottom up: nothing can be put into one that its own permissions close.
    folders.sort_by(|a, b| b.path_bytes().cmp(&a.path_bytes()));
    folders.iter_mut().try_for_each(|entry| put(entry, folder))
}

fn put<R: Read>(entry: &mut tar::Entry<'_, R>, folder: &Path) -> anyhow::Result<()> {
    if !entry.unpack_in(folder)? {
        bail!("{:?} in it leads out of its folder; use another backup", entry.path()?);
    }
    Ok(())
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
    if let Err(wrong) = manifest.check_archives() {
        bail!("{}: {wrong}; the backup is damaged", path.display());
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
fn check_file(from: &Path, manifest: &Manifest, file: &Entry) -> anyhow::Result<()> {
    let known = [STORE, ROOT_KEY].contains(&file.name.as_str())
        || PARTS.iter().any(|part| part.kept_as == file.name)
        || manifest.archives().any(|archive| archive.kept_as() == file.name);
    if !known {
        bail!("the backup has a file {:?} that this version does not know; use a newer one", file.name);
    }
    // A root key that was given makes the one in the backup unimportant, and it may have been taken out.
    if file.name == ROOT_KEY {
        return Ok(());
    }
    let path = from.join(&file.name);
    if !path.try_exists().with_context(|| path.display().to_string())? {
        bail!("{} is missing: the backup is not whole; use another one", path.display());
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

fn checked_rows(draft: &Draft, ring: KeyRing, manifest: &Manifest) -> anyhow::Result<StoreReader> {
    let store = StoreReader::open(draft.path(), ring, Arc::new(SystemEntropy))?;
    store.check_pages()?;
    store.check_rows().context("the rows in the backup are not whole; use another backup")?;
    let check = store.audit_verify()?;
    if check.first_broken.is_some() || check.records != manifest.audit_records {
        bail!("the audit log in the backup is not whole; use another backup");
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use arcadia_store::Store;
    use serde_json::json;

    use super::*;
    use crate::host::SystemClock;
    use crate::site::ArchiveWriter;

    #[test]
    fn an_archive_has_a_folder_of_its_own_where_its_kind_is_and_a_file() {
        let folder = tempfile::TempDir::new().unwrap();
        let mut written = serde_json::to_value(Manifest::of_nothing(SCHEMA)).unwrap();
        let kept = ["postgres/1", "machines/m1", "machines/m2", "machines/.."];
        let file = |folder: &&str| json!({ "name": format!("{folder}.sealed"), "bytes": 0, "digest": "" });
        written["files"] = kept.iter().map(file).collect();
        let mut read = |servers: &[&str], machines: &[&str]| {
            let archived = |folder: &&str| json!({ "name": "a", "folder": folder });
            written["databaseServers"] = servers.iter().map(archived).collect();
            written["machines"] = machines.iter().map(archived).collect();
            fs::write(folder.path().join(MANIFEST), written.to_string()).unwrap();
            manifest(folder.path()).map_err(|error| format!("{error:#}"))
        };
        read(&["postgres/1"], &["machines/m1", "machines/m2"]).unwrap();
        for (servers, machines, wrong) in [
            (&["machines/m1"][..], &[][..], "as if it were in postgres"),
            (&[], &["postgres/1"], "as if it were in machines"),
            (&[], &["machines/m1", "machines/m2", "machines/m1"], "machines/m1 is listed in it twice"),
            (&[], &["machines/m3"], "machines/m3.sealed is not among the files"),
            (&[], &["machines/../../x"], "is no folder of"),
            (&[], &["machines/.."], "is no folder of"),
            (&[], &["machines/m1/x"], "is no folder of"),
            (&[], &["machines//m1"], "is no folder of"),
            (&[], &["machines/"], "is no folder of"),
            (&[], &["machines"], "is no folder of"),
            (&[], &["blobs/m1"], "is no folder of"),
            (&[], &["/machines/m1"], "is no folder of"),
        ] {
            let told = read(servers, machines).unwrap_err();
            assert!(told.contains(wrong) && told.contains("damaged"), "{servers:?} {machines:?}: {told}");
        }
        written["machines"] = json!([{ "name": "a\u{1b}", "folder": "machines/m1" }]);
        fs::write(folder.path().join(MANIFEST), written.to_string()).unwrap();
        let told = format!("{:#}", manifest(folder.path()).unwrap_err());
        assert!(told.contains("is no name of") && !told.contains('\u{1b}'), "{told}");
    }

    #[test]
    fn a_backup_of_a_newer_version_is_left_to_that() {
        let folder = tempfile::TempDir::new().unwrap();
        for (schema, is_known) in [(SCHEMA, true), (SCHEMA + 1, false)] {
            let written = Manifest { made_by: "9.9".into(), ..Manifest::of_nothing(schema) };
            fs::write(folder.path().join(MANIFEST), serde_json::to_vec(&written).unwrap()).unwrap();
            let told = manifest(folder.path()).map_err(|error| error.to_string());
            assert_eq!(told.is_ok(), is_known);
            assert!(is_known || told.is_err_and(|told| told.contains("a newer Arcadia (9.9)")));
        }
    }

    #[test]
    fn a_backup_from_before_bytes_were_in_it_leaves_a_folder_that_a_site_starts_on() {
        let folder = tempfile::TempDir::new().unwrap();
        let draft = Draft::of(&folder.path().join("again")).unwrap();
        let (root, clock) = (arcadia_crypto::RootKey::generate(&SystemEntropy), Arc::new(SystemClock));
        let wrapped = KeyRing::generate(&SystemEntropy).unwrap().wrapped(&root, &SystemEntropy).unwrap();
        let ring = || KeyRing::from_wrapped(&root, &wrapped).unwrap();
        drop(Store::open(draft.path(), ring(), clock, Arc::new(SystemEntropy)).unwrap());
        let rows = StoreReader::open(draft.path(), ring(), Arc::new(SystemEntropy)).unwrap();
        put_blobs(folder.path(), &draft, &rows, &Manifest::of_nothing(FIRST_WITH_BLOBS - 1)).unwrap();
        assert_eq!(fs::read_dir(draft.path().join(BLOBS).join("segments")).unwrap().count(), 0);
    }

    #[test]
    fn a_small_file_that_changed_since_it_was_checked_is_not_used() {
        let folder = tempfile::TempDir::new().unwrap();
        let from = folder.path().join("backup");
        fs::create_dir(&from).unwrap();
        let ring = KeyRing::generate(&SystemEntropy).unwrap();
        let mut manifest = Manifest::of_nothing(SCHEMA);
        for part in &PARTS {
            let sealed = ring.seal(&additional_data(part.name), b"as it was", &SystemEntropy).unwrap();
            let kept = if part.form == Form::Plain { b"as it was".to_vec() } else { sealed };
            fs::write(from.join(part.kept_as), kept).unwrap();
            manifest.files.push(Entry::of(&from, part.kept_as).unwrap());
        }
        let restored = |to: &str| {
            let draft = Draft::of(&folder.path().join(to)).unwrap();
            put_small_files(&from, &draft, &ring, &manifest)
        };
        restored("whole").unwrap();
        for part in &PARTS {
            let path = from.join(part.kept_as);
            let good = fs::read(&path).unwrap();
            // One that would open, too: another backup of the same site has such a file.
            let sealed = ring.seal(&additional_data(part.name), b"as it is now", &SystemEntropy).unwrap();
            fs::write(&path, if part.form == Form::Plain { b"as it is now".to_vec() } else { sealed })
                .unwrap();
            let told = restored(part.name).map_err(|error| error.to_string());
            assert!(told.is_err_and(|told| told.contains("changed while it was read")), "{}", part.name);
            fs::write(&path, good).unwrap();
        }
    }

    /// Puts an archive into a backup, of a directory, a file in it, and one entry more.
    fn put_archive(backup: &Path, ring: &KeyRing, archive: &Archived, kind: EntryType, name: &str) {
        fs::create_dir_all(backup.join(archive.folder()).parent().unwrap()).unwrap();
        fs::remove_file(backup.join(archive.kept_as())).ok();
        let sealed = ArchiveWriter::create(backup, &archive.kept_as(), ring, &SystemEntropy).unwrap();
        let mut out = tar::Builder::new(sealed);
        let entry = |kind: EntryType, name: &str, mode| {
            let mut header = tar::Header::new_gnu();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(0);
            if kind.is_symlink() || kind.is_hard_link() {
                header.set_link_name("/etc/hostname").unwrap();
            }
            header.set_cksum();
            header
        };
        out.append(&entry(EntryType::Directory, "base", 0o500), std::io::empty()).unwrap();
        out.append(&entry(EntryType::Regular, "base/1", 0o600), std::io::empty()).unwrap();
        out.append(&entry(kind, name, 0o600), std::io::empty()).unwrap();
        out.into_inner().unwrap().finish().unwrap();
    }

    /// Such an archive, unpacked into a folder of its own.
    fn unpacked(folder: &Path, kinds: &[EntryType], kind: EntryType, name: &str) -> anyhow::Result<()> {
        let ring = KeyRing::generate(&SystemEntropy).unwrap();
        let archive = Archived::new(SERVERS, "pg-a", uuid::Uuid::nil());
        put_archive(folder, &ring, &archive, kind, name);
        let again = tempfile::TempDir::new_in(folder).unwrap();
        unpack(folder, &archive, kinds, &ring, again.path())?;
        assert!(again.path().join("base/1").is_file() && again.path().join(name).symlink_metadata().is_ok());
        // Nothing is removed from it otherwise, except by root.
        fs::set_permissions(again.path().join("base"), fs::Permissions::from_mode(0o700)).unwrap();
        Ok(())
    }

    #[test]
    fn a_machine_that_cannot_be_unpacked_costs_no_other() {
        let folder = tempfile::TempDir::new().unwrap();
        let backup = folder.path().join("backup");
        let ring = KeyRing::generate(&SystemEntropy).unwrap();
        let mut machines = ["m1", "m2", "m3"].map(|name| Archived::new(MACHINES, name, name)).to_vec();
        for (archive, kind) in machines.iter().zip([EntryType::Regular, EntryType::Fifo, EntryType::Symlink])
        {
            put_archive(&backup, &ring, archive, kind, "x\x1b");
        }
        let draft = Draft::of(&folder.path().join("again")).unwrap();
        let told = put_machines(&backup, &draft, &ring, &mut machines).unwrap();
        assert!(told.len() == 1 && told[0].starts_with("machine m2, as "), "{told:?}");
        assert!(told[0].contains("which no backup has there") && !told[0].contains('\x1b'), "{told:?}");
        let names: Vec<&str> = machines.iter().map(|archive| archive.name()).collect();
        assert_eq!(names, ["m1", "m3"]);
        let is_there = ["m1", "m2", "m3"].map(|name| draft.path().join(MACHINES).join(name).exists());
        assert_eq!(is_there, [true, false, true]);
    }

    #[test]
    fn an_archive_has_what_a_backup_puts_there_and_nothing_else() {
        let folder = tempfile::TempDir::new().unwrap();
        let kinds = [
            (EntryType::Regular, true, true),
            (EntryType::Directory, true, true),
            (EntryType::Symlink, false, true),
            (EntryType::Link, false, false),
            (EntryType::Fifo, false, false),
            (EntryType::Char, false, false),
            (EntryType::Block, false, false),
        ];
        for (kind, server, machine) in kinds {
            for (taken, kinds) in [(server, &SERVER_ENTRIES[..]), (machine, &MACHINE_ENTRIES[..])] {
                let told = unpacked(folder.path(), kinds, kind, "base/x").map_err(|error| error.to_string());
                assert_eq!(told.is_ok(), taken, "{kind:?} {told:?}");
                assert!(taken || told.is_err_and(|told| told.contains("which no backup has there")));
            }
        }
        let told = unpacked(folder.path(), &SERVER_ENTRIES, EntryType::Regular, "../x").unwrap_err();
        assert!(told.to_string().contains("leads out of its folder"), "{told}");
        assert!(!folder.path().join("x").exists());
    }
}
