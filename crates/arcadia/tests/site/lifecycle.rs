//! Starting, stopping, starting again.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{ARM, ARM_SCOPE, SECRETS_OFFICER, Site, VAULT_SCOPE, arcadia};

#[test]
fn up_says_what_it_serves_and_ends_with_ready() {
    let site = Site::start();
    let text = site.printed.join("\n");
    assert_eq!(site.printed.last().unwrap(), "ready");
    for part in ["*.vault.azure.net", "management.azure.com", "arcadia env --admin", "credentials.json"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let here = format!(" --data '{}'", site.data.display());
    for command in ["arcadia env --admin", "arcadia machine create ubuntu-01"] {
        assert!(text.contains(&format!("{command}{here}")), "another shell knows nothing: {text}");
    }
    assert!(!text.contains('\u{1b}'), "no colours in a pipe");
    let admin = site.env(true);
    for secret in ["AZURE_CLIENT_SECRET", "ARCADIA_PASSWORD"] {
        assert!(!text.contains(&admin[secret]), "{secret} is not printed");
    }
    let mode = |name: &str| std::fs::metadata(site.data.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(""), 0o700);
    for name in ["credentials.json", "root.key", "ring.json", "ca.key.pem", "site.json", "store.db"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    assert_eq!(mode("ca.pem"), 0o644);
}

#[test]
fn a_second_site_on_the_same_data_is_refused() {
    let site = Site::start();
    for arguments in [&["up", "--offline"][..], &["up", "--offline", "--detach"]] {
        let second = site.command(arguments);
        let told = String::from_utf8_lossy(&second.stderr);
        assert_eq!(second.status.code(), Some(1));
        let down = format!("`arcadia down --data '{}'` stops it", site.data.display());
        assert!(told.contains(&down), "without the directory it stops another one: {told}");
        assert!(told.contains("another site is running") && told.contains(&site.pid().to_string()), "{told}");
        assert!(!String::from_utf8_lossy(&second.stdout).contains("ready"));
    }
    assert_eq!(site.status()["state"], "running", "the first is not disturbed");
}

#[test]
fn detached_it_runs_until_down() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let run = |arguments: &[&str]| arcadia(&data).args(arguments).output().unwrap();
    let absent = run(&["status"]);
    assert_eq!(absent.status.code(), Some(1));
    let told = String::from_utf8_lossy(&absent.stdout);
    assert!(told.starts_with("absent") && told.contains("arcadia up --detach --data"), "{told}");
    assert_eq!(run(&["env"]).status.code(), Some(1), "there is no site yet");
    assert_eq!(run(&["down"]).status.code(), Some(0));
    let up = run(&["up", "--detach", "--offline"]);
    assert!(up.status.success() && up.stdout.ends_with(b"\nready\n"), "{up:?}");
    let status: serde_json::Value = serde_json::from_slice(&run(&["status", "--json"]).stdout).unwrap();
    assert_eq!(status["state"], "running");
    assert_eq!(status["caFile"], data.join("ca.pem").to_str().unwrap());
    assert_eq!(status["dataDirectory"], data.to_str().unwrap());
    assert!(data.join("log/site.log").exists());
    let pid = status["pid"].as_i64().unwrap();
    let down = run(&["down"]);
    assert!(down.status.success(), "{down:?}");
    assert!(!Path::new(&format!("/proc/{pid}")).exists() || run(&["status"]).status.code() == Some(1));
    let status: serde_json::Value = serde_json::from_slice(&run(&["status", "--json"]).stdout).unwrap();
    assert_eq!(status["state"], "stopped");
    let told = run(&["status"]).stdout;
    assert!(String::from_utf8_lossy(&told).contains("arcadia up --detach --data"), "{told:?}");
}

/// As in the background of a script: its terminal's Ctrl-C is for what runs in the foreground.
#[test]
fn signals_that_were_ignored_stay_so_and_down_stops_it_nevertheless() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    for (ignored, mask) in [("HUP INT TERM", 0b11), ("HUP", 0b01), ("INT", 0b10)] {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("trap '' {ignored}; exec \"$0\" up --detach --offline"));
        let up = shell.arg(env!("CARGO_BIN_EXE_arcadia")).env("ARCADIA_DATA", &data).output().unwrap();
        assert!(up.status.success(), "{up:?}");
        let run = |arguments: &[&str]| arcadia(&data).args(arguments).output().unwrap();
        let status: serde_json::Value = serde_json::from_slice(&run(&["status", "--json"]).stdout).unwrap();
        let process = std::fs::read_to_string(format!("/proc/{}/status", status["pid"])).unwrap();
        let told = process.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
        let is_ignored = u64::from_str_radix(told, 16).unwrap();
        // Whoever runs this test may have had some ignored as well.
        assert_eq!(is_ignored & mask, mask, "{ignored}");
        assert!(run(&["down"]).status.success(), "{ignored}");
    }
}

