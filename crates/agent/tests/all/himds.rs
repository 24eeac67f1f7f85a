//! HIMDS as clients see it: real `curl` against a running daemon.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arcadia_agent::{AgentOptions, FactSources};
use serde_json::{Value, json};

use crate::bench::{CLIENT_ID, Daemon, PRINCIPAL_ID, SUBSCRIPTION, bash, curl};
use crate::machine::{Bench, METADATA, NOW, TOKEN, challenge, secret, with_secret};

#[tokio::test]
async fn the_walk_through_s_own_commands() {
    let bench = Bench::new().await;
    bench.connect().await;
    let daemon = Daemon::start(bench.options()).await;
    let at = daemon.addresses[0].to_string();
    let script = r#"
        imds=$(curl -sSL -H Metadata:true http://localhost:40342/metadata/instance?api-version=2020-06-01)
        subscriptionId=$(jq -r .compute.subscriptionId <<< $imds)
        resourceGroupName=$(jq -r .compute.resourceGroupName <<< $imds)
        challengeTokenPath=$(curl -s -D - -H Metadata:true "http://127.0.0.1:40342/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fmanagement.azure.com" | grep Www-Authenticate | cut -d "=" -f 2 | tr -d "[:cntrl:]")
        ls -l TOKENS >&2
        challengeToken=$(cat $challengeTokenPath)
        token=$(curl -s -H Metadata:true -H "Authorization: Basic $challengeToken" "http://127.0.0.1:40342/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fmanagement.azure.com" | jq -r .access_token)
        again=$(curl -s -H Metadata:true -H "Authorization: Basic $challengeToken" "http://127.0.0.1:40342/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fmanagement.azure.com" | jq -r .error)
        echo "$subscriptionId $resourceGroupName"
        echo "$token"
        echo "$again"
        test ! -e $challengeTokenPath
    "#;
    // The daemon is not on its usual port here: a machine of its own has that.
    let script = script
        .replace("127.0.0.1:40342", &at)
        .replace("localhost:40342", &at.replace("127.0.0.1", "localhost"))
        .replace("TOKENS", &bench.layout().tokens().display().to_string());
    let printed = bash(&script).await;
    // The daemon's first heartbeat may have had its token before or after.
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], format!("{SUBSCRIPTION} arc-hack"));
    assert!(lines[1].ends_with("-for-https://management.azure.com"), "{printed}");
    assert_eq!(lines[2], "unauthorized_client");
    daemon.stop().await;
}

#[tokio::test]
async fn both_loopbacks_answer_and_nothing_else_can_be_asked_for() {
    let bench = Bench::new().await;
    bench.connect().await;
    let daemon = Daemon::start(bench.options()).await;
    assert_eq!(daemon.addresses.len(), 2, "{:?}", daemon.addresses);
    for address in &daemon.addresses {
        let url = format!("http://{address}/metadata/instance?api-version=2020-06-01");
        assert_eq!(curl(&url, &METADATA).await.0, 200, "{address}");
    }
    daemon.stop().await;
    let outside = AgentOptions { addresses: vec!["0.0.0.0:0".parse().unwrap()], ..bench.options() };
    assert!(arcadia_agent::Agent::bind(outside).await.err().unwrap().to_string().contains("loopback"));
}

#[tokio::test]
async fn a_token_has_all_that_clients_look_for() {
    let bench = Bench::new().await;
    bench.connect().await;
    let daemon = Daemon::start(bench.options()).await;
    let (status, head, body) = curl(&daemon.url(TOKEN), &METADATA).await;
    assert_eq!(status, 401);
    let path = challenge(&head);
    assert_eq!(path.parent().unwrap(), bench.layout().tokens());
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(uuid::Uuid::parse_str(name.strip_suffix(".key").unwrap()).is_ok());
    let secret = std::fs::read(&path).unwrap();
    assert!(secret.len() <= 4096 && secret.iter().all(u8::is_ascii_graphic), "no line break, nothing odd");
    let refused: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(refused["error"], "unauthorized_client");
    assert_eq!(refused["error_description"], "Missing Basic Authorization header");
    assert_eq!(refused["error_codes"], json!([401]));

    let secret = String::from_utf8(secret).unwrap();
    let authorization = format!("Authorization: Basic {secret}");
    let (status, head, body) =
        curl(&daemon.url(TOKEN), &["-H", "Metadata: true", "-H", &authorization]).await;
    assert_eq!(status, 200);
    assert!(head.contains("\r\nContent-Type: application/json; charset=utf-8"), "{head}");
    assert!(!path.exists());
    let expected = format!(
        r#"{{"access_token":"TOKEN","client_id":"{CLIENT_ID}","expires_in":"86400","expires_on":"{}","ext_expires_in":"86400","not_before":"{}","resource":"https://vault.azure.net","token_type":"Bearer"}}"#,
        NOW + 86_400,
        NOW - 300
    );
    let token: Value = serde_json::from_str(&body).unwrap();
    let token = token["access_token"].as_str().unwrap().to_owned();
    assert!(token.ends_with("-for-https://vault.azure.net"));
    assert_eq!(body.replace(&token, "TOKEN"), expected);
    daemon.stop().await;
}

