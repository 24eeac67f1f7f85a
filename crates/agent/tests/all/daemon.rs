//! The daemon over time: restarts, outages, connections that come and go, and its bounds.

use std::time::Duration;

use arcadia_agent::onboard::{DisconnectRequest, disconnect};
use arcadia_agent::{AgentOptions, HimdsLimits};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::bench::{Daemon, TENANT, curl, until};
use crate::machine::{Bench, METADATA, TOKEN, secret, with_secret};

#[tokio::test]
async fn a_restart_voids_what_was_outstanding_and_sweeps_it() {
    let bench = Bench::new().await;
    bench.connect().await;
    let daemon = Daemon::start(bench.options()).await;
    let old = secret(&daemon).await;
    // As after a crash: the file is still there.
    std::fs::write(bench.layout().tokens().join("11111111-0000-0000-0000-000000000000.key"), &old).unwrap();
    daemon.stop().await;
    std::fs::write(bench.layout().tokens().join("22222222-0000-0000-0000-000000000000.key"), &old).unwrap();
    let precious = bench.root.write("precious", "kept");
    std::os::unix::fs::symlink(&precious, bench.layout().tokens().join("link.key")).unwrap();
    let daemon = Daemon::start(bench.options()).await;
    assert_eq!(bench.challenge_files(), 0);
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "kept");
    assert_eq!(with_secret(&daemon, TOKEN, &old).await.0, 401);
    daemon.stop().await;
}

#[tokio::test]
async fn tokens_are_kept_until_half_of_their_life_and_while_the_site_is_away() {
    let bench = Bench::new().await;
    bench.connect().await;
    let daemon = Daemon::start(bench.options()).await;
    let token = async |path: &str| {
        let (status, _, body) = with_secret(&daemon, path, &secret(&daemon).await).await;
        assert_eq!(status, 200, "{body}");
        body
    };
    let first = token(TOKEN).await;
    bench.clock.advance_seconds(43_199);
    let kept = token(TOKEN).await;
    assert_eq!(kept["access_token"], first["access_token"]);
    assert_eq!(kept["expires_in"], "43201");
    assert_eq!(kept["expires_on"], first["expires_on"]);
    let bypassed = token(&format!("{TOKEN}&bypass_cache=true")).await;
    assert_ne!(bypassed["access_token"], first["access_token"]);
    bench.clock.advance_seconds(43_200);
    let renewed = token(TOKEN).await;
    assert_ne!(renewed["access_token"], bypassed["access_token"]);

    bench.site.known().failing = Some(503);
    bench.clock.advance_seconds(50_000);
    assert_eq!(token(TOKEN).await["access_token"], renewed["access_token"]);
    let bypass = format!("{TOKEN}&bypass_cache=true");
    let (status, _, body) = with_secret(&daemon, &bypass, &secret(&daemon).await).await;
    assert_eq!((status, &body["error"]), (503, &json!("service_unavailable")));
    bench.clock.advance_seconds(36_350);
    let (status, _, _) = with_secret(&daemon, TOKEN, &secret(&daemon).await).await;
    assert_eq!(status, 503, "less than a minute is left of it");
    daemon.stop().await;
}

