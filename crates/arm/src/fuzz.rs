//! Fuzz targets for what clients write in queries and bodies of resources.

use std::cell::Cell;

use arcadia_kernel::{Fault, Query};
use serde_json::Value;

use crate::access::{Attributes, Condition, PRINCIPAL_ATTRIBUTE, ROLE_ATTRIBUTE, Source};
use crate::filter::Filter;
use crate::merge_json;

arcadia_fuzz::target!(filter, |data: &[u8]| filters_have_an_answer(data));

/// A filter that is read has an answer for every leaf's answers, the opposite has the opposite one, and joining keeps to
/// logic; it asks only what it has, and keeps to its bounds.
fn filters_have_an_answer(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(filter) = Filter::parse(&text) else { return };
    assert!(text.len() <= 4096);
    let held = answer(&filter);
    // By the answers to leaves below, the first comparison holds and the second does not.
    for (joined, expected) in [
        (format!("not ({text})"), !held),
        (format!("({text}) and aa eq b"), held),
        (format!("({text}) or aa eq b"), true),
        (format!("a eq bb and ({text})"), false),
        (format!("a eq bb or ({text})"), held),
    ] {
        // Larger than the bounds, or empty, it may be refused; it is never answered otherwise.
        let found = Filter::parse(&joined).ok().map(|filter| answer(&filter));
        assert!(found.is_none_or(|found| found == expected), "{joined}");
    }
    let leaves = Cell::new(0);
    filter
        .check(&|_| {
            leaves.set(leaves.get() + 1);
            Ok(())
        })
        .unwrap();
    assert!(leaves.get() <= 64);
    let refused = |_: &Filter| -> Result<bool, Fault> { Err(Fault::bad_request("x", "x")) };
    assert_eq!(filter.holds(&refused).is_err(), leaves.get() > 0);
}

fn answer(filter: &Filter) -> bool {
    filter
        .holds(&|leaf| {
            Ok(match leaf {
                Filter::Equals(field, value) => field.len() > value.len(),
                Filter::NotEquals(field, value) => field.len() <= value.len(),
                Filter::Call(name, arguments) => name.len() > arguments.len(),
                _ => panic!("{leaf:?} is no leaf"),
            })
        })
        .unwrap()
}

arcadia_fuzz::target!(condition, |data: &[u8]| conditions_have_an_answer(data));

/// Two values, a condition after them, a line each: its opposite answers the opposite.
fn conditions_have_an_answer(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(3, '\n');
    let (Some(role), Some(principal), Some(text)) = (lines.next(), lines.next(), lines.next()) else {
        return;
    };
    let Ok(condition) = Condition::parse(text) else { return };
    let mut attributes = Attributes::default();
    let unknown = condition.holds("a/b/read", &attributes);
    attributes.set(Source::Request, ROLE_ATTRIBUTE, role);
    attributes.set(Source::Resource, PRINCIPAL_ATTRIBUTE, principal);
    let known = condition.holds("a/b/read", &attributes);
    let _ = condition.check_attributes();
    // What is known already does not change when more is.
    if format!("{unknown:?}") != "Unknown" {
        assert_eq!(unknown, known);
    }
    if let Ok(opposite) = Condition::parse(&format!("!({text})")) {
        let expected = match format!("{known:?}").as_str() {
            "Yes" => "No",
            "No" => "Yes",
            _ => "Unknown",
        };
        assert_eq!(format!("{:?}", opposite.holds("a/b/read", &attributes)), expected);
    }
}

arcadia_fuzz::target!(merge_patch, |data: &[u8]| patches_settle(data));

/// Two JSON documents with a null byte between them; the second is laid over the first.
fn patches_settle(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (target, patch) = data.split_at(at);
    let Ok(mut target) = serde_json::from_slice::<Value>(target) else { return };
    let Ok(patch) = serde_json::from_slice::<Value>(patch.get(1..).unwrap_or_default()) else { return };
    merge_json(&mut target, patch.clone());
    let once = target.clone();
    merge_json(&mut target, patch.clone());
    assert_eq!(target, once);
    if !patch.is_object() {
        assert_eq!(target, patch);
    }
    let written = serde_json::to_vec(&once).unwrap();
    assert!(serde_json::from_slice::<Value>(&written).is_ok());
}

arcadia_fuzz::target!(api_version, |data: &[u8]| versions_begin_with_a_date(data));

fn versions_begin_with_a_date(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let query = Query::parse(&text);
    if let Ok(version) = crate::version::required(&query) {
        assert!(version.is_ascii() && version.len() <= 42);
        assert!(version[..10].bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'));
    }
    if let Ok(limit) = crate::page::Window::limit(&query) {
        assert!((1..=1000).contains(&limit));
    }
}
