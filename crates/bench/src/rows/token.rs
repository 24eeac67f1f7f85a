//! Tokens by client credentials.

use std::time::Duration;

use anyhow::{Context as _, Result};
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
        let ours = bench.load(&peer, &meter, move |_| again.clone()).await?;
        let bare = signature_micros(&key, bench.size(2000, 20))?;
        rounds.push(Round::pair(ours.cpu_micros(), bare));
        rates.push(ours.per_second());
    }
    let rate = crate::row::Middle::of(rates).context("at least one round")?.median;
    Ok(vec![
        Row::new(
            "client-credentials token",
            "POST /oauth2/v2.0/token over TLS, secret checked, token signed with RS256-2048, recorded: CPU",
            "us",
        )
        .ratio_to("one bare RS256-2048 signature")
        .gate(Bound::AtMost(1.25))
        .stretch(Bound::AtMost(1.10))
        .rounds(rounds)
        .lasting(bench.time)
        .note(format!("{rate:.0} tokens/s")),
    ])
}

/// The processor time of one signature.
fn signature_micros(key: &RsaKeyPair, count: usize) -> Result<f64> {
    let message = [b'x'; MESSAGE_BYTES];
    let before = thread_cpu()?;
    for _ in 0..count {
        std::hint::black_box(key.sign_rs256(&message)?);
    }
    let spent: Duration = thread_cpu()?.saturating_sub(before);
    Ok(spent.as_secs_f64() * 1e6 / count as f64)
}
