//! The keys of a running site: it follows `ring.json`, goes over to a new data key, seals what is there again, and lets
//! go of a key that nothing is under any more.
//!
//! There is no other way to tell a running site of its keys than the file: whoever can write that can stop the site as
//! well. The site looks at it once a second.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arcadia_crypto::{KeyRing, RootKey, SealFault};
use arcadia_kernel::{Gate, Reason};
use arcadia_store::{Batch, Record, ResealPass, Store, Table};
use serde::{Deserialize, Serialize};

use crate::site::{
    DataDir, KeysLock, NamedRoot, RingFile, SiteFault, SiteKeys, root_in_file, save_ring, settle,
};

/// How soon a change of the keys is noticed.
const GLANCE: Duration = Duration::from_secs(1);
/// Between two batches of values that are sealed again, so that others get their turn.
const BREATH: Duration = Duration::from_millis(5);
/// A data key is replaced after this many values: a quarter of what one may seal, so that a site that cannot replace it
/// has time to say so.
pub const VALUES_PER_DATA_KEY_MAX: u64 = 1 << 30;

/// Which keys the site was last seen to use. A change of it is a record in the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeysInUse {
    root_key: String,
    data_key: u32,
    /// All of the ring, so that it is a change when one leaves it. Empty when an earlier version wrote it.
    #[serde(default)]
    key_ids: Vec<u32>,
}

impl Record for KeysInUse {}

const IN_USE: Table<str, KeysInUse> = Table::new("keys_in_use");

/// Identity, size and time of change.
type Print = (u64, u64, i64, i64);

pub struct Keeper {
    pub data: DataDir,
    pub store: Store,
    pub gate: Arc<Gate>,
    pub keys: SiteKeys,
    pub values_per_data_key: u64,
}

/// Runs until it is dropped. What fails is tried again, and said once.
pub async fn keep(mut keeper: Keeper) {
    let (mut seen, mut told) = (None, None);
    loop {
        let done = keeper.tick(&mut seen).await;
        let failed = done.err().map(|error| format!("{error:#}"));
        if failed != told {
            match &failed {
                Some(reason) => tracing::error!(reason, "the keys of the site are not looked after"),
                None => tracing::info!("the keys of the site are looked after again"),
            }
            told = failed;
        }
        tokio::time::sleep(GLANCE).await;
    }
}

impl Keeper {
    async fn tick(&mut self, seen: &mut Option<Print>) -> anyhow::Result<()> {
        let now = self.print()?;
        if *seen != Some(now) {
            if !self.follow_file()? {
                return Ok(());
            }
            *seen = Some(self.print()?);
        }
        if self.store.seals() >= self.values_per_data_key && !self.rotate()? {
            return Ok(());
        }
        self.record_keys().await?;
        if self.keys.ring.key_ids().len() > 1 && self.store.is_settled() {
            self.reseal().await?;
            self.retire_old_keys()?;
            self.record_keys().await?;
        }
        Ok(())
    }

