//! Conditional headers: what must hold of the blob or container that a request is about.

use arcadia_kernel::{Fault, HeaderName, RequestHead, header};

use crate::faults;
use crate::headers::{one, parse_date};

const IF_TAGS: HeaderName = HeaderName::from_static("x-ms-if-tags");
const LEASE_ID: HeaderName = HeaderName::from_static("x-ms-lease-id");
const SOURCE_IF_TAGS: HeaderName = HeaderName::from_static("x-ms-source-if-tags");
const SOURCE_LEASE_ID: HeaderName = HeaderName::from_static("x-ms-source-lease-id");

/// The headers that a kind of conditions is in.
struct Names {
    if_match: HeaderName,
    if_none_match: HeaderName,
    modified_since: HeaderName,
    unmodified_since: HeaderName,
}

static OF_TARGET: Names = Names {
    if_match: header::IF_MATCH,
    if_none_match: header::IF_NONE_MATCH,
    modified_since: header::IF_MODIFIED_SINCE,
    unmodified_since: header::IF_UNMODIFIED_SINCE,
};
static OF_SOURCE: Names = Names {
    if_match: HeaderName::from_static("x-ms-source-if-match"),
    if_none_match: HeaderName::from_static("x-ms-source-if-none-match"),
    modified_since: HeaderName::from_static("x-ms-source-if-modified-since"),
    unmodified_since: HeaderName::from_static("x-ms-source-if-unmodified-since"),
};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Tags {
    Any,
    Of(Vec<String>),
}

impl Tags {
    fn fit(&self, state: State<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Of(tags) => tags.iter().any(|tag| tag == state.etag),
        }
    }
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
        Self::of_target(head, 1)
    }

    /// For an operation that reads a blob, which caches ask for on conditions of several clients: any of several tags.
    pub fn of_read(head: &RequestHead) -> Result<Self, Fault> {
        Self::of_target(head, usize::MAX)
    }

    fn of_target(head: &RequestHead, tags_max: usize) -> Result<Self, Fault> {
        if head.headers.contains_key(IF_TAGS) {
            return Err(faults::unsupported_header(IF_TAGS.as_str()));
        }
        if head.headers.contains_key(LEASE_ID) {
            // There are no leases, so no lease can be the one that is named.
            return Err(faults::lease_not_present(head.param("blob").is_empty()));
        }
        Self::named(head, &OF_TARGET, tags_max)
    }

    /// What must hold of the blob that is copied.
    pub fn of_source(head: &RequestHead) -> Result<Self, Fault> {
        if head.headers.contains_key(SOURCE_IF_TAGS) {
            return Err(faults::unsupported_header(SOURCE_IF_TAGS.as_str()));
        }
        if head.headers.contains_key(SOURCE_LEASE_ID) {
            return Err(faults::lease_not_present(false));
        }
        Self::named(head, &OF_SOURCE, 1)
    }

    fn named(head: &RequestHead, names: &Names, tags_max: usize) -> Result<Self, Fault> {
        let date = |name: &HeaderName| {
            let Some(text) = condition(head, name)? else { return Ok(None) };
            parse_date(text).map(Some).ok_or_else(|| faults::invalid_header(name.as_str(), text))
        };
        Ok(Self {
            if_match: tags(head, &names.if_match, tags_max)?,
            if_none_match: tags(head, &names.if_none_match, tags_max)?,
            modified_since: date(&names.modified_since)?,
            unmodified_since: date(&names.unmodified_since)?,
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

    /// For the source of a copy.
    pub fn check_source(&self, state: State<'_>) -> Result<(), Fault> {
        self.check_change(state).map_err(|_| faults::source_condition_not_met())
    }

    /// For an operation that knows no conditions on the blob's version.
    pub fn check_none(head: &RequestHead) -> Result<(), Fault> {
        Self::of(head)?;
        let Names { if_match, if_none_match, modified_since, unmodified_since } = &OF_TARGET;
        match [if_match, if_none_match, modified_since, unmodified_since]
            .into_iter()
            .find(|name| head.headers.contains_key(*name))
        {
            Some(name) => Err(faults::conditions_not_supported(name.as_str())),
            None => Ok(()),
        }
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
        let matches = self.if_match.as_ref().is_none_or(|tags| tags.fit(state));
        let unmodified = self.unmodified_since.is_none_or(|since| state.modified <= since);
        if matches && unmodified { Ok(()) } else { Err(faults::condition_not_met()) }
    }

    /// The client names what there is, or a time since which it did not change.
    fn is_known(&self, state: State<'_>) -> bool {
        match &self.if_none_match {
            Some(tags) => tags.fit(state),
            None => self.modified_since.is_some_and(|since| state.modified <= since),
        }
    }
}

/// Nothing for almost every request.
fn condition<'a>(head: &'a RequestHead, name: &HeaderName) -> Result<Option<&'a str>, Fault> {
    if head.headers.contains_key(name) { one(head, name.as_str()) } else { Ok(None) }
}

fn tags(head: &RequestHead, name: &HeaderName, tags_max: usize) -> Result<Option<Tags>, Fault> {
    let Some(text) = condition(head, name)? else { return Ok(None) };
    let text = text.trim();
    if text == "*" {
        return Ok(Some(Tags::Any));
    }
    let tags: Option<Vec<String>> = text.split(',').map(tag).collect();
    match tags.filter(|tags| tags.len() <= tags_max) {
        Some(tags) => Ok(Some(Tags::Of(tags))),
        None => Err(faults::invalid_header(name.as_str(), text)),
    }
}

fn tag(text: &str) -> Option<String> {
    let text = text.trim();
    let tag = text.strip_prefix("W/").unwrap_or(text);
    let tag = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag);
    (!tag.is_empty() && !tag.contains(['"', '*', ' '])).then(|| tag.to_owned())
}
