//! What a request asks for.

use arcadia_kernel::Query;

use super::Area;
use super::reply::Refused;
use crate::{AgentConfig, HimdsLimits};

const RESOURCE_CHARACTERS_MAX: usize = 1024;
/// The first api-version that there ever was.
const OLDEST_VERSION: &str = "2017-03-01";
const NEWEST_VERSIONS: &[&str] = &["2021-02-01", "2021-01-01", "2020-12-01"];

/// The query's fields, within bounds and each named once. A resource may come percent-encoded or not.
pub(super) fn fields(raw: &str, limits: &HimdsLimits) -> Result<Query, Refused> {
    if raw.len() > limits.query_bytes_max {
        return Err(Refused::bad_request("The query is too long."));
    }
    if raw.split('&').count() > limits.query_fields_max {
        return Err(Refused::bad_request("The query has too many parameters."));
    }
    let fields = Query::parse(raw);
    for (index, (name, value)) in fields.iter().enumerate() {
        if [name, value].iter().any(|text| text.contains(|c: char| c.is_control() || c == '\u{fffd}')) {
            return Err(Refused::bad_request("The query has a character that is not allowed."));
        }
        if fields.iter().take(index).any(|(earlier, _)| earlier.eq_ignore_ascii_case(name)) {
            return Err(Refused::bad_request(format!("The parameter '{name}' is given more than once.")));
        }
    }
    Ok(fields)
}

/// Any version since the first is served: a newer one differs in fields that this service does not have.
pub(super) fn api_version(fields: &Query, area: Area) -> Result<(), Refused> {
    let version = fields.first("api-version").unwrap_or("");
    if is_version(version) {
        return Ok(());
    }
    Err(match area {
        Area::Identity if version.is_empty() => {
            Refused::bad_request("Required query variable 'api-version' is missing")
        }
        Area::Identity => {
            Refused::bad_request("Query variable 'api-version' is not a version such as 2021-02-01")
        }
        _ => Refused::versions(
            "Bad request. api-version is invalid or was not specified in the request. For more information refer to \
             aka.ms/azureimds",
            NEWEST_VERSIONS,
        ),
    })
}

fn is_version(text: &str) -> bool {
    let shape = |(index, byte): (usize, u8)| match index {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    text.len() == 10
        && text.bytes().enumerate().all(shape)
        && text.parse::<jiff::civil::Date>().is_ok()
        && text >= OLDEST_VERSION
}

/// A request for a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TokenAsk {
    /// As it was asked: the token's audience.
    pub(super) resource: String,
    pub(super) selector: Selector,
    /// A token that is kept will not do.
    pub(super) new: bool,
}

/// Which identity is meant, and by which name; the answer repeats it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Selector {
    /// None was named: the machine's own.
    Machine,
    ClientId(String),
    ObjectId(String),
    ResourceId(String),
}

impl TokenAsk {
    pub(super) fn read(fields: &Query) -> Result<Self, Refused> {
        let given = |name: &str| fields.first(name).filter(|value| !value.is_empty());
        let resource = given("resource")
            .ok_or_else(|| Refused::bad_request("Required query variable 'resource' is missing"))?;
        if resource.chars().count() > RESOURCE_CHARACTERS_MAX {
            return Err(Refused::bad_request("Query variable 'resource' is too long"));
        }
        let selector = match (given("client_id"), given("object_id"), given("msi_res_id")) {
            (None, None, None) => Selector::Machine,
            (Some(id), None, None) => Selector::ClientId(id.to_owned()),
            (None, Some(id), None) => Selector::ObjectId(id.to_owned()),
            (None, None, Some(id)) => Selector::ResourceId(id.to_owned()),
            _ => {
                return Err(Refused::bad_request(
                    "client_id, object_id and msi_res_id exclude one another; give one at most",
                ));
            }
        };
        let new = given("bypass_cache").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        Ok(Self { resource: resource.to_owned(), selector, new })
    }
}

