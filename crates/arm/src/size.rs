//! How much room JSON takes once it is written, without writing it.

use serde_json::Value;

/// What a number takes at most.
const NUMBER_BYTES_MAX: usize = 24;

/// The bytes of a value as JSON, or a few more. The depth is bounded by the parser that made it.
pub(crate) fn json_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => NUMBER_BYTES_MAX,
        Value::String(text) => text_bytes(text),
        Value::Array(items) => 2 + items.iter().map(|item| json_bytes(item) + 1).sum::<usize>(),
        Value::Object(fields) => {
            2 + fields.iter().map(|(name, value)| text_bytes(name) + json_bytes(value) + 2).sum::<usize>()
        }
    }
}

/// The bytes of a text as JSON: with its quotes, and what has to be escaped as long as it becomes.
pub(crate) fn text_bytes(text: &str) -> usize {
    let written = |byte: u8| match byte {
        b'"' | b'\\' => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    2 + text.bytes().map(written).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_never_less_than_what_is_written() {
        let every: String = (0..0x2100).filter_map(char::from_u32).collect();
        let value = json!({
            every.as_str(): [every, [], {}, null, true, false, 0, -1, u64::MAX, i64::MIN, 1e300, 5e-324],
            "nested": { "of": { "nothing": [[[{}]]] } },
        });
        let written = value.to_string().len();
        assert!((written..written + 256).contains(&json_bytes(&value)), "{written}");
        assert_eq!(json_bytes(&json!(["\u{1}\"a"])), json!(["\u{1}\"a"]).to_string().len() + 1);
    }
}
