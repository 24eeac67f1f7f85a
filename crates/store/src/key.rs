//! Keys: ordered bytes, such that byte order is the order of the tuple they were made from.
//!
//! A row's key is `<table name> 00 <component> <component> ...`. Text is written with `00` as `00 FF` and ends
//! with `00 01`, so no text is a prefix of another and shorter sorts first. Numbers and UUIDs have a fixed
//! width. A resource identifier is its folded segments, each written as text, with nothing after the last, so
//! that a parent is a prefix of its children; a component that follows one is set off by a single `00`, which
//! no segment starts with.

use std::fmt;
use std::marker::PhantomData;

use arcadia_kernel::ArmId;
use uuid::Uuid;

/// The longest table name, in bytes.
const TABLE_NAME_BYTES_MAX: usize = 64;

/// A typed table: rows of `V` under keys of `K`.
///
/// ```
/// use arcadia_store::{Record, Table};
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Vault { location: String }
/// impl Record for Vault {}
/// const VAULTS: Table<str, Vault> = Table::new("vaults");
/// ```
pub struct Table<K: ?Sized, V> {
    name: &'static str,
    types: PhantomData<fn(&K) -> V>,
}

impl<K: ?Sized, V> Table<K, V> {
    /// Panics (in a constant: at compile time) when the name is empty, too long or contains NUL.
    pub const fn new(name: &'static str) -> Self {
        let bytes = name.as_bytes();
        assert!(!bytes.is_empty() && bytes.len() <= TABLE_NAME_BYTES_MAX, "a table name has 1 to 64 bytes");
        let mut at = 0;
        while at < bytes.len() {
            assert!(bytes[at] != 0, "a table name has no NUL");
            at += 1;
        }
        Self { name, types: PhantomData }
    }

    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The full bytes of a row's key, as [`crate::Change::key`] has them; for a leading part of the
    /// components, the prefix of the rows below it.
    pub fn key_bytes<P: Key + ?Sized>(&self, key: &P) -> Vec<u8> {
        let mut out = KeyWriter::of_table(self.name);
        key.write(&mut out);
        out.bytes
    }
}

impl<K: ?Sized, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: ?Sized, V> Copy for Table<K, V> {}

impl<K: ?Sized, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({})", self.name)
    }
}

/// What a row is found by.
pub trait Key: Sync {
    fn write(&self, out: &mut KeyWriter);
}

/// Takes the components of a key, in order.
pub struct KeyWriter {
    bytes: Vec<u8>,
    /// The last component was a path, whose end is only marked when something follows it.
    after_path: bool,
}

impl KeyWriter {
    pub(crate) fn of_table(name: &str) -> Self {
        let mut bytes = Vec::with_capacity(name.len() + 64);
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        Self { bytes, after_path: false }
    }

    /// Text, as it is: fold it yourself where case does not count.
    pub fn text(&mut self, text: &str) {
        self.end_path();
        self.escaped(text);
    }

    /// Eight bytes, big endian.
    pub fn u64(&mut self, number: u64) {
        self.end_path();
        self.bytes.extend_from_slice(&number.to_be_bytes());
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self, id: Uuid) {
        self.end_path();
        self.bytes.extend_from_slice(id.as_bytes());
    }

    fn path(&mut self, id: &ArmId) {
        self.end_path();
        for segment in id.folded().split('/').filter(|segment| !segment.is_empty()) {
            self.escaped(segment);
        }
        self.after_path = true;
    }

    fn end_path(&mut self) {
        if std::mem::take(&mut self.after_path) {
            self.bytes.push(0);
        }
    }

    fn escaped(&mut self, text: &str) {
        for byte in text.bytes() {
            self.bytes.push(byte);
            if byte == 0 {
                self.bytes.push(0xFF);
            }
        }
        self.bytes.extend_from_slice(&[0, 1]);
    }
}

impl Key for str {
    fn write(&self, out: &mut KeyWriter) {
        out.text(self);
    }
}

impl Key for String {
    fn write(&self, out: &mut KeyWriter) {
        out.text(self);
    }
}

impl Key for u64 {
    fn write(&self, out: &mut KeyWriter) {
        out.u64(*self);
    }
}

impl Key for Uuid {
    fn write(&self, out: &mut KeyWriter) {
        out.uuid(*self);
    }
}

/// As a prefix it matches the identifier itself and everything below it; `(id, ())` matches only the keys that
/// have exactly this identifier and then a further component.
impl Key for ArmId {
    fn write(&self, out: &mut KeyWriter) {
        out.path(self);
    }
}

/// Nothing: the prefix of a whole table. After an [`ArmId`] it marks that the identifier ends there.
impl Key for () {
    fn write(&self, out: &mut KeyWriter) {
        out.end_path();
    }
}

impl<K: Key + ?Sized> Key for &K {
    fn write(&self, out: &mut KeyWriter) {
        (**self).write(out);
    }
}

