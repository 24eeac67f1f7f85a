//! What is taken away while a request waits for its turn is not used by it.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arcadia_directory::{AZURE_CLI_APP_ID, Directory, Graph, graph_ops};
use arcadia_kernel::{
    AuditEvent, CallerKind, Decider, Decision, DenyReason, Dispatcher, Gate, Limits, Outcome, Question,
};
use serde_json::{Value, json};
use tokio::task::{JoinHandle, yield_now};

use crate::administrators::{ROLE, ROLE_ASSIGNMENTS};
use crate::pages::{REDIRECT, UPN, authorize_path, cookie};
use crate::world::{ARM, Answer, World, text};

const GRAPH: &str = "https://graph.microsoft.com/.default";
const PASSWORD: &str = "Passw0rd!";
/// Hashes that are asked for at once. Four are made at a time, so the last waits for some hundred milliseconds.
const CROWD: usize = 60;

async fn records(world: &World) -> Vec<AuditEvent> {
    let records = world.store.audit_page(0, 1000).await.unwrap();
    records.into_iter().map(|(_, record)| record).collect()
}

pub fn new_user(name: &str) -> Value {
    json!({
        "userPrincipalName": format!("{name}@arcadia.example"), "displayName": name, "mailNickname": name,
        "accountEnabled": true, "passwordProfile": { "password": PASSWORD },
    })
}

/// Begins what waits for its turn in the meantime.
async fn begun(asking: impl Future<Output = Answer> + Send + 'static) -> JoinHandle<Answer> {
    let task = tokio::spawn(asking);
    for _ in 0..100 {
        yield_now().await;
    }
    task
}

/// Passwords for as many new users: whoever comes after them waits.
async fn crowd(world: &Arc<World>, admin: &str, numbers: Range<usize>) {
    for number in numbers {
        let (world, admin) = (world.clone(), admin.to_owned());
        let body = new_user(&format!("crowd{number}"));
        tokio::spawn(async move { world.graph(&admin, "POST", "/v1.0/users", body).await });
    }
    yield_now().await;
}

#[tokio::test]
async fn an_administrator_who_is_none_any_more_writes_nothing() {
    let world = Arc::new(World::new().await);
    let admin = world.admin_graph_token().await;
    let nina = world.user("nina").await;
    let role = json!({ "roleDefinitionId": ROLE, "principalId": nina, "directoryScopeId": "/" });
    let role = text(&world.graph(&admin, "POST", ROLE_ASSIGNMENTS, role).await.ok(), "id");
    let token = world.password_token("nina@arcadia.example", PASSWORD, GRAPH).await.ok();
    let token = text(&token, "access_token");
    let ask = |method: &'static str, path: String, body: Value| {
        let (world, token) = (world.clone(), token.clone());
        async move { world.graph(&token, method, &path, body).await }
    };
    let user = world.user("other").await;
    let mut asked = Vec::new();
    for number in 0..CROWD {
        let password = json!({ "passwordProfile": { "password": format!("Passw0rd!{number}") } });
        asked.push(tokio::spawn(ask("PATCH", format!("/v1.0/users/{user}"), password)));
    }
    asked.push(begun(ask("POST", "/v1.0/users".to_owned(), new_user("late"))).await);
    let path = format!("{ROLE_ASSIGNMENTS}/{role}");
    assert_eq!(world.graph(&admin, "DELETE", &path, Value::Null).await.status, 204);
    asked.retain(|one| !one.is_finished());
    assert!(asked.len() > CROWD / 2, "the role went too late to tell");
    for one in asked {
        let refused = one.await.unwrap();
        assert_eq!(refused.graph_refusal(), (403, "Authorization_RequestDenied".into()), "{}", refused.text);
    }
    let records = records(&world).await;
    let removed = records.iter().position(|record| record.operation == "DirectoryRoleAssignmentDelete");
    let late = records
        .into_iter()
        .skip(removed.unwrap() + 1)
        .filter(|record| record.caller_kind == CallerKind::User);
    for record in late {
        assert!(matches!(record.outcome, Outcome::Denied { .. }), "{record:?}");
        assert_eq!((record.assignment, record.also.len()), (None, 1), "{}", record.operation);
        assert_eq!((&*record.also[0].action, &record.also[0].assignment), (&*record.action, &None));
    }
}

