use std::fs;

use arcadia_crypto::SystemEntropy;
use arcadia_interleaved::Interleaved;
use arcadia_kernel::{Clock as _, Decider, Decision, DenyReason, FixedClock, Limits, Question};
use tempfile::TempDir;

use super::super::tokens::PublishedKeys;
use super::*;
use crate::site::{open_keys, open_or_create_keys};

/// Nobody asks for anything here.
struct Nobody;

impl Decider for Nobody {
    fn decide(&self, _: &Question<'_>) -> Decision {
        Decision::Denied(DenyReason::NoAssignment)
    }
}

struct Site {
    keeper: Keeper,
    rows: Arc<Interleaved>,
    seen: Option<Print>,
    _folder: TempDir,
}

impl Site {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let data = DataDir::at(folder.path().to_owned()).unlocked_by(None);
        let clock = Arc::new(FixedClock::at_epoch_seconds(1000));
        let keys = open_or_create_keys(&data, &SystemEntropy, clock.now()).unwrap();
        let rows = Arc::new(Interleaved::new(1000));
        let store = Store::over(rows.clone(), keys.ring.clone(), Arc::new(SystemEntropy)).await.unwrap();
        let gate = Arc::new(Gate {
            authenticator: Arc::new(PublishedKeys::default()),
            decider: Arc::new(Nobody),
            audit: store.audit_sink(),
            clock,
            entropy: Arc::new(SystemEntropy),
            limits: Limits::default(),
        });
        let keeper = Keeper { data, store, gate, keys, values_per_data_key: u64::MAX };
        let mut site = Self { keeper, rows, seen: None, _folder: folder };
        site.tick().await.unwrap();
        site
    }

    async fn tick(&mut self) -> anyhow::Result<()> {
        self.keeper.tick(&mut self.seen).await
    }

    /// As `arcadia keys rotate` does, beside the site.
    fn rotate(&self) {
        let mut keys = open_keys(&self.keeper.data).unwrap();
        keys.ring.rotate(&SystemEntropy).unwrap();
        save_ring(&self.keeper.data, &mut keys, self.keeper.gate.clock.now(), &SystemEntropy).unwrap();
    }

    fn in_file(&self) -> Vec<u32> {
        open_keys(&self.keeper.data).unwrap().ring.key_ids()
    }

    fn in_use(&self) -> Vec<u32> {
        assert_eq!(self.keeper.keys.ring.key_ids(), self.keeper.store.data_keys());
        self.keeper.store.data_keys()
    }

    /// Writes a row, which is the site's own business.
    fn write(&self) -> impl Future<Output = ()> + Send + 'static {
        let (store, permit) = (self.keeper.store.clone(), self.keeper.gate.as_system(Reason::Keys));
        let row = KeysInUse { root_key: "needle".to_owned(), data_key: 7, key_ids: Vec::new() };
        async move {
            let mut batch = Batch::new();
            batch.put(IN_USE, "other", &row).unwrap();
            store.commit(permit.stamp(), batch).await.unwrap();
        }
    }

    async fn read(&self) -> String {
        self.keeper.store.get(IN_USE, "other").await.unwrap().unwrap().value.root_key
    }
}

#[tokio::test]
async fn an_old_key_stays_while_what_it_sealed_is_on_its_way() {
    let mut site = Site::new().await;
    let (is_there, go_on) = site.rows.hold_write("keys_in_use");
    let writing = tokio::spawn(site.write());
    is_there.await.unwrap();
    site.rotate();
    site.tick().await.unwrap();
    assert_eq!((site.in_file(), site.in_use()), (vec![1, 2], vec![1, 2]));
    go_on.send(()).unwrap();
    writing.await.unwrap();
    site.tick().await.unwrap();
    assert_eq!((site.in_file(), site.in_use()), (vec![2], vec![2]));
    assert_eq!(site.read().await, "needle");
}

#[tokio::test]
async fn a_key_that_came_during_the_walk_is_no_reason_to_let_go_of_what_was_walked_for() {
    let mut site = Site::new().await;
    site.write().await;
    site.rotate();
    assert!(site.keeper.follow_file().unwrap());
    site.keeper.reseal().await.unwrap();
    site.rotate();
    site.keeper.retire_old_keys().unwrap();
    assert_eq!((site.in_file(), site.in_use()), (vec![1, 2, 3], vec![1, 2, 3]));
    assert_eq!(site.read().await, "needle");
    site.tick().await.unwrap();
    assert_eq!((site.in_file(), site.in_use()), (vec![3], vec![3]));
    assert_eq!(site.read().await, "needle");
}

#[tokio::test]
async fn nothing_is_sealed_under_a_key_that_is_not_in_the_file() {
    let mut site = Site::new().await;
    let (file, away) = (site.keeper.data.ring_file(), site.keeper.data.path().join("away"));
    let mut ring = site.keeper.keys.ring.clone();
    ring.rotate(&SystemEntropy).unwrap();
    fs::rename(&file, &away).unwrap();
    fs::create_dir_all(file.join("in the way")).unwrap();
    assert!(site.keeper.save(ring.clone()).is_err());
    assert_eq!(site.in_use(), [1]);
    fs::remove_dir_all(&file).unwrap();
    fs::rename(&away, &file).unwrap();
    site.keeper.save(ring).unwrap();
    assert_eq!((site.in_file(), site.in_use()), (vec![1, 2], vec![1, 2]));
}

#[tokio::test]
async fn an_older_ring_that_is_put_back_beside_the_site_is_not_followed() {
    let mut site = Site::new().await;
    let file = site.keeper.data.ring_file();
    let older = fs::read(&file).unwrap();
    site.rotate();
    assert!(site.keeper.follow_file().unwrap());
    let newer = fs::read(&file).unwrap();
    fs::write(&file, older).unwrap();
    for _ in 0..2 {
        let told = site.tick().await.unwrap_err().to_string();
        assert!(told.contains("put back to an earlier state: it lacks data key 2"), "{told}");
        assert_eq!(site.in_use(), [1, 2]);
    }
    fs::write(&file, newer).unwrap();
    site.tick().await.unwrap();
    assert_eq!((site.in_file(), site.in_use()), (vec![2], vec![2]));
}
