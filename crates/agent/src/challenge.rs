//! Challenge files: proof that a caller may read what only root and the group `himds` may read.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arcadia_crypto::{Zeroizing, constant_time_eq, sha256};
use arcadia_kernel::{Clock, Entropy, EntropyExt as _};

use crate::accounts::{Accounts, Owner};
use crate::files::{create_in, remove_in};
use crate::layout::Part;
use crate::{AgentFault, HimdsLimits, Layout};

/// 288 bits; written as 48 characters without a line break, well under the 4096 bytes that clients accept.
const SECRET_BYTES: usize = 36;

/// The files that wait to be used. Each opens one token request and is then gone; nothing else is bound to it.
pub(crate) struct Challenges {
    layout: Layout,
    accounts: Accounts,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    outstanding_max: usize,
    lifetime_seconds: i64,
    /// Oldest first. In memory only: after a restart every file is void, and swept.
    outstanding: Mutex<VecDeque<Issued>>,
}

struct Issued {
    name: String,
    digest: [u8; 32],
    expires_at: i64,
    /// Who asked for it, where the system says.
    user: Option<u32>,
}

impl Challenges {
    pub(crate) fn new(
        layout: Layout,
        accounts: Accounts,
        limits: &HimdsLimits,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self {
            layout,
            accounts,
            clock,
            entropy,
            outstanding_max: limits.challenges_max.max(1),
            lifetime_seconds: limits.challenge_lifetime_seconds,
            outstanding: Mutex::new(VecDeque::new()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Issued>> {
        self.outstanding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a new file for a local user and gives its path. It is complete and has its owner before anyone hears of it.
    pub(crate) fn issue(&self, user: Option<u32>) -> Result<PathBuf, AgentFault> {
        let name = format!("{}.key", self.entropy.uuid());
        let path = self.layout.tokens().join(&name);
        let secret = Zeroizing::new(self.entropy.token(SECRET_BYTES));
        self.write(&name, secret.as_bytes())
            .map_err(|fault| AgentFault::file("cannot write the challenge", &path, fault))?;
        let expires_at = self.clock.epoch_seconds() + self.lifetime_seconds;
        let issued = Issued { name, digest: sha256(secret.as_bytes()), expires_at, user };
        let crowded_out = {
            let mut outstanding = self.lock();
            outstanding.push_back(issued);
            if outstanding.len() > self.outstanding_max { crowded_out(&mut outstanding) } else { None }
        };
        self.remove(crowded_out.map(|issued| issued.name));
        Ok(path)
    }

    fn write(&self, name: &str, secret: &[u8]) -> io::Result<()> {
        let folder = self.layout.open_part(Part::Tokens)?;
        let write = || {
            let mut file = create_in(&folder, name)?;
            file.write_all(secret)?;
            self.accounts.give(&file, Owner::Himds, 0o440, 0o400)
        };
        write().inspect_err(|_| {
            let _ = remove_in(&folder, name);
        })
    }

    /// Uses up the challenge whose file holds `secret`. However many ask at once with the same secret, one is told
    /// `true`; its file is gone by then.
    pub(crate) fn redeem(&self, secret: &[u8]) -> bool {
        let digest = sha256(secret);
        let now = self.clock.epoch_seconds();
        let used = {
            let mut outstanding = self.lock();
            let mut found = None;
            // All are compared, whichever it is, so that the time taken tells nothing.
            for (index, issued) in outstanding.iter().enumerate() {
                if constant_time_eq(&issued.digest, &digest) {
                    found = Some(index);
                }
            }
            found.and_then(|index| outstanding.remove(index))
        };
        let is_valid = used.as_ref().is_some_and(|issued| now < issued.expires_at);
        self.remove(used.map(|issued| issued.name));
        is_valid
    }

    /// Removes files that nobody used in time.
    pub(crate) fn sweep_expired(&self) -> usize {
        let now = self.clock.epoch_seconds();
        let mut expired = Vec::new();
        self.lock().retain_mut(|issued| {
            let keep = now < issued.expires_at;
            if !keep {
                expired.push(std::mem::take(&mut issued.name));
            }
            keep
        });
        let count = expired.len();
        self.remove(expired);
        count
    }

    /// Empties the folder of what an earlier daemon or someone else left. Links are removed, never followed.
    pub(crate) fn sweep_all(&self) -> Result<usize, AgentFault> {
        let path = self.layout.tokens();
        let fault = |source| AgentFault::file("cannot empty", &path, source);
        let folder = self.layout.open_part(Part::Tokens).map_err(fault)?;
        self.lock().clear();
        let mut count = 0;
        for entry in std::fs::read_dir(&path).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            if entry.file_type().map_err(fault)?.is_dir() {
                continue;
            }
            let name = entry.file_name();
            rustix::fs::unlinkat(&folder, &name, rustix::fs::AtFlags::empty())
                .or_else(|errno| if errno == rustix::io::Errno::NOENT { Ok(()) } else { Err(errno) })
                .map_err(|errno| fault(errno.into()))?;
            count += 1;
        }
        Ok(count)
    }

    fn remove(&self, names: impl IntoIterator<Item = String>) {
        let mut names = names.into_iter().peekable();
        if names.peek().is_none() {
            return;
        }
        let folder = match self.layout.open_part(Part::Tokens) {
            Ok(folder) => folder,
            Err(fault) => return tracing::warn!(%fault, "used challenges cannot be removed"),
        };
        for name in names {
            // The secret is void already; a file that stays opens nothing.
            if let Err(fault) = remove_in(&folder, &name) {
                tracing::warn!(name, %fault, "a used challenge cannot be removed");
            }
        }
    }
}

/// The oldest of the user who has most: whoever asks without end makes nobody's file void but their own.
fn crowded_out(outstanding: &mut VecDeque<Issued>) -> Option<Issued> {
    let mut counts: HashMap<Option<u32>, usize> = HashMap::new();
    for issued in &*outstanding {
        *counts.entry(issued.user).or_default() += 1;
    }
    let (most, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    let oldest = outstanding.iter().position(|issued| issued.user == most)?;
    outstanding.remove(oldest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcadia_crypto::SystemEntropy;
    use arcadia_kernel::FixedClock;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use tempfile::TempDir;

    struct Bench {
        _folder: TempDir,
        layout: Layout,
        clock: Arc<FixedClock>,
        challenges: Challenges,
    }

    fn bench(challenges_max: usize) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path().to_owned());
        layout.prepare(&Accounts::default()).unwrap();
        let clock = Arc::new(FixedClock::at_epoch_seconds(1000));
        let limits = HimdsLimits { challenges_max, ..HimdsLimits::default() };
        let challenges = Challenges::new(
            layout.clone(),
            Accounts::default(),
            &limits,
            clock.clone(),
            Arc::new(SystemEntropy),
        );
        Bench { _folder: folder, layout, clock, challenges }
    }

    impl Bench {
        fn files(&self) -> usize {
            std::fs::read_dir(self.layout.tokens()).unwrap().count()
        }
    }

    #[test]
    fn one_use_and_the_file_is_gone() {
        let bench = bench(8);
        let path = bench.challenges.issue(Some(1000)).unwrap();
        let secret = std::fs::read(&path).unwrap();
        assert_eq!(secret.len(), 48);
        assert!(secret.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte)));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o400);
        assert!(!bench.challenges.redeem(&secret[..47]));
        assert!(!bench.challenges.redeem(&[&secret[..], b"\n"].concat()));
        assert!(!bench.challenges.redeem(b""));
        assert!(path.exists());
        assert!(bench.challenges.redeem(&secret));
        assert!(!path.exists());
        assert!(!bench.challenges.redeem(&secret));
    }

