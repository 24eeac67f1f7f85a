//! What is good once, asked for by eight threads at the same moment: one has it.

use arcadia_directory::AZURE_CLI_APP_ID;
use arcadia_kernel::Clock as _;
use arcadia_races::{THREADS, block_on, race, rounds};
use serde_json::{Value, json};

use crate::administrators::{ROLE, ROLE_ASSIGNMENTS, remove_secret, secrets};
use crate::grants::refresh;
use crate::identity::{audience, machine, show};
use crate::pages::{REDIRECT, UPN, VERIFIER, authorize_path, begin, confirm, cookie, poll, redeem, sign_in};
use crate::waits::new_user;
use crate::world::{ARM, Answer, World, assertion, key, text};

const TOKENS: &str = "directory/refresh-token";

fn answered(answers: &[Answer]) -> usize {
    answers.iter().filter(|answer| answer.status == 200).count()
}

async fn with_nina() -> World {
    let world = World::new().await;
    world.user("nina").await;
    world
}

#[test]
fn a_device_code_is_redeemed_by_one() {
    let world = block_on(with_nina());
    for round in 0..rounds() {
        let (device_code, user_code) = block_on(begin(&world));
        block_on(confirm(&world, &user_code, "Passw0rd!", "continue"));
        let answers = race(|_| poll(&world, &device_code));
        assert_eq!(answered(&answers), 1, "round {round}: {answers:?}");
        for refused in answers.iter().filter(|answer| answer.status != 200) {
            assert_eq!(refused.refusal(), (400, "invalid_grant".into(), 54_005));
        }
        world.clock.advance_seconds(60);
    }
}

/// The ticket of the page on which a person confirms may be sent more than once; it counts once.
#[test]
fn a_device_is_confirmed_by_one() {
    let world = block_on(with_nina());
    for round in 0..rounds() {
        let (_, user_code) = block_on(begin(&world));
        let (cookie, ticket) = block_on(async {
            let page = world.get(&format!("/device?otc={user_code}")).await;
            let cookie = cookie(&page);
            let headers = [("cookie", cookie.as_str())];
            let fields = [("ticket", &*page.hidden("ticket")), ("user_code", &*user_code)];
            let page = world.post_with("/device", &headers, &fields).await;
            let fields = [("ticket", &*page.hidden("ticket")), ("username", UPN), ("password", "Passw0rd!")];
            let ticket = world.post_with("/device", &headers, &fields).await.hidden("ticket");
            (cookie, ticket)
        });
        let answers = race(async |_| {
            let fields = [("ticket", ticket.as_str()), ("answer", "continue")];
            world.post_with("/device", &[("cookie", cookie.as_str())], &fields).await
        });
        let confirmed = answers.iter().filter(|answer| answer.text.contains("You have signed in")).count();
        assert_eq!(confirmed, 1, "round {round}");
        world.clock.advance_seconds(60);
    }
}

#[test]
fn an_authorization_code_is_redeemed_by_one() {
    let world = block_on(with_nina());
    let az = AZURE_CLI_APP_ID.to_string();
    for round in 0..rounds() {
        let page = block_on(sign_in(&world, &authorize_path(&az, REDIRECT, "")));
        let location = page.headers["location"].to_str().unwrap();
        let (_, code) = location.split_once("code=").unwrap();
        let code = code.split('&').next().unwrap();
        let answers = race(|_| redeem(&world, code, VERIFIER, REDIRECT));
        assert_eq!(answered(&answers), 1, "round {round}: {answers:?}");
        world.clock.advance_seconds(60);
    }
}

/// Clients that share a cache may well exchange one token at the same moment, and none of them is signed out for it.
/// But the session goes on in one token.
#[test]
fn a_refresh_token_has_one_successor() {
    let world = block_on(with_nina());
    let first = block_on(world.password_token(UPN, "Passw0rd!", ARM));
    let mut token = text(&first.ok(), "refresh_token");
    for round in 0..rounds() {
        let before = block_on(world.rows(TOKENS));
        let answers = race(|_| refresh(&world, &token, ARM));
        assert_eq!(answered(&answers), THREADS, "round {round}: {answers:?}");
        let mut successors: Vec<_> =
            answers.iter().map(|answer| text(&answer.json(), "refresh_token")).collect();
        successors.dedup();
        assert_eq!(successors.len(), 1, "round {round}");
        assert_eq!(block_on(world.rows(TOKENS)), before + 1, "round {round}");
        token = successors.remove(0);
    }
}

