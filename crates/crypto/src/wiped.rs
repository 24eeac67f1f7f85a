//! Bytes that do not outlive their use.

use std::ops::{Deref, DerefMut};

use zeroize::optimization_barrier;

/// Bytes that are overwritten with zeros before their memory is given back. As [`zeroize::Zeroizing`], which writes
/// them one by one; here large ones take no longer than to copy them.
#[derive(Default)]
pub struct Wiped(Vec<u8>);

impl From<Vec<u8>> for Wiped {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Deref for Wiped {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Wiped {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

fn wipe(bytes: &mut Vec<u8>) {
    // Also what lies beyond the length: it may have been longer.
    bytes.clear();
    bytes.resize(bytes.capacity(), 0);
    optimization_barrier(bytes.as_slice());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_was_there_is_gone() {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(b"a secret value that is longer than what is left of it");
        let place = bytes.as_ptr();
        bytes.truncate(3);
        wipe(&mut bytes);
        assert_eq!(bytes.as_ptr(), place, "not moved, so nothing is left elsewhere");
        assert!(bytes.len() >= 64 && bytes.iter().all(|byte| *byte == 0));
    }
}
