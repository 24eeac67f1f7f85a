//! Which object a path names: `/users/ID`, `/users/NAME`, `/users('NAME')`, `/applications(appId='ID')`.

use arcadia_kernel::{RequestHead, split_path};
use uuid::Uuid;

use crate::snapshot::Snapshot;

const SETS: [&str; 7] = [
    "users",
    "groups",
    "applications",
    "servicePrincipals",
    "directoryObjects",
    "directory",
    "roleManagement",
];

/// The segments of a path, in which a key in parentheses is one of its own: `users('NAME')` is read as
/// `users/('NAME')`, so that what is served of an object by its id is served by its key.
pub(super) fn segments(path: &str) -> Option<Vec<String>> {
    let mut segments = split_path(path)?;
    if let Some(named) = segments.get_mut(1)
        && let Some((set, key)) = named.split_once('(')
        && !canonical(set).is_empty()
        && Key::parse(&format!("({key}")).is_some()
    {
        let key = named.split_off(set.len());
        segments.insert(2, key);
    }
    Some(segments)
}

/// What is between parentheses.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    property: Option<String>,
    value: String,
}

impl Key {
    fn parse(segment: &str) -> Option<Self> {
        let inner = segment.strip_prefix('(')?.strip_suffix(')')?;
        let (property, quoted) = match inner.split_once('=') {
            Some((property, quoted)) if !property.contains('\'') => (Some(property.trim()), quoted.trim()),
            _ => (None, inner),
        };
        let value = quoted.strip_prefix('\'')?.strip_suffix('\'')?.replace("''", "'");
        Some(Self { property: property.map(str::to_owned), value })
    }
}

/// A set and, where there is one, a key in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// In the spelling of [`SETS`]; empty for anything else.
    pub set: String,
    pub property: Option<String>,
    pub key: String,
}

impl Named {
    pub(super) fn of(head: &RequestHead) -> Self {
        let set = canonical(head.segments.get(1).map(String::as_str).unwrap_or(""));
        let id = head.param("id");
        match Key::parse(id) {
            Some(key) => Self { set, property: key.property, key: key.value },
            None => Self { set, property: None, key: id.to_owned() },
        }
    }

    pub(super) fn resolve(&self, snapshot: &Snapshot) -> Option<Uuid> {
        if self.key.is_empty() {
            return None;
        }
        let id = Uuid::try_parse(&self.key).ok();
        match (self.set.as_str(), self.property.as_deref()) {
            ("users", None) => id
                .filter(|id| snapshot.users.contains_key(id))
                .or_else(|| snapshot.user_named(&self.key).map(|user| user.id)),
            ("groups", None) => id.filter(|id| snapshot.groups.contains_key(id)),
            ("applications", None) => id.filter(|id| snapshot.applications.contains_key(id)),
            ("applications", Some("appId")) => snapshot.application_of(id?).map(|found| found.id),
            ("servicePrincipals", None) => id.filter(|id| snapshot.principals.contains_key(id)),
            ("servicePrincipals", Some("appId")) => snapshot.principal_of(id?).map(|found| found.id),
            ("directoryObjects", None) => id.filter(|id| snapshot.object(*id).is_some()),
            ("directory", None) => id.filter(|id| snapshot.deleted.contains_key(id)),
            _ => None,
        }
    }
}

fn canonical(set: &str) -> String {
    SETS.iter()
        .find(|known| known.eq_ignore_ascii_case(set))
        .map_or_else(String::new, |known| (*known).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_parentheses_are_segments_of_their_own() {
        let split = |path: &str| segments(path).unwrap().join(" ");
        assert_eq!(split("/v1.0/users('$a@b.c')"), "v1.0 users ('$a@b.c')");
        assert_eq!(split("/v1.0/Applications(appId='x')/owners"), "v1.0 Applications (appId='x') owners");
        for junk in ["users", "users(", "users()", "users(x)", "users('x'", "('x')", "nothing('x')"] {
            assert_eq!(split(&format!("/v1.0/{junk}")), format!("v1.0 {junk}"));
        }
    }

    #[test]
    fn keys_name_a_property_or_the_id() {
        let parts = |segment: &str| Key::parse(segment).map(|key| (key.property, key.value));
        assert_eq!(parts("('$a@b.c')"), Some((None, "$a@b.c".into())));
        assert_eq!(parts("('o''neil=x')"), Some((None, "o'neil=x".into())));
        assert_eq!(parts("(appId='x')"), Some((Some("appId".into()), "x".into())));
        assert_eq!((parts("x"), parts("(x)"), parts("('x'")), (None, None, None));
    }
}
