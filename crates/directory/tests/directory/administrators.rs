//! Somebody stays who can administer the directory: by themselves, with a sign-in of their own.

use arcadia_directory::AZURE_CLI_APP_ID;
use arcadia_kernel::Reason;
use arcadia_store::Batch;
use serde_json::{Value, json};

use crate::identity::machine;
use crate::world::{Answer, START, World, text};

pub const ROLE_ASSIGNMENTS: &str = "/v1.0/roleManagement/directory/roleAssignments";
pub const ROLE: &str = "62e90394-69f5-4237-9190-012177145e10";

async fn assign(world: &World, admin: &str, principal: &str) {
    let body = json!({ "roleDefinitionId": ROLE, "principalId": principal, "directoryScopeId": "/" });
    world.graph(admin, "POST", ROLE_ASSIGNMENTS, body).await.ok();
}

async fn switch(world: &World, admin: &str, path: &str, on: bool) -> Answer {
    world.graph(admin, "PATCH", path, json!({ "accountEnabled": on })).await
}

#[track_caller]
fn is_refused(answer: &Answer) {
    assert_eq!(answer.graph_refusal(), (400, "Request_BadRequest".into()), "{}", answer.text);
    assert!(answer.text.contains("last Global Administrator"), "{}", answer.text);
}

/// The first service principal's token, and the paths of that principal and of the first user.
async fn founded() -> (World, String, String, String) {
    let world = World::new().await;
    let admin = world.admin_graph_token().await;
    let principal = format!("/v1.0/servicePrincipals/{}", world.first.service_principal_object_id);
    let user = format!("/v1.0/users/{}", world.first.user_object_id);
    (world, admin, principal, user)
}

#[tokio::test]
async fn the_last_administrator_is_not_disabled() {
    let (world, admin, principal, user) = founded().await;
    assert_eq!(switch(&world, &admin, &user, false).await.status, 204);
    is_refused(&switch(&world, &admin, &principal, false).await);
    assert_eq!(switch(&world, &admin, &user, true).await.status, 204);
    assert_eq!(switch(&world, &admin, &principal, false).await.status, 204);
    let scope = "https://graph.microsoft.com/.default";
    let (name, password) = (&world.first.user_principal_name, &world.first.user_password);
    let token = text(&world.password_token(name, password, scope).await.ok(), "access_token");
    is_refused(&switch(&world, &token, &user, false).await);
    assert!(world.directory.is_enabled(world.first.user_object_id));
}

/// What a user may do is done through the command line's client.
#[tokio::test]
async fn users_count_only_while_they_can_come_in() {
    let (world, admin, principal, user) = founded().await;
    let cli = world.directory.service_principal_of(AZURE_CLI_APP_ID).unwrap().object_id.to_string();
    let door = format!("/v1.0/servicePrincipals/{cli}");
    assert_eq!(switch(&world, &admin, &door, false).await.status, 204, "the application stays");
    is_refused(&switch(&world, &admin, &principal, false).await);
    assert_eq!(switch(&world, &admin, &door, true).await.status, 204);
    assert_eq!(switch(&world, &admin, &principal, false).await.status, 204);
    let scope = "https://graph.microsoft.com/.default";
    let (name, password) = (&world.first.user_principal_name, &world.first.user_password);
    let token = text(&world.password_token(name, password, scope).await.ok(), "access_token");
    let refused = switch(&world, &token, &door, false).await;
    assert_eq!(refused.graph_refusal(), (400, "Request_BadRequest".into()));
    assert!(refused.text.contains("service principal of the Azure CLI"), "{}", refused.text);
    // It holds up nobody by a role of its own.
    assign(&world, &token, &cli).await;
    assert_eq!(switch(&world, &token, &door, false).await.status, 400);
    let list = world.graph(&token, "GET", ROLE_ASSIGNMENTS, Value::Null).await.ok();
    let own = list["value"].as_array().unwrap().iter().find(|row| row["principalId"] == cli.as_str());
    let own = format!("{ROLE_ASSIGNMENTS}/{}", text(own.unwrap(), "id"));
    assert_eq!(world.graph(&token, "DELETE", &own, Value::Null).await.status, 204);
    assert_eq!(switch(&world, &token, &principal, true).await.status, 204);
    assert_eq!(switch(&world, &token, &door, false).await.status, 204);
    assert!(!world.directory.is_enabled(cli.parse().unwrap()));
    assert!(world.directory.is_enabled(user.rsplit('/').next().unwrap().parse().unwrap()));
}

