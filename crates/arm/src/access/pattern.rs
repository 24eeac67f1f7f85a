//! Action patterns of role definitions: anchored at both ends, without regard to case, `*` is any run.

/// One entry of `actions`, `notActions`, `dataActions` or `notDataActions`, made ready to match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ActionPattern {
    Any,
    Exact(Box<str>),
    /// What lies between the asterisks; the first and the last part are anchored.
    Glob(Box<[Box<str>]>),
}

impl ActionPattern {
    pub(crate) fn new(text: &str) -> Self {
        let folded = text.to_lowercase();
        if folded == "*" {
            return Self::Any;
        }
        if !folded.contains('*') {
            return Self::Exact(folded.into());
        }
        Self::Glob(folded.split('*').map(Into::into).collect())
    }

    /// `folded` is the action in lower case.
    pub(crate) fn matches(&self, folded: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(text) => **text == *folded,
            Self::Glob(parts) => glob(parts, folded),
        }
    }
}

fn glob(parts: &[Box<str>], text: &str) -> bool {
    let [first, middle @ .., last] = parts else { return false };
    let Some(mut rest) = text.strip_prefix(&**first) else { return false };
    for part in middle {
        match rest.find(&**part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(&**last)
}

#[cfg(test)]
/// The ten lines that say what a pattern means.
pub(crate) fn naive(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) if naive(rest, text) => true,
        (Some((b'*', _)), Some((_, tail))) => naive(pattern, tail),
        (Some((p, rest)), Some((t, tail))) => p.eq_ignore_ascii_case(t) && naive(rest, tail),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fits(pattern: &str, action: &str) -> bool {
        ActionPattern::new(pattern).matches(&action.to_lowercase())
    }

    #[test]
    fn patterns_are_anchored_and_without_case() {
        assert!(fits("*", "a/b/c"));
        assert!(fits("*/read", "Microsoft.KeyVault/vaults/READ"));
        assert!(!fits("*/read", "microsoft.keyvault/vaults/readMetadata/action"));
        assert!(!fits("*/read", "read"));
        assert!(fits("Microsoft.KeyVault/vaults/*/read", "microsoft.keyvault/vaults/secrets/read"));
        assert!(!fits(
            "Microsoft.KeyVault/vaults/*/read",
            "microsoft.keyvault/vaults/secrets/getSecret/action"
        ));
        assert!(!fits(
            "Microsoft.KeyVault/vaults/secrets/getSecret/action",
            "Microsoft.KeyVault/vaults/secrets"
        ));
        assert!(!fits("ab*ba", "aba"));
        assert!(fits("ab*ba", "abba"));
        assert!(fits("a*b*c", "aXXbYYc"));
        assert!(!fits("", "a"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn agrees_with_the_definition(pattern in "[aAb/*]{0,8}", text in "[aAb/]{0,10}") {
            prop_assert_eq!(fits(&pattern, &text), naive(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
