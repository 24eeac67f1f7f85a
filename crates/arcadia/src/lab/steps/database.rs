//! The database, the secret with which the machine reaches it, and the machine that does.

use super::{Step, here, there};
use crate::lab::check::Check;

const CHALLENGE_FOR_VAULT: &str = "challengeTokenPath=$(curl -s -D - -H Metadata:true \"http://127.0.0.1:40342/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fvault.azure.net\" | grep Www-Authenticate | cut -d \"=\" -f 2 | tr -d \"[:cntrl:]\")\n\
     challengeToken=$(sudo cat $challengeTokenPath)\n\
     vaultToken=$(curl -s -H Metadata:true -H \"Authorization: Basic $challengeToken\" \"http://127.0.0.1:40342/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fvault.azure.net\" | jq -r .access_token)";

const PASSWORD: Check = Check::Answer("a password", |text| text.ends_with('!') && text.len() > 16);

const PASSWORD_FROM_TERRAFORM: Step = here(
    "The administrator's password, from terraform",
    "admin_password=$(cd ~/arc-onprem-servers; terraform output --raw windows_admin_password)\n\
     uniq=$(cd ~/arc-onprem-servers; terraform output --raw uniq)\n\
     vault=keyvault-$uniq",
    "echo $admin_password",
    PASSWORD,
);

const PASSWORD_WITHOUT_TERRAFORM: Step = here(
    "The administrator's password",
    "admin_password=Awesome-Antelope-$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')!",
    "echo $admin_password",
    PASSWORD,
);

pub fn secret(terraform: bool) -> Vec<Step> {
    vec![
        if terraform { PASSWORD_FROM_TERRAFORM } else { PASSWORD_WITHOUT_TERRAFORM },
        here(
            "Another extension",
            "az extension add --name db-up",
            "az extension show --name db-up --query extensionType --output tsv",
            Check::Is("whl"),
        ),
        here(
            "Make a database",
            "az postgres up --server-name postgres-$uniq --database-name arc_hack --admin-user arcadmin \
             --admin-password $admin_password --location uksouth",
            "",
            Check::Says(&["psql_cmd", "\"username\": \"arcadmin@postgres-"]),
        ),
        here(
            "Put the command that connects into the vault",
            "psql_cmd=$(az postgres show-connection-string --server-name postgres-$uniq --database-name arc_hack \
             --admin-user arcadmin --admin-password $admin_password --query connectionStrings.psql_cmd --output tsv)\n\
             az keyvault secret set --vault-name $vault --name psql-cmd --value \"$psql_cmd\"",
            "echo $psql_cmd",
            Check::Answer("the command", is_psql_command),
        ),
        here(
            "Display the secret's value",
            "az keyvault secret show --vault-name $vault --name psql-cmd --query value --output tsv",
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
            "vault=keyvault-$(cd ~/arc-onprem-servers; terraform output --raw uniq)\n\
             vaultId=$(az keyvault show --name $vault --query id --output tsv)\n\
             objectId=$(az connectedmachine show --name ubuntu-01 --resource-group arc-hack \
             --query identity.principalId --output tsv)\n\
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
            Check::Answer("the command", is_psql_command),
        ),
        Step {
            needs_root: true,
            ..there(
                "Install psql",
                "sudo apt-get update && sudo apt-get install postgresql -y",
                "psql --version",
                Check::Answer("a version of psql", |text| text.starts_with("psql (PostgreSQL) ")),
            )
        },
        Step {
            typed: "\\conninfo\nselect current_user;\n\\q\n",
            ..there(
                "Connect to the database",
                "$psql_cmd",
                "",
                Check::Says(&["connected to database \"arc_hack\"", "SSL connection", "arcadmin"]),
            )
        },
        there(
            "Another password does not connect",
            "${psql_cmd/PGPASSWORD=/PGPASSWORD=not-} --command \"select 1\"",
            "",
            Check::Refused(&["password authentication failed"]),
        ),
    ]
}

fn is_psql_command(text: &str) -> bool {
    text.contains(" psql --host=postgres-") && text.ends_with(" --dbname=arc_hack")
}
