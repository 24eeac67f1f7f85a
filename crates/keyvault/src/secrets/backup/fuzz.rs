//! Fuzz target for what is given to a restore.

use std::sync::OnceLock;

use arcadia_crypto::{KeyRing, SystemEntropy};

use super::{MAGIC, VERSIONS_MAX, opened, sealed};
use crate::service::is_object_name;

const CONTENT: &str = r#"{"kind":"secret","subscription":"s","name":"n","latest":"v","versions":[{"secret":"00000000-0000-0000-0000-000000000000","version":"v","value":"x","facts":{"enabled":true,"created":1,"updated":1}}]}"#;

arcadia_fuzz::target!(backup_blob, |data: &[u8]| only_own_backups_open(data));

/// The first byte says how the rest is used: as a blob, as edits of a good one, or as content that this site sealed.
fn only_own_backups_open(data: &[u8]) {
    static GOOD: OnceLock<(KeyRing, String)> = OnceLock::new();
    let (ring, good) = GOOD.get_or_init(|| {
        let ring = KeyRing::generate(&SystemEntropy).unwrap();
        let good = sealed(&ring, CONTENT.as_bytes(), &SystemEntropy).unwrap();
        (ring, good)
    });
    let Some((how, rest)) = data.split_first() else { return };
    match how % 4 {
        0 => assert!(opened(ring, &String::from_utf8_lossy(rest)).is_none()),
        1 => {
            let blob = [MAGIC.as_bytes(), rest].concat();
            assert!(opened(ring, &arcadia_crypto::b64url(&blob)).is_none());
        }
        2 => {
            let edited = edited(good, rest);
            assert_eq!(opened(ring, &edited).is_some(), edited.trim_end_matches('=') == *good, "{edited}");
        }
        _ => {
            let blob = sealed(ring, rest, &SystemEntropy).unwrap();
            let Some(content) = opened(ring, &blob) else { return };
            assert!(content.kind == "secret" && is_object_name(&content.name));
            assert!((1..=VERSIONS_MAX).contains(&content.versions.len()));
            let again = sealed(ring, &serde_json::to_vec(&content).unwrap(), &SystemEntropy).unwrap();
            let again = opened(ring, &again).unwrap();
            assert_eq!(serde_json::to_value(&again).unwrap(), serde_json::to_value(&content).unwrap());
        }
    }
}

/// A place and the character that is written there, three bytes each.
fn edited(text: &str, edits: &[u8]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % bytes.len();
        match edit[2] {
            240.. => bytes.truncate(at.max(1)),
            224..240 => bytes.insert(at, b'A'),
            letter => bytes[at] = letter & 0x7f,
        }
    }
    String::from_utf8(bytes).unwrap()
}
