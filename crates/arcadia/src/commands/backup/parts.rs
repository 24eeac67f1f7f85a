//! The parts of a site that are more than rows: bytes of blobs, database servers, machines.

use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arcadia_crypto::{KeyRing, SystemEntropy};
use arcadia_postgres::{RunningCopy, ServerData};
use arcadia_storage::copy_bytes;
use arcadia_store::StoreReader;
use tar::Builder;

use crate::machine;
use crate::site::backup::{Archived, BLOBS, Blobs, Draft, MACHINES, SERVERS};
use crate::site::{ArchiveWriter, DataDir, Lock, LockFault, load_ring};
use crate::terminal::progress;

/// How long a server is waited for that is just starting or stopping.
const SERVER_SECONDS_MAX: u64 = 60;
const POLL: Duration = Duration::from_millis(100);

/// What parts are copied with.
pub struct Copier<'a> {
    pub data: &'a DataDir,
    pub draft: &'a Draft,
    pub ring: &'a KeyRing,
    /// The rows of the copy.
    pub rows: &'a StoreReader,
}

type Out<'a> = Builder<&'a mut dyn Write>;

/// What a backup is made without, in words.
#[derive(Default)]
pub struct LeftOut {
    pub what: Vec<String>,
    /// Whether the site has something of it, so that the backup is not what it should be.
    pub is_missed: bool,
}

/// How a server is copied.
enum Begun {
    Beside(RunningCopy),
    /// The site does not start it while this is held.
    Stopped(Lock),
}

