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
    // The usual case takes one pass. Where it fails, the schema is looked at by itself.
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

    #[test]
    fn a_record_has_a_largest_size() {
        let person = Person { given: "x".repeat(VALUE_BYTES_MAX), family: String::new() };
        assert!(matches!(encode("people", &person), Err(StoreError::TooLarge { .. })));
    }
}
