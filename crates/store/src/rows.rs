//! Whether the rows are the ones that were written last.
//!
//! A seal binds a value to its row and not to its time: an older value of the same row opens. So the sealed head of
//! the audit log has a sum over all rows, too: the exclusive or of a keyed digest (HMAC-SHA-256) of each row's key,
//! revision and tag. Every commit brings it up to date in the same transaction. Its key and the sum are inside the
//! sealed head; whoever knows neither can change no set of rows into another one with the same sum.

use arcadia_crypto::hmac_sha256;
use arcadia_kernel::Entropy;
use zeroize::Zeroizing;

use crate::StoreError;
use crate::backend::{RowChange, RowMark};

const KEY_BYTES: usize = 32;
const SUM_BYTES: usize = 32;

/// The sum over all rows, and how many there are.
#[derive(Clone)]
pub(crate) struct RowsSum {
    key: Zeroizing<[u8; KEY_BYTES]>,
    count: u64,
    sum: [u8; SUM_BYTES],
}

impl RowsSum {
    pub const BYTES: usize = KEY_BYTES + 8 + SUM_BYTES;

    /// Over no rows, under a new key.
    pub fn new(entropy: &dyn Entropy) -> Self {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        entropy.fill(key.as_mut_slice());
        Self { key, count: 0, sum: [0; SUM_BYTES] }
    }

    /// How many rows it is over.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Over no rows, under the same key.
    pub fn empty(&self) -> Self {
        Self { key: self.key.clone(), count: 0, sum: [0; SUM_BYTES] }
    }

    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let mut rows = Self { key: Zeroizing::new([0; KEY_BYTES]), count: 0, sum: [0; SUM_BYTES] };
        let mut count = [0; 8];
        rows.key.copy_from_slice(&bytes[..KEY_BYTES]);
        count.copy_from_slice(&bytes[KEY_BYTES..KEY_BYTES + 8]);
        rows.sum.copy_from_slice(&bytes[KEY_BYTES + 8..]);
        rows.count = u64::from_be_bytes(count);
        rows
    }

    pub fn append_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.key.as_slice());
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&self.sum);
    }

    pub fn apply(&mut self, changes: &[RowChange<'_>]) {
        for change in changes {
            if let Some(before) = change.before {
                self.flip(change.key, before);
                self.count = self.count.wrapping_sub(1);
            }
            if let Some(after) = change.after {
                self.add(change.key, after);
            }
        }
    }

    pub fn add(&mut self, key: &[u8], mark: RowMark) {
        self.flip(key, mark);
        self.count = self.count.wrapping_add(1);
    }

    fn flip(&mut self, key: &[u8], mark: RowMark) {
        let length = (key.len() as u64).to_be_bytes();
        let text = [&length[..], key, &mark.revision.0.to_be_bytes(), &mark.tag].concat();
        let digest = hmac_sha256(self.key.as_slice(), &text);
        self.sum.iter_mut().zip(digest).for_each(|(sum, byte)| *sum ^= byte);
    }

    /// `found` is over the rows as they are.
    pub fn expect(&self, found: &Self) -> Result<(), StoreError> {
        if (self.count, self.sum) == (found.count, found.sum) {
            return Ok(());
        }
        Err(StoreError::RowsReplaced { written: self.count, found: found.count })
    }
}

#[cfg(test)]
mod tests {
    use arcadia_crypto::SystemEntropy;

    use super::*;
    use crate::Revision;

    fn mark(revision: u64, value: &[u8]) -> RowMark {
        RowMark::of(Revision(revision), value)
    }

    #[test]
    fn the_sum_follows_the_rows_in_any_order() {
        let mut sum = RowsSum::new(&SystemEntropy);
        let (a, b) = (b"a".as_slice(), b"b".as_slice());
        let put = |key, before, after| RowChange { key, before, after };
        sum.apply(&[put(a, None, Some(mark(1, b"one"))), put(b, None, Some(mark(1, b"two")))]);
        sum.apply(&[put(a, Some(mark(1, b"one")), Some(mark(2, b"three")))]);
        let over = |rows: &[(&[u8], RowMark)]| {
            let mut found = sum.empty();
            rows.iter().for_each(|(key, mark)| found.add(key, *mark));
            sum.expect(&found)
        };
        over(&[(a, mark(2, b"three")), (b, mark(1, b"two"))]).unwrap();
        over(&[(b, mark(1, b"two")), (a, mark(2, b"three"))]).unwrap();
        assert!(over(&[(a, mark(1, b"one")), (b, mark(1, b"two"))]).is_err(), "an older version");
        assert!(over(&[(a, mark(2, b"one")), (b, mark(1, b"two"))]).is_err(), "an older value");
        assert!(over(&[(a, mark(3, b"three")), (b, mark(1, b"two"))]).is_err(), "another revision");
        assert!(over(&[(b, mark(1, b"two"))]).is_err(), "one that is missing");
        assert!(over(&[(b, mark(2, b"three")), (a, mark(1, b"two"))]).is_err(), "exchanged");
        let mut bytes = Vec::new();
        sum.append_to(&mut bytes);
        let again = RowsSum::from_bytes(bytes.as_slice().try_into().unwrap());
        sum.expect(&again).unwrap();
        sum.apply(&[put(a, Some(mark(2, b"three")), None), put(b, Some(mark(1, b"two")), None)]);
        sum.expect(&sum.empty()).unwrap();
    }
}