impl Copier<'_> {
    pub fn blobs(&self) -> anyhow::Result<Blobs> {
        let (to, shown) = (self.draft.folder(BLOBS)?, progress("blobs"));
        let copied = copy_bytes(self.rows, &self.data.blobs_folder(), &to, &mut |bytes| shown.inc(bytes))
            .context("the bytes of blobs cannot be copied")?;
        Ok(copied.into())
    }

    /// And those that cannot be copied: one that was deleted meanwhile, or whose data is gone, must not cost the backup of
    /// everything else.
    pub fn servers(&self) -> anyhow::Result<(Vec<Archived>, LeftOut)> {
        let mut left_out = LeftOut::default();
        let servers = ServerData::all(self.rows)?;
        if servers.is_empty() {
            return Ok((Vec::new(), left_out));
        }
        self.draft.folder(SERVERS)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut archived = Vec::new();
        for server in servers {
            let archive = Archived::new(SERVERS, &server.name, server.instance);
            match self.archive(&archive, |out| runtime.block_on(self.server(&server, out)))? {
                Ok(()) => archived.push(archive),
                Err(error) => {
                    self.take_out(&archive)?;
                    left_out.add_server(&server.name, self.is_there(&server), &error);
                }
            }
        }
        Ok((archived, left_out))
    }

    /// Whether the site has the server now. The rows of the copy are of an earlier moment.
    fn is_there(&self, server: &ServerData) -> bool {
        let data = self.data.clone();
        let live = StoreReader::open_unchecked(data.path(), self.ring.clone(), Arc::new(SystemEntropy))
            // The running site may go over to another data key meanwhile.
            .map(|live| live.following(move || load_ring(&data).ok()));
        let servers = live.and_then(|live| ServerData::all(&live));
        // What cannot be looked up is not said to be gone.
        servers.map_or(true, |all| all.iter().any(|other| other.instance == server.instance))
    }

    async fn server(&self, server: &ServerData, out: &mut Out<'_>) -> anyhow::Result<()> {
        let folder = self.data.postgres_folder();
        let begun = tokio::time::timeout(Duration::from_secs(SERVER_SECONDS_MAX), self.begin(server)).await;
        match begun.context("the server does not answer; see its log beside its directory")?? {
            Begun::Beside(running) => {
                running.copy_files(out)?;
                Ok(running.finish(out).await?)
            }
            Begun::Stopped(_lock) => Ok(server.copy_stopped(&folder, out)?),
        }
    }

    /// Waits for a server that the site is just starting, and for one that a killed site left behind.
    async fn begin(&self, server: &ServerData) -> anyhow::Result<Begun> {
        let folder = self.data.postgres_folder();
        loop {
            if let Some(running) = server.begin(&folder, &SystemEntropy).await? {
                return Ok(Begun::Beside(running));
            }
            match Lock::take_for_copying(&self.data.lock_file()) {
                Ok(lock) if !server.runs(&folder) => return Ok(Begun::Stopped(lock)),
                Err(LockFault::File(error)) => {
                    return Err(error).context(self.data.lock_file().display().to_string());
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// As of servers, no machine costs the backup of everything else: its users have what they like in it, also more than
    /// there is room for where it is copied to.
    pub fn machines(&self, left_out: &mut LeftOut) -> anyhow::Result<Vec<Archived>> {
        let all = machine::all(self.data.path())
            .with_context(|| format!("{} cannot be read", self.data.path().join(MACHINES).display()))?;
        if !all.is_empty() {
            self.draft.folder(MACHINES)?;
        }
        let mut archived = Vec::new();
        for (name, folder) in all {
            let archive = Archived::new(MACHINES, name.to_string(), &name);
            let copied = self.archive(&archive, |out| Ok(machine::copy(folder.path(), out)?));
            match copied.or_else(|error| if has_no_room(&error) { Ok(Err(error)) } else { Err(error) })? {
                Ok(omitted) => {
                    archived.push(archive);
                    left_out.add_part_of_machine(&name, omitted);
                }
                Err(error) => {
                    self.take_out(&archive)?;
                    left_out.add_machine(&name, &error);
                }
            }
        }
        Ok(archived)
    }

    /// Removes what was begun of an archive.
    fn take_out(&self, archive: &Archived) -> anyhow::Result<()> {
        let path = self.draft.path().join(archive.kept_as());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context(path.display().to_string())
            }
            _ => Ok(()),
        }
    }

    /// The inner error is of what is copied, the outer one of where it is written to, which ends the whole backup.
    fn archive<T>(
        &self,
        archive: &Archived,
        fill: impl FnOnce(&mut Out<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<anyhow::Result<T>> {
        let path = self.draft.path().join(archive.kept_as());
        let mut sealed =
            ArchiveWriter::create(self.draft.path(), &archive.kept_as(), self.ring, &SystemEntropy)?;
        let mut told = Target { writer: progress(archive.name()).wrap_write(&mut sealed), failed: None };
        let mut out: Out<'_> = Builder::new(&mut told);
        let filled = fill(&mut out).and_then(|filled| {
            out.finish()?;
            Ok(filled)
        });
        drop(out);
        if let Some(error) = told.failed {
            return Err(error).with_context(|| path.display().to_string());
        }
        if filled.is_ok() {
            sealed.finish()?;
        }
        Ok(filled)
    }
}

/// Whether less might be written where this failed.
fn has_no_room(error: &anyhow::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    kind(error).is_some_and(|kind| [FileTooLarge, QuotaExceeded, StorageFull].contains(&kind))
}

fn kind(error: &anyhow::Error) -> Option<io::ErrorKind> {
    error.downcast_ref::<io::Error>().map(io::Error::kind)
}

/// Knows whether writing failed: whoever writes to it has other reasons to fail as well.
struct Target<W> {
    writer: W,
    failed: Option<io::Error>,
}

impl<W> Target<W> {
    fn seen<T>(&mut self, done: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &done
            && error.kind() != io::ErrorKind::Interrupted
        {
            // What fails after that fails for it.
            self.failed.get_or_insert_with(|| io::Error::new(error.kind(), error.to_string()));
        }
        done
    }
}

impl<W: Write> Write for Target<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes);
        self.seen(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.writer.flush();
        self.seen(flushed)
    }
}

impl LeftOut {
    fn add_server(&mut self, name: &str, is_there: bool, error: &anyhow::Error) {
        self.is_missed |= is_there;
        self.what.push(match is_there {
            true => format!("the data of database server {name}, which cannot be copied: {error:#}"),
            false => format!("database server {name}, which was deleted meanwhile"),
        });
    }

    fn add_machine(&mut self, name: impl Display, error: &anyhow::Error) {
        let kind = kind(error);
        self.is_missed |= kind != Some(io::ErrorKind::NotFound);
        self.what.push(match kind {
            Some(io::ErrorKind::PermissionDenied) => format!(
                "machine {name}, as this user may not read everything in it (`unshare --map-auto --map-root-user arcadia \
                 backup --data DIR ...` may; without --map-auto where this user has no subordinate ids)"
            ),
            Some(io::ErrorKind::NotFound) => format!("machine {name}, which was deleted meanwhile"),
            _ => format!("machine {name}, which cannot be copied: {error:#}"),
        });
    }

    fn add_part_of_machine(&mut self, name: impl Display, omitted: Option<machine::Omitted>) {
        if let Some(omitted) = omitted {
            self.is_missed = true;
            self.what.push(format!("of machine {name}: {omitted}"));
        }
    }
}
