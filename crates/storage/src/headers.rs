//! Headers that describe a blob: read from requests, written to answers.

use std::collections::HashSet;

use arcadia_crypto::b64_decode;
use arcadia_kernel::{EntropyExt as _, Fault, HeaderName, HeaderValue, Reply, RequestHead, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822::{DateTimeParser, DateTimePrinter};
use serde_json::{Map, Value};

use crate::data::COPY_SOURCE;
use crate::faults;
use crate::records::{Blob, Container, ContentHeaders, Copied, Metadata};

const METADATA_BYTES_MAX: usize = 8 * 1024;
const HEADER_CHARS_MAX: usize = 1024;
const META: &str = "x-ms-meta-";
/// The status of a copy: each is done when it is answered.
pub(crate) const COPY_DONE: &str = "success";
const TIERS: [&str; 3] = ["Hot", "Cool", "Cold"];
/// What would change how a blob is stored or kept and is not served: refused, never passed over.
const REFUSED: [&str; 13] = [
    COPY_SOURCE,
    "x-ms-content-crc64",
    "x-ms-encryption-key",
    "x-ms-encryption-scope",
    "x-ms-tags",
    "x-ms-immutability-policy-until-date",
    "x-ms-immutability-policy-mode",
    "x-ms-legal-hold",
    "x-ms-structured-body",
    "x-ms-source-range",
    "x-ms-expiry-option",
    "x-ms-range-get-content-crc64",
    "x-ms-proposed-lease-id",
];

/// What a copy cannot have besides: its content headers are the source's, tags and seals are not there, and nothing
/// waits to be read again.
const REFUSED_OF_COPIES: [&str; 13] = [
    "x-ms-rehydrate-priority",
    "x-ms-seal-blob",
    "x-ms-copy-source-tag-option",
    "x-ms-copy-source-blob-properties",
    "x-ms-source-content-crc64",
    "x-ms-source-encryption-key",
    "x-ms-file-request-intent",
    "x-ms-blob-content-type",
    "x-ms-blob-content-encoding",
    "x-ms-blob-content-language",
    "x-ms-blob-content-disposition",
    "x-ms-blob-content-md5",
    "x-ms-blob-cache-control",
];

/// What is the same of every blob.
static OF_EVERY_BLOB: [(HeaderName, HeaderValue); 5] = [
    (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
    (HeaderName::from_static("x-ms-blob-type"), HeaderValue::from_static("BlockBlob")),
    (HeaderName::from_static("x-ms-lease-status"), HeaderValue::from_static("unlocked")),
    (HeaderName::from_static("x-ms-lease-state"), HeaderValue::from_static("available")),
    (HeaderName::from_static("x-ms-server-encrypted"), HeaderValue::from_static("true")),
];

/// Refuses headers whose meaning is not served.
pub(crate) fn check_served(head: &RequestHead) -> Result<(), Fault> {
    // Few requests have any, so each header is looked at once and not each name looked up.
    if !head.headers.keys().any(|name| REFUSED.contains(&name.as_str())) {
        return Ok(());
    }
    match REFUSED.iter().find(|name| head.headers.contains_key(**name)) {
        Some(name) => Err(faults::unsupported_header(name)),
        None => Ok(()),
    }
}

/// The same for a copy.
pub(crate) fn check_copy_served(head: &RequestHead) -> Result<(), Fault> {
    let mut refused = REFUSED.iter().filter(|name| **name != COPY_SOURCE).chain(&REFUSED_OF_COPIES);
    match refused.find(|name| head.headers.contains_key(**name)) {
        Some(name) => Err(faults::unsupported_header(name)),
        None => Ok(()),
    }
}

/// `Sat, 21 Nov 2026 12:00:00 GMT`.
pub(crate) fn http_date(seconds: i64) -> String {
    let at = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    DateTimePrinter::new().timestamp_to_rfc9110_string(&at).unwrap_or_default()
}

/// Seconds since 1970 of an HTTP date.
pub(crate) fn parse_date(text: &str) -> Option<i64> {
    if text.len() > 64 {
        return None;
    }
    DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok().map(Timestamp::as_second)
}

/// A tag that no other version of the same thing has.
pub(crate) fn new_etag(entropy: &dyn arcadia_kernel::Entropy) -> String {
    format!("0x8D{:013X}", entropy.uuid().as_u128() >> 76)
}

/// Metadata while it is read. The rules and the bound are the same for headers and for the resource manager's JSON.
#[derive(Default)]
struct Gathered {
    found: Metadata,
    /// Names in lower case: two that differ in nothing else are one.
    names: HashSet<String>,
    bytes: usize,
}

impl Gathered {
    /// `false` when the name was there before, in whatever case.
    fn add(&mut self, name: &str, value: &str) -> Result<bool, Fault> {
        let first = name.chars().next();
        let is_identifier = first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_identifier {
            return Err(invalid_metadata());
        }
        self.bytes += name.len() + value.len();
        if self.bytes > METADATA_BYTES_MAX {
            let message = "The size of the specified metadata exceeds the maximum size permitted.";
            return Err(Fault::bad_request("MetadataTooLarge", message));
        }
        self.found.insert(name.to_owned(), value.trim().to_owned());
        Ok(self.names.insert(name.to_ascii_lowercase()))
    }
}

fn invalid_metadata() -> Fault {
    let message = "The metadata specified is invalid. It has characters that are not permitted.";
    Fault::bad_request("InvalidMetadata", message)
}

/// `x-ms-meta-*`. HTTP does not tell the case of names, so they are in lower case.
pub(crate) fn metadata(head: &RequestHead) -> Result<Metadata, Fault> {
    let mut gathered = Gathered::default();
    for (name, value) in &head.headers {
        let Some(name) = name.as_str().strip_prefix(META) else { continue };
        let value = value.to_str().map_err(|_| faults::invalid_header(name, ""))?;
        if !gathered.add(name, value)? {
            return Err(faults::invalid_header(&format!("{META}{name}"), value));
        }
    }
    Ok(gathered.found)
}

/// An object of strings that headers can have. JSON tells the case of names, so they keep it.
pub(crate) fn metadata_of_json(object: &Map<String, Value>) -> Result<Metadata, Fault> {
    let mut gathered = Gathered::default();
    for (name, value) in object.iter().filter(|(_, value)| !value.is_null()) {
        let value = value.as_str().ok_or_else(invalid_metadata)?;
        let is_header = HeaderValue::from_str(value).is_ok_and(|value| value.to_str().is_ok());
        if !is_header || !gathered.add(name, value)? {
            return Err(invalid_metadata());
        }
    }
    Ok(gathered.found)
}

/// A header's value. One that is no text is a fault and not taken for absent, nor is the first of several taken for
/// all: what is signed or is a condition must not be passed over.
pub(crate) fn one<'a>(head: &'a RequestHead, name: &str) -> Result<Option<&'a str>, Fault> {
    let mut values = head.headers.get_all(name).iter();
    let value = values.next().map(|value| value.to_str().map_err(|_| faults::invalid_header(name, "")));
    if values.next().is_some() {
        return Err(faults::invalid_header(name, "more than one"));
    }
    value.transpose()
}

