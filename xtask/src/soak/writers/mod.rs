//! Eight writers, each with keys of its own and a journal of what it was told.

mod assignments;
mod blobs;
mod groups;
mod rows;
mod secrets;
mod servers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use async_trait::async_trait;
use serde_json::Value;

use super::http::{Answer, Ask, Client, Silence};
use super::journal::{Counts, Journal};
use super::setup::World;

/// What takes time at the site, such as an asynchronous operation, has not ended when it takes longer.
pub const SETTLE_SECONDS_MAX: u64 = 90;
const POLL: Duration = Duration::from_millis(50);
/// Keys that did not change are looked at as well, so many at a time.
const MORE_KEYS: usize = 6;

/// Why a writer ends its turn.
#[derive(Debug)]
pub enum Trouble {
    /// Nobody answers.
    Silence(String),
    /// An answer that a writer does not get as long as all is well.
    Refused(String),
}

impl From<Silence> for Trouble {
    fn from(silence: Silence) -> Self {
        Self::Silence(silence.to_string())
    }
}

/// Everything a writer works with in one round.
pub struct Tools {
    pub world: Arc<World>,
    pub client: Client,
    pub random: fastrand::Rng,
    pub round: u64,
}

/// How much is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// What changed, and a few more.
    Changes,
    Everything,
}

impl Look {
    fn keys<V: Clone + PartialEq + std::fmt::Debug>(
        self,
        journal: &Journal<V>,
        random: &mut fastrand::Rng,
    ) -> Vec<String> {
        journal.to_verify(self == Self::Everything, MORE_KEYS, random)
    }
}

#[async_trait]
pub trait Writer: Send {
    fn name(&self) -> &'static str;

    /// Whether it hangs on a database server as well as on the site.
    fn needs_database(&self) -> bool {
        false
    }

    /// Whether the site's log has a record of each of its changes: not of what is written by SQL.
    fn is_recorded(&self) -> bool {
        true
    }

    /// Before a round begins, while all is well.
    async fn ready(&mut self, _world: &World) -> Result<()> {
        Ok(())
    }

    /// One change, of which the journal knows how it ended.
    async fn write(&mut self, tools: &mut Tools) -> Result<(), Trouble>;

    /// Compares the site with the journal; what does not fit, a line each.
    async fn verify(&mut self, tools: &mut Tools, look: Look) -> Result<Vec<String>>;

    fn counts(&self) -> Counts;
}

pub fn all() -> Vec<Box<dyn Writer>> {
    vec![
        Box::new(secrets::Secrets::new("secrets a")),
        Box::new(secrets::Secrets::new("secrets b")),
        Box::new(assignments::Assignments::new()),
        Box::new(groups::Groups::new()),
        Box::new(servers::Servers::new()),
        Box::new(blobs::Blobs::new("blobs", false)),
        Box::new(blobs::Blobs::new("blobs in blocks", true)),
        Box::new(rows::Rows::new()),
    ]
}

/// Sends one change of `key`, and notes what became of it.
async fn change<V: Clone + PartialEq + std::fmt::Debug>(
    journal: &mut Journal<V>,
    (key, to): (&str, Option<V>),
    client: &mut Client,
    ask: Ask,
) -> Result<Answer, Trouble> {
    journal.sending(key, to);
    match client.send(ask).await {
        Ok(answer) if answer.status.is_success() => {
            journal.acknowledged(key);
            Ok(answer)
        }
        Ok(answer) => {
            // A refusal promises that nothing was changed, whatever its status.
            journal.not_made(key);
            Err(Trouble::Refused(format!("{key}: {}", answer.told())))
        }
        Err(silence) => {
            if matches!(silence, Silence::Unsent(_)) {
                journal.not_made(key);
            }
            Err(silence.into())
        }
    }
}

/// The JSON of something, `None` where there is nothing.
async fn look_up(client: &mut Client, ask: Ask) -> Result<Option<Value>> {
    let answer = client.send(ask).await?;
    match answer.status.as_u16() {
        200 => Ok(Some(answer.json())),
        404 => Ok(None),
        _ => bail!("{}", answer.told()),
    }
}

/// Every page of a list.
async fn list(client: &mut Client, url: String, token: &str) -> Result<Vec<Value>> {
    let (mut items, mut next) = (Vec::new(), Some(url));
    while let Some(url) = next {
        let mut page = client.must(Ask::get(url).bearer(token)).await?;
        let values = page["value"].as_array_mut().map(std::mem::take);
        items.extend(values.context("a list without values")?);
        next = page["nextLink"].as_str().map(str::to_owned);
    }
    Ok(items)
}

/// How the operation at an `Azure-AsyncOperation` address ended.
async fn operation_end(client: &mut Client, token: &str, url: &str) -> Result<String, Trouble> {
    let began = Instant::now();
    loop {
        let answer = client.send(Ask::get(url).bearer(token)).await?;
        if !answer.status.is_success() {
            return Err(Trouble::Refused(format!("the operation {url}: {}", answer.told())));
        }
        let state = answer.json()["status"].as_str().unwrap_or_default().to_owned();
        if ["Succeeded", "Failed", "Canceled"].contains(&state.as_str()) {
            return Ok(if state == "Succeeded" { state } else { answer.told() });
        }
        if began.elapsed().as_secs() > SETTLE_SECONDS_MAX {
            return Ok(format!("{state} for {SETTLE_SECONDS_MAX} s"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// PUTs an asynchronous resource and waits for its end; for what has to be there before the writers begin.
pub async fn make(client: &mut Client, token: &str, url: &str, body: &Value) -> Result<()> {
    let answer = client.send(Ask::new(http::Method::PUT, url).bearer(token).json(body)).await?;
    ensure!(answer.status.is_success(), "{url}: {}", answer.told());
    if let Some(operation) = answer.header("azure-asyncoperation") {
        match operation_end(client, token, operation).await {
            Ok(end) => ensure!(end == "Succeeded", "{url}: {end}"),
            Err(trouble) => bail!("{url}: {trouble:?}"),
        }
    }
    Ok(())
}