/// What was deleted is kept while a restored site has not run for a day: in one run, or in many that are short.
#[test]
fn short_runs_count_and_the_log_says_how_long_it_takes() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let run = |arguments: &[&str]| {
        let output = arcadia(&data).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let seen = || -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(data.join("seen.json")).unwrap()).unwrap()
    };
    run(&["up", "--detach", "--offline"]);
    run(&["down"]);
    let mut held = seen();
    held["heldSeconds"] = json!(7200);
    std::fs::write(data.join("seen.json"), held.to_string()).unwrap();
    // What is logged before it is ready is told on the terminal.
    let told = run(&["up", "--detach", "--offline"]);
    std::thread::sleep(Duration::from_millis(1100));
    run(&["down"]);
    assert!(seen()["heldSeconds"].as_u64().unwrap() < 7200, "{}", seen());
    let log = told + &std::fs::read_to_string(data.join("log/site.log")).unwrap();
    assert!(log.contains("only once it has run for 2 h more"), "{log}");
}

#[test]
fn run_returns_the_exit_status_and_env_is_complete() {
    let site = Site::start();
    let run = |arguments: &[&str]| site.command(arguments);
    assert_eq!(run(&["run", "--", "sh", "-c", "exit 42"]).status.code(), Some(42));
    assert_eq!(run(&["run", "--", "no-such-program-here"]).status.code(), Some(127));
    assert_eq!(run(&["run"]).status.code(), Some(2));
    assert_eq!(run(&["nonsense"]).status.code(), Some(2));
    let plain = run(&["run", "--", "sh", "-c", "echo ${AZURE_CLIENT_SECRET:-none} ${HTTP_PROXY:-none}"]);
    assert_eq!(plain.stdout, b"none none\n");
    let answer = run(&["run", "--", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", ARM]);
    assert!(answer.status.success(), "{answer:?}");

    let env = site.env(true);
    let proxy = site.proxy();
    for name in ["HTTPS_PROXY", "https_proxy"] {
        assert_eq!(env[name], proxy);
    }
    for name in ["NO_PROXY", "no_proxy"] {
        assert_eq!(env[name], "localhost,127.0.0.1");
    }
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        assert!(!env.contains_key(name));
    }
    for [azure, terraform] in [
        ["AZURE_TENANT_ID", "ARM_TENANT_ID"],
        ["AZURE_CLIENT_ID", "ARM_CLIENT_ID"],
        ["AZURE_CLIENT_SECRET", "ARM_CLIENT_SECRET"],
        ["AZURE_SUBSCRIPTION_ID", "ARM_SUBSCRIPTION_ID"],
    ] {
        assert_eq!(env[azure], env[terraform]);
    }
    assert!(env["ARCADIA_USER"].contains('@') && env["ARCADIA_PASSWORD"].len() >= 20);
    assert_eq!((&*env["NODE_USE_ENV_PROXY"], &*env["AZURE_CORE_COLLECT_TELEMETRY"]), ("1", "no"));
    for name in ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"] {
        let bundle = std::fs::read_to_string(&env[name]).unwrap();
        let authority = std::fs::read_to_string(site.data.join("ca.pem")).unwrap();
        assert!(bundle.contains(&authority), "{name}");
    }
}