#[tokio::test]
async fn metadata_is_the_machine_s_and_outlives_the_site() {
    let bench = Bench::new().await;
    let config = bench.connect().await;
    bench.site.known().tags = Some(json!({"datacentre": "Elsewhere"}));
    let daemon = Daemon::start(bench.options()).await;
    until("a heartbeat", || bench.layout().root().join("state/heartbeat.json").exists()).await;
    daemon.stop().await;
    bench.site.known().failing = Some(503);

    let daemon = Daemon::start(bench.options()).await;
    let get = async |path: &str| curl(&daemon.url(path), &METADATA).await;
    let (status, _, body) = get("/metadata/instance?api-version=2021-02-01").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    let compute = &body["compute"];
    assert_eq!((status, &compute["name"]), (200, &json!("ubuntu-01")));
    assert_eq!(compute["resourceId"], config.resource_id);
    assert_eq!(compute["vmId"], config.vm_id.to_string());
    assert_eq!(compute["tags"], "datacentre:Elsewhere", "as the last heartbeat said");
    let cases = [
        ("/metadata/instance/compute/location?api-version=2020-06-01&format=text", "uksouth"),
        (
            "/metadata/instance/compute/tagsList?api-version=2020-06-01",
            r#"[{"name":"datacentre","value":"Elsewhere"}]"#,
        ),
        ("/metadata/instance/compute/tagsList/0/value/?api-version=2020-06-01&format=text", "Elsewhere"),
        ("/metadata/instance?api-version=2020-06-01&format=text", "compute/\nnetwork/"),
        ("/METADATA/Instance/Compute/Name?API-Version=2020-06-01&Format=TEXT", "ubuntu-01"),
        ("/metadata/instance/network?api-version=2020-06-01", "{}"),
        ("/metadata/identity/info?api-version=2020-09-01", &format!(r#"{{"tenantId":"{TENANT}"}}"#)),
    ];
    for (path, expected) in cases {
        let (status, _, body) = get(path).await;
        assert_eq!((status, body.as_str()), (200, expected), "{path}");
    }
    let (_, _, versions) = get("/metadata/versions").await;
    assert!(versions.contains("\"2020-06-01\""));
    daemon.stop().await;
}

#[tokio::test]
async fn before_and_after_connect_and_disconnect() {
    let bench = Bench::new().await;
    let daemon = Daemon::start(bench.options()).await;
    let instance = daemon.url("/metadata/instance?api-version=2020-06-01");
    for url in [daemon.url(TOKEN), instance.clone()] {
        let (status, _, body) = curl(&url, &METADATA).await;
        assert_eq!(status, 400);
        assert!(body.contains("azcmagent connect"), "{body}");
    }
    let status_of =
        async || -> Value { serde_json::from_str(&curl(&daemon.url("/agentstatus"), &[]).await.2).unwrap() };
    assert_eq!(status_of().await["status"], "Disconnected");

    bench.connect().await;
    assert_eq!(curl(&instance, &METADATA).await.0, 200, "at once, with the same daemon");
    let site = bench.site.known.clone();
    until("a heartbeat after connect", || !site.lock().unwrap().heartbeats.is_empty()).await;
    until("what it said", || bench.layout().root().join("state/heartbeat.json").exists()).await;
    let status = status_of().await;
    assert_eq!((&status["status"], &status["resourceName"]), (&json!("Connected"), &json!("ubuntu-01")));
    assert_eq!(status["lastHeartbeat"], "2027-01-15T08:00:00Z");
    let said = bench.site.known().heartbeats[0].clone();
    for name in ["vmId", "agentVersion", "osName", "osVersion", "machineFqdn"] {
        assert!(said[name].as_str().is_some_and(|text| !text.is_empty()), "{name} {said}");
    }
    assert_eq!(said["status"], "Connected");

    std::fs::remove_file(bench.layout().config()).unwrap();
    assert_eq!(curl(&daemon.url(TOKEN), &METADATA).await.0, 400);
    assert_eq!(status_of().await["status"], "Disconnected");
    daemon.stop().await;
}

#[tokio::test]
async fn connected_anew_it_knows_nothing_of_the_machine_that_it_was() {
    let bench = Bench::new().await;
    bench.connect().await;
    let daemon = Daemon::start(bench.options()).await;
    let token = async || {
        let (status, _, body) = with_secret(&daemon, TOKEN, &secret(&daemon).await).await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].clone()
    };
    let before = token().await;
    assert_eq!(token().await, before);
    // Nobody asks the daemon for anything between the two.
    let local_only = DisconnectRequest { sign_in: None, tenant: None };
    disconnect(&bench.options(), local_only, &mut |_| {}).await.unwrap();
    bench.site.known().machines.clear();
    bench.connect().await;
    assert_ne!(token().await, before);
    daemon.stop().await;
}

#[tokio::test]
async fn a_challenge_that_nobody_uses_is_removed() {
    let bench = Bench::new().await;
    bench.connect().await;
    let daemon = Daemon::start(bench.options()).await;
    secret(&daemon).await;
    assert_eq!(bench.challenge_files(), 1);
    bench.clock.advance_seconds(bench.options().limits.challenge_lifetime_seconds);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(60)).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.challenge_files(), 0);
    tokio::time::resume();
    daemon.stop().await;
}

