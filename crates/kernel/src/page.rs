//! Lists come in pages; where one ends is told in an opaque token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::Fault;

/// The longest continuation token that is read back, in characters.
const TOKEN_CHARS_MAX: usize = 4096;

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Where the next page starts; `None` when this was the last.
    pub next: Option<Continuation>,
}

/// The key after which the next page starts. Clients see it as an opaque token (`$skiptoken`, `marker`).
/// It only ever positions a read *within* the range that the request itself names, so a forged one reveals
/// nothing that the caller could not list from the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continuation(pub Vec<u8>);

impl Continuation {
    pub fn token(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.0)
    }

    pub fn parse(token: &str) -> Result<Self, Fault> {
        let refused = || {
            Fault::bad_request(
                "InvalidSkipToken",
                "The continuation token is not one that this service issued.",
            )
        };
        if token.len() > TOKEN_CHARS_MAX {
            return Err(refused());
        }
        URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map(Self).map_err(|_| refused())
    }
}
