//! Blobs that are put in blocks.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use arcadia_crypto::{b64, b64_decode};
use arcadia_kernel::{At, EntropyExt as _, Fault, Permit, Reply, Request, RequestHead, StatusCode, Streamed};
use arcadia_store::{Batch, Row};
use md5::{Digest as _, Md5};
use uuid::Uuid;

use super::blobs::Described;
use super::change::{Found, Leaving, detached};
use super::input::{check_length, receive, refused};
use super::{ReadBlob, WriteBlob};
use crate::bytes::{Piece, Stored};
use crate::conditions::{Conditions, State};
use crate::headers::{add, add_version, check_md5, check_served, new_etag};
use crate::records::{
    BLOBS, BLOCKS, Blob, Block, CONTENTS, Content, ContentPart, DRAFTS, Draft, ITEMS_PER_PART,
};
use crate::xml::{self, BLOCKS_MAX, From, element};
use crate::{Storage, faults};

/// Of a block id before it is encoded.
const BLOCK_ID_BYTES_MAX: usize = 64;

fn block_id(head: &RequestHead) -> Result<String, Fault> {
    let id = head.query.first("blockid").unwrap_or("");
    // A plus sign that was not encoded has become a space.
    let id = id.replace(' ', "+");
    let bytes = b64_decode(&id).ok_or_else(faults::invalid_block_id)?;
    if bytes.is_empty() || bytes.len() > BLOCK_ID_BYTES_MAX {
        return Err(faults::invalid_block_id());
    }
    Ok(id)
}

pub(super) async fn put(
    at: At<Storage>,
    permit: Permit<WriteBlob>,
    mut body: Streamed,
) -> Result<Reply, Fault> {
    let id = match first_look(&at, &body.head).await {
        Ok(id) => id,
        Err(fault) => return Err(refused(fault, &mut body).await),
    };
    let stored = receive(&at.bytes, permit.stamp(), &mut body).await?;
    check_md5(&body.head, &["content-md5"], &stored.md5)?;
    let head = body.head;
    detached(async move { commit_block(&at, &permit, &head, id, stored).await }).await
}

async fn first_look(at: &At<Storage>, head: &RequestHead) -> Result<String, Fault> {
    check_served(head)?;
    Conditions::check_none(head)?;
    let id = block_id(head)?;
    at.container(&at.target.account, head.param("container")).await?;
    Ok(id)
}

async fn commit_block(
    at: &At<Storage>,
    permit: &Permit<WriteBlob>,
    head: &RequestHead,
    id: String,
    mut stored: Stored,
) -> Result<Reply, Fault> {
    let piece = stored.piece.clone().ok_or_else(|| faults::invalid_header("Content-Length", "0"))?;
    let block = Block { id, piece };
    let (container, name) = (head.param("container"), head.param("blob"));
    let leaving = Leaving { now: permit.epoch_seconds(), entropy: permit.entropy() };
    let mut attempts = at.store.attempts();
    let first = at.find(&at.target.account, container, name).await?;
    let _turn = at.drafts.lock(&first.key).await;
    loop {
        let (found, mut batch) = at.plan(&at.target.account, container, name).await?;
        let row = at.store.get(DRAFTS, &found.key).await?;
        let mut draft = match &row {
            Some(row) => {
                batch.require_revision(DRAFTS, &found.key, row.revision);
                row.value.clone()
            }
            None => {
                batch.require_absent(DRAFTS, &found.key);
                let (id, block_id_chars) = (permit.entropy().uuid(), block.id.len());
                Draft {
                    container: found.key.0,
                    name: name.to_owned(),
                    id,
                    block_id_chars,
                    touched: 0,
                    blocks: 0,
                }
            }
        };
        if draft.block_id_chars != block.id.len() {
            let message = "The specified blob or block content is invalid: all block ids of a blob have the same \
                           length.";
            return Err(Fault::bad_request("InvalidBlobOrBlock", message));
        }
        let key = (draft.id, block.id.clone());
        match at.store.get(BLOCKS, &key).await? {
            Some(before) => leaving.pieces(&mut batch, &[before.value.piece.id])?,
            None => draft.blocks += 1,
        }
        if draft.blocks > BLOCKS_MAX {
            let message = "The uncommitted block count cannot exceed the maximum limit of 50,000 blocks.";
            return Err(Fault::conflict("BlockCountExceedsLimit", message));
        }
        draft.touched = permit.epoch_seconds();
        stored.keep(&mut batch)?;
        batch.put(DRAFTS, &found.key, &draft)?;
        batch.put(BLOCKS, &key, &block)?;
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            let mut reply = Reply::empty(StatusCode::CREATED);
            add(&mut reply, "content-md5", &b64(&stored.md5));
            add(&mut reply, "x-ms-request-server-encrypted", "true");
            return Ok(reply);
        }
        stored.not_kept();
    }
}