impl Selector {
    /// The machine has one identity; any other is unknown here.
    pub(super) fn check(&self, config: &AgentConfig) -> Result<(), Refused> {
        let is_ours = match self {
            Self::Machine => true,
            Self::ClientId(id) => id.parse() == Ok(config.client_id),
            Self::ObjectId(id) => id.parse() == Ok(config.principal_id),
            Self::ResourceId(id) => id.eq_ignore_ascii_case(&config.resource_id),
        };
        if is_ours { Ok(()) } else { Err(Refused::bad_request("Identity not found")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(raw: &str) -> Result<TokenAsk, Refused> {
        TokenAsk::read(&fields(raw, &HimdsLimits::default())?)
    }

    #[test]
    fn a_resource_comes_encoded_or_raw() {
        for raw in ["resource=https%3A%2F%2Fvault.azure.net", "Resource=https://vault.azure.net&xms_cc=CP1"] {
            assert_eq!(read(raw).unwrap().resource, "https://vault.azure.net");
        }
        assert!(read("resource=x&bypass_cache=True").unwrap().new);
        assert!(!read("resource=x&bypass_cache=0").unwrap().new);
    }

    #[test]
    fn refused() {
        for raw in [
            "",
            "resource=",
            "resource=a&resource=a",
            "resource=a&RESOURCE=b",
            "resource=a%00b",
            "resource=%ff",
            "resource=a%0d%0aX: y",
            "resource=a&client_id=b&object_id=c",
            "resource=a&msi_res_id=b&object_id=c",
            &format!("resource={}", "a".repeat(1025)),
            &format!("resource={}", "a".repeat(9000)),
            &format!("resource=a{}", "&".repeat(40)),
        ] {
            assert!(read(raw).is_err(), "{raw:.60}");
        }
    }

    #[test]
    fn selectors_are_the_machine_s_own_or_unknown() {
        let config = crate::config::tests::example();
        let known = [
            format!("client_id={}", config.client_id.to_string().to_uppercase()),
            format!("object_id={}", config.principal_id),
            format!("msi_res_id={}", config.resource_id.to_uppercase()),
            "mi_res_id=/ignored".to_owned(),
            "client_id=".to_owned(),
        ];
        for text in known {
            read(&format!("resource=r&{text}")).unwrap().selector.check(&config).unwrap();
        }
        for text in [
            format!("client_id={}", config.principal_id),
            "object_id=x".to_owned(),
            "msi_res_id=/".to_owned(),
        ] {
            assert!(read(&format!("resource=r&{text}")).unwrap().selector.check(&config).is_err(), "{text}");
        }
    }

    #[test]
    fn versions() {
        let check = |raw: &str| api_version(&Query::parse(raw), Area::Metadata);
        for version in ["2018-02-01", "2019-11-01", "2020-06-01", "2021-02-01", "2031-12-31"] {
            check(&format!("api-version={version}")).unwrap();
        }
        for version in
            ["", "2016-01-01", "2020-13-01", "2020-6-1", "latest", "2020-06-01-preview", "+020-06-01"]
        {
            assert!(check(&format!("api-version={version}")).is_err(), "{version}");
        }
        assert!(check("").is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_bounded_clean_and_named_once(raw in ".{0,200}") {
            if let Ok(fields) = fields(&raw, &HimdsLimits::default()) {
                let mut names: Vec<String> = fields.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
                names.sort();
                let count = names.len();
                names.dedup();
                prop_assert_eq!(names.len(), count);
                prop_assert!(fields.iter().all(|(_, value)| !value.contains(char::is_control)));
            }
        }

        #[test]
        fn a_resource_is_kept_letter_for_letter(resource in "[!-~]{1,60}") {
            let raw = arcadia_client::form_encode(&[("api-version", "2020-06-01"), ("resource", &resource)]);
            prop_assert_eq!(read(&raw).unwrap().resource, resource);
        }

        #[test]
        fn only_dates_are_versions(text in "[0-9-]{8,12}") {
            if is_version(&text) {
                prop_assert!(text.parse::<jiff::civil::Date>().is_ok());
            }
        }
    }
}