#[tokio::test]
async fn failing_heartbeats_are_tried_again_and_shown() {
    let bench = Bench::new().await;
    bench.connect().await;
    bench.site.known().heartbeats_failing = Some(500);
    let options = AgentOptions { heartbeat_interval: Duration::from_millis(200), ..bench.options() };
    let daemon = Daemon::start(options).await;
    let site = bench.site.known.clone();
    let tries = || site.lock().unwrap().seen.iter().filter(|one| one.contains("heartbeat")).count();
    until("two tries", || tries() >= 2).await;
    let (_, _, body) = curl(&daemon.url("/agentstatus"), &[]).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&body["status"], &body["errorCode"]), (&json!("Disconnected"), &json!("HeartbeatsFail")));
    bench.site.known().heartbeats_failing = None;
    until("a heartbeat", || !site.lock().unwrap().heartbeats.is_empty()).await;
    until("more", || site.lock().unwrap().heartbeats.len() > 2).await;
    let (_, _, body) = curl(&daemon.url("/agentstatus"), &[]).await;
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["errorCode"], "");
    daemon.stop().await;
    let log = std::fs::read_to_string(bench.layout().log_file()).unwrap();
    assert_eq!(log.matches("the heartbeat failed").count(), 1, "one outage is one line:\n{log}");
    assert!(log.contains("heartbeats succeed again"));
    let issued = bench.site.known().tokens_issued;
    assert!(issued <= 2, "the token for heartbeats is kept: {issued}");
}

/// Many requests for a challenge in one go, and what each is answered from its status on. A process for each would
/// take so long on a busy machine that the daemon could well answer them all.
async fn tokens_at_once(daemon: &Daemon) -> Vec<String> {
    let request = format!("GET {TOKEN} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", METADATA[1]);
    let requests = format!("{request}\r\n").repeat(15) + &request + "Connection: close\r\n\r\n";
    let mut stream = tokio::net::TcpStream::connect(daemon.addresses[0]).await.unwrap();
    stream.write_all(requests.as_bytes()).await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    let answers: Vec<_> = answers.split("HTTP/1.1 ").skip(1).map(str::to_owned).collect();
    assert_eq!(answers.len(), 16, "{answers:?}");
    answers
}

async fn ask_until_it_is_too_much(daemon: &Daemon) {
    for _ in 0..100 {
        if tokens_at_once(daemon).await.iter().any(|answer| answer.starts_with("429 ")) {
            return;
        }
    }
    panic!("it is never too much");
}

