//! The site's side of TLS: one certificate per name, issued when a client asks for the name, kept for the next.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use arcadia_crypto::{IssueFault, SiteCa};
use arcadia_kernel::Clock;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::hosts::{HostTable, fold_host};
use super::stream::BoxStream;

const LEAF_DAYS: u32 = 90;
/// A leaf is replaced when it has less than this left.
const LEAF_RENEW_SECONDS: i64 = 30 * 24 * 60 * 60;
const LEAVES_MAX: usize = 1024;
const SESSIONS_MAX: usize = 4096;

#[derive(Debug, thiserror::Error)]
pub enum LeafFault {
    #[error(transparent)]
    Issue(#[from] IssueFault),
    #[error("the TLS library does not take the new certificate: {0}")]
    Tls(#[from] rustls::Error),
}

/// Accepts TLS for the names of the host table.
pub struct SiteTls {
    config: Arc<ServerConfig>,
    leaves: Arc<Leaves>,
}

impl SiteTls {
    pub fn new(ca: SiteCa, hosts: Arc<HostTable>, clock: Arc<dyn Clock>) -> Result<Self, rustls::Error> {
        let leaves = Arc::new(Leaves { ca, hosts, clock, kept: Mutex::default() });
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(leaves.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        Ok(Self { config: Arc::new(config), leaves })
    }

    /// Shakes hands with a client, for as long as the caller waits. Returns the stream and the name it is for: the one
    /// in the client's hello, or `host`, for which it asked the proxy, where the hello names none.
    pub async fn accept(
        &self,
        stream: BoxStream,
        host: Option<&str>,
    ) -> io::Result<(TlsStream<BoxStream>, String)> {
        // What a handshake needs is not kept for as long as the connection.
        Box::pin(async {
            let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
            let named = start.client_hello().server_name().map(fold_host);
            let (config, name) = match (named, host) {
                (Some(name), _) => (self.config.clone(), name),
                (None, Some(host)) => (self.config_without_name(host)?, fold_host(host)),
                (None, None) => return Err(io::Error::other("the client's hello names no server")),
            };
            Ok((start.into_stream(config).await?, name))
        })
        .await
    }

    /// What presents the certificate of one name, which may begin with `*.`, to everybody. Renewed in time.
    pub fn config_for(&self, name: String, protocol: &[u8]) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.config);
        config.cert_resolver = Arc::new(OneName { name, leaves: self.leaves.clone() });
        config.alpn_protocols = vec![protocol.to_vec()];
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        Arc::new(config)
    }

    /// For the rare client that names no server in its hello: it said the name to the proxy.
    fn config_without_name(&self, host: &str) -> io::Result<Arc<ServerConfig>> {
        let leaf = self.leaves.leaf(&fold_host(host)).map_err(io::Error::other)?;
        let mut config = ServerConfig::clone(&self.config);
        config.cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(leaf));
        // Sessions of unnamed clients must not be resumed under another name's certificate.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Arc::new(config))
    }
}

struct Leaves {
    ca: SiteCa,
    hosts: Arc<HostTable>,
    clock: Arc<dyn Clock>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_name: HashMap<String, Leaf>,
    /// Oldest first. Holds exactly the keys of `by_name`.
    order: VecDeque<String>,
}

struct Leaf {
    key: Arc<CertifiedKey>,
    /// Or when it was made, where the authority begins later: a new one would not begin before that either.
    not_before: i64,
    not_after: i64,
}

impl Leaf {
    /// Whether a client takes it, and goes on to for long enough. One that was made while the clock was ahead is of no
    /// use once the clock is right; one that ends with the authority, at `last`, cannot be had for longer.
    fn is_good(&self, now: i64, last: i64) -> bool {
        let left = if self.not_after < last { LEAF_RENEW_SECONDS } else { 0 };
        self.not_before <= now && self.not_after - now > left
    }
}

