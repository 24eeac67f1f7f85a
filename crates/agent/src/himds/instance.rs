//! `/metadata/instance`: the machine in the cloud's words, from what is kept on the machine.

use std::collections::BTreeMap;

use arcadia_kernel::Query;
use serde::Serialize;
use serde_json::{Value, json};

use super::reply::{self, Answer, Refused};
use crate::daemon::Core;
use crate::{AgentConfig, Facts};

const VERSIONS: [&str; 24] = [
    "2017-03-01",
    "2017-04-02",
    "2017-08-01",
    "2017-10-01",
    "2017-12-01",
    "2018-02-01",
    "2018-04-02",
    "2018-10-01",
    "2019-02-01",
    "2019-03-11",
    "2019-04-30",
    "2019-06-01",
    "2019-06-04",
    "2019-08-01",
    "2019-08-15",
    "2019-11-01",
    "2020-06-01",
    "2020-07-15",
    "2020-09-01",
    "2020-10-01",
    "2020-12-01",
    "2021-01-01",
    "2021-02-01",
    "2021-03-01",
];

/// The order of fields is that of the service this stands for; what it does not know is empty text.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    compute: Compute,
    network: Empty,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Compute {
    az_environment: String,
    is_host_compatibility_layer_vm: &'static str,
    location: String,
    name: String,
    offer: &'static str,
    os_type: String,
    placement_group_id: &'static str,
    plan: Plan,
    platform_fault_domain: &'static str,
    platform_update_domain: &'static str,
    provider: &'static str,
    public_keys: Option<()>,
    publisher: &'static str,
    resource_group_name: String,
    custom_data: &'static str,
    resource_id: String,
    security_profile: SecurityProfile,
    sku: String,
    storage_profile: Empty,
    subscription_id: String,
    tags: String,
    tags_list: Vec<Tag>,
    version: String,
    vm_id: String,
    vm_scale_set_name: &'static str,
    vm_size: &'static str,
    zone: &'static str,
}

#[derive(Serialize)]
struct Plan {
    name: &'static str,
    product: &'static str,
    publisher: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SecurityProfile {
    secure_boot_enabled: &'static str,
    virtual_tpm_enabled: &'static str,
}

#[derive(Serialize)]
struct Tag {
    name: String,
    value: String,
}

/// `GET /metadata/instance` and below: `below` are the path's further segments.
pub(super) fn answer(core: &Core, below: &[&str], fields: &Query) -> Result<Answer, Refused> {
    let current = core.links.current().map_err(|fault| Refused::unavailable(&fault))?;
    let config = current.config.ok_or_else(|| {
        Refused::bad_request("Bad request. This machine is not connected; run 'azcmagent connect' first")
    })?;
    let (location, tags) = core.health.refreshed(&config);
    let instance = instance(&config, &core.facts, location, tags);
    let is_text = match fields.first("format").unwrap_or("json") {
        format if format.eq_ignore_ascii_case("json") => false,
        format if format.eq_ignore_ascii_case("text") => true,
        _ => return Err(Refused::bad_request("Bad request. format must be json or text")),
    };
    match below {
        [] if !is_text => reply::json(&instance),
        [only] if !is_text && only.eq_ignore_ascii_case("compute") => reply::json(&instance.compute),
        _ => {
            let whole = serde_json::to_value(&instance).map_err(|fault| Refused::unavailable(&fault))?;
            part(find(&whole, below)?, is_text)
        }
    }
}

/// `GET /metadata/versions`.
pub(super) fn versions() -> Result<Answer, Refused> {
    reply::json(&json!({ "apiVersions": VERSIONS }))
}

fn instance(
    config: &AgentConfig,
    facts: &Facts,
    location: String,
    tags: BTreeMap<String, String>,
) -> Instance {
    let joined: Vec<String> = tags.iter().map(|(name, value)| format!("{name}:{value}")).collect();
    let compute = Compute {
        az_environment: environment(&config.cloud).to_owned(),
        is_host_compatibility_layer_vm: "",
        location,
        name: config.resource_name.clone(),
        offer: "",
        os_type: facts.os_name.clone(),
        placement_group_id: "",
        plan: Plan { name: "", product: "", publisher: "" },
        platform_fault_domain: "",
        platform_update_domain: "",
        provider: "",
        public_keys: None,
        publisher: "",
        resource_group_name: config.resource_group.clone(),
        custom_data: "",
        resource_id: config.resource_id.clone(),
        security_profile: SecurityProfile { secure_boot_enabled: "", virtual_tpm_enabled: "" },
        sku: facts.os_sku.clone(),
        storage_profile: Empty {},
        subscription_id: config.subscription_id.to_string(),
        tags: joined.join(";"),
        tags_list: tags.into_iter().map(|(name, value)| Tag { name, value }).collect(),
        version: facts.os_version.clone(),
        vm_id: config.vm_id.to_string(),
        vm_scale_set_name: "",
        vm_size: "",
        zone: "",
    };
    Instance { compute, network: Empty {} }
}

/// The metadata service's name for a cloud.
fn environment(cloud: &str) -> &str {
    match cloud {
        "AzureCloud" => "AzurePublicCloud",
        "AzureUSGovernment" => "AzureUSGovernmentCloud",
        other => other,
    }
}

/// Follows names (without regard to case) and places in lists.
fn find<'a>(whole: &'a Value, below: &[&str]) -> Result<&'a Value, Refused> {
    below.iter().try_fold(whole, |value, segment| {
        let found = match value {
            Value::Object(fields) => {
                fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(segment)).map(|(_, value)| value)
            }
            Value::Array(items) => segment.parse::<usize>().ok().and_then(|index| items.get(index)),
            _ => None,
        };
        found.ok_or_else(Refused::not_found)
    })
}