/// Allows what the directory does, so many times.
struct Until {
    directory: Arc<Directory>,
    left: AtomicUsize,
}

impl Decider for Until {
    fn decide(&self, question: &Question<'_>) -> Decision {
        let take = |left: usize| left.checked_sub(1);
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => self.directory.decide(question),
            Err(_) => Decision::Denied(DenyReason::NoAssignment),
        }
    }
}

/// One request of each kind that changes something, all of which would succeed.
async fn changes(world: &World, admin: &str) -> Vec<(&'static str, String, Value)> {
    let post = async |path: &str, body: Value| world.graph(admin, "POST", path, body).await.ok();
    let (application, _, principal, _) = world.application("app").await;
    let (gone, ..) = world.application("gone").await;
    let nina = world.user("nina").await;
    let group = |name: &str| json!({ "displayName": name, "mailNickname": name, "mailEnabled": false, "securityEnabled": true });
    let team = text(&post("/v1.0/groups", group("team")).await, "id");
    let reference =
        json!({ "@odata.id": format!("https://graph.microsoft.com/v1.0/directoryObjects/{nina}") });
    let objects = [
        format!("/v1.0/groups/{team}"),
        format!("/v1.0/applications/{application}"),
        format!("/v1.0/servicePrincipals/{principal}"),
    ];
    let [group_path, app_path, principal_path] = &objects;
    let owned = objects.iter().map(|path| format!("{path}/owners"));
    for link in owned.chain([format!("{group_path}/members")]) {
        post(&format!("{link}/$ref"), reference.clone()).await;
    }
    let role = |who: &str| json!({ "roleDefinitionId": ROLE, "principalId": who, "directoryScopeId": "/" });
    let assignment = text(&post(ROLE_ASSIGNMENTS, role(&nina)).await, "id");
    world.graph(admin, "DELETE", &format!("/v1.0/applications/{gone}"), Value::Null).await.ok();
    let other_app = post("/v1.0/applications", json!({ "displayName": "x" })).await;
    let secret =
        async |of: &str| json!({ "keyId": post(&format!("{of}/addPassword"), json!({})).await["keyId"] });
    let secrets = (secret(app_path).await, secret(principal_path).await);
    let first = json!({ "@odata.id": format!("https://x/{}", world.first.user_object_id) });
    let named = json!({ "displayName": "other" });
    let none = Value::Null;
    let mut changes: Vec<(&str, String, Value)> = vec![
        ("POST", "/v1.0/users".into(), new_user("late")),
        ("PATCH", format!("/v1.0/users/{nina}"), named.clone()),
        ("DELETE", format!("/v1.0/users/{nina}"), none.clone()),
        ("POST", format!("/v1.0/users/{nina}/revokeSignInSessions"), none.clone()),
        ("POST", "/v1.0/groups".into(), group("late")),
        ("POST", format!("{group_path}/members/$ref"), first.clone()),
        ("DELETE", format!("{group_path}/members/{nina}/$ref"), none.clone()),
        ("POST", "/v1.0/applications".into(), named.clone()),
        ("POST", "/v1.0/servicePrincipals".into(), json!({ "appId": other_app["appId"] })),
        ("POST", format!("{app_path}/removePassword"), secrets.0),
        ("POST", format!("{principal_path}/removePassword"), secrets.1),
        ("POST", format!("/v1.0/directory/deletedItems/{gone}/restore"), none.clone()),
        ("DELETE", format!("/v1.0/directory/deletedItems/{gone}"), none.clone()),
        ("POST", ROLE_ASSIGNMENTS.into(), role(&team)),
        ("DELETE", format!("{ROLE_ASSIGNMENTS}/{assignment}"), none.clone()),
        ("PATCH", principal_path.clone(), json!({ "notes": "other" })),
        ("PATCH", app_path.clone(), named.clone()),
        ("PATCH", group_path.clone(), named),
    ];
    for path in &objects {
        changes.push(("POST", format!("{path}/owners/$ref"), first.clone()));
        changes.push(("DELETE", path.clone(), none.clone()));
        changes.push(("DELETE", format!("{path}/owners/{nina}/$ref"), none.clone()));
    }
    for path in [app_path, principal_path] {
        changes.push(("POST", format!("{path}/addPassword"), json!({})));
    }
    changes
}

