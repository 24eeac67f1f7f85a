//! Paths of the Blob service: an account's root, a container, or a blob whose name is everything after that.

use std::borrow::Cow;

use arcadia_kernel::{ArmId, ArmIdError, Fault};
use percent_encoding::percent_decode_str;

use crate::faults;

/// In characters.
const BLOB_NAME_MAX: usize = 1024;
const CONTAINER_NAME_MIN: usize = 3;
const CONTAINER_NAME_MAX: usize = 63;

/// `[]`, `[container]` or `[container, blob]`. A blob's name is decoded once and otherwise taken as it is: with
/// encoded slashes, doubled and trailing slashes, dots.
pub(crate) fn split(path: &str) -> Option<Vec<String>> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned());
    let path = path.strip_prefix('/')?;
    let (container, blob) = path.split_once('/').unwrap_or((path, ""));
    if container.is_empty() {
        return blob.is_empty().then(Vec::new);
    }
    let container = decode(container)?;
    if blob.is_empty() {
        return Some(vec![container]);
    }
    Some(vec![container, decode(blob)?])
}

/// 3 to 63 lower-case letters, digits and single hyphens, first and last no hyphen.
pub(crate) fn check_container(name: &str) -> Result<(), Fault> {
    if !(CONTAINER_NAME_MIN..=CONTAINER_NAME_MAX).contains(&name.chars().count()) {
        return Err(faults::out_of_range());
    }
    let fits = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    if fits { Ok(()) } else { Err(faults::invalid_resource_name()) }
}

/// 1 to 1024 characters that a list can name: none that XML has no form for.
pub(crate) fn check_blob(name: &str) -> Result<(), Fault> {
    let bad = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
    let fits = !name.is_empty() && name.encode_utf16().count() <= BLOB_NAME_MAX && !name.contains(bad);
    if fits { Ok(()) } else { Err(faults::invalid_resource_name()) }
}

/// Below a container's scope, for every name that fits into no identifier. No name that fits has it, as `%` alone is
/// escaped too; and no role on a blob is one on these.
const TOO_LONG: [&str; 2] = ["blobs", "%-"];

/// The scope of a container.
pub(crate) fn container_scope(account: &ArmId, container: &str) -> Result<ArmId, ArmIdError> {
    account.extended(["blobServices", "default", "containers", container])
}

/// The scope of a blob: its path below the container's. Segments that an identifier cannot have are escaped, so that
/// no name leads out of its container. Case is folded, as in every scope: names that differ in nothing else share
/// theirs. A name too long for an identifier has a scope that no assignment can name, and is reached by roles on its
/// container and above.
pub(crate) fn blob_scope(container: &ArmId, blob: &str) -> Result<ArmId, ArmIdError> {
    let escaped: Vec<Cow<'_, str>> = blob.split('/').map(escape).collect();
    let below = std::iter::once("blobs").chain(escaped.iter().map(|segment| &**segment));
    container.extended(below).or_else(|_| container.extended(TOO_LONG))
}

fn escape(segment: &str) -> Cow<'_, str> {
    match segment {
        "" => "%".into(),
        "." => "%2E".into(),
        ".." => "%2E%2E".into(),
        other if other.contains('%') => other.replace('%', "%25").into(),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blobs_name_is_taken_as_it_is() {
        let cases: [(&str, &[&str]); 13] = [
            ("/", &[]),
            ("//", &[]),
            ("/c", &["c"]),
            ("/c/", &["c"]),
            ("/c/b", &["c", "b"]),
            ("/c/a/b/", &["c", "a/b/"]),
            ("/c/a%2Fb", &["c", "a/b"]),
            ("/c//b", &["c", "/b"]),
            ("/c/../d", &["c", "../d"]),
            ("/c/%2e%2e/d", &["c", "../d"]),
            ("/c/a%2520b", &["c", "a%20b"]),
            ("/c/k%C3%A4se", &["c", "käse"]),
            ("/c%2Fb", &["c/b"]),
        ];
        for (path, segments) in cases {
            assert_eq!(split(path).unwrap(), segments, "{path}");
        }
        for path in ["", "c", "//b", "/c/%ff", "/%ff"] {
            assert_eq!(split(path), None, "{path}");
        }
    }

    #[test]
    fn names_that_are_refused() {
        for name in ["Abc", "a--b", "-abc", "abc-", "a/b", "...", "a.b", "$root", "$logs", "$web", "äöü"] {
            assert_eq!(check_container(name).unwrap_err().code, "InvalidResourceName", "{name}");
        }
        for name in ["", "a", "ab", "..", "A", "äö", &"a".repeat(64), &"A".repeat(64)] {
            assert_eq!(check_container(name).unwrap_err().code, "OutOfRangeInput", "{name}");
        }
        assert!(check_container("abc").is_ok() && check_container(&"a".repeat(63)).is_ok());
        for name in ["", "a\0b", "a\nb", "\u{ffff}", &"a".repeat(1025)] {
            assert!(check_blob(name).is_err(), "{name:?}");
        }
        for name in ["a", "a//b", "../..", ".", "ä b+%", &"a".repeat(1024)] {
            assert!(check_blob(name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn no_name_leaves_its_container_or_shares_anothers_scope() {
        let account =
            ArmId::parse("/subscriptions/s/resourceGroups/g/providers/p/storageAccounts/a").unwrap();
        let container = container_scope(&account, "c1").unwrap();
        let other = container_scope(&account, "c").unwrap();
        let names = [
            "a/b",
            "a//b",
            "/a/b",
            "a/b/",
            "a/./b",
            "a/../b",
            "../../c/x",
            "a%2Fb",
            "a%252Fb",
            "%",
            "",
            "%-",
            "/",
        ];
        let scopes: Vec<ArmId> = names.iter().map(|name| blob_scope(&container, name).unwrap()).collect();
        for scope in &scopes {
            assert!(container.contains(scope) && !other.contains(scope), "{scope}");
            assert_eq!(scopes.iter().filter(|twin| *twin == scope).count(), 1, "{scope}");
        }
        // Too deep, and too long.
        for name in ["a/".repeat(500), "/".repeat(500), "ä".repeat(1024)] {
            let scope = blob_scope(&container, &name).unwrap();
            assert!(container.contains(&scope), "{scope}");
            for other in &scopes {
                assert!(!scope.contains(other) && !other.contains(&scope), "{scope} {other}");
            }
        }
    }

    #[test]
    fn names_that_differ_in_case_alone_share_a_scope() {
        let account =
            ArmId::parse("/subscriptions/s/resourceGroups/g/providers/p/storageAccounts/a").unwrap();
        let container = container_scope(&account, "c1").unwrap();
        // As who assigns a role writes it.
        let assigned = container.extended(["blobs", "Public"]).unwrap();
        for name in ["Public", "public"] {
            assert_eq!(blob_scope(&container, name).unwrap(), assigned, "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_name_has_a_scope_in_its_container(name in ".{0,80}", dots in "[./%a]{0,40}") {
            let account = ArmId::parse("/subscriptions/s/resourceGroups/g/providers/p/storageAccounts/a").unwrap();
            let container = container_scope(&account, "c1").unwrap();
            for name in [name, dots] {
                if let Ok(scope) = blob_scope(&container, &name) {
                    proptest::prop_assert!(container.contains(&scope) && scope != container);
                }
            }
        }
    }
}
