//! Blobs, put at once or in blocks, put again and deleted.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use async_trait::async_trait;
use http::Method;

use super::{Look, Tools, Trouble, Writer, change};
use crate::soak::http::Ask;
use crate::soak::journal::{Counts, Journal};
use crate::soak::setup::{BLOB_VERSION, CONTAINER};

const NAMES: u64 = 24;
const BLOCKS_MAX: usize = 4;

/// Bytes that are known by a number and a length.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Piece {
    seed: u64,
    bytes: usize,
}

impl Piece {
    /// Most are small, as they are in real life; all ways of keeping bytes are met.
    fn draw(random: &mut fastrand::Rng) -> Self {
        let bytes = match random.u8(0..10) {
            0 => 0,
            1..=5 => random.usize(1..5_000),
            6..=8 => random.usize(5_000..200_000),
            _ => random.usize(200_000..2_000_000),
        };
        Self { seed: random.u64(..), bytes }
    }

    fn content(self) -> Vec<u8> {
        let mut content = vec![0; self.bytes];
        fastrand::Rng::with_seed(self.seed).fill(&mut content);
        content
    }
}

pub struct Blobs {
    title: &'static str,
    in_blocks: bool,
    journal: Journal<Vec<Piece>>,
}

impl Blobs {
    pub fn new(title: &'static str, in_blocks: bool) -> Self {
        Self { title, in_blocks, journal: Journal::new() }
    }

    fn prefix(&self) -> &'static str {
        if self.in_blocks { "blocks-" } else { "whole-" }
    }

    async fn put(&mut self, tools: &mut Tools, name: &str) -> Result<(), Trouble> {
        let piece = Piece::draw(&mut tools.random);
        let ask =
            ask(tools, Method::PUT, name, "").header("x-ms-blob-type", "BlockBlob").bytes(piece.content());
        change(&mut self.journal, (name, Some(vec![piece])), &mut tools.client, ask).await.map(|_| ())
    }

    async fn put_blocks(&mut self, tools: &mut Tools, name: &str) -> Result<(), Trouble> {
        let mut pieces = Vec::new();
        let mut list = String::new();
        for number in 0..tools.random.usize(1..=BLOCKS_MAX) {
            let piece = Piece { bytes: tools.random.usize(1..300_000), ..Piece::draw(&mut tools.random) };
            // Letters and digits that are BASE64 as they stand, all of one length.
            let id = format!("block{number:03}");
            let ask =
                ask(tools, Method::PUT, name, &format!("comp=block&blockid={id}")).bytes(piece.content());
            let answer = tools.client.send(ask).await?;
            if !answer.status.is_success() {
                return Err(Trouble::Refused(format!("block {number} of {name}: {}", answer.told())));
            }
            pieces.push(piece);
            list.push_str(&format!("<Latest>{id}</Latest>"));
        }
        let body = format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{list}</BlockList>");
        let ask = ask(tools, Method::PUT, name, "comp=blocklist").bytes(body);
        change(&mut self.journal, (name, Some(pieces)), &mut tools.client, ask).await.map(|_| ())
    }

    /// The pieces whose bytes were found: those that are acknowledged, or those in doubt.
    async fn verify_one(&mut self, tools: &mut Tools, name: &str) -> Result<Option<String>> {
        let answer = tools.client.send(ask(tools, Method::GET, name, "")).await?;
        let found = match answer.status.as_u16() {
            200 => Some(answer.body),
            404 => None,
            _ => bail!("{name}: {}", answer.told()),
        };
        let same = |pieces: &Vec<Piece>| {
            let content: Vec<u8> = pieces.iter().flat_map(|piece| piece.content()).collect();
            found.as_ref().is_some_and(|found| *found == content)
        };
        let known = self.journal.candidates(name);
        let pieces = match (&found, known.into_iter().find(|pieces| same(pieces))) {
            (None, _) => None,
            (Some(_), Some(pieces)) => Some(pieces),
            (Some(found), None) => {
                let other = vec![Piece { seed: 0, bytes: found.len() }];
                return Ok(self.journal.settle(name, Some(other)).err());
            }
        };
        Ok(self.journal.settle(name, pieces).err())
    }

    async fn listed(&self, tools: &mut Tools) -> Result<BTreeSet<String>> {
        let url =
            tools.world.blob(&format!("{CONTAINER}?restype=container&comp=list&prefix={}", self.prefix()));
        let ask = Ask::get(url).bearer(&tools.world.storage_token).header("x-ms-version", BLOB_VERSION);
        let answer = tools.client.send(ask).await?;
        anyhow::ensure!(answer.status.is_success(), "the list of blobs: {}", answer.told());
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let names = text.split("<Name>").skip(1).filter_map(|rest| rest.split_once("</Name>"));
        Ok(names.map(|(name, _)| name.to_owned()).collect())
    }
}

fn ask(tools: &Tools, method: Method, name: &str, query: &str) -> Ask {
    Ask::new(method, tools.world.blob(&format!("{CONTAINER}/{name}?{query}")).trim_end_matches('?'))
        .bearer(&tools.world.storage_token)
        .header("x-ms-version", BLOB_VERSION)
}

#[async_trait]
impl Writer for Blobs {
    fn name(&self) -> &'static str {
        self.title
    }

    async fn write(&mut self, tools: &mut Tools) -> Result<(), Trouble> {
        let name = format!("{}{}", self.prefix(), tools.random.u64(0..NAMES));
        if self.journal.now(&name).is_some() && tools.random.u8(0..4) == 0 {
            let ask = ask(tools, Method::DELETE, &name, "");
            return change(&mut self.journal, (&name, None), &mut tools.client, ask).await.map(|_| ());
        }
        if self.in_blocks { self.put_blocks(tools, &name).await } else { self.put(tools, &name).await }
    }

    async fn verify(&mut self, tools: &mut Tools, look: Look) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for name in look.keys(&self.journal, &mut tools.random) {
            wrong.extend(self.verify_one(tools, &name).await?);
        }
        let listed = self.listed(tools).await?;
        let wanted: BTreeSet<String> = self.journal.present().map(|(name, _)| name.to_owned()).collect();
        for name in listed.symmetric_difference(&wanted) {
            wrong.push(format!("the blob {name} is in the list or in the journal, not in both"));
        }
        Ok(wrong)
    }

    fn counts(&self) -> Counts {
        self.journal.counts
    }
}
