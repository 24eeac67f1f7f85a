//! Another root key, in steps after each of which the site opens: whatever stops it, the old root key or the new one
//! is the site's, and the next start settles on that one.

use std::fs;

use arcadia_crypto::{RootKey, SealFault};
use arcadia_kernel::Entropy;
use jiff::Timestamp;

use super::files::write_atomic;
use super::keys::remove;
use super::ring::{Handover, NamedRoot, RootSource};
use super::{DataDir, SiteFault, SiteKeys};

/// From the root key of `keys` to `new`. For whoever holds the lock of the keys alone.
pub struct RootChange<'a> {
    pub data: &'a DataDir,
    pub keys: SiteKeys,
    pub new: NamedRoot,
    /// A running site has the old root key, and is handed the new one.
    pub running: bool,
    pub now: Timestamp,
    pub entropy: &'a dyn Entropy,
}

type Step<'a> = fn(&mut RootChange<'a>) -> Result<(), SiteFault>;

impl<'a> RootChange<'a> {
    /// A new random key in `root.key`.
    pub fn new_file_root(entropy: &dyn Entropy, now: Timestamp) -> NamedRoot {
        NamedRoot { key: RootKey::generate(entropy), source: RootSource::File, made_at: Some(now) }
    }

    const STEPS: [Step<'a>; 5] = [
        Self::write_new_file,
        Self::wrap_under_both,
        Self::put_new_file_in_place,
        Self::wrap_under_new,
        Self::remove_old_file,
    ];

    pub fn run(mut self) -> Result<(), SiteFault> {
        Self::STEPS.iter().try_for_each(|step| step(&mut self))
    }

    fn to_file(&self) -> bool {
        self.new.source == RootSource::File
    }

    fn new_file(&self) -> std::path::PathBuf {
        self.data.path().join("root.key.next.new")
    }

    fn write_new_file(&mut self) -> Result<(), SiteFault> {
        if !self.to_file() {
            return Ok(());
        }
        write_atomic(&self.new_file(), self.new.key.to_bytes().as_slice(), 0o600)
    }

    fn wrap_under_both(&mut self) -> Result<(), SiteFault> {
        self.wrap(true)
    }

    fn put_new_file_in_place(&mut self) -> Result<(), SiteFault> {
        if !self.to_file() {
            return Ok(());
        }
        let path = self.data.root_key_file();
        fs::rename(self.new_file(), &path)
            .and_then(|()| fs::File::open(self.data.path())?.sync_all())
            .map_err(SiteFault::file(&path))
    }

    fn wrap_under_new(&mut self) -> Result<(), SiteFault> {
        self.wrap(false)
    }

    fn remove_old_file(&mut self) -> Result<(), SiteFault> {
        if self.to_file() { Ok(()) } else { remove(&self.data.root_key_file()) }
    }

    fn wrap(&mut self, both: bool) -> Result<(), SiteFault> {
        let path = self.data.ring_file();
        let fault = |fault: SealFault| SiteFault::Damaged { path: path.clone(), reason: fault.to_string() };
        let SiteKeys { root: old, ring, file } = &mut self.keys;
        let roots: &[&NamedRoot] = if both { &[old, &self.new] } else { &[&self.new] };
        file.set(roots, ring, self.now, self.entropy).map_err(fault)?;
        if self.running && !both {
            let sealed = self.new.key.sealed_under(&old.key, self.entropy).map_err(fault)?;
            file.handover = Some(Handover { from: old.key.id(), sealed });
        }
        file.save(&path)
    }
}

#[cfg(test)]
mod tests {
    use arcadia_crypto::{SystemEntropy, Zeroizing};
    use tempfile::TempDir;

    use super::*;
    use crate::site::{KeysLock, PassphraseSource, RingFile, open_keys, open_or_create_keys, settle};

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    /// `None`: a root key in a file.
    type Secret = Option<&'static str>;
    const KINDS: [(Secret, Secret); 4] = [
        (None, None),
        (None, Some("the first passphrase")),
        (Some("the first passphrase"), None),
        (Some("the first passphrase"), Some("the second passphrase")),
    ];

