//! Eight machines that connect under one name at the same moment: one becomes it.

use std::sync::Barrier;

use arcadia_kernel::Method;
use uuid::Uuid;

use crate::world::{World, body, key, machine};

const THREADS: usize = 8;

/// How often each race is run; more with ARCADIA_RACE_ROUNDS.
#[allow(clippy::disallowed_methods, reason = "the environment says how long to test")]
fn rounds() -> usize {
    std::env::var("ARCADIA_RACE_ROUNDS").map_or(50, |rounds| rounds.parse().unwrap())
}

/// What eight threads are answered that ask at the same moment; each is told its number.
fn race<T: Send, F: Future<Output = T>>(ask: impl Fn(usize) -> F + Sync) -> Vec<T> {
    let start = Barrier::new(THREADS);
    let (ask, start) = (&ask, &start);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                scope.spawn(move || {
                    start.wait();
                    block_on(ask(number))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

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