/// Who shows a token that was used up long ago ends the session, also while another goes on with it.
#[test]
fn a_session_that_was_ended_is_not_refreshed() {
    let world = block_on(with_nina());
    for round in 0..rounds() {
        let mut tokens = Vec::new();
        for _ in 0..THREADS / 2 {
            let signed_in = block_on(world.password_token(UPN, "Passw0rd!", ARM));
            let old = text(&signed_in.ok(), "refresh_token");
            let new = text(&block_on(refresh(&world, &old, ARM)).ok(), "refresh_token");
            tokens.push([old, new]);
        }
        world.clock.advance_seconds(61);
        let answers = race(|number| refresh(&world, &tokens[number / 2][number % 2], ARM));
        for (answers, [_, new]) in answers.chunks(2).zip(&tokens) {
            assert_eq!(answers[0].refusal().2, 50_173, "round {round}");
            let given = (answers[1].status == 200).then(|| text(&answers[1].json(), "refresh_token"));
            let refused = block_on(refresh(&world, given.as_ref().unwrap_or(new), ARM));
            assert_eq!(refused.status, 400, "round {round}: {answers:?}");
            assert_eq!(refused.refusal().2, 50_173, "round {round}");
        }
    }
}

#[test]
fn an_assertion_of_a_machine_is_taken_from_one() {
    let world = block_on(World::new());
    let client = block_on(machine(&world)).app_id.to_string();
    for round in 0..rounds() {
        let now = world.clock.epoch_seconds();
        let shown = assertion(&key(), &client, &audience(&world), now, &format!("race-{round}"));
        let answers = race(|_| show(&world, &client, &shown));
        assert_eq!(answered(&answers), 1, "round {round}: {answers:?}");
        world.clock.advance_seconds(60);
    }
}

/// Their passwords are hashed when the name was seen to be free.
#[test]
fn a_name_is_one_new_users() {
    let world = block_on(World::new());
    let admin = block_on(world.admin_graph_token());
    // Fewer than of the others, as eight hashes take their time.
    for round in 0..rounds().div_ceil(5) {
        let user = new_user(&format!("new{round}"));
        let answers =
            race(async |_| world.graph(&admin, "POST", "/v1.0/users", user.clone()).await.status.as_u16());
        is_ones(&answers, 201);
    }
}

#[test]
fn users_are_not_renamed_to_one_name() {
    let world = block_on(World::new());
    let admin = block_on(world.admin_graph_token());
    let users: Vec<_> = (0..THREADS).map(|number| block_on(world.user(&format!("user{number}")))).collect();
    for round in 0..rounds() {
        let name = json!({ "userPrincipalName": format!("nina{round}@arcadia.example") });
        let answers = race(async |number| {
            let path = format!("/v1.0/users/{}", users[number]);
            world.graph(&admin, "PATCH", &path, name.clone()).await.status.as_u16()
        });
        is_ones(&answers, 204);
    }
}

/// One has it, and to the others it is said that it is taken.
#[track_caller]
fn is_ones(answers: &[u16], made: u16) {
    let has_it = answers.iter().filter(|status| **status == made).count();
    let refused = answers.iter().filter(|status| **status == 400).count();
    assert_eq!((has_it, refused), (1, THREADS - 1), "{answers:?}");
}

#[test]
fn an_identifier_uri_is_one_applications() {
    let world = block_on(World::new());
    let admin = block_on(world.admin_graph_token());
    for round in 0..rounds() {
        let body = json!({ "displayName": "app", "identifierUris": [format!("api://orders{round}")] });
        let answers = race(async |_| {
            world.graph(&admin, "POST", "/v1.0/applications", body.clone()).await.status.as_u16()
        });
        is_ones(&answers, 201);
    }
}

/// Each administrator is removed by half of them: somebody stays who can give the role again.
#[test]
fn one_administrator_stays() {
    for round in 0..rounds() {
        let world = block_on(World::new());
        let (admin, roles) = block_on(async {
            let admin = world.admin_graph_token().await;
            let list = world.graph(&admin, "GET", ROLE_ASSIGNMENTS, Value::Null).await.ok();
            let paths = list["value"].as_array().unwrap().iter();
            (admin, paths.map(|row| format!("{ROLE_ASSIGNMENTS}/{}", text(row, "id"))).collect::<Vec<_>>())
        });
        let answers = race(async |number| {
            world.graph(&admin, "DELETE", &roles[number % roles.len()], Value::Null).await.status.as_u16()
        });
        let removed = answers.iter().filter(|status| **status == 204).count();
        assert_eq!((roles.len(), removed), (2, 1), "round {round}: {answers:?}");
        assert_eq!(block_on(world.rows("directory/role-member")), 1, "round {round}");
    }
}

