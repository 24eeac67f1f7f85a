//! Identifiers of requests, drawn in blocks.

use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

use crate::Entropy;

/// A draw costs the same whatever its size, and an identifier is no secret: it is in the answer.
const BLOCK: usize = 64;
const ID_BYTES: usize = 16;

#[derive(Default)]
pub(crate) struct RequestIds(Mutex<Vec<Uuid>>);

impl RequestIds {
    /// A random (version 4) UUID that was not given before.
    pub fn next(&self, entropy: &dyn Entropy) -> Uuid {
        let mut ahead = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(id) = ahead.pop() {
                return id;
            }
            let mut block = [[0; ID_BYTES]; BLOCK];
            entropy.fill(block.as_flattened_mut());
            ahead.extend(block.map(|bytes| uuid::Builder::from_random_bytes(bytes).into_uuid()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Default)]
    struct Counted(AtomicU64);

    impl Entropy for Counted {
        fn fill(&self, buffer: &mut [u8]) {
            for part in buffer.chunks_mut(8) {
                part.copy_from_slice(&self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes()[..part.len()]);
            }
        }
    }

    #[test]
    fn no_identifier_is_given_twice() {
        let (ids, entropy) = (RequestIds::default(), Counted::default());
        let drawn: Vec<Uuid> = std::thread::scope(|scope| {
            let draw = || (0..3 * BLOCK + 1).map(|_| ids.next(&entropy)).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(draw)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert!(drawn.iter().all(|id| id.get_version_num() == 4));
        assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), drawn.len());
    }
}
