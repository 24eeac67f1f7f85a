//! The databases' door of a started site, by psql.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::crowd::raise_file_limit;
use crate::raw::PATIENCE;
use crate::support::{ARM, ARM_SCOPE, Site, Wire, arcadia, pipe_at, read_by_somebody};

const PASSWORD: &str = "Quiet-Antelope-7";
/// More than one listener has places.
const CROWD: usize = 1100;
/// After this time the site ends a client that did not say who it is, whatever else comes.
const STARTUP: Duration = Duration::from_secs(15);
const TRIES: usize = 5;

/// Sends a change that takes time, and waits until the resource is there.
pub async fn made(wire: &Wire, token: &str, id: &str, body: Value) {
    let url = format!("{ARM}{id}?api-version=2025-08-01");
    wire.must("PUT", &url, token, Some(body)).await;
    let begun = Instant::now();
    loop {
        let answer = wire.send("GET", &url, Some(token), None).await;
        let found: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let state = &found["properties"]["state"];
        if answer.status == 200 && (state == "Ready" || state.is_null()) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE * 2, "{id} is never made: {found}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub fn server_body() -> Value {
    let properties = json!({
        "createMode": "Create", "administratorLogin": "arcadmin", "administratorLoginPassword": PASSWORD,
        "authConfig": { "activeDirectoryAuth": "Disabled", "passwordAuth": "Enabled" },
        "network": { "publicNetworkAccess": "Enabled" },
    });
    let sku = json!({ "name": "Standard_B1ms", "tier": "Burstable" });
    json!({ "location": "uksouth", "sku": sku, "properties": properties })
}

/// A group, a server in it, and everybody on this computer allowed to it.
pub async fn server(site: &Site) {
    let wire = site.client();
    let token = wire.admin_token(ARM_SCOPE).await;
    let group = format!("/subscriptions/{}/resourceGroups/rg", wire.subscription());
    let body = json!({ "location": "uksouth" });
    wire.must("PUT", &format!("{ARM}{group}?api-version=2024-11-01"), &token, Some(body)).await;
    let server = format!("{group}/providers/Microsoft.DBforPostgreSQL/flexibleServers/pg-crowd");
    made(&wire, &token, &server, server_body()).await;
    let rule = json!({ "properties": { "startIpAddress": "127.0.0.1", "endIpAddress": "127.255.255.254" } });
    made(&wire, &token, &format!("{server}/firewallRules/here"), rule).await;
}

pub fn psql(site: &Site, address: &str) -> Command {
    let mut command = Command::new("psql");
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("PGPASSWORD", PASSWORD);
    command.env("PGHOSTADDR", address).env("PGSSLROOTCERT", site.data.join("ca.pem"));
    command.env("PGCONNECT_TIMEOUT", PATIENCE.as_secs().to_string()).args(["-X", "-A", "-t"]);
    command
        .arg("host=pg-crowd.postgres.database.azure.com dbname=postgres user=arcadmin sslmode=verify-full");
    command
}

/// A session that stays open.
struct Session {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Session {
    fn open(site: &Site, address: &str) -> Self {
        let mut command = psql(site, address);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, answers }
    }

    fn backend(&mut self) -> String {
        self.child.stdin.as_mut().unwrap().write_all(b"SELECT pg_backend_pid();\n").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert!(line.trim().parse::<u32>().is_ok(), "{line:?}");
        line
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One of the crowd: says nothing, half a packet, or asks for TLS and then says nothing.
fn member(address: &str, at: usize) -> TcpStream {
    let mut stream = TcpStream::connect((address, 5432)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let said: &[u8] = [&b""[..], b"\0\0", b"\0\0\0\x08\x04\xd2\x16\x2f"][at % 3];
    // It may have been shown the door already.
    let _ = stream.write_all(said);
    if said.len() == 8 {
        let _ = stream.read(&mut [0]);
    }
    stream
}

/// Whether a database server runs, or was killed, below the folder.
fn has_run_file(folder: &Path) -> bool {
    let mut entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.any(|path| path.ends_with("postmaster.pid") || path.is_dir() && has_run_file(&path))
}

#[tokio::test]
async fn a_start_that_fails_leaves_no_database_server_behind() {
    let mut site = Site::start();
    server(&site).await;
    let servers = site.data.join("postgres");
    assert!(has_run_file(&servers));
    site.stop();
    // The last that is done before it is ready.
    let log = site.data.join("log/site.log");
    std::fs::create_dir(&log).unwrap();
    let up = site.command(&["up", "--offline", "--detach"]);
    assert_eq!(up.status.code(), Some(1), "{up:?}");
    assert!(String::from_utf8_lossy(&up.stderr).contains("site.log"), "{up:?}");
    // One that was only just started writes its file a little later.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!has_run_file(&servers), "it was stopped with the site");
    assert!(!site.data.join("running.json").exists());
    site.up(&["--offline"]);
    let told = site.status();
    let databases = told["addresses"]["databases"].as_str().unwrap();
    assert!(site.printed.contains(&format!("  databases      {databases}")), "{:?}", site.printed);
}

/// What else the site has is not to be without a backup for it, and nobody waits for hours to be told.
#[tokio::test]
async fn a_server_that_cannot_be_copied_does_not_cost_the_backup() {
    let folder = TempDir::new().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let mut site = Site::start();
    server(&site).await;
    site.stop();
    let servers = site.data.join("postgres");
    // Beside it is the template that servers are made of.
    let mut folders = std::fs::read_dir(&servers).unwrap().map(|entry| entry.unwrap().path());
    let instance = folders.find(|path| path.is_dir() && !path.display().to_string().contains("/template"));
    let instance = instance.unwrap();
    std::fs::rename(&instance, site.data.join("away")).unwrap();
    let without = site.command(&["backup", "--with-root-key", first.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&without.stderr);
    assert_eq!(without.status.code(), Some(1), "{told}");
    assert!(told.contains("not in it: the data of database server pg-crowd"), "{told}");
    let again = Site::over(folder.path().join("again"));
    let restored = again.command(&["restore", first.to_str().unwrap()]);
    assert!(restored.status.success(), "{restored:?}");
    assert!(String::from_utf8_lossy(&restored.stderr).contains("pg-crowd"), "{restored:?}");

    std::fs::rename(site.data.join("away"), &instance).unwrap();
    site.up(&["--offline"]);
    let wire = site.client();
    let token = wire.admin_token(ARM_SCOPE).await;
    let group = format!("/subscriptions/{}/resourceGroups/rg", wire.subscription());
    let url = format!(
        "{ARM}{group}/providers/Microsoft.DBforPostgreSQL/flexibleServers/pg-crowd?api-version=2025-08-01"
    );
    // It is read after the rows, and the backup waits there.
    let authority = site.data.join("ca.pem");
    let text = std::fs::read(&authority).unwrap();
    std::fs::remove_file(&authority).unwrap();
    pipe_at(&authority);
    let mut command = arcadia(&site.data);
    let backup = command.arg("backup").arg(&second).stderr(Stdio::piped()).spawn().unwrap();
    let mut waited_for = read_by_somebody(&authority);
    wire.must("DELETE", &url, &token, None).await;
    let begun = Instant::now();
    while wire.send("GET", &url, Some(&token), None).await.status != 404 {
        assert!(begun.elapsed() < PATIENCE * 2, "the server is never gone");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    waited_for.write_all(&text).unwrap();
    drop(waited_for);
    let output = backup.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("not in it: database server pg-crowd, which was deleted meanwhile"), "{told}");
}

#[tokio::test]
async fn a_server_that_was_put_back_has_its_data() {
    let folder = TempDir::new().unwrap();
    let mut site = Site::start();
    server(&site).await;
    let ask = |site: &Site, statement: &str| {
        let begun = Instant::now();
        loop {
            let output = psql(site, &site.env(false)["PGHOSTADDR"]).args(["-c", statement]).output().unwrap();
            if output.status.success() {
                return String::from_utf8(output.stdout).unwrap();
            }
            // After it was put back it recovers first.
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(told.contains("is starting up") && begun.elapsed() < PATIENCE, "{told}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    ask(&site, "CREATE TABLE kept AS SELECT 7 AS n");
    let backup = folder.path().join("backup");
    let copied = site.command(&["backup", "--with-root-key", backup.to_str().unwrap()]);
    assert!(copied.status.success(), "{copied:?}");
    no_backup_without_room(&site, folder.path());
    site.stop();
    let mut again = Site::over(folder.path().join("again"));
    let restored = again.command(&["restore", backup.to_str().unwrap()]);
    assert!(restored.status.success(), "{restored:?}");
    again.up(&["--offline"]);
    assert_eq!(ask(&again, "SELECT n FROM kept"), "7\n");
}

/// That the backup's disk is full is no fault of the server's, and nothing is kept.
fn no_backup_without_room(site: &Site, folder: &Path) {
    let small = folder.join("small");
    std::fs::create_dir(&small).unwrap();
    let script = "mount -t tmpfs -o size=16m tmpfs \"$2\" && ! \"$1\" backup \"$2/backup\" && ls -A \"$2\"";
    let mut command = Command::new("unshare");
    command.arg("-m").args(["sh", "-c", script, "sh", env!("CARGO_BIN_EXE_arcadia")]).arg(&small);
    let Output { status, stdout, stderr } = command.env("ARCADIA_DATA", &site.data).output().unwrap();
    let told = String::from_utf8(stderr).unwrap();
    let is_named = told.contains("small") && told.contains("No space left on device");
    assert!(is_named && !told.contains("not in it"), "{told}");
    assert!(status.success() && stdout.is_empty(), "{}", String::from_utf8_lossy(&stdout));
}

/// Sessions have no request to refuse.
#[tokio::test]
async fn a_site_that_falls_silent_ends_its_sessions() {
    let site = Site::start();
    server(&site).await;
    let mut session = Session::open(&site, &site.env(false)["PGHOSTADDR"]);
    session.backend();
    std::fs::remove_file(site.data.join("store.db")).unwrap();
    // Longer than it takes to be noticed, by far: who is still there then is answered.
    let mut statements = session.child.stdin.take().unwrap();
    statements.write_all(b"SELECT pg_sleep(20);\nSELECT 7;\n").unwrap();
    drop(statements);
    let mut answered = String::new();
    session.answers.read_to_string(&mut answered).unwrap();
    assert_eq!(answered, "");
    assert_eq!(session.child.wait().unwrap().code(), Some(2), "psql's for a connection that was lost");
}

#[tokio::test]
async fn a_thousand_who_do_not_sign_in_keep_nobody_from_a_database() {
    raise_file_limit(CROWD);
    let site = Site::start();
    server(&site).await;
    let address = site.env(false)["PGHOSTADDR"].clone();
    let mut session = Session::open(&site, &address);
    let backend = session.backend();
    // A queue would let psql in when the first of the crowd have used up their time, and not before. Where the machine
    // itself takes as long as that, nothing is shown, and it is tried again.
    let is_shown = (0..TRIES).any(|_| {
        let begun = Instant::now();
        let crowd: Vec<_> = (0..CROWD).map(|at| member(&address, at)).collect();
        let Output { status, stdout, stderr } =
            psql(&site, &address).args(["-c", "SELECT 7"]).output().unwrap();
        let took = begun.elapsed();
        assert!(status.success() && stdout == b"7\n", "{}", String::from_utf8_lossy(&stderr));
        drop(crowd);
        took < STARTUP
    });
    assert!(is_shown, "each time it took as long as the crowd may stay");
    assert_eq!(session.backend(), backend, "who is signed in stays");
}
