//! Requests to cancel: each session has a key of the gateway's making, and the server's own never leaves the site.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arcadia_crypto::constant_time_eq;
use arcadia_kernel::Entropy;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use uuid::Uuid;

use super::admission::Admitted;
use crate::Postgres;

const CANCEL_SECONDS_MAX: u64 = 5;
const CANCEL_REQUEST: u32 = 80_877_102;

type Keys = Arc<Mutex<HashMap<i32, Entry>>>;

struct Entry {
    secret: Vec<u8>,
    instance: Uuid,
    /// The server's own process number and secret.
    own: Vec<u8>,
}

/// One entry for each session; so as many as there can be sessions.
#[derive(Default)]
pub(super) struct Cancellations(Keys);

/// A session's key, for as long as the session lasts.
pub(super) struct Registered {
    number: i32,
    bytes: Vec<u8>,
    keys: Keys,
}

impl Registered {
    /// What the client is told: a number in the place of a process number, and a secret.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

impl Cancellations {
    /// A key for the client in place of the server's own, with a secret of the same length.
    pub(super) fn replace(&self, admitted: &Admitted, own: Vec<u8>, entropy: &dyn Entropy) -> Registered {
        let mut bytes = vec![0; own.len().max(8)];
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = loop {
            entropy.fill(&mut bytes);
            // Clients take it for a process number, which is positive.
            bytes[0] &= 0x7f;
            let number = bytes.first_chunk::<4>().map_or(0, |four| i32::from_be_bytes(*four));
            if number > 0 && !keys.contains_key(&number) {
                break number;
            }
        };
        let secret = bytes[4..].to_vec();
        keys.insert(number, Entry { secret, instance: admitted.server.stored.instance, own });
        Registered { number, bytes, keys: self.0.clone() }
    }

    /// Passes a request on to the server of the session it is for. A key that fits none does nothing, and nobody is
    /// told which it was.
    pub(super) async fn cancel(&self, postgres: &Postgres, key: &[u8]) {
        let Some((instance, own)) = self.find(key) else { return };
        let Some(cluster) = postgres.clusters.find(instance) else { return };
        let passed = async {
            let mut stream = cluster.connect().await?;
            let mut packet = (own.len() as u32 + 8).to_be_bytes().to_vec();
            packet.extend(CANCEL_REQUEST.to_be_bytes());
            packet.extend(&own);
            stream.write_all(&packet).await?;
            // The server closes when it has done it; the client waits for that.
            stream.read(&mut [0]).await
        };
        let _ = tokio::time::timeout(Duration::from_secs(CANCEL_SECONDS_MAX), passed).await;
    }

    fn find(&self, key: &[u8]) -> Option<(Uuid, Vec<u8>)> {
        let (number, secret) = key.split_first_chunk::<4>()?;
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = keys.get(&i32::from_be_bytes(*number))?;
        constant_time_eq(&entry.secret, secret).then(|| (entry.instance, entry.own.clone()))
    }
}
