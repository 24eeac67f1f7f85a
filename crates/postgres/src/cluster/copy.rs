//! A server's files, copied while it runs.
//!
//! PostgreSQL's own way for this, over an ordinary session of the site's role: between `pg_backup_start` and
//! `pg_backup_stop` the files may be copied as they are, and the log that was written meanwhile makes them whole when
//! the copy is started for the first time. A temporary replication slot keeps that log; it ends with the session,
//! however that ends. Nobody is given a right for this, and the server listens no more than before.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use arcadia_arm::{RESOURCES, Resource};
use arcadia_kernel::{Entropy, EntropyExt as _};
use arcadia_store::{StoreError, StoreReader};
use tar::{Builder, EntryType, Header};
use tokio::net::UnixStream;
use tokio_postgres::Client;
use uuid::Uuid;

use super::files::{Root, odd, own};
use super::process::{POLL, socket_in};
use super::{Account, orphan, sql};
use crate::fault::ServerFault;
use crate::kinds::SERVERS;
use crate::records::{StoredServer, stored};

/// `57P03`: the server is starting or stopping.
const CANNOT_CONNECT_NOW: &str = "57P03";
/// From this version on, what begins and ends a copy has its present name.
const RENAMED_MAJOR: u32 = 15;
/// Directories whose files a server makes anew.
const EMPTIED: [&str; 7] =
    ["pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans"];
const LOG: &str = "pg_wal";
/// Where the log's own records begin; read last, as it changes with every checkpoint.
const CONTROL: &str = "global/pg_control";
/// Says where a copy began, and is itself put into it last.
const LABEL: &str = "backup_label";
/// Files that belong to a process.
const LEFT_OUT: [&str; 4] = ["postmaster.pid", "postmaster.opts", "pg_internal.init", "current_logfiles"];
const LEFT_OUT_BEGINNINGS: [&str; 2] = [".s.PGSQL.", "pgsql_tmp"];

/// A server of a site's rows, as far as its data is concerned.
pub struct ServerData {
    pub name: String,
    /// Names its directory.
    pub instance: Uuid,
    secret: String,
}

impl ServerData {
    /// The servers that were ever complete. What is missing of others, the operation that makes them makes anew.
    pub fn all(rows: &StoreReader) -> Result<Vec<Self>, StoreError> {
        let mut found = Vec::new();
        rows.each(RESOURCES, |resource| {
            found.extend(Self::of(&resource)?);
            Ok::<_, StoreError>(())
        })?;
        Ok(found)
    }

    /// `None` for what is no server, or none that was ever complete. One whose row cannot be read must not be missing
    /// from a backup without a word.
    fn of(resource: &Resource) -> Result<Option<Self>, StoreError> {
        let kind = resource.id.resource_type().unwrap_or_default();
        if !SERVERS.iter().any(|known| known.eq_ignore_ascii_case(&kind)) {
            return Ok(None);
        }
        let name = resource.id.name().to_owned();
        let server = stored::<StoredServer>(resource).map_err(|_| StoreError::Damaged {
            what: format!("the row of database server '{name}'"),
            detail: "its properties are not those of a server, so its data cannot be found".to_owned(),
        })?;
        let data = Self { name, instance: server.instance, secret: server.keeper_secret };
        Ok(server.ready.then_some(data))
    }

    /// The server's directory in the folder of all of them.
    pub fn directory(&self, folder: &Path) -> PathBuf {
        folder.join(self.instance.to_string())
    }

    /// Begins a copy of a running server; `None` when it does not run.
    pub async fn begin(
        &self,
        folder: &Path,
        entropy: &dyn Entropy,
    ) -> Result<Option<RunningCopy>, ServerFault> {
        let root = Root::open(&self.directory(folder))?;
        let Some(client) = self.session(&root).await? else { return Ok(None) };
        let major = super::major_of(&root.path)?;
        RunningCopy::begin(client, root, major, entropy).await.map(Some)
    }

