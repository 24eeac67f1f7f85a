//! Servers, firewall rules and administrators in memory, as the gateway asks for them; kept current by the store.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use arcadia_arm::Resource;
use arcadia_kernel::ArmId;

use crate::kinds::{ADMINISTRATORS, RULES, SERVERS};
use crate::records::{StoredAdministrator, StoredRule, StoredServer, stored};

/// A server as the gateway knows it.
pub(crate) struct Server {
    pub id: ArmId,
    /// Whether it speaks as the older service does.
    pub single: bool,
    pub stored: StoredServer,
}

#[derive(Default)]
pub(crate) struct Snapshot {
    /// By folded name.
    servers: HashMap<String, Arc<Server>>,
    /// Servers whose rows cannot be read: nobody knows which data is theirs.
    unreadable: HashSet<ArmId>,
    /// By the folded identifier of the server, then of the rule.
    rules: HashMap<String, HashMap<String, StoredRule>>,
    administrators: HashMap<String, HashMap<String, Arc<StoredAdministrator>>>,
}

impl Snapshot {
    pub(crate) fn apply(&mut self, id: &ArmId, after: Option<&Resource>) {
        let Some(kind) = id.resource_type() else { return };
        let is_one_of = |types: [&str; 2]| types.iter().any(|known| known.eq_ignore_ascii_case(&kind));
        if is_one_of(SERVERS) {
            let name = id.name().to_ascii_lowercase();
            let server = after.and_then(|resource| readable::<StoredServer>(id, resource));
            if after.is_some() && server.is_none() {
                self.unreadable.insert(id.clone());
            } else {
                self.unreadable.remove(id);
            }
            match server {
                Some(stored) => {
                    let single = kind.eq_ignore_ascii_case(SERVERS[0]);
                    let server = Server { id: id.clone(), single, stored };
                    self.servers.insert(name, Arc::new(server));
                }
                None => drop(self.servers.remove(&name)),
            }
        } else if is_one_of(RULES) {
            set(&mut self.rules, id, after.and_then(|resource| readable::<StoredRule>(id, resource)));
        } else if is_one_of([ADMINISTRATORS, ADMINISTRATORS]) {
            let administrator = after.and_then(|resource| readable::<StoredAdministrator>(id, resource));
            set(&mut self.administrators, id, administrator.map(Arc::new));
        }
    }

    pub(crate) fn server(&self, name: &str) -> Option<Arc<Server>> {
        self.servers.get(name).cloned()
    }

    pub(crate) fn servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.servers.values()
    }

    pub(crate) fn unreadable(&self) -> &HashSet<ArmId> {
        &self.unreadable
    }

    /// Whether a rule lets the address in. The rule from 0.0.0.0 to 0.0.0.0 stands for Azure's own services, of
    /// which a site has none; no client has that address.
    pub(crate) fn admits(&self, server: &ArmId, address: IpAddr) -> bool {
        let address = match address.to_canonical() {
            IpAddr::V4(address) => address,
            // Rules are for IPv4; the one address that means the same machine in both is taken as such.
            IpAddr::V6(address) if address.is_loopback() => Ipv4Addr::LOCALHOST,
            IpAddr::V6(_) => return false,
        };
        let fits = |rule: &StoredRule| (rule.start_ip_address..=rule.end_ip_address).contains(&address);
        self.rules.get(server.folded()).is_some_and(|rules| rules.values().any(fits))
    }

    pub(crate) fn administrator(&self, server: &ArmId, name: &str) -> Option<Arc<StoredAdministrator>> {
        let all = self.administrators.get(server.folded())?;
        all.values().find(|administrator| administrator.principal_name == name).cloned()
    }
}

fn readable<T: serde::de::DeserializeOwned>(id: &ArmId, resource: &Resource) -> Option<T> {
    stored(resource)
        .inspect_err(|fault| tracing::error!(%id, ?fault, "a stored resource cannot be read"))
        .ok()
}

fn set<T>(all: &mut HashMap<String, HashMap<String, T>>, id: &ArmId, value: Option<T>) {
    let Some(server) = id.parent().and_then(|types| types.parent()) else { return };
    match value {
        Some(value) => {
            all.entry(server.folded().to_owned()).or_default().insert(id.folded().to_owned(), value);
        }
        None => {
            if let Some(below) = all.get_mut(server.folded()) {
                below.remove(id.folded());
                if below.is_empty() {
                    all.remove(server.folded());
                }
            }
        }
    }
}
