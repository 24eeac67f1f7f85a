//! The site's own keys: what seals its store, and its certificate authority.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arcadia_crypto::{KeyRing, PassphraseCosts, RootKey, SealFault, SiteCa, Zeroizing};
use arcadia_kernel::Entropy;
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};

use super::files::{read_bounded, write_atomic};
use super::passphrase::PASSPHRASE_FILE;
use super::ring::{NamedRoot, RingFile, Root, RootSource};
use super::{DataDir, PassphraseSource, SiteFault, SiteRecord};
use crate::net::create_authority;

/// How long others are waited for that have the keys in hand.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
const GLANCE: Duration = Duration::from_millis(20);
/// How long before its end an authority is told of: 365 days.
const AUTHORITY_NOTICE_SECONDS: i64 = 365 * 24 * 60 * 60;

/// Whoever reads the keys shares it; whoever changes them, or takes one away, has it alone. Held for moments, but for
/// backups, during which no key leaves.
pub struct KeysLock {
    _file: Option<File>,
}

impl KeysLock {
    pub fn shared(data: &DataDir) -> Result<Self, SiteFault> {
        let file = Self::open_shared(data)?;
        Self::take(data, file, FlockOperation::NonBlockingLockShared, LOCK_PATIENCE)
    }

    /// For whoever changes keys.
    pub fn exclusive(data: &DataDir) -> Result<Self, SiteFault> {
        Self::alone(data, LOCK_PATIENCE)
    }

    /// Without waiting; fails with [`SiteFault::KeysBusy`] when somebody else has it.
    pub fn try_exclusive(data: &DataDir) -> Result<Self, SiteFault> {
        Self::alone(data, Duration::ZERO)
    }

    fn alone(data: &DataDir, patience: Duration) -> Result<Self, SiteFault> {
        let path = data.keys_lock_file();
        let file = Self::make(&path).map_err(SiteFault::file(&path))?;
        Self::take(data, Some(file), FlockOperation::NonBlockingLockExclusive, patience)
    }

    fn make(path: &Path) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).mode(0o600).open(path)
    }

    /// `None` where there is no file and none can be made: without a directory, or on a file system that cannot be written
    /// to.
    fn open_shared(data: &DataDir) -> Result<Option<File>, SiteFault> {
        use io::ErrorKind::{NotFound, ReadOnlyFilesystem};
        let path = data.keys_lock_file();
        let opened = match File::open(&path) {
            Err(error) if error.kind() == NotFound => Self::make(&path),
            opened => opened,
        };
        match opened {
            Err(error) if [NotFound, ReadOnlyFilesystem].contains(&error.kind()) => Ok(None),
            opened => opened.map(Some).map_err(SiteFault::file(&path)),
        }
    }

    fn take(
        data: &DataDir,
        file: Option<File>,
        how: FlockOperation,
        patience: Duration,
    ) -> Result<Self, SiteFault> {
        let begun = Instant::now();
        while let Some(held) = &file {
            match flock(held, how) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) if begun.elapsed() < patience => {
                    std::thread::sleep(GLANCE)
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(SiteFault::KeysBusy(data.path().to_owned()));
                }
                Err(error) => return Err(SiteFault::file(&data.keys_lock_file())(error.into())),
            }
        }
        Ok(Self { _file: file })
    }
}

/// Everything that seals, open.
pub struct SiteKeys {
    pub root: NamedRoot,
    pub ring: KeyRing,
    pub file: RingFile,
}

/// Where keys are read from: a data directory, or a backup with a root key that is elsewhere.
pub struct KeyPlace<'a> {
    pub ring_file: PathBuf,
    pub root_file: PathBuf,
    pub passphrase: &'a PassphraseSource,
}

impl DataDir {
    pub fn key_place(&self) -> KeyPlace<'_> {
        KeyPlace {
            ring_file: self.ring_file(),
            root_file: self.root_key_file(),
            passphrase: self.passphrase(),
        }
    }
}

impl KeyPlace<'_> {
    /// Opens what is there. The root key is the one in the file when the ring is under it, else it is made of the
    /// passphrase.
    pub fn open(&self) -> Result<SiteKeys, SiteFault> {
        let file =
            RingFile::load(&self.ring_file)?.ok_or_else(|| SiteFault::KeyMissing(self.ring_file.clone()))?;
        let from_file = match file.uses_root_file() {
            true => load_root(&self.root_file)?,
            false => None,
        };
        if let Some(key) = from_file {
            match opened(&file, key) {
                Err(SealFault::WrongRootKey) if file.passphrase_costs().next().is_some() => {}
                Ok((root, ring)) => return Ok(SiteKeys { root, ring, file }),
                Err(SealFault::WrongRootKey) => return Err(SiteFault::WrongRootKey(self.root_file.clone())),
                Err(fault) => return Err(self.damaged(fault)),
            }
        }
        if file.passphrase_costs().next().is_none() {
            return Err(SiteFault::KeyMissing(self.root_file.clone()));
        }
        let passphrase = self.passphrase.get()?;
        let mut found = Err(SealFault::WrongRootKey);
        for costs in file.passphrase_costs() {
            found = opened(&file, RootKey::from_passphrase(&passphrase, costs)?);
            if found.is_ok() {
                break;
            }
        }
        match found {
            Ok((root, ring)) => Ok(SiteKeys { root, ring, file }),
            Err(SealFault::WrongRootKey) => Err(SiteFault::WrongPassphrase),
            Err(fault) => Err(self.damaged(fault)),
        }
    }

    fn damaged(&self, fault: SealFault) -> SiteFault {
        SiteFault::Damaged { path: self.ring_file.clone(), reason: fault.to_string() }
    }
}