    fn site(folder: &TempDir, secret: Secret) -> DataDir {
        let data = DataDir::at(folder.path().to_owned()).unlocked_by(None);
        if let Some(secret) = secret {
            data.passphrase().set(Zeroizing::new(secret.to_owned()));
        }
        data
    }

    fn new_root(secret: Secret) -> NamedRoot {
        match secret {
            None => RootChange::new_file_root(&SystemEntropy, NOW),
            Some(secret) => super::super::new_root_of_passphrase(secret, &SystemEntropy, NOW).unwrap(),
        }
    }

    /// Does the first steps, as if the process had been killed after them.
    fn change(data: &DataDir, new: NamedRoot, running: bool, steps: usize) {
        let _alone = KeysLock::exclusive(data).unwrap();
        let keys = data.key_place().open().unwrap();
        let mut change = RootChange { data, keys, new, running, now: NOW, entropy: &SystemEntropy };
        for step in &RootChange::STEPS[..steps] {
            step(&mut change).unwrap();
        }
    }

    fn opens(data: &DataDir, sealed: &[u8]) -> bool {
        open_keys(data).is_ok_and(|keys| keys.ring.open(b"place", sealed).is_ok())
    }

    #[test]
    fn stopped_after_any_step_the_site_opens_by_the_old_root_key_or_the_new_one_and_settles() {
        for (from, to) in KINDS {
            for steps in 0..=RootChange::STEPS.len() {
                let folder = TempDir::new().unwrap();
                let data = site(&folder, from);
                let keys = open_or_create_keys(&data, &SystemEntropy, NOW).unwrap();
                let (old_id, ring) = (keys.root.key.id(), keys.ring);
                let sealed = ring.seal(b"place", b"value", &SystemEntropy).unwrap();
                let new = new_root(to);
                let new_id = new.key.id();
                change(&data, new, steps % 2 == 0, steps);

                let (before, after) = (site(&folder, from), site(&folder, to));
                let case = format!("{from:?} to {to:?} after {steps}");
                let data = if opens(&after, &sealed) { &after } else { &before };
                assert!(opens(data, &sealed), "{case}");
                assert!(steps < RootChange::STEPS.len() || opens(&after, &sealed), "{case}: it is done");
                let _alone = KeysLock::exclusive(data).unwrap();
                let mut keys = data.key_place().open().unwrap();
                settle(data, &mut keys, NOW, &SystemEntropy).unwrap();
                assert!([&old_id, &new_id].contains(&&keys.root.key.id()), "{case}");
                let again = data.key_place().open().unwrap();
                assert_eq!(again.root.key.id(), keys.root.key.id(), "{case}");
                assert_eq!((again.file.roots.len(), again.file.handover.is_none()), (1, true), "{case}");
                assert!(again.ring.open(b"place", &sealed).is_ok(), "{case}");
                let mut names: Vec<_> =
                    fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
                names.sort();
                let in_file = again.root.source == RootSource::File;
                let expected: &[&str] = if in_file {
                    &["keys.lock", "ring.json", "root.key"]
                } else {
                    &["keys.lock", "ring.json"]
                };
                assert_eq!(names, expected, "{case}");
            }
        }
    }

    /// It has the old root key in memory, whatever the file holds by now.
    #[test]
    fn stopped_before_the_handover_a_running_site_settles_on_a_root_key_that_opens_it_later() {
        for (from, to) in KINDS {
            for steps in 0..RootChange::STEPS.len() - 1 {
                let folder = TempDir::new().unwrap();
                let data = site(&folder, from);
                let mut keys = open_or_create_keys(&data, &SystemEntropy, NOW).unwrap();
                let sealed = keys.ring.seal(b"place", b"value", &SystemEntropy).unwrap();
                change(&data, new_root(to), true, steps);
                keys.file = RingFile::load(&data.ring_file()).unwrap().unwrap();
                assert!(keys.file.handover.is_none());
                settle(&data, &mut keys, NOW, &SystemEntropy).unwrap();

                let case = format!("{from:?} to {to:?} after {steps}");
                let found = [from, to].map(|secret| open_keys(&site(&folder, secret)).ok());
                let again = found.into_iter().flatten().next().unwrap_or_else(|| panic!("{case}: lost"));
                assert!(again.ring.open(b"place", &sealed).is_ok(), "{case}");
                assert_eq!(again.root.key.id(), keys.root.key.id(), "{case}: the site's own");
            }
        }
    }

