//! Action patterns of role definitions: anchored at both ends, without regard to case, `*` is any run.

use foldhash::HashSet;

/// One entry of `actions`, `notActions`, `dataActions` or `notDataActions`, made ready to match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ActionPattern {
    Any,
    Exact(Box<str>),
    /// What lies between the asterisks, which stand apart; the first and the last part are anchored.
    Glob(Box<[Box<str>]>),
}

impl ActionPattern {
    pub(crate) fn new(text: &str) -> Self {
        let folded = text.to_lowercase();
        if !folded.is_empty() && folded.bytes().all(|byte| byte == b'*') {
            return Self::Any;
        }
        if !folded.contains('*') {
            return Self::Exact(folded.into());
        }
        // Several in a row are one.
        let (first, rest) = folded.split_once('*').unwrap_or_default();
        let (between, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        let between = between.split('*').filter(|part| !part.is_empty());
        Self::Glob([first].into_iter().chain(between).chain([last]).map(Into::into).collect())
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
    // The ends first, which tell most patterns that do not fit.
    let inner = text.strip_prefix(&**first).and_then(|rest| rest.strip_suffix(&**last));
    let Some(mut rest) = inner else { return false };
    for part in middle {
        match rest.find(&**part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// The entries of one list, of which any may match.
#[derive(Debug, Default)]
pub(crate) struct Patterns {
    exact: HashSet<Box<str>>,
    others: Vec<ActionPattern>,
}

impl Patterns {
    pub(crate) fn new(texts: &[String]) -> Self {
        let mut patterns = Self::default();
        for text in texts {
            match ActionPattern::new(text) {
                ActionPattern::Exact(text) => drop(patterns.exact.insert(text)),
                other => patterns.others.push(other),
            }
        }
        patterns
    }

    /// `folded` is the action in lower case.
    pub(crate) fn match_any(&self, folded: &str) -> bool {
        self.others.iter().any(|pattern| pattern.matches(folded)) || self.exact.contains(folded)
    }
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
        assert!(fits("a***b**", "aXXbYYc") && fits("**", "a/b"));
        assert_eq!(ActionPattern::new(&"*".repeat(200)), ActionPattern::Any);
        assert_eq!(ActionPattern::new("a****b**c"), ActionPattern::new("a*b*c"));
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
