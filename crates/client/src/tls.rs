//! Trust: which roots, which time.

use std::fmt;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arcadia_kernel::Clock;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::ClientFault;

/// A file of the whole world's roots is 0.3 MiB.
const BUNDLE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Certificates are judged at the time of the clock that was handed in.
struct ClockTime(Arc<dyn Clock>);

impl fmt::Debug for ClockTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClockTime")
    }
}

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.epoch_seconds()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// Adds every certificate of a PEM text. Ones that cannot be a root are stepped over, as OpenSSL does, so that one
/// odd certificate of a system's bundle does not cost the rest; a text without any usable one is a fault.
fn add_pem(roots: &mut RootCertStore, pem: &[u8], name: &str) -> Result<(), ClientFault> {
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate
            .map_err(|fault| ClientFault::Options(format!("{name} is not a readable PEM file: {fault:?}")))?;
        certificates.push(certificate);
    }
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(ClientFault::Options(format!("{name} holds no certificate that can be trusted")));
    }
    Ok(())
}

fn read_bundle(path: &Path) -> Result<Vec<u8>, ClientFault> {
    let fault = |reason: String| {
        ClientFault::Options(format!("the certificate file {} cannot be used: {reason}", path.display()))
    };
    let file = std::fs::File::open(path).map_err(|error| fault(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(BUNDLE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| fault(error.to_string()))?;
    if bytes.len() as u64 > BUNDLE_BYTES_MAX {
        return Err(fault(format!("it is longer than {BUNDLE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// `None` when no root is named: such a client reaches nothing but this machine's own loopback.
pub(crate) fn client_config(
    bundles: &[std::path::PathBuf],
    pems: &[String],
    clock: Arc<dyn Clock>,
) -> Result<Option<ClientConfig>, ClientFault> {
    let mut roots = RootCertStore::empty();
    for path in bundles {
        add_pem(&mut roots, &read_bundle(path)?, &path.display().to_string())?;
    }
    for pem in pems {
        add_pem(&mut roots, pem.as_bytes(), "the certificate that was given")?;
    }
    if roots.is_empty() {
        return Ok(None);
    }
    let refused = |fault: String| ClientFault::Options(format!("TLS cannot be set up: {fault}"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(ClockTime(clock)))
        .with_safe_default_protocol_versions()
        .map_err(|fault| refused(fault.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(config))
}
