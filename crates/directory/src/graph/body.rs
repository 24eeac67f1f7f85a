//! Reading request bodies: every property is known, typed and bounded, or the request is refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use arcadia_kernel::{Fault, Input, Request, RequestHead};
use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::graph::faults::{bad_request, invalid_property, unknown_property};
use crate::graph::shape::Members;

const TEXT_CHARACTERS_MAX: usize = 4096;
pub(crate) const ITEMS_MAX: usize = 1000;
const REFERENCE_CHARACTERS_MAX: usize = 512;
/// Graph takes no more of each kind with a new object.
const REFERENCES_MAX: usize = 20;

/// A JSON object, empty when there is no body.
pub(crate) struct Body {
    pub head: Arc<RequestHead>,
    pub fields: Map<String, Value>,
}

impl Input for Body {
    fn read(request: Request) -> Result<Self, Fault> {
        let unreadable = || {
            Fault::bad_request(
                "BadRequest",
                "Unable to read JSON request payload. Please ensure Content-Type header is set and payload is of \
                 valid JSON format.",
            )
        };
        let fields = if request.body.is_empty() {
            Map::new()
        } else {
            serde_json::from_slice(&request.body).map_err(|_| unreadable())?
        };
        Ok(Self { head: request.head, fields })
    }
}

/// Takes properties out of an object one by one; what is left over at the end is unknown.
pub(crate) struct Reader(Map<String, Value>);

impl Reader {
    pub(crate) fn new(fields: Map<String, Value>) -> Self {
        Self(fields.into_iter().filter(|(name, _)| !name.starts_with("@odata.")).collect())
    }

    /// What has not been taken yet.
    pub(crate) fn fields(&self) -> &Map<String, Value> {
        &self.0
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// Text; absent and null are both `None`.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, Fault> {
        match self.take(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if is_text(&text) => Ok(Some(text)),
            Some(_) => Err(invalid_property(name)),
        }
    }

    pub(crate) fn required_text(&mut self, name: &str) -> Result<String, Fault> {
        let text = self.text(name)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| bad_request(format!("A value is required for property '{name}' of resource.")))
    }

    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>, Fault> {
        match self.take(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(invalid_property(name)),
        }
    }

    pub(crate) fn uuid(&mut self, name: &str) -> Result<Option<Uuid>, Fault> {
        let text = self.text(name)?;
        text.map(|text| Uuid::try_parse(&text).map_err(|_| invalid_property(name))).transpose()
    }

    /// Seconds since 1970 of an RFC 3339 time.
    pub(crate) fn seconds(&mut self, name: &str) -> Result<Option<i64>, Fault> {
        let text = self.text(name)?;
        let parse = |text: String| text.parse::<Timestamp>().map(Timestamp::as_second);
        text.map(|text| parse(text).map_err(|_| invalid_property(name))).transpose()
    }

    pub(crate) fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, Fault> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let items = value.as_array().filter(|items| items.len() <= ITEMS_MAX);
        let texts: Option<Vec<String>> = items.and_then(|items| {
            items.iter().map(|item| item.as_str().filter(|text| is_text(text)).map(str::to_owned)).collect()
        });
        texts.map(Some).ok_or_else(|| invalid_property(name))
    }

    pub(crate) fn objects(&mut self, name: &str) -> Result<Option<Vec<Reader>>, Fault> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let Value::Array(items) = value else { return Err(invalid_property(name)) };
        if items.len() > ITEMS_MAX {
            return Err(invalid_property(name));
        }
        let read = |item| match item {
            Value::Object(fields) => Ok(Reader::new(fields)),
            _ => Err(invalid_property(name)),
        };
        items.into_iter().map(read).collect::<Result<Vec<_>, _>>().map(Some)
    }

    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Reader>, Fault> {
        match self.take(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Reader::new(fields))),
            Some(_) => Err(invalid_property(name)),
        }
    }

    /// The objects that a new one is to be linked with: `owners@odata.bind`, `members@odata.bind`.
    pub(crate) fn references(&mut self, name: &str) -> Result<BTreeSet<Uuid>, Fault> {
        let name = format!("{name}@odata.bind");
        let Some(value) = self.take(&name) else { return Ok(BTreeSet::new()) };
        let items = value.as_array().ok_or_else(|| invalid_property(&name))?;
        if items.len() > REFERENCES_MAX {
            let message =
                format!("'{name}' can have at most {REFERENCES_MAX} items. Add the others afterwards.");
            return Err(bad_request(message));
        }
        items.iter().map(|item| referred(item).ok_or_else(|| invalid_property(&name))).collect()
    }

    /// The properties of `known` that are there.
    pub(crate) fn document(&mut self, known: Members) -> Result<Map<String, Value>, Fault> {
        let mut document = Map::new();
        for (name, shape) in known {
            if let Some(value) = self.take(name) {
                shape.check(name, &value)?;
                document.insert((*name).to_owned(), value);
            }
        }
        Ok(document)
    }

    /// Refuses what nobody has read.
    pub(crate) fn finish(self) -> Result<(), Fault> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(unknown_property(name)),
        }
    }
}

pub(crate) fn is_text(text: &str) -> bool {
    text.chars().count() <= TEXT_CHARACTERS_MAX
        && !text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r'))
}

/// Changes what is kept to what was sent. Of a section, members that were not sent stay; lists and null replace.
pub(crate) fn merge(kept: &mut Map<String, Value>, sent: &Map<String, Value>) {
    for (name, value) in sent {
        match (kept.get_mut(name), value) {
            (Some(Value::Object(kept)), Value::Object(sent)) => merge(kept, sent),
            (Some(kept), value) => *kept = value.clone(),
            (None, value) => drop(kept.insert(name.clone(), value.clone())),
        }
    }
}

/// The object that `{"@odata.id": "https://graph.microsoft.com/v1.0/directoryObjects/ID"}` refers to.
pub(crate) fn reference(fields: &Map<String, Value>) -> Result<Uuid, Fault> {
    fields.get("@odata.id").and_then(referred).ok_or_else(|| invalid_property("@odata.id"))
}

fn referred(address: &Value) -> Option<Uuid> {
    let text = address.as_str().filter(|text| text.len() <= REFERENCE_CHARACTERS_MAX)?;
    Uuid::try_parse(text.trim_end_matches('/').rsplit('/').next()?).ok()
}