fn opened(file: &RingFile, key: RootKey) -> Result<(NamedRoot, KeyRing), SealFault> {
    let (ring, Root { source, made_at, .. }) = file.open(&key)?;
    let root = NamedRoot { key, source: source.clone(), made_at: *made_at };
    Ok((root, ring))
}

/// The keys of a site that exists; nothing is made.
pub fn open_keys(data: &DataDir) -> Result<SiteKeys, SiteFault> {
    let place = data.key_place();
    let Some(file) = RingFile::load(&place.ring_file)? else {
        return Err(SiteFault::KeyMissing(place.ring_file));
    };
    if !file.uses_root_file() {
        // Others should not wait for somebody who types.
        place.passphrase.get()?;
    }
    let _reading = KeysLock::shared(data)?;
    place.open()
}

/// The data keys of a site that exists; nothing is made.
pub fn load_ring(data: &DataDir) -> Result<KeyRing, SiteFault> {
    Ok(open_keys(data)?.ring)
}

/// The keys of a site, made on the first start: under a passphrase when one was given. A root key that is missing later
/// is an error, because a new one would open nothing.
pub fn open_or_create_keys(
    data: &DataDir,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> Result<SiteKeys, SiteFault> {
    let ring_file = data.ring_file();
    if ring_file.exists() {
        return open_keys(data);
    }
    if data.store_file().exists() {
        return Err(SiteFault::KeyMissing(ring_file));
    }
    let _making = KeysLock::exclusive(data)?;
    let damaged =
        |fault: SealFault| SiteFault::Damaged { path: ring_file.clone(), reason: fault.to_string() };
    let root = if data.passphrase().is_given() {
        new_root_of_passphrase(&data.passphrase().choose(PASSPHRASE_FILE)?, entropy, now)?
    } else {
        let root_file = data.root_key_file();
        let key = match load_root(&root_file)? {
            Some(key) => key,
            None => {
                let key = RootKey::generate(entropy);
                write_atomic(&root_file, key.to_bytes().as_slice(), 0o600)?;
                key
            }
        };
        NamedRoot { key, source: RootSource::File, made_at: Some(now) }
    };
    let ring = KeyRing::generate(entropy).map_err(damaged)?;
    let file = RingFile::new(&root, &ring, now, entropy).map_err(damaged)?;
    file.save(&ring_file)?;
    Ok(SiteKeys { root, ring, file })
}

/// A new root key, with a new salt.
pub fn new_root_of_passphrase(
    passphrase: &str,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> Result<NamedRoot, SiteFault> {
    let costs = PassphraseCosts::new(entropy);
    let key = RootKey::from_passphrase(passphrase, &costs)?;
    Ok(NamedRoot { key, source: RootSource::Passphrase(costs), made_at: Some(now) })
}

/// The root key in a file; `None` when there is no file.
pub fn load_root(path: &Path) -> Result<Option<RootKey>, SiteFault> {
    let Some(bytes) = read_bounded(path)?.map(Zeroizing::new) else { return Ok(None) };
    let bytes: Result<&[u8; 32], _> = bytes.as_slice().try_into();
    let wrong =
        |_| SiteFault::Damaged { path: path.to_owned(), reason: "a root key has 32 bytes".to_owned() };
    bytes.map(|bytes| Some(RootKey::from_bytes(bytes))).map_err(wrong)
}

/// Leaves one root key, the one that is in use, and removes what an interrupted change left. For whoever holds the lock
/// alone.
pub fn settle(
    data: &DataDir,
    keys: &mut SiteKeys,
    now: Timestamp,
    entropy: &dyn Entropy,
) -> Result<(), SiteFault> {
    let settled = keys.file.roots.len() == 1 && keys.file.handover.is_none();
    if !settled || keys.file.roots.iter().any(|root| root.id.is_empty()) {
        agree_on_root(data, keys, entropy)?;
        save_ring(data, keys, now, entropy)?;
    }
    if keys.root.source != RootSource::File {
        remove(&data.root_key_file())?;
    }
    for entry in fs::read_dir(data.path()).map_err(SiteFault::file(data.path()))? {
        let entry = entry.map_err(SiteFault::file(data.path()))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if (name.starts_with("root.key.") || name.starts_with("ring.json.")) && name.ends_with(".new") {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// A running site has its root key in memory, and `root.key` may hold another one by now: the new one of a change that
/// was interrupted. What the ring is left under has to be in the file before.
fn agree_on_root(data: &DataDir, keys: &mut SiteKeys, entropy: &dyn Entropy) -> Result<(), SiteFault> {
    if keys.root.source != RootSource::File {
        return Ok(());
    }
    match root_in_file(data, &keys.file, &keys.ring, entropy) {
        Some((root, _)) => keys.root = root,
        None => write_atomic(&data.root_key_file(), keys.root.key.to_bytes().as_slice(), 0o600)?,
    }
    Ok(())
}

/// The root key in `root.key`, and the ring as it is under that: only one with the data key that `known` seals under,
/// which nobody has who puts a key of their own there.
pub fn root_in_file(
    data: &DataDir,
    file: &RingFile,
    known: &KeyRing,
    entropy: &dyn Entropy,
) -> Option<(NamedRoot, KeyRing)> {
    // One that cannot be read is as good as none.
    let key = load_root(&data.root_key_file()).ok()??;
    let (root, ring) = opened(file, key).ok()?;
    let proof = known.seal(b"", b"", entropy).ok()?;
    ring.open(b"", &proof).is_ok().then_some((root, ring))
}

/// Writes the ring as it is now under the one root key.
pub fn save_ring(
    data: &DataDir,
    keys: &mut SiteKeys,
    now: Timestamp,
    entropy: &dyn Entropy,
) -> Result<(), SiteFault> {
    let path = data.ring_file();
    let fault = |fault: SealFault| SiteFault::Damaged { path: path.clone(), reason: fault.to_string() };
    keys.file.set(&[&keys.root], &keys.ring, now, entropy).map_err(fault)?;
    keys.file.save(&path)
}

/// A file that is gone is as good as one that was removed.
pub(super) fn remove(path: &Path) -> Result<(), SiteFault> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(SiteFault::file(path)(error)),
    }
}

/// The site's certificate authority, made on the first start. `record` says whether this is one.
pub fn load_or_create_authority(
    data: &DataDir,
    record: &SiteRecord,
    now_seconds: i64,
) -> Result<SiteCa, SiteFault> {
    let (certificate_file, key_file) = (data.ca_file(), data.ca_key_file());
    let damaged = |reason: String| SiteFault::Damaged { path: certificate_file.clone(), reason };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|error| damaged(error.to_string()));
    match (read_bounded(&certificate_file)?, read_bounded(&key_file)?) {
        (Some(certificate), Some(key)) => {
            let key = arcadia_crypto::Zeroizing::new(text(key)?);
            SiteCa::from_pem(&text(certificate)?, &key).map_err(|fault| damaged(fault.to_string()))
        }
        (Some(_), None) => Err(SiteFault::KeyMissing(key_file)),
        // The port is kept by the first start that has an authority, and the key is the only one that clients trust.
        (None, _) if record.port.is_some() => Err(SiteFault::AuthorityMissing(certificate_file)),
        // A key without its certificate is what a crash during the first start leaves: nobody trusts it yet.
        (None, _) => {
            let label = record.tenant_id.simple().to_string();
            let ca = create_authority(&record.names(), &label[..8], now_seconds)
                .map_err(|fault| damaged(fault.to_string()))?;
            write_atomic(&key_file, ca.key_pem().as_bytes(), 0o600)?;
            write_atomic(&certificate_file, ca.certificate_pem().as_bytes(), 0o644)?;
            Ok(ca)
        }
    }
}

/// What is to be told of a certificate authority that ends within a year, has ended, or has not begun. Nothing of one that
/// cannot be read: whoever starts the site is told why.
pub fn authority_notice(data: &DataDir, now: Timestamp) -> Option<String> {
    let read = |path: PathBuf| String::from_utf8(read_bounded(&path).ok()??).ok().map(Zeroizing::new);
    let ca = SiteCa::from_pem(&read(data.ca_file())?, &read(data.ca_key_file())?).ok()?;
    let end = Timestamp::from_second(ca.not_after_seconds()).ok()?;
    if end <= now {
        return Some(format!(
            "the site's certificate authority ended on {end}: no client trusts this site any more; go over to another \
             site (`arcadia up --data`)"
        ));
    }
    // No leaf begins before its authority does.
    let leaf = ca.issue_server(&["localhost"], &[], now.as_second(), 1).ok();
    let begin = leaf.and_then(|leaf| Timestamp::from_second(leaf.not_before_seconds).ok());
    if let Some(begin) = begin.filter(|begin| *begin > now) {
        return Some(format!(
            "the site's certificate authority begins on {begin}, and it is {now:.0} here: no client trusts this site \
             before; put the clock right"
        ));
    }
    (end.as_second() - now.as_second() < AUTHORITY_NOTICE_SECONDS).then(|| {
        format!(
            "the site's certificate authority ends on {end}, and no client trusts this site after that: go over to \
             another site (`arcadia up --data`) in time"
        )
    })
}