/// The answer to whoever may no more once the request is on its way.
async fn asked_late(world: &World, admin: &str, (method, path, body): &(&str, String, Value)) -> Answer {
    // Before the body is read, and after it.
    let left = AtomicUsize::new(if body.is_null() { 1 } else { 2 });
    let decider = Arc::new(Until { directory: world.directory.clone(), left });
    let gate = Arc::new(Gate {
        authenticator: world.verifier.clone(),
        decider,
        audit: world.gate.audit.clone(),
        clock: world.clock.clone(),
        entropy: world.gate.entropy.clone(),
        limits: Limits::default(),
    });
    let graph = Arc::new(Graph::new(world.directory.clone()));
    let graph = Arc::new(Dispatcher::new(graph, graph_ops(), gate));
    let bearer = format!("Bearer {admin}");
    let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    world.send(graph, "graph.microsoft.com", method, path, &headers, &body).await
}

/// Whatever it waits for in between: each operation asks again when it writes.
#[tokio::test]
async fn every_change_is_asked_for_again_when_it_is_written() {
    let world = World::new().await;
    let admin = world.admin_graph_token().await;
    let changes = changes(&world, &admin).await;
    let before = records(&world).await.len();
    for change in &changes {
        let refused = asked_late(&world, &admin, change).await;
        let wanted = (403, "Authorization_RequestDenied".to_owned());
        assert_eq!(refused.graph_refusal(), wanted, "{change:?}: {}", refused.text);
    }
    let records = records(&world).await.split_off(before);
    assert_eq!(records.len(), changes.len());
    let asked: BTreeSet<_> = records.iter().map(|record| record.operation.clone()).collect();
    for record in records {
        assert!(matches!(record.outcome, Outcome::Denied { .. }), "{record:?}");
        assert_eq!((record.assignment, record.also.len()), (None, 1), "{}", record.operation);
    }
    let named = |name: &str| !["Me", "UserInfo"].iter().any(|own| name.starts_with(own));
    let all = graph_ops().into_iter().map(|op| op.info);
    let writing = all.filter(|op| !op.action().ends_with("/read") && named(&op.name)).map(|op| op.name);
    assert_eq!(asked, writing.collect(), "each of those that change something");
}

async fn sign_in(world: Arc<World>, (client, secret): (String, String), user: &'static str) -> Answer {
    let name = format!("{user}@arcadia.example");
    let mut fields = vec![
        ("grant_type", "password"),
        ("client_id", client.as_str()),
        ("username", name.as_str()),
        ("password", PASSWORD),
        ("scope", ARM),
    ];
    if !secret.is_empty() {
        fields.push(("client_secret", secret.as_str()));
    }
    world.token("organizations", &fields).await
}

