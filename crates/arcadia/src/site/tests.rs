use arcadia_crypto::SystemEntropy;
use tempfile::TempDir;

use super::*;
use crate::names::SiteNames;

fn data() -> (TempDir, DataDir) {
    let folder = TempDir::new().unwrap();
    let data = DataDir::at(folder.path().join("site"));
    data.prepare().unwrap();
    (folder, data)
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
fn keys_are_made_once_and_missed_when_gone() {
    let (_folder, data) = data();
    let ring = load_or_create_ring(&data, &SystemEntropy).unwrap();
    let sealed = ring.seal(b"place", b"value", &SystemEntropy).unwrap();
    assert_eq!((mode(&data.root_key_file()), mode(&data.ring_file())), (0o600, 0o600));
    let again = load_or_create_ring(&data, &SystemEntropy).unwrap();
    assert_eq!(again.open(b"place", &sealed).unwrap().as_slice(), b"value");

    fs::write(data.root_key_file(), [7; 32]).unwrap();
    let wrong = load_or_create_ring(&data, &SystemEntropy).unwrap_err();
    assert!(wrong.to_string().contains("root key"), "{wrong}");
    fs::remove_file(data.root_key_file()).unwrap();
    assert!(matches!(load_or_create_ring(&data, &SystemEntropy), Err(SiteFault::KeyMissing(_))));
    assert!(!data.root_key_file().exists(), "no new key in place of the lost one");
}

#[test]
fn the_authority_is_the_same_after_a_restart() {
    let (_folder, data) = data();
    let now = 1_800_000_000;
    let first = load_or_create_authority(&data, &SiteNames::azure(), "one", now).unwrap();
    assert_eq!((mode(&data.ca_file()), mode(&data.ca_key_file())), (0o644, 0o600));
    let second = load_or_create_authority(&data, &SiteNames::azure(), "two", now + 5).unwrap();
    assert_eq!(first.certificate_pem(), second.certificate_pem());
    fs::remove_file(data.ca_key_file()).unwrap();
    assert!(matches!(
        load_or_create_authority(&data, &SiteNames::azure(), "x", now),
        Err(SiteFault::KeyMissing(_))
    ));
}

#[test]
fn a_newer_record_is_refused() {
    let (_folder, data) = data();
    let mut record = SiteRecord::new(
        uuid::Uuid::nil(),
        uuid::Uuid::nil(),
        "a.example".into(),
        None,
        jiff::Timestamp::UNIX_EPOCH,
    );
    record.save(&data).unwrap();
    assert_eq!(SiteRecord::load(&data).unwrap().unwrap().user_domain, "a.example");
    record.schema = 99;
    record.save(&data).unwrap();
    assert!(matches!(SiteRecord::load(&data), Err(SiteFault::Newer { schema: 99, .. })));
}
