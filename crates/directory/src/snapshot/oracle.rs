//! Nested groups against an oracle: who is in which group, after links came and went in any order.
//!
//! Groups may contain one another in circles, a link may be told of twice, and one may go that never was there.
//! `cargo xtask access` runs as many histories as one likes, from any seed.

use std::cell::Cell;
use std::collections::BTreeSet;

use arcadia_kernel::Entropy as _;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestCaseError, TestRng, TestRunner};
use uuid::Uuid;

use super::{Mirrored as _, Snapshot};
use crate::model::Link;

/// Histories of an ordinary run.
const CASES: u32 = 2000;
/// The first of those who may be members.
const GROUPS: u8 = 5;
const MEMBERS: u8 = GROUPS + 2;
const CHANGES_MAX: usize = 24;

#[derive(Clone, Debug)]
struct Linked {
    group: u8,
    member: u8,
    /// Or taken away.
    added: bool,
}

fn id(number: u8) -> Uuid {
    Uuid::from_u128(u128::from(number) + 1)
}

/// Whether a way of at most `hops` links leads from `member` up to `group`.
fn is_in(links: &BTreeSet<(u8, u8)>, member: u8, group: u8, hops: u8) -> bool {
    let mut above = links.iter().filter(|(_, found)| hops > 0 && *found == member).map(|(group, _)| *group);
    above.any(|next| next == group || is_in(links, next, group, hops - 1))
}

/// How many memberships there are in the end.
fn agrees(history: &[Linked]) -> Result<u32, TestCaseError> {
    let (mut snapshot, mut links) = (Snapshot::default(), BTreeSet::new());
    for linked in history {
        let Linked { group, member, added } = *linked;
        let link = Link { group: id(group), member: id(member) };
        if added {
            links.insert((group, member));
            Link::apply(&mut snapshot, None, Some(&link));
        } else {
            links.remove(&(group, member));
            Link::apply(&mut snapshot, Some(&link), None);
        }
    }
    let mut memberships = 0;
    for member in 0..MEMBERS {
        let expected: BTreeSet<Uuid> =
            (0..GROUPS).filter(|group| is_in(&links, member, *group, GROUPS)).map(id).collect();
        let found: BTreeSet<Uuid> = snapshot.transitive_groups_of(id(member)).into_iter().collect();
        prop_assert_eq!(&found, &expected, "the snapshot and the oracle differ about {}", member);
        memberships += u32::try_from(found.len()).unwrap();
    }
    for group in 0..GROUPS {
        let expected = links.iter().filter(|(found, _)| *found == group).map(|(_, member)| id(*member));
        prop_assert!(snapshot.members_of(id(group)).eq(expected), "the members of {} differ", group);
    }
    Ok(memberships)
}

fn history() -> impl Strategy<Value = Vec<Linked>> {
    let linked = (0..GROUPS, 0..MEMBERS, (0..3_u8).prop_map(|number| number > 0));
    let linked = linked.prop_map(|(group, member, added)| Linked { group, member, added });
    proptest::collection::vec(linked, 0..=CHANGES_MAX)
}

#[allow(clippy::disallowed_methods, reason = "the environment says how long to test")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

#[test]
fn nested_groups_agree_with_the_oracle() {
    let cases = number("ARCADIA_ACCESS_CASES").map_or(CASES, |cases| u32::try_from(cases).unwrap());
    let mut random = [0; 8];
    arcadia_crypto::SystemEntropy.fill(&mut random);
    let seed = number("ARCADIA_ACCESS_SEED").unwrap_or(u64::from_be_bytes(random));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let memberships = Cell::new(0.0);
    let checked = TestRunner::new_with_rng(config, rng).run(&history(), |history| {
        memberships.set(memberships.get() + f64::from(agrees(&history)?));
        Ok(())
    });
    checked.unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
    let share = memberships.get() * 100.0 / f64::from(cases) / f64::from(MEMBERS * GROUPS);
    println!("groups: {cases} cases from seed {seed}, no difference, {share:.1} % are members");
    assert!((20.0..80.0).contains(&share), "{share:.1} % are members: the cases say little");
}
