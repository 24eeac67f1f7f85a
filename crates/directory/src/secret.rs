//! How secrets are made, kept and compared. Nothing here is reversible.

use std::sync::Arc;

use arcadia_crypto::{Zeroizing, b64, b64_decode, constant_time_eq, hmac_sha256};
use arcadia_kernel::{Entropy, Fault};
use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

const SALT_BYTES: usize = 16;
/// Password hashes computed at the same time; each holds about 20 MB for some tens of milliseconds.
const HASHES_AT_ONCE_MAX: usize = 4;
const HASH_BYTES: usize = 32;
/// Cost of a new password hash: OWASP's first choice for argon2id.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Stored costs above these are not a hash of ours.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
const PASSES_MAX: u32 = 16;

pub(crate) const PASSWORD_CHARACTERS_MIN: usize = 8;
pub(crate) const PASSWORD_CHARACTERS_MAX: usize = 256;
const NEW_PASSWORD_CHARACTERS: usize = 20;

const LETTERS_AND_DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// No character that a shell, a form or an INI file would read as its own.
const SECRET_ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-~";
/// Without the letters and digits that people mistake for one another.
const SPOKEN_ALPHABET: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
const PASSWORD_ALPHABET: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789";
const USER_CODE_CHARACTERS: usize = 9;

/// A salted, keyed hash of a random secret. Secrets have over 200 bits of randomness, so a slow hash would protect
/// nothing that a fast one does not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SecretHash {
    salt: String,
    hash: String,
}

impl SecretHash {
    pub(crate) fn of(secret: &str, entropy: &dyn Entropy) -> Self {
        let mut salt = [0; SALT_BYTES];
        entropy.fill(&mut salt);
        Self { salt: b64(&salt), hash: b64(&hmac_sha256(&salt, secret.as_bytes())) }
    }

    pub(crate) fn matches(&self, secret: &str) -> bool {
        let (Some(salt), Some(hash)) = (b64_decode(&self.salt), b64_decode(&self.hash)) else { return false };
        constant_time_eq(&hmac_sha256(&salt, secret.as_bytes()), &hash)
    }
}

/// An argon2id hash of a person's password, with the costs it was made with.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct PasswordHash {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
    hash: String,
}

impl PasswordHash {
    /// Takes tens of milliseconds of processor time: call it off the request threads.
    pub(crate) fn of(password: &str, salt: &[u8; SALT_BYTES]) -> Result<Self, Fault> {
        let hash = derive(password, salt, MEMORY_KIB, PASSES, LANES).map_err(Fault::internal)?;
        Ok(Self { memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES, salt: b64(salt), hash: b64(&*hash) })
    }

    /// As slow as [`PasswordHash::of`].
    pub(crate) fn matches(&self, password: &str) -> bool {
        if self.memory_kib > MEMORY_KIB_MAX || self.passes > PASSES_MAX {
            return false;
        }
        let (Some(salt), Some(hash)) = (b64_decode(&self.salt), b64_decode(&self.hash)) else { return false };
        derive(password, &salt, self.memory_kib, self.passes, self.lanes)
            .is_ok_and(|found| constant_time_eq(&*found, &hash))
    }
}

fn derive(
    password: &str,
    salt: &[u8],
    memory_kib: u32,
    passes: u32,
    lanes: u32,
) -> Result<Zeroizing<[u8; HASH_BYTES]>, String> {
    let text = |error: argon2::Error| format!("password hash: {error}");
    let params = Params::new(memory_kib, passes, lanes, Some(HASH_BYTES)).map_err(text)?;
    let mut hash = Zeroizing::new([0; HASH_BYTES]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.as_bytes(), salt, &mut *hash)
        .map_err(text)?;
    Ok(hash)
}

/// Where passwords are hashed: a few at the same time, on threads for such work.
pub(crate) struct Hashing(Arc<Semaphore>);

impl Hashing {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(HASHES_AT_ONCE_MAX)))
    }

    pub(crate) async fn hash(
        &self,
        password: Zeroizing<String>,
        entropy: &dyn Entropy,
    ) -> Result<PasswordHash, Fault> {
        let mut salt = [0; SALT_BYTES];
        entropy.fill(&mut salt);
        self.run(move || PasswordHash::of(&password, &salt)).await?
    }

    pub(crate) async fn matches(
        &self,
        hash: PasswordHash,
        password: Zeroizing<String>,
    ) -> Result<bool, Fault> {
        self.run(move || hash.matches(&password)).await
    }

    /// Does `work` in its turn, which ends with the work: when the request has gone, its hash is still computed.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
        let turn = self.0.clone().acquire_owned().await.map_err(Fault::internal)?;
        let in_turn = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(in_turn).await.map_err(Fault::internal)
    }
}

/// Characters of `alphabet`, each equally likely.
fn random_text(entropy: &dyn Entropy, alphabet: &[u8], characters: usize) -> String {
    // Bytes at or above the largest multiple of the alphabet's length would favour its first characters.
    let fair = 256 - 256 % alphabet.len();
    let mut text = String::with_capacity(characters);
    let mut byte = [0];
    while text.len() < characters {
        entropy.fill(&mut byte);
        if usize::from(byte[0]) < fair {
            text.push(char::from(alphabet[usize::from(byte[0]) % alphabet.len()]));
        }
    }
    text
}

