//! Data that is removed, replaced or written to under a running site: it falls silent until its operator has looked.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{ARM, ARM_SCOPE, LOGIN, Site, Wire};

async fn statuses(wire: &Wire, token: &str) -> [u16; 3] {
    let subscriptions = format!("{ARM}/subscriptions?api-version=2022-12-01");
    let keys = format!("{LOGIN}/{}/discovery/v2.0/keys", wire.tenant());
    let status =
        async |url: &str, token: Option<&str>| wire.send("GET", url, token, None).await.status.as_u16();
    [
        status(&subscriptions, Some(token)).await,
        status(&subscriptions, Some("nonsense")).await,
        // From memory, for anybody.
        status(&keys, None).await,
    ]
}

async fn falls_silent(harm: impl FnOnce(&Path), word: &str) {
    let mut site = Site::start();
    let wire = site.client();
    let token = wire.admin_token(ARM_SCOPE).await;
    assert_eq!(statuses(&wire, &token).await, [200, 401, 200]);
    tokio::time::sleep(Duration::from_millis(20)).await;
    harm(&site.data);
    assert_eq!(statuses(&wire, &token).await, [503, 503, 503], "{word}");
    let begun = Instant::now();
    let status = loop {
        let output = site.command(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        if !status["trouble"].is_null() {
            assert_eq!(output.status.code(), Some(1));
            break status;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{word}: {status}");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(status["state"], "running", "it waits for its operator");
    assert_eq!(status["trouble"]["lasting"], true, "{status}");
    let reason = status["trouble"]["reason"].as_str().unwrap();
    assert!(reason.contains(word) && reason.contains("store.db"), "{reason}");
    let shown = String::from_utf8(site.command(&["status"]).stdout).unwrap();
    assert!(shown.contains("answers nothing since") && shown.contains(word), "{shown}");
    site.stop();
    assert_eq!(site.status()["state"], "stopped");
}

#[tokio::test]
async fn a_removed_database_silences_the_site_and_is_not_made_anew() {
    let mut site = Site::start();
    let wire = site.client();
    let token = wire.admin_token(ARM_SCOPE).await;
    fs::remove_file(site.data.join("store.db")).unwrap();
    assert_eq!(statuses(&wire, &token).await, [503, 503, 503]);
    site.stop();
    // Neither a lost store nor an empty one is taken for a new site.
    for _ in 0..2 {
        let up = site.command(&["up", "--offline"]);
        assert_eq!(up.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&up.stderr).contains("arcadia restore"), "{up:?}");
        fs::write(site.data.join("store.db"), "").unwrap();
    }
}

#[tokio::test]
async fn a_replaced_database_silences_the_site() {
    let older = |data: &Path| {
        fs::copy(data.join("store.db"), data.join("older")).unwrap();
        fs::rename(data.join("older"), data.join("store.db")).unwrap();
    };
    falls_silent(older, "replaced").await;
}

#[tokio::test]
async fn a_database_that_is_cut_or_written_over_silences_the_site() {
    let cut = |data: &Path| {
        OpenOptions::new().write(true).open(data.join("store.db")).unwrap().set_len(4096).unwrap();
    };
    // A new site has most of its rows in the log still; then it is the log that is cut.
    let cut_log = |data: &Path| {
        OpenOptions::new().write(true).open(data.join("store.db-wal")).unwrap().set_len(4096).unwrap();
    };
    let over = |data: &Path| {
        let older = fs::read(data.join("store.db")).unwrap();
        OpenOptions::new().write(true).open(data.join("store.db")).unwrap().write_all_at(&older, 0).unwrap();
    };
    falls_silent(cut_log, "cut short").await;
    falls_silent(over, "changed by something else").await;
    let site = Site::start();
    if site.data.join("store.db").metadata().unwrap().len() > 4096 {
        drop(site);
        falls_silent(cut, "cut short").await;
    }
}

#[tokio::test]
async fn put_right_and_started_again_it_answers() {
    let mut site = Site::start_with(&["--offline"]);
    let wire = site.client();
    let token = wire.admin_token(ARM_SCOPE).await;
    let file = site.data.join("store.db");
    fs::rename(&file, site.data.join("away")).unwrap();
    assert_eq!(statuses(&wire, &token).await, [503, 503, 503]);
    fs::rename(site.data.join("away"), &file).unwrap();
    assert_eq!(statuses(&wire, &token).await, [503, 503, 503], "not by itself");
    site.stop();
    assert!(site.command(&["audit", "verify"]).status.success());
    site.up(&["--offline"]);
    assert_eq!(statuses(&site.client(), &token).await, [200, 401, 200]);
    assert!(site.status()["trouble"].is_null());
}

/// It is told where the directory is now, which the site knows by another name.
#[tokio::test]
async fn a_directory_that_is_renamed_silences_the_site() {
    let mut site = Site::start();
    let wire = site.client();
    let token = wire.admin_token(ARM_SCOPE).await;
    let before = site.data.clone();
    let after = before.with_file_name("renamed");
    fs::rename(&before, &after).unwrap();
    assert_eq!(statuses(&wire, &token).await, [503, 503, 503]);
    site.data = after.clone();
    let begun = Instant::now();
    loop {
        let output = site.command(&["status"]);
        let shown = String::from_utf8_lossy(&output.stdout);
        if shown.contains("answers nothing since") {
            assert_eq!(output.status.code(), Some(1));
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{shown}");
        std::thread::sleep(Duration::from_millis(100));
    }
    site.stop();
    assert!(!after.join("trouble.json").exists(), "it was stopped by its operator");
    fs::rename(after, &before).unwrap();
    site.data = before;
    site.up(&["--offline"]);
}
