//! The generic lists of resources, and the filters they take.

use std::collections::BTreeMap;

use arcadia_kernel::{
    ArmId, At, Fault, Method, Op, Permit, Plane, Query, Reply, Request, SignedIn, action, op, signed_in,
};
use serde_json::{Value, json};

use crate::Arm;
use crate::engine;
use crate::error;
use crate::filter::{self, Argument, Filter};
use crate::groups::{Group, group_id};
use crate::kind::{RESOURCES, Resource};
use crate::locations;
use crate::page::{self, Window};

action!(pub(crate) ReadGroupResources, Control, "Microsoft.Resources/subscriptions/resourceGroups/resources/read");

pub(crate) fn rows() -> Vec<Op<Arm>> {
    vec![
        signed_in(
            "ResourceList",
            Method::GET,
            "/subscriptions/{subscriptionId}/resources",
            "lists the resources that the caller may read, wherever its role was assigned",
            list,
        ),
        op(
            "ResourceListByGroup",
            Method::GET,
            "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}/resources",
            list_by_group,
        ),
    ]
}

async fn list(at: At<Arm>, permit: Permit<SignedIn>, request: Request) -> Result<Reply, Fault> {
    let subscription = ArmId::from_segments(["subscriptions", request.param("subscriptionId")])
        .map_err(|_| error::subscription_not_found(request.param("subscriptionId")))?;
    reply(&at, &request, &subscription, |id| {
        let action = format!("{}/read", id.resource_type().unwrap_or_default());
        permit.may(&action, Plane::Control, id)
    })
    .await
}

async fn list_by_group(at: At<Arm>, _: Permit<ReadGroupResources>, request: Request) -> Result<Reply, Fault> {
    let group = group_id(request.param("subscriptionId"), request.param("resourceGroupName"))?;
    at.group(&group).await?;
    reply(&at, &request, &group, |_| true).await
}

async fn reply(
    arm: &Arm,
    request: &Request,
    container: &ArmId,
    visible: impl Fn(&ArmId) -> bool,
) -> Result<Reply, Fault> {
    let filter = ListFilter::of(&request.query)?;
    let window = Window::of(arm, request)?;
    let expand = request.query.first("$expand").unwrap_or_default().to_lowercase();
    let page = page::collect(&arm.store, RESOURCES, container, window, |row| {
        let resource = row.value;
        // Those that are no more than a part of another, as databases and firewall rules, are in that one's own lists.
        let is_tracked = arm.kind_of(&resource.id).is_none_or(|kind| kind.located());
        let shown = is_tracked && filter.fits(&resource)? && visible(&resource.id);
        Ok(shown.then(|| view(arm, &resource, &expand)))
    })
    .await?;
    page::reply(arm, request, page)
}

fn view(arm: &Arm, resource: &Resource, expand: &str) -> Value {
    let kind = arm.kind_of(&resource.id);
    let stored_type = resource.id.resource_type().unwrap_or_default();
    let type_name = kind.as_ref().map_or(stored_type.as_str(), |kind| kind.type_name());
    let located = kind.as_ref().is_none_or(|kind| kind.located());
    let mut view = engine::base_view(resource, located, type_name);
    let wanted = |name: &str| expand.split(',').any(|part| part.trim() == name);
    if wanted("createdtime") {
        view.insert("createdTime".into(), json!(resource.created_at));
    }
    if wanted("changedtime") {
        view.insert("changedTime".into(), json!(resource.modified_at));
    }
    if wanted("provisioningstate") {
        let newest = kind.as_ref().and_then(|kind| kind.api_versions().first().copied());
        let properties = kind.as_ref().map(|kind| kind.properties(resource, newest.unwrap_or_default()));
        let state = properties.as_ref().and_then(|p| p.get("provisioningState")).cloned();
        view.insert("provisioningState".into(), state.unwrap_or_else(|| "Succeeded".into()));
    }
    Value::Object(view)
}

/// `$filter` of lists of resources and groups.
pub(crate) struct ListFilter(Filter);