#[tokio::test]
async fn a_used_or_wrong_challenge_gets_a_fresh_one() {
    let bench = Bench::new().await;
    bench.connect().await;
    let daemon = Daemon::start(bench.options()).await;
    let used = secret(&daemon).await;
    assert_eq!(with_secret(&daemon, TOKEN, &used).await.0, 200);
    let unused = secret(&daemon).await;
    for wrong in [used.as_str(), "wrong", "", &unused[1..], &unused.to_uppercase()] {
        let (status, head, body) = with_secret(&daemon, TOKEN, wrong).await;
        assert_eq!((status, &body["error"]), (401, &json!("unauthorized_client")), "{wrong:?}");
        assert!(challenge(&head).exists());
    }
    // Neither did any of that use up the challenge that was outstanding, nor are there other ways in.
    for header in ["Authorization: Bearer x", "Authorization: Basic", "Authorization: Digest realm=x"] {
        let (status, head, _) = curl(&daemon.url(TOKEN), &["-H", "Metadata: true", "-H", header]).await;
        assert_eq!(status, 401);
        challenge(&head);
    }
    assert_eq!(with_secret(&daemon, TOKEN, &unused).await.0, 200);
    daemon.stop().await;
    assert_eq!(bench.challenge_files(), 0, "what is left is removed at the end");
}

#[tokio::test]
async fn eight_at_once_with_one_secret_have_one_winner() {
    let bench = Bench::new().await;
    bench.connect().await;
    let daemon = Arc::new(Daemon::start(bench.options()).await);
    for _ in 0..3 {
        let secret = secret(&daemon).await;
        let racers: Vec<_> = (0..8)
            .map(|_| {
                let (daemon, secret) = (daemon.clone(), secret.clone());
                tokio::spawn(async move { with_secret(&daemon, TOKEN, &secret).await.0 })
            })
            .collect();
        let mut won = 0;
        for racer in racers {
            match racer.await.unwrap() {
                200 => won += 1,
                status => assert_eq!(status, 401),
            }
        }
        assert_eq!(won, 1);
    }
}

#[tokio::test]
async fn an_unused_challenge_expires() {
    let bench = Bench::new().await;
    bench.connect().await;
    let daemon = Daemon::start(bench.options()).await;
    let secret = secret(&daemon).await;
    bench.clock.advance_seconds(5 * 60);
    assert_eq!(with_secret(&daemon, TOKEN, &secret).await.0, 401);
    daemon.stop().await;
}