    async fn session(&self, root: &Root) -> Result<Option<Client>, ServerFault> {
        loop {
            let fault = match UnixStream::connect(socket_in(root.directory())).await {
                Ok(stream) => match sql::session_over(stream, &self.secret).await {
                    Ok(client) => return Ok(Some(client)),
                    Err(fault) => fault,
                },
                Err(_) if !orphan::runs_in(&root.path) => return Ok(None),
                Err(error) => error.into(),
            };
            let waits = matches!(fault, ServerFault::Connection(_))
                || fault.code() == Some(CANNOT_CONNECT_NOW)
                // The socket was there, and the server went.
                || fault.code().is_none() && !orphan::runs_in(&root.path);
            if !waits {
                return Err(fault);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether it runs, or is just starting or stopping.
    pub fn runs(&self, folder: &Path) -> bool {
        orphan::runs_in(&self.directory(folder))
    }

    /// Copies the files of a server that does not run, and that nobody starts meanwhile.
    pub fn copy_stopped<W: Write>(&self, folder: &Path, out: &mut Builder<W>) -> Result<(), ServerFault> {
        Tree { root: &Root::open(&self.directory(folder))?, running: false }.copy(out)
    }
}

/// A running server that is being copied.
pub struct RunningCopy {
    client: Client,
    root: Root,
    major: u32,
    first_segment: String,
}

impl RunningCopy {
    async fn begin(
        client: Client,
        root: Root,
        major: u32,
        entropy: &dyn Entropy,
    ) -> Result<Self, ServerFault> {
        let name = format!("arcadia_{}", entropy.uuid().simple());
        // Before the start, so that the log is kept from before it.
        let slot = "SELECT slot_name FROM pg_catalog.pg_create_physical_replication_slot($1, true, true)";
        client.query_one(slot, &[&name]).await?;
        let start = if major >= RENAMED_MAJOR {
            "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_backup_start('arcadia backup', true))"
        } else {
            "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_start_backup('arcadia backup', true, false))"
        };
        let first_segment = client.query_one(start, &[]).await?.get(0);
        Ok(Self { client, root, major, first_segment })
    }

    /// Copies everything but the log.
    pub fn copy_files<W: Write>(&self, out: &mut Builder<W>) -> Result<(), ServerFault> {
        Tree { root: &self.root, running: true }.copy(out)
    }

    /// Ends the copy with the log that was written since it began. It is of this moment.
    pub async fn finish<W: Write>(self, out: &mut Builder<W>) -> Result<(), ServerFault> {
        let stop = if self.major >= RENAMED_MAJOR {
            "pg_backup_stop(false)"
        } else {
            "pg_stop_backup(false, false)"
        };
        let stop =
            format!("SELECT pg_catalog.pg_walfile_name(lsn), labelfile, spcmapfile FROM pg_catalog.{stop}");
        let end = self.client.query_one(&stop, &[]).await?;
        let (last_segment, label, spaces): (String, String, String) = (end.get(0), end.get(1), end.get(2));
        if !spaces.is_empty() {
            return Err(ServerFault::Tablespace { path: self.root.path.join("pg_tblspc") });
        }
        let mut names: Vec<_> = self.root.list(Path::new(LOG))?.into_iter().map(|(name, ..)| name).collect();
        names.sort();
        let is_needed = |name: &&String| {
            (self.first_segment.as_str()..=last_segment.as_str()).contains(&name.as_str())
                && name.len() == last_segment.len()
                || name.ends_with(".history")
        };
        for name in names.iter().filter(is_needed) {
            add_file(out, &self.root, &Path::new(LOG).join(name))?;
        }
        add_bytes(out, Path::new(LABEL), label.as_bytes())
    }
}

struct Tree<'a> {
    root: &'a Root,
    running: bool,
}

impl Tree<'_> {
    fn copy<W: Write>(&self, out: &mut Builder<W>) -> Result<(), ServerFault> {
        self.folder(out, Path::new(""))?;
        add_file(out, self.root, Path::new(CONTROL))
    }

    /// What is gone between two looks was dropped meanwhile; the log says so as well.
    fn folder<W: Write>(&self, out: &mut Builder<W>, below: &Path) -> Result<(), ServerFault> {
        let is_log = self.running && below == Path::new(LOG);
        if self.running && EMPTIED.iter().any(|name| below == Path::new(name)) {
            return Ok(());
        }
        for (name, kind, mode) in self.root.list(below)? {
            let kept = below.join(&name);
            let path = self.root.path.join(&kept);
            if below == Path::new("pg_tblspc") {
                return Err(ServerFault::Tablespace { path });
            }
            if kind.is_dir() {
                add_folder(out, &kept, mode.bits())?;
                self.folder(out, &kept)?;
            } else if kind.is_file() && !is_log && !self.leaves_out(&name) && kept != Path::new(CONTROL) {
                add_file(out, self.root, &kept)?;
            }
        }
        Ok(())
    }

    fn leaves_out(&self, name: &str) -> bool {
        LEFT_OUT.contains(&name)
            || LEFT_OUT_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
            // A server that was put back and never started still needs it.
            || self.running && name == LABEL
    }
}

fn header(kind: EntryType, mode: u32, bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode & 0o777);
    // Whoever puts it back says whose it is.
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes);
    header
}