/// The blocks that a list may name.
struct Candidates {
    committed: HashMap<String, Piece>,
    uncommitted: HashMap<String, Piece>,
    /// The pieces of all of them.
    pieces: HashSet<Uuid>,
    draft: Option<Row<Draft>>,
}

impl Storage {
    async fn candidates(&self, found: &Found) -> Result<Candidates, Fault> {
        let mut committed = HashMap::new();
        let mut pieces = HashSet::new();
        if let Some(row) = &found.blob {
            for block in self.parts(&row.value.content).await?.into_iter().flat_map(|part| part.blocks) {
                pieces.insert(block.piece.id);
                committed.insert(block.id, block.piece);
            }
        }
        let draft = self.store.get(DRAFTS, &found.key).await?;
        let mut uncommitted = HashMap::new();
        if let Some(draft) = &draft {
            for row in self.store.all(BLOCKS, &(draft.value.id,)).await? {
                pieces.insert(row.value.piece.id);
                uncommitted.insert(row.value.id, row.value.piece);
            }
        }
        Ok(Candidates { committed, uncommitted, pieces, draft })
    }
}

impl Candidates {
    /// The blocks of a list. One that means two pieces by one id is refused: no later list could say which of them it
    /// keeps.
    fn choose(&self, list: &[(From, String)]) -> Result<Vec<Block>, Fault> {
        let mut meant = HashMap::new();
        let mut chosen = Vec::with_capacity(list.len());
        for (from, id) in list {
            let piece = match from {
                From::Committed => self.committed.get(id),
                From::Uncommitted => self.uncommitted.get(id),
                From::Latest => self.uncommitted.get(id).or_else(|| self.committed.get(id)),
            };
            let piece = piece.ok_or_else(faults::invalid_block_list)?;
            if *meant.entry(id).or_insert(piece.id) != piece.id {
                return Err(faults::ambiguous_block_list(id));
            }
            chosen.push(Block { id: id.clone(), piece: piece.clone() });
        }
        Ok(chosen)
    }

    /// The pieces that are not in the new content.
    fn unused(&self, chosen: &[Block], whole: Option<&Piece>) -> Vec<Uuid> {
        let used: HashSet<Uuid> = chosen.iter().map(|block| block.piece.id).collect();
        self.pieces.difference(&used).copied().chain(whole.map(|piece| piece.id)).collect()
    }
}

pub(super) async fn put_list(
    at: At<Storage>,
    permit: Permit<WriteBlob>,
    request: Request,
) -> Result<Reply, Fault> {
    check_length(&request, request.body.len() as u64)?;
    let described = Described::of(&request, false)?;
    let md5: [u8; 16] = Md5::digest(&request.body).into();
    check_md5(&request, &["content-md5"], &md5)?;
    let list = xml::block_list(&request.body)?;
    let (container, name) = (request.param("container"), request.param("blob"));
    let now = permit.epoch_seconds();
    let leaving = Leaving { now, entropy: permit.entropy() };
    let mut attempts = at.store.attempts();
    let first = at.find(&at.target.account, container, name).await?;
    let _turn = at.drafts.lock(&first.key).await;
    loop {
        let (found, mut batch) = at.plan(&at.target.account, container, name).await?;
        described.conditions.check_put(found.state())?;
        let candidates = at.candidates(&found).await?;
        let chosen = candidates.choose(&list)?;
        let before = found.blob.as_ref().map(|row| &row.value);
        leave_behind(&mut batch, &leaving, &found, &candidates, &chosen)?;
        let blob = Blob {
            name: name.to_owned(),
            etag: new_etag(permit.entropy()),
            created: now,
            modified: now,
            length: chosen.iter().map(|block| block.piece.length).sum(),
            headers: described.headers.clone(),
            metadata: described.metadata.clone(),
            tier: described.tier.clone(),
            tier_changed: described.tier.is_some().then_some(now),
            copied: None,
            content: write_parts(&mut batch, permit.entropy().uuid(), chosen)?,
        }
        .in_place_of(before);
        batch.put(BLOBS, &found.key, &blob)?;
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            let mut reply = Reply::empty(StatusCode::CREATED);
            add_version(&mut reply, &blob.etag, blob.modified);
            add(&mut reply, "content-md5", &b64(&md5));
            add(&mut reply, "x-ms-request-server-encrypted", "true");
            return Ok(reply);
        }
    }
}

