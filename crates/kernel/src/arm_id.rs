//! Resource identifiers: paths whose segments compare without regard to case.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The longest identifier that is accepted, in bytes.
const ID_BYTES_MAX: usize = 2048;
/// Room for what usually comes after an identifier that is extended.
const MORE_BYTES: usize = 64;
/// The most segments that are accepted.
const SEGMENTS_MAX: usize = 64;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the resource identifier is not well formed: {0}")]
pub struct ArmIdError(&'static str);

/// An ARM resource identifier or scope, such as `/subscriptions/{id}/resourceGroups/{name}`.
///
/// Keeps the case it was written in, compares and hashes without it, has no trailing slash (the root is `/`).
/// Containment is by whole segments, so `/…/rg` never contains `/…/rg2`.
#[derive(Clone)]
pub struct ArmId {
    text: Arc<str>,
    folded: Arc<str>,
}

impl ArmId {
    /// Parses an absolute identifier. Doubled and trailing slashes are accepted, as clients send them.
    pub fn parse(text: &str) -> Result<Self, ArmIdError> {
        if text.len() > ID_BYTES_MAX {
            return Err(ArmIdError("it is too long"));
        }
        if !text.starts_with('/') {
            return Err(ArmIdError("it does not start with '/'"));
        }
        let mut parsed = String::with_capacity(text.len());
        append(&mut parsed, 0, text.split('/').filter(|segment| !segment.is_empty()))?;
        Ok(Self::of(parsed))
    }

    /// Joins segments. Each must be non-empty and free of `/` and control characters.
    pub fn from_segments<'a>(segments: impl IntoIterator<Item = &'a str>) -> Result<Self, ArmIdError> {
        let mut text = String::new();
        append(&mut text, 0, segments)?;
        Ok(Self::of(text))
    }

    /// Of checked segments, with a slash before each.
    fn of(mut text: String) -> Self {
        if text.is_empty() {
            text.push('/');
        }
        let folded = text.to_lowercase();
        let text: Arc<str> = text.into();
        // As it is in most identifiers that a site makes itself.
        let folded = if folded == *text { text.clone() } else { folded.into() };
        Self { text, folded }
    }

    /// `/`: the scope that contains every other.
    pub fn root() -> Self {
        Self::of(String::new())
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// As [`ArmId::as_str`], for whoever keeps it.
    pub fn shared(&self) -> Arc<str> {
        self.text.clone()
    }

    /// The lower-case form: what keys and comparisons use.
    pub fn folded(&self) -> &str {
        &self.folded
    }

    pub fn is_root(&self) -> bool {
        &*self.text == "/"
    }

    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.text.split('/').filter(|segment| !segment.is_empty())
    }

    /// Whether `other` is this scope or lies below it.
    pub fn contains(&self, other: &ArmId) -> bool {
        self.is_root()
            || other
                .folded
                .strip_prefix(&*self.folded)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// This identifier with one or more segments after it.
    pub fn join(&self, suffix: &str) -> Result<Self, ArmIdError> {
        self.extended(suffix.split('/').filter(|segment| !segment.is_empty()))
    }

    /// This identifier with more segments after it, none of which may be empty.
    pub fn extended<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Result<Self, ArmIdError> {
        let above = if self.is_root() { "" } else { &*self.text };
        let mut text = String::with_capacity(above.len() + MORE_BYTES);
        text.push_str(above);
        // There is one slash before each segment.
        let count = above.bytes().filter(|byte| *byte == b'/').count();
        append(&mut text, count, segments)?;
        Ok(Self::of(text))
    }

    /// The identifier without its last segment; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let cut = self.text.rfind('/').unwrap_or(0);
        Some(if cut == 0 { Self::root() } else { Self::of(self.text[..cut].to_owned()) })
    }

    /// The folded forms of this scope and of every scope that contains it, from `/` down.
    pub fn folded_lineage(&self) -> impl Iterator<Item = &str> {
        let folded: &str = &self.folded;
        let inner = if self.is_root() { "" } else { folded };
        std::iter::once("/").chain(
            inner
                .bytes()
                .enumerate()
                .skip(1)
                .filter(|(_, byte)| *byte == b'/')
                .map(move |(at, _)| &folded[..at])
                .chain((!inner.is_empty()).then_some(folded)),
        )
    }

    pub fn subscription(&self) -> Option<&str> {
        let mut segments = self.segments();
        segments.next().filter(|first| first.eq_ignore_ascii_case("subscriptions"))?;
        segments.next()
    }

    pub fn resource_group(&self) -> Option<&str> {
        let mut segments = self.segments().skip(2);
        segments.next().filter(|third| third.eq_ignore_ascii_case("resourceGroups"))?;
        segments.next()
    }

    /// The identifier of the resource group that this resource is in, or is.
    pub fn resource_group_id(&self) -> Option<Self> {
        self.resource_group()?;
        Self::from_segments(self.segments().take(4)).ok()
    }

    /// The last segment.
    pub fn name(&self) -> &str {
        self.segments().next_back().unwrap_or("")
    }

    /// `Microsoft.KeyVault/vaults` for a vault; nested types join with `/`. `None` outside a provider.
    pub fn resource_type(&self) -> Option<String> {
        let all: Vec<&str> = self.segments().collect();
        let at = all.iter().rposition(|segment| segment.eq_ignore_ascii_case("providers"))?;
        let namespace = all.get(at + 1)?;
        let types: Vec<&str> = all[at + 2..].iter().step_by(2).copied().collect();
        Some(std::iter::once(*namespace).chain(types).collect::<Vec<_>>().join("/"))
    }
}