/// A leaf is text, and text only; as text, anything else is the list of what is below it.
fn part(value: &Value, is_text: bool) -> Result<Answer, Refused> {
    let is_branch = |value: &Value| value.is_object() || value.is_array();
    let line = |name: String, value: &Value| if is_branch(value) { format!("{name}/") } else { name };
    match (value, is_text) {
        (value, false) if is_branch(value) => reply::json(value),
        (_, false) => Err(Refused::bad_request("Bad request. Add format=text to read a single value")),
        (Value::Object(fields), true) => {
            let lines: Vec<String> = fields.iter().map(|(name, value)| line(name.clone(), value)).collect();
            Ok(reply::text(lines.join("\n")))
        }
        (Value::Array(items), true) => {
            let lines: Vec<String> =
                items.iter().enumerate().map(|(index, value)| line(index.to_string(), value)).collect();
            Ok(reply::text(lines.join("\n")))
        }
        (Value::String(text), true) => Ok(reply::text(text.clone())),
        (Value::Null, true) => Ok(reply::text(String::new())),
        (other, true) => Ok(reply::text(other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Instance {
        let config = crate::config::tests::example();
        let facts = Facts {
            os_name: "linux".to_owned(),
            os_version: "5.15.0".to_owned(),
            os_sku: "Ubuntu 18.04.6 LTS".to_owned(),
            machine_fqdn: "ubuntu-01".to_owned(),
            detected: BTreeMap::new(),
        };
        let (location, tags) = (config.location.clone(), config.tags.clone());
        instance(&config, &facts, location, tags)
    }

    #[test]
    fn fields_and_their_order() {
        let text = serde_json::to_string(&example()).unwrap();
        let expected = concat!(
            r#"{"compute":{"azEnvironment":"AzurePublicCloud","isHostCompatibilityLayerVm":"","location":"uksouth","#,
            r#""name":"ubuntu-01","offer":"","osType":"linux","placementGroupId":"","plan":{"name":"","product":"","#,
            r#""publisher":""},"platformFaultDomain":"","platformUpdateDomain":"","provider":"","publicKeys":null,"#,
            r#""publisher":"","resourceGroupName":"arc-hack","customData":"","#,
            r#""resourceId":"/subscriptions/00000000-0000-0000-0000-000000000011/resourceGroups/arc-hack/providers/"#,
            r#"Microsoft.HybridCompute/machines/ubuntu-01","securityProfile":{"secureBootEnabled":"","#,
            r#""virtualTpmEnabled":""},"sku":"Ubuntu 18.04.6 LTS","storageProfile":{},"#,
            r#""subscriptionId":"00000000-0000-0000-0000-000000000011","#,
            r#""tags":"datacentre:The_Citadel;platform:VMware_vSphere","#,
            r#""tagsList":[{"name":"datacentre","value":"The_Citadel"},{"name":"platform","value":"VMware_vSphere"}],"#,
            r#""version":"5.15.0","vmId":"00000000-0000-0000-0000-000000000033","vmScaleSetName":"","vmSize":"","#,
            r#""zone":""},"network":{}}"#,
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn paths_lead_to_parts() {
        let whole = serde_json::to_value(example()).unwrap();
        assert_eq!(find(&whole, &["compute", "tagslist", "1", "name"]).unwrap(), "platform");
        assert_eq!(find(&whole, &["Compute", "Name"]).unwrap(), "ubuntu-01");
        for path in [
            &["nothing"][..],
            &["compute", "name", "x"],
            &["compute", "tagsList", "2"],
            &["compute", "tagsList", "-1"],
        ] {
            assert!(find(&whole, path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn leaves_are_text_only() {
        assert!(part(&json!("x"), false).is_err());
        assert!(part(&json!("x"), true).is_ok());
        assert!(part(&json!({"a": 1}), false).is_ok());
    }
}
