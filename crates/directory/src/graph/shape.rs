//! What the properties that are kept as they are sent may be. What is read of them later has the right type from the
//! beginning; what nothing reads is kept as it is.

use arcadia_kernel::Fault;
use serde_json::Value;
use uuid::Uuid;

use crate::graph::body::{ITEMS_MAX, is_text};
use crate::graph::faults::{bad_request, invalid_property};

const REDIRECT_URIS_MAX: usize = 256;
const REDIRECT_URI_CHARACTERS_MAX: usize = 2048;

/// The type of a value. Null is nothing, of whatever type.
pub(crate) enum Shape {
    Text,
    Flag,
    Id,
    /// The version of access tokens.
    Version,
    Texts,
    Redirects,
    /// An object with these members among others.
    Section(Members),
    /// A list of objects with these members among others.
    List(Members),
    /// What would have to change tokens and does not: it may be sent when it asks for nothing.
    Unapplied,
}

/// Names of properties and what each may be.
pub(crate) type Members = &'static [(&'static str, Shape)];

impl Shape {
    /// 400 unless `value`, which stands at `path`, is of this type.
    pub(crate) fn check(&self, path: &str, value: &Value) -> Result<(), Fault> {
        let right = match self {
            _ if value.is_null() => true,
            Self::Text => value.as_str().is_some_and(is_text),
            Self::Flag => value.is_boolean(),
            Self::Id => is_id(value),
            Self::Version => matches!(value.as_u64(), Some(1 | 2)),
            Self::Texts => all(value, ITEMS_MAX, |item| item.as_str().is_some_and(is_text)),
            Self::Redirects => all(value, REDIRECT_URIS_MAX, is_redirect_uri),
            Self::Section(members) => return check_members(members, path, value),
            Self::List(members) => {
                let items = value.as_array().filter(|items| items.len() <= ITEMS_MAX);
                let items = items.ok_or_else(|| invalid_property(path))?;
                return items.iter().try_for_each(|item| check_members(members, path, item));
            }
            Self::Unapplied if asks_for_nothing(value) => true,
            Self::Unapplied => {
                return Err(bad_request(format!(
                    "The property '{path}' is not supported: tokens would not follow it. Leave it out or empty."
                )));
            }
        };
        if right { Ok(()) } else { Err(invalid_property(path)) }
    }
}

fn check_members(members: Members, path: &str, value: &Value) -> Result<(), Fault> {
    let object = value.as_object().ok_or_else(|| invalid_property(path))?;
    for (name, shape) in members {
        if let Some(value) = object.get(*name) {
            shape.check(&format!("{path}.{name}"), value)?;
        }
    }
    Ok(())
}

fn all(value: &Value, items_max: usize, is_right: impl Fn(&Value) -> bool) -> bool {
    value.as_array().is_some_and(|items| items.len() <= items_max && items.iter().all(is_right))
}

fn is_id(value: &Value) -> bool {
    value.as_str().is_some_and(|text| Uuid::try_parse(text).is_ok())
}

fn is_redirect_uri(value: &Value) -> bool {
    value.as_str().is_some_and(|uri| {
        uri.len() <= REDIRECT_URI_CHARACTERS_MAX
            && !uri.contains(|c: char| c.is_whitespace() || c.is_control() || c == '*')
            && uri.parse::<http::Uri>().is_ok_and(|parsed| parsed.scheme().is_some())
            && !uri.to_ascii_lowercase().starts_with("javascript:")
            && !uri.to_ascii_lowercase().starts_with("data:")
    })
}

fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty() || text == "None",
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.values().all(asks_for_nothing),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
