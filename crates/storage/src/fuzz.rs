//! Fuzz targets for what clients of blobs send: block lists, signatures, headers, names.

use std::collections::BTreeMap;

use arcadia_crypto::{b64, hmac_sha256};
use arcadia_kernel::{ArmId, HeaderMap, HeaderName, HeaderValue, Method, Params, Query, RequestHead};
use uuid::Uuid;

use crate::StorageNames;
use crate::conditions::{Conditions, State};
use crate::data::Source;
use crate::headers::{
    check_copy_served, check_served, content_headers, http_date, metadata, parse_date, tier,
};
use crate::paths::{blob_scope, check_blob, check_container, container_scope, split};
use crate::records::{AccountKey, AccountKeys};
use crate::shared_key::{Order, string_to_sign};
use crate::xml::{BLOCKS_MAX, From, block_list};

arcadia_fuzz::target!(block_list_xml, |data: &[u8]| block_lists_come_back(data));

fn block_lists_come_back(data: &[u8]) {
    let Ok(blocks) = block_list(data) else { return };
    assert!(blocks.len() <= BLOCKS_MAX && blocks.iter().map(|(_, id)| id.len()).sum::<usize>() <= data.len());
    let written: String = blocks
        .iter()
        .map(|(from, id)| {
            let name = match from {
                From::Committed => "Committed",
                From::Uncommitted => "Uncommitted",
                From::Latest => "Latest",
            };
            let id: String = id.chars().map(|c| format!("&#{};", u32::from(c))).collect();
            format!("<{name}>{id}</{name}>")
        })
        .collect();
    // Blanks around an id are no part of it, and control characters have no form in XML.
    if blocks.iter().all(|(_, id)| !id.is_empty() && !id.contains(char::is_control)) {
        assert_eq!(block_list(format!("<BlockList>{written}</BlockList>").as_bytes()).unwrap(), blocks);
    }
}

/// A request as lines: method, target, then `name: value`.
fn head(text: &str) -> Option<RequestHead> {
    let mut lines = text.split('\n');
    let method = Method::from_bytes(lines.next()?.as_bytes()).ok()?;
    let target: http::Uri = lines.next()?.parse().ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        headers.append(HeaderName::try_from(name).ok()?, HeaderValue::from_str(value.trim()).ok()?);
    }
    let raw_query = target.query().unwrap_or("").to_owned();
    Some(RequestHead {
        method,
        host: "a1.blob.core.windows.net".to_owned(),
        origin: "https://a1.blob.core.windows.net".to_owned(),
        path: target.path().to_owned(),
        segments: split(target.path())?,
        query: Query::parse(&raw_query),
        raw_query,
        headers,
        params: Params::default(),
        remote: None,
        request_id: Uuid::nil(),
        caller_id: Default::default(),
    })
}

fn keys() -> AccountKeys {
    let key = |name: &str, fill| AccountKey {
        name: name.to_owned(),
        value: b64(&[fill; 64]),
        created: jiff::Timestamp::UNIX_EPOCH,
    };
    AccountKeys { instance: Uuid::nil(), keys: [key("key1", 1), key("key2", 2)] }
}

arcadia_fuzz::target!(shared_key, |data: &[u8]| signatures_fit_one_request(data));

/// Two requests with an empty line between them: one is signed with the other's signature. It is accepted only if
/// both ask for the same.
fn signatures_fit_one_request(data: &[u8]) {
    const NOW: i64 = 1_795_262_400;
    let text = String::from_utf8_lossy(data);
    let (one, other) = text.split_once("\n\n").unwrap_or((&text, ""));
    let Some(one) = head(one) else { return };
    let verify = |head: &RequestHead, credential: &str| {
        crate::shared_key::verify(head, "a1", credential, &keys(), NOW)
    };
    assert!(verify(&one, &text).is_err(), "a signature cannot be guessed");
    let Ok(signed) = string_to_sign(&one, "a1", Order::Bytes) else { return };
    let credential = format!("a1:{}", b64(&hmac_sha256(&[1; 64], signed.as_bytes())));
    if verify(&one, &credential).is_err() {
        return;
    }
    assert!(verify(&one, &credential.replacen("a1", "a2", 1)).is_err());
    let Some(other) = head(other) else { return };
    if verify(&other, &credential).is_ok() {
        assert_eq!(meaning(&one), meaning(&other));
    }
}

