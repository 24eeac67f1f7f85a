//! The servers behind the resources: one PostgreSQL each, in a directory of its own.
//!
//! A server's directory is handed to it as its standard input, and it is told to work in `/proc/self/fd/0`: so the
//! unprivileged user that it runs as needs no right on any directory above its own.

mod copy;
mod files;
mod install;
mod orphan;
mod process;
pub(crate) mod sql;
mod template;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arcadia_kernel::{Entropy, GIVE_WAY_AFTER, Places, Progress};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

pub use copy::{RunningCopy, ServerData, give};
pub use install::{Account, Installation};

use crate::fault::ServerFault;

/// Clients of one server at the same time; the server itself takes a few more, for the site.
pub(crate) const SESSIONS_MAX: usize = 90;
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
        UnixStream::connect(format!("/proc/self/fd/{}/{}", self.directory.as_raw_fd(), process::SOCKET)).await
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

    /// Makes a server's directory, where it is not there yet. Durable when this returns.
    pub(crate) async fn create(&self, instance: Uuid) -> Result<(), ServerFault> {
        if self.exists(instance) {
            return Ok(());
        }
        let (place, directory) = (self.place.clone(), self.place.directory(instance));
        let template = template::path(&place)?;
        {
            let _alone = self.template.lock().await;
            if !template.is_dir() {
                return template::found(&place, &directory, &*self.entropy).await;
            }
        }
        tokio::task::spawn_blocking(move || template::copy_to(&place, &template, &directory))
            .await
            .map_err(|_| ServerFault::Broken)?
    }

    /// The password of the site's role in a server that was just made.
    pub(crate) fn first_secret(&self) -> Result<String, ServerFault> {
        template::secret(&self.place)
    }

    /// Starts a server and keeps it running; does nothing to one that runs.
    pub(crate) fn start(&self, instance: Uuid) -> Result<Arc<Cluster>, ServerFault> {
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
        let supervised =
            process::Supervised { instance, path, directory: own, program, account: self.place.account };
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
                let _ = std::fs::remove_file(path.with_extension("log"));
                Ok(())
            }
        });
        removed.await.map_err(|_| ServerFault::Broken)?
    }

    /// Removes directories of servers that are not (or no longer) among `instances`.
    pub(crate) async fn clean(&self, instances: &HashSet<Uuid>) {
        let Ok(entries) = std::fs::read_dir(&self.place.folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let instance = Uuid::try_parse(name.strip_suffix(files::UNFINISHED).unwrap_or(&name));
            let is_kept = match &instance {
                Ok(instance) => instances.contains(instance) && !name.ends_with(files::UNFINISHED),
                // Templates and their secrets; what is unfinished of them is made anew.
                Err(_) => !name.ends_with(files::UNFINISHED),
            };
            if !is_kept && let Err(fault) = self.remove_directory(&entry.path()).await {
                tracing::warn!(%fault, "what is left of a database server could not be removed");
            }
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

/// The version that made a server's files, and the only one that reads them.
fn major_of(directory: &Path) -> Result<u32, ServerFault> {
    let version = directory.join("PG_VERSION");
    let text = std::fs::read_to_string(&version).map_err(ServerFault::file(&version))?;
    Ok(text.trim().parse().unwrap_or_default())
}
