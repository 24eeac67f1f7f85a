//! The form in which a server keeps a password: a SCRAM-SHA-256 verifier (RFC 5802, RFC 7677). It is made here, so
//! that no password is ever stored or sent to a server.

use arcadia_crypto::{b64, hmac_sha256, sha256};
use arcadia_kernel::Entropy;

const ITERATIONS: u32 = 4096;
const SALT_BYTES: usize = 16;

/// `SCRAM-SHA-256$4096:salt$StoredKey:ServerKey`. The password must be printable ASCII, for which SASLprep changes
/// nothing.
pub(crate) fn verifier(password: &str, entropy: &dyn Entropy) -> String {
    let mut salt = [0; SALT_BYTES];
    entropy.fill(&mut salt);
    of_salt(password, &salt)
}

fn of_salt(password: &str, salt: &[u8]) -> String {
    let salted = salted_password(password.as_bytes(), salt);
    let client_key = hmac_sha256(&salted, b"Client Key");
    let server_key = hmac_sha256(&salted, b"Server Key");
    format!("SCRAM-SHA-256${ITERATIONS}:{}${}:{}", b64(salt), b64(&sha256(&client_key)), b64(&server_key))
}

/// PBKDF2-HMAC-SHA-256 for one block.
fn salted_password(password: &[u8], salt: &[u8]) -> [u8; 32] {
    let mut block = hmac_sha256(password, &[salt, &[0, 0, 0, 1]].concat());
    let mut result = block;
    for _ in 1..ITERATIONS {
        block = hmac_sha256(password, &block);
        for (to, from) in result.iter_mut().zip(block) {
            *to ^= from;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_standard() {
        // RFC 7677, section 3: user "user", password "pencil".
        let salt = arcadia_crypto::b64_decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let salted = salted_password(b"pencil", &salt);
        let server_key = hmac_sha256(&salted, b"Server Key");
        let message = b"n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,\
                        r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        assert_eq!(b64(&hmac_sha256(&server_key, message)), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert!(of_salt("pencil", &salt).starts_with("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"));
    }
}