impl ListFilter {
    pub(crate) fn of(query: &Query) -> Result<Self, Fault> {
        let filter = Filter::parse(query.first("$filter").unwrap_or_default())?;
        filter.check(&|leaf| Facts::nothing().answer(leaf).map(|_| ()))?;
        Ok(Self(filter))
    }

    pub(crate) fn fits(&self, resource: &Resource) -> Result<bool, Fault> {
        let kind = resource.id.resource_type().unwrap_or_default();
        self.holds(&Facts {
            name: resource.id.name(),
            resource_type: &kind,
            group: resource.id.resource_group().unwrap_or_default(),
            location: &resource.location,
            tags: Some(&resource.tags),
        })
    }

    pub(crate) fn fits_group(&self, group: &Group) -> Result<bool, Fault> {
        self.holds(&Facts {
            name: group.id.name(),
            resource_type: "Microsoft.Resources/resourceGroups",
            group: group.id.name(),
            location: &group.location,
            tags: Some(&group.tags),
        })
    }

    fn holds(&self, facts: &Facts<'_>) -> Result<bool, Fault> {
        // A name and a value that are asked for together are of one tag.
        let terms = self.0.terms();
        let asked = |wanted: &str| {
            terms.iter().find_map(|term| match term {
                Filter::Equals(field, value) if field == wanted => Some(value),
                _ => None,
            })
        };
        if let (Some(name), Some(value)) = (asked("tagname"), asked("tagvalue"))
            && facts.tag(name) != Some(value)
        {
            return Ok(false);
        }
        self.0.holds(&|leaf| facts.answer(leaf))
    }
}

struct Facts<'a> {
    name: &'a str,
    resource_type: &'a str,
    group: &'a str,
    location: &'a str,
    tags: Option<&'a BTreeMap<String, String>>,
}

impl Facts<'_> {
    fn nothing() -> Self {
        Facts { name: "", resource_type: "", group: "", location: "", tags: None }
    }

    fn tag(&self, name: &str) -> Option<&String> {
        self.tags?.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn field(&self, field: &str) -> Result<&str, Fault> {
        match field {
            "name" => Ok(self.name),
            "resourcetype" => Ok(self.resource_type),
            "resourcegroup" => Ok(self.group),
            "location" => Ok(self.location),
            _ => Err(filter::refused(
                "only name, resourceType, resourceGroup, location, tagName and tagValue can be asked for",
            )),
        }
    }

    fn equals(&self, field: &str, value: &str) -> Result<bool, Fault> {
        Ok(match field {
            "tagname" => self.tag(value).is_some(),
            "tagvalue" => self.tags.is_some_and(|tags| tags.values().any(|found| found == value)),
            "location" => locations::folded(value) == self.location,
            _ => self.field(field)?.to_lowercase() == value.to_lowercase(),
        })
    }

    fn answer(&self, leaf: &Filter) -> Result<bool, Fault> {
        match leaf {
            Filter::Equals(field, value) => self.equals(field, value),
            Filter::NotEquals(field, value) => Ok(!self.equals(field, value)?),
            Filter::Call(name, arguments) => self.call(name, arguments),
            _ => Ok(false),
        }
    }

    fn call(&self, name: &str, arguments: &[Argument]) -> Result<bool, Fault> {
        match (name, arguments) {
            ("substringof", [Argument::Text(part), Argument::Field(field)])
            | ("contains", [Argument::Field(field), Argument::Text(part)]) => {
                Ok(self.field(field)?.to_lowercase().contains(&part.to_lowercase()))
            }
            ("startswith", [Argument::Field(field), Argument::Text(start)]) => {
                if field == "tagname" {
                    let start = start.to_lowercase();
                    return Ok(self.tags.is_some_and(|tags| {
                        tags.keys().any(|name| name.to_lowercase().starts_with(&start))
                    }));
                }
                Ok(self.field(field)?.to_lowercase().starts_with(&start.to_lowercase()))
            }
            _ => {
                Err(filter::refused("only the functions substringof, contains and startswith are supported"))
            }
        }
    }
}