impl Leaves {
    /// The certificate for `name` (lower case).
    fn leaf(&self, name: &str) -> Result<Arc<CertifiedKey>, LeafFault> {
        let now = self.clock.epoch_seconds();
        {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(leaf) = kept.by_name.get(name)
                && leaf.is_good(now, self.ca.not_after_seconds())
            {
                return Ok(leaf.key.clone());
            }
        }
        let leaf = self.issue(name, now)?;
        let key = leaf.key.clone();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.by_name.insert(name.to_owned(), leaf).is_none() {
            kept.order.push_back(name.to_owned());
        }
        while kept.order.len() > LEAVES_MAX {
            if let Some(oldest) = kept.order.pop_front() {
                kept.by_name.remove(&oldest);
            }
        }
        Ok(key)
    }

    fn issue(&self, name: &str, now: i64) -> Result<Leaf, LeafFault> {
        let issued = self.ca.issue_server(&[name], &[], now, LEAF_DAYS)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(issued.key_pkcs8_der.as_slice()));
        let key = aws_lc_rs::sign::any_supported_type(&key)?;
        let chain = issued.chain_der.into_iter().map(CertificateDer::from).collect();
        tracing::debug!(name, "certificate issued");
        Ok(Leaf {
            key: Arc::new(CertifiedKey::new(chain, key)),
            not_before: issued.not_before_seconds.min(now),
            not_after: issued.not_after_seconds,
        })
    }
}

impl ResolvesServerCert for Leaves {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = fold_host(hello.server_name()?);
        self.hosts.find(&name)?;
        self.leaf(&name)
            .inspect_err(|error| tracing::error!(name, %error, "no certificate could be issued"))
            .ok()
    }
}

#[derive(Debug)]
struct OneName {
    name: String,
    leaves: Arc<Leaves>,
}

impl ResolvesServerCert for OneName {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let failed =
            |error: &LeafFault| tracing::error!(name = self.name, %error, "no certificate could be issued");
        self.leaves.leaf(&self.name).inspect_err(failed).ok()
    }
}

impl fmt::Debug for Leaves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Leaves")
    }
}

#[cfg(test)]
mod tests {
    use arcadia_kernel::FixedClock;

    use super::*;
    use crate::net::tests::echoing;
    use crate::net::{Limits, Outside, create_authority};

    /// Every name below a vault's domain is served, so strangers choose how many there are.
    #[test]
    fn certificates_are_kept_for_so_many_names_and_no_more() {
        let (proxy, _) = echoing(Limits::default(), Outside::new(true, None));
        let leaves = &proxy.tls.leaves;
        let name = |at: usize| format!("v{at}.vault.azure.net");
        let first = leaves.leaf(&name(0)).unwrap();
        assert!(Arc::ptr_eq(&first, &leaves.leaf(&name(0)).unwrap()));
        for at in 1..LEAVES_MAX + 5 {
            leaves.leaf(&name(at)).unwrap();
        }
        let kept = leaves.kept.lock().unwrap();
        assert_eq!((kept.by_name.len(), kept.order.len()), (LEAVES_MAX, LEAVES_MAX));
        assert!(!kept.by_name.contains_key(&name(0)) && kept.by_name.contains_key(&name(LEAVES_MAX + 4)));
    }

    #[test]
    fn certificates_are_of_now_and_renewed_in_time() {
        const DAY: i64 = 24 * 60 * 60;
        let now = 1_800_000_000;
        let clock = Arc::new(FixedClock::at_epoch_seconds(now));
        let ca = create_authority(&crate::names::SiteNames::azure(), "test", now).unwrap();
        let last = ca.not_after_seconds();
        let leaves = Leaves { ca, hosts: Arc::default(), clock: clock.clone(), kept: Mutex::default() };
        let leaf = || leaves.leaf("kv1.vault.azure.net").unwrap();
        let mut before = leaf();
        // The clock is put ahead, put right again, goes on until there are 30 days left, and on to the authority's last. Then
        // it is put back to before the authority's first.
        for (passed, is_new) in [
            (400 * DAY, true),
            (-400 * DAY, true),
            (59 * DAY, false),
            (DAY, true),
            (last - 20 * DAY - now - 60 * DAY, true),
            (10 * DAY, false),
            (now - DAY - (last - 10 * DAY), true),
            (1, false),
            (DAY, false),
        ] {
            clock.advance_seconds(passed);
            let after = leaf();
            assert_eq!(!Arc::ptr_eq(&before, &after), is_new, "{} days", passed / DAY);
            before = after;
        }
    }
}
