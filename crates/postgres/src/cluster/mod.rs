//! The servers behind the resources: one PostgreSQL each, in a directory of its own.
//!
//! A server's directory is handed to it as its standard input, and it is told to work in `/proc/self/fd/0`: so the
//! unprivileged user that it runs as needs no right on any directory above its own.

mod copy;
mod files;
mod group;
mod guard;
mod install;
pub(crate) mod mark;
mod orphan;
mod process;
pub(crate) mod sql;
mod template;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arcadia_kernel::{Entropy, GIVE_WAY_AFTER, Places, Progress};
use arcadia_store::{RESERVE_BYTES, free_bytes};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

pub use copy::{RunningCopy, ServerData, give};
pub use install::{Account, Installation};

use crate::fault::ServerFault;
use process::log_of;

/// Clients of one server at the same time; the server itself takes a few more, for the site.
pub(crate) const SESSIONS_MAX: usize = 90;
/// What the name of a directory begins with whose server no row names.
const LOST: &str = "lost-";
/// What a new server's files take, with room for its log to grow a little. So much its template takes as well.
const SERVER_BYTES: u64 = 80 * 1024 * 1024;
/// How long a server may take until it accepts connections (it may have to recover first).
const READY_SECONDS_MAX: u64 = 60;

/// Where servers live and what they run as.
#[derive(Clone, Debug)]
pub struct Place {
    /// Holds a directory for each server. Made when it is missing.
    pub folder: PathBuf,
    /// The user that servers run as; `None` for the site's own. Servers refuse to run as root.
    pub account: Option<Account>,
    /// `None` when PostgreSQL is not installed: no server can be made then.
    pub installation: Option<Installation>,
}

impl Place {
    pub(crate) fn installed(&self) -> Result<&Installation, ServerFault> {
        self.installation.as_ref().ok_or(ServerFault::NotInstalled)
    }

    /// Refuses one more server where it would take space that the site's store or its other servers need to go on.
    pub(crate) fn check_room(&self) -> Result<(), ServerFault> {
        let folder =
            if self.folder.is_dir() { &*self.folder } else { self.folder.parent().unwrap_or(&self.folder) };
        let free = free_bytes(folder).map_err(ServerFault::file(folder))?;
        let trees = if template::path(self)?.is_dir() { 1 } else { 2 };
        if free < trees * SERVER_BYTES + RESERVE_BYTES {
            return Err(ServerFault::NoRoom { path: folder.to_owned() });
        }
        Ok(())
    }

    pub(crate) fn directory(&self, instance: Uuid) -> PathBuf {
        self.folder.join(instance.to_string())
    }
}

/// A server that is meant to run.
pub(crate) struct Cluster {
    /// Open for as long as the server is meant to run; its socket is reached through it, however long its path is.
    directory: File,
    ready: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
    /// Room for clients.
    pub sessions: Arc<Places<Progress>>,
}

impl Cluster {
    /// A connection to the server's own socket.
    pub(crate) async fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(process::socket_in(&self.directory)).await
    }

    pub(crate) fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    pub(crate) async fn until_ready(&self) -> Result<(), ServerFault> {
        let mut ready = self.ready.clone();
        let waited =
            tokio::time::timeout(Duration::from_secs(READY_SECONDS_MAX), ready.wait_for(|ready| *ready))
                .await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            _ => Err(ServerFault::NotReady),
        }
    }

    async fn stop(&self) {
        self.stop.send_replace(true);
        if let Some(task) = self.task.lock().await.take() {
            let _ = task.await;
        }
    }
}

/// Every server of a site.
pub(crate) struct Clusters {
    pub(crate) place: Place,
    entropy: Arc<dyn Entropy>,
    running: Mutex<HashMap<Uuid, Arc<Cluster>>>,
    /// Held while the template is made.
    template: tokio::sync::Mutex<()>,
    /// Whether the site is stopping: nothing is started any more, not even by an operation under way.
    closed: AtomicBool,
}

