//! Certificates of the bench's own servers, made as a site makes its own, and whom its clients trust.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use arcadia_crypto::{SiteCa, pem_encode, pem_encode_secret};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The name of floors and peers.
pub const NAME: &str = "floor.bench.test";
const LEAF_DAYS: u32 = 30;
const AUTHORITY_YEARS: u32 = 1;

/// A P-256 leaf for [`NAME`] and its authority, in files.
#[derive(Clone, Debug)]
pub struct Certificates {
    pub authority: PathBuf,
    pub leaf: PathBuf,
    pub key: PathBuf,
}

impl Certificates {
    #[allow(clippy::disallowed_methods, reason = "the bench is a program of its own")]
    pub fn make(folder: &Path) -> Result<Self> {
        let now = jiff::Timestamp::now().as_second();
        let authority = SiteCa::create("Arcadia bench", &["bench.test"], &[], now, AUTHORITY_YEARS)?;
        let issued = authority.issue_server(&[NAME], &[], now, LEAF_DAYS)?;
        let made = Self {
            authority: folder.join("authority.pem"),
            leaf: folder.join("leaf.pem"),
            key: folder.join("leaf.key"),
        };
        let chain: String = issued.chain_der.iter().map(|der| pem_encode("CERTIFICATE", der)).collect();
        fs::write(&made.authority, authority.certificate_pem())?;
        fs::write(&made.leaf, chain)?;
        fs::write(&made.key, pem_encode_secret("PRIVATE KEY", &issued.key_pkcs8_der).as_bytes())?;
        Ok(made)
    }

    /// What a server of the bench presents.
    pub fn server(&self) -> Result<rustls::ServerConfig> {
        let chain = CertificateDer::pem_file_iter(&self.leaf)?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(&self.key)?;
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(config)
    }
}

/// Trusts the authorities in these files and nobody else; never resumes a session, speaks HTTP/1.1.
pub fn trusting<'a>(files: impl IntoIterator<Item = &'a Path>) -> Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    for file in files {
        let certificates = CertificateDer::pem_file_iter(file).with_context(|| file.display().to_string())?;
        for certificate in certificates {
            roots.add(certificate?)?;
        }
    }
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
