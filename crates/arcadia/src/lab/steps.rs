//! The walk-through, step by step. The commands are the text's; where today's `az` no longer has one, its present
//! form stands in its place.

use super::check::{Check, is_guid};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Workstation,
    Machine,
}

pub struct Step {
    pub title: &'static str,
    pub side: Side,
    /// What is typed.
    pub script: &'static str,
    /// What is asked afterwards to judge the step, unseen.
    pub question: &'static str,
    pub check: Check,
    /// Whether it must come right after the one before: a challenge is used at once or not at all.
    pub follows: bool,
    /// Whether it needs a machine whose users are separate.
    pub needs_users: bool,
}

const fn here(title: &'static str, script: &'static str, question: &'static str, check: Check) -> Step {
    Step { title, side: Side::Workstation, script, question, check, follows: false, needs_users: false }
}

const fn there(title: &'static str, script: &'static str, question: &'static str, check: Check) -> Step {
    Step { title, side: Side::Machine, script, question, check, follows: false, needs_users: false }
}

const fn at_once(step: Step) -> Step {
    Step { follows: true, ..step }
}

/// All steps in order. Without terraform the value that the text reads from it is worked out.
pub fn all(terraform: bool) -> Vec<Step> {
    let mut steps = sign_in();
    steps.push(if terraform { UNIQ_FROM_TERRAFORM } else { UNIQ_WITHOUT_TERRAFORM });
    steps.extend(vault());
    steps.extend(metadata());
    steps.extend(token_for_arm());
    steps.extend(list_resources());
    steps.extend(secret_for_the_machine());
    steps
}

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