/// The former content, the draft, and the pieces of both that the new content does not use.
fn leave_behind(
    batch: &mut Batch,
    leaving: &Leaving<'_>,
    found: &Found,
    candidates: &Candidates,
    chosen: &[Block],
) -> Result<(), Fault> {
    let mut whole = None;
    match found.blob.as_ref().map(|row| &row.value.content) {
        Some(Content::One(piece)) => whole = Some(piece),
        Some(Content::Listed { id, .. }) => {
            leaving.leave(batch, 0, crate::records::Refuse::Content { id: *id, free: false })?;
        }
        Some(Content::Empty) | None => {}
    }
    leaving.pieces(batch, &candidates.unused(chosen, whole))?;
    match &candidates.draft {
        Some(draft) => leaving.draft(batch, &found.key, draft, false),
        None => {
            batch.require_absent(DRAFTS, &found.key);
            Ok(())
        }
    }
}

fn write_parts(batch: &mut Batch, id: Uuid, blocks: Vec<Block>) -> Result<Content, Fault> {
    if blocks.is_empty() {
        return Ok(Content::Empty);
    }
    for (number, blocks) in (0..).zip(blocks.chunks(ITEMS_PER_PART)) {
        let part = ContentPart { number, blocks: blocks.to_vec() };
        batch.put(CONTENTS, &(id, number), &part)?;
    }
    Ok(Content::Listed { id, blocks: blocks.len() })
}

pub(super) async fn list(at: At<Storage>, _: Permit<ReadBlob>, request: Request) -> Result<Reply, Fault> {
    let which = request.query.first("blocklisttype").unwrap_or("committed").to_ascii_lowercase();
    let (committed, uncommitted) = match which.as_str() {
        "committed" => (true, false),
        "uncommitted" => (false, true),
        "all" => (true, true),
        other => return Err(faults::invalid_query("blocklisttype", other)),
    };
    let conditions = Conditions::of(&request)?;
    let found = at.find(&at.target.account, request.param("container"), request.param("blob")).await?;
    let draft = at.store.get(DRAFTS, &found.key).await?;
    if found.blob.is_none() && draft.is_none() {
        return Err(faults::blob_not_found());
    }
    let mut body = format!("\u{feff}{}<BlockList>", xml::DECLARATION);
    if committed {
        let parts = match &found.blob {
            Some(row) => at.parts(&row.value.content).await?,
            None => Vec::new(),
        };
        write_blocks(&mut body, "CommittedBlocks", parts.iter().flat_map(|part| &part.blocks));
    }
    if uncommitted {
        let rows = match &draft {
            Some(draft) => at.store.all(BLOCKS, &(draft.value.id,)).await?,
            None => Vec::new(),
        };
        write_blocks(&mut body, "UncommittedBlocks", rows.iter().map(|row| &row.value));
    }
    body.push_str("</BlockList>");
    let mut reply = Reply::bytes(StatusCode::OK, "application/xml", body);
    if let Some(row) = &found.blob {
        conditions.check_read(State { etag: &row.value.etag, modified: row.value.modified })?;
        add_version(&mut reply, &row.value.etag, row.value.modified);
        add(&mut reply, "x-ms-blob-content-length", &row.value.length.to_string());
    }
    Ok(reply)
}

fn write_blocks<'a>(out: &mut String, name: &str, blocks: impl Iterator<Item = &'a Block>) {
    let mut inner = String::new();
    for block in blocks {
        inner.push_str("<Block>");
        element(&mut inner, "Name", &block.id);
        let _ = write!(inner, "<Size>{}</Size></Block>", block.piece.length);
    }
    if inner.is_empty() {
        let _ = write!(out, "<{name} />");
    } else {
        let _ = write!(out, "<{name}>{inner}</{name}>");
    }
}
