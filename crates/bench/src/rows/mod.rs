//! The rows, by group. Each group starts what it needs and gives its rows.

mod blob;
mod comeback;
mod connection;
mod database;
mod decision;
mod growth;
mod machine;
mod machines;
mod secret;
mod start;
mod token;

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Result;

use crate::load::{Ask, Load, Loaded, Peer};
use crate::process::Meter;
use crate::row::Row;
use crate::site::Site;
use crate::trust::Certificates;

/// Connections of the load, unless a row says otherwise.
pub const CONNECTIONS: usize = 32;

/// What every group is handed.
pub struct Bench {
    /// The program that is measured.
    pub arcadia: PathBuf,
    /// A folder on the file system that is measured; removed at the end.
    pub folder: PathBuf,
    /// Of floors and peers.
    pub certificates: Certificates,
    pub rounds: usize,
    /// Of one measurement.
    pub time: Duration,
    /// Of each kind, in the large site of the rows of growth.
    pub objects: usize,
    /// Sizes are cut down, and figures mean nothing.
    pub is_smoke: bool,
}

impl Bench {
    pub fn site(&self) -> Result<Site> {
        Site::start(&self.arcadia, &self.folder)
    }

    /// `full`, or in a smoke run `smoke`.
    pub fn size(&self, full: usize, smoke: usize) -> usize {
        if self.is_smoke { smoke } else { full }
    }

    /// Load of the usual kind: keep-alive connections for the time of one measurement, answers of status 200.
    pub async fn load(
        &self,
        peer: &Peer,
        meter: &Meter,
        ask: impl Fn(u64) -> Ask + Send + Sync + 'static,
    ) -> Result<Loaded> {
        let load = Load::lasting(CONNECTIONS, self.time)?;
        load.run(peer, meter, http::StatusCode::OK, ask).await
    }
}

type Measuring<'a> = Pin<Box<dyn Future<Output = Result<Vec<Row>>> + 'a>>;

/// A group of rows.
pub struct Group {
    pub name: &'static str,
    pub measure: for<'a> fn(&'a Bench) -> Measuring<'a>,
}

/// In the order of the table.
pub const GROUPS: &[Group] = &[
    Group { name: "token", measure: |bench| Box::pin(token::measure(bench)) },
    Group { name: "secret", measure: |bench| Box::pin(secret::measure(bench)) },
    Group { name: "decision", measure: |bench| Box::pin(decision::measure(bench)) },
    Group { name: "connection", measure: |bench| Box::pin(connection::measure(bench)) },
    Group { name: "blob", measure: |bench| Box::pin(blob::measure(bench)) },
    Group { name: "database", measure: |bench| Box::pin(database::measure(bench)) },
    Group { name: "machine", measure: |bench| Box::pin(machine::measure(bench)) },
    Group { name: "start", measure: |bench| Box::pin(start::measure(bench)) },
    Group { name: "growth", measure: |bench| Box::pin(growth::measure(bench)) },
    Group { name: "growth of machines", measure: |bench| Box::pin(machines::measure(bench)) },
];
