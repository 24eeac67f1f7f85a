//! What a floor does with one request.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, anyhow};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::json;

use super::Kind;
use arcadia_crypto::{RsaBits, RsaKeyPair, b64url, sha256};

pub const SECRET_BYTES: usize = 4096;
const TOKENS_MAX: usize = 4096;

pub struct Work {
    kind: Kind,
    cipher: LessSafeKey,
    sealed: Vec<u8>,
    tokens: Mutex<HashMap<[u8; 32], ()>>,
    key: Option<RsaKeyPair>,
    folder: PathBuf,
    files: AtomicU64,
}

impl Work {
    pub fn new(kind: Kind, folder: Option<PathBuf>) -> Result<Self> {
        let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).map_err(|_| anyhow!("a key of 32 bytes"))?;
        let cipher = LessSafeKey::new(key);
        let mut sealed = vec![b'x'; SECRET_BYTES];
        cipher
            .seal_in_place_append_tag(Nonce::assume_unique_for_key([0; 12]), Aad::empty(), &mut sealed)
            .map_err(|_| anyhow!("the value is sealed"))?;
        let key = if kind == Kind::Sign { Some(RsaKeyPair::generate(RsaBits::Bits2048)?) } else { None };
        Ok(Self {
            kind,
            cipher,
            sealed,
            tokens: Mutex::default(),
            key,
            folder: folder.unwrap_or_default(),
            files: AtomicU64::new(0),
        })
    }

    pub async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
        let bytes = match self.kind {
            Kind::Small => Bytes::from_static(b"{\"value\":\"small\"}"),
            Kind::Secret => self.secret(&request)?,
            Kind::Sign => {
                let body = request.into_body().collect().await?.to_bytes();
                self.sign(&body)?
            }
            Kind::File => {
                let body = request.into_body().collect().await?.to_bytes();
                self.write(body).await?
            }
        };
        let mut response = Response::new(Full::new(bytes));
        if self.kind == Kind::File {
            *response.status_mut() = StatusCode::CREATED;
        }
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }

    fn secret(&self, request: &Request<Incoming>) -> Result<Bytes> {
        let token = request.headers().get(header::AUTHORIZATION).context("a token")?;
        {
            let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            let digest = sha256(token.as_bytes());
            if !tokens.contains_key(&digest) && tokens.len() < TOKENS_MAX {
                tokens.insert(digest, ());
            }
        }
        let mut value = self.sealed.clone();
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let opened = self
            .cipher
            .open_in_place(nonce, Aad::empty(), &mut value)
            .map_err(|_| anyhow!("the value opens"))?;
        let text = std::str::from_utf8(opened)?;
        Ok(serde_json::to_vec(&json!({ "id": request.uri().path(), "value": text }))?.into())
    }

    fn sign(&self, body: &[u8]) -> Result<Bytes> {
        let key = self.key.as_ref().context("a key was made")?;
        let signature = key.sign_rs256(body)?;
        Ok(serde_json::to_vec(&json!({ "access_token": b64url(&signature) }))?.into())
    }

    async fn write(&self, body: Bytes) -> Result<Bytes> {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("file-{number}"));
        tokio::task::spawn_blocking(move || {
            let mut file = File::create(path)?;
            file.write_all(&body)?;
            file.sync_all()
        })
        .await??;
        Ok(Bytes::new())
    }
}
