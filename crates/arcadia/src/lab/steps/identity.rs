//! The machine's metadata and identity, and what it may see of the resource manager.

use super::site::is_uniq;
use super::{Step, at_once, here, there};
use crate::lab::check::{Check, is_guid};

pub fn metadata() -> Vec<Step> {
    vec![
        there(
            "What the machine knows of itself",
            "curl -sSL -H Metadata:true http://localhost:40342/metadata/instance?api-version=2020-06-01 | jq .",
            "",
            Check::Says(&["AzurePublicCloud", "ubuntu-01", "arc-hack", "Microsoft.HybridCompute/machines"]),
        ),
        there(
            "Set the variables",
            "imds=$(curl -sSL -H Metadata:true http://localhost:40342/metadata/instance?api-version=2020-06-01)\n\
             subscriptionId=$(jq -r .compute.subscriptionId <<< $imds)\n\
             resourceGroupName=$(jq -r .compute.resourceGroupName <<< $imds)",
            "echo $resourceGroupName",
            Check::Is("arc-hack"),
        ),
    ]
}

const CHALLENGE_FOR_ARM: &str = "challengeTokenPath=$(curl -s -D - -H Metadata:true \"http://127.0.0.1:40342/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fmanagement.azure.com\" | grep Www-Authenticate | cut -d \"=\" -f 2 | tr -d \"[:cntrl:]\")";

pub fn token_for_arm() -> Vec<Step> {
    vec![
        there(
            "Ask for a token: the challenge says where its file is",
            CHALLENGE_FOR_ARM,
            "echo $challengeTokenPath",
            Check::Answer("a challenge file", |path| {
                path.starts_with("/var/opt/azcmagent/tokens/")
                    && path.ends_with(".key")
                    && path.lines().count() == 1
            }),
        ),
        at_once(there(
            "Look at it as root",
            "echo $challengeTokenPath\nsudo ls -l /var/opt/azcmagent/tokens/",
            "",
            Check::Says(&[".key", "himds"]),
        )),
        Step {
            needs_users: true,
            ..at_once(there(
                "A user outside of root and himds cannot read it",
                "setpriv --reuid 65534 --regid 65534 --clear-groups cat $challengeTokenPath",
                "",
                Check::Refused(&["Permission denied"]),
            ))
        },
        at_once(there(
            "Read the challenge",
            "challengeToken=$(sudo cat $challengeTokenPath)",
            "test ${#challengeToken} -gt 16 && test ${#challengeToken} -le 4096 && echo a secret",
            Check::Is("a secret"),
        )),
        at_once(there(
            "Get the token for ARM, good for 24 hours",
            "token=$(curl -s -H Metadata:true -H \"Authorization: Basic $challengeToken\" \"http://127.0.0.1:40342/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fmanagement.azure.com\" | jq -r .access_token)",
            "/opt/azcmagent/bin/arcadia token decode --json \"$token\" 2>/dev/null | jq -r '.claims | \"\\(.aud) for \\((.exp - .nbf + 300) / 3600 | floor) hours\"'",
            Check::Answer("a token for ARM, good for 24 hours", |text| {
                text.starts_with("https://management.azure.com") && text.ends_with(" for 24 hours")
            }),
        )),
        at_once(there(
            "A challenge is used once",
            "curl -s -o /dev/null -w \"%{http_code}\\n\" -H Metadata:true -H \"Authorization: Basic $challengeToken\" \"http://127.0.0.1:40342/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fmanagement.azure.com\"\nsudo ls $challengeTokenPath",
            "",
            Check::Refused(&["401", "No such file"]),
        )),
        there(
            "The machine has a token and no role yet: ARM refuses",
            "curl -sSL -X GET -H \"Authorization: Bearer $token\" -H \"Content-Type: application/json\" https://management.azure.com/subscriptions/$subscriptionId/resourceGroups/$resourceGroupName/resources?api-version=2020-06-01 | jq .",
            "",
            Check::Refused(&["AuthorizationFailed"]),
        ),
    ]
}

pub fn list_resources() -> Vec<Step> {
    vec![
        here(
            "The az command is extensible",
            "az extension add --name connectedmachine",
            "az extension show --name connectedmachine --query extensionType --output tsv",
            Check::Is("whl"),
        ),
        here(
            "Give the machine a role",
            "objectId=$(az connectedmachine show --name ubuntu-01 --resource-group arc-hack \
             --query identity.principalId --output tsv)\n\
             scope=$(az group show --name arc-hack --query id --output tsv)\n\
             az role assignment create --assignee $objectId --role Reader --scope $scope",
            "echo $objectId",
            Check::Answer("the machine's object id", is_guid),
        ),
        there(
            "List the resources",
            "curl -sSL -X GET -H \"Authorization: Bearer $token\" -H \"Content-Type: application/json\" https://management.azure.com/subscriptions/$subscriptionId/resourceGroups/$resourceGroupName/resources?api-version=2020-06-01 | jq .",
            "",
            Check::Says(&["Microsoft.KeyVault/vaults", "Microsoft.HybridCompute/machines"]),
        ),
        there(
            "Get the vault's name",
            "vault=$(curl -sSL -X GET -H \"Authorization: Bearer $token\" -H \"Content-Type: application/json\" https://management.azure.com/subscriptions/$subscriptionId/resourceGroups/$resourceGroupName/resources?api-version=2020-06-01 | jq -r '.value[]|select(.type == \"Microsoft.KeyVault/vaults\").name')",
            "echo $vault",
            Check::Answer("the vault's name", is_vault),
        ),
        there(
            "or with another call",
            "vault=$(curl -sSL -X GET -H \"Authorization: Bearer $token\" -H \"Content-Type: application/json\" https://management.azure.com/subscriptions/$subscriptionId/resourceGroups/$resourceGroupName/providers/Microsoft.KeyVault/vaults?api-version=2019-09-01 | jq -r .value[0].name)",
            "echo $vault",
            Check::Answer("the vault's name", is_vault),
        ),
        there(
            "A token for ARM does not open the vault",
            "curl -sSL -X GET -H \"Authorization: Bearer $token\" -H \"Content-Type: application/json\" https://$vault.vault.azure.net/secrets/psql-cmd/?api-version=7.1",
            "",
            Check::Refused(&["AKV10022"]),
        ),
    ]
}

fn is_vault(text: &str) -> bool {
    text.strip_prefix("keyvault-").is_some_and(is_uniq)
}
