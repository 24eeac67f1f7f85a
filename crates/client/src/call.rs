//! A request before it is sent.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::ClientFault;

/// What `application/x-www-form-urlencoded` leaves as it is.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Name and value pairs as a form or a query.
pub fn form_encode(fields: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in fields {
        if !out.is_empty() {
            out.push('&');
        }
        out.extend(utf8_percent_encode(name, FORM));
        out.push('=');
        out.extend(utf8_percent_encode(value, FORM));
    }
    out
}

/// One request. Its `Debug` shows neither headers nor body, which may hold credentials.
pub struct Call {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) repeatable: bool,
}

impl Call {
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        let repeatable = matches!(method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE);
        Self { method, url: url.into(), headers: HeaderMap::new(), body: Bytes::new(), repeatable }
    }

    pub fn get(url: impl Into<String>) -> Self {
        Self::new(Method::GET, url)
    }

    pub fn put(url: impl Into<String>) -> Self {
        Self::new(Method::PUT, url)
    }

    pub fn post(url: impl Into<String>) -> Self {
        Self::new(Method::POST, url)
    }

    pub fn delete(url: impl Into<String>) -> Self {
        Self::new(Method::DELETE, url)
    }

    /// `Authorization: Bearer ...`, marked so that it is never shown.
    pub fn bearer(self, token: &str) -> Result<Self, ClientFault> {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| ClientFault::Header("the token has a character that a header cannot hold"))?;
        value.set_sensitive(true);
        Ok(self.header(header::AUTHORIZATION, value))
    }

    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub fn body(mut self, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.header(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
    }

    pub fn json<T: serde::Serialize + ?Sized>(self, value: &T) -> Result<Self, ClientFault> {
        let body = serde_json::to_vec(value)
            .map_err(|_| ClientFault::Header("the body cannot be written as JSON"))?;
        Ok(self.body("application/json", body))
    }

    pub fn form(self, fields: &[(&str, &str)]) -> Self {
        self.body("application/x-www-form-urlencoded", form_encode(fields))
    }

    /// Says that sending this twice does no harm, so that a kept connection found closed is no failure.
    pub fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = self.url.split('?').next().unwrap_or("");
        f.debug_struct("Call").field("method", &self.method).field("url", &url).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        assert_eq!(
            form_encode(&[("scope", "https://a/.default x"), ("b", "1+&=é")]),
            "scope=https%3A%2F%2Fa%2F.default%20x&b=1%2B%26%3D%C3%A9"
        );
        assert_eq!(form_encode(&[]), "");
    }

    #[test]
    fn nothing_private_is_shown() {
        let call =
            Call::post("https://h/p?sig=hush").bearer("hush").unwrap().form(&[("client_secret", "hush")]);
        assert!(!format!("{call:?}").contains("hush"));
        assert!(!format!("{:?}", call.headers).contains("hush"));
        assert!(Call::get("https://h/").bearer("a\r\nX: y").is_err());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(name in ".{1,20}", value in ".{0,40}") {
            let query = arcadia_kernel::Query::parse(&form_encode(&[(&name, &value), ("end", "")]));
            prop_assert_eq!(query.iter().next(), Some((name.as_str(), value.as_str())));
        }
    }
}
