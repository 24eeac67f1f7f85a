//! How soon a site can serve, and what it has in memory when it does nothing.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::Bench;
use crate::process::{Meter, anonymous_bytes, resident_bytes};
use crate::row::{Bound, Round, Row};
use crate::site::Site;

const MEBIBYTE: f64 = 1024.0 * 1024.0;
/// A site is idle when it has used no processor time for this long.
const QUIET: Duration = Duration::from_secs(2);
const QUIET_WAIT_MAX: Duration = Duration::from_secs(30);

pub async fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let (mut first, mut again, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    let mut own = 0.0;
    for _ in 0..bench.rounds {
        let mut site = Site::start(&bench.arcadia, &bench.folder)?;
        first.push(Round::alone(site.first_start.as_secs_f64()));
        site.down()?;
        again.push(Round::alone(site.up()?.as_secs_f64()));
        settle(&site.meter(), bench.is_smoke).await?;
        memory.push(Round::alone(resident_bytes(site.id())? as f64 / MEBIBYTE));
        own = anonymous_bytes(site.id())? as f64 / MEBIBYTE;
    }
    Ok(vec![
        Row::new("cold start, first ever", "from the program's start to `ready`, site founded", "s")
            .gate(Bound::AtMost(0.5))
            .stretch(Bound::AtMost(0.1))
            .rounds(first),
        Row::new("cold start, again", "from the program's start to `ready`", "s")
            .gate(Bound::AtMost(0.2))
            .stretch(Bound::AtMost(0.1))
            .rounds(again),
        Row::new("memory of an idle site", "resident, after its second start", "MiB")
            .gate(Bound::AtMost(40.0))
            .rounds(memory)
            .note(format!("{own:.1} MiB of it anonymous")),
    ])
}

/// Waits until a process does nothing.
pub async fn settle(meter: &Meter, is_smoke: bool) -> Result<()> {
    let start = Instant::now();
    let mut before = meter.cpu()?;
    while !is_smoke && start.elapsed() < QUIET_WAIT_MAX {
        tokio::time::sleep(QUIET).await;
        let now = meter.cpu()?;
        if now == before {
            return Ok(());
        }
        before = now;
    }
    Ok(())
}
