//! Fuzz target for what the site answers to heartbeats.

use jiff::Timestamp;
use serde_json::Value;

use super::{Answer, TAGS_MAX, heard};
use crate::health::Heard;

arcadia_fuzz::target!(heartbeat_answer, |data: &[u8]| what_was_heard_is_kept(data));

/// What is kept has the site's own location, status and tags, bounded, is this machine's whatever the answer names, and
/// comes back from disk as it was.
fn what_was_heard_is_kept(data: &[u8]) {
    let Ok(answer) = serde_json::from_slice::<Answer>(data) else { return };
    let config = crate::config::tests::example();
    let heard = heard(answer, &config, Timestamp::UNIX_EPOCH);
    assert_eq!((&heard.resource_id, heard.vm_id), (&config.resource_id, config.vm_id));
    // What nobody looks at need not be text; and an answer may also be a list, in the order of the fields.
    if let Ok(said) = serde_json::from_slice::<Value>(data)
        && said.is_object()
        && said["resource"].is_object()
    {
        assert_eq!(said["status"].as_str(), Some(&*heard.status));
        assert_eq!(said["resource"]["location"].as_str(), Some(&*heard.location));
        let tags = said["resource"]["tags"].as_object();
        assert_eq!(tags.map_or(0, |tags| tags.len().min(TAGS_MAX)), heard.tags.len());
        assert!(heard.tags.iter().all(|(name, value)| tags.unwrap()[name] == **value));
    }
    let kept = serde_json::to_vec(&heard).unwrap();
    assert_eq!(serde_json::from_slice::<Heard>(&kept).unwrap(), heard);
}
