//! What the kinds and the gateway share: the store's view in memory, and the servers themselves.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use arcadia_arm::{PrincipalSource, RESOURCES, Resource};
use arcadia_kernel::Entropy;
use arcadia_store::{Change, Store, StoreError};

use crate::cluster::{Clusters, Place};
use crate::kinds::PROVIDER;
use crate::names::PostgresNames;
use crate::snapshot::Snapshot;

/// Database servers: their resources in memory, and the processes behind them.
pub struct Postgres {
    pub(crate) names: PostgresNames,
    pub(crate) principals: Arc<dyn PrincipalSource>,
    pub(crate) clusters: Clusters,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) store: Store,
    snapshot: Arc<RwLock<Snapshot>>,
}

impl Postgres {
    /// Reads the servers and follows their changes. Nothing is started before [`Postgres::start`].
    pub async fn open(
        store: Store,
        names: PostgresNames,
        principals: Arc<dyn PrincipalSource>,
        place: Place,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Arc<Self>, StoreError> {
        let snapshot = Arc::new(RwLock::new(Snapshot::default()));
        let seen = snapshot.clone();
        store.observe(RESOURCES, move |changes: &[Change<Resource>]| {
            let mut snapshot = seen.write().unwrap_or_else(PoisonError::into_inner);
            for change in changes {
                if let Some(resource) = change.after.as_ref().or(change.before.as_ref()) {
                    snapshot.apply(&resource.id, change.after.as_ref());
                }
            }
        });
        for row in store.all_with_segment(RESOURCES, PROVIDER).await? {
            let mut snapshot = snapshot.write().unwrap_or_else(PoisonError::into_inner);
            snapshot.apply(&row.value.id, Some(&row.value));
        }
        let clusters = Clusters::new(place, entropy.clone());
        Ok(Arc::new(Self { names, principals, clusters, entropy, store, snapshot }))
    }

    /// Starts every server that is there, and puts the data of servers aside that are not.
    pub async fn start(&self) {
        self.clusters.open();
        let (servers, unreadable) = {
            let snapshot = self.snapshot();
            (snapshot.servers().cloned().collect::<Vec<_>>(), snapshot.unreadable().clone())
        };
        if unreadable.is_empty() {
            let instances: HashSet<_> = servers.iter().map(|server| server.stored.instance).collect();
            self.clusters.clean(&instances).await;
        } else {
            tracing::error!(
                servers = ?unreadable,
                "rows of database servers cannot be read, so nothing is put aside in the servers' folder; start the \
                 version of this program that wrote them, or restore the store from a backup"
            );
        }
        for server in servers {
            let instance = server.stored.instance;
            if self.clusters.exists(instance) {
                if let Err(fault) = self.clusters.start(instance, &server.stored.keeper_secret) {
                    tracing::error!(%instance, %fault, "a database server does not start");
                }
            } else if server.stored.ready {
                tracing::error!(
                    %instance, server = %server.id,
                    "the data of a database server is missing; mount the volume that it is on, rename `lost-{instance}` to \
                     {instance}, or restore a backup"
                );
            }
        }
    }

    /// Stops every server, cutting sessions off and losing nothing that was committed.
    pub async fn stop(&self) {
        self.clusters.stop_all().await;
    }

    pub fn names(&self) -> &PostgresNames {
        &self.names
    }

    pub(crate) fn snapshot(&self) -> RwLockReadGuard<'_, Snapshot> {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner)
    }
}
