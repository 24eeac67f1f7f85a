//! What knows every service: opens them over one store, gives them the one gate, and puts them behind their names.

mod background;
mod decisions;
mod explain;
mod founding;
mod principals;
mod services;
mod tokens;

pub use background::Background;
pub use founding::FirstNames;
pub use services::{Assembly, assemble};

use std::sync::Arc;
use std::time::Duration;

use arcadia_kernel::{Clock, Entropy};
use arcadia_store::Store;

use crate::names::SiteNames;
use crate::net::HostTable;
use crate::site::{DataDir, load_or_create_ring};

/// A site that is open and founded, ready for its listeners.
pub struct Wired {
    pub hosts: HostTable,
    pub body_timeout: Duration,
    pub background: Background,
    /// The first user's name, for showing.
    pub user: String,
}

/// Opens the site in `data`, which the caller has locked; founds it when it is new.
pub async fn wire(
    data: &DataDir,
    names: SiteNames,
    first: &FirstNames,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> anyhow::Result<Wired> {
    let ring = load_or_create_ring(data, &*entropy)?;
    let store = Store::open(data.path(), ring, clock.clone(), entropy.clone())?;
    let assembly = assemble(store, names, clock.clone(), entropy.clone()).await?;
    let user = founding::found(data, first, &assembly, &*clock, &*entropy).await?;
    tokens::trust_published_keys(&assembly).await?;
    let hosts = assembly.host_table();
    let background = Background::start(&assembly).await;
    let body_timeout = Duration::from_secs(assembly.gate.limits.body_seconds_max);
    Ok(Wired { hosts, body_timeout, background, user })
}