/// What a request asks for, in a form that is equal where the requests ask for the same.
fn meaning(head: &RequestHead) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut fields: Vec<(String, String)> =
        head.query.iter().map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    fields.sort();
    // HTTP takes headers of one name for one with commas; the service takes no more than one of those it knows.
    let mut named: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in head.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-ms-")) {
        named.entry(name.as_str()).or_default().push(value.to_str().unwrap());
    }
    let named: Vec<String> =
        named.iter().map(|(name, values)| format!("{name}:{}", values.join(","))).collect();
    (head.method.clone(), head.path.clone(), fields, named)
}

arcadia_fuzz::target!(blob_headers, |data: &[u8]| headers_are_bounded(data));

fn headers_are_bounded(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(seconds) = parse_date(&text) {
        // Dates are read to the second, and written in the one form that HTTP has from year 0 to 9999.
        if (-62_135_596_800..=253_402_300_799).contains(&seconds) {
            assert_eq!(parse_date(&http_date(seconds)), Some(seconds));
        }
    }
    if let Some((first, Some(last))) = crate::data::parse_range(&text) {
        assert!(first <= last);
    }
    if let Ok(source) = Source::parse(&StorageNames::azure(), &text) {
        // What is shown of a source leads to the same blob again.
        assert!(source.shown.len() <= text.len() && source.shown.starts_with("https://"));
        assert_eq!(Source::parse(&StorageNames::azure(), &source.shown).unwrap(), source);
    }
    let Some(head) = head(&text) else { return };
    let _ = check_served(&head);
    let _ = check_copy_served(&head);
    let _ = Conditions::of_source(&head);
    let _ = tier(&head);
    if let Ok(metadata) = metadata(&head) {
        assert!(metadata.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= 8 * 1024);
    }
    if let Ok(content) = content_headers(&head, true) {
        assert!(content.content_type.is_none_or(|text| text.len() <= 1024));
    }
    if let Ok(conditions) = Conditions::of(&head) {
        assert!(Conditions::of_read(&head).is_ok());
        let state = State { etag: "0x8D", modified: 1_795_262_400 };
        // What may not be read because it is known may not be changed for that reason either.
        assert_eq!(conditions.check_read(state).is_ok(), conditions.check_change(state).is_ok());
        if conditions.check_put(None).is_ok() {
            assert!(!head.headers.contains_key("if-match"));
        }
    }
}

arcadia_fuzz::target!(blob_path, |data: &[u8]| scopes_stay_in_their_container(data));

fn scopes_stay_in_their_container(data: &[u8]) {
    let path = String::from_utf8_lossy(data);
    let Some(segments) = split(&path) else { return };
    assert!(segments.len() <= 2 && segments.iter().map(String::len).sum::<usize>() <= path.len());
    let [container, blob] = segments.as_slice() else { return };
    if check_container(container).is_err() || check_blob(blob).is_err() {
        return;
    }
    let account = ArmId::parse("/subscriptions/s/resourceGroups/g/providers/p/storageAccounts/a").unwrap();
    let container = container_scope(&account, container).unwrap();
    let scope = blob_scope(&container, blob).unwrap();
    assert!(container.contains(&scope) && !scope.contains(&container));
    let other = format!("{blob}/");
    let below = blob_scope(&container, &other).unwrap();
    // A name that is too long has a scope that no other has.
    let too_long = container.extended(["blobs", "%-"]).unwrap();
    assert!(below == too_long || (below.name() == "%" && below != scope && scope != too_long));
}
