//! What knows every service: opens them over one store, gives them the one gate, and puts them behind their names.

mod background;
pub mod databases;
mod decisions;
mod explain;
mod founding;
mod keys;
mod principals;
mod retention;
mod services;
mod tokens;
mod watch;

pub use background::Background;
pub use founding::FirstNames;
pub use keys::VALUES_PER_DATA_KEY_MAX;
pub use services::{Assembly, assemble};
pub use watch::Standings;

use std::sync::Arc;

use arcadia_kernel::{Clock, Entropy};
use arcadia_postgres::{Postgres, Trust};
use arcadia_store::Store;

use crate::names::SiteNames;
use crate::net::HostTable;
use crate::site::{DataDir, SiteFault, SiteRecord, open_or_create_keys};

/// A site that is open and founded, ready for its listeners.
pub struct Wired {
    pub hosts: HostTable,
    pub standings: Standings,
    pub postgres: Arc<Postgres>,
    /// Whom the databases' gateway believes.
    pub trust: Trust,
    /// The first user's name, for showing.
    pub user: String,
}

/// Opens the site in `data`, which the caller has locked; founds it when it is new. What runs in the background by then
/// is the caller's to stop.
pub async fn wire(
    data: &DataDir,
    names: SiteNames,
    first: &FirstNames,
    values_per_data_key: u64,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> anyhow::Result<(Wired, Background)> {
    let place = databases::place(data);
    let keys = open_or_create_keys(data, &*entropy, clock.now())?;
    check_store_file(data)?;
    let store = Store::open(data.path(), keys.ring.clone(), clock.clone(), entropy.clone())?;
    check_store(data, &store).await?;
    let blobs = data.path().join("blobs");
    let assembly = assemble(store, names, place, &blobs, clock.clone(), entropy.clone()).await?;
    let retention = retention::Retention::of(data, SiteRecord::load(data)?.is_none(), clock.now());
    let user = founding::found(data, first, &assembly, &*clock, &*entropy).await?;
    tokens::trust_published_keys(&assembly).await?;
    let hosts = assembly.host_table();
    let (store, gate) = (assembly.store.clone(), assembly.gate.clone());
    let keeper = keys::Keeper { data: data.clone(), store, gate, keys, values_per_data_key };
    keeper.record_keys().await?;
    // Nothing may fail after this, as database servers run from here on.
    let mut background = Background::start(&assembly, retention).await;
    let (standings, watching) = watch::watch(assembly.store.clone(), data.clone(), clock.clone());
    background.add(watching);
    background.add(keys::keep(keeper));
    let gate = &assembly.gate;
    let trust = Trust {
        authenticator: gate.authenticator.clone(),
        decider: gate.decider.clone(),
        audit: gate.audit.clone(),
        clock,
        entropy,
    };
    Ok((Wired { hosts, standings, postgres: assembly.postgres.clone(), trust, user }, background))
}

/// A site that was founded has a store. Without it, a new and empty one is not what its users want.
fn check_store_file(data: &DataDir) -> anyhow::Result<()> {
    let file = data.store_file();
    let there = file.metadata().is_ok_and(|found| found.len() > 0);
    if !there && SiteRecord::load(data)?.is_some() {
        return Err(SiteFault::StoreMissing(file).into());
    }
    Ok(())
}

/// Neither is one in which nothing was ever recorded.
async fn check_store(data: &DataDir, store: &Store) -> anyhow::Result<()> {
    if SiteRecord::load(data)?.is_some() && store.health().await?.audit_records == 0 {
        return Err(SiteFault::StoreMissing(data.store_file()).into());
    }
    Ok(())
}