impl Clusters {
    pub(crate) fn new(place: Place, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            place,
            entropy,
            running: Mutex::default(),
            template: tokio::sync::Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Cluster>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn find(&self, instance: Uuid) -> Option<Arc<Cluster>> {
        self.running().get(&instance).cloned()
    }

    pub(crate) fn exists(&self, instance: Uuid) -> bool {
        self.place.directory(instance).is_dir()
    }

    /// The version of a server, which may be another one than the newest that is installed.
    pub(crate) fn major(&self, instance: Uuid) -> Result<u32, ServerFault> {
        major_of(&self.place.directory(instance))
    }

    /// Makes a server's directory, where it is not there yet. Durable when this returns; leaves nothing behind when it
    /// fails, least of all on a disk that is full.
    pub(crate) async fn create(&self, instance: Uuid) -> Result<(), ServerFault> {
        if self.exists(instance) {
            return Ok(());
        }
        self.place.check_room()?;
        let made = self.make(&self.place.directory(instance)).await;
        if made.is_err() {
            self.remove_directory(&files::unfinished(&self.place.directory(instance))).await?;
        }
        made
    }

    async fn make(&self, directory: &Path) -> Result<(), ServerFault> {
        let (place, directory) = (self.place.clone(), directory.to_owned());
        let template = template::path(&place)?;
        {
            let _alone = self.template.lock().await;
            if !template.is_dir() {
                let founded = template::found(&place, &directory, &*self.entropy).await;
                if founded.is_err() {
                    self.remove_directory(&files::unfinished(&template)).await?;
                }
                return founded;
            }
        }
        tokio::task::spawn_blocking(move || template::copy_to(&place, &template, &directory))
            .await
            .map_err(|_| ServerFault::Broken)?
    }

    /// Starts a server and keeps it running; does nothing to one that runs. `secret` is the password of the site's role.
    pub(crate) fn start(&self, instance: Uuid, secret: &str) -> Result<Arc<Cluster>, ServerFault> {
        let mut running = self.running();
        if let Some(cluster) = running.get(&instance) {
            return Ok(cluster.clone());
        }
        if self.closed.load(Ordering::SeqCst) {
            return Err(ServerFault::NotReady);
        }
        let path = self.place.directory(instance);
        let major = major_of(&path)?;
        let program = self.place.installed()?.server_of(major).ok_or(ServerFault::OtherVersion { major })?;
        let directory = File::open(&path).map_err(ServerFault::file(&path))?;
        let (ready_sender, ready) = watch::channel(false);
        let (stop, stopping) = watch::channel(false);
        let own = directory.try_clone().map_err(ServerFault::file(&path))?;
        let guard = guard::Guard {
            place: self.place.clone(),
            entropy: self.entropy.clone(),
            secret: secret.to_owned(),
        };
        let account = self.place.account;
        let supervised = process::Supervised { instance, path, directory: own, program, account, guard };
        let task = tokio::spawn(process::supervise(supervised, ready_sender, stopping));
        let cluster = Arc::new(Cluster {
            directory,
            ready,
            stop,
            task: tokio::sync::Mutex::new(Some(task)),
            sessions: Places::new(SESSIONS_MAX, GIVE_WAY_AFTER),
        });
        running.insert(instance, cluster.clone());
        Ok(cluster)
    }

    /// Stops a server and removes its directory. Succeeds where nothing is left of it.
    pub(crate) async fn remove(&self, instance: Uuid) -> Result<(), ServerFault> {
        let cluster = self.running().remove(&instance);
        if let Some(cluster) = cluster {
            cluster.stop().await;
        }
        self.remove_directory(&self.place.directory(instance)).await
    }

    async fn remove_directory(&self, path: &Path) -> Result<(), ServerFault> {
        orphan::stop(path).await;
        let path = path.to_owned();
        let removed = tokio::task::spawn_blocking(move || match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ServerFault::file(&path)(error)),
            _ => {
                let _ = std::fs::remove_file(log_of(&path));
                Ok(())
            }
        });
        removed.await.map_err(|_| ServerFault::Broken)?
    }

    /// Removes what was never complete, and puts aside the data of servers that are not among `instances`.
    pub(crate) async fn clean(&self, instances: &HashSet<Uuid>) {
        let Ok(entries) = std::fs::read_dir(&self.place.folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(files::UNFINISHED) {
                if let Err(fault) = self.remove_directory(&entry.path()).await {
                    tracing::warn!(%fault, "what is left of a database server could not be removed");
                }
            } else if Uuid::try_parse(&name).is_ok_and(|instance| !instances.contains(&instance)) {
                self.put_aside(&entry.path(), &name).await;
            }
        }
    }

    /// A server's row goes after its data. Data without a row is of rows that were lost, and may be all that is left.
    async fn put_aside(&self, path: &Path, name: &str) {
        orphan::stop(path).await;
        let aside = self.place.folder.join(format!("{LOST}{name}"));
        match std::fs::rename(path, &aside) {
            Ok(()) => {
                let _ = std::fs::rename(log_of(path), log_of(&aside));
                tracing::error!(
                    path = %aside.display(),
                    "the data of a database server that no row names was put aside, as when the end of the store was \
                     lost. When the rows are back, stop the site and rename it to {name}; remove it when nobody needs it"
                );
            }
            Err(error) => tracing::error!(
                path = %path.display(), %error,
                "the data of a database server that no row names could not be put aside; move it away"
            ),
        }
    }

    pub(crate) fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
    }

    pub(crate) async fn stop_all(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let all: Vec<_> = self.running().drain().map(|(_, cluster)| cluster).collect();
        for cluster in &all {
            cluster.stop.send_replace(true);
        }
        for cluster in all {
            cluster.stop().await;
        }
    }
}

