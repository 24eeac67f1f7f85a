//! Database servers on a disk that is full.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::broken_disk::{small_disk, survived, with_a_small_disk};
use crate::databases::{made, psql, server, server_body};
use crate::raw::PATIENCE;
use crate::support::{ARM, ARM_SCOPE, Site, pipe_at};

/// Room for the template and two servers; the rest is filled.
const DISK_BYTES: usize = 512 * 1024 * 1024;
/// Left for the site alone, which keeps 64 MiB of it: too little for one more server.
const SITE_BYTES: u64 = 100 * 1024 * 1024;
/// Left for whoever comes first.
const SLIVER_BYTES: u64 = 256 * 1024;
/// Far more than a table or a server's log has room for: a disk that never fills up ends the test.
const UPDATES_MAX: u64 = 200_000;
/// A server that does not start is tried again every ten seconds, and recovers then.
const BACK: Duration = Duration::from_secs(90);

/// A psql that is given one statement after the other, and ends with the first that fails.
struct Session {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Session {
    fn open(site: &Site) -> Self {
        let mut command = psql(site, &site.env(false)["PGHOSTADDR"]);
        command.args(["-q", "-v", "ON_ERROR_STOP=1"]).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, answers }
    }

    /// The one value that a statement returns, once it is committed; or why it is not.
    fn ask(&mut self, statement: &str) -> Result<u64, String> {
        let mut line = String::new();
        if writeln!(self.child.stdin.as_mut().unwrap(), "{statement};").is_ok() {
            self.answers.read_line(&mut line).unwrap();
        }
        line.trim().parse().map_err(|_| {
            let mut told = line;
            self.child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
            told
        })
    }

