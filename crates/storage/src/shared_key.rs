//! `Authorization: SharedKey {account}:{signature}`: a signature over the request with an account's key.
//!
//! The string that is signed has the method, eleven standard headers, every `x-ms-*` header and the resource with
//! its query, as the service documents it for versions from 2015-02-21 on.

use std::collections::{BTreeMap, HashSet};

use arcadia_crypto::{b64_decode, constant_time_eq, hmac_sha256};
use arcadia_kernel::{Fault, RequestHead};

use crate::faults;
use crate::headers::{one, parse_date};
use crate::records::{AccountKey, AccountKeys};

/// How far a client's clock may be off.
const SKEW_SECONDS: i64 = 15 * 60;
const STANDARD: [&str; 11] = [
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

/// The key that signed the request.
pub(crate) fn verify(
    head: &RequestHead,
    account: &str,
    credential: &str,
    keys: &AccountKeys,
    now: i64,
) -> Result<AccountKey, Fault> {
    let failed = faults::authentication_failed;
    let (name, signature) =
        credential.split_once(':').ok_or_else(|| failed("The Authorization header has no signature."))?;
    if name != account {
        return Err(failed("The Authorization header names another account."));
    }
    let date = one(head, "x-ms-date")?.or(one(head, "date")?);
    let date = date.and_then(parse_date).ok_or_else(|| failed("The request has no valid date."))?;
    if (now - date).abs() > SKEW_SECONDS {
        return Err(failed("The date in the request is more than 15 minutes from the server's time."));
    }
    check_unambiguous(head)?;
    let signature = b64_decode(signature.trim()).unwrap_or_default();
    // Clients sort headers by bytes or by words, that is without hyphens; each order is one way to sign.
    let texts = [Order::Bytes, Order::Words].map(|order| string_to_sign(head, account, order));
    let mut signed_by = None;
    for text in texts {
        let text = text?;
        for key in &keys.keys {
            let secret =
                b64_decode(&key.value).ok_or_else(|| Fault::internal("a stored key is not Base64"))?;
            if constant_time_eq(&hmac_sha256(&secret, text.as_bytes()), &signature) {
                signed_by = Some(key.clone());
            }
        }
    }
    signed_by.ok_or_else(|| failed("The signature is not one of this request by a key of this account."))
}

/// The signed text has a line for each name of the query, decoded, with all its values. A line break inside, a colon
/// in a name, or a name that comes twice would let one signature stand for another request too.
fn check_unambiguous(head: &RequestHead) -> Result<(), Fault> {
    let mut names = HashSet::new();
    let clear = head.query.iter().all(|(name, value)| {
        !name.contains(['\n', ':']) && !value.contains('\n') && names.insert(name.to_lowercase())
    });
    let refused = || {
        faults::authentication_failed(
            "The query cannot be signed with an account key: a name comes twice or has a colon, or a field has a line \
             break.",
        )
    };
    if clear { Ok(()) } else { Err(refused()) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Bytes,
    Words,
}

pub(crate) fn string_to_sign(head: &RequestHead, account: &str, order: Order) -> Result<String, Fault> {
    let mut text = head.method.as_str().to_owned();
    let dated = head.headers.contains_key("x-ms-date");
    for name in STANDARD {
        text.push('\n');
        let value = one(head, name)?.unwrap_or("");
        let is_empty = match name {
            "content-length" => value == "0",
            "date" => dated,
            _ => false,
        };
        text.push_str(if is_empty { "" } else { value });
    }
    text.push('\n');
    let mut named: BTreeMap<(String, &str), Vec<&str>> = BTreeMap::new();
    for (name, value) in &head.headers {
        let name = name.as_str();
        if name.starts_with("x-ms-") {
            let value = value.to_str().map_err(|_| faults::invalid_header(name, ""))?;
            let by = if order == Order::Words { word_order(name) } else { String::new() };
            named.entry((by, name)).or_default().push(value.trim());
        }
    }
    for ((_, name), values) in named {
        text.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    text.push_str(&format!("/{account}{}", head.path));
    let mut query: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, value) in head.query.iter() {
        query.entry(name.to_lowercase()).or_default().push(value);
    }
    for (name, mut values) in query {
        values.sort_unstable();
        text.push_str(&format!("\n{name}:{}", values.join(",")));
    }
    Ok(text)
}

/// Hyphens do not count, and the underscore comes before digits and letters.
fn word_order(name: &str) -> String {
    name.chars().filter(|c| *c != '-').map(|c| if c == '_' { '!' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_sort_without_hyphens() {
        let mut names = ["x-ms-meta-a1", "x-ms-meta-a_b", "x-ms-blob-type", "x-ms-blobz"];
        names.sort_by_key(|name| word_order(name));
        assert_eq!(names, ["x-ms-blob-type", "x-ms-blobz", "x-ms-meta-a_b", "x-ms-meta-a1"]);
    }
}
