//! Lists: filter, page, select.

use arcadia_kernel::{Continuation, Fault, Method, Query, Reply, RequestHead};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::graph::Graph;
use crate::graph::faults::{bad_request, unsupported_query};
use crate::graph::odata::{Fields, Filter, Queried};
use crate::graph::render::Shown;

/// Objects of one page, unless another number is asked for.
const PAGE_DEFAULT: usize = 100;
const TOP_MAX: usize = 999;
const UNSUPPORTED: [&str; 5] = ["$search", "$expand", "$apply", "$orderby", "$skip"];
const SELECTED_MAX: usize = 100;

/// The query options of a list or object.
pub(crate) struct Options {
    filter: Option<Filter>,
    select: Option<Vec<String>>,
    page: usize,
    after: Option<Uuid>,
    count: bool,
}

impl Options {
    pub(crate) fn read(head: &RequestHead, fields: Fields) -> Result<Self, Fault> {
        let query = &head.query;
        check_supported(query)?;
        let filter = query.first("$filter").map(|text| {
            Filter::parse(text, fields).map_err(|fault| {
                unsupported_query(format!("Unsupported or invalid query filter clause: {fault}."))
            })
        });
        let top = query.first("$top").map(|top| {
            let top = top.parse::<usize>().ok().filter(|top| (1..=TOP_MAX).contains(top));
            top.ok_or_else(|| bad_request(format!("The value of '$top' must be between 1 and {TOP_MAX}.")))
        });
        let after = query.first("$skiptoken").map(|token| {
            let id = Continuation::parse(token, head).ok().and_then(|key| Uuid::from_slice(&key.0).ok());
            id.ok_or_else(|| bad_request("The '$skiptoken' is not one that this service issued."))
        });
        Ok(Self {
            filter: filter.transpose()?,
            select: selected(query)?,
            page: top.transpose()?.unwrap_or(PAGE_DEFAULT),
            after: after.transpose()?,
            count: query.first("$count").is_some_and(|count| count.eq_ignore_ascii_case("true")),
        })
    }
}

/// An option that is not looked at would be taken for one that found nothing.
fn check_supported(query: &Query) -> Result<(), Fault> {
    match UNSUPPORTED.iter().find(|name| query.first(name).is_some()) {
        Some(name) => Err(unsupported_query(format!("The query option '{name}' is not supported."))),
        None => Ok(()),
    }
}

fn selected(query: &Query) -> Result<Option<Vec<String>>, Fault> {
    let Some(text) = query.first("$select") else { return Ok(None) };
    let names: Vec<String> =
        text.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
    let named = names.len() <= SELECTED_MAX
        && names.iter().all(|name| name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric()));
    if named {
        Ok(Some(names).filter(|names| !names.is_empty()))
    } else {
        Err(bad_request("Invalid $select."))
    }
}

fn select(mut shown: Map<String, Value>, names: Option<&[String]>) -> Map<String, Value> {
    if let Some(names) = names {
        shown.retain(|property, _| {
            property.starts_with('@') || names.iter().any(|name| name.eq_ignore_ascii_case(property))
        });
    }
    shown
}

impl Graph {
    pub(crate) fn context(&self, head: &RequestHead, path: &str) -> String {
        format!("https://{}/{}/$metadata#{path}", self.directory.names().graph_host, head.param("api"))
    }

    /// One page of `objects`, which are in the order of their ids.
    pub(crate) fn list<T: Queried + Shown>(
        &self,
        head: &RequestHead,
        objects: impl Iterator<Item = T>,
    ) -> Result<Reply, Fault> {
        let options = Options::read(head, T::FIELDS)?;
        let mut page = Vec::new();
        let mut last = None;
        let mut more = false;
        let mut count = 0_usize;
        for object in objects {
            if !options.filter.as_ref().is_none_or(|filter| filter.matches(&object)) {
                continue;
            }
            count += 1;
            if options.after.is_some_and(|after| object.id() <= after) {
                continue;
            }
            if page.len() == options.page {
                more = true;
                if options.count {
                    continue;
                }
                break;
            }
            last = Some(object.id());
            page.push(Value::Object(select(object.show(), options.select.as_deref())));
        }
        let mut body = Map::new();
        body.insert("@odata.context".into(), self.context(head, T::SET).into());
        if options.count {
            body.insert("@odata.count".into(), count.into());
        }
        if let Some(last) = last.filter(|_| more) {
            body.insert("@odata.nextLink".into(), next_link(head, last).into());
        }
        body.insert("value".into(), page.into());
        Reply::ok(&body)
    }

    /// A mixed list whose whole length is bounded by other means.
    pub(crate) fn mixed(&self, head: &RequestHead, items: Vec<(Uuid, Value)>) -> Result<Reply, Fault> {
        let options = Options::read(head, &[])?;
        let count = items.len();
        let mut rest: Vec<(Uuid, Value)> =
            items.into_iter().filter(|(id, _)| options.after.is_none_or(|after| *id > after)).collect();
        rest.sort_by_key(|(id, _)| *id);
        let more = rest.len() > options.page;
        rest.truncate(options.page);
        let mut body = Map::new();
        body.insert("@odata.context".into(), self.context(head, "directoryObjects").into());
        if options.count {
            body.insert("@odata.count".into(), count.into());
        }
        if let Some((last, _)) = rest.last().filter(|_| more) {
            body.insert("@odata.nextLink".into(), next_link(head, *last).into());
        }
        let shown = rest.into_iter().map(|(_, item)| match item {
            Value::Object(fields) => Value::Object(select(fields, options.select.as_deref())),
            other => other,
        });
        body.insert("value".into(), shown.collect());
        Reply::ok(&body)
    }

    pub(crate) fn one(
        &self,
        head: &RequestHead,
        set: &str,
        shown: Map<String, Value>,
    ) -> Result<Reply, Fault> {
        // What an action that is posted shows has been done by now.
        if head.method != Method::POST {
            check_supported(&head.query)?;
        }
        Reply::ok(&self.entity(head, set, select(shown, selected(&head.query)?.as_deref())))
    }

    /// 201 with the object and where it is.
    pub(crate) fn created<T: Shown>(&self, head: &RequestHead, object: &T) -> Result<Reply, Fault> {
        let body = self.entity(head, T::SET, object.show());
        let location =
            format!("https://{}/v1.0/{}/{}", self.directory.names().graph_host, T::SET, object.id());
        Reply::json(arcadia_kernel::StatusCode::CREATED, &body)?
            .with_text(arcadia_kernel::header::LOCATION, &location)
    }

    pub(crate) fn entity(&self, head: &RequestHead, set: &str, shown: Map<String, Value>) -> Value {
        let mut body = Map::new();
        body.insert("@odata.context".into(), self.context(head, &format!("{set}/$entity")).into());
        body.extend(shown);
        Value::Object(body)
    }

    /// What an action that is posted found, complete: no list that queries select from.
    pub(crate) fn values(&self, head: &RequestHead, of: &str, values: Vec<Value>) -> Result<Reply, Fault> {
        Reply::ok(&json!({ "@odata.context": self.context(head, of), "value": values }))
    }
}

/// The same request after `last`.
fn next_link(head: &RequestHead, last: Uuid) -> String {
    Continuation(last.as_bytes().to_vec()).link(head, "$skiptoken")
}
