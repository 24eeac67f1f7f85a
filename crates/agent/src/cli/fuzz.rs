//! Fuzz target for the files that the agent's commands read.

use super::config_file::read;
use crate::AgentConfig;

arcadia_fuzz::target!(agent_files, |data: &[u8]| flags_are_flags(data));

/// The file of `--config` gives flags and nothing that stands by itself; the agent's own file comes back as it was.
fn flags_are_flags(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(flags) = read(&text) {
        assert!(flags.iter().all(|flag| flag.starts_with("--")));
        assert!(flags.iter().map(String::len).sum::<usize>() <= 4 * text.len());
    }
    if let Ok(config) = serde_json::from_slice::<AgentConfig>(data) {
        let written = serde_json::to_vec(&config).unwrap();
        assert_eq!(serde_json::from_slice::<AgentConfig>(&written).unwrap(), config);
    }
}
