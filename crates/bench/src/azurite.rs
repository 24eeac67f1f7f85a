//! Azurite as a peer for blobs: over plain HTTP, which spares it TLS, and without a log.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use arcadia_crypto::{b64, hmac_sha256};
use http::{HeaderName, Method};

use crate::load::{Ask, Peer, connect, exchange};
use crate::loopback::LoopbackTarget;
use crate::process::{Meter, Process, clean, free_port};

/// Installed by `cargo xtask bench`.
const PROGRAM: &str = "target/node/azurite/node_modules/azurite/dist/src/blob/main.js";
const ACCOUNT: &str = "bench";
/// Any key will do: the account is made with it.
const KEY: [u8; 64] = [7; 64];
const SIGNED_VERSION: &str = "2018-11-09";
const PERMISSIONS: &str = "rwdlac";
const EXPIRY: &str = "2999-01-01T00:00:00Z";
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Azurite {
    process: Process,
    target: LoopbackTarget,
}

fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(PROGRAM)
}

impl Azurite {
    /// An empty one; nothing where it is not installed.
    pub fn start(folder: &Path) -> Result<Option<Self>> {
        if !program().is_file() {
            return Ok(None);
        }
        let place = tempfile::Builder::new().prefix("azurite").tempdir_in(folder)?.keep();
        let target = LoopbackTarget::new(false, free_port()?)?;
        let mut command = clean(Path::new("node"));
        command.arg(program()).arg("--blobHost").arg(target.address().ip().to_string());
        command.args([
            "--blobPort",
            &target.address().port().to_string(),
            "--silent",
            "--disableTelemetry",
            "--location",
        ]);
        command.arg(&place).current_dir(&place);
        command.env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{}", b64(&KEY)));
        command.stdout(Stdio::null()).stderr(Stdio::inherit());
        fs::create_dir_all(&place)?;
        let process = Process::spawn(&mut command)?;
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(target.address()).is_err() {
            ensure!(Instant::now() < deadline, "azurite does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Some(Self { process, target }))
    }

    pub fn meter(&self) -> Meter {
        Meter::of([self.process.id()])
    }

    pub fn peer(&self) -> Result<Peer> {
        Ok(Peer {
            target: self.target,
            name: self.target.address().to_string(),
            trust: crate::trust::trusting(std::iter::empty())?,
        })
    }

    /// A path in the account, with the right to do anything there.
    pub fn path(path: &str, query: &str) -> String {
        let signed = format!("{ACCOUNT}\n{PERMISSIONS}\nb\nsco\n\n{EXPIRY}\n\n\n{SIGNED_VERSION}\n");
        let signature = b64(&hmac_sha256(&KEY, signed.as_bytes()));
        let signature = percent_encoding::utf8_percent_encode(&signature, percent_encoding::NON_ALPHANUMERIC);
        let expiry = percent_encoding::utf8_percent_encode(EXPIRY, percent_encoding::NON_ALPHANUMERIC);
        format!(
            "/{ACCOUNT}{path}?{query}&sv={SIGNED_VERSION}&ss=b&srt=sco&sp={PERMISSIONS}&se={expiry}&sig={signature}"
        )
    }

    /// Makes a container, or a blob with these bytes.
    pub async fn put(&self, path: &str, query: &str, bytes: Vec<u8>) -> Result<()> {
        let peer = self.peer()?;
        let ask = put_ask(Self::path(path, query), bytes)?;
        let (status, body) = exchange(&mut connect(&peer).await?, &peer, ask).await?;
        ensure!(status.is_success(), "azurite answers {status}: {}", String::from_utf8_lossy(&body));
        Ok(())
    }
}

/// A request that puts a block blob.
pub fn put_ask(path: String, bytes: Vec<u8>) -> Result<Ask> {
    let ask = Ask::with_body(Method::PUT, path, bytes);
    ask.header(HeaderName::from_static("x-ms-blob-type"), "BlockBlob")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_signed() {
        let path = Azurite::path("/c/b", "restype=container");
        assert!(
            path.starts_with("/bench/c/b?restype=container&sv=2018-11-09&ss=b&srt=sco&sp=rwdlac&se=2999")
        );
        let (_, signature) = path.split_once("&sig=").unwrap();
        assert!(signature.len() > 40 && !signature.contains('+'));
    }
}
