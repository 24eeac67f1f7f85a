//! Fuzz target for the filters of lists.

use super::odata::{Field, Fields, Filter, Kind, Queried};

struct Thing;

impl Queried for Thing {
    const FIELDS: Fields =
        &[("displayName", Kind::Text), ("mail", Kind::Text), ("on", Kind::Flag), ("names", Kind::Texts)];

    fn field(&self, name: &str) -> Field<'_> {
        match name {
            "displayName" => Field::Text("O'Neil App".into()),
            "on" => Field::Flag(true),
            "names" => Field::Texts(vec!["a".into(), "api://x".into()]),
            _ => Field::Null,
        }
    }
}

arcadia_fuzz::target!(graph_filter, |data: &[u8]| filters_have_an_answer(data));

/// Every filter that is read has an answer, the opposite has the opposite one, and joining keeps to logic.
fn filters_have_an_answer(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let answer = |text: &str| Filter::parse(text, Thing::FIELDS).ok().map(|filter| filter.matches(&Thing));
    let Some(held) = answer(&text) else { return };
    for (joined, expected) in [
        (format!("not ({text})"), !held),
        (format!("({text}) and on eq true"), held),
        (format!("({text}) or on eq true"), true),
        (format!("on eq false and ({text})"), false),
    ] {
        // Larger than the bounds, it may be refused; it is never answered otherwise.
        assert!(answer(&joined).is_none_or(|answer| answer == expected), "{joined}");
    }
}