#[tokio::test]
async fn only_root_and_the_himds_group_can_read_a_challenge() {
    let bench = Bench::new().await;
    let is_root = rustix::process::geteuid().is_root();
    let accounts = FactSources {
        passwd: bench.root.write("passwd", "himds:*:64501:64502::/:/usr/sbin/nologin\n"),
        group: bench.root.write("group", "himds:x:64502:\n"),
        ..FactSources::default()
    };
    let options = AgentOptions { sources: accounts, ..bench.options() };
    bench.connect_with(options.clone()).await;
    let with_group = Daemon::start(options).await;
    let (_, head, _) = curl(&with_group.url(TOKEN), &METADATA).await;
    let file = challenge(&head);
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    if !is_root {
        // An ordinary user cannot give files away: they stay the daemon's own.
        assert_eq!((mode(bench.layout().tokens()), mode(file)), (0o700, 0o400));
        return with_group.stop().await;
    }
    assert_eq!((mode(bench.layout().tokens()), mode(file.clone())), (0o750, 0o440));
    let owner = |path: &Path| std::fs::metadata(path).map(|found| (found.uid(), found.gid())).unwrap();
    assert_eq!(owner(&file), (64501, 64502));
    // The daemon's user reads the key and changes nothing that root's commands go by.
    let root = bench.root.path();
    assert_eq!((owner(&root.join("certs")), mode(root.join("certs"))), ((0, 64502), 0o750));
    assert_eq!(owner(&root.join("certs/machine.key")), (64501, 64502));
    assert_eq!((owner(&root), owner(&bench.layout().config())), ((0, 0), (0, 0)));
    let (shown, config) = (file.display(), bench.layout().config());
    let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    bash(&format!("{nobody} cat {} > /dev/null", config.display())).await;
    bash(&format!("! {nobody} cat {shown} 2> /dev/null")).await;
    bash(&format!("! {nobody} ls {} 2> /dev/null", bench.layout().tokens().display())).await;
    let member = "setpriv --reuid=65534 --regid=64502 --clear-groups";
    assert_eq!(bash(&format!("{member} cat {shown}")).await, std::fs::read_to_string(&file).unwrap());
    bash(&format!("! {member} sh -c 'echo x > {shown}' 2> /dev/null")).await;
    bash(&format!("! {member} rm -f {shown} 2> /dev/null")).await;
    // Not even the group reads the machine's key.
    bash(&format!("! {member} cat {} 2> /dev/null", bench.root.path().join("certs/machine.key").display()))
        .await;
    with_group.stop().await;

    let without_group = Daemon::start(bench.options()).await;
    let (_, head, _) = curl(&without_group.url(TOKEN), &METADATA).await;
    let file = challenge(&head);
    assert_eq!((mode(bench.layout().tokens()), mode(file.clone())), (0o700, 0o400));
    bash(&format!("! {member} cat {} 2> /dev/null", file.display())).await;
    without_group.stop().await;
}

