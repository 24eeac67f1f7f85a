//! `ring.json`: the data keys, wrapped by the root key, and where the root key comes from.
//!
//! While the root key is replaced, the file holds the data keys under both, so that whichever the rest of the data
//! directory is at, the old one or the new one, the site opens.

use std::path::Path;

use arcadia_crypto::{KeyRing, PassphraseCosts, RootKey, SealFault, WrappedKey};
use arcadia_kernel::Entropy;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::SiteFault;
use super::files::{read_bounded, write_json};

/// 1 was a list of wrapped keys, under the root key in `root.key`.
const SCHEMA: u32 = 2;
/// More are not of our making.
const ROOTS_MAX: usize = 4;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RingFile {
    schema: u32,
    /// One; two while the root key is replaced.
    pub roots: Vec<Root>,
    pub data_keys: Vec<DataKey>,
    /// The new root key for a running site, which has the old one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover: Option<Handover>,
}

/// The data keys under one root key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Root {
    /// [`RootKey::id`]; empty when a version wrote it that gave none.
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_at: Option<Timestamp>,
    pub source: RootSource,
    keys: Vec<WrappedKey>,
}

/// Where a root key comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RootSource {
    /// `root.key`
    File,
    Passphrase(PassphraseCosts),
}

/// What is told of a data key in the clear.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DataKey {
    pub id: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Handover {
    /// The id of the root key that opens it.
    pub from: String,
    pub sealed: String,
}

/// A root key and what is noted of it.
pub struct NamedRoot {
    pub key: RootKey,
    pub source: RootSource,
    pub made_at: Option<Timestamp>,
}

impl RingFile {
    pub fn new(
        root: &NamedRoot,
        ring: &KeyRing,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<Self, SealFault> {
        let mut file = Self { schema: SCHEMA, roots: Vec::new(), data_keys: Vec::new(), handover: None };
        file.set(&[root], ring, now, entropy)?;
        Ok(file)
    }

    /// `None` when there is no file.
    pub fn load(path: &Path) -> Result<Option<Self>, SiteFault> {
        let Some(bytes) = read_bounded(path)? else { return Ok(None) };
        let damaged = |reason: String| SiteFault::Damaged { path: path.to_owned(), reason };
        if bytes.trim_ascii_start().starts_with(b"[") {
            let keys: Vec<WrappedKey> =
                serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
            let data_keys = keys.iter().map(|key| DataKey { id: key.key_id, made_at: None }).collect();
            let root = Root { id: String::new(), made_at: None, source: RootSource::File, keys };
            return Ok(Some(Self { schema: SCHEMA, roots: vec![root], data_keys, handover: None }));
        }
        let file: Self = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if file.schema > SCHEMA {
            return Err(SiteFault::Newer { path: path.to_owned(), schema: file.schema });
        }
        if file.roots.is_empty() || file.roots.len() > ROOTS_MAX {
            return Err(damaged(format!("it has {} root keys", file.roots.len())));
        }
        Ok(Some(file))
    }

    pub fn save(&self, path: &Path) -> Result<(), SiteFault> {
        write_json(path, self)
    }

    /// The data keys, and what is noted of `root`.
    pub fn open(&self, root: &RootKey) -> Result<(KeyRing, &Root), SealFault> {
        let id = root.id();
        let mut found = Err(SealFault::WrongRootKey);
        for entry in self.roots.iter().filter(|entry| entry.id.is_empty() || entry.id == id) {
            found = KeyRing::from_wrapped(root, &entry.keys).map(|ring| (ring, entry));
            if found.is_ok() {
                break;
            }
        }
        found
    }

    pub fn uses_root_file(&self) -> bool {
        self.roots.iter().any(|root| root.source == RootSource::File)
    }

    /// Those of each root key that is made of a passphrase.
    pub fn passphrase_costs(&self) -> impl Iterator<Item = &PassphraseCosts> {
        self.roots.iter().filter_map(|root| match &root.source {
            RootSource::Passphrase(costs) => Some(costs),
            RootSource::File => None,
        })
    }

    /// Holds `ring` under `roots` and no others; nothing is handed over.
    pub fn set(
        &mut self,
        roots: &[&NamedRoot],
        ring: &KeyRing,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<(), SealFault> {
        let wrap = |root: &&NamedRoot| {
            Ok(Root {
                id: root.key.id(),
                made_at: root.made_at,
                source: root.source.clone(),
                keys: ring.wrapped(&root.key, entropy)?,
            })
        };
        self.roots = roots.iter().map(wrap).collect::<Result<_, SealFault>>()?;
        let known = std::mem::take(&mut self.data_keys);
        let made_at = |id| match known.iter().find(|key| key.id == id) {
            Some(key) => key.made_at,
            None => Some(now),
        };
        self.data_keys = ring.key_ids().into_iter().map(|id| DataKey { id, made_at: made_at(id) }).collect();
        self.handover = None;
        Ok(())
    }
}
