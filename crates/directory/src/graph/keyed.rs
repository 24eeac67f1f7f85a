//! Which object a path names: `/users/ID`, `/users/NAME`, `/users('NAME')`, `/applications(appId='ID')`.

use arcadia_kernel::RequestHead;
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
        let keyed = head.param("keyed");
        if !keyed.is_empty() {
            return Self::parse(keyed);
        }
        let set = head.segments.get(1).map(String::as_str).unwrap_or("");
        Self { set: canonical(set), property: None, key: head.param("id").to_owned() }
    }

    fn parse(segment: &str) -> Self {
        let none = || Self { set: String::new(), property: None, key: segment.to_owned() };
        let Some((set, rest)) = segment.split_once('(') else { return none() };
        let Some(inner) = rest.strip_suffix(')') else { return none() };
        let (property, quoted) = match inner.split_once('=') {
            Some((property, quoted)) if !property.contains('\'') => (Some(property.trim()), quoted.trim()),
            _ => (None, inner),
        };
        let Some(key) = quoted.strip_prefix('\'').and_then(|key| key.strip_suffix('\'')) else {
            return none();
        };
        let property = property.map(str::to_owned);
        Self { set: canonical(set), property, key: key.replace("''", "'") }
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

    fn parts(segment: &str) -> (String, Option<String>, String) {
        let named = Named::parse(segment);
        (named.set, named.property, named.key)
    }

    #[test]
    fn keys_in_parentheses() {
        assert_eq!(parts("users('$a@b.c')"), ("users".into(), None, "$a@b.c".into()));
        assert_eq!(parts("Users('o''neil=x')"), ("users".into(), None, "o'neil=x".into()));
        let by_app = parts("applications(appId='x')");
        assert_eq!(by_app, ("applications".into(), Some("appId".into()), "x".into()));
        for junk in ["users", "users(", "users()", "users(x)", "users('x'", "('x')", "nothing('x')"] {
            assert_eq!(parts(junk).0, "", "{junk}");
        }
    }
}