macro_rules! tuple_key {
    ($($part:ident $at:tt),+) => {
        impl<$($part: Key),+> Key for ($($part,)+) {
            fn write(&self, out: &mut KeyWriter) {
                $(self.$at.write(out);)+
            }
        }
    };
}

tuple_key!(A 0);
tuple_key!(A 0, B 1);
tuple_key!(A 0, B 1, C 2);
tuple_key!(A 0, B 1, C 2, D 3);

/// A segment of an [`ArmId`] as it is in keys, with what separates it from those around it.
pub(crate) fn segment_bytes(segment: &str) -> Vec<u8> {
    let mut writer = KeyWriter { bytes: vec![0, 1], after_path: false };
    writer.escaped(&segment.to_ascii_lowercase());
    writer.bytes
}

/// The name of the table that a full key belongs to.
pub(crate) fn table_of(key: &[u8]) -> &str {
    let end = key.iter().position(|byte| *byte == 0).unwrap_or(key.len());
    std::str::from_utf8(&key[..end]).unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXTS: Table<str, ()> = Table::new("t");

    fn bytes<K: Key + ?Sized>(key: &K) -> Vec<u8> {
        TEXTS.key_bytes(key)
    }

    fn id(text: &str) -> ArmId {
        ArmId::parse(text).unwrap()
    }

    /// Short texts over few characters, so that equal and nearly equal ones are common.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            proptest::collection::vec(
                prop_oneof![Just('\0'), Just('\u{1}'), Just('a'), Just('b'), Just('\u{7f}'), Just('ÿ')],
                0..5
            )
            .prop_map(|chars| chars.into_iter().collect()),
            any::<String>(),
        ]
    }

    fn segments() -> impl Strategy<Value = Vec<String>> {
        proptest::collection::vec("[ab !]{1,3}", 0..4)
    }

    fn path(segments: &[String]) -> ArmId {
        ArmId::from_segments(segments.iter().map(String::as_str)).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn byte_order_is_tuple_order(
            left in (text(), any::<u8>(), text()),
            right in (text(), any::<u8>(), text()),
        ) {
            let key = |(a, b, c): &(String, u8, String)| bytes(&(a.clone(), u64::from(*b), c.clone()));
            prop_assert_eq!(key(&left).cmp(&key(&right)), left.cmp(&right));
        }

        #[test]
        fn text_order_is_byte_order(left in text(), right in text()) {
            prop_assert_eq!(bytes(&left).cmp(&bytes(&right)), left.cmp(&right));
        }

        #[test]
        fn a_leading_component_is_a_prefix_of_exactly_its_keys(a in text(), other in text(), b in text()) {
            let prefix = bytes(&(a.clone(),));
            prop_assert!(bytes(&(a.clone(), b.clone())).starts_with(&prefix));
            prop_assert_eq!(bytes(&(other.clone(), b)).starts_with(&prefix), other == a);
        }

        #[test]
        fn path_order_is_segment_order_and_containment_is_prefix(
            left in (segments(), text()),
            right in (segments(), text()),
        ) {
            let (a, b) = (path(&left.0), path(&right.0));
            prop_assert_eq!(bytes(&a).cmp(&bytes(&b)), left.0.cmp(&right.0));
            prop_assert_eq!(bytes(&b).starts_with(&bytes(&a)), a.contains(&b));
            let key = |id: &ArmId, name: &String| bytes(&(id.clone(), name.clone()));
            prop_assert_eq!(key(&a, &left.1).cmp(&key(&b, &right.1)), left.cmp(&right));
            prop_assert_eq!(key(&b, &right.1).starts_with(&bytes(&a)), a.contains(&b));
            prop_assert_eq!(key(&b, &right.1).starts_with(&bytes(&(a.clone(), ()))), a == b);
        }

        #[test]
        fn two_paths_in_one_key_do_not_run_together(
            left in (segments(), segments()),
            right in (segments(), segments()),
        ) {
            let key = |(a, b): &(Vec<String>, Vec<String>)| bytes(&(path(a), path(b)));
            prop_assert_eq!(key(&left).cmp(&key(&right)), left.cmp(&right));
        }
    }

    #[test]
    fn the_encoding_on_disk_does_not_change() {
        assert_eq!(bytes("a\0b"), b"t\0a\0\xFFb\0\x01");
        assert_eq!(bytes(&(7_u64, "x")), b"t\0\0\0\0\0\0\0\0\x07x\0\x01");
        assert_eq!(bytes(&Uuid::from_u128(1)), [&b"t\0"[..], &[0; 15], &[1]].concat());
        assert_eq!(bytes(&id("/Sub/RG")), b"t\0sub\0\x01rg\0\x01");
        assert_eq!(bytes(&(id("/Sub"), "n")), b"t\0sub\0\x01\0n\0\x01");
        assert_eq!(bytes(&()), b"t\0");
        assert_eq!(table_of(&bytes("a")), "t");
    }

    #[test]
    fn identifiers_compare_without_case() {
        assert_eq!(bytes(&id("/Subscriptions/S")), bytes(&id("/subscriptions/s")));
    }
}
