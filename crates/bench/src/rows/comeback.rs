//! All machines come back at once after a restart: each makes a new TLS connection and asks for a token.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use http::{StatusCode, header};
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Bench;
use crate::fleet::{Asker, Fleet, HEARTBEAT_RESOURCE, Machine};
use crate::load::{Ask, Peer, connect, send};
use crate::row::{Bound, Middle, Round, Row};
use crate::site::LOGIN;

/// How many the row is about.
const WANTED: usize = 10_000;
/// Connections at once; a listener takes 1024.
const AT_ONCE: usize = 512;
const SECONDS_MAX: f64 = 15.0;
const SECONDS_STRETCH: f64 = 8.0;
/// Each takes as long as many measurements of other rows.
const ROUNDS_MAX: usize = 3;
/// Who is not served by then is waited for no longer, and that misses the gate.
const PATIENCE: Duration = Duration::from_secs(60);
const SHOWN_CHARS_MAX: usize = 160;

pub async fn measure(bench: &Bench, fleet: &mut Fleet) -> Result<Vec<Row>> {
    let (mut served, mut wrong, mut told) = (Vec::new(), 0, String::new());
    let (mut ready, mut later, mut micros) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.rounds.min(ROUNDS_MAX) {
        let all = all(fleet).await?;
        served.push(Round::alone(all.seconds));
        wrong += all.wrong;
        ready.push(all.ready_seconds);
        later.push(all.later as f64);
        micros.push(all.cpu_micros);
        told = all.first_wrong.unwrap_or(told);
    }
    let (count, median) = (fleet.machines.len(), |all| Middle::of(all).map_or(0.0, |middle| middle.median));
    let (ready, later, micros) = (median(ready), median(later), median(micros));
    let fewer = if count < WANTED && !bench.is_smoke {
        format!("; filling {WANTED} takes too long here")
    } else {
        String::new()
    };
    let name = format!("{count} agents come back after a restart");
    let what = format!(
        "from the program's start until each has a token by its assertion over a TLS connection of its own, \
         {AT_ONCE} at once"
    );
    Ok(vec![
        Row::new(&name, what, "s")
            .gate(Bound::AtMost(SECONDS_MAX))
            .stretch(Bound::AtMost(SECONDS_STRETCH))
            .rounds(served)
            .note(format!(
                "`ready` after {ready:.1} s; {later:.0} were told to come again by 429 or 503 with Retry-After; CPU {micros:.0} us each, the \
                 clients' share of the processors beside it{fewer}"
            )),
        Row::new(format!("{name}: failures"), "any end but a token, or 429 or 503 with Retry-After", "clients")
            .gate(Bound::AtMost(0.0))
            // All rounds together: none may fail.
            .rounds(vec![Round::alone(wrong as f64)])
            .note(told),
    ])
}

struct All {
    /// Until the last one was served or given up.
    seconds: f64,
    /// Of it, until the program was ready.
    ready_seconds: f64,
    later: u64,
    wrong: u64,
    first_wrong: Option<String>,
    cpu_micros: f64,
}

async fn all(fleet: &mut Fleet) -> Result<All> {
    // Made before: on as many machines this work is done by as many processors.
    let machines = fleet.machines.iter();
    let asks = machines.map(|machine| Ok((machine.clone(), fleet.asker.token(machine, HEARTBEAT_RESOURCE)?)));
    let asks = asks.collect::<Result<Vec<_>>>()?;
    let count = asks.len() as f64;
    fleet.site.down()?;
    let start = Instant::now();
    let ready_seconds = fleet.site.up()?.as_secs_f64();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for (machine, ask) in asks {
        let client = Client {
            machine,
            asker: fleet.asker.clone(),
            peer: fleet.site.peer(LOGIN)?,
            places: places.clone(),
            later: 0,
        };
        running.spawn(client.come_back(ask, start + PATIENCE));
    }
    let (mut later, mut wrong, mut first_wrong) = (0, 0, None);
    while let Some(done) = running.join_next().await {
        let (told_later, served) = done?;
        later += told_later;
        if let Err(error) = served {
            wrong += 1;
            let text = || format!("{error:#}").chars().take(SHOWN_CHARS_MAX).collect();
            first_wrong.get_or_insert_with(text);
        }
    }
    let seconds = if wrong == 0 { start.elapsed() } else { PATIENCE }.as_secs_f64();
    let cpu_micros = fleet.site.meter().cpu()?.as_secs_f64() * 1e6 / count;
    Ok(All { seconds, ready_seconds, later, wrong, first_wrong, cpu_micros })
}