/// The logs of the servers of a site that runs which do not take connections: they start, recover, or cannot.
pub fn logs_of_waiting(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let servers = entries.filter(|entry| Uuid::try_parse(&entry.file_name().to_string_lossy()).is_ok());
    let waiting = servers
        .map(|entry| entry.path())
        .filter(|path| !(orphan::runs_in(path) && process::says_ready(path, |_| true)));
    let mut logs: Vec<_> = waiting.map(|path| log_of(&path)).collect();
    logs.sort();
    logs
}

/// The version that made a server's files, and the only one that reads them.
fn major_of(directory: &Path) -> Result<u32, ServerFault> {
    let version = directory.join("PG_VERSION");
    let text = files::read_text(&version).map_err(ServerFault::file(&version))?;
    Ok(text.trim().parse().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use arcadia_crypto::SystemEntropy;

    use super::*;

    #[tokio::test]
    async fn data_without_a_row_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (kept, lost, again) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        let unfinished = format!("{}.new", Uuid::from_u128(4));
        for name in [&*kept.to_string(), &lost.to_string(), &again.to_string(), "template-15", &unfinished] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("PG_VERSION"), name).unwrap();
        }
        fs::write(at(&format!("{lost}.log")), "its log").unwrap();
        // Of an earlier time.
        fs::create_dir(at(&format!("lost-{again}"))).unwrap();
        fs::write(at(&format!("lost-{again}/PG_VERSION")), "earlier").unwrap();
        let place = Place { folder: folder.path().to_owned(), account: None, installation: None };
        let clusters = Clusters::new(place, Arc::new(SystemEntropy));
        for _ in 0..2 {
            clusters.clean(&HashSet::from([kept])).await;
            let version = |name: &str| fs::read_to_string(at(name).join("PG_VERSION")).unwrap();
            assert_eq!(version(&format!("lost-{lost}")), lost.to_string());
            assert_eq!(version(&format!("lost-{again}")), "earlier");
            for name in [&*kept.to_string(), &again.to_string(), "template-15"] {
                assert_eq!(version(name), name);
            }
            assert!(!at(&unfinished).exists() && !at(&lost.to_string()).exists());
            assert!(at(&format!("lost-{lost}.log")).exists() && !at(&format!("{lost}.log")).exists());
        }
    }
}