fn sign_in() -> Vec<Step> {
    vec![
        here(
            "Sign in",
            "az login --username \"$ARCADIA_USER\" --password \"$ARCADIA_PASSWORD\" --output table",
            "az account show --query user.name --output tsv",
            Check::Answer("nina", |name| name.starts_with("nina@")),
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
    ]
}

fn vault() -> Vec<Step> {
    vec![
        here(
            "Make a key vault",
            "vault=keyvault-$uniq\n\
             az keyvault create --name $vault --resource-group arc-hack --location=uksouth \
             --enable-rbac-authorization --retention-days 7",
            "",
            Check::Says(&[
                "vaultUri",
                "\"enableRbacAuthorization\": true",
                "\"softDeleteRetentionInDays\": 7",
            ]),
        ),
        here(
            "Its id",
            "keyvaultId=$(az keyvault show --name $vault --resource-group arc-hack --query id --output tsv)",
            "echo $keyvaultId",
            Check::Answer("the vault's id", |id| {
                id.contains("/resourceGroups/arc-hack/") && id.contains("/vaults/keyvault-")
            }),
        ),
        here(
            "Your own id",
            "objectId=$(az ad signed-in-user show --query objectId --output tsv)",
            "echo $objectId",
            Check::Answer("an object id", is_guid),
        ),
        here(
            "Owner of everything, and yet: actions are not dataActions",
            "az keyvault secret set --vault-name $vault --name example-secret --value \"NinaIsTheMole\"",
            "",
            Check::Refused(&["ForbiddenByRbac"]),
        ),
        here(
            "Take a role that has the dataActions (--scope is today's form of --resource-group)",
            "az role assignment create --assignee $objectId --scope $scope --role \"Key Vault Secrets Officer\"",
            "",
            Check::Says(&["principalId", "roleDefinitionId"]),
        ),
        here(
            "Write a secret",
            "az keyvault secret set --vault-name $vault --name example-secret --value \"NinaIsTheMole\"",
            "",
            Check::Says(&["NinaIsTheMole"]),
        ),
        here(
            "Its id",
            "secretId=$(az keyvault secret show --vault-name $vault --name example-secret --query id --output tsv)",
            "echo $secretId",
            Check::Answer("the secret's id", |id| id.contains(".vault.azure.net/secrets/example-secret/")),
        ),
        here(
            "Read the secret by name",
            "az keyvault secret show --vault-name $vault --name example-secret --query value --output tsv",
            "",
            Check::Says(&["NinaIsTheMole"]),
        ),
        here(
            "or by id",
            "az keyvault secret show --id $secretId --query value --output tsv",
            "",
            Check::Says(&["NinaIsTheMole"]),
        ),
    ]
}

fn metadata() -> Vec<Step> {
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

const CHALLENGE_FOR_VAULT: &str = "challengeTokenPath=$(curl -s -D - -H Metadata:true \"http://127.0.0.1:40342/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fvault.azure.net\" | grep Www-Authenticate | cut -d \"=\" -f 2 | tr -d \"[:cntrl:]\")\n\
     challengeToken=$(sudo cat $challengeTokenPath)\n\
     vaultToken=$(curl -s -H Metadata:true -H \"Authorization: Basic $challengeToken\" \"http://127.0.0.1:40342/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fvault.azure.net\" | jq -r .access_token)";

fn token_for_arm() -> Vec<Step> {
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

fn list_resources() -> Vec<Step> {
    vec![
        here(
            "Give the machine a role (az resource show is today's form of az connectedmachine show)",
            "objectId=$(az resource show --name ubuntu-01 --resource-group arc-hack \
             --resource-type Microsoft.HybridCompute/machines --query identity.principalId --output tsv)\n\
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

fn secret_for_the_machine() -> Vec<Step> {
    vec![
        here(
            "Put a connection string into the vault",
            "psql_cmd=\"psql --host=postgres-$uniq.postgres.database.azure.com --port=5432 --username=arcadmin@postgres-$uniq --dbname=arc_hack\"\n\
             az keyvault secret set --vault-name $vault --name psql-cmd --value \"$psql_cmd\" --output none\n\
             az keyvault secret show --vault-name $vault --name psql-cmd --query value --output tsv",
            "",
            Check::Says(&["psql --host=postgres-", "--dbname=arc_hack"]),
        ),
        there("Get a token for the vault", CHALLENGE_FOR_VAULT, "echo ${vaultToken:0:3}", Check::Is("eyJ")),
        there(
            "Reader of the group is no reader of secrets: the vault refuses",
            "curl -sSL -X GET -H \"Authorization: Bearer $vaultToken\" -H \"Content-Type: application/json\" https://$vault.vault.azure.net/secrets/psql-cmd/?api-version=7.1 | jq .",
            "",
            Check::Refused(&["ForbiddenByRbac"]),
        ),
        here(
            "Give the machine the right to read secrets",
            "vaultId=$(az keyvault show --name $vault --query id --output tsv)\n\
             objectId=$(az resource show --name ubuntu-01 --resource-group arc-hack \
             --resource-type Microsoft.HybridCompute/machines --query identity.principalId --output tsv)\n\
             az role assignment create --assignee $objectId --scope $vaultId --role \"Key Vault Secrets User\"",
            "",
            Check::Says(&["principalId", "/vaults/keyvault-"]),
        ),
        there(
            "Get a token for the vault again",
            CHALLENGE_FOR_VAULT,
            "echo ${vaultToken:0:3}",
            Check::Is("eyJ"),
        ),
        there(
            "Get the secret",
            "psql_cmd=$(curl -sSL -X GET -H \"Authorization: Bearer $vaultToken\" -H \"Content-Type: application/json\" https://$vault.vault.azure.net/secrets/psql-cmd/?api-version=7.1 | jq -r .value)",
            "echo $psql_cmd",
            Check::Answer("the connection string", |text| {
                text.starts_with("psql --host=postgres-") && text.ends_with("--dbname=arc_hack")
            }),
        ),
    ]
}

fn is_uniq(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_vault(text: &str) -> bool {
    text.strip_prefix("keyvault-").is_some_and(is_uniq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_use_a_challenge_follow_at_once() {
        let steps = all(true);
        for (before, step) in steps.iter().zip(steps.iter().skip(1)) {
            let reads = step.script.contains("cat $challengeTokenPath")
                && !step.script.contains("challengeTokenPath=$(");
            assert!(!reads || (step.follows && step.side == before.side), "{}", step.title);
        }
        assert!(steps.len() > 30, "{}", steps.len());
    }

    #[test]
    fn both_ways_to_the_unique_part_have_as_many_steps() {
        assert_eq!(all(true).len(), all(false).len());
    }
}
