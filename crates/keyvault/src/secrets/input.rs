//! What requests about secrets say, checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use arcadia_kernel::{Fault, Input, Request, RequestHead};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::faults::{self, bad_parameter};
use crate::records::Facts;

/// A value, its tags and its content type, each with every character escaped as JSON may.
pub(super) const BODY_BYTES_MAX: usize = 256 * 1024;
const VALUE_BYTES_MAX: usize = 25 * 1024;
const CONTENT_TYPE_CHARS_MAX: usize = 255;
const TAGS_MAX: usize = 15;
const TAG_NAME_CHARS_MAX: usize = 256;
const TAG_VALUE_CHARS_MAX: usize = 512;
/// The last second of the year 9999.
const EPOCH_SECONDS_MAX: i64 = 253_402_300_799;
const VERSION_CHARS: usize = 32;

/// A JSON body. What is wrong is told by its place alone: the body holds a secret.
pub(super) struct Body<T> {
    pub head: Arc<RequestHead>,
    pub value: T,
}

impl<T: DeserializeOwned + Send + 'static> Input for Body<T> {
    fn read(request: Request) -> Result<Self, Fault> {
        let value = serde_json::from_slice(&request.body).map_err(|error| {
            bad_parameter(format!(
                "The request body could not be read as what this operation takes, at line {} column {}. Send \
                 a JSON object as the operation's reference describes it.",
                error.line(),
                error.column()
            ))
        })?;
        Ok(Self { head: request.head, value })
    }
}

/// The body of PUT.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SetBody {
    value: Option<String>,
    #[serde(flatten)]
    change: ChangeBody,
}

/// The body of PATCH: what is absent stays.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChangeBody {
    content_type: Option<String>,
    attributes: Option<AttributesBody>,
    tags: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct AttributesBody {
    enabled: Option<bool>,
    nbf: Option<i64>,
    exp: Option<i64>,
}

impl SetBody {
    /// The value and the facts of a new version.
    pub fn checked(self, now: i64) -> Result<(String, Facts), Fault> {
        let value = self.value.ok_or_else(|| bad_parameter("The request body must have a 'value'."))?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(bad_parameter(format!(
                "The secret's value has {} bytes; at most {VALUE_BYTES_MAX} are kept.",
                value.len()
            )));
        }
        let mut facts = Facts {
            content_type: None,
            tags: None,
            enabled: true,
            not_before: None,
            expires: None,
            created: now,
            updated: now,
        };
        self.change.apply(&mut facts, now)?;
        Ok((value, facts))
    }
}

impl ChangeBody {
    pub fn apply(&self, facts: &mut Facts, now: i64) -> Result<(), Fault> {
        if let Some(content_type) = &self.content_type {
            facts.content_type = Some(checked_content_type(content_type)?);
        }
        if let Some(tags) = &self.tags {
            facts.tags = Some(checked_tags(tags)?);
        }
        if let Some(attributes) = &self.attributes {
            facts.enabled = attributes.enabled.unwrap_or(facts.enabled);
            if let Some(not_before) = attributes.nbf {
                facts.not_before = Some(checked_seconds("nbf", not_before)?);
            }
            if let Some(expires) = attributes.exp {
                facts.expires = Some(checked_seconds("exp", expires)?);
            }
        }
        facts.updated = now;
        Ok(())
    }
}

fn checked_content_type(content_type: &str) -> Result<String, Fault> {
    if content_type.chars().count() > CONTENT_TYPE_CHARS_MAX {
        return Err(bad_parameter(format!(
            "The contentType is longer than the {CONTENT_TYPE_CHARS_MAX} characters that are kept."
        )));
    }
    Ok(content_type.to_owned())
}

fn checked_tags(tags: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Fault> {
    if tags.len() > TAGS_MAX {
        return Err(bad_parameter(format!("A secret has at most {TAGS_MAX} tags.")));
    }
    let too_long = |(name, value): (&String, &String)| {
        name.chars().count() > TAG_NAME_CHARS_MAX || value.chars().count() > TAG_VALUE_CHARS_MAX
    };
    if tags.iter().any(too_long) {
        return Err(bad_parameter(format!(
            "A tag's name has at most {TAG_NAME_CHARS_MAX} characters, its value at most {TAG_VALUE_CHARS_MAX}."
        )));
    }
    Ok(tags.clone())
}

fn checked_seconds(name: &str, seconds: i64) -> Result<i64, Fault> {
    if (0..=EPOCH_SECONDS_MAX).contains(&seconds) {
        return Ok(seconds);
    }
    Err(bad_parameter(format!("The attribute '{name}' must be in seconds since 1970, up to the year 9999.")))
}

/// The version a path names, folded; `None` for the newest.
pub(super) fn version(head: &RequestHead) -> Result<Option<String>, Fault> {
    let version = head.param("version");
    if version.is_empty() {
        return Ok(None);
    }
    if version.len() != VERSION_CHARS || !version.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(faults::invalid_version(head.param("name")));
    }
    Ok(Some(version.to_ascii_lowercase()))
}