#[tokio::test]
async fn local_processes_have_limits() {
    let bench = Bench::new().await;
    bench.connect().await;
    let limits = HimdsLimits {
        identity_per_second: 1,
        connections_max: 2,
        header_timeout: Duration::from_millis(700),
        ..HimdsLimits::default()
    };
    let daemon = Daemon::start(AgentOptions { limits, ..bench.options() }).await;
    let first = tokens_at_once(&daemon).await;
    assert!(first[0].starts_with("401 "), "{first:?}");
    for answer in &first {
        assert_eq!(answer.starts_with("429 "), answer.contains("\r\nRetry-After: 1"), "{answer}");
    }
    ask_until_it_is_too_much(&daemon).await;

    // Two that say nothing or too little take both places, but only for as long as a header may take.
    let address = daemon.addresses[0];
    let mut idle = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut slow = tokio::net::TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /agentstatus HTTP/1.1\r\n").await.unwrap();
    let (status, _, _) = curl(&daemon.url("/agentstatus"), &[]).await;
    assert_eq!(status, 200);
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(5), idle.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "an idle connection is closed");

    // A kept connection that asks for nothing more is closed too.
    let mut kept = tokio::net::TcpStream::connect(address).await.unwrap();
    kept.write_all(b"GET /agentstatus HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(5), kept.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "a kept connection is closed when nothing follows");

    let long = format!("/metadata/instance?api-version=2020-06-01&x={}", "a".repeat(9000));
    assert_eq!(curl(&daemon.url(&long), &METADATA).await.0, 400);
    for (bytes, status) in [(31_000, 200), (33_000, 431), (60_000, 431)] {
        let huge = format!("X-Filler: {}", "a".repeat(bytes));
        assert_eq!(curl(&daemon.url("/agentstatus"), &["-H", &huge]).await.0, status, "{bytes}");
    }
    for (count, status) in [(50, 200), (70, 431)] {
        let many: Vec<String> = (0..count).flat_map(|n| ["-H".to_owned(), format!("X-{n}: y")]).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(curl(&daemon.url("/agentstatus"), &many).await.0, status, "{count}");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn what_others_ask_keeps_no_token_from_who_may_have_one() {
    let bench = Bench::new().await;
    bench.connect().await;
    let limits = HimdsLimits { identity_per_second: 1, ..HimdsLimits::default() };
    let daemon = Daemon::start(AgentOptions { limits, ..bench.options() }).await;
    // What a web page can make a browser ask is counted nowhere.
    for _ in 0..5 {
        let from_a_page = ["-H", "Metadata: true", "-H", "Host: rebound.example"];
        assert_eq!(curl(&daemon.url(TOKEN), &from_a_page).await.0, 400);
        assert_eq!(curl(&daemon.url(TOKEN), &[]).await.0, 400);
        assert_eq!(curl(&daemon.url(TOKEN), &["-X", "POST", METADATA[0], METADATA[1]]).await.0, 405);
    }
    let secret = secret(&daemon).await;
    ask_until_it_is_too_much(&daemon).await;
    assert_eq!(
        with_secret(&daemon, TOKEN, &secret).await.0,
        200,
        "a challenge that was met is counted no more"
    );
    daemon.stop().await;
}

#[tokio::test]
async fn who_says_nothing_keeps_nobody_out_and_who_is_answered_stays() {
    let bench = Bench::new().await;
    bench.connect().await;
    let hour = Duration::from_secs(3600);
    let limits = HimdsLimits { header_timeout: hour, ..bench.options().limits };
    let places = limits.connections_max;
    let daemon = Daemon::start(AgentOptions { limits, ..bench.options() }).await;
    let silent = async |at: usize| {
        let mut stream = tokio::net::TcpStream::connect(daemon.addresses[0]).await.unwrap();
        let said = [&b""[..], b"GET /agentstatus HTTP/1.1\r\nHost: "][at % 2];
        stream.write_all(said).await.unwrap();
        stream
    };
    // Nobody times out here: who is served below has a place that another one gave up.
    let mut crowd = Vec::new();
    for at in 0..places {
        crowd.push(silent(at).await);
    }
    let mut kept = tokio::net::TcpStream::connect(daemon.addresses[0]).await.unwrap();
    let request = b"GET /agentstatus HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut answer = vec![0; 4096];
    for at in 0..3 {
        let secret = secret(&daemon).await;
        assert_eq!(with_secret(&daemon, TOKEN, &secret).await.0, 200);
        kept.write_all(request).await.unwrap();
        let read = kept.read(&mut answer).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200 "), "it is the last to give way");
        crowd.push(silent(at).await);
    }
    let mut rest = Vec::new();
    assert_eq!(crowd[0].read_to_end(&mut rest).await.unwrap(), 0, "the first to come is the first to go");
    daemon.stop().await;
}

#[tokio::test]
async fn a_second_daemon_is_refused_and_leaves_the_first_alone() {
    let bench = Bench::new().await;
    bench.connect().await;
    let daemon = Daemon::start(bench.options()).await;
    let secret = secret(&daemon).await;
    let second = AgentOptions { addresses: daemon.addresses.clone(), ..bench.options() };
    let fault = arcadia_agent::Agent::bind(second).await.err().unwrap();
    assert!(fault.to_string().contains("another agent"), "{fault}");
    assert_eq!(with_secret(&daemon, TOKEN, &secret).await.0, 200);
    daemon.stop().await;
}

#[tokio::test]
async fn a_missing_key_is_said() {
    let bench = Bench::new().await;
    bench.connect().await;
    std::fs::remove_file(bench.root.path().join("certs/machine.key")).unwrap();
    let daemon = Daemon::start(bench.options()).await;
    let (status, _, body) = curl(&daemon.url(TOKEN), &METADATA).await;
    assert_eq!(status, 503);
    assert!(body.contains("machine.key") && body.contains("disconnect --force-local-only"), "{body}");
    let (status, _, _) = curl(&daemon.url("/metadata/instance?api-version=2020-06-01"), &METADATA).await;
    assert_eq!(status, 200, "metadata needs no key");
    daemon.stop().await;
}