#[tokio::test]
async fn what_was_written_and_issued_survives_a_restart() {
    const NEEDLE: &str = "needle-in-the-haystack-7f3a";
    // A port of its own, which no other test takes while the site is down.
    let port = (20_000 + std::process::id() % 10_000).to_string();
    let mut site = Site::start_with(&["--offline", "--port", &port]);
    let wire = site.client();
    let vault = wire.vault("kvrestart").await;
    let officer = wire.application("officer").await;
    wire.assign(&vault, SECRETS_OFFICER, &officer.object_id).await;
    let token = wire.token_of(&officer.app_id, &officer.secret, VAULT_SCOPE).await;
    let arm = wire.admin_token(ARM_SCOPE).await;
    let url = "https://kvrestart.vault.azure.net/secrets/s1?api-version=7.4";
    wire.must("PUT", url, &token, Some(json!({ "value": NEEDLE }))).await;
    let proxy = site.proxy();

    // The log tells the same whether the site runs or not.
    for running in [true, false] {
        if !running {
            site.stop();
        }
        let tail = site.command(&["audit", "tail", "-n", "3", "--json"]);
        let lines: Vec<&str> = std::str::from_utf8(&tail.stdout).unwrap().lines().collect();
        assert_eq!(lines.len(), 3, "{tail:?}");
        let set = |line: &&str| line.contains("setSecret") && line.contains("kvrestart");
        assert!(lines.iter().any(set), "{lines:?}");
        let verified = site.command(&["audit", "verify"]);
        assert!(verified.status.success() && verified.stdout.ends_with(b"unbroken\n"), "{verified:?}");
    }
    assert!(!holds(&site.data, NEEDLE.as_bytes()), "the value is nowhere in the clear");
    assert!(!holds(&site.data, officer.secret.as_bytes()), "neither is a client's secret");
    site.up(&["--offline"]);
    assert_eq!(site.proxy(), proxy, "shells keep working");
    let wire = site.client();
    assert_eq!(wire.must("GET", url, &token, None).await["value"], NEEDLE);
    wire.must("GET", &format!("{ARM}{vault}?api-version=2026-02-01"), &arm, None).await;

    // Killed without warning, it has lost nothing either.
    wire.must("PUT", url, &token, Some(json!({ "value": "second" }))).await;
    site.signal(Signal::KILL);
    site.ended();
    site.up(&["--offline"]);
    assert_eq!(site.client().must("GET", url, &token, None).await["value"], "second");
}

/// Whether any file below `folder` has these bytes.
fn holds(folder: &Path, needle: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().map(Result::unwrap).any(|entry| {
        let kind = entry.file_type().unwrap();
        let path = entry.path();
        (kind.is_dir() && holds(&path, needle))
            || (kind.is_file()
                && std::fs::read(&path).unwrap().windows(needle.len()).any(|window| window == needle))
    })
}