fn text(head: &RequestHead, name: &str) -> Result<Option<String>, Fault> {
    match one(head, name)? {
        Some(value) if value.len() > HEADER_CHARS_MAX => Err(faults::invalid_header(name, "")),
        value => Ok(value.filter(|value| !value.is_empty()).map(str::to_owned)),
    }
}

/// `x-ms-blob-*`, and for Put Blob the standard headers where those are absent.
pub(crate) fn content_headers(head: &RequestHead, standard_too: bool) -> Result<ContentHeaders, Fault> {
    let read = |own: &str, standard: &str| match text(head, own)? {
        None if standard_too => text(head, standard),
        own => Ok(own),
    };
    let md5 = text(head, "x-ms-blob-content-md5")?;
    if let Some(md5) = &md5 {
        md5_bytes("x-ms-blob-content-md5", md5)?;
    }
    Ok(ContentHeaders {
        content_type: read("x-ms-blob-content-type", "content-type")?,
        content_encoding: read("x-ms-blob-content-encoding", "content-encoding")?,
        content_language: read("x-ms-blob-content-language", "content-language")?,
        content_disposition: text(head, "x-ms-blob-content-disposition")?,
        cache_control: read("x-ms-blob-cache-control", "cache-control")?,
        content_md5: md5,
    })
}

pub(crate) fn tier(head: &RequestHead) -> Result<Option<String>, Fault> {
    let Some(asked) = text(head, "x-ms-access-tier")? else { return Ok(None) };
    if asked.eq_ignore_ascii_case("Archive") {
        // It would have to be unreadable until it is brought back.
        return Err(faults::invalid_tier());
    }
    let known = TIERS.iter().find(|tier| tier.eq_ignore_ascii_case(&asked));
    known
        .map(|tier| Some((*tier).to_owned()))
        .ok_or_else(|| faults::invalid_header("x-ms-access-tier", &asked))
}

