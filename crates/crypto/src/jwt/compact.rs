//! The compact form: three base64url segments.

use serde_json::{Map, Value};

use super::Algorithm;
use crate::encoding::b64url_decode_strict;

/// Longest token that is read at all. Real ones are 1 to 3 KiB; each must fit in an HTTP header.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeekFault {
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    #[error("a token has three parts separated by dots: header.claims.signature")]
    Segments,
    #[error("a part of the token is not base64url")]
    NotBase64Url,
    #[error("the header or the claims are not a JSON object")]
    NotJsonObject,
}

/// A token taken apart; nothing in it has been verified.
pub(crate) struct Parts<'a> {
    pub(crate) header: Map<String, Value>,
    claims_segment: &'a str,
    /// What the signature covers: header and claims segments with their dot.
    pub(crate) signed: &'a str,
    pub(crate) signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    pub(crate) fn parse(token: &'a str) -> Result<Self, PeekFault> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(PeekFault::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(PeekFault::Segments)?;
        let (header, claims_segment) = signed.split_once('.').ok_or(PeekFault::Segments)?;
        if claims_segment.contains('.') {
            return Err(PeekFault::Segments);
        }
        Ok(Self {
            header: object(header)?,
            claims_segment,
            signed,
            signature: b64url_decode_strict(signature).ok_or(PeekFault::NotBase64Url)?,
        })
    }

    pub(crate) fn claims(&self) -> Result<Map<String, Value>, PeekFault> {
        object(self.claims_segment)
    }

    pub(crate) fn header_text(&self, name: &str) -> Option<&str> {
        self.header.get(name)?.as_str()
    }

    /// The algorithm, if it is one that is accepted and the header asks for nothing that is not understood.
    pub(crate) fn algorithm(&self) -> Option<Algorithm> {
        // `crit` lists extensions a reader must understand, `b64` changes what is signed: none are supported.
        if self.header.contains_key("crit") || self.header.contains_key("b64") {
            return None;
        }
        match self.header_text("alg")? {
            "RS256" => Some(Algorithm::Rs256),
            "PS256" => Some(Algorithm::Ps256),
            _ => None,
        }
    }
}

fn object(segment: &str) -> Result<Map<String, Value>, PeekFault> {
    let bytes = b64url_decode_strict(segment).ok_or(PeekFault::NotBase64Url)?;
    serde_json::from_slice(&bytes).map_err(|_| PeekFault::NotJsonObject)
}

pub type JsonObject = Map<String, Value>;

/// Header and claims of a token **without verifying anything**: for showing a token to its holder.
pub fn peek(token: &str) -> Result<(JsonObject, JsonObject), PeekFault> {
    let parts = Parts::parse(token)?;
    let claims = parts.claims()?;
    Ok((parts.header, claims))
}

/// A `NumericDate`; RFC 7519 allows fractions, and some clients send them.
pub(crate) fn numeric_date(claims: &Map<String, Value>, name: &str) -> Option<f64> {
    claims.get(name)?.as_f64().filter(|seconds| seconds.is_finite())
}

pub(crate) fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    claims.get(name)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::b64url;

    #[test]
    fn peek_shows_header_and_claims() {
        let token = format!("{}.{}.AA", b64url(br#"{"alg":"none"}"#), b64url(br#"{"oid":"x"}"#));
        let (header, claims) = peek(&token).unwrap();
        assert_eq!((header["alg"].as_str(), claims["oid"].as_str()), (Some("none"), Some("x")));
    }

    #[test]
    fn peek_refuses_other_shapes() {
        let object = b64url(b"{}");
        let cases = [
            (String::new(), PeekFault::Segments),
            (object.clone(), PeekFault::Segments),
            (format!("{object}.{object}"), PeekFault::Segments),
            (format!("{object}.{object}.AA.AA"), PeekFault::Segments),
            (format!("{object}.{object}.AA.{object}.AA"), PeekFault::Segments),
            (format!("{object}=.{object}.AA"), PeekFault::NotBase64Url),
            (format!("{object}.{object}.A"), PeekFault::NotBase64Url),
            (format!("{}.{object}.AA", b64url(b"[]")), PeekFault::NotJsonObject),
            (format!("{object}.{}.AA", b64url(b"{")), PeekFault::NotJsonObject),
            ("a".repeat(TOKEN_BYTES_MAX + 1), PeekFault::TooLong),
        ];
        for (token, fault) in cases {
            assert_eq!(peek(&token).err(), Some(fault), "{token:.80}");
        }
    }
}
