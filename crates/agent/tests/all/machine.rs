//! A machine of the fake site, on a clock that stands still.

use std::path::PathBuf;
use std::sync::Arc;

use arcadia_agent::onboard::{ConnectRequest, SignIn, connect};
use arcadia_agent::{AgentConfig, AgentOptions, Layout};
use arcadia_client::Endpoints;
use arcadia_crypto::Zeroizing;
use arcadia_kernel::FixedClock;
use serde_json::Value;

use crate::bench::{self, Daemon, FakeSite, Root, SUBSCRIPTION, TENANT, curl};

pub const NOW: i64 = 1_800_000_000;

pub struct Bench {
    pub root: Root,
    pub site: FakeSite,
    pub clock: Arc<FixedClock>,
}

impl Bench {
    pub async fn new() -> Self {
        let clock = Arc::new(FixedClock::at_epoch_seconds(NOW));
        Self { root: Root::new(), site: FakeSite::start(clock.clone()).await, clock }
    }

    pub fn options(&self) -> AgentOptions {
        bench::options(&self.root, &self.site, self.clock.clone())
    }

    pub async fn connect(&self) -> AgentConfig {
        self.connect_with(self.options()).await
    }

    pub async fn connect_with(&self, options: AgentOptions) -> AgentConfig {
        let request = ConnectRequest {
            subscription: SUBSCRIPTION.to_owned(),
            resource_group: "arc-hack".to_owned(),
            location: "uksouth".to_owned(),
            resource_name: Some("ubuntu-01".to_owned()),
            tenant: Some(TENANT.to_owned()),
            cloud: "AzureCloud".to_owned(),
            tags: [("platform", "VMware"), ("datacentre", "The_Citadel")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            correlation_id: None,
            sign_in: SignIn::Secret {
                client_id: "onboarder".to_owned(),
                secret: Zeroizing::new("s3cret".to_owned()),
            },
            endpoints: Endpoints::default(),
            https_proxy: None,
            no_proxy: None,
            certificate_files: Vec::new(),
        };
        connect(&options, request, &mut |_| {}).await.unwrap().config
    }

    pub fn layout(&self) -> Layout {
        self.root.layout()
    }

    pub fn challenge_files(&self) -> usize {
        std::fs::read_dir(self.layout().tokens()).unwrap().count()
    }
}

pub const TOKEN: &str =
    "/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fvault.azure.net";
pub const METADATA: [&str; 2] = ["-H", "Metadata: true"];

/// The path in a challenge; checks its exact form.
pub fn challenge(head: &str) -> PathBuf {
    let line =
        head.lines().find(|line| line.starts_with("Www-Authenticate: ")).unwrap_or_else(|| panic!("{head}"));
    let path = line.strip_prefix("Www-Authenticate: Basic realm=").unwrap();
    assert!(!path.contains(['"', ' ', '=']) && path.ends_with(".key"), "{path}");
    path.into()
}

/// A fresh challenge's secret.
pub async fn secret(daemon: &Daemon) -> String {
    let (status, head, _) = curl(&daemon.url(TOKEN), &METADATA).await;
    assert_eq!(status, 401);
    std::fs::read_to_string(challenge(&head)).unwrap()
}

pub async fn with_secret(daemon: &Daemon, path: &str, secret: &str) -> (u16, String, Value) {
    let authorization = format!("Authorization: Basic {secret}");
    let (status, head, body) = curl(&daemon.url(path), &["-H", "Metadata: true", "-H", &authorization]).await;
    (status, head, serde_json::from_str(&body).unwrap())
}
