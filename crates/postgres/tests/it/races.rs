//! What eight ask for at the same moment and one can have. Nothing of it is carried out: what would do so ends with the
//! thread that opened the world.

use arcadia_kernel::Method;
use arcadia_races::{THREADS, block_on, race, rounds};
use serde_json::json;

use crate::world::{World, flexible, flexible_body, group, single, single_body};

/// As many as a site has.
const SERVERS_MAX: usize = 64;

/// Both services have the same host names; groups have no part in them.
#[test]
fn a_server_is_made_by_one() {
    for round in 0..rounds() {
        let world = block_on(World::new());
        let other = format!("{}2", group());
        block_on(world.arm(Method::PUT, &other, json!({ "location": "uksouth" }))).is(201);
        let answers = race(async |number| {
            let (path, body) = match number % 2 {
                0 => (flexible("pg-race"), flexible_body()),
                _ => (single("pg-race"), single_body("Enabled")),
            };
            let path = if number < THREADS / 2 { path } else { path.replace(&group(), &other) };
            world.arm(Method::PUT, &path, body).await
        });
        let made = answers.iter().filter(|answer| answer.status == 202).count();
        let refused = answers.iter().filter(|answer| answer.status == 409).count();
        assert_eq!((made, refused), (1, THREADS - 1), "round {round}: {answers:?}");
    }
}

#[test]
fn a_site_has_so_many_servers_and_no_more() {
    let world = block_on(World::new());
    let make = |name: String| block_on(world.arm(Method::PUT, &flexible(&name), flexible_body()));
    for at in 0..SERVERS_MAX {
        make(format!("pg-{at}")).is(202);
    }
    assert_eq!(make("pg-more".to_owned()).is(409).code(), "ServerQuotaExceeded");
    let other = block_on(world.arm(Method::PUT, &single("pg-more"), single_body("Enabled"))).is(409);
    assert_eq!(other.code(), "ServerQuotaExceeded");
}
