//! Tokens by client credentials.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use arcadia_crypto::{RsaBits, RsaKeyPair};

use super::Bench;
use crate::process::thread_cpu;
use crate::row::{Bound, Round, Row};
use crate::site::{LOGIN, VAULT_SCOPE};

const MESSAGE_BYTES: usize = 900;

pub async fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let site = bench.site()?;
    let application = site.make_application("bench").await?;
    let ask = site.token_ask(&application.app_id, &application.secret, VAULT_SCOPE)?;
    let (peer, meter) = (site.peer(LOGIN)?, site.meter());
    let key = RsaKeyPair::generate(RsaBits::Bits2048)?;
    let mut rounds = Vec::new();
    let mut rates = Vec::new();
    for _ in 0..bench.rounds {
        let again = ask.clone();
        // What a signature takes changes by a third from one second to the next: so before and after.
        let before = signature_micros(&key, bench.size(1000, 10))?;
        let ours = bench.load(&peer, &meter, move |_| again.clone()).await?;
        let after = signature_micros(&key, bench.size(1000, 10))?;
        rounds.push(Round::pair(ours.cpu_micros(), (before + after) / 2.0));
        rates.push(ours.per_second());
    }
    let rate = crate::row::Middle::of(rates).context("at least one round")?.median;
    Ok(vec![
        Row::new(
            "client-credentials token",
            "POST /oauth2/v2.0/token over TLS, secret checked, token signed with RS256-2048, recorded: CPU",
            "us",
        )
        .ratio_to("one bare RS256-2048 signature, on all processors at once")
        .gate(Bound::AtMost(1.25))
        .stretch(Bound::AtMost(1.10))
        .rounds(rounds)
        .lasting(bench.time)
        .note(format!("{rate:.0} tokens/s")),
    ])
}

/// The processor time of one signature, on all processors at once, as beside it the load has them.
fn signature_micros(key: &RsaKeyPair, count: usize) -> Result<f64> {
    let threads = std::thread::available_parallelism()?.get();
    let spent = std::thread::scope(|scope| {
        let signing: Vec<_> = (0..threads).map(|_| scope.spawn(|| signatures(key, count))).collect();
        signing
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread ended early"))?)
            .sum::<Result<Duration>>()
    })?;
    Ok(spent.as_secs_f64() * 1e6 / (count * threads) as f64)
}

/// The processor time of this many.
fn signatures(key: &RsaKeyPair, count: usize) -> Result<Duration> {
    let message = [b'x'; MESSAGE_BYTES];
    let before = thread_cpu()?;
    for _ in 0..count {
        std::hint::black_box(key.sign_rs256(&message)?);
    }
    Ok(thread_cpu()?.saturating_sub(before))
}
