//! A request as handlers see it: bounded, split and decoded once.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body_util::{BodyExt as _, Limited};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::dispatch::{check_announced, unread};
use crate::op::{Arriving, StillAllowed};
use crate::{Body, Fault, Params};

/// Decoded query or form fields, in order. Names compare without case, as ARM's `$filter`/`$Filter` do.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=b&c=d`. A plus is a blank, in forms and in queries alike.
    pub fn parse(text: &str) -> Self {
        let decode = |part: &str| {
            let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
            if part.contains('+') { decoded(&part.replace('+', " ")) } else { decoded(part) }
        };
        Self(
            text.split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    pub fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }
}

/// Everything of a request but its body.
#[derive(Clone, Debug)]
pub struct RequestHead {
    pub method: Method,
    /// The host name the client asked for, lower case, without port.
    pub host: String,
    /// `https://host[:port]`, as the client sees this site: the start of every absolute URL in an answer.
    pub origin: String,
    /// The path as it was sent (percent-encoded), without the query.
    pub path: String,
    /// Decoded path segments, as [`crate::Service::segments`] splits them.
    pub segments: Vec<String>,
    /// The query as it was sent.
    pub raw_query: String,
    pub query: Query,
    pub headers: HeaderMap,
    pub params: Params,
    pub remote: Option<IpAddr>,
    pub request_id: Uuid,
    /// Who asks, once that is proven.
    pub caller_id: OnceLock<Uuid>,
}

impl RequestHead {
    /// A path parameter; the empty string when an optional one is absent.
    pub fn param(&self, name: &str) -> &str {
        self.params.value(name).unwrap_or("")
    }

    /// Who asks; nil before that is proven, and for callers who are nobody in the directory.
    pub fn caller_id(&self) -> Uuid {
        self.caller_id.get().copied().unwrap_or_default()
    }

    /// The request's identifier as a header says it.
    pub fn request_id_value(&self) -> HeaderValue {
        let mut text = Uuid::encode_buffer();
        HeaderValue::from_str(self.request_id.hyphenated().encode_lower(&mut text))
            .unwrap_or(HeaderValue::from_static(""))
    }

    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn header_named(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// A request whose operation was allowed and whose body was read within the operation's limit.
#[derive(Clone, Debug)]
pub struct Request {
    pub head: Arc<RequestHead>,
    pub body: Bytes,
}

impl std::ops::Deref for Request {
    type Target = RequestHead;
    fn deref(&self) -> &RequestHead {
        &self.head
    }
}

/// A request whose operation was allowed and whose body is read as it arrives.
pub struct Streamed {
    pub head: Arc<RequestHead>,
    body: Limited<Body>,
    body_bytes_max: usize,
    still_allowed: StillAllowed,
}

impl Streamed {
    pub(crate) fn new(arriving: Arriving) -> Result<Self, Fault> {
        let Arriving { head, body, body_bytes_max, still_allowed } = arriving;
        check_announced(&head, body_bytes_max)?;
        let body = Limited::new(body, body_bytes_max);
        Ok(Self { head, body, body_bytes_max, still_allowed })
    }

    /// The next bytes; `None` at the end. A body that breaks off is a fault, never a short body; so is one that was
    /// allowed when it began and is not any more when it ends.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        while let Some(frame) = self.body.frame().await {
            match frame {
                Ok(frame) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
                Err(error) => return Err(unread(error, self.body_bytes_max)),
            }
        }
        (self.still_allowed)().map(|()| None)
    }
}

/// What an operation reads from its request; parse here, so that a handler only sees what is valid.
pub trait Input: Sized + Send + 'static {
    fn read(request: Request) -> Result<Self, Fault>;
}

impl Input for Request {
    fn read(request: Request) -> Result<Self, Fault> {
        Ok(request)
    }
}

impl Input for () {
    fn read(_: Request) -> Result<Self, Fault> {
        Ok(())
    }
}

/// A JSON body. Its nesting is bounded (128) by the parser, its size by the operation.
pub struct Json<T> {
    pub head: Arc<RequestHead>,
    pub value: T,
}

impl<T: DeserializeOwned + Send + 'static> Input for Json<T> {
    fn read(request: Request) -> Result<Self, Fault> {
        let value = serde_json::from_slice(&request.body).map_err(|error| {
            Fault::bad_request(
                "InvalidRequestContent",
                format!("The request content was invalid and could not be deserialized: '{error}'."),
            )
        })?;
        Ok(Self { head: request.head, value })
    }
}

/// An `application/x-www-form-urlencoded` body.
pub struct Form {
    pub head: Arc<RequestHead>,
    pub fields: Query,
}

impl Input for Form {
    fn read(request: Request) -> Result<Self, Fault> {
        let text = std::str::from_utf8(&request.body)
            .map_err(|_| Fault::bad_request("invalid_request", "The request body is not text."))?;
        let fields = Query::parse(text);
        Ok(Self { head: request.head, fields })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;
    use crate::BodyError;

    #[test]
    fn why_a_body_was_not_read() {
        let status = |frame: Result<Frame<Bytes>, BodyError>| {
            let body = StreamBody::new(futures_util::stream::iter([frame]));
            let error = Limited::new(body, 2).collect().now_or_never().unwrap().unwrap_err();
            unread(error, 2).status.as_u16()
        };
        assert_eq!(status(Ok(Frame::data(Bytes::from_static(b"abc")))), 413);
        assert_eq!(status(Err(BodyError::too_slow())), 408);
        assert_eq!(status(Err(BodyError("the connection was lost".into()))), 400);
    }
}
