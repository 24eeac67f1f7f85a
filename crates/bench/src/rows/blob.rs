//! Blobs, put and got by a principal of a data role.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use http::StatusCode;

use super::{Bench, CONNECTIONS};
use crate::azurite::{self, Azurite};
use crate::blob_site::{BlobSite, blob};
use crate::load::{Ask, Load, Loaded, Peer};
use crate::nginx::{self, Nginx};
use crate::process::{Meter, anonymous_bytes};
use crate::row::{Bound, Middle, Round, Row};

const SMALL_BYTES: usize = 4096;
const LARGE_BYTES: usize = 8 * 1024 * 1024;
const MEBIBYTE: f64 = 1024.0 * 1024.0;
/// Large blobs at once: enough to keep both processors busy.
const LARGE_CONNECTIONS: usize = 8;
const STREAMS: usize = 32;
const SAMPLE: Duration = Duration::from_millis(20);
const CONTAINER: &str = "bench";

pub async fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let ours = BlobSite::start(&bench.arcadia, &bench.folder).await?;
    ours.make_container(CONTAINER).await?;
    ours.must(ours.put("/bench/small", pattern(SMALL_BYTES))?).await?;
    ours.must(ours.put("/bench/large", pattern(LARGE_BYTES))?).await?;
    let files = tempfile::Builder::new().prefix("files").tempdir_in(&bench.folder)?;
    fs::write(files.path().join("blob-small"), pattern(SMALL_BYTES))?;
    fs::write(files.path().join("blob-large"), pattern(LARGE_BYTES))?;
    let nginx =
        if nginx::is_installed() { Some(Nginx::start(&bench.certificates, files.path())?) } else { None };
    let azurite = Azurite::start(&bench.folder)?;
    if let Some(azurite) = &azurite {
        azurite.put("/bench", "restype=container", Vec::new()).await?;
        azurite.put("/bench/small", "", pattern(SMALL_BYTES)).await?;
    }
    let mut rows = small(bench, &ours, nginx.as_ref(), azurite.as_ref()).await?;
    rows.extend(large(bench, &ours, nginx.as_ref()).await?);
    rows.extend(writes(bench, &ours, azurite.as_ref()).await?);
    Ok(rows)
}

/// Bytes that do not repeat soon.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

async fn same(bench: &Bench, peer: &Peer, meter: &Meter, ask: Ask) -> Result<Loaded> {
    bench.load(peer, meter, move |_| ask.clone()).await
}

/// Requests that a second of processor time is good for.
fn per_cpu_second(loaded: &Loaded) -> f64 {
    1e6 / loaded.cpu_micros()
}

async fn small(
    bench: &Bench,
    ours: &BlobSite,
    nginx: Option<&Nginx>,
    azurite: Option<&Azurite>,
) -> Result<Vec<Row>> {
    let (mut cpu, mut rate, mut beside_azurite) = (Vec::new(), Vec::new(), Vec::new());
    let mut micros = Vec::new();
    for _ in 0..bench.rounds {
        let got = same(bench, &ours.peer()?, &ours.site.meter(), ours.get("/bench/small")?).await?;
        micros.push(got.cpu_micros());
        if let Some(nginx) = nginx {
            let theirs = same(bench, &nginx.peer()?, &nginx.meter()?, Ask::get("/blob-small")).await?;
            cpu.push(Round::pair(per_cpu_second(&got), per_cpu_second(&theirs)));
            rate.push(Round::pair(got.per_second(), theirs.per_second()));
        }
        if let Some(azurite) = azurite {
            let ask = Ask::get(Azurite::path("/bench/small", ""));
            let theirs = same(bench, &azurite.peer()?, &azurite.meter(), ask).await?;
            beside_azurite.push(Round::pair(got.per_second(), theirs.per_second()));
        }
    }
    let what = "over TLS, token known, decided, unsealed, recorded durably";
    let micros = Middle::of(micros).context("at least one round")?.median;
    Ok(vec![
        Row::new("blob GET 4 KiB: CPU", what, "requests/CPU s")
            .ratio_to("nginx, the same file over TLS")
            .gate(Bound::AtLeast(0.5))
            .stretch(Bound::AtLeast(0.7))
            .rounds(cpu)
            .lasting(bench.time)
            .note(format!("CPU {micros:.0} us")),
        Row::new("blob GET 4 KiB: rate", what, "/s")
            .ratio_to("nginx, the same file over TLS")
            .gate(Bound::AtLeast(0.5))
            .stretch(Bound::AtLeast(0.7))
            .rounds(rate)
            .lasting(bench.time),
        Row::new("blob GET 4 KiB beside azurite", what, "/s")
            .ratio_to("azurite, without TLS")
            .gate(Bound::AtLeast(15.0))
            .rounds(beside_azurite)
            .lasting(bench.time),
    ])
}

