use arcadia_crypto::SystemEntropy;
use tempfile::TempDir;

use super::*;

fn data() -> (TempDir, DataDir) {
    let folder = TempDir::new().unwrap();
    let data = DataDir::at(folder.path().join("site"));
    data.prepare().unwrap();
    (folder, data)
}

fn record() -> SiteRecord {
    let none = uuid::Uuid::nil();
    SiteRecord::new(none, none, "a.example".into(), None, jiff::Timestamp::UNIX_EPOCH)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_directory_is_closed_to_others() {
    let (_folder, data) = data();
    assert_eq!(mode(data.path()), 0o700);
    fs::set_permissions(data.path(), fs::Permissions::from_mode(0o755)).unwrap();
    data.prepare().unwrap();
    assert_eq!(mode(data.path()), 0o700);
    let file = data.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(matches!(DataDir::at(file).prepare(), Err(SiteFault::NotADirectory(_))));
    let longest = |bytes: usize| DataDir::at(PathBuf::from(format!("/{}", "x".repeat(bytes - 1))));
    assert!(longest(PATH_BYTES_MAX).check_path().is_ok());
    assert!(longest(PATH_BYTES_MAX).proxy_socket().as_os_str().len() <= 107);
    assert!(matches!(longest(PATH_BYTES_MAX + 1).check_path(), Err(SiteFault::PathTooLong(_))));
}

#[test]
fn only_a_sites_directory_or_an_empty_one_is_closed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("shared");
    let data = DataDir::at(path.clone());
    let open_to_all = || fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(path.join("lock")).unwrap();
    open_to_all();
    let refused = data.prepare().unwrap_err();
    assert!(matches!(refused, SiteFault::NotASite(_)), "{refused}");
    assert!(refused.to_string().contains("--data"), "{refused}");
    assert_eq!(mode(&path), 0o755);
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "nothing is made in it");
    fs::remove_dir(path.join("lock")).unwrap();
    fs::create_dir(path.join("lost+found")).unwrap();
    data.prepare().unwrap();
    assert_eq!(mode(&path), 0o700);
    data.prepare().unwrap(); // A start that ended early is no obstacle.
    open_to_all();
    fs::write(path.join("other"), "x").unwrap();
    assert!(data.prepare().is_err());
    for name in OF_A_SITE {
        fs::write(path.join(name), "x").unwrap();
        data.prepare().unwrap_or_else(|fault| panic!("{name}: {fault}"));
        assert_eq!(mode(&path), 0o700);
        fs::remove_file(path.join(name)).unwrap();
        open_to_all();
    }
}

