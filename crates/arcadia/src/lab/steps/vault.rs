//! Setting up the key vault.

use super::{Step, here};
use crate::lab::check::{Check, is_guid};

pub fn vault() -> Vec<Step> {
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
            "Take a role that has the dataActions",
            "az role assignment create --assignee $objectId --resource-group arc-hack --role \"Key Vault Secrets Officer\"",
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