/// A file of the server's, whose failures are told from those of what the copy is written to.
struct Source<R> {
    bytes: R,
    has_failed: bool,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buffer);
        self.has_failed |= read.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted);
        read
    }
}

fn add_folder<W: Write>(out: &mut Builder<W>, kept: &Path, mode: u32) -> Result<(), ServerFault> {
    let mut header = header(EntryType::Directory, mode, 0);
    out.append_data(&mut header, kept, io::empty()).map_err(ServerFault::Target)
}

fn add_bytes<W: Write>(out: &mut Builder<W>, kept: &Path, bytes: &[u8]) -> Result<(), ServerFault> {
    let mut header = header(EntryType::Regular, 0o600, bytes.len() as u64);
    out.append_data(&mut header, kept, bytes).map_err(ServerFault::Target)
}

/// As long as it is now. A file that is cut meanwhile ends in zeros, and the log cuts it again.
fn add_file<W: Write>(out: &mut Builder<W>, root: &Root, kept: &Path) -> Result<(), ServerFault> {
    let path = &root.path.join(kept);
    let file = match root.file(kept) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && kept != Path::new(CONTROL) => return Ok(()),
        file => file.map_err(ServerFault::file(path))?,
    };
    let found = file.metadata().map_err(ServerFault::file(path))?;
    let mut header = header(EntryType::Regular, found.permissions().mode(), found.len());
    add(out, &mut header, kept, file.chain(io::repeat(0)).take(found.len()), path)
}

fn add<W: Write>(
    out: &mut Builder<W>,
    header: &mut Header,
    kept: &Path,
    bytes: impl Read,
    path: &Path,
) -> Result<(), ServerFault> {
    let mut source = Source { bytes, has_failed: false };
    let added = out.append_data(header, kept, &mut source);
    match source.has_failed {
        true => added.map_err(ServerFault::file(path)),
        false => added.map_err(ServerFault::Target),
    }
}

