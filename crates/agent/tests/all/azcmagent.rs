//! The command line against a fake of the site's wire.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use crate::bench::{CLIENT_ID, Daemon, FakeSite, PRINCIPAL_ID, Root, SUBSCRIPTION, TENANT};
use arcadia_agent::{AgentConfig, azcmagent_to};
use arcadia_kernel::Clock;
use serde_json::{Value, json};

struct Now;

impl Clock for Now {
    #[allow(clippy::disallowed_methods, reason = "the command line runs on the system's time")]
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

struct Bench {
    root: Root,
    site: FakeSite,
    env: HashMap<String, String>,
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

const CONNECT: [&str; 13] = [
    "connect",
    "--subscription-id",
    SUBSCRIPTION,
    "-g",
    "arc-hack",
    "-l",
    "uksouth",
    "-n",
    "ubuntu-01",
    "-t",
    TENANT,
    "--tags",
    "platform=VMware_vSphere,datacentre=The_Citadel",
];
const SECRET: [&str; 4] = ["-i", "onboarder", "-p", "s3cret"];

impl Bench {
    async fn new() -> Self {
        let site = FakeSite::start(Arc::new(Now)).await;
        let root = Root::new();
        let ca = root.write("ca.pem", &site.site.ca_pem);
        let env = HashMap::from([
            ("HTTPS_PROXY".to_owned(), format!("http://{}", site.site.proxy)),
            ("SSL_CERT_FILE".to_owned(), ca.display().to_string()),
        ]);
        Self { root, site, env }
    }

    /// Runs the command on a thread of its own, as a program has.
    async fn run(&self, args: &[&str]) -> Ran {
        self.run_at("127.0.0.1:9", args).await
    }