    fn print(&self) -> anyhow::Result<Print> {
        let path = self.data.ring_file();
        let found = path.metadata().with_context(|| path.display().to_string())?;
        Ok((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
    }

    /// Takes over what the file says. `false` when somebody else has the keys in hand: it is read later.
    fn follow_file(&mut self) -> anyhow::Result<bool> {
        let Some(_alone) = self.alone()? else { return Ok(false) };
        self.read()?;
        Ok(true)
    }

    /// A new data key, of the site's own accord.
    fn rotate(&mut self) -> anyhow::Result<bool> {
        let Some(_alone) = self.alone()? else { return Ok(false) };
        self.read()?;
        let mut ring = self.keys.ring.clone();
        let id = ring.rotate(&*self.gate.entropy)?;
        self.save(ring)?;
        tracing::info!(id, "the data key has sealed enough values and was replaced");
        Ok(true)
    }

    async fn reseal(&self) -> anyhow::Result<()> {
        let (mut pass, mut resealed) = (ResealPass::default(), 0);
        loop {
            let step = self.store.reseal(&mut pass).await?;
            resealed += step.resealed;
            if step.done {
                break;
            }
            tokio::time::sleep(BREATH).await;
        }
        tracing::info!(resealed, "what was under an older data key is sealed again");
        Ok(())
    }

    /// After a whole walk that began when nothing older was under way any more.
    fn retire_old_keys(&mut self) -> anyhow::Result<()> {
        let Some(_alone) = self.alone()? else { return Ok(()) };
        let before = self.keys.ring.key_ids();
        self.read()?;
        // A newer key came meanwhile: then the one that was walked for is an old one by now.
        if self.keys.ring.key_ids() != before {
            return Ok(());
        }
        let mut ring = self.keys.ring.clone();
        ring.retire_old_keys();
        self.save(ring)?;
        tracing::info!("older data keys have left the ring");
        Ok(())
    }

    /// The file first: nothing is sealed under a key that a crash could lose.
    fn save(&mut self, ring: KeyRing) -> anyhow::Result<()> {
        let old = std::mem::replace(&mut self.keys.ring, ring.clone());
        let (now, entropy) = (self.gate.clock.now(), self.gate.entropy.clone());
        if let Err(fault) = save_ring(&self.data, &mut self.keys, now, &*entropy) {
            self.keys.ring = old;
            return Err(fault.into());
        }
        self.store.renew_ring(ring);
        Ok(())
    }

    fn alone(&self) -> Result<Option<KeysLock>, SiteFault> {
        match KeysLock::try_exclusive(&self.data) {
            Ok(lock) => Ok(Some(lock)),
            Err(SiteFault::KeysBusy(_)) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// The keys as the file has them, with the root key that the site has or is handed. A change of it that was
    /// interrupted is settled, before anything else is written under one of its keys.
    fn read(&mut self) -> anyhow::Result<()> {
        let path = self.data.ring_file();
        let file = RingFile::load(&path)?.with_context(|| format!("{} is missing", path.display()))?;
        let handed = match &file.handover {
            Some(handover) if handover.from == self.keys.root.key.id() => {
                Some(self.keys.root.key.open_sealed(&handover.sealed)?)
            }
            _ => None,
        };
        let (root, ring) = self.opened(&file, handed).with_context(|| path.display().to_string())?;
        let in_use = self.store.data_keys();
        if in_use.last() > ring.key_ids().last() {
            anyhow::bail!(
                "{} has been put back to an earlier state: it lacks data key {}, which the site uses; put the \
                 right one back, or this site will not open again",
                path.display(),
                in_use.last().copied().unwrap_or_default()
            );
        }
        let changed = ring.key_ids() != in_use;
        self.keys = SiteKeys { root, ring: ring.clone(), file };
        let (now, entropy) = (self.gate.clock.now(), self.gate.entropy.clone());
        settle(&self.data, &mut self.keys, now, &*entropy)?;
        if changed {
            self.store.renew_ring(ring);
        }
        Ok(())
    }

    /// Where the file has the root key no more that the site has, another command has settled a change that was
    /// interrupted, which hands nothing over: the new one is in `root.key`.
    fn opened(&self, file: &RingFile, handed: Option<RootKey>) -> Result<(NamedRoot, KeyRing), SealFault> {
        let key = handed.unwrap_or_else(|| self.keys.root.key.clone());
        match file.open(&key) {
            Ok((ring, root)) => {
                // Where its own comes from the site knows, whatever is written there now.
                let is_own = key.id() == self.keys.root.key.id();
                let source = if is_own { &self.keys.root.source } else { &root.source }.clone();
                Ok((NamedRoot { key, source, made_at: root.made_at }, ring))
            }
            Err(fault) => root_in_file(&self.data, file, &self.keys.ring, &*self.gate.entropy).ok_or(fault),
        }
    }

    /// A record of each change of the keys, also of one that was made while the site was stopped. Under the new key, it
    /// shows that the site has gone over to it.
    pub async fn record_keys(&self) -> anyhow::Result<()> {
        let SiteKeys { root, ring, .. } = &self.keys;
        let (data_key, key_ids) = (ring.current_key_id(), ring.key_ids());
        let now = KeysInUse { root_key: root.key.id(), data_key, key_ids };
        let before = self.store.get(IN_USE, "site").await?;
        if before.is_some_and(|row| row.value == now) {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.put(IN_USE, "site", &now)?;
        let permit = self.gate.as_system(Reason::Keys);
        self.store.commit(permit.stamp(), batch).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