#[tokio::test]
async fn requests_under_way_are_finished() {
    let mut site = Site::start_with(&["--port", &free_port().to_string()]);
    let proxy = site.proxy();
    let mut stream = tokio::net::TcpStream::connect(proxy.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(b"CONNECT login.microsoftonline.com:443 HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = [0; "HTTP/1.1 200 Connection established\r\n\r\n".len()];
    stream.read_exact(&mut answer).await.unwrap();
    let mut tls =
        connector(&site.data).connect("login.microsoftonline.com".try_into().unwrap(), stream).await.unwrap();
    tls.write_all(
        b"POST /organizations/oauth2/v2.0/token HTTP/1.1\r\nHost: login.microsoftonline.com\r\n\
          Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 21\r\n\r\ngrant_type=",
    )
    .await
    .unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    site.signal(Signal::TERM);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let refused = tokio::net::TcpStream::connect(proxy.strip_prefix("http://").unwrap()).await;
    assert!(refused.is_err(), "nobody listens any more");
    tls.write_all(b"somethings").await.unwrap();
    let mut text = String::new();
    let _ = tls.read_to_string(&mut text).await;
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    assert_eq!(site.ended(), Some(0));
}

fn connector(data: &Path) -> tokio_rustls::TlsConnector {
    use rustls_pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls_pki_types::CertificateDer::from_pem_file(data.join("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

#[test]
fn every_command_explains_itself() {
    let folder = TempDir::new().unwrap();
    let run = |arguments: &[&str]| arcadia(folder.path()).args(arguments).output().unwrap();
    for command in [
        &["up"][..],
        &["down"],
        &["status"],
        &["env"],
        &["run"],
        &["hosts"],
        &["lab"],
        &["machine"],
        &["token"],
        &["token", "decode"],
        &["access"],
        &["access", "explain"],
        &["keys"],
        &["audit"],
        &["audit", "tail"],
        &["audit", "verify"],
        &["backup"],
        &["restore"],
        &["agent"],
        &["agent", "run"],
    ] {
        let help = run(&[command, &["--help"]].concat());
        let text = String::from_utf8_lossy(&help.stdout);
        assert!(help.status.success() && text.contains("Examples:"), "{command:?}: {text}");
        assert_eq!(
            run(&[command, &["--no-such-option"]].concat()).status.code(),
            Some(if command == ["run"] { 1 } else { 2 }),
            "{command:?}"
        );
    }
    assert_eq!(run(&["up", "--user-name", "a b"]).status.code(), Some(2));
    assert_eq!(run(&["up", "--port", "0"]).status.code(), Some(2));
    assert!(!folder.path().join("credentials.json").exists(), "nothing was made");
}

#[test]
fn a_port_that_is_taken_is_an_error_when_it_was_asked_for() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = TempDir::new().unwrap();
    let up = arcadia(&folder.path().join("data")).args(["up", "--port", &port]).output().unwrap();
    assert_eq!(up.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&up.stderr).contains("--port"), "{up:?}");
    let up = arcadia(&folder.path().join("data")).args(["up", "--detach", "--port", &port]).output().unwrap();
    assert_eq!(up.status.code(), Some(1));
    assert!(!String::from_utf8_lossy(&up.stderr).contains("INFO"), "{up:?}");
    for name in ["site.json", "credentials.json", "ring.json"] {
        assert!(!folder.path().join("data").join(name).exists(), "{name}: what it is called is still open");
    }
}

#[test]
fn what_is_chosen_at_the_first_start_is_not_ignored_later() {
    let mut site = Site::start_with(&["--offline", "--user-name", "nina"]);
    let up = site.command(&["up", "--offline", "--user-name", "other"]);
    assert!(String::from_utf8_lossy(&up.stderr).contains("nina@arcadia.example since"), "{up:?}");
    let up = site.command(&["up", "--offline", "--passphrase"]);
    let change = format!("`arcadia keys root --passphrase --data '{}'` changes", site.data.display());
    let told = String::from_utf8_lossy(&up.stderr);
    assert!(told.contains(&change), "without the directory it changes another one's: {told}");
    let removed = std::fs::remove_file(site.data.join("credentials.json"));
    let env = site.command(&["env", "--admin"]);
    let told = String::from_utf8_lossy(&env.stderr);
    assert!(removed.is_ok() && told.contains("credentials.json is missing"), "{told}");
    site.stop();
    let up = site.command(&["up", "--offline", "--user-domain", "other.example"]);
    assert_eq!(up.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&up.stderr).contains("@arcadia.example since its first start"), "{up:?}");
    site.up(&["--offline", "--user-name", "nina", "--user-domain", "arcadia.example"]);
}

#[test]
fn an_interrupted_first_start_is_taken_up_with_the_same_credentials() {
    let mut site = Site::start();
    let before = site.env(true);
    site.stop();
    // What is left when the site dies between founding the directory and writing its record.
    for name in ["site.json", "ca.pem", "ca.key.pem"] {
        std::fs::remove_file(site.data.join(name)).unwrap();
    }
    let told = site.command(&["env"]);
    let begun = format!("came to no end; take it up with `arcadia up --data '{}'`", site.data.display());
    assert!(String::from_utf8_lossy(&told.stderr).contains(&begun), "{told:?}");
    site.up(&["--offline"]);
    let after = site.env(true);
    for name in ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "ARCADIA_PASSWORD"] {
        assert_eq!(before[name], after[name]);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let wire = site.client();
    let token = runtime.block_on(wire.admin_token(ARM_SCOPE));
    assert!(!token.is_empty());
}

#[test]
fn a_lost_root_key_is_told_and_not_replaced() {
    let mut site = Site::start();
    site.stop();
    std::fs::rename(site.data.join("root.key"), site.data.join("root.key.away")).unwrap();
    let up = site.command(&["up", "--offline"]);
    assert_eq!(up.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&up.stderr).contains("root.key"), "{up:?}");
    std::fs::rename(site.data.join("root.key.away"), site.data.join("root.key")).unwrap();
    site.up(&["--offline"]);
}

/// A shell's PGHOSTADDR must lead to the same site after a restart. The address is one that no other site takes.
#[test]
fn the_address_of_databases_survives_a_restart() {
    let listen = format!("127.40.35.7:{}", free_port());
    let mut site = Site::start_with(&["--listen", &listen]);
    assert_eq!(site.env(false)["PGHOSTADDR"], "127.40.35.7");
    site.stop();
    site.up(&[]);
    assert_eq!(site.env(false)["PGHOSTADDR"], "127.40.35.7");
}

/// A port that sites of other tests do not try: they take the default one, or any.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// It says what the site is called: without it `up` would found another one over the same rows.
#[test]
fn a_lost_record_is_told_and_not_replaced() {
    let mut site = Site::start_with(&["--offline", "--domain", "site.test"]);
    site.stop();
    let [record, away] = ["site.json", "site.json.away"].map(|name| site.data.join(name));
    std::fs::rename(&record, &away).unwrap();
    for command in [&["up", "--offline", "--detach"][..], &["env"], &["audit", "verify"], &["keys", "show"]] {
        let told = site.command(command);
        assert_eq!(told.status.code(), Some(1), "{command:?}");
        assert!(
            String::from_utf8_lossy(&told.stderr).contains("site.json is missing"),
            "{command:?}: {told:?}"
        );
    }
    assert!(!record.exists());
    let shown = String::from_utf8(site.command(&["status"]).stdout).unwrap();
    assert!(shown.starts_with("stopped") && shown.contains("site.json: the site does not start"), "{shown}");
    std::fs::rename(&away, &record).unwrap();
    site.up(&["--offline", "--domain", "site.test"]);
}

#[test]
fn status_names_what_is_missing() {
    let mut site = Site::start();
    assert!(site.status().get("missing").is_none());
    site.stop();
    for name in ["ring.json", "root.key", "blobs", "ca.key.pem"] {
        let away = site.data.join("away");
        std::fs::rename(site.data.join(name), &away).unwrap();
        let status = site.status();
        assert_eq!(status["missing"], json!([site.data.join(name)]), "{status}");
        std::fs::rename(away, site.data.join(name)).unwrap();
    }
}

/// A lock of the shell that started it, or the file with its passphrase, is not held for as long as the site runs.
#[test]
fn detached_it_has_nothing_of_its_shell_open() {
    let folder = TempDir::new().unwrap();
    let [data, lock] = ["data", "lock"].map(|name| folder.path().join(name));
    let mut shell = Command::new("bash");
    let script = "exec 9>\"$1\" 42<\"$1\" && flock 9 && \"$0\" up --detach --offline";
    shell.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_arcadia")).arg(&lock);
    let up = shell.env("ARCADIA_DATA", &data).output().unwrap();
    assert!(up.status.success(), "{up:?}");
    let status = arcadia(&data).args(["status", "--json"]).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let open = std::fs::read_dir(format!("/proc/{}/fd", status["pid"])).unwrap();
    let held = open.flatten().filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to == lock));
    assert_eq!(held.count(), 0);
    assert!(Command::new("flock").arg("-n").arg(&lock).arg("true").status().unwrap().success());
    assert!(arcadia(&data).arg("down").status().unwrap().success());
}