#[tokio::test]
async fn what_is_not_allowed_is_refused_in_the_protocol_s_words() {
    let bench = Bench::new().await;
    bench.connect().await;
    let daemon = Daemon::start(bench.options()).await;
    let instance = "/metadata/instance?api-version=2020-06-01";
    let both = ["-H", "Metadata: true"];
    let cases: &[(&str, &[&str], u16, &str)] = &[
        (TOKEN, &[], 400, "Required metadata header not specified"),
        (TOKEN, &["-H", "Metadata: false"], 400, "Required metadata header not specified"),
        (instance, &["-H", "Metadata: yes"], 400, "Required metadata header not specified"),
        (instance, &["-H", "Metadata: true", "-H", "Metadata: true"], 400, "Required metadata header"),
        (TOKEN, &["-H", "Metadata: true", "-H", "X-Forwarded-For: 1.2.3.4"], 400, "X-Forwarded-For"),
        (instance, &["-H", "Metadata: true", "-H", "x-forwarded-for;"], 400, "X-Forwarded-For"),
        ("/agentstatus", &["-H", "X-Forwarded-For: ::1"], 400, "X-Forwarded-For"),
        (instance, &["-H", "Metadata: true", "-H", "Host: rebound.example.net"], 400, "localhost"),
        (TOKEN, &["-H", "Metadata: true", "-X", "POST", "-d", ""], 405, "Only GET"),
        (TOKEN, &["-H", "Metadata: true", "-X", "DELETE"], 405, "Only GET"),
        (instance, &["-H", "Metadata: true", "-X", "PUT"], 405, "Only GET"),
        ("/metadata/instance", &both, 400, "api-version is invalid or was not specified"),
        ("/metadata/instance?api-version=latest", &both, 400, "newest-versions"),
        ("/metadata/identity/oauth2/token?resource=x", &both, 400, "'api-version' is missing"),
        ("/metadata/identity/oauth2/token?api-version=2020-06-01", &both, 400, "'resource' is missing"),
        (
            "/metadata/identity/oauth2/token?api-version=2020-06-01&resource=a&resource=b",
            &both,
            400,
            "more than once",
        ),
        ("/metadata/instance?api-version=2020-06-01&api-version=2020-06-01", &both, 400, "more than once"),
        (
            "/metadata/identity/oauth2/token?api-version=2020-06-01&resource=a%0d%0aX:%20y",
            &both,
            400,
            "not allowed",
        ),
        ("/metadata/attested/document?api-version=2020-09-01", &both, 404, "Not found"),
        ("/metadata/identity/oauth2/token/x?api-version=2020-06-01&resource=a", &both, 404, "Not found"),
        ("/", &both, 404, "Not found"),
        ("/etc/passwd", &both, 404, "Not found"),
        ("/metadata/../../../etc/passwd", &["--path-as-is", "-H", "Metadata: true"], 404, "Not found"),
        ("/metadata/%2e%2e/%2e%2e/etc/passwd", &["--path-as-is", "-H", "Metadata: true"], 404, "Not found"),
        (
            "/metadata/instance/..%2f..%2fetc?api-version=2020-06-01",
            &["--path-as-is", "-H", "Metadata: true"],
            404,
            "Not found",
        ),
        ("/metadata/instance/compute/nothing?api-version=2020-06-01", &both, 404, "Not found"),
        ("/metadata/instance/compute/name?api-version=2020-06-01", &both, 400, "format=text"),
        ("/metadata/instance?api-version=2020-06-01&format=xml", &both, 400, "format"),
    ];
    for (path, flags, expected, text) in cases {
        let (status, _, body) = curl(&daemon.url(path), flags).await;
        assert_eq!(status, *expected, "{path} {flags:?} {body}");
        assert!(body.contains(text), "{path} {flags:?} {body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(body["error"].is_string());
        assert_eq!(body.get("error_description").is_some(), path.contains("identity"), "{path}");
    }
    assert_eq!(bench.challenge_files(), 0, "no challenge is spent on a request that is wrong anyway");
    daemon.stop().await;
}

#[tokio::test]
async fn another_identity_is_unknown_and_our_own_is_repeated() {
    let bench = Bench::new().await;
    let config = bench.connect().await;
    let daemon = Daemon::start(bench.options()).await;
    for selector in [
        format!("client_id={PRINCIPAL_ID}"),
        format!("object_id={CLIENT_ID}"),
        "msi_res_id=/subscriptions/x/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/u".to_owned(),
    ] {
        let (status, _, body) = curl(&daemon.url(&format!("{TOKEN}&{selector}")), &METADATA).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &body["error"]), (400, &json!("invalid_request")), "{selector}");
        assert_eq!(body["error_description"], "Identity not found");
    }
    let clash = format!("{TOKEN}&client_id={CLIENT_ID}&object_id={PRINCIPAL_ID}");
    assert_eq!(curl(&daemon.url(&clash), &METADATA).await.0, 400);
    let echoes = [
        ("client_id", CLIENT_ID.to_owned()),
        ("object_id", PRINCIPAL_ID.to_owned()),
        ("msi_res_id", config.resource_id.clone()),
    ];
    for (name, value) in echoes {
        let path = format!("{TOKEN}&{name}={value}");
        let (status, _, body) = with_secret(&daemon, &path, &secret(&daemon).await).await;
        assert_eq!((status, &body[name]), (200, &json!(value)));
        assert_eq!(body["client_id"], CLIENT_ID);
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_challenge_opens_one_request_whatever_it_is_for() {
    let bench = Bench::new().await;
    bench.connect().await;
    let daemon = Daemon::start(bench.options()).await;
    let secret = secret(&daemon).await;
    let other = "/metadata/identity/oauth2/token?api-version=2021-02-01&resource=https://storage.azure.com/";
    let (status, _, body) = with_secret(&daemon, other, &secret).await;
    assert_eq!((status, &body["resource"]), (200, &json!("https://storage.azure.com/")));
    assert!(body["access_token"].as_str().unwrap().ends_with("-for-https://storage.azure.com/"));
    daemon.stop().await;
}

#[tokio::test]
async fn the_site_s_refusals_are_passed_on() {
    let bench = Bench::new().await;
    bench.connect().await;
    let daemon = Daemon::start(bench.options()).await;
    let nowhere = "/metadata/identity/oauth2/token?api-version=2020-06-01&resource=https://nowhere";
    let (status, _, body) = with_secret(&daemon, nowhere, &secret(&daemon).await).await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid_resource")));
    assert!(body["error_description"].as_str().unwrap().contains("AADSTS500011"));
    bench.site.known().refuse_key = true;
    let (status, head, body) = with_secret(&daemon, TOKEN, &secret(&daemon).await).await;
    assert_eq!((status, &body["error"]), (403, &json!("invalid_client")), "401 would mean a challenge");
    assert!(!head.contains("Www-Authenticate"));
    bench.site.known().failing = Some(429);
    assert_eq!(with_secret(&daemon, TOKEN, &secret(&daemon).await).await.0, 429);
    bench.site.known().failing = Some(500);
    assert_eq!(with_secret(&daemon, TOKEN, &secret(&daemon).await).await.0, 503);
    daemon.stop().await;
    let log = std::fs::read_to_string(bench.layout().log_file()).unwrap();
    assert!(
        log.lines()
            .all(|line| line.starts_with("time=\"") && line.contains("\" level=") && line.ends_with('"'))
    );
    assert!(log.contains("no token for https://nowhere"), "{log}");
}