    #[test]
    fn a_root_key_file_that_is_spoilt_in_the_middle_of_a_change_is_written_again() {
        let folder = TempDir::new().unwrap();
        let data = site(&folder, None);
        let mut keys = open_or_create_keys(&data, &SystemEntropy, NOW).unwrap();
        change(&data, new_root(None), true, 2);
        fs::write(data.root_key_file(), "cut").unwrap();
        keys.file = RingFile::load(&data.ring_file()).unwrap().unwrap();
        settle(&data, &mut keys, NOW, &SystemEntropy).unwrap();
        assert_eq!(open_keys(&data).unwrap().root.key.id(), keys.root.key.id());
    }

    /// Who can write to the data directory and no more does not come by the data keys of a running site.
    #[test]
    fn a_root_key_that_somebody_else_put_there_is_not_taken_over() {
        let folder = TempDir::new().unwrap();
        let data = site(&folder, None);
        let mut keys = open_or_create_keys(&data, &SystemEntropy, NOW).unwrap();
        let own = keys.root.key.id();
        let (foreign, ring) = (new_root(None), arcadia_crypto::KeyRing::generate(&SystemEntropy).unwrap());
        let other = RingFile::new(&foreign, &ring, NOW, &SystemEntropy).unwrap();
        keys.file.roots.extend(other.roots);
        fs::write(data.root_key_file(), foreign.key.to_bytes()).unwrap();
        settle(&data, &mut keys, NOW, &SystemEntropy).unwrap();
        let again = open_keys(&data).unwrap();
        assert_eq!((again.root.key.id(), again.file.roots.len()), (own, 1));
    }

    #[test]
    fn the_old_root_key_opens_no_more() {
        for (from, to) in KINDS {
            let folder = TempDir::new().unwrap();
            let data = site(&folder, from);
            open_or_create_keys(&data, &SystemEntropy, NOW).unwrap();
            let old_file = fs::read(data.root_key_file()).ok();
            change(&data, new_root(to), false, RootChange::STEPS.len());
            // What there was before, and nothing else.
            remove(&data.root_key_file()).unwrap();
            if let Some(old) = old_file {
                fs::write(data.root_key_file(), old).unwrap();
            }
            let refused = open_keys(&site(&folder, from)).err();
            let refused =
                refused.unwrap_or_else(|| panic!("{from:?} to {to:?}: the old one opens")).to_string();
            assert!(!refused.contains("passphrase of the site is"), "{refused}");
        }
    }

    #[test]
    fn a_running_site_is_handed_the_new_root_key_and_nobody_else() {
        let folder = TempDir::new().unwrap();
        let data = site(&folder, None);
        let old = open_or_create_keys(&data, &SystemEntropy, NOW).unwrap().root.key;
        change(&data, new_root(Some("the first passphrase")), true, RootChange::STEPS.len());
        let keys = open_keys(&site(&folder, Some("the first passphrase"))).unwrap();
        let handover = keys.file.handover.clone().unwrap();
        assert_eq!(handover.from, old.id());
        assert_eq!(old.open_sealed(&handover.sealed).unwrap().id(), keys.root.key.id());
        assert!(keys.file.open(&old).is_err(), "the old one opens no data key");
    }

    #[test]
    fn a_wrong_passphrase_changes_nothing() {
        let folder = TempDir::new().unwrap();
        let data = site(&folder, Some("the first passphrase"));
        open_or_create_keys(&data, &SystemEntropy, NOW).unwrap();
        let before = fs::read(data.ring_file()).unwrap();
        let wrong = site(&folder, Some("another passphrase"));
        assert!(matches!(open_keys(&wrong), Err(SiteFault::WrongPassphrase)));
        assert!(matches!(open_or_create_keys(&wrong, &SystemEntropy, NOW), Err(SiteFault::WrongPassphrase)));
        assert_eq!(fs::read(data.ring_file()).unwrap(), before);
        assert!(!data.root_key_file().exists());
        let missing = PassphraseSource::file(Some(folder.path().join("none")));
        assert!(matches!(missing.get(), Err(SiteFault::PassphraseFile { .. })));
    }
}
