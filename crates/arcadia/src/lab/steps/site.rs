//! The site, the workstation, and the machine that is connected.

use super::{Step, here, there};
use crate::lab::check::{Check, is_guid};

const UNIQ: Check = Check::Answer("eight hexadecimal digits", is_uniq);

const UNIQ_FROM_TERRAFORM: Step = here(
    "The part that makes names unique, from terraform",
    "uniq=$(cd ~/arc-onprem-servers; terraform output --raw uniq)",
    "echo $uniq",
    UNIQ,
);

const UNIQ_WITHOUT_TERRAFORM: Step = here(
    "The part that makes names unique",
    "uniq=$(az group show --name arc-hack --query id --output tsv | tr -d '\\n' | sha1sum | cut -c 1-8)",
    "echo $uniq",
    UNIQ,
);

pub fn sign_in(terraform: bool) -> Vec<Step> {
    vec![
        here(
            "Sign in",
            "az login --username \"$ARCADIA_USER\" --password \"$ARCADIA_PASSWORD\" --output table",
            "az account show --query user.name --output tsv",
            Check::Answer("nina", |name| name.starts_with("nina@")),
        ),
        here(
            "Have az take --resource-group where the text uses it, as it did in 2021",
            "az extension add --name arcadia",
            "az extension show --name arcadia --query extensionType --output tsv",
            Check::Is("whl"),
        ),
        here(
            "Make the resource group",
            "az group create --name arc-hack --location uksouth --output table",
            "",
            Check::Says(&["uksouth", "arc-hack"]),
        ),
        here(
            "Make a service principal that may connect machines, and nothing else",
            "scope=$(az group show --name arc-hack --query id --output tsv)\n\
             onboarding=$(az ad sp create-for-rbac --name onboarding \
             --role \"Azure Connected Machine Onboarding\" --scopes $scope)",
            "jq -r .appId <<< $onboarding",
            Check::Answer("an application id", is_guid),
        ),
        here("Make a machine", "arcadia machine create ubuntu-01", "", Check::Says(&["ubuntu-01 runs"])),
        here(
            "Connect the machine",
            "arcadia machine exec ubuntu-01 -- azcmagent connect --resource-group arc-hack --location uksouth \
             --tenant-id $AZURE_TENANT_ID --subscription-id $AZURE_SUBSCRIPTION_ID \
             --service-principal-id $(jq -r .appId <<< $onboarding) \
             --service-principal-secret $(jq -r .password <<< $onboarding)",
            "",
            Check::Says(&["Connected machine to Azure"]),
        ),
        there(
            "See what the agent says",
            "azcmagent show",
            "azcmagent show -j | jq -r .status",
            Check::Is("Connected"),
        ),
        if terraform { UNIQ_FROM_TERRAFORM } else { UNIQ_WITHOUT_TERRAFORM },
    ]
}

/// Whether it is what names are made unique with.
pub fn is_uniq(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
