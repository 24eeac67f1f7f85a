//! Fuzz target for what an upstream proxy answers.

use std::sync::OnceLock;

use tokio::runtime::Runtime;

use super::{ANSWER_BYTES_MAX, read_answer};

arcadia_fuzz::target!(upstream_answer, |data: &[u8]| what_follows_the_answer_is_left(data));

/// A tunnel begins after an answer of success, exactly behind its empty line.
fn what_follows_the_answer_is_left(data: &[u8]) {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| tokio::runtime::Builder::new_current_thread().build().unwrap());
    let mut rest = data;
    let answer = runtime.block_on(read_answer(&mut rest));
    let read = &data[..data.len() - rest.len()];
    assert!(read.len() <= ANSWER_BYTES_MAX);
    let end = data.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
    match answer {
        Ok(()) => {
            assert_eq!(Some(read.len()), end);
            assert!(read.starts_with(b"HTTP/1.") && read.windows(2).any(|two| two == b" 2"));
            let line = read.split(|byte| *byte == b'\r').next().unwrap();
            let status = line.split(|byte| *byte == b' ').nth(1).unwrap();
            assert!(
                matches!(status, [b'2', b'0'..=b'9', b'0'..=b'9']),
                "{:?}",
                String::from_utf8_lossy(line)
            );
        }
        Err(error) => {
            let shown = error.to_string();
            assert!(shown.len() <= 4 * 100 + 64 && !shown.contains(char::is_control), "{shown:?}");
        }
    }
}
