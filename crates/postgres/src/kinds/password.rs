//! What an administrator's name and password must be.

use arcadia_kernel::Fault;

use crate::fault::invalid;
use crate::names::{ROLE_BYTES_MAX, is_reserved_role};

const PASSWORD_CHARS_MIN: usize = 8;
const PASSWORD_CHARS_MAX: usize = 128;

/// A role's name as a client may choose it.
pub(super) fn check_login(name: &str) -> Result<(), Fault> {
    let fits = (1..=ROLE_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if fits && !is_reserved_role(name) {
        return Ok(());
    }
    Err(invalid(format!(
        "The administrator login must have 1 to {ROLE_BYTES_MAX} letters, digits, '_' and '-', begin with a \
         letter or '_', and not be a name that the server keeps for itself, such as 'admin', 'root', \
         'azure_superuser' or one that begins with 'pg_'."
    )))
}

/// Three of four classes of characters, and not the login. Printable ASCII, which every client encodes alike.
pub(super) fn check_password(password: &str, login: &str) -> Result<(), Fault> {
    let has = |class: fn(&char) -> bool| usize::from(password.chars().any(|c| class(&c)));
    let classes = has(char::is_ascii_uppercase)
        + has(char::is_ascii_lowercase)
        + has(char::is_ascii_digit)
        + has(char::is_ascii_punctuation);
    let fits = (PASSWORD_CHARS_MIN..=PASSWORD_CHARS_MAX).contains(&password.len())
        && password.chars().all(|c| c.is_ascii_graphic() || c == ' ')
        && classes >= 3
        && !(login.len() >= 3 && password.to_ascii_lowercase().contains(&login.to_ascii_lowercase()));
    if fits {
        return Ok(());
    }
    let message = format!(
        "Password validation failed. The password does not meet policy requirements because it is not complex \
         enough. It must have {PASSWORD_CHARS_MIN} to {PASSWORD_CHARS_MAX} printable ASCII characters of three \
         of these classes: upper case, lower case, digits, others; and not contain the login name."
    );
    Err(Fault::bad_request("PasswordNotComplex", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins() {
        for good in ["arcadmin", "a", "_x", "calmLizard0"] {
            assert!(check_login(good).is_ok(), "{good}");
        }
        for bad in ["", "admin", "azuresu", "pg_x", "0a", "a b", "a\"b", "a@b", "ä", &"a".repeat(64)] {
            assert!(check_login(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn passwords() {
        for good in ["Awesome-Antelope!", "Passw0rd!x", "abcdefg1A", "with space 1A"] {
            assert!(check_password(good, "arcadmin").is_ok(), "{good}");
        }
        for bad in
            ["", "Short1!", "alllowercase1", "Arcadmin1!x", "Pässword1!", "Tab\there1!", &"aA1".repeat(50)]
        {
            assert!(check_password(bad, "arcadmin").is_err(), "{bad}");
        }
    }
}