    /// Asks until it is refused: the last value that was acknowledged, and why there are no more.
    fn ask_on(&mut self, statement: &str, first: u64) -> (u64, String) {
        let mut last = first;
        for _ in 0..UPDATES_MAX {
            match self.ask(statement) {
                Ok(value) => last = value,
                Err(told) => return (last, told),
            }
        }
        panic!("{UPDATES_MAX} of {statement} fit on a full disk");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fills the disk up to so many bytes.
fn fill(disk: &Path, but: u64) {
    let mut ballast = File::create(disk.join("ballast")).unwrap();
    while ballast.write_all(&[7; 65536]).is_ok() {}
    let bytes = ballast.metadata().unwrap().len();
    ballast.set_len(bytes - but).unwrap();
}

fn free(disk: &Path) {
    fs::remove_file(disk.join("ballast")).unwrap();
}

/// The value of a statement, as soon as the server is back.
fn value(site: &Site, statement: &str) -> u64 {
    let begun = Instant::now();
    loop {
        match Session::open(site).ask(statement) {
            Ok(value) => return value,
            Err(told) => assert!(begun.elapsed() < BACK, "{told}"),
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Takes no more of the table, and much of the log.
const COUNT: &str = "WITH said AS (SELECT pg_logical_emit_message(true, 'log', repeat('x', 50000)) AS at) \
                     UPDATE ledger SET n = n + 1, pad = repeat(md5(n::text), 20) FROM said RETURNING n";
const GROW: &str = "INSERT INTO grown SELECT max(n) + 1, repeat('x', 5000) FROM grown RETURNING n";
const COUNTED: &str = "SELECT n FROM ledger";
/// None is missing: there are as many as the last one's number says.
const GROWN: &str = "SELECT count(*) - 1 FROM grown HAVING count(*) - 1 = max(n)";

#[test]
fn a_database_on_a_full_disk_loses_nothing() {
    with_a_small_disk("full_databases::on_a_small_disk", DISK_BYTES);
}

/// The child of the test above; does nothing when it is not told where its disk is.
#[tokio::test]
async fn on_a_small_disk() {
    let Some(disk) = small_disk() else { return };
    let mut site = Site::over(disk.join("data"));
    site.up(&["--offline"]);
    server(&site).await;
    let [mut growing, mut counting] = [(); 2].map(|()| Session::open(&site));
    growing.ask("CREATE TABLE ledger AS SELECT 0::bigint AS n, ''::text AS pad; SELECT 1").unwrap();
    growing.ask("CREATE TABLE grown AS SELECT 0::bigint AS n, ''::text AS pad; SELECT 1").unwrap();
    growing.ask("ALTER TABLE grown ALTER COLUMN pad SET STORAGE EXTERNAL; SELECT 1").unwrap();
    growing.ask(GROW).unwrap();
    for n in 1..=50 {
        assert_eq!(counting.ask(COUNT), Ok(n));
    }
    // What is over is used again from now on.
    counting.ask("VACUUM ledger; SELECT 1").unwrap();

    // Tables do not grow, and who wants them to is told.
    fill(&disk, SLIVER_BYTES);
    let (grown, told) = growing.ask_on(GROW, 1);
    assert!(told.contains("No space left on device") && told.contains("Check free disk space"), "{told}");
    // The log does not grow either. That ends the server, and it does not come back.
    let (counted, told) = counting.ask_on(COUNT, 50);
    assert!(told.contains("PANIC") && told.contains("No space left on device"), "{told}");
    let log = log_of_the_server_that_is_not_ready(&site);
    assert!(fs::read_to_string(&log).unwrap().contains("No space left on device"));
    let shown = String::from_utf8(site.command(&["status"]).stdout).unwrap();
    assert!(shown.contains(&format!("a database server is not ready; {log} says why")), "{shown}");

    // Space comes back, and with it everything that was committed, and nothing that was refused.
    free(&disk);
    assert_eq!(value(&site, COUNTED), counted);
    assert_eq!(value(&site, GROWN), grown);
    assert_eq!(site.status()["databasesNotReady"], json!([]));

    no_server_for_the_rest(&site, &disk).await;

    // All of them killed on a full disk.
    let mut counting = Session::open(&site);
    fill(&disk, SLIVER_BYTES);
    let (counted, _) = counting.ask_on(COUNT, counted);
    site.signal(Signal::KILL);
    site.ended();
    free(&disk);
    site.up(&["--offline"]);
    assert_eq!(value(&site, COUNTED), counted);
    assert_eq!(value(&site, GROWN), grown);
    let verified = site.command(&["audit", "verify"]);
    assert!(verified.status.success(), "{verified:?}");
    site.stop();
    survived(&format!("{counted} changes, {grown} rows"));
}

/// It first tries to recover by itself.
fn log_of_the_server_that_is_not_ready(site: &Site) -> String {
    let begun = Instant::now();
    loop {
        if let Some(log) = site.status()["databasesNotReady"][0].as_str()
            && Session::open(site).ask(COUNTED).is_err_and(|told| told.contains("is starting up"))
        {
            return log.to_owned();
        }
        assert!(begun.elapsed() < BACK, "the server still runs");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A new server is refused what the site itself needs, by the request where that shows, and else by its operation;
/// nothing is left of it, and the site goes on.
async fn no_server_for_the_rest(site: &Site, disk: &Path) {
    let (wire, servers) = (site.client(), site.data.join("postgres"));
    let token = wire.admin_token(ARM_SCOPE).await;
    let group = format!("/subscriptions/{}/resourceGroups/rg", wire.subscription());
    let id = format!("{group}/providers/Microsoft.DBforPostgreSQL/flexibleServers/pg-second");
    let url = format!("{ARM}{id}?api-version=2025-08-01");
    let before = names_in(&servers);
    fill(disk, SITE_BYTES);
    let answer = wire.send("PUT", &url, Some(&token), Some(server_body())).await;
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        (answer.status.as_u16(), &told["error"]["code"]),
        (409, &json!("InsufficientStorage")),
        "{told}"
    );
    assert_eq!(wire.send("GET", &url, Some(&token), None).await.status, 404);
    assert_eq!(names_in(&servers), before);
    free(disk);

    // So it is where the copy fails half-way. It is tried again until it can be made.
    let template = servers.join(before.iter().find(|name| is_template(name)).unwrap());
    pipe_at(&template.join("zz"));
    let making = made(&wire, &token, &id, server_body());
    let failing = async {
        let begun = Instant::now();
        while !site.told().contains("neither a directory nor a plain file") || names_in(&servers) != before {
            assert!(begun.elapsed() < PATIENCE, "{:?}", names_in(&servers));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        fs::remove_file(template.join("zz")).unwrap();
    };
    tokio::join!(making, failing);
}

fn is_template(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("template-") && !name.ends_with(".secret")
}

fn names_in(folder: &Path) -> BTreeSet<OsString> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}