#[test]
fn an_empty_variable_is_none() {
    let folder = TempDir::new().unwrap();
    let mut status = Command::new(env!("CARGO_BIN_EXE_arcadia"));
    status.env_clear().env("ARCADIA_DATA", "").env("ARCADIA_PASSPHRASE_FILE", "");
    let site = folder.path().join("site");
    let told = status.args(["status", "--json", "--data"]).arg(&site).output().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&told["state"], told["dataDirectory"].as_str()), (&json!("absent"), site.to_str()));
    let mut site = Site::over(site);
    site.up(&["--offline"]);
    let mut verify = arcadia(&site.data);
    let verified = verify.env("ARCADIA_PASSPHRASE_FILE", "").args(["audit", "verify"]).output().unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

/// Before anything is made in it: what a site is called is for ever.
#[test]
fn a_directory_that_no_site_can_be_in_is_refused_at_once() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = TempDir::new().unwrap();
    let text = std::ffi::OsStr::from_bytes(b"no\xfftext");
    for (name, word) in [(text, "not text in UTF-8"), (std::ffi::OsStr::new(&"long".repeat(25)), "too long")]
    {
        let data = folder.path().join(name);
        for command in [&["up", "--offline"][..], &["up", "--offline", "--detach"]] {
            let up = arcadia(&data).args(command).output().unwrap();
            assert_eq!(up.status.code(), Some(1));
            assert!(String::from_utf8_lossy(&up.stderr).contains(word), "{up:?}");
        }
        assert!(!data.exists());
    }
}