struct Client {
    machine: Machine,
    asker: Asker,
    peer: Peer,
    places: Arc<Semaphore>,
    /// How often it was told to come again.
    later: u64,
}

enum Told {
    Token,
    Later(Duration),
}

impl Client {
    async fn come_back(mut self, ask: Ask, until: Instant) -> (u64, Result<()>) {
        let served = tokio::time::timeout_at(until.into(), self.ask_until_served(ask)).await;
        let served = served.context("not served in time").and_then(|served| served);
        (self.later, served)
    }

    async fn ask_until_served(&mut self, mut ask: Ask) -> Result<()> {
        loop {
            let told = {
                let _place = self.places.acquire().await?;
                once(&self.peer, ask).await?
            };
            let Told::Later(after) = told else { return Ok(()) };
            self.later += 1;
            tokio::time::sleep(after).await;
            // As an agent does: an assertion is good once.
            ask = self.asker.token(&self.machine, HEARTBEAT_RESOURCE)?;
        }
    }
}

/// A new connection, and one request.
async fn once(peer: &Peer, ask: Ask) -> Result<Told> {
    let (head, body) = send(&mut connect(peer).await?, peer, ask).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    let told = String::from_utf8_lossy(&body);
    let after = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    match (head.status, after) {
        (StatusCode::OK, _) if told.contains("\"access_token\"") => Ok(Told::Token),
        (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, Some(seconds)) => {
            Ok(Told::Later(Duration::from_secs(seconds)))
        }
        (status, _) => anyhow::bail!("{status} {told}"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::loopback::LoopbackTarget;
    use crate::trust::trusting;

    /// Gives these answers, a connection each.
    async fn server(answers: &'static [&'static str]) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = LoopbackTarget::new(false, listener.local_addr().unwrap().port()).unwrap();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !is_whole(&request) {
                    assert!(stream.read_buf(&mut request).await.unwrap() > 0);
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Peer { target, name: "localhost".to_owned(), trust: trusting([]).unwrap() }
    }

    /// Closed before it is read to its end, a connection is reset, and the answer may be lost with it.
    fn is_whole(request: &[u8]) -> bool {
        let text = String::from_utf8_lossy(request).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap();
        body.len() == length.trim().parse::<usize>().unwrap()
    }

    async fn come_back(answers: &'static [&'static str], patience: Duration) -> (u64, Result<()>) {
        let (asker, machine) = (Asker::for_tests(), Machine::for_tests());
        let ask = asker.token(&machine, HEARTBEAT_RESOURCE).unwrap();
        let (peer, places) = (server(answers).await, Arc::new(Semaphore::new(1)));
        let client = Client { machine, asker, peer, places, later: 0 };
        client.come_back(ask, Instant::now() + patience).await
    }

    const TOKEN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 18\r\n\r\n{\"access_token\":1}";
    const LATER: &str = "HTTP/1.1 503 Busy\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n";

    #[tokio::test]
    async fn who_is_told_to_come_again_does() {
        let (later, served) = come_back(&[LATER, LATER, TOKEN], PATIENCE).await;
        served.unwrap();
        assert_eq!(later, 2);
    }

    #[tokio::test]
    async fn any_other_end_is_a_failure() {
        for wrong in [
            "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 No\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
            "",
        ] {
            assert!(come_back(Box::leak(Box::new([wrong])), PATIENCE).await.1.is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn nobody_is_waited_for_without_end() {
        let (_, served) = come_back(&[LATER], Duration::ZERO).await;
        assert!(format!("{:#}", served.unwrap_err()).contains("not served in time"));
    }
}