fn md5_bytes(name: &str, text: &str) -> Result<Vec<u8>, Fault> {
    let bytes = b64_decode(text).filter(|bytes| bytes.len() == 16);
    bytes.ok_or_else(|| {
        let message = "The MD5 value specified in the request is invalid. MD5 value must be 128 bits and \
                       Base64-encoded.";
        Fault::bad_request("InvalidMd5", message).extra("HeaderName", name)
    })
}

/// Compares the body's hash with what the request says it is.
pub(crate) fn check_md5(head: &RequestHead, names: &[&str], found: &[u8; 16]) -> Result<(), Fault> {
    for name in names {
        if let Some(sent) = text(head, name)?
            && md5_bytes(name, &sent)? != found
        {
            return Err(faults::md5_mismatch(&sent, &arcadia_crypto::b64(found)));
        }
    }
    Ok(())
}

/// Adds a header; a value that a header cannot have is left out.
pub(crate) fn add(reply: &mut Reply, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers.insert(HeaderName::from_static(name), value);
    }
}

/// `ETag` and `Last-Modified`.
pub(crate) fn add_version(reply: &mut Reply, etag: &str, modified: i64) {
    add(reply, "etag", &format!("\"{etag}\""));
    add(reply, "last-modified", &http_date(modified));
}

pub(crate) fn add_metadata(reply: &mut Reply, metadata: &Metadata) {
    for (name, value) in metadata {
        let name = HeaderName::try_from(format!("{META}{name}"));
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            reply.headers.insert(name, value);
        }
    }
}

pub(crate) fn add_container(reply: &mut Reply, container: &Container) {
    add_version(reply, &container.etag, container.modified);
    for (name, value) in [
        ("x-ms-lease-status", "unlocked"),
        ("x-ms-lease-state", "available"),
        ("x-ms-has-immutability-policy", "false"),
        ("x-ms-has-legal-hold", "false"),
        ("x-ms-immutable-storage-with-versioning-enabled", "false"),
        ("x-ms-default-encryption-scope", "$account-encryption-key"),
        ("x-ms-deny-encryption-scope-override", "false"),
    ] {
        add(reply, name, value);
    }
    add_metadata(reply, &container.metadata);
}

/// Everything that is known of a blob; `whole` says that the answer has all its bytes.
pub(crate) fn add_blob(reply: &mut Reply, blob: &Blob, account_tier: &str, whole: bool) {
    add_version(reply, &blob.etag, blob.modified);
    let headers = &blob.headers;
    let md5_name = if whole { "content-md5" } else { "x-ms-blob-content-md5" };
    let content_type = headers.content_type.as_deref().unwrap_or("application/octet-stream");
    add(reply, "content-type", content_type);
    for (name, value) in [
        ("content-encoding", &headers.content_encoding),
        ("content-language", &headers.content_language),
        ("content-disposition", &headers.content_disposition),
        ("cache-control", &headers.cache_control),
        (md5_name, &headers.content_md5),
    ] {
        if let Some(value) = value {
            add(reply, name, value);
        }
    }
    for (name, value) in &OF_EVERY_BLOB {
        reply.headers.insert(name, value.clone());
    }
    add(reply, "x-ms-creation-time", &http_date(blob.created));
    add(reply, "x-ms-access-tier", blob.tier.as_deref().unwrap_or(account_tier));
    if blob.tier.is_none() {
        add(reply, "x-ms-access-tier-inferred", "true");
    }
    if let Some(changed) = blob.tier_changed {
        add(reply, "x-ms-access-tier-change-time", &http_date(changed));
    }
    if let Some(copied) = &blob.copied {
        add_copied(reply, copied, blob.length);
    }
    add_metadata(reply, &blob.metadata);
}

fn add_copied(reply: &mut Reply, copied: &Copied, length: u64) {
    for (name, value) in [
        ("x-ms-copy-id", &copied.id.to_string()),
        ("x-ms-copy-source", &copied.source),
        ("x-ms-copy-progress", &format!("{length}/{length}")),
        ("x-ms-copy-completion-time", &http_date(copied.at)),
    ] {
        add(reply, name, value);
    }
    add(reply, "x-ms-copy-status", COPY_DONE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_and_read() {
        assert_eq!(http_date(1_795_262_400), "Sat, 21 Nov 2026 12:00:00 GMT");
        assert_eq!(parse_date("Sat, 21 Nov 2026 12:00:00 GMT"), Some(1_795_262_400));
        for text in ["", "x", "2026-11-21T12:00:00Z", &"a".repeat(100)] {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }

    #[test]
    fn tags_look_like_the_services_and_differ() {
        let (one, two) = (new_etag(&arcadia_crypto::SystemEntropy), new_etag(&arcadia_crypto::SystemEntropy));
        assert!(one.starts_with("0x8D") && one.len() == 17 && one != two, "{one} {two}");
    }
}