async fn large(bench: &Bench, ours: &BlobSite, nginx: Option<&Nginx>) -> Result<Vec<Row>> {
    let load = Load::lasting(LARGE_CONNECTIONS, bench.time)?;
    let (mut rates, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let ask = ours.get("/bench/large")?;
        let got = load.run(&ours.peer()?, &ours.site.meter(), StatusCode::OK, move |_| ask.clone()).await?;
        if let Some(nginx) = nginx {
            let ask = Ask::get("/blob-large");
            let theirs =
                load.run(&nginx.peer()?, &nginx.meter()?, StatusCode::OK, move |_| ask.clone()).await?;
            rates.push(Round::pair(bytes_per_second(&got), bytes_per_second(&theirs)));
        }
        memory.push(Round::alone(memory_of_a_stream(bench, ours).await?));
    }
    Ok(vec![
        Row::new("blob GET 8 MiB", "over TLS, decided, unsealed, recorded durably; 8 at once", "MB/s")
            .ratio_to("nginx, the same file over TLS")
            .gate(Bound::AtLeast(0.8))
            .stretch(Bound::AtLeast(0.95))
            .rounds(rates)
            .lasting(bench.time),
        Row::new(
            "blob GET 8 MiB: memory",
            "the site's most beyond what it had before, each of 32 streams",
            "MiB",
        )
        .gate(Bound::AtMost(1.0))
        .rounds(memory)
        .lasting(bench.time),
    ])
}

fn bytes_per_second(loaded: &Loaded) -> f64 {
    loaded.body_bytes as f64 / loaded.elapsed.as_secs_f64() / 1e6
}

async fn memory_of_a_stream(bench: &Bench, ours: &BlobSite) -> Result<f64> {
    let id = ours.site.id();
    let before = anonymous_bytes(id)?;
    let (ask, load) = (ours.get("/bench/large")?, Load::lasting(STREAMS, bench.time)?);
    let until = Instant::now() + bench.time;
    let sampling = tokio::spawn(async move {
        let mut most = before;
        while Instant::now() < until {
            most = most.max(anonymous_bytes(id)?);
            tokio::time::sleep(SAMPLE).await;
        }
        anyhow::Ok(most)
    });
    load.run(&ours.peer()?, &ours.site.meter(), StatusCode::OK, move |_| ask.clone()).await?;
    Ok((sampling.await??.saturating_sub(before)) as f64 / MEBIBYTE / STREAMS as f64)
}

async fn writes(bench: &Bench, ours: &BlobSite, azurite: Option<&Azurite>) -> Result<Vec<Row>> {
    let load = Load::lasting(CONNECTIONS, bench.time)?;
    let (mut beside_floor, mut beside_azurite, mut micros, mut latency) = (vec![], vec![], vec![], vec![]);
    let mut number = 0;
    for _ in 0..bench.rounds {
        let (first, ask) = (number, ours.put("", pattern(SMALL_BYTES))?);
        let put = load
            .run(&ours.peer()?, &ours.site.meter(), StatusCode::CREATED, move |n| Ask {
                path: blob(CONTAINER, first + n),
                ..ask.clone()
            })
            .await?;
        micros.push(put.cpu_micros());
        latency.push(put.quantile_millis(0.5));
        let files = tempfile::Builder::new().prefix("floor").tempdir_in(&bench.folder)?;
        let floor = synced_files(files.path(), CONNECTIONS, bench.time)?;
        beside_floor.push(Round::pair(put.per_second(), floor));
        if let Some(azurite) = azurite {
            let ask = azurite::put_ask(String::new(), pattern(SMALL_BYTES))?;
            let theirs = load
                .run(&azurite.peer()?, &azurite.meter(), StatusCode::CREATED, move |n| Ask {
                    path: Azurite::path(&blob(CONTAINER, first + n), ""),
                    ..ask.clone()
                })
                .await?;
            beside_azurite.push(Round::pair(put.per_second(), theirs.per_second()));
        }
        number += put.requests();
    }
    let (micros, latency) = (median(micros)?, median(latency)?);
    let what = "32 writers over TLS, bytes and row durable before the answer";
    Ok(vec![
        Row::new("blob PUT 4 KiB", what, "/s")
            .ratio_to("32 threads: a file each time, and fsync")
            .gate(Bound::AtLeast(1.5))
            .rounds(beside_floor)
            .lasting(bench.time)
            .note(format!("CPU {micros:.0} us, median latency {latency:.1} ms")),
        Row::new("blob PUT 4 KiB beside azurite", what, "/s")
            .ratio_to("azurite, without TLS, not synced, nearly empty")
            .gate(Bound::AtLeast(10.0))
            .rounds(beside_azurite)
            .lasting(bench.time),
    ])
}

fn median(figures: Vec<f64>) -> Result<f64> {
    Ok(Middle::of(figures).context("at least one round")?.median)
}

/// Files of 4 KiB that so many threads write and sync, each second.
fn synced_files(folder: &Path, threads: usize, time: Duration) -> Result<f64> {
    let bytes = pattern(SMALL_BYTES);
    let start = Instant::now();
    let counts = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..threads)
            .map(|thread| {
                let bytes = &bytes;
                scope.spawn(move || {
                    let mut count = 0_u64;
                    while start.elapsed() < time {
                        let mut file = fs::File::create(folder.join(format!("{thread}-{count}")))?;
                        file.write_all(bytes)?;
                        file.sync_all()?;
                        count += 1;
                    }
                    anyhow::Ok(count)
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap_or(Ok(0))).collect::<Result<Vec<u64>>>()
    })?;
    Ok(counts.iter().sum::<u64>() as f64 / start.elapsed().as_secs_f64())
}
