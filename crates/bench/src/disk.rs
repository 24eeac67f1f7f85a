//! What the disk takes for the least durable write.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::row::Middle;

const RECORD_BYTES: usize = 600;
const APPENDS: usize = 200;

/// The median time of appending 600 bytes to a file and waiting until the disk has them, in microseconds.
pub fn append_micros(folder: &Path) -> Result<f64> {
    let path = folder.join("append");
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let mut times = Vec::with_capacity(APPENDS);
    for _ in 0..APPENDS {
        let start = Instant::now();
        file.write_all(&[b'x'; RECORD_BYTES])?;
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Middle::of(times).context("appends were measured")?.median)
}
