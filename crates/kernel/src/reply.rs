//! An answer before it is rendered to the wire.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};

use crate::Fault;

/// Room for the headers that an answer usually has.
const HEADERS_USUAL: usize = 12;
/// Room for the JSON that an answer usually is.
const JSON_BYTES_USUAL: usize = 512;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request's or an answer's body: bytes that may still be on their way.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body broke off. A type of its own, and not `BoxError`, because futures that hold a boxed error as a type
/// parameter cannot be proven `Send`.
#[derive(Debug, thiserror::Error)]
#[error("the body broke off: {0}")]
pub struct BodyError(pub BoxError);

#[derive(Debug, thiserror::Error)]
#[error("it arrived too slowly")]
struct TooSlow;

impl BodyError {
    /// The client did not keep the pace that the listener asks for.
    pub fn too_slow() -> Self {
        Self(TooSlow.into())
    }

    pub fn is_too_slow(&self) -> bool {
        self.0.is::<TooSlow>()
    }
}

/// A body whose bytes are all here.
pub fn full_body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body without bytes, which takes no memory.
pub fn empty_body() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
}

impl Reply {
    pub fn empty(status: StatusCode) -> Self {
        Self::new(status, empty_body())
    }

    fn new(status: StatusCode, body: Body) -> Self {
        Self { status, headers: HeaderMap::with_capacity(HEADERS_USUAL), body }
    }

    pub fn bytes(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self::new(status, full_body(body)).with(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
    }

    /// `application/json; charset=utf-8`.
    pub fn json<T: serde::Serialize + ?Sized>(status: StatusCode, value: &T) -> Result<Self, Fault> {
        Self::json_of(JSON_BYTES_USUAL, status, value)
    }

    fn json_of<T: serde::Serialize + ?Sized>(
        bytes: usize,
        status: StatusCode,
        value: &T,
    ) -> Result<Self, Fault> {
        let mut body = Vec::with_capacity(bytes);
        // Escapes long texts several times as fast as serde_json; what it writes is the same.
        sonic_rs::to_writer(&mut body, value).map_err(Fault::internal)?;
        Ok(Self::bytes(status, "application/json; charset=utf-8", body))
    }

    /// 200 with a JSON body.
    pub fn ok<T: serde::Serialize + ?Sized>(value: &T) -> Result<Self, Fault> {
        Self::json(StatusCode::OK, value)
    }

    /// 200 with a JSON body of about so many bytes.
    pub fn ok_of<T: serde::Serialize + ?Sized>(bytes: usize, value: &T) -> Result<Self, Fault> {
        Self::json_of(bytes, StatusCode::OK, value)
    }

    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Adds a header whose value was built at run time; a value that is not a legal header is our own mistake.
    pub fn with_text(mut self, name: HeaderName, value: &str) -> Result<Self, Fault> {
        self.headers.append(name, HeaderValue::from_str(value).map_err(Fault::internal)?);
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn written(value: &Value) -> Vec<u8> {
        use futures_util::FutureExt as _;
        let reply = Reply::ok(value).unwrap();
        reply.body.collect().now_or_never().unwrap().unwrap().to_bytes().to_vec()
    }

    #[test]
    fn what_has_to_be_escaped_is_and_numbers_are_as_ever() {
        let every: String = (0..0x2100).filter_map(char::from_u32).chain(['\u{feff}', '\u{1f600}']).collect();
        let value = json!({
            "text": every, "\"\u{7}": [0, -1, u64::MAX, i64::MIN, 0.1, 1e300, 5e-324, 1.0],
            "nested": { "none": null, "yes": true, "empty": [[], {}, ""] },
        });
        assert_eq!(written(&value), serde_json::to_vec(&value).unwrap());
    }

    proptest! {
        #[test]
        fn any_text_is_written_as_serde_json_writes_it(texts in proptest::collection::vec(".{0,80}", 0..8)) {
            let value = json!(texts);
            prop_assert_eq!(written(&value), serde_json::to_vec(&value).unwrap());
        }
    }
}
