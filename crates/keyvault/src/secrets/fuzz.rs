//! Fuzz targets for bodies about secrets.

use super::input::{ChangeBody, SetBody};
use crate::version::ApiVersion;

const NOW: i64 = 1_795_262_400;

arcadia_fuzz::target!(secret_body, |data: &[u8]| what_is_kept_is_bounded(data));

fn what_is_kept_is_bounded(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if text.parse::<ApiVersion>().is_ok() {
        assert!(text.is_ascii() && text.len() <= 40);
    }
    let Ok(Ok((value, mut facts))) = serde_json::from_slice::<SetBody>(data).map(|body| body.checked(NOW))
    else {
        return;
    };
    assert!(value.len() <= 25 * 1024);
    let checked = |facts: &crate::records::Facts| {
        assert!(facts.content_type.as_ref().is_none_or(|text| text.chars().count() <= 255));
        assert!(facts.tags.as_ref().is_none_or(|tags| tags.len() <= 15));
        assert!(
            [facts.not_before, facts.expires].iter().flatten().all(|at| (0..=253_402_300_799).contains(at))
        );
    };
    checked(&facts);
    // Whatever PUT takes, PATCH takes, and changes nothing by it.
    let change: ChangeBody = serde_json::from_slice(data).unwrap();
    let before =
        format!("{:?}", (&facts.content_type, &facts.tags, facts.enabled, facts.not_before, facts.expires));
    change.apply(&mut facts, NOW).unwrap();
    checked(&facts);
    let after =
        format!("{:?}", (&facts.content_type, &facts.tags, facts.enabled, facts.not_before, facts.expires));
    assert_eq!(before, after);
}
