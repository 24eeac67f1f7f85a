//! What a site does by itself while it runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arcadia_directory::Directory;
use arcadia_kernel::{Gate, Reason, StrangersBounded};
use arcadia_keyvault::KeyVault;
use arcadia_postgres::Postgres;
use arcadia_storage::Storage;
use tokio::task::JoinHandle;

use super::Assembly;
use super::retention::Retention;

/// What has expired is refused at once and removed within this time; what might be recovered, as
/// far as [`Retention`] lets it.
const SWEEP_PERIOD: Duration = Duration::from_secs(10 * 60);
/// How soon after its minute a number of strangers' requests is recorded.
const TELL_PERIOD: Duration = Duration::from_secs(10);

pub struct Background {
    tasks: Vec<JoinHandle<()>>,
    postgres: Arc<Postgres>,
    gate: Arc<Gate>,
    log: Arc<StrangersBounded>,
    retention: Arc<Mutex<Retention>>,
}

impl Background {
    pub async fn start(assembly: &Assembly, retention: Retention) -> Self {
        // Before the unfinished operations, which may be about these servers.
        assembly.postgres.start().await;
        assembly.arm.start(assembly.gate.clone()).await;
        let (gate, directory, keyvault) =
            (assembly.gate.clone(), assembly.directory.clone(), assembly.keyvault.clone());
        let (storage, retention) = (assembly.storage.clone(), Arc::new(Mutex::new(retention)));
        // Apart from the others, as it may have many bytes to move.
        let tasks = vec![
            tokio::spawn(sweep(gate, directory, keyvault, retention.clone())),
            tokio::spawn(sweep_storage(assembly.gate.clone(), storage, retention.clone())),
            tokio::spawn(tell_of_strangers(assembly.gate.clone(), assembly.log.clone())),
        ];
        let (gate, log) = (assembly.gate.clone(), assembly.log.clone());
        Self { tasks, postgres: assembly.postgres.clone(), gate, log, retention }
    }

    /// One more, which ends with the others.
    pub fn add(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(tokio::spawn(task));
    }

    /// Ends the tasks and stops the database servers. Each of their commits is whole or absent, so they may be cut anywhere.
    pub async fn stop(self) {
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
        // A site may never run for as long as it takes until the next sweep.
        held(&self.retention).count(self.gate.clock.now());
        self.postgres.stop().await;
        if let Err(fault) = self.log.tell_all(self.gate.clock.now()).await {
            tracing::error!(%fault, "how many strangers' requests have no record of their own is not recorded");
        }
    }
}

async fn sweep(
    gate: Arc<Gate>,
    directory: Arc<Directory>,
    keyvault: Arc<KeyVault>,
    retention: Arc<Mutex<Retention>>,
) {
    let mut was_over = true;
    loop {
        let is_over = sweep_once(&gate, &directory, &keyvault, &retention).await;
        if was_over && !is_over {
            let hours = held(&retention).hours_left();
            tracing::warn!(
                "the site was restored, stopped for days or of an earlier version, or its clock was put ahead: what was \
                 deleted is removed for good only once it has run for {hours} h more; recover until then what you need"
            );
        }
        was_over = is_over;
        tokio::time::sleep(SWEEP_PERIOD).await;
    }
}

/// Returns whether it might remove what could be recovered.
async fn sweep_once(
    gate: &Arc<Gate>,
    directory: &Directory,
    keyvault: &KeyVault,
    retention: &Mutex<Retention>,
) -> bool {
    let is_over = held(retention).is_over(gate.clock.now());
    let permit = || gate.as_system(Reason::Sweep);
    let swept = if is_over { directory.sweep(permit()).await } else { directory.tidy(permit()).await };
    match swept {
        Ok(removed) if removed > 0 => tracing::info!(removed, "directory swept"),
        Ok(_) => {}
        Err(fault) => tracing::error!(?fault, "the directory could not be swept"),
    }
    let swept = if is_over { keyvault.sweep(permit()).await } else { keyvault.tidy(permit()).await };
    match swept {
        Ok(swept) if swept != Default::default() => tracing::info!(?swept, "vaults swept"),
        Ok(_) => {}
        Err(fault) => tracing::error!(?fault, "the vaults could not be swept"),
    }
    is_over
}

fn held(retention: &Mutex<Retention>) -> MutexGuard<'_, Retention> {
    retention.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn tell_of_strangers(gate: Arc<Gate>, log: Arc<StrangersBounded>) {
    loop {
        tokio::time::sleep(TELL_PERIOD).await;
        if let Err(fault) = log.tell(gate.clock.now()).await {
            tracing::error!(%fault, "how many strangers' requests have no record of their own is not recorded yet");
        }
    }
}

async fn sweep_storage(gate: Arc<Gate>, storage: Arc<Storage>, retention: Arc<Mutex<Retention>>) {
    loop {
        sweep_storage_once(&gate, &storage, &retention).await;
        tokio::time::sleep(SWEEP_PERIOD).await;
    }
}

async fn sweep_storage_once(gate: &Arc<Gate>, storage: &Storage, retention: &Mutex<Retention>) {
    let permit = gate.as_system(Reason::Sweep);
    let is_over = held(retention).is_over(gate.clock.now());
    let swept = if is_over { storage.sweep(permit).await } else { storage.tidy(permit).await };
    match swept {
        Ok(swept) if swept != Default::default() => tracing::info!(?swept, "storage swept"),
        Ok(_) => {}
        Err(fault) => tracing::error!(?fault, "storage could not be swept"),
    }
}

#[cfg(test)]
mod tests;