/// Adds segments to a text that has `count` of them.
fn append<'a>(
    text: &mut String,
    count: usize,
    segments: impl IntoIterator<Item = &'a str>,
) -> Result<(), ArmIdError> {
    for (more, segment) in segments.into_iter().enumerate() {
        if count + more >= SEGMENTS_MAX {
            return Err(ArmIdError("it has too many segments"));
        }
        if segment.is_empty() || segment == "." || segment == ".." {
            return Err(ArmIdError("a segment is empty or a dot segment"));
        }
        if segment.contains(|c: char| c == '/' || c.is_control()) {
            return Err(ArmIdError("a segment has a character that is not allowed"));
        }
        text.push('/');
        text.push_str(segment);
    }
    if text.len() > ID_BYTES_MAX { Err(ArmIdError("it is too long")) } else { Ok(()) }
}

impl PartialEq for ArmId {
    fn eq(&self, other: &Self) -> bool {
        self.folded == other.folded
    }
}

impl Eq for ArmId {}

impl Hash for ArmId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.folded.hash(state);
    }
}

impl fmt::Display for ArmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ArmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl serde::Serialize for ArmId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> serde::Deserialize<'de> for ArmId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ArmId {
        ArmId::parse(text).unwrap()
    }

    #[test]
    fn containment_is_by_whole_segments_and_without_case() {
        let group = id("/subscriptions/s/resourceGroups/rg");
        assert!(group.contains(&id("/SUBSCRIPTIONS/S/resourcegroups/RG/providers/a/b/c")));
        assert!(group.contains(&group));
        assert!(!group.contains(&id("/subscriptions/s/resourceGroups/rg2")));
        assert!(!id("/subscriptions/s/resourceGroups/rg2").contains(&group));
        assert!(ArmId::root().contains(&group));
        assert!(!group.contains(&ArmId::root()));
    }

    #[test]
    fn lineage_runs_from_the_root_down() {
        let scope = id("/Subscriptions/S/resourceGroups/rg");
        let lineage: Vec<_> = scope.folded_lineage().collect();
        assert_eq!(
            lineage,
            [
                "/",
                "/subscriptions",
                "/subscriptions/s",
                "/subscriptions/s/resourcegroups",
                "/subscriptions/s/resourcegroups/rg"
            ]
        );
        assert_eq!(ArmId::root().folded_lineage().collect::<Vec<_>>(), ["/"]);
    }

    #[test]
    fn parts_are_found_by_position() {
        let vault = id("/subscriptions/s/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/v");
        assert_eq!(vault.subscription(), Some("s"));
        assert_eq!(vault.resource_group(), Some("rg"));
        assert_eq!(vault.resource_type().as_deref(), Some("Microsoft.KeyVault/vaults"));
        assert_eq!(vault.name(), "v");
        assert_eq!(vault.resource_group_id(), Some(id("/subscriptions/s/resourceGroups/rg")));
    }

    #[test]
    fn hostile_identifiers_are_refused() {
        for text in ["", "a/b", "/a/../b", "/a/\u{0}b", &format!("/{}", "x".repeat(3000)), &"/a".repeat(70)] {
            assert!(ArmId::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(id("//a///b//").as_str(), "/a/b");
    }
}
