//! Where resources can be.

use serde_json::{Value, json};

/// One region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The short form, `uksouth`.
    pub name: String,
    /// `UK South`.
    pub display_name: String,
    /// `Europe`, `US`, …
    pub geography_group: String,
}

const AZURE: &[(&str, &str, &str)] = &[
    ("australiacentral", "Australia Central", "Asia Pacific"),
    ("australiaeast", "Australia East", "Asia Pacific"),
    ("australiasoutheast", "Australia Southeast", "Asia Pacific"),
    ("brazilsouth", "Brazil South", "South America"),
    ("canadacentral", "Canada Central", "Canada"),
    ("canadaeast", "Canada East", "Canada"),
    ("centralindia", "Central India", "Asia Pacific"),
    ("centralus", "Central US", "US"),
    ("eastasia", "East Asia", "Asia Pacific"),
    ("eastus", "East US", "US"),
    ("eastus2", "East US 2", "US"),
    ("francecentral", "France Central", "Europe"),
    ("germanywestcentral", "Germany West Central", "Europe"),
    ("israelcentral", "Israel Central", "Middle East"),
    ("italynorth", "Italy North", "Europe"),
    ("japaneast", "Japan East", "Asia Pacific"),
    ("japanwest", "Japan West", "Asia Pacific"),
    ("koreacentral", "Korea Central", "Asia Pacific"),
    ("koreasouth", "Korea South", "Asia Pacific"),
    ("mexicocentral", "Mexico Central", "Mexico"),
    ("northcentralus", "North Central US", "US"),
    ("northeurope", "North Europe", "Europe"),
    ("norwayeast", "Norway East", "Europe"),
    ("polandcentral", "Poland Central", "Europe"),
    ("qatarcentral", "Qatar Central", "Middle East"),
    ("southafricanorth", "South Africa North", "Africa"),
    ("southcentralus", "South Central US", "US"),
    ("southeastasia", "Southeast Asia", "Asia Pacific"),
    ("southindia", "South India", "Asia Pacific"),
    ("spaincentral", "Spain Central", "Europe"),
    ("swedencentral", "Sweden Central", "Europe"),
    ("switzerlandnorth", "Switzerland North", "Europe"),
    ("uaenorth", "UAE North", "Middle East"),
    ("uksouth", "UK South", "Europe"),
    ("ukwest", "UK West", "Europe"),
    ("westcentralus", "West Central US", "US"),
    ("westeurope", "West Europe", "Europe"),
    ("westindia", "West India", "Asia Pacific"),
    ("westus", "West US", "US"),
    ("westus2", "West US 2", "US"),
    ("westus3", "West US 3", "US"),
];

/// The public cloud's regions, which scripts name.
pub fn azure_locations() -> Vec<Location> {
    let location = |(name, display_name, group): &(&str, &str, &str)| Location {
        name: (*name).to_owned(),
        display_name: (*display_name).to_owned(),
        geography_group: (*group).to_owned(),
    };
    AZURE.iter().map(location).collect()
}

/// `East US` is `eastus`: locations compare without blanks and case.
pub(crate) fn folded(location: &str) -> String {
    location.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase()
}

pub(crate) fn view(location: &Location, subscription: &str) -> Value {
    json!({
        "id": format!("/subscriptions/{subscription}/locations/{}", location.name),
        "name": location.name,
        "type": "Region",
        "displayName": location.display_name,
        "regionalDisplayName": format!("({}) {}", location.geography_group, location.display_name),
        "metadata": {
            "regionType": "Physical",
            "regionCategory": "Recommended",
            "geographyGroup": location.geography_group,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_the_folded_display_names() {
        for location in azure_locations() {
            assert_eq!(folded(&location.display_name), location.name);
        }
    }
}
