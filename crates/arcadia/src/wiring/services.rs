//! The services, opened over one store and put together.

use std::path::Path;
use std::sync::Arc;

use arcadia_arm::{Arm, arm_ops, registered};
use arcadia_directory::{Directory, Graph, Login, graph_ops, login_ops};
use arcadia_kernel::{Access, Clock, Dispatcher, Endpoint, Entropy, Gate, Limits, Plane, StrangersBounded};
use arcadia_keyvault::{KeyVault, Vaults, data_ops};
use arcadia_machines::{His, Machines, his_ops};
use arcadia_postgres::{Place, Postgres, kinds as postgres_kinds};
use arcadia_storage::{Accounts, Storage, blob_ops};
use arcadia_store::Store;

use super::decisions::SiteDecider;
use super::explain::{Explainer, explain_ops};
use super::principals::Principals;
use super::tokens::PublishedKeys;
use super::watch::Watched;
use crate::extensions::extension_ops;
use crate::names::{Role, SiteNames};
use crate::net::HostTable;
use crate::pages::{Pages, Unserved, page_ops};

/// Every service of a site.
pub struct Assembly {
    pub store: Store,
    pub names: SiteNames,
    pub gate: Arc<Gate>,
    /// The gate's audit log.
    pub log: Arc<StrangersBounded>,
    pub directory: Arc<Directory>,
    pub arm: Arc<Arm>,
    pub keyvault: Arc<KeyVault>,
    pub postgres: Arc<Postgres>,
    pub storage: Arc<Storage>,
    pub keys: Arc<PublishedKeys>,
    pub login: Arc<dyn Endpoint>,
    pub graph: Arc<dyn Endpoint>,
    pub management: Arc<dyn Endpoint>,
    pub vaults: Arc<dyn Endpoint>,
    pub blobs: Arc<dyn Endpoint>,
    pub his: Arc<dyn Endpoint>,
    pub pages: Arc<dyn Endpoint>,
    pub unserved: Arc<dyn Endpoint>,
}

/// Opens every service, with the bytes of blobs in the folder `blobs`. No row is written, and nobody is trusted until the keys are read.
pub async fn assemble(
    store: Store,
    names: SiteNames,
    place: Place,
    blobs: &Path,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> anyhow::Result<Assembly> {
    let directory = Directory::open(store.clone(), clock.clone(), entropy.clone(), names.directory()).await?;
    let principals = Arc::new(Principals(directory.clone()));
    // Each looks through all resources for its own.
    let (keyvault, machines, postgres, storage) = tokio::try_join!(
        apart(KeyVault::open(store.clone(), names.keyvault(), principals.clone())),
        apart(Machines::open(store.clone(), directory.clone(), clock.clone())),
        apart(Postgres::open(store.clone(), names.postgres(), principals.clone(), place, entropy.clone())),
        apart({
            let (store, names, principals) = (store.clone(), names.storage(), principals.clone());
            let (blobs, clock, entropy) = (blobs.to_owned(), clock.clone(), entropy.clone());
            async move { Storage::open(store, &blobs, names, principals, clock, entropy).await }
        }),
    )?;
    let mut kinds = vec![registered(Arc::new(Vaults(keyvault.clone()))), registered(machines.clone())];
    kinds.extend(postgres_kinds(&postgres));
    kinds.push(registered(Arc::new(Accounts(storage.clone()))));
    let arm =
        Arm::open(store.clone(), names.arm(), principals, kinds, clock.clone(), entropy.clone()).await?;

    let keys = Arc::new(PublishedKeys::default());
    let decider = Arc::new(SiteDecider::new(directory.clone(), keyvault.decider(arm.decider())));
    let log = StrangersBounded::over(store.audit_sink());
    let gate = Arc::new(Gate {
        authenticator: keys.clone(),
        decider: decider.clone(),
        audit: log.clone(),
        clock,
        entropy,
        limits: Limits::default(),
    });

    let (vault_ops, blob_ops) = (data_ops(), blob_ops());
    let rows = vault_ops.iter().map(|op| &op.info).chain(blob_ops.iter().map(|op| &op.info));
    let data_actions = rows.filter_map(|row| match &row.access {
        Access::Decided { action, plane: Plane::Data } => Some(action.to_lowercase()),
        _ => None,
    });
    let explainer = Explainer {
        arm: arm.clone(),
        directory: directory.clone(),
        decider,
        data_actions: data_actions.collect(),
    };
    let mut management_ops = arm_ops(&arm);
    management_ops.extend(explain_ops(Arc::new(explainer)));
    management_ops.extend(extension_ops()?);

    let his = His::new(machines, names.login_origin(), names.his_audience());
    Ok(Assembly {
        login: behind(&gate, Arc::new(Login::new(directory.clone())), login_ops()),
        graph: behind(&gate, Arc::new(Graph::new(directory.clone())), graph_ops()),
        management: behind(&gate, arm.clone(), management_ops),
        vaults: behind(&gate, keyvault.clone(), vault_ops),
        blobs: behind(&gate, storage.clone(), blob_ops),
        his: behind(&gate, his, his_ops()),
        pages: behind(&gate, Pages::new(format!("{}/decode", names.login_origin())), page_ops()),
        unserved: behind(&gate, Unserved::new(names.domain().unwrap_or_default()), Vec::new()),
        store,
        names,
        gate,
        log,
        directory,
        arm,
        keyvault,
        postgres,
        storage,
        keys,
    })
}

/// Beside what else is waited for, also where it reads without waiting.
async fn apart<T, F>(opening: impl Future<Output = Result<T, F>> + Send + 'static) -> anyhow::Result<T>
where
    T: Send + 'static,
    F: Into<anyhow::Error> + Send + 'static,
{
    tokio::spawn(opening).await?.map_err(Into::into)
}

fn behind<S: arcadia_kernel::Service>(
    gate: &Arc<Gate>,
    service: Arc<S>,
    table: Vec<arcadia_kernel::Op<S>>,
) -> Arc<dyn Endpoint> {
    Arc::new(Dispatcher::new(service, table, gate.clone()))
}

impl Assembly {
    /// The names under which the services are reached, as long as the store is what it was. What answers to a name
    /// is decided by its role.
    pub fn host_table(&self) -> HostTable {
        let watched = |inner: &Arc<dyn Endpoint>| -> Arc<dyn Endpoint> {
            Arc::new(Watched { inner: inner.clone(), store: self.store.clone() })
        };
        let mut hosts = HostTable::default();
        if let Some(domain) = self.names.domain() {
            hosts.serve_rest(domain, watched(&self.unserved));
        }
        for (pattern, role) in self.names.hosts() {
            let endpoint = match role {
                Role::Login => &self.login,
                Role::Graph => &self.graph,
                Role::Management => &self.management,
                Role::Vaults => &self.vaults,
                Role::Blobs => &self.blobs,
                Role::Heartbeats => &self.his,
                Role::Pages => &self.pages,
                // Reached by other ways than HTTPS, or not served.
                Role::Databases | Role::Unserved => continue,
            };
            hosts.serve(&pattern, watched(endpoint));
        }
        hosts
    }

    /// Every service, for documents and for the tests that walk all operations.
    pub fn endpoints(&self) -> [&Arc<dyn Endpoint>; 7] {
        [&self.login, &self.graph, &self.management, &self.vaults, &self.blobs, &self.his, &self.pages]
    }
}
