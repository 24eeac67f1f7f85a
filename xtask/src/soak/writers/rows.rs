//! Rows of a table in PostgreSQL: several in one transaction, all there or none.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use super::{Look, SETTLE_SECONDS_MAX, Tools, Trouble, Writer};
use crate::soak::journal::{Counts, Journal};
use crate::soak::setup::{DATABASE, TABLE, World};

const ROWS_MAX: u64 = 6;
const ANSWER: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);

/// One `psql` that is told one transaction after another, and says when each is committed.
struct Session {
    _child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Session {
    async fn open(world: &World) -> Result<Self, Trouble> {
        let silence = |error: std::io::Error| Trouble::Silence(error.to_string());
        let mut command = world.psql(DATABASE);
        let mut child = command
            .args(["--set", "ON_ERROR_STOP=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(silence)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Trouble::Silence("psql has no pipes".to_owned()));
        };
        let mut session = Self { _child: child, input, lines: BufReader::new(output).lines() };
        session.tell("SELECT 'hello';\n", "hello").await?;
        Ok(session)
    }

    /// Sends statements and waits for the line that the last of them prints.
    async fn tell(&mut self, statements: &str, last: &str) -> Result<(), Trouble> {
        let silence = |error: std::io::Error| Trouble::Silence(format!("psql: {error}"));
        self.input.write_all(statements.as_bytes()).await.map_err(silence)?;
        self.input.flush().await.map_err(silence)?;
        let line = tokio::time::timeout(ANSWER, self.lines.next_line()).await;
        match line.map_err(|_| Trouble::Silence("psql says nothing".to_owned()))?.map_err(silence)? {
            Some(line) if line == last => Ok(()),
            Some(line) => Err(Trouble::Refused(format!("psql said {line}"))),
            None => Err(Trouble::Silence("psql ended".to_owned())),
        }
    }
}

pub struct Rows {
    /// A transaction's number and how many rows it wrote.
    journal: Journal<u64>,
    session: Option<Session>,
    written: u64,
}

impl Rows {
    pub fn new() -> Self {
        Self { journal: Journal::new(), session: None, written: 0 }
    }

    async fn transact(&mut self, tools: &mut Tools) -> Result<(), Trouble> {
        self.written += 1;
        let (batch, rows) = (self.written, tools.random.u64(1..=ROWS_MAX));
        let inserts: String = (0..rows)
            .map(|row| format!("INSERT INTO {TABLE} VALUES ({batch}, {row}, md5('{batch}.{row}'));\n"))
            .collect();
        let Some(session) = &mut self.session else {
            return Err(Trouble::Silence("there is no session".to_owned()));
        };
        self.journal.sending(&batch.to_string(), Some(rows));
        let statements = format!("BEGIN;\n{inserts}COMMIT;\nSELECT 'committed {batch}';\n");
        session.tell(&statements, &format!("committed {batch}")).await?;
        self.journal.acknowledged(&batch.to_string());
        Ok(())
    }
}

#[async_trait]
impl Writer for Rows {
    fn name(&self) -> &'static str {
        "rows in PostgreSQL"
    }

    fn needs_database(&self) -> bool {
        true
    }

    fn is_recorded(&self) -> bool {
        false
    }

    /// A session of every round's own.
    async fn ready(&mut self, world: &World) -> Result<()> {
        let session = Session::open(world).await;
        self.session = Some(session.map_err(|trouble| anyhow::anyhow!("no session: {trouble:?}"))?);
        Ok(())
    }

    async fn write(&mut self, tools: &mut Tools) -> Result<(), Trouble> {
        let done = self.transact(tools).await;
        if done.is_err() {
            self.session = None;
        }
        done
    }

    /// All of them, every time: it is one query.
    async fn verify(&mut self, tools: &mut Tools, _look: Look) -> Result<Vec<String>> {
        // Whatever was killed may have taken the session along, which would notice with its next statement only.
        self.session = None;
        let query = format!(
            "SELECT batch, count(*) FILTER (WHERE content = md5(batch || '.' || row)), count(*)
             FROM {TABLE} GROUP BY batch"
        );
        let began = Instant::now();
        let text = loop {
            match tools.world.query(DATABASE, &query).await {
                Ok(text) => break text,
                Err(error) if began.elapsed().as_secs() > SETTLE_SECONDS_MAX => return Err(error),
                // It recovers.
                Err(_) => tokio::time::sleep(POLL).await,
            }
        };
        let mut found = BTreeMap::new();
        let mut wrong = Vec::new();
        for line in text.lines() {
            let mut parts = line.split('|');
            let mut number = || parts.next()?.parse::<u64>().ok();
            let (batch, right, all) = (number(), number(), number());
            let batch = batch.context("psql printed no number")?.to_string();
            if right != all {
                wrong.push(format!(
                    "{right:?} of {all:?} rows of transaction {batch} are as they were written"
                ));
            }
            found.insert(batch, all.unwrap_or_default());
        }
        for batch in self.journal.to_verify(true, 0, &mut tools.random) {
            wrong.extend(self.journal.settle(&batch, found.remove(&batch)).err());
        }
        for (batch, rows) in found {
            wrong.extend(self.journal.settle(&batch, Some(rows)).err());
        }
        Ok(wrong)
    }

    fn counts(&self) -> Counts {
        self.journal.counts
    }
}
