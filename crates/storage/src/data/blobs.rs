//! Blobs that are put whole, changed and deleted.

use arcadia_crypto::b64;
use arcadia_kernel::{At, Fault, Permit, Reply, Request, RequestHead, StatusCode, Streamed};

use super::change::{Leaving, detached};
use super::input::{receive, refused};
use super::{COPY_SOURCE, DeleteBlob, WriteBlob, copy};
use crate::bytes::Stored;
use crate::conditions::{Conditions, State};
use crate::headers::{self, add, add_version, check_md5, check_served, content_headers, new_etag, one};
use crate::records::{BLOBS, Blob, Content, ContentHeaders, Metadata};
use crate::{Storage, faults};

const BLOB_TYPE: &str = "x-ms-blob-type";
const DELETE_SNAPSHOTS: &str = "x-ms-delete-snapshots";

/// A new blob, or a new content for one, as a request describes it.
pub(super) struct Described {
    pub conditions: Conditions,
    pub headers: ContentHeaders,
    pub metadata: Metadata,
    pub tier: Option<String>,
}

impl Blob {
    /// This blob in the place of what is there: it was made when that was, and is in its tier unless it has one of its
    /// own. A copy is in the account's.
    pub(super) fn in_place_of(&self, before: Option<&Self>) -> Self {
        let Some(before) = before else { return self.clone() };
        let mut blob = Self { created: before.created, ..self.clone() };
        if blob.tier.is_none() && blob.copied.is_none() {
            blob.tier.clone_from(&before.tier);
            blob.tier_changed = before.tier_changed;
        }
        blob
    }
}

impl Described {
    pub fn of(head: &RequestHead, standard_headers: bool) -> Result<Self, Fault> {
        check_served(head)?;
        Ok(Self {
            conditions: Conditions::of(head)?,
            headers: content_headers(head, standard_headers)?,
            metadata: headers::metadata(head)?,
            tier: headers::tier(head)?,
        })
    }
}

fn check_type(head: &RequestHead) -> Result<(), Fault> {
    match one(head, BLOB_TYPE)? {
        None => Err(faults::missing_header(BLOB_TYPE)),
        Some("BlockBlob") => Ok(()),
        Some(other @ ("AppendBlob" | "PageBlob")) => {
            let message = format!("This site serves block blobs only, and no {other}.");
            Err(Fault::bad_request("UnsupportedHeader", message).extra("HeaderName", BLOB_TYPE))
        }
        Some(other) => Err(faults::invalid_header(BLOB_TYPE, other)),
    }
}

pub(super) async fn put(
    at: At<Storage>,
    permit: Permit<WriteBlob>,
    mut body: Streamed,
) -> Result<Reply, Fault> {
    if body.head.headers.contains_key(COPY_SOURCE) && !body.head.headers.contains_key(BLOB_TYPE) {
        return copy::copy(at, permit, body).await;
    }
    let described = match first_look(&at, &body.head).await {
        Ok(described) => described,
        Err(fault) => return Err(refused(fault, &mut body).await),
    };
    let stored = receive(&at.bytes, permit.stamp(), &mut body).await?;
    check_md5(&body.head, &["content-md5", "x-ms-blob-content-md5"], &stored.md5)?;
    let head = body.head;
    detached(async move { commit(&at, &permit, &head, described, stored).await }).await
}

/// What can be refused before the body is read.
async fn first_look(at: &At<Storage>, head: &RequestHead) -> Result<Described, Fault> {
    check_type(head)?;
    let described = Described::of(head, true)?;
    let found = at.find(&at.target.account, head.param("container"), head.param("blob")).await?;
    described.conditions.check_put(found.state())?;
    Ok(described)
}

async fn commit(
    at: &At<Storage>,
    permit: &Permit<WriteBlob>,
    head: &RequestHead,
    described: Described,
    stored: Stored,
) -> Result<Reply, Fault> {
    let now = permit.epoch_seconds();
    let md5 = b64(&stored.md5);
    let blob = Blob {
        name: head.param("blob").to_owned(),
        etag: new_etag(permit.entropy()),
        created: now,
        modified: now,
        length: stored.length,
        headers: ContentHeaders { content_md5: Some(md5.clone()), ..described.headers },
        metadata: described.metadata,
        tier_changed: described.tier.is_some().then_some(now),
        tier: described.tier,
        copied: None,
        content: stored.piece.clone().map_or(Content::Empty, Content::One),
    };
    let blob = replace(at, permit, head.param("container"), &described.conditions, blob, stored).await?;
    let mut reply = Reply::empty(StatusCode::CREATED);
    add_version(&mut reply, &blob.etag, blob.modified);
    add(&mut reply, "content-md5", &md5);
    add(&mut reply, "x-ms-request-server-encrypted", "true");
    Ok(reply)
}