/// Its secret is good for some years.
#[tokio::test]
async fn an_application_without_a_good_credential_does_not_count() {
    let (world, _, principal, user) = founded().await;
    world.clock.advance_seconds(20 * 365 * 24 * 60 * 60);
    let scope = "https://graph.microsoft.com/.default";
    let (name, password) = (&world.first.user_principal_name, &world.first.user_password);
    let token = text(&world.password_token(name, password, scope).await.ok(), "access_token");
    is_refused(&switch(&world, &token, &user, false).await);
    world.graph(&token, "POST", &format!("{principal}/addPassword"), json!({})).await.ok();
    assert_eq!(switch(&world, &token, &user, false).await.status, 204);
}

/// The ids of the secrets that an application or service principal has.
pub async fn secrets(world: &World, admin: &str, path: &str) -> Vec<String> {
    let shown = world.graph(admin, "GET", path, Value::Null).await.ok();
    shown["passwordCredentials"].as_array().unwrap().iter().map(|secret| text(secret, "keyId")).collect()
}

pub async fn remove_secret(world: &World, admin: &str, path: &str, key_id: &str) -> Answer {
    world.graph(admin, "POST", &format!("{path}/removePassword"), json!({ "keyId": key_id })).await
}

#[tokio::test]
async fn the_last_administrator_keeps_a_credential() {
    let (world, admin, principal, user) = founded().await;
    let application = format!("/v1.0/applications/{}", world.first.application_object_id);
    assert_eq!(switch(&world, &admin, &user, false).await.status, 204);
    let none = json!({ "passwordCredentials": [], "keyCredentials": [] });
    let first = secrets(&world, &admin, &application).await.remove(0);
    let loses = async |path: &str| {
        let key_id = secrets(&world, &admin, path).await.remove(0);
        is_refused(&remove_secret(&world, &admin, path, &key_id).await);
        is_refused(&world.graph(&admin, "PATCH", path, none.clone()).await);
        assert_eq!(secrets(&world, &admin, path).await, [key_id]);
    };
    loses(&application).await;
    // The other's credential is as good, and then that one stays.
    world.graph(&admin, "POST", &format!("{principal}/addPassword"), json!({})).await.ok();
    assert_eq!(remove_secret(&world, &admin, &application, &first).await.status, 204);
    loses(&principal).await;
    world.graph(&admin, "POST", &format!("{application}/addPassword"), json!({})).await.ok();
    assert_eq!(world.graph(&admin, "PATCH", &principal, none.clone()).await.status, 204);
    loses(&application).await;
    // As it does when somebody else stays.
    assert_eq!(switch(&world, &admin, &user, true).await.status, 204);
    assert_eq!(world.graph(&admin, "PATCH", &application, none.clone()).await.status, 204);
    is_refused(&switch(&world, &admin, &user, false).await);
}

/// There is one role, and whoever has it has it everywhere: for less, nobody is given all of it.
#[tokio::test]
async fn no_other_role_is_given_and_none_for_a_part_of_the_directory() {
    let (world, admin, ..) = founded().await;
    let nina = world.user("nina").await;
    let give = async |role: &str, scope: &str| {
        let body = json!({ "roleDefinitionId": role, "principalId": nina, "directoryScopeId": scope });
        world.graph(&admin, "POST", ROLE_ASSIGNMENTS, body).await
    };
    for scope in [format!("/{nina}"), "/administrativeUnits/x".into(), "//".into(), "".into()] {
        let refused = give(ROLE, &scope).await;
        assert_eq!(refused.graph_refusal(), (400, "Request_BadRequest".into()), "{scope}");
        assert!(refused.text.contains("for the whole directory"), "{}", refused.text);
    }
    let readers = "88d8e3e3-8f55-4a1e-953a-9b9898b8876b";
    assert_eq!(give(readers, "/").await.graph_refusal(), (404, "Request_ResourceNotFound".into()));
    assert_eq!(world.rows("directory/role-member").await, 2);
    give(ROLE, "/").await.ok();
}

/// What is no longer, or not yet, good does not keep it.
#[tokio::test]
async fn a_good_credential_is_kept_besides_others() {
    let (world, admin, _, user) = founded().await;
    let application = format!("/v1.0/applications/{}", world.first.application_object_id);
    assert_eq!(switch(&world, &admin, &user, false).await.status, 204);
    let first = secrets(&world, &admin, &application).await.remove(0);
    let add = async |asked: Value| {
        let body = json!({ "passwordCredential": asked });
        let made = world.graph(&admin, "POST", &format!("{application}/addPassword"), body).await.ok();
        text(&made, "keyId")
    };
    let later = add(json!({ "startDateTime": "2090-01-01T00:00:00Z" })).await;
    is_refused(&remove_secret(&world, &admin, &application, &first).await);
    assert_eq!(remove_secret(&world, &admin, &application, &later).await.status, 204);
    add(json!({})).await;
    assert_eq!(remove_secret(&world, &admin, &application, &first).await.status, 204);
}

