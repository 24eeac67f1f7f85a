//! Randomness from the operating system.

use arcadia_kernel::Entropy;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// The process-wide, operating-system seeded generator.
///
/// It cannot fail silently: if the generator gives no bytes the process is aborted, because going on would mean
/// predictable keys, nonces and tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        if SystemRandom::new().fill(buffer).is_err() {
            tracing::error!("the operating system's random generator failed; stopping rather than guessing");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_every_byte_and_never_repeats() {
        let (mut first, mut second) = ([0u8; 64], [0u8; 64]);
        SystemEntropy.fill(&mut first);
        SystemEntropy.fill(&mut second);
        assert_ne!(first, second);
        assert_ne!(first[32..], [0u8; 32]);
        SystemEntropy.fill(&mut []);
    }
}