/// Two administrators disable each other: one of them can still sign in and enable the other.
#[test]
fn one_administrator_stays_enabled() {
    for round in 0..rounds() {
        let world = block_on(World::new());
        let (name, password) = (&world.first.user_principal_name, &world.first.user_password);
        let scope = "https://graph.microsoft.com/.default";
        let user = block_on(world.password_token(name, password, scope)).ok();
        let tokens = [block_on(world.admin_graph_token()), text(&user, "access_token")];
        let ids = [world.first.user_object_id, world.first.service_principal_object_id];
        let paths = [format!("/v1.0/users/{}", ids[0]), format!("/v1.0/servicePrincipals/{}", ids[1])];
        let answers = race(async |number| {
            let (token, path) = (&tokens[number % 2], &paths[number % 2]);
            world.graph(token, "PATCH", path, json!({ "accountEnabled": false })).await.status.as_u16()
        });
        assert!(answers.iter().all(|status| [204, 400, 403].contains(status)), "round {round}: {answers:?}");
        let enabled = ids.iter().filter(|id| world.directory.is_enabled(**id)).count();
        assert_eq!(enabled, 1, "round {round}: {answers:?}");
    }
}

/// The application is disabled while people's way in is: one of the two administrators can still sign in.
#[test]
fn one_way_in_stays() {
    for round in 0..rounds() {
        let world = block_on(World::new());
        let admin = block_on(world.admin_graph_token());
        let door = world.directory.service_principal_of(AZURE_CLI_APP_ID).unwrap().object_id;
        let ids = [door, world.first.service_principal_object_id];
        let answers = race(async |number| {
            let path = format!("/v1.0/servicePrincipals/{}", ids[number % 2]);
            world.graph(&admin, "PATCH", &path, json!({ "accountEnabled": false })).await.status.as_u16()
        });
        assert!(answers.iter().all(|status| [204, 400, 403].contains(status)), "round {round}: {answers:?}");
        let enabled = ids.iter().filter(|id| world.directory.is_enabled(**id)).count();
        assert_eq!(enabled, 1, "round {round}: {answers:?}");
    }
}

/// One administrator is disabled while the other's last secret is removed, from the application that has it.
#[test]
fn one_administrator_stays_who_can_sign_in() {
    for round in 0..rounds() {
        let world = block_on(World::new());
        let admin = block_on(world.admin_graph_token());
        let user = format!("/v1.0/users/{}", world.first.user_object_id);
        let application = format!("/v1.0/applications/{}", world.first.application_object_id);
        let secret = block_on(secrets(&world, &admin, &application)).remove(0);
        let answers = race(async |number| {
            let answer = match number % 2 {
                0 => world.graph(&admin, "PATCH", &user, json!({ "accountEnabled": false })).await,
                _ => remove_secret(&world, &admin, &application, &secret).await,
            };
            answer.status.as_u16()
        });
        assert!(answers.iter().all(|status| [204, 400].contains(status)), "round {round}: {answers:?}");
        let left = block_on(secrets(&world, &admin, &application)).len();
        let enabled = world.directory.is_enabled(world.first.user_object_id);
        assert_eq!(usize::from(enabled) + left, 1, "round {round}: {answers:?}");
    }
}

/// The one administrator has a secret in either place, and both are removed.
#[test]
fn one_secret_of_the_last_administrator_stays() {
    for round in 0..rounds() {
        let world = block_on(World::new());
        let admin = block_on(world.admin_graph_token());
        let user = format!("/v1.0/users/{}", world.first.user_object_id);
        let paths = [
            format!("/v1.0/applications/{}", world.first.application_object_id),
            format!("/v1.0/servicePrincipals/{}", world.first.service_principal_object_id),
        ];
        block_on(world.graph(&admin, "POST", &format!("{}/addPassword", paths[1]), json!({}))).ok();
        block_on(world.graph(&admin, "PATCH", &user, json!({ "accountEnabled": false }))).ok();
        let secrets = paths.each_ref().map(|path| block_on(secrets(&world, &admin, path)).remove(0));
        let answers = race(async |number| {
            let answer = remove_secret(&world, &admin, &paths[number % 2], &secrets[number % 2]).await;
            answer.status.as_u16()
        });
        let removed = answers.iter().filter(|status| **status == 204).count();
        assert_eq!(removed, 1, "round {round}: {answers:?}");
    }
}

/// A role that outlives who had it would count as somebody who stays.
#[test]
fn no_role_outlives_its_principal() {
    let world = block_on(World::new());
    let admin = block_on(world.admin_graph_token());
    for round in 0..rounds() {
        let user = block_on(world.user(&format!("user{round}")));
        let answers = race(async |number| {
            if number == round % THREADS {
                let path = format!("/v1.0/users/{user}");
                return world.graph(&admin, "DELETE", &path, Value::Null).await.status.as_u16();
            }
            let body = json!({
                "roleDefinitionId": ROLE, "principalId": user, "directoryScopeId": "/",
            });
            world.graph(&admin, "POST", ROLE_ASSIGNMENTS, body).await.status.as_u16()
        });
        let known = answers.iter().all(|status| [201, 204, 400, 404].contains(status));
        assert!(known, "round {round}: {answers:?}");
        assert_eq!(block_on(world.rows("directory/role-member")), 2, "round {round}: {answers:?}");
    }
}

