//! What is good once, asked for by eight threads at the same moment: one has it.

use arcadia_directory::AZURE_CLI_APP_ID;
use arcadia_kernel::Clock as _;
use arcadia_races::{THREADS, block_on, race, rounds};

use crate::grants::refresh;
use crate::identity::{audience, machine, show};
use crate::pages::{REDIRECT, UPN, VERIFIER, authorize_path, begin, confirm, cookie, poll, redeem, sign_in};
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
