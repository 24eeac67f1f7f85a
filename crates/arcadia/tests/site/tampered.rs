//! A database that was changed while the site was stopped, and what the commands say of it.

use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{SECRETS_OFFICER, Site, VAULT_SCOPE};

/// Runs Python on the site's database, as `c`; what it prints.
fn edit(site: &Site, script: &str) -> String {
    let script = format!("import sqlite3, sys\nc = sqlite3.connect(sys.argv[1])\n{script}\nc.commit()");
    let mut command = Command::new("python3");
    let done = command.args(["-c", &script]).arg(site.data.join("store.db")).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

/// The exit code, what it says, and what it says on standard error.
fn told(site: &Site, command: &[&str]) -> (Option<i32>, String, String) {
    let done = site.command(command);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

/// A stopped site with a secret in it.
async fn stopped() -> Site {
    let mut site = Site::start();
    let wire = site.client();
    let vault = wire.vault("kvtampered").await;
    let officer = wire.application("officer").await;
    wire.assign(&vault, SECRETS_OFFICER, &officer.object_id).await;
    let token = wire.token_of(&officer.app_id, &officer.secret, VAULT_SCOPE).await;
    let url = "https://kvtampered.vault.azure.net/secrets/s1?api-version=7.4";
    wire.must("PUT", url, &token, Some(json!({ "value": "as it was" }))).await;
    site.stop();
    site
}

#[tokio::test]
async fn a_row_that_was_altered_is_in_no_backup_and_is_named() {
    let site = stopped().await;
    let folder = TempDir::new().unwrap();
    let backup = folder.path().join("backup");
    let (code, _, notes) = told(&site, &["audit", "verify"]);
    assert!(code == Some(0) && notes.contains("every row"), "{notes}");
    edit(
        &site,
        "(k, v), = c.execute(\"SELECT key, value FROM rows WHERE instr(key, CAST('keyvault/versions' AS BLOB)) = 1\")\n\
         v = bytearray(v)\n\
         v[len(v) // 2] ^= 1\n\
         c.execute('UPDATE rows SET value = ? WHERE key = ?', (bytes(v), k))",
    );
    let damage = "a row of table keyvault/versions does not open";
    let (code, said, notes) = told(&site, &["audit", "verify"]);
    assert!(code == Some(1) && said.contains("unbroken") && notes.contains(damage), "{said} {notes}");
    let (code, said, _) = told(&site, &["audit", "verify", "--json"]);
    let verdict: Value = serde_json::from_str(&said).unwrap();
    assert!(code == Some(1) && verdict["unbroken"] == false, "{verdict}");
    assert!(verdict["rows"].as_str().unwrap().contains(damage), "{verdict}");
    let (code, _, notes) = told(&site, &["backup", backup.to_str().unwrap()]);
    assert!(code == Some(1) && notes.contains(damage) && !backup.exists(), "{notes}");
}

#[tokio::test]
async fn the_first_record_that_is_missing_is_named() {
    let site = stopped().await;
    // Records that were written together are one row, which has the number of the last.
    let first: u64 = edit(
        &site,
        "rows = [row for row, in c.execute('SELECT sequence FROM audit ORDER BY sequence')]\n\
         middle = len(rows) // 2\n\
         c.execute('DELETE FROM audit WHERE sequence = ?', (rows[middle],))\n\
         print(rows[middle - 1] + 1)",
    )
    .trim()
    .parse()
    .unwrap();
    assert!(first > 1);
    let (code, said, _) = told(&site, &["audit", "verify"]);
    assert!(code == Some(1) && said.starts_with(&format!("broken: record {first} is missing")), "{said}");
    assert!(said.contains(&format!("the last one before it: {:>8} ", first - 1)), "{said}");
    let (code, said, _) = told(&site, &["audit", "verify", "--json"]);
    let verdict: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (code, &verdict["unbroken"], &verdict["firstBroken"]),
        (Some(1), &json!(false), &json!(first))
    );
    let (code, _, notes) = told(&site, &["audit", "tail", "-n", "1000000"]);
    assert!(code == Some(1) && notes.contains(&format!("record {first} is missing")), "{notes}");
}

/// Nothing in such a store tells that there was ever more; but a site that was founded has records.
#[tokio::test]
async fn a_store_in_which_nothing_is_left_is_not_a_new_one() {
    let site = stopped().await;
    let folder = TempDir::new().unwrap();
    let backup = folder.path().join("backup");
    edit(
        &site,
        "c.execute('DELETE FROM rows')\nc.execute('DELETE FROM audit')\n\
         c.execute(\"DELETE FROM meta WHERE name = 'audit_head'\")\n\
         c.execute(\"UPDATE meta SET value = 0 WHERE name = 'revision'\")",
    );
    std::fs::remove_file(site.data.join("store.anchor")).unwrap();
    let (code, said, _) = told(&site, &["audit", "verify"]);
    assert!(code == Some(1) && said.starts_with("broken: record 1 is missing"), "{said}");
    let (code, said, _) = told(&site, &["audit", "verify", "--json"]);
    let verdict: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &verdict["unbroken"], &verdict["firstBroken"]), (Some(1), &json!(false), &json!(1)));
    let (code, _, notes) = told(&site, &["audit", "tail"]);
    assert!(code == Some(1) && notes.contains("every record is missing"), "{notes}");
    let (code, _, notes) = told(&site, &["backup", backup.to_str().unwrap()]);
    assert!(code == Some(1) && notes.contains("record 1 is missing") && !backup.exists(), "{notes}");
    let (code, _, notes) = told(&site, &["up", "--detach"]);
    assert!(code == Some(1) && notes.contains("is missing or empty although the site has been"), "{notes}");
}