#[test]
fn what_others_may_write_to_is_a_site_only_while_nothing_is_in_it() {
    let folder = TempDir::new().unwrap();
    let (path, link) = (folder.path().join("shared"), folder.path().join("link"));
    fs::create_dir(&path).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for open in [0o1777, 0o775, 0o702] {
        let set = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        set(open);
        DataDir::ours(link.clone()).unwrap().prepare().unwrap();
        assert_eq!(mode(&path), 0o700);
        fs::write(path.join("lock"), "").unwrap();
        set(0o755);
        DataDir::ours(link.clone()).unwrap();
        set(open);
        for refused in [DataDir::ours(link.clone()).err(), DataDir::at(path.clone()).prepare().err()] {
            let told = refused.unwrap();
            assert!(
                matches!(told, SiteFault::Writable(_)) && told.to_string().contains("`chmod go-w "),
                "{told}"
            );
        }
        assert_eq!(mode(&path), open, "it may be another's to close");
        for name in ["lock", "log", "env"] {
            let path = path.join(name);
            if path.is_dir() { fs::remove_dir(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
    }
}

#[test]
fn one_lock_at_a_time() {
    let (_folder, data) = data();
    assert_eq!(holder(&data.lock_file()).unwrap(), None);
    let lock = Lock::take(&data.lock_file()).unwrap();
    let own = std::process::id() as i32;
    assert_eq!(holder(&data.lock_file()).unwrap(), Some(Some(own)));
    let held = Lock::take(&data.lock_file()).err().unwrap();
    assert!(held.to_string().contains(&format!("pid {own}")), "{held}");
    drop(lock);
    assert_eq!(holder(&data.lock_file()).unwrap(), None);
    // A stale file without a holder is no obstacle.
    assert!(data.lock_file().exists());
    Lock::take(&data.lock_file()).unwrap();
}

#[test]
fn a_backup_keeps_sites_from_starting_and_is_none() {
    let (_folder, data) = data();
    let lock = Lock::take_for_copying(&data.lock_file()).unwrap();
    assert_eq!(holder(&data.lock_file()).unwrap(), None);
    assert!(matches!(Running::state(&data).unwrap(), State::Stopped));
    let held = Lock::take(&data.lock_file()).err().unwrap().to_string();
    let own = std::process::id();
    assert!(held.contains("`arcadia backup`") && held.contains(&format!("pid {own}")), "{held}");
    assert!(has_open(own as i32, &data.lock_file()).unwrap());
    drop(lock);
    Lock::take(&data.lock_file()).unwrap();
}

/// Runs itself again where the directory cannot be written to.
#[test]
fn a_site_on_a_file_system_that_cannot_be_written_to_is_locked_for_copying() {
    const READ_ONLY: &str = "ARCADIA_TEST_READ_ONLY";
    let locked = |data: &DataDir| {
        let lock = Lock::take_for_copying(&data.lock_file()).unwrap();
        assert_eq!(holder(&data.lock_file()).unwrap(), None, "no site runs");
        drop(lock);
    };
    if let Some(path) = crate::host::variable_os(READ_ONLY) {
        let data = DataDir::at(path.into());
        assert!(Lock::take(&data.lock_file()).is_err(), "it can be written to");
        return locked(&data);
    }
    let (_folder, data) = data();
    drop(Lock::take(&data.lock_file()).unwrap());
    locked(&data);
    let script =
        "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && exec \"$2\" \"$3\" --exact";
    let mut command = std::process::Command::new("unshare");
    command.arg(if crate::host::is_root() { "-m" } else { "-rm" }).args(["sh", "-c", script, "sh"]);
    command.arg(data.path()).arg(std::env::current_exe().unwrap()).env(READ_ONLY, data.path());
    let name = "site::tests::a_site_on_a_file_system_that_cannot_be_written_to_is_locked_for_copying";
    let output = command.arg(name).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

#[test]
fn keys_are_made_once_and_missed_when_gone() {
    let (_folder, data) = data();
    let open = || open_or_create_keys(&data, &SystemEntropy, jiff::Timestamp::UNIX_EPOCH);
    let ring = open().unwrap().ring;
    let sealed = ring.seal(b"place", b"value", &SystemEntropy).unwrap();
    assert_eq!((mode(&data.root_key_file()), mode(&data.ring_file())), (0o600, 0o600));
    let again = open().unwrap().ring;
    assert_eq!(again.open(b"place", &sealed).unwrap().as_slice(), b"value");

    fs::write(data.root_key_file(), [7; 32]).unwrap();
    let wrong = open().err().unwrap();
    assert!(wrong.to_string().contains("root key"), "{wrong}");
    fs::remove_file(data.root_key_file()).unwrap();
    assert!(matches!(open(), Err(SiteFault::KeyMissing(_))));
    assert!(!data.root_key_file().exists(), "no new key in place of the lost one");
    fs::remove_file(data.ring_file()).unwrap();
    fs::write(data.store_file(), "rows").unwrap();
    assert!(matches!(open(), Err(SiteFault::KeyMissing(_))));
    assert!(!data.ring_file().exists(), "nor a new ring");
}

/// As versions wrote it that knew one root key only.
#[test]
fn a_ring_of_an_older_version_opens_and_is_brought_up_to_date() {
    let (_folder, data) = data();
    let root = arcadia_crypto::RootKey::generate(&SystemEntropy);
    let ring = arcadia_crypto::KeyRing::generate(&SystemEntropy).unwrap();
    fs::write(data.root_key_file(), root.to_bytes()).unwrap();
    let wrapped = serde_json::to_vec(&ring.wrapped(&root, &SystemEntropy).unwrap()).unwrap();
    fs::write(data.ring_file(), wrapped).unwrap();
    let sealed = ring.seal(b"place", b"value", &SystemEntropy).unwrap();
    let mut keys = open_keys(&data).unwrap();
    assert!(keys.ring.open(b"place", &sealed).is_ok());
    settle(&data, &mut keys, jiff::Timestamp::UNIX_EPOCH, &SystemEntropy).unwrap();
    let file = RingFile::load(&data.ring_file()).unwrap().unwrap();
    assert_eq!(file.roots[0].id, root.id());
    assert!(open_keys(&data).unwrap().ring.open(b"place", &sealed).is_ok());
}

#[test]
fn whoever_changes_keys_is_alone() {
    let (_folder, data) = data();
    let reading = KeysLock::shared(&data).unwrap();
    let others = KeysLock::shared(&data).unwrap();
    assert!(matches!(KeysLock::try_exclusive(&data), Err(SiteFault::KeysBusy(_))));
    drop((reading, others));
    KeysLock::try_exclusive(&data).unwrap();
}

#[test]
fn the_authority_is_the_same_after_a_restart() {
    let (_folder, data) = data();
    let now = 1_800_000_000;
    let mut record = record();
    let first = load_or_create_authority(&data, &record, now).unwrap();
    assert_eq!((mode(&data.ca_file()), mode(&data.ca_key_file())), (0o644, 0o600));
    let second = load_or_create_authority(&data, &record, now + 5).unwrap();
    assert_eq!(first.certificate_pem(), second.certificate_pem());
    fs::remove_file(data.ca_key_file()).unwrap();
    assert!(matches!(load_or_create_authority(&data, &record, now), Err(SiteFault::KeyMissing(_))));

    // A first start that died between the two files is taken up; a site that was in use keeps its key.
    fs::write(data.ca_key_file(), "half a start").unwrap();
    fs::remove_file(data.ca_file()).unwrap();
    load_or_create_authority(&data, &record, now).unwrap();
    record.port = Some(8440);
    let key = fs::read(data.ca_key_file()).unwrap();
    fs::remove_file(data.ca_file()).unwrap();
    let refused = load_or_create_authority(&data, &record, now).err().unwrap();
    assert!(matches!(refused, SiteFault::AuthorityMissing(_)), "{refused}");
    assert_eq!(fs::read(data.ca_key_file()).unwrap(), key);
    assert!(!data.ca_file().exists());
}

#[test]
fn an_authority_that_ends_is_told_a_year_before_and_so_is_one_that_has_not_begun() {
    const YEAR: i64 = 365 * 24 * 60 * 60;
    let (_folder, data) = data();
    let made = 1_800_000_000;
    let told = |seconds| authority_notice(&data, jiff::Timestamp::from_second(seconds).unwrap());
    assert_eq!(told(made), None, "there is none");
    let ca = load_or_create_authority(&data, &record(), made).unwrap();
    let end = ca.not_after_seconds();
    assert_eq!((told(made), told(end - YEAR)), (None, None));
    assert!(told(end - YEAR + 1).unwrap().contains("ends on 203"));
    assert!(told(end).unwrap().contains("ended on 203"));
    assert!(told(made - YEAR).unwrap().contains("begins on 2027-01-1"));
}

#[test]
fn a_newer_record_is_refused() {
    let (_folder, data) = data();
    let mut record = record();
    record.save(&data).unwrap();
    assert_eq!(SiteRecord::load(&data).unwrap().unwrap().user_domain, "a.example");
    record.schema = 99;
    record.save(&data).unwrap();
    assert!(matches!(SiteRecord::load(&data), Err(SiteFault::Newer { schema: 99, .. })));
}

#[test]
fn a_newer_ring_is_refused() {
    let (_folder, data) = data();
    open_or_create_keys(&data, &SystemEntropy, jiff::Timestamp::UNIX_EPOCH).unwrap();
    let text = fs::read_to_string(data.ring_file()).unwrap();
    let newer = text.replacen("\"schema\": 2", "\"schema\": 3", 1);
    assert_ne!(newer, text);
    fs::write(data.ring_file(), newer).unwrap();
    assert!(matches!(open_keys(&data), Err(SiteFault::Newer { schema: 3, .. })));
}
