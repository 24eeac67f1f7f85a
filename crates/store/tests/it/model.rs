//! Random batches against a plain map.

use std::collections::BTreeMap;
use std::sync::Arc;

use arcadia_store::{Backend, CommitError, MemoryBackend, RawBatch, Requirement, Revision};
use proptest::prelude::*;

use crate::support;

type Model = BTreeMap<Vec<u8>, (u64, Vec<u8>)>;

#[derive(Clone, Debug)]
enum Step {
    Commit { require: Vec<Wish>, put: BTreeMap<u8, Vec<u8>>, delete: Vec<u8> },
    Range { prefix: Vec<u8>, after: Option<Vec<u8>>, limit: usize },
}

/// A requirement on a key, which holds or not as the model says.
#[derive(Clone, Debug)]
enum Wish {
    Absent(u8),
    Present(u8),
    /// Relative to the last revision.
    Revision(u8, u64),
}

/// Few keys, some of which are prefixes of others.
fn key(n: u8) -> Vec<u8> {
    let mut key = b"t\0".to_vec();
    key.extend((0..n % 3).map(|_| 0xFF));
    key.extend(vec![n % 4; usize::from(n / 4 % 3)]);
    key
}

fn wish() -> impl Strategy<Value = Wish> {
    prop_oneof![
        any::<u8>().prop_map(Wish::Absent),
        any::<u8>().prop_map(Wish::Present),
        (any::<u8>(), 0..4_u64).prop_map(|(key, back)| Wish::Revision(key, back)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let commit = (
        prop_oneof![2 => Just(Vec::new()), 1 => proptest::collection::vec(wish(), 1..3)],
        proptest::collection::btree_map(any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40), 0..5),
        proptest::collection::vec(any::<u8>(), 0..3),
    )
        .prop_map(|(require, put, delete)| Step::Commit { require, put, delete });
    let range = (any::<u8>(), 0..4_usize, proptest::option::of(any::<u8>()), 1..6_usize).prop_map(
        |(prefix, cut, after, limit)| {
            let prefix = key(prefix);
            let prefix = prefix[..prefix.len().min(2 + cut)].to_vec();
            Step::Range { prefix, after: after.map(|n| key(n)[2..].to_vec()), limit }
        },
    );
    prop_oneof![3 => commit, 1 => range]
}

fn requirement(wish: &Wish, model: &Model, last: u64) -> (Requirement, bool) {
    let found = |n: &u8| model.get(&key(*n)).map(|(revision, _)| *revision);
    match wish {
        Wish::Absent(n) => (Requirement::Absent(key(*n)), found(n).is_none()),
        Wish::Present(n) => {
            let revision = found(n).unwrap_or(last);
            (Requirement::Revision(key(*n), Revision(revision)), found(n).is_some())
        }
        Wish::Revision(n, back) => {
            let revision = last.saturating_sub(*back);
            (Requirement::Revision(key(*n), Revision(revision)), found(n) == Some(revision))
        }
    }
}

async fn run(backend: &dyn Backend, steps: &[Step]) -> Result<(), TestCaseError> {
    let (mut model, mut last) = (Model::new(), 0);
    for step in steps {
        match step {
            Step::Commit { require, put, delete } => {
                let (require, holds): (Vec<_>, Vec<_>) =
                    require.iter().map(|wish| requirement(wish, &model, last)).unzip();
                let put: BTreeMap<_, _> = put.iter().map(|(n, value)| (key(*n), value.clone())).collect();
                let mut delete: Vec<_> =
                    delete.iter().map(|n| key(*n)).filter(|key| !put.contains_key(key)).collect();
                delete.sort();
                delete.dedup();
                let batch = RawBatch {
                    require,
                    put: put.clone().into_iter().collect(),
                    delete: delete.clone(),
                    ..RawBatch::default()
                };
                let result = backend.commit(batch).await;
                if holds.contains(&false) {
                    prop_assert!(matches!(result, Err(CommitError::Conflict)), "{result:?}");
                    continue;
                }
                last += u64::from(!(put.is_empty() && delete.is_empty()));
                prop_assert_eq!(result.unwrap(), Revision(last));
                delete.iter().for_each(|key| drop(model.remove(key)));
                model.extend(put.into_iter().map(|(key, value)| (key, (last, value))));
            }
            Step::Range { prefix, after, limit } => {
                let start = after.as_ref().map(|after| [prefix.as_slice(), after].concat());
                let mut expected: Vec<_> = model
                    .iter()
                    .filter(|(key, _)| {
                        key.starts_with(prefix) && start.as_ref().is_none_or(|start| *key > start)
                    })
                    .collect();
                let more = expected.len() > *limit;
                expected.truncate(*limit);
                let page = backend.range(prefix, after.as_deref(), *limit).await.unwrap();
                prop_assert_eq!(page.more, more);
                same(&page.rows, &expected)?;
            }
        }
    }
    let page = backend.range(b"t\0", None, 1000).await.unwrap();
    same(&page.rows, &model.iter().collect::<Vec<_>>())
}

fn same(
    found: &[arcadia_store::RawRow],
    expected: &[(&Vec<u8>, &(u64, Vec<u8>))],
) -> Result<(), TestCaseError> {
    let found: Vec<_> = found.iter().map(|row| (&row.key, row.revision.0, &row.value)).collect();
    let expected: Vec<_> = expected.iter().map(|(key, (revision, value))| (*key, *revision, value)).collect();
    prop_assert_eq!(found, expected);
    Ok(())
}

fn check(backend: Arc<dyn Backend>, steps: &[Step]) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(run(&*backend, steps))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn memory_is_a_map(steps in proptest::collection::vec(step(), 1..60)) {
        check(Arc::new(MemoryBackend::new(0)), &steps)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn sqlite_is_a_map(steps in proptest::collection::vec(step(), 1..60)) {
        let directory = tempfile::tempdir().unwrap();
        check(Arc::new(support::sqlite(directory.path())), &steps)?;
    }
}
