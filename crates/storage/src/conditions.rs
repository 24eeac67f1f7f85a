//! Conditional headers: what must hold of the blob or container that a request is about.

use arcadia_kernel::{Fault, HeaderName, RequestHead, header};

use crate::faults;
use crate::headers::{one, parse_date};

const IF_TAGS: HeaderName = HeaderName::from_static("x-ms-if-tags");
const LEASE_ID: HeaderName = HeaderName::from_static("x-ms-lease-id");

#[derive(Clone, Debug, PartialEq, Eq)]
enum Tags {
    Any,
    One(String),
}

/// The conditions of one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
    modified_since: Option<i64>,
    unmodified_since: Option<i64>,
}

/// What is compared.
#[derive(Clone, Copy)]
pub(crate) struct State<'a> {
    /// Without quotes.
    pub etag: &'a str,
    pub modified: i64,
}

impl Conditions {
    pub fn of(head: &RequestHead) -> Result<Self, Fault> {
        if head.headers.contains_key(IF_TAGS) {
            return Err(faults::unsupported_header(IF_TAGS.as_str()));
        }
        if head.headers.contains_key(LEASE_ID) {
            // There are no leases, so no lease can be the one that is named.
            return Err(faults::lease_not_present(head.param("blob").is_empty()));
        }
        let date = |name: &HeaderName| {
            let Some(text) = condition(head, name)? else { return Ok(None) };
            parse_date(text).map(Some).ok_or_else(|| faults::invalid_header(name.as_str(), text))
        };
        Ok(Self {
            if_match: tags(head, &header::IF_MATCH)?,
            if_none_match: tags(head, &header::IF_NONE_MATCH)?,
            modified_since: date(&header::IF_MODIFIED_SINCE)?,
            unmodified_since: date(&header::IF_UNMODIFIED_SINCE)?,
        })
    }

    /// For an operation that reads: 304 where the client has what there is. What is there cannot be read on the
    /// condition that nothing is.
    pub fn check_read(&self, state: State<'_>) -> Result<(), Fault> {
        if self.if_none_match == Some(Tags::Any) {
            return Err(faults::unsatisfiable_condition());
        }
        self.check_unchanged(state)?;
        if self.is_known(state) { Err(faults::not_modified()) } else { Ok(()) }
    }

    /// For an operation that changes what is there.
    pub fn check_change(&self, state: State<'_>) -> Result<(), Fault> {
        self.check_unchanged(state)?;
        if self.is_known(state) { Err(faults::condition_not_met()) } else { Ok(()) }
    }

    /// For an operation that makes a blob or replaces it.
    pub fn check_put(&self, state: Option<State<'_>>) -> Result<(), Fault> {
        match state {
            Some(_) if self.if_none_match == Some(Tags::Any) => Err(faults::blob_exists()),
            Some(state) => self.check_change(state),
            None if self.if_match.is_some() => Err(faults::condition_not_met()),
            None => Ok(()),
        }
    }

    fn check_unchanged(&self, state: State<'_>) -> Result<(), Fault> {
        let matches = match &self.if_match {
            None | Some(Tags::Any) => true,
            Some(Tags::One(tag)) => tag == state.etag,
        };
        let unmodified = self.unmodified_since.is_none_or(|since| state.modified <= since);
        if matches && unmodified { Ok(()) } else { Err(faults::condition_not_met()) }
    }

    /// The client names what there is, or a time since which it did not change.
    fn is_known(&self, state: State<'_>) -> bool {
        match &self.if_none_match {
            Some(Tags::Any) => true,
            Some(Tags::One(tag)) => tag == state.etag,
            None => self.modified_since.is_some_and(|since| state.modified <= since),
        }
    }
}

/// Nothing for almost every request.
fn condition<'a>(head: &'a RequestHead, name: &HeaderName) -> Result<Option<&'a str>, Fault> {
    if head.headers.contains_key(name) { one(head, name.as_str()) } else { Ok(None) }
}

fn tags(head: &RequestHead, name: &HeaderName) -> Result<Option<Tags>, Fault> {
    let Some(text) = condition(head, name)? else { return Ok(None) };
    let text = text.trim();
    if text == "*" {
        return Ok(Some(Tags::Any));
    }
    let tag = text.strip_prefix("W/").unwrap_or(text);
    let tag = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag);
    if tag.is_empty() || tag.contains(['"', ',', ' ']) {
        return Err(faults::invalid_header(name.as_str(), text));
    }
    Ok(Some(Tags::One(tag.to_owned())))
}
