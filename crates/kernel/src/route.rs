//! Path patterns: literal segments without regard to case, `{name}`, a trailing `{name?}`, a leading `{name*}`.

use percent_encoding::percent_decode_str;

/// The most path segments a request may have.
const SEGMENTS_MAX: usize = 64;

/// Values captured from a path. A leading `{scope*}` is captured with a slash before each segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(Vec<(&'static str, String)>);

impl Params {
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(&'static str),
    Name(&'static str),
    Optional(&'static str),
    Rest(&'static str),
}

/// One row's path.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: &'static str,
    parts: Vec<Part>,
}

impl Pattern {
    /// Patterns are literals in operation tables; the shape is checked by the tests of every table.
    pub fn new(text: &'static str) -> Self {
        let parts = text
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
                None => Part::Literal(segment),
                Some(name) => match (name.strip_suffix('?'), name.strip_suffix('*')) {
                    (Some(name), _) => Part::Optional(name),
                    (_, Some(name)) => Part::Rest(name),
                    _ => Part::Name(name),
                },
            })
            .collect();
        Self { text, parts }
    }

    pub fn as_str(&self) -> &'static str {
        self.text
    }

    /// How many segments are literal: among rows that fit, the one with the most wins.
    pub(crate) fn weight(&self) -> usize {
        self.parts.iter().filter(|part| matches!(part, Part::Literal(_))).count()
    }

    /// Whether a path fits. Every row of a table may be asked this, so it takes no memory.
    pub fn fits(&self, segments: &[String]) -> bool {
        let Some((_, parts, segments)) = self.split(segments) else { return false };
        let mut segments = segments.iter();
        let each = parts.iter().all(|part| match (part, segments.next()) {
            (Part::Literal(literal), Some(segment)) => literal.eq_ignore_ascii_case(segment),
            (Part::Name(_) | Part::Optional(_), Some(_)) | (Part::Optional(_), None) => true,
            _ => false,
        });
        each && segments.next().is_none()
    }

    /// What a path that fits says; `None` when it does not fit.
    pub fn matches(&self, segments: &[String]) -> Option<Params> {
        if !self.fits(segments) {
            return None;
        }
        let (rest, parts, segments) = self.split(segments)?;
        let mut params = Params::default();
        if let Some((name, rest)) = rest {
            let text = if rest.is_empty() { "/".to_owned() } else { ["/", &rest.join("/")].concat() };
            params.0.push((name, text));
        }
        for (part, segment) in parts.iter().zip(segments) {
            if let Part::Name(name) | Part::Optional(name) = part {
                params.0.push((name, segment.clone()));
            }
        }
        Some(params)
    }

    /// The leading rest with its segments, where the pattern has one, and the other parts with theirs. `None` when
    /// there are too few segments.
    #[allow(clippy::type_complexity, reason = "used right here alone")]
    fn split<'a>(
        &self,
        segments: &'a [String],
    ) -> Option<(Option<(&'static str, &'a [String])>, &[Part], &'a [String])> {
        let Some((Part::Rest(name), tail)) = self.parts.split_first() else {
            return Some((None, &self.parts, segments));
        };
        let (rest, segments) = segments.split_at_checked(segments.len().checked_sub(tail.len())?)?;
        Some((Some((name, rest)), tail, segments))
    }
}

/// Decoded, non-empty segments of a path. `None` when the path cannot be served: undecodable, too many
/// segments, a dot segment, or an encoded slash or control character in a segment.
pub fn split_path(path: &str) -> Option<Vec<String>> {
    let mut segments = Vec::new();
    for raw in path.split('/').filter(|segment| !segment.is_empty()) {
        if segments.len() == SEGMENTS_MAX {
            return None;
        }
        let segment = percent_decode_str(raw).decode_utf8().ok()?.into_owned();
        if segment == "." || segment == ".." || segment.contains(|c: char| c == '/' || c.is_control()) {
            return None;
        }
        segments.push(segment);
    }
    Some(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(pattern: &'static str, path: &str) -> Option<Params> {
        Pattern::new(pattern).matches(&split_path(path)?)
    }

    #[test]
    fn slashes_case_and_optional_parts() {
        let with_version = matched("/secrets/{name}/{version?}", "//Secrets/a/b/").unwrap();
        assert_eq!((with_version.value("name"), with_version.value("version")), (Some("a"), Some("b")));
        assert_eq!(matched("/secrets/{name}/{version?}", "/secrets/a/").unwrap().value("version"), None);
        assert!(matched("/secrets/{name}/{version?}", "/secrets").is_none());
        assert!(matched("/secrets/{name}/{version?}", "/secrets/a/b/c").is_none());
    }

    #[test]
    fn a_leading_rest_takes_what_the_tail_leaves() {
        let pattern = "/{scope*}/providers/Microsoft.Authorization/roleAssignments/{name}";
        let at_group = matched(
            pattern,
            "/subscriptions/s/resourcegroups/rg/providers/microsoft.authorization/roleassignments/x",
        )
        .unwrap();
        assert_eq!(at_group.value("scope"), Some("/subscriptions/s/resourcegroups/rg"));
        let at_root = matched(pattern, "/providers/Microsoft.Authorization/roleAssignments/x").unwrap();
        assert_eq!(at_root.value("scope"), Some("/"));
        assert!(matched(pattern, "/x").is_none());
    }

    #[test]
    fn hostile_paths_are_not_split() {
        for path in ["/a/%2e%2e/b", "/a/../b", "/a%2fb", "/a%00b", "/%ff", &"/a".repeat(80)] {
            assert!(split_path(path).is_none(), "{path}");
        }
        assert_eq!(split_path("/a%20b").unwrap(), ["a b"]);
    }
}