    async fn run_at(&self, address: &str, args: &[&str]) -> Ran {
        let root = self.root.path().display().to_string();
        let all: Vec<OsString> = ["/opt/azcmagent/bin/azcmagent"]
            .iter()
            .chain(args)
            .chain(&["--root", &root, "--address", address])
            .map(OsString::from)
            .collect();
        let env = self.env.clone();
        let run = move || {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let code = azcmagent_to(all, &|name| env.get(name).cloned(), &mut out, &mut err);
            Ran { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    async fn connect(&self) -> Ran {
        self.run(&[&CONNECT[..], &SECRET].concat()).await
    }

    fn config(&self) -> AgentConfig {
        AgentConfig::read(&self.root.layout().config()).unwrap().unwrap()
    }

    fn machine_path() -> String {
        format!(
            "/subscriptions/{SUBSCRIPTION}/resourcegroups/arc-hack/providers/microsoft.hybridcompute/machines/ubuntu-01"
        )
    }
}

#[track_caller]
fn failed(ran: &Ran, code: i32, text: &str) {
    let all = format!("{}{}", ran.out, ran.err);
    assert_eq!(ran.code, code, "{all}");
    assert!(all.contains(&format!("AZCM{code:04}")) && all.contains(text), "{all}");
    assert!(!all.contains("s3cret"), "a secret was shown: {all}");
}

#[tokio::test]
async fn connect_makes_a_machine_and_says_so() {
    let bench = Bench::new().await;
    let ran = bench.connect().await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    for line in [
        "INFO    Connecting machine to Azure... This might take a few minutes.",
        "INFO    Created the resource group arc-hack",
        "  20% [==>            ]",
        " 100% [===============]",
        "INFO    Connected machine to Azure",
        &format!("INFO    Machine overview page: https://portal.azure.com/#@{TENANT}/resource"),
        "WARN    The agent's service does not run",
    ] {
        assert!(ran.out.contains(line), "{line}\n{}", ran.out);
    }
    let config = bench.config();
    assert_eq!(
        (config.client_id.to_string(), config.principal_id.to_string()),
        (CLIENT_ID.into(), PRINCIPAL_ID.into())
    );
    assert_eq!(config.tags["datacentre"], "The_Citadel");
    assert_eq!(config.https_proxy.as_deref(), bench.env.get("HTTPS_PROXY").map(String::as_str));
    let known = bench.site.known();
    let machine = &known.machines[&Bench::machine_path()];
    assert_eq!(machine["properties"]["vmId"], config.vm_id.to_string());
    assert_eq!(machine["identity"]["type"], "SystemAssigned");
    assert_eq!(machine["tags"]["platform"], "VMware_vSphere");
    for name in ["agentVersion", "osType", "osName", "osVersion", "osSku", "machineFqdn", "clientPublicKey"] {
        assert!(machine["properties"][name].as_str().is_some_and(|text| !text.is_empty()), "{name}");
    }
    assert_eq!(known.tokens_issued, 1, "the machine's own key was proven");
    let key = bench.root.path().join("certs/machine.key");
    assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    let sent = known.seen.join("\n");
    assert!(!sent.contains("PRIVATE"));
}

#[tokio::test]
async fn connecting_twice_is_refused() {
    let bench = Bench::new().await;
    assert_eq!(bench.connect().await.code, 0);
    failed(&bench.connect().await, 67, "already connected");
}

#[tokio::test]
async fn a_person_signs_in_with_a_code() {
    let bench = Bench::new().await;
    // Without a tenant: the token tells it.
    let args =
        ["connect", "-s", "lab", "-g", "arc-hack", "-l", "uksouth", "-n", "ubuntu-01", "--use-device-code"];
    let ran = bench.run(&args).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains(
        "To sign in, use a web browser to open the page https://microsoft.com/devicelogin and enter the code ABCD1234"
    ));
    let config = bench.config();
    assert_eq!(
        (config.tenant_id.to_string(), config.subscription_id.to_string()),
        (TENANT.into(), SUBSCRIPTION.into())
    );
    assert!(
        bench
            .site
            .known()
            .seen
            .contains(&"POST login.microsoftonline.com /organizations/oauth2/v2.0/devicecode".to_owned())
    );
}

#[tokio::test]
async fn a_token_from_elsewhere_and_a_role_that_sees_no_groups() {
    let bench = Bench::new().await;
    bench.site.known().groups_hidden = true;
    let ran = bench.run(&[&CONNECT[..], &["--access-token", "arm-token", "-j"]].concat()).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let result: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(result["status"], "Connected");
    assert!(ran.err.contains("INFO    Connected machine to Azure"));
}

#[tokio::test]
async fn what_goes_wrong_has_its_number() {
    let bench = Bench::new().await;
    let without = |flag: &str| -> Vec<&str> {
        let at = CONNECT.iter().position(|arg| *arg == flag).unwrap();
        let all: Vec<&str> = CONNECT[..at].iter().chain(&CONNECT[at + 2..]).chain(&SECRET).copied().collect();
        all
    };
    failed(&bench.run(&without("-g")).await, 16, "--resource-group");
    failed(&bench.run(&without("-t")).await, 16, "--tenant-id");
    failed(&bench.run(&["connect", "--nonsense"]).await, 23, "--nonsense");
    failed(&bench.run(&["nonsense"]).await, 23, "nonsense");
    failed(
        &bench.run(&[&CONNECT[..], &["-i", "onboarder", "-p", "wrong"]].concat()).await,
        41,
        "AADSTS7000215",
    );
    failed(
        &bench.run(&[&CONNECT[..], &["--access-token", "x"]].concat()).await,
        42,
        "InvalidAuthenticationToken",
    );
    failed(&bench.run(&[&CONNECT[..], &SECRET, &["-s", "nobody's"]].concat()).await, 68, "nobody's");
    failed(&bench.run(&[&CONNECT[..], &SECRET, &["-s", "twin"]].concat()).await, 68, "several");
    failed(&bench.run(&[&CONNECT[..], &SECRET, &["-l", "atlantis"]].concat()).await, 20, "atlantis");
    failed(&bench.run(&[&CONNECT[..], &SECRET, &["-n", "a/../b"]].concat()).await, 23, "--resource-name");
    failed(&bench.run(&[&CONNECT[..], &SECRET, &["-g", "a/b"]].concat()).await, 23, "resource group");
    failed(
        &bench.run(&[&CONNECT[..], &SECRET, &["--config", "/nowhere.yaml"]].concat()).await,
        19,
        "/nowhere.yaml",
    );
    failed(&bench.run(&[&CONNECT[..], &SECRET, &["--tags", "x"]].concat()).await, 23, "--tags");
    assert!(AgentConfig::read(&bench.root.layout().config()).unwrap().is_none());
    let mut no_proxy = bench.env.clone();
    no_proxy.insert("HTTPS_PROXY".to_owned(), "http://127.0.0.1:9".to_owned());
    let away = Bench { root: Root::new(), env: no_proxy, ..bench };
    failed(&away.connect().await, 26, "127.0.0.1:9");
}

/// The operator's token goes to the resource manager and nowhere else.
#[tokio::test]
async fn a_list_of_subscriptions_goes_on_where_it_began() {
    let bench = Bench::new().await;
    let far = [&CONNECT[..], &SECRET, &["-s", "Far"]].concat();
    let goes_on_at = |host: &str| {
        let next = format!("https://{host}/subscriptions?api-version=2022-12-01&$skiptoken=2");
        bench.site.known().next_link = Some(next);
    };
    for elsewhere in ["site.example.net", "management.azure.com.example.net"] {
        goes_on_at(elsewhere);
        failed(&bench.run(&far).await, 68, "no subscription named 'Far'");
    }
    let is_elsewhere = |tunnel: &String| tunnel.contains("example");
    assert!(!bench.site.site.tunnels.lock().unwrap().iter().any(is_elsewhere));
    goes_on_at("management.azure.com");
    let ran = bench.run(&far).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
}

#[tokio::test]
async fn trying_again_is_the_same_machine() {
    let bench = Bench::new().await;
    bench.site.known().refuse_key = true;
    failed(&bench.connect().await, 81, "own key");
    assert!(AgentConfig::read(&bench.root.layout().config()).unwrap().is_none());
    bench.site.known().refuse_key = false;
    bench.site.known().without_client_id = true;
    failed(&bench.connect().await, 81, "x-ms-arcadia-identity-client-id");
    bench.site.known().without_client_id = false;
    let ran = bench.connect().await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
}

#[tokio::test]
async fn a_name_that_is_another_machine_s_is_refused() {
    let bench = Bench::new().await;
    assert_eq!(bench.connect().await.code, 0);
    let other = Bench { root: Root::new(), env: bench.env.clone(), site: FakeSite { ..bench.site } };
    failed(&other.connect().await, 44, "belongs to another machine");
}

#[tokio::test]
async fn only_who_may_write_the_agent_s_files_connects() {
    let bench = Bench::new().await;
    let args: Vec<OsString> =
        ["azcmagent"].iter().chain(&CONNECT).chain(&SECRET).map(OsString::from).collect();
    let env = bench.env.clone();
    let run = move || {
        if rustix::process::geteuid().is_root() {
            // Of this thread alone.
            let nobody = rustix::process::Uid::from_raw(65534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        }
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = azcmagent_to(args, &|name| env.get(name).cloned(), &mut out, &mut err);
        Ran { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
    };
    let ran = std::thread::spawn(run).join().unwrap();
    failed(&ran, 18, "root");
    assert!(bench.site.known().seen.is_empty(), "nobody signs in for nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn show_with_and_without_the_daemon() {
    let bench = Bench::new().await;
    let ran = bench.run(&["show"]).await;
    assert_eq!(ran.code, 0);
    assert!(ran.out.contains(&format!("{:<40}: Disconnected\n", "Agent Status")), "{}", ran.out);
    assert_eq!(bench.connect().await.code, 0);
    let ran = bench.run(&["show", "agent status", "resourceName"]).await;
    let expected = format!("{:<40}: ubuntu-01\n{:<40}: Disconnected\n", "Resource Name", "Agent Status");
    assert_eq!(ran.out, expected);

    let daemon = Daemon::start(crate::bench::options(&bench.root, &bench.site, Arc::new(Now))).await;
    let heard = bench.root.path().join("state/heartbeat.json");
    crate::bench::until("a heartbeat", || heard.exists()).await;
    let address = daemon.addresses[0].to_string();
    let ran = bench.run_at(&address, &["show", "-j"]).await;
    let shown: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(shown["status"], "Connected");
    assert_eq!(shown["himdsStatus"], "running");
    for name in [
        "resourceName",
        "resourceGroup",
        "subscriptionId",
        "tenantId",
        "location",
        "resourceId",
        "lastHeartbeat",
        "agentVersion",
        "cloud",
        "httpsProxy",
        "vmId",
    ] {
        assert!(shown[name].as_str().is_some_and(|text| !text.is_empty()), "{name} {shown}");
    }
    failed(&bench.run(&["show", "nonsense"]).await, 23, "nonsense");
    daemon.stop().await;
}

#[tokio::test]
async fn disconnect_undoes_it_all() {
    let bench = Bench::new().await;
    let nothing = bench.run(&["disconnect", "-i", "onboarder", "-p", "s3cret"]).await;
    assert_eq!(nothing.code, 0);
    assert!(nothing.out.contains("nothing to do"));
    assert_eq!(bench.connect().await.code, 0);
    let first = bench.config().vm_id;
    failed(&bench.run(&["disconnect", "-i", "onboarder", "-p", "wrong"]).await, 41, "AADSTS7000215");
    assert!(bench.root.layout().config().exists(), "a refusal changes nothing");
    let ran = bench.run(&["disconnect", "-i", "onboarder", "-p", "s3cret"]).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("Disconnected machine from Azure"));
    assert!(bench.site.known().machines.is_empty());
    assert!(!bench.root.layout().config().exists());
    assert_eq!(std::fs::read_dir(bench.root.path().join("certs")).unwrap().count(), 0, "the key is gone");
    assert_eq!(bench.connect().await.code, 0);
    assert_ne!(bench.config().vm_id, first);
    let ran = bench.run(&["disconnect", "--force-local-only"]).await;
    assert_eq!(ran.code, 0);
    assert!(ran.out.contains("still exists in Azure"));
    assert_eq!(bench.site.known().machines.len(), 1);
    assert!(!bench.root.layout().config().exists());
}

#[tokio::test]
async fn a_successor_of_the_same_name_is_not_deleted() {
    let bench = Bench::new().await;
    assert_eq!(bench.connect().await.code, 0);
    bench.site.known().machines.get_mut(&Bench::machine_path()).unwrap()["properties"]["vmId"] =
        json!(PRINCIPAL_ID);
    let ran = bench.run(&["disconnect", "-i", "onboarder", "-p", "s3cret"]).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert_eq!(bench.site.known().machines.len(), 1);
    assert!(!bench.root.layout().config().exists());
}

#[tokio::test]
async fn a_file_of_flags_and_flags_that_win() {
    let bench = Bench::new().await;
    let file = bench.root.write(
        "connect.yaml",
        &format!("subscription-id: {SUBSCRIPTION}\nresource-group: arc-hack\nlocation: ukwest\nresource-name: ubuntu-01\n\
                  tenant-id: {TENANT}\nservice-principal-id: onboarder\nservice-principal-secret: 's3cret'\n"),
    );
    let ran = bench.run(&["connect", "--config", file.to_str().unwrap(), "-l", "uksouth"]).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert_eq!(bench.config().location, "uksouth");
}

#[tokio::test]
async fn commands_of_azures_agent_say_why_they_are_not_here() {
    let bench = Bench::new().await;
    for (args, text) in [
        (&["config", "set", "proxy.url", "http://proxy.test:3128"][..], "HTTPS_PROXY"),
        (&["config", "list", "--json"], "HTTPS_PROXY"),
        (&["check", "--location", "uksouth", "-p"], "azcmagent show"),
        (&["extension", "list"], "no extensions"),
        (&["genkey"], "makes its key"),
        (&["license"], "Apache-2.0"),
        (&["logs", "--full", "--output", "x.zip"], "himds.log"),
        (&["upgrade"], "changes with it"),
    ] {
        failed(&bench.run(args).await, 3, text);
    }
    let listed = bench.run(&["help"]).await.out;
    assert!(!listed.contains("genkey") && !listed.contains("extension"), "{listed}");
}

#[tokio::test]
async fn what_is_damaged_says_how_it_is_mended() {
    let bench = Bench::new().await;
    let mend = "azcmagent disconnect --force-local-only";
    for file in ["certs/machine.key", "certs/vmid", "agentconfig.json"] {
        assert_eq!(bench.connect().await.code, 0);
        let path = bench.root.path().join(file);
        assert!(path.exists(), "{file}");
        std::fs::write(&path, "damaged").unwrap();
        if file != "agentconfig.json" {
            std::fs::remove_file(bench.root.layout().config()).unwrap();
        }
        failed(&bench.connect().await, 69, mend);
        assert_eq!(bench.run(&["disconnect", "--force-local-only"]).await.code, 0, "{file}");
        bench.site.known().machines.clear();
    }
    assert_eq!(bench.connect().await.code, 0);
}

#[tokio::test]
async fn version_and_help() {
    let bench = Bench::new().await;
    let version = bench.run(&["version"]).await;
    assert_eq!(version.out, format!("azcmagent version {}\n", arcadia_agent::AGENT_VERSION));
    for args in [&["help"][..], &["--help"], &["help", "connect"], &["connect", "--help"]] {
        let ran = bench.run(args).await;
        assert_eq!(ran.code, 0);
        assert!(ran.out.contains("Examples:"), "{args:?} {}", ran.out);
        assert!(!ran.out.contains("--root"));
    }
    failed(&bench.run(&["help", "nonsense"]).await, 23, "nonsense");
    failed(&bench.run(&[]).await, 16, "Usage");
}