/// Puts a blob and its bytes in the place of what is there. Gives it as it is kept.
pub(super) async fn replace(
    at: &At<Storage>,
    permit: &Permit<WriteBlob>,
    container: &str,
    conditions: &Conditions,
    blob: Blob,
    mut stored: Stored,
) -> Result<Blob, Fault> {
    let leaving = Leaving { now: blob.modified, entropy: permit.entropy() };
    let mut attempts = at.store.attempts();
    loop {
        let (found, mut batch) = at.plan(&at.target.account, container, &blob.name).await?;
        conditions.check_put(found.state())?;
        let before = found.blob.as_ref().map(|row| &row.value);
        if let Some(before) = before {
            leaving.content(&mut batch, &before.content)?;
        }
        let blob = blob.in_place_of(before);
        at.end_draft(&mut batch, &found.key, &leaving).await?;
        stored.keep(&mut batch)?;
        batch.put(BLOBS, &found.key, &blob)?;
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            return Ok(blob);
        }
        stored.not_kept();
    }
}

/// Changes a blob that is there, without its bytes.
async fn change(
    at: &At<Storage>,
    permit: &Permit<WriteBlob>,
    request: &Request,
    apply: impl Fn(&mut Blob) + Send,
) -> Result<Reply, Fault> {
    let conditions = Conditions::of(request)?;
    let (container, name) = (request.param("container"), request.param("blob"));
    let mut attempts = at.store.attempts();
    loop {
        let (found, mut batch) = at.plan(&at.target.account, container, name).await?;
        let mut blob = found.blob.ok_or_else(faults::blob_not_found)?.value;
        conditions.check_change(State { etag: &blob.etag, modified: blob.modified })?;
        apply(&mut blob);
        blob.etag = new_etag(permit.entropy());
        blob.modified = permit.epoch_seconds();
        batch.put(BLOBS, &found.key, &blob)?;
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            let mut reply = Reply::empty(StatusCode::OK);
            add_version(&mut reply, &blob.etag, blob.modified);
            return Ok(reply);
        }
    }
}

pub(super) async fn set_metadata(
    at: At<Storage>,
    permit: Permit<WriteBlob>,
    request: Request,
) -> Result<Reply, Fault> {
    check_served(&request)?;
    let metadata = headers::metadata(&request)?;
    let mut reply = change(&at, &permit, &request, |blob| blob.metadata = metadata.clone()).await?;
    add(&mut reply, "x-ms-request-server-encrypted", "true");
    Ok(reply)
}

/// Replaces all of the content headers: those that are not sent are cleared. A blob that was copied is a copy no longer.
pub(super) async fn set_properties(
    at: At<Storage>,
    permit: Permit<WriteBlob>,
    request: Request,
) -> Result<Reply, Fault> {
    check_served(&request)?;
    if let Some(name) = ["x-ms-blob-content-length", "x-ms-sequence-number-action"]
        .into_iter()
        .find(|name| request.headers.contains_key(*name))
    {
        return Err(faults::unsupported_header(name));
    }
    let headers = content_headers(&request, false)?;
    change(&at, &permit, &request, |blob| {
        blob.headers = headers.clone();
        blob.copied = None;
    })
    .await
}

pub(super) async fn delete(
    at: At<Storage>,
    permit: Permit<DeleteBlob>,
    request: Request,
) -> Result<Reply, Fault> {
    if let Some(which) = one(&request, DELETE_SNAPSHOTS)?
        && which != "include"
    {
        // There are no snapshots, and the blob itself is not what such a request means.
        return Err(faults::invalid_header(DELETE_SNAPSHOTS, which));
    }
    let conditions = Conditions::of(&request)?;
    let (container, name) = (request.param("container"), request.param("blob"));
    let leaving = Leaving { now: permit.epoch_seconds(), entropy: permit.entropy() };
    let mut attempts = at.store.attempts();
    loop {
        let (found, mut batch) = at.plan(&at.target.account, container, name).await?;
        let blob = found.blob.ok_or_else(faults::blob_not_found)?.value;
        conditions.check_change(State { etag: &blob.etag, modified: blob.modified })?;
        leaving.content(&mut batch, &blob.content)?;
        at.end_draft(&mut batch, &found.key, &leaving).await?;
        batch.delete(BLOBS, &found.key);
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            let mut reply = Reply::empty(StatusCode::ACCEPTED);
            add(&mut reply, "x-ms-delete-type-permanent", "true");
            return Ok(reply);
        }
    }
}
