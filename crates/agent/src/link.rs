//! The connection to the site as it is now: configuration, key and client, made anew when the configuration changes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arcadia_client::{AssertionKey, Client, ClientOptions, Endpoints, NoProxy, Proxy};

use crate::config::{ConfigWatch, Current};
use crate::identity::load_key;
use crate::layout::{KEY, Part};
use crate::{AGENT_VERSION, AgentConfig, AgentFault, AgentOptions, Reach};

/// Tokens, heartbeats and resources are small.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Everything needed to speak to the site as this machine.
pub(crate) struct Link {
    pub(crate) config: Arc<AgentConfig>,
    pub(crate) endpoints: Endpoints,
    pub(crate) client: Client,
    pub(crate) key: AssertionKey,
    pub(crate) generation: u64,
}

pub(crate) struct Links {
    options: AgentOptions,
    watch: ConfigWatch,
    made: Mutex<Option<Arc<Link>>>,
}

impl Links {
    pub(crate) fn new(options: AgentOptions) -> Self {
        let watch = ConfigWatch::new(options.layout().config());
        Self { options, watch, made: Mutex::new(None) }
    }

    pub(crate) fn current(&self) -> Result<Current, AgentFault> {
        self.watch.current()
    }

    /// The link for the configuration as it is at this moment.
    pub(crate) fn link(&self) -> Result<Arc<Link>, AgentFault> {
        let Current { config, generation } = self.watch.current()?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(config) = config else {
            *made = None;
            return Err(AgentFault::NotConnected);
        };
        if let Some(link) = made.as_ref().filter(|link| link.generation == generation) {
            return Ok(link.clone());
        }
        *made = None;
        let layout = self.options.layout();
        let key_path = layout.part(Part::Certs).join(KEY);
        let key = load_key(&layout)?.ok_or_else(|| AgentFault::content(&key_path, "it is missing"))?;
        let client = Client::new(client_options(&self.options, Some(&config))?)?;
        let endpoints = self.options.reach.endpoints.clone().unwrap_or_else(|| config.endpoints.clone());
        let link = Arc::new(Link { config, endpoints, client, key: AssertionKey::from_key(key), generation });
        *made = Some(link.clone());
        Ok(link)
    }
}

/// What was handed in wins; the rest is as it was when the machine was connected.
pub(crate) fn client_options(
    options: &AgentOptions,
    config: Option<&AgentConfig>,
) -> Result<ClientOptions, AgentFault> {
    let Reach { proxy, no_proxy, root_files, .. } = &options.reach;
    let (proxy, no_proxy) = match (proxy, config) {
        (Some(proxy), _) => (Some(proxy.clone()), no_proxy.clone()),
        (None, Some(AgentConfig { https_proxy: Some(proxy), no_proxy, .. })) => {
            (Some(Proxy::parse(proxy)?), NoProxy::parse(no_proxy.as_deref().unwrap_or("")))
        }
        (None, _) => (None, NoProxy::default()),
    };
    let kept = config.map(|config| config.certificate_files.clone()).unwrap_or_default();
    let root_files = if root_files.is_empty() { kept } else { root_files.clone() };
    Ok(ClientOptions {
        proxy,
        no_proxy,
        root_files,
        connect_timeout: Duration::from_secs(10),
        whole_timeout: Duration::from_secs(30),
        body_bytes_max: BODY_BYTES_MAX,
        user_agent: format!("arcadia-agent/{AGENT_VERSION}"),
        ..ClientOptions::new(options.clock.clone())
    })
}