#[test]
fn no_principal_outlives_its_application() {
    let world = block_on(World::new());
    let admin = block_on(world.admin_graph_token());
    let before = block_on(world.rows("directory/service-principal"));
    for round in 0..rounds() {
        let body = json!({ "displayName": "app" });
        let made = block_on(world.graph(&admin, "POST", "/v1.0/applications", body)).ok();
        let answers = race(async |number| {
            if number == round % THREADS {
                let path = format!("/v1.0/applications/{}", text(&made, "id"));
                return world.graph(&admin, "DELETE", &path, Value::Null).await.status.as_u16();
            }
            let body = json!({ "appId": made["appId"] });
            world.graph(&admin, "POST", "/v1.0/servicePrincipals", body).await.status.as_u16()
        });
        let known = answers.iter().all(|status| [201, 204, 400, 409].contains(status));
        assert!(known && answers[round % THREADS] == 204, "round {round}: {answers:?}");
        let left = block_on(world.rows("directory/service-principal"));
        assert_eq!(left, before, "round {round}: {answers:?}");
    }
}

/// What a group was given would go on for those who are left in it.
#[test]
fn no_membership_outlives_its_group() {
    let world = block_on(World::new());
    let admin = block_on(world.admin_graph_token());
    let users: Vec<_> = (0..THREADS).map(|number| block_on(world.user(&format!("user{number}")))).collect();
    for round in 0..rounds() {
        let body = json!({
            "displayName": "g", "mailNickname": "g", "mailEnabled": false, "securityEnabled": true,
        });
        let group = text(&block_on(world.graph(&admin, "POST", "/v1.0/groups", body)).ok(), "id");
        let path = format!("/v1.0/groups/{group}");
        let answers = race(async |number| {
            if number == round % THREADS {
                return world.graph(&admin, "DELETE", &path, Value::Null).await.status.as_u16();
            }
            let member = format!("https://graph.microsoft.com/v1.0/directoryObjects/{}", users[number]);
            let (path, body) = (format!("{path}/members/$ref"), json!({ "@odata.id": member }));
            world.graph(&admin, "POST", &path, body).await.status.as_u16()
        });
        assert!(answers.iter().all(|status| [204, 404].contains(status)), "round {round}: {answers:?}");
        assert_eq!(block_on(world.rows("directory/member")), 0, "round {round}: {answers:?}");
    }
}

/// An id that is nobody's any more is not left in groups, or among those who own them.
#[test]
fn nothing_says_more_of_a_user_who_is_gone() {
    let world = block_on(World::new());
    let admin = block_on(world.admin_graph_token());
    let groups: Vec<_> = (0..THREADS)
        .map(|_| {
            let body = json!({
                "displayName": "g", "mailNickname": "g", "mailEnabled": false, "securityEnabled": true,
            });
            text(&block_on(world.graph(&admin, "POST", "/v1.0/groups", body)).ok(), "id")
        })
        .collect();
    for round in 0..rounds() {
        let user = block_on(world.user(&format!("user{round}")));
        let answers = race(async |number| {
            if number == round % THREADS {
                return world.graph(&admin, "DELETE", &format!("/v1.0/users/{user}"), Value::Null).await;
            }
            let as_what = if number % 2 == 0 { "members" } else { "owners" };
            let path = format!("/v1.0/groups/{}/{as_what}/$ref", groups[number]);
            let body =
                json!({ "@odata.id": format!("https://graph.microsoft.com/v1.0/directoryObjects/{user}") });
            world.graph(&admin, "POST", &path, body).await
        });
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status.as_u16()).collect();
        assert!(statuses.iter().all(|status| [204, 404].contains(status)), "round {round}: {statuses:?}");
        for table in ["directory/member", "directory/owner"] {
            assert_eq!(block_on(world.rows(table)), 0, "round {round}, {table}: {statuses:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_edit_one_object_at_once() {
    const MANY: usize = 60;
    let world = std::sync::Arc::new(World::new().await);
    let admin = world.admin_graph_token().await;
    let (object, ..) = world.application("app").await;
    let tasks: Vec<_> = (0..MANY)
        .map(|_| {
            let (world, admin) = (world.clone(), admin.clone());
            let (path, body) = (format!("/v1.0/applications/{object}"), json!({ "displayName": "renamed" }));
            tokio::spawn(async move { world.graph(&admin, "PATCH", &path, body).await.status.as_u16() })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 204);
    }
}
