//! Eight machines that connect under one name at the same moment: one becomes it.

use arcadia_kernel::Method;
use arcadia_races::{THREADS, block_on, race, rounds};
use uuid::Uuid;

use crate::world::{World, body, key, machine};

#[test]
fn a_machine_is_onboarded_by_one() {
    let world = block_on(World::new());
    let owner = block_on(world.owner());
    for round in 0..rounds() {
        let name = format!("race-{round}");
        let statuses = race(async |number| {
            let vm_id = Uuid::from_u128(0xA0 + number as u128);
            world.arm(&owner, Method::PUT, &machine(&name), body(vm_id, &key(number % 2))).await.status
        });
        let made = statuses.iter().filter(|status| **status == 200).count();
        let refused = statuses.iter().filter(|status| **status == 409).count();
        assert_eq!((made, refused), (1, THREADS - 1), "round {round}: {statuses:?}");
    }
}