/// Gives a server's directory that was put back, and all that is in it, to the user that servers run as. Fails where
/// something else than directories and plain files is in it, and never follows a link out of it.
pub fn give(path: &Path, account: Option<Account>) -> Result<(), ServerFault> {
    let found = fs::symlink_metadata(path).map_err(ServerFault::file(path))?;
    if found.is_dir() {
        let below = Root::open(path)?.list(Path::new(""))?;
        below.iter().try_for_each(|(name, ..)| give(&path.join(name), account))?;
    } else if !found.is_file() {
        return Err(odd(path));
    }
    own(path, account)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use arcadia_kernel::ArmId;
    use serde_json::{Value, json};

    use super::*;

    fn resource(kind: &str, properties: Value) -> Resource {
        let id = format!("/subscriptions/{}/resourceGroups/rg/providers/{kind}/pg-a", Uuid::nil());
        let id = ArmId::parse(&id).unwrap();
        let (when, who) = ("2026-01-01T00:00:00Z", "somebody");
        let row = json!({
            "id": id, "location": "uksouth", "properties": properties,
            "createdAt": when, "createdBy": who, "createdByType": "User",
            "modifiedAt": when, "modifiedBy": who, "modifiedByType": "User",
        });
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn a_server_that_cannot_be_read_is_not_left_out_of_a_backup_in_silence() {
        let unreadable = json!({ "instance": 7 });
        let fault = ServerData::of(&resource(SERVERS[1], unreadable.clone())).err().unwrap();
        assert!(fault.to_string().contains("database server 'pg-a'"), "{fault}");
        assert!(ServerData::of(&resource("Microsoft.KeyVault/vaults", unreadable)).unwrap().is_none());
        let mut server = json!({
            "instance": Uuid::nil(), "ready": true, "administratorLogin": "a", "keeperSecret": "s",
            "requireTls": true, "passwordAuth": true, "entraAuth": false, "public": true, "version": "15",
            "shown": {},
        });
        assert!(ServerData::of(&resource(SERVERS[1], server.clone())).unwrap().is_some());
        server["ready"] = false.into();
        assert!(ServerData::of(&resource(SERVERS[1], server)).unwrap().is_none());
    }

    #[test]
    fn what_a_link_leads_to_is_not_copied() {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("pg_control"), "secret").unwrap();
        for name in ["base", LOG] {
            fs::create_dir(folder.path().join(name)).unwrap();
            std::os::unix::fs::symlink(outside.path(), folder.path().join(name).join("1")).unwrap();
        }
        let copied = || {
            let (mut out, root) = (Builder::new(Vec::new()), Root::open(folder.path()).unwrap());
            Tree { root: &root, running: false }.copy(&mut out).map(|()| out.into_inner().unwrap())
        };
        std::os::unix::fs::symlink(outside.path(), folder.path().join("global")).unwrap();
        assert!(copied().is_err());
        fs::remove_file(folder.path().join("global")).unwrap();
        fs::create_dir(folder.path().join("global")).unwrap();
        let control = folder.path().join(CONTROL);
        std::os::unix::fs::symlink(outside.path().join("pg_control"), &control).unwrap();
        assert!(copied().is_err());
        fs::remove_file(&control).unwrap();
        fs::write(&control, "own").unwrap();
        let bytes = copied().unwrap();
        let has = |needle: &[u8]| bytes.windows(needle.len()).any(|bytes| bytes == needle);
        assert!(has(b"own") && !has(b"secret"));
    }

    /// A file or a disk that is full or broken.
    struct Broken;

    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
    }

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_copy_is_written_to_is_not_taken_for_a_file_of_the_server() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("base")).unwrap();
        fs::write(folder.path().join("pg_version"), "15").unwrap();
        let (root, kept) = (Root::open(folder.path()).unwrap(), Path::new("pg_version"));
        for fault in [
            add_file(&mut Builder::new(Broken), &root, kept),
            add_folder(&mut Builder::new(Broken), Path::new("base"), 0o700),
            add_bytes(&mut Builder::new(Broken), Path::new(LABEL), b"label"),
        ] {
            assert!(matches!(fault, Err(ServerFault::Target(_))), "{fault:?}");
        }
        let (mut out, mut header) = (Builder::new(Vec::new()), header(EntryType::Regular, 0o600, 2));
        let fault = add(&mut out, &mut header, kept, Broken, &root.path.join(kept)).unwrap_err();
        assert!(matches!(&fault, ServerFault::File { path, .. } if path.ends_with(kept)), "{fault}");
    }

    #[test]
    fn what_a_link_leads_to_is_not_given_away() {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (base, kept) = (folder.path().join("base"), outside.path().join("kept"));
        fs::create_dir(&base).unwrap();
        for file in [&base.join("1"), &kept] {
            fs::write(file, "").unwrap();
        }
        let me = fs::metadata(&kept).unwrap();
        let is_root = rustix::process::geteuid().is_root();
        // Who is not root may give only to itself.
        let account = Account { uid: if is_root { 4321 } else { me.uid() }, gid: me.gid() };
        give(folder.path(), Some(account)).unwrap();
        assert_eq!(fs::metadata(base.join("1")).unwrap().uid(), account.uid);
        for target in [outside.path(), &kept] {
            let link = base.join("link");
            std::os::unix::fs::symlink(target, &link).unwrap();
            let fault = give(folder.path(), Some(account)).unwrap_err();
            assert!(fault.to_string().contains("base/link: neither a directory"), "{fault}");
            own(&link, Some(account)).unwrap();
            assert_eq!(fs::symlink_metadata(&link).unwrap().uid(), account.uid);
            fs::remove_file(link).unwrap();
            for path in [outside.path(), &kept] {
                assert_eq!(fs::metadata(path).unwrap().uid(), me.uid(), "{}", path.display());
            }
        }
    }
}
