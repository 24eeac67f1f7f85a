//! JSON Web Tokens: signing, verifying, and reading without verifying (RFC 7515, 7517, 7519, 7523).
//!
//! Checks are written here rather than taken from a library because time is handed in, and because what is refused
//! is as much a part of the contract as what is accepted. Signatures are the library's.

mod assertion;
mod cache;
mod compact;
mod keys;
mod signer;
mod verifier;

pub use assertion::{ASSERTION_LIFETIME_SECONDS_MAX, Assertion, AssertionFault, verify_assertion};
pub use compact::{JsonObject, PeekFault, TOKEN_BYTES_MAX, peek};
pub use keys::{KeySet, KeySetFault};
pub use signer::{JwtSigner, SignFault};
pub use verifier::{TokenVerifier, VerifierFault};

/// The difference between clocks that is allowed, as Azure's services do.
const LEEWAY_SECONDS: f64 = 300.0;

/// Asymmetric algorithms that are accepted anywhere. There is deliberately no `none` and no `HS256`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Rs256,
    Ps256,
}
