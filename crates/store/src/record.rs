//! Records: JSON with the number of its schema, brought up to date when read.

use arcadia_crypto::Wiped;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::StoreError;
use crate::backend::VALUE_BYTES_MAX;

/// What a table holds. Stored as `{"s":<schema>,"v":<value>}`.
///
/// Adding a field with `#[serde(default)]` needs no new schema. A change that an old value does not fit needs
/// `SCHEMA + 1` and an [`Record::upgrade`] that still knows every earlier number.
pub trait Record: Serialize + DeserializeOwned + Send + Sync + 'static {
    const SCHEMA: u32 = 1;

    /// Turns a value of schema `from` (always below [`Record::SCHEMA`]) into one of the present schema.
    fn upgrade(from: u32, value: Value) -> Result<Value, StoreError> {
        let _ = value;
        Err(StoreError::UnknownSchema { found: from, known: Self::SCHEMA })
    }
}

#[derive(Serialize)]
struct Outgoing<'a, V> {
    s: u32,
    v: &'a V,
}

#[derive(Deserialize)]
struct Schema {
    s: u32,
    #[serde(rename = "v")]
    _value: IgnoredAny,
}

#[derive(Deserialize)]
struct Incoming<V> {
    s: u32,
    v: V,
}

pub(crate) fn encode<V: Record>(table: &str, value: &V) -> Result<Wiped, StoreError> {
    let mut out = Wiped::from(Vec::with_capacity(1024));
    serde_json::to_writer(&mut *out, &Outgoing { s: V::SCHEMA, v: value })
        .map_err(|error| StoreError::record(table, "written as JSON", error))?;
    if out.len() > VALUE_BYTES_MAX {
        let found = out.len();
        return Err(StoreError::TooLarge { what: "a record's bytes", found, max: VALUE_BYTES_MAX });
    }
    Ok(out)
}

pub(crate) fn decode<V: Record>(table: &str, bytes: &[u8]) -> Result<V, StoreError> {
    // The usual case takes one pass, by the reader that takes half of the time over long texts. What it refuses is read
    // again by the one that decides.
    if let Ok(Incoming { s, v }) = sonic_rs::from_slice::<Incoming<V>>(bytes)
        && s == V::SCHEMA
    {
        return Ok(v);
    }
    match serde_json::from_slice::<Incoming<V>>(bytes) {
        Ok(Incoming { s, v }) if s == V::SCHEMA => Ok(v),
        read => decode_other(table, bytes, read.err()),
    }
}

/// What another version wrote, or nobody.
fn decode_other<V: Record>(
    table: &str,
    bytes: &[u8],
    fault: Option<serde_json::Error>,
) -> Result<V, StoreError> {
    let unreadable = |error: serde_json::Error| StoreError::record(table, "read", error);
    let Schema { s: schema, .. } = serde_json::from_slice(bytes).map_err(unreadable)?;
    if schema == V::SCHEMA
        && let Some(fault) = fault
    {
        return Err(unreadable(fault));
    }
    if schema > V::SCHEMA {
        let unknown = StoreError::UnknownSchema { found: schema, known: V::SCHEMA };
        return Err(StoreError::record(table, "read", unknown));
    }
    let old = serde_json::from_slice::<Incoming<Value>>(bytes).map_err(unreadable)?.v;
    let new = V::upgrade(schema, old).map_err(|error| StoreError::record(table, "upgraded", error))?;
    serde_json::from_value(new).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Person {
        given: String,
        family: String,
    }

    impl Record for Person {
        const SCHEMA: u32 = 3;

        fn upgrade(from: u32, mut value: Value) -> Result<Value, StoreError> {
            if from == 2 {
                value["family"] = json!("");
                return Ok(value);
            }
            Err(StoreError::UnknownSchema { found: from, known: Self::SCHEMA })
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let person = Person { given: "Nina".into(), family: "\u{0}\"".into() };
        let bytes = encode("people", &person).unwrap();
        assert!(bytes.starts_with(br#"{"s":3,"v":{"given":"Nina""#));
        assert_eq!(decode::<Person>("people", &bytes).unwrap(), person);
    }

    #[test]
    fn an_older_schema_is_brought_up_to_date() {
        let read = decode::<Person>("people", br#"{"s":2,"v":{"given":"Nina"}}"#).unwrap();
        assert_eq!(read, Person { given: "Nina".into(), family: String::new() });
    }

    #[test]
    fn unknown_schemas_and_junk_are_refused() {
        for bytes in [
            &br#"{"s":1,"v":{"given":"Nina"}}"#[..],
            br#"{"s":4,"v":{"given":"Nina","family":""}}"#,
            br#"{"s":3,"v":{"given":"Nina"}}"#,
            br#"{"s":3}"#,
            br#"{"v":{"given":"Nina","family":""}}"#,
            b"",
            br#"{"s":3,"v":{"given":"Nina","family":""}} "x""#,
        ] {
            let refused = decode::<Person>("people", bytes).unwrap_err();
            assert!(refused.to_string().contains("table people"), "{refused}");
        }
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Anything {
        text: String,
        any: Value,
    }

    impl Record for Anything {}

    fn any_json() -> impl Strategy<Value = Value> {
        let numbers = prop_oneof![
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            prop::num::f64::NORMAL.prop_map(Value::from),
            Just(json!([null, true, 1.0, 5e-324, 1e300])),
        ];
        let leaf = prop_oneof![numbers, ".{0,20}".prop_map(Value::from)];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,8}", inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn anything_is_read_as_it_was_written(text in ".{0,80}", any in any_json()) {
            let written = Anything { text, any };
            prop_assert_eq!(decode::<Anything>("any", &encode("any", &written).unwrap()).unwrap(), written);
        }
    }

    /// As deep as what clients may send.
    #[test]
    fn what_is_deep_is_read() {
        let any = (0..120).fold(json!("core"), |inner, _| json!({ "in": inner }));
        let written = Anything { text: String::new(), any };
        assert_eq!(decode::<Anything>("any", &encode("any", &written).unwrap()).unwrap(), written);
    }

    #[test]
    fn a_record_has_a_largest_size() {
        let person = Person { given: "x".repeat(VALUE_BYTES_MAX), family: String::new() };
        assert!(matches!(encode("people", &person), Err(StoreError::TooLarge { .. })));
    }
}