    #[test]
    fn a_race_has_one_winner() {
        let bench = bench(8);
        for _ in 0..50 {
            let secret = std::fs::read(bench.challenges.issue(Some(1000)).unwrap()).unwrap();
            let winners: usize = std::thread::scope(|scope| {
                let threads: Vec<_> =
                    (0..8).map(|_| scope.spawn(|| usize::from(bench.challenges.redeem(&secret)))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(winners, 1);
        }
        assert_eq!(bench.files(), 0);
    }

    #[test]
    fn unused_ones_expire_and_are_swept() {
        let bench = bench(8);
        let old = std::fs::read(bench.challenges.issue(Some(1000)).unwrap()).unwrap();
        bench.clock.advance_seconds(299);
        let young = std::fs::read(bench.challenges.issue(Some(1000)).unwrap()).unwrap();
        assert_eq!(bench.challenges.sweep_expired(), 0);
        bench.clock.advance_seconds(1);
        assert_eq!(bench.challenges.sweep_expired(), 1);
        assert_eq!(bench.files(), 1);
        assert!(!bench.challenges.redeem(&old));
        bench.clock.advance_seconds(299);
        assert!(!bench.challenges.redeem(&young), "expired, though not swept yet");
        assert_eq!(bench.files(), 0);
    }

    #[test]
    fn the_oldest_makes_room() {
        let bench = bench(3);
        let secrets: Vec<_> =
            (0..5).map(|_| std::fs::read(bench.challenges.issue(Some(1000)).unwrap()).unwrap()).collect();
        assert_eq!(bench.files(), 3);
        let valid: Vec<_> = secrets.iter().map(|secret| bench.challenges.redeem(secret)).collect();
        assert_eq!(valid, [false, false, true, true, true]);
    }

    #[test]
    fn who_asks_without_end_makes_no_file_of_others_void() {
        let bench = bench(4);
        let issue = |user| std::fs::read(bench.challenges.issue(user).unwrap()).unwrap();
        let (own, other) = (issue(Some(0)), issue(Some(33)));
        let many: Vec<_> = (0..20).map(|_| issue(Some(1000))).collect();
        let unknown = issue(None);
        assert_eq!(bench.files(), 4);
        for secret in [&own, &other, &unknown, &many[19]] {
            assert!(bench.challenges.redeem(secret));
        }
        assert!(!bench.challenges.redeem(&many[18]));
    }

    #[test]
    fn leftovers_go_at_the_start_and_links_are_not_followed() {
        let bench = bench(3);
        let outside = bench.layout.root().join("precious");
        std::fs::write(&outside, b"x").unwrap();
        symlink(&outside, bench.layout.tokens().join("planted.key")).unwrap();
        symlink(bench.layout.root(), bench.layout.tokens().join("folder-link")).unwrap();
        std::fs::write(bench.layout.tokens().join("stale.key"), b"s").unwrap();
        let secret = std::fs::read(bench.challenges.issue(Some(1000)).unwrap()).unwrap();
        assert_eq!(bench.challenges.sweep_all().unwrap(), 4);
        assert_eq!(bench.files(), 0);
        assert!(outside.exists());
        assert!(!bench.challenges.redeem(&secret));
    }

    #[test]
    fn a_linked_folder_is_not_written_to() {
        let bench = bench(3);
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::remove_dir(bench.layout.tokens()).unwrap();
        symlink(elsewhere.path(), bench.layout.tokens()).unwrap();
        assert!(bench.challenges.issue(Some(1000)).is_err());
        assert!(bench.challenges.sweep_all().is_err());
        assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }
}
