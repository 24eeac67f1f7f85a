//! Bodies of PUT and PATCH, and the limits on what every resource has.

use std::collections::BTreeMap;

use arcadia_kernel::{Fault, Request};
use serde_json::{Map, Value};

use crate::error::{invalid_content, shown};
use crate::kind::Desired;
use crate::locations;

const TAGS_MAX: usize = 50;
const TAG_NAME_CHARS_MAX: usize = 512;
const TAG_VALUE_CHARS_MAX: usize = 256;
const LOCATION_CHARS_MAX: usize = 64;
const KIND_CHARS_MAX: usize = 64;

/// A body that was read: what resources and resource groups have in common.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    pub(crate) location: Option<String>,
    pub(crate) tags: Option<BTreeMap<String, String>>,
    rest: Map<String, Value>,
}

impl Body {
    pub(crate) fn read(request: &Request) -> Result<Self, Fault> {
        let value: Value = serde_json::from_slice(&request.body).map_err(|error| {
            invalid_content(format!(
                "The request content was invalid and could not be deserialized: '{error}'."
            ))
        })?;
        let Value::Object(mut rest) = value else {
            return Err(invalid_content("The request content is not a JSON object."));
        };
        let location = text(rest.remove("location"), "location", LOCATION_CHARS_MAX)?;
        let location = location.map(|location| locations::folded(&location)).filter(|l| !l.is_empty());
        let tags = match rest.remove("tags") {
            None | Some(Value::Null) => None,
            Some(Value::Object(tags)) => Some(tags_of(tags)?),
            Some(_) => return Err(invalid_content("The property 'tags' is not an object of strings.")),
        };
        Ok(Self { location, tags, rest })
    }

    pub(crate) fn managed_by(&self) -> Result<Option<String>, Fault> {
        text(self.rest.get("managedBy").cloned(), "managedBy", 2048)
    }

    pub(crate) fn into_desired(mut self) -> Result<Desired, Fault> {
        // What the engine itself writes is not the client's to set; clients send it back as they got it.
        for name in ["id", "name", "type", "systemData", "etag"] {
            self.rest.remove(name);
        }
        let properties = match self.rest.remove("properties") {
            None | Some(Value::Null) => Value::Object(Map::new()),
            Some(Value::Object(properties)) => Value::Object(properties),
            Some(_) => return Err(invalid_content("The property 'properties' is not an object.")),
        };
        let kind = text(self.rest.remove("kind"), "kind", KIND_CHARS_MAX)?;
        let mut object = |name: &str| match self.rest.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Value::Object(object))),
            Some(_) => Err(invalid_content(format!("The property '{name}' is not an object."))),
        };
        let (identity, sku) = (object("identity")?, object("sku")?);
        Ok(Desired {
            location: self.location,
            tags: self.tags,
            identity,
            sku,
            kind,
            properties,
            extra: self.rest,
        })
    }
}

fn text(value: Option<Value>, name: &str, chars_max: usize) -> Result<Option<String>, Fault> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.chars().count() <= chars_max => Ok(Some(text)),
        Some(_) => Err(invalid_content(format!(
            "The property '{name}' is not a string of at most {chars_max} characters."
        ))),
    }
}

fn tags_of(tags: Map<String, Value>) -> Result<BTreeMap<String, String>, Fault> {
    if tags.len() > TAGS_MAX {
        let message = format!("The number of tags on the resource exceeds the maximum of {TAGS_MAX}.");
        return Err(Fault::bad_request("TooManyTags", message));
    }
    tags.into_iter()
        .map(|(name, value)| {
            let value = match value {
                Value::String(value) => value,
                Value::Null => String::new(),
                _ => return Err(invalid_content("The values of 'tags' must be strings.")),
            };
            check_tag(&name, &value)?;
            Ok((name, value))
        })
        .collect()
}

fn check_tag(name: &str, value: &str) -> Result<(), Fault> {
    if name.is_empty() || name.chars().count() > TAG_NAME_CHARS_MAX {
        let message = format!("A tag's name must have 1 to {TAG_NAME_CHARS_MAX} characters.");
        return Err(Fault::bad_request("InvalidTagName", message));
    }
    if name.chars().any(|c| "<>*%&:\\?/+".contains(c) || c.is_control()) {
        let message = format!(
            "The tag name '{}' has reserved characters '<,>,*,%,&,:,\\,?,/,+' or control characters.",
            shown(name)
        );
        return Err(Fault::bad_request("InvalidTagNameCharacters", message));
    }
    if value.chars().count() > TAG_VALUE_CHARS_MAX {
        let message = format!(
            "The value of the tag '{}' is longer than {TAG_VALUE_CHARS_MAX} characters.",
            shown(name)
        );
        return Err(Fault::bad_request("InvalidTagValueLength", message));
    }
    Ok(())
}

pub(crate) fn location_required() -> Fault {
    Fault::bad_request("LocationRequired", "The location property is required for this definition.")
}
