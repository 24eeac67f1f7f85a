//! Files in a storage account, with the machine's identity.

use super::site::is_uniq;
use super::{Step, here, there};
use crate::lab::check::Check;

const TOKEN_FOR_STORAGE: &str = "challengeTokenPath=$(curl -s -D - -H Metadata:true \"http://127.0.0.1:40342/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fstorage.azure.com\" | grep Www-Authenticate | cut -d \"=\" -f 2 | tr -d \"[:cntrl:]\")\n\
     challengeToken=$(sudo cat $challengeTokenPath)\n\
     storageToken=$(curl -s -H Metadata:true -H \"Authorization: Basic $challengeToken\" \"http://127.0.0.1:40342/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fstorage.azure.com\" | jq -r .access_token)";

const MAKE_CONTAINER: &str = "curl -sS -i -X PUT -d \"\" -H \"Authorization: Bearer $storageToken\" -H \"x-ms-version: 2020-10-02\" https://$storage.blob.core.windows.net/uploads?restype=container";

pub fn files() -> Vec<Step> {
    vec![
        here(
            "Make a storage account",
            "storage=arcmi$uniq\n\
             az storage account create --name $storage --resource-group arc-hack --location uksouth --sku Standard_LRS",
            "",
            Check::Says(&["Standard_LRS", ".blob.core.windows.net"]),
        ),
        there(
            "Get its name",
            "storage=$(curl -sSL -X GET -H \"Authorization: Bearer $token\" -H \"Content-Type: application/json\" https://management.azure.com/subscriptions/$subscriptionId/resourceGroups/$resourceGroupName/resources?api-version=2020-06-01 | jq -r '.value[]|select(.type == \"Microsoft.Storage/storageAccounts\").name')",
            "echo $storage",
            Check::Answer("the account's name", |name| name.strip_prefix("arcmi").is_some_and(is_uniq)),
        ),
        there("Get a token for storage", TOKEN_FOR_STORAGE, "echo ${storageToken:0:3}", Check::Is("eyJ")),
        there(
            "Reader of the group is no writer of files: storage refuses",
            MAKE_CONTAINER,
            "",
            Check::Refused(&[" 403", "AuthorizationPermissionMismatch"]),
        ),
        here(
            "Give the machine the right to write files",
            "storageId=$(az storage account show --name $storage --resource-group arc-hack --query id --output tsv)\n\
             objectId=$(az connectedmachine show --name ubuntu-01 --resource-group arc-hack \
             --query identity.principalId --output tsv)\n\
             az role assignment create --assignee $objectId --scope $storageId --role \"Storage Blob Data Contributor\"",
            "",
            Check::Says(&["principalId", "/storageAccounts/arcmi"]),
        ),
        there("Make a container", MAKE_CONTAINER, "", Check::Says(&[" 201"])),
        there(
            "Put a file into it",
            "curl -sS -i -X PUT -H \"Authorization: Bearer $storageToken\" -H \"x-ms-blob-type: BlockBlob\" -H \"x-ms-version: 2020-10-02\" --data-binary @/etc/hosts https://$storage.blob.core.windows.net/uploads/hosts.txt",
            "",
            Check::Says(&[" 201", "content-md5"]),
        ),
        there(
            "Get it again",
            "curl -sS -H \"Authorization: Bearer $storageToken\" -H \"x-ms-version: 2020-10-02\" https://$storage.blob.core.windows.net/uploads/hosts.txt",
            "curl -sS -H \"Authorization: Bearer $storageToken\" -H \"x-ms-version: 2020-10-02\" https://$storage.blob.core.windows.net/uploads/hosts.txt | cmp - /etc/hosts && echo the same",
            Check::Is("the same"),
        ),
        there(
            "A token for the vault does not open storage",
            "curl -sS -i -H \"Authorization: Bearer $vaultToken\" -H \"x-ms-version: 2020-10-02\" https://$storage.blob.core.windows.net/uploads/hosts.txt",
            "",
            Check::Refused(&[" 401", "InvalidAuthenticationInfo"]),
        ),
    ]
}
