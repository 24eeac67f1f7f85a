//! Fuzz target for what servers may be called and asked for.

use serde_json::Value;

use super::password::{check_login, check_password};
use super::server::Asked;
use crate::names::{is_reserved_role, is_server_name};

arcadia_fuzz::target!(server_body, |data: &[u8]| what_is_taken_fits(data));

/// The properties of a server: what is taken of them is in its range, and nothing else is taken.
fn what_is_taken_fits(data: &[u8]) {
    let Ok(properties) = serde_json::from_slice::<Value>(data) else { return };
    let Ok(asked) = Asked::of(&properties) else { return assert!(!properties.is_object()) };
    let given = |name: &str| properties.get(name).filter(|value| !value.is_null());
    for name in ["administratorLogin", "administratorLoginPassword", "version", "createMode"] {
        match asked.text(name) {
            Ok(text) => assert_eq!(text, given(name).and_then(Value::as_str)),
            Err(_) => {
                assert!(given(name).is_some_and(|value| value.as_str().is_none_or(|text| text.len() > 128)))
            }
        }
    }
    let values = ["Create", "Default", "Update"];
    if let Ok(mode) = asked.one_of("createMode", &values) {
        let same = |mode: &str| {
            given("createMode").and_then(Value::as_str).is_some_and(|text| text.eq_ignore_ascii_case(mode))
        };
        assert!(mode.map_or(given("createMode").is_none(), |mode| values.contains(&mode) && same(mode)));
    }
    let Ok(storage) = asked.inside("storage") else {
        return assert!(given("storage").is_some_and(|storage| !storage.is_object()));
    };
    let size =
        given("storage").and_then(|storage| storage.get("storageSizeGB")).filter(|size| !size.is_null());
    match storage.number("storageSizeGB", 1..=32_767) {
        Ok(number) => assert_eq!(number, size.and_then(Value::as_u64)),
        Err(_) => {
            assert!(size.is_some_and(|size| size.as_u64().is_none_or(|size| !(1..=32_767).contains(&size))))
        }
    }
    let text = |name: &str| given(name).and_then(Value::as_str).unwrap_or_default();
    let (login, password) = (text("administratorLogin"), text("administratorLoginPassword"));
    if check_login(login).is_ok() {
        // Such a name is the same in SQL, in a URI and in a start-up packet, whoever writes it.
        assert!(
            login.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
                && login.len() <= 63
        );
        assert!(!is_reserved_role(&login.to_ascii_uppercase()) && !login.is_empty());
    }
    if check_password(password, login).is_ok() {
        assert!(
            (8..=128).contains(&password.len()) && password.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        );
        let kinds = [b'A'..=b'Z', b'a'..=b'z', b'0'..=b'9']
            .map(|kind| password.bytes().any(|byte| kind.contains(&byte)));
        assert!(kinds.iter().filter(|has| **has).count() >= 2);
    }
    if is_server_name(login) {
        assert!(
            (3..=63).contains(&login.len())
                && login == login.to_lowercase()
                && !login.contains(['.', '_', '@'])
        );
    }
}