/// A client secret of 40 characters in the shape Entra gives them: `abc8Q~` and 34 more.
pub(crate) fn new_client_secret(entropy: &dyn Entropy) -> Zeroizing<String> {
    let start = random_text(entropy, LETTERS_AND_DIGITS, 3);
    let rest = random_text(entropy, SECRET_ALPHABET, 33);
    let end = random_text(entropy, LETTERS_AND_DIGITS, 1);
    Zeroizing::new(format!("{start}8Q~{rest}{end}"))
}

/// The part of a secret that may be shown again later.
pub(crate) fn hint(secret: &str) -> String {
    secret.chars().take(3).collect()
}

/// A password for a person: 20 letters and digits (over 110 bits) that satisfy the rules for passwords and that
/// nobody mistakes for one another.
pub fn new_password(entropy: &dyn Entropy) -> Zeroizing<String> {
    loop {
        let password = Zeroizing::new(random_text(entropy, PASSWORD_ALPHABET, NEW_PASSWORD_CHARACTERS));
        if is_acceptable_password(&password) {
            return password;
        }
    }
}

/// A code that a person reads from one screen and types on another.
pub(crate) fn new_user_code(entropy: &dyn Entropy) -> String {
    random_text(entropy, SPOKEN_ALPHABET, USER_CODE_CHARACTERS)
}

/// 8 to 256 characters with three of: lower case, upper case, digit, other.
pub(crate) fn is_acceptable_password(password: &str) -> bool {
    let length = password.chars().count();
    let classes = [
        password.chars().any(char::is_lowercase),
        password.chars().any(char::is_uppercase),
        password.chars().any(|c| c.is_ascii_digit()),
        password.chars().any(|c| !c.is_alphanumeric()),
    ];
    (PASSWORD_CHARACTERS_MIN..=PASSWORD_CHARACTERS_MAX).contains(&length)
        && classes.into_iter().filter(|present| *present).count() >= 3
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use arcadia_crypto::SystemEntropy;

    use super::*;

    #[test]
    fn a_secret_matches_only_itself_and_is_not_kept() {
        let secret = new_client_secret(&SystemEntropy);
        assert_eq!(secret.len(), 40);
        let hash = SecretHash::of(&secret, &SystemEntropy);
        assert!(hash.matches(&secret));
        assert!(!hash.matches(&secret[..39]));
        assert!(!hash.matches(""));
        assert!(!serde_json::to_string(&hash).unwrap().contains(&**secret));
        assert_ne!(SecretHash::of(&secret, &SystemEntropy).hash, hash.hash, "salted");
    }

    #[tokio::test]
    async fn a_turn_ends_with_the_work_and_not_with_the_request() {
        let hashing = Hashing::new();
        let (begun, begins) = std::sync::mpsc::channel();
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        let work = move || {
            begun.send(()).unwrap();
            finished.recv().unwrap();
        };
        let mut request = Box::pin(hashing.run(work));
        assert!(
            std::future::poll_fn(|context| Poll::Ready(request.as_mut().poll(context).is_pending())).await
        );
        begins.recv().unwrap();
        drop(request);
        assert_eq!(hashing.0.available_permits(), HASHES_AT_ONCE_MAX - 1);
        finish.send(()).unwrap();
        let all = u32::try_from(HASHES_AT_ONCE_MAX).unwrap();
        drop(hashing.0.acquire_many(all).await.unwrap());
    }

    #[test]
    fn a_password_matches_only_itself() {
        let hash = PasswordHash::of("Passw0rd!", &[7; SALT_BYTES]).unwrap();
        assert!(hash.matches("Passw0rd!"));
        assert!(!hash.matches("passw0rd!"));
        let absurd = PasswordHash { memory_kib: u32::MAX, ..hash.clone() };
        assert!(!absurd.matches("Passw0rd!"));
    }

    #[test]
    fn a_password_hash_costs_what_it_says() {
        let hash = PasswordHash::of("Passw0rd!", &[7; SALT_BYTES]).unwrap();
        assert_eq!((hash.memory_kib, hash.passes, hash.lanes), (19 * 1024, 2, 1));
        // As the reference implementation makes it at these costs.
        assert_eq!(hash.hash, "QSrVYg4AcpowZ+p3MB5re1lG3nhS4aENm6mDbdGgC5Q=");
    }

    #[test]
    fn weak_passwords_are_not_acceptable() {
        for weak in ["", "Aa1!", "alllowercase1", "ALLUPPER", "12345678", &"Aa1!".repeat(100)] {
            assert!(!is_acceptable_password(weak), "{weak}");
        }
        for fine in ["Passw0rd!", "Xx12345!", "lower UPPER"] {
            assert!(is_acceptable_password(fine), "{fine}");
        }
        assert_ne!(*new_password(&SystemEntropy), *new_password(&SystemEntropy));
        // Without a look at the rules, one of some fifty would have no digit.
        for _ in 0..1000 {
            assert!(is_acceptable_password(&new_password(&SystemEntropy)));
        }
    }

    #[test]
    fn a_user_code_is_hard_to_guess_and_to_mistake() {
        let codes: Vec<_> = (0..100).map(|_| new_user_code(&SystemEntropy)).collect();
        for code in &codes {
            assert!(
                code.len() == 9
                    && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
            );
            assert!(!code.contains(['0', 'O', '1', 'I']), "{code}");
        }
        // All of 32 signs, in some 900.
        let signs: std::collections::BTreeSet<u8> = codes.iter().flat_map(|code| code.bytes()).collect();
        assert_eq!(signs.len(), 32);
    }
}