#[tokio::test]
async fn a_sign_in_counts_as_of_its_answer() {
    let world = Arc::new(World::new().await);
    let admin = world.admin_graph_token().await;
    let send = |method: &'static str, path: String, body: Value| {
        let (world, admin) = (world.clone(), admin.clone());
        async move { world.graph(&admin, method, &path, body).await }
    };
    let (app, app_id, _, secret) = world.application("app").await;
    let (desktop, desktop_id, principal, _) = world.application("desktop").await;
    let (app, desktop) = (format!("/v1.0/applications/{app}"), format!("/v1.0/applications/{desktop}"));
    send("PATCH", desktop.clone(), json!({ "isFallbackPublicClient": true })).await.ok();
    for path in [&app, &desktop] {
        world.consent(path.rsplit('/').next().unwrap()).await;
    }
    let key = send("GET", app.clone(), Value::Null).await.ok()["passwordCredentials"][0]["keyId"].clone();
    let az = (AZURE_CLI_APP_ID.to_string(), String::new());
    let cases = [
        ("disabled", az.clone(), Some((400, "invalid_grant", 50_057))),
        ("reset", az.clone(), Some((400, "invalid_grant", 50_126))),
        ("deleted", az.clone(), Some((400, "invalid_grant", 50_034))),
        ("back", az, None),
        ("unproven", (app_id, secret), Some((401, "invalid_client", 7_000_215))),
        ("barred", (desktop_id, String::new()), Some((400, "unauthorized_client", 7_000_112))),
    ];
    let mut users = Vec::new();
    for (name, ..) in &cases {
        users.push(format!("/v1.0/users/{}", world.user(name).await));
    }
    let before = records(&world).await.len();
    crowd(&world, &admin, 0..CROWD / 2).await;
    let new = json!({ "passwordProfile": { "password": "Passw0rd!2" } });
    let reset = begun(send("PATCH", users[1].clone(), new)).await;
    crowd(&world, &admin, CROWD / 2..CROWD).await;
    let mut asked = Vec::new();
    for (name, client, _) in &cases {
        asked.push(begun(sign_in(world.clone(), client.clone(), name)).await);
    }
    let switch = |path: &str, on: bool| send("PATCH", path.to_owned(), json!({ "accountEnabled": on }));
    switch(&users[0], false).await.ok();
    send("DELETE", users[2].clone(), Value::Null).await.ok();
    switch(&users[3], false).await.ok();
    switch(&users[3], true).await.ok();
    send("POST", format!("{app}/removePassword"), json!({ "keyId": key })).await.ok();
    switch(&format!("/v1.0/servicePrincipals/{principal}"), false).await.ok();
    reset.await.unwrap().ok();
    assert!(asked.iter().all(|one| !one.is_finished()), "they went too late to tell");
    for (asked, (name, _, wanted)) in asked.into_iter().zip(cases) {
        let answer = asked.await.unwrap();
        let refusal = (answer.status != 200).then(|| answer.refusal());
        assert_eq!(
            refusal,
            wanted.map(|(status, error, number)| (status, error.to_owned(), number)),
            "{name}"
        );
    }
    let signed_in = records(&world).await.split_off(before).into_iter().filter(|record| {
        record.operation == "TokenV2" && record.outcome == Outcome::Answered { status: 200 }
    });
    assert_eq!(signed_in.count(), 1, "no other is recorded as a success");
}

/// The page may be open for some minutes before somebody signs in on it.
#[tokio::test]
async fn a_code_is_sent_where_it_may_be_sent_by_then() {
    let world = World::new().await;
    let admin = world.admin_graph_token().await;
    world.user("nina").await;
    let (app, app_id, ..) = world.application("app").await;
    let path = format!("/v1.0/applications/{app}");
    let redirects = |uris: &[&str]| json!({ "publicClient": { "redirectUris": uris } });
    world.consent(&app).await;
    world.graph(&admin, "PATCH", &path, redirects(&[REDIRECT])).await.ok();
    let page = world.get(&authorize_path(&app_id, REDIRECT, "")).await;
    let cookie = cookie(&page);
    let fields = [("ticket", &*page.hidden("ticket")), ("username", UPN), ("password", PASSWORD)];
    let submit = async || world.post_with("/organizations/login", &[("cookie", &cookie)], &fields).await;
    assert_eq!(submit().await.status, 302);
    world.graph(&admin, "PATCH", &path, redirects(&[])).await.ok();
    let refused = submit().await;
    assert_eq!(refused.status, 400);
    assert!(refused.text.contains("AADSTS50011"), "{}", refused.text);
    world.graph(&admin, "DELETE", &path, Value::Null).await.ok();
    assert!(submit().await.text.contains("AADSTS700016"));
}