/// A credential that ends before anybody has made another keeps nobody in.
#[tokio::test]
async fn what_stays_is_good_for_a_day() {
    let (world, admin, principal, user) = founded().await;
    let application = format!("/v1.0/applications/{}", world.first.application_object_id);
    let first = secrets(&world, &admin, &application).await.remove(0);
    let add = async |admin: &str, end: i64| {
        let end = jiff::Timestamp::from_second(START + end).unwrap().to_string();
        let body = json!({ "passwordCredential": { "endDateTime": end } });
        let made = world.graph(admin, "POST", &format!("{principal}/addPassword"), body).await.ok();
        (text(&made, "keyId"), text(&made, "secretText"))
    };
    let (hour, day) = (3600, 24 * 3600);
    let (short, _) = add(&admin, hour).await;
    assert_eq!(switch(&world, &admin, &user, false).await.status, 204);
    is_refused(&remove_secret(&world, &admin, &application, &first).await);
    let (longer, secret) = add(&admin, day).await;
    assert_eq!(remove_secret(&world, &admin, &application, &first).await.status, 204);
    is_refused(&remove_secret(&world, &admin, &principal, &longer).await);
    world.clock.advance_seconds(day - hour);
    let app = world.first.app_id.to_string();
    let admin = world.secret_token(&app, &secret, "https://graph.microsoft.com/.default").await.ok();
    let admin = text(&admin, "access_token");
    // Who leaves is not replaced by somebody with an hour left, but a secret with an hour left is by another.
    assert_eq!(switch(&world, &admin, &user, true).await.status, 204);
    is_refused(&switch(&world, &admin, &user, false).await);
    add(&admin, day).await;
    assert_eq!(remove_secret(&world, &admin, &principal, &longer).await.status, 204);
    assert_eq!(remove_secret(&world, &admin, &principal, &short).await.status, 204, "it has ended");
}

#[tokio::test]
async fn who_cannot_sign_in_does_not_count() {
    let (world, admin, principal, user) = founded().await;
    let group =
        json!({ "displayName": "g", "mailNickname": "g", "mailEnabled": false, "securityEnabled": true });
    let group = text(&world.graph(&admin, "POST", "/v1.0/groups", group).await.ok(), "id");
    let cli = world.directory.service_principal_of(AZURE_CLI_APP_ID).unwrap();
    let machine = machine(&world).await;
    for id in [&group, &cli.object_id.to_string(), &machine.object_id.to_string()] {
        assign(&world, &admin, id).await;
    }
    assert_eq!(switch(&world, &admin, &user, false).await.status, 204);
    is_refused(&switch(&world, &admin, &principal, false).await);
    is_refused(&world.graph(&admin, "DELETE", &principal, Value::Null).await);
    let application = format!("/v1.0/applications/{}", world.first.application_object_id);
    is_refused(&world.graph(&admin, "DELETE", &application, Value::Null).await);
    for row in
        world.graph(&admin, "GET", ROLE_ASSIGNMENTS, Value::Null).await.ok()["value"].as_array().unwrap()
    {
        let answer = world
            .graph(&admin, "DELETE", &format!("{ROLE_ASSIGNMENTS}/{}", text(row, "id")), Value::Null)
            .await;
        match principal.ends_with(&text(row, "principalId")) {
            true => is_refused(&answer),
            false => assert_eq!(answer.status, 204, "who does not count may go: {}", answer.text),
        }
    }
}

/// Its deletion is asked for by whoever manages its resource, who need not be an administrator.
#[tokio::test]
async fn a_machine_goes_only_while_somebody_stays() {
    let (world, admin, principal, user) = founded().await;
    let machine = machine(&world).await;
    assign(&world, &admin, &machine.object_id.to_string()).await;
    assert_eq!(switch(&world, &admin, &user, false).await.status, 204);
    let plan = async || {
        let mut batch = Batch::new();
        world.directory.plan_delete_identity(&mut batch, machine.object_id).await.unwrap();
        batch
    };
    let commit = async |batch| {
        let permit = world.gate.as_system(Reason::AsyncOperation);
        world.store.commit(permit.stamp(), batch).await.is_ok()
    };
    let batch = plan().await;
    assert_eq!(switch(&world, &admin, &user, true).await.status, 204);
    assert_eq!(switch(&world, &admin, &principal, false).await.status, 204);
    assert!(!commit(batch).await, "who was to stay was disabled meanwhile");
    assert!(commit(plan().await).await, "somebody else stays");
    assert!(world.directory.principal(machine.object_id).is_none());
}
