//! Blobs that are copied from blobs of the same site, by a request that names the source.
//!
//! The bytes are read, opened and sealed anew before the answer, so a copy is done when it is answered, and shares
//! nothing with its source. It is one piece whatever the source is made of: its list of blocks is empty, as that of any
//! blob that was put whole.

use std::sync::Arc;

use arcadia_kernel::{
    ArmId, At, Denial, EntropyExt as _, Fault, Permit, Reply, Request, RequestHead, Service as _, StatusCode,
    Streamed, header,
};

use super::blobs::replace;
use super::change::detached;
use super::input::refused;
use super::{COPY_SOURCE, ReadBlob, Source, WriteBlob};
use crate::account::Account;
use crate::bytes::{Span, Stored};
use crate::conditions::{Conditions, State};
use crate::headers::{self, COPY_DONE, add, add_version, check_copy_served, check_md5, new_etag, one};
use crate::records::{Blob, Content, Copied, Metadata};
use crate::{Storage, faults, paths};

const SOURCE_AUTHORIZATION: &str = "x-ms-copy-source-authorization";
const SOURCE_MD5: &str = "x-ms-source-content-md5";
const SYNC: &str = "x-ms-requires-sync";
const ACTION: &str = "x-ms-copy-action";
/// How often a source is looked up that loses its list of blocks to a change at that moment.
const LOOKS_MAX: usize = 4;

/// A copy as a request describes it, by one who may read the source.
struct Asked {
    source: Source,
    account: Arc<Account>,
    /// The source's.
    scope: ArmId,
    of_source: Conditions,
    of_target: Conditions,
    metadata: Metadata,
    tier: Option<String>,
    sync: bool,
}

/// The source as it was, and its bytes under a key of their own.
struct Taken {
    blob: Blob,
    stored: Stored,
}

pub(super) async fn copy(
    at: At<Storage>,
    permit: Permit<WriteBlob>,
    mut body: Streamed,
) -> Result<Reply, Fault> {
    let asked = match first_look(&at, &permit, &body.head).await {
        Ok(asked) => asked,
        Err(fault) => return Err(refused(fault, &mut body).await),
    };
    while let Some(data) = body.next().await? {
        if !data.is_empty() {
            let fault = Fault::bad_request("InvalidInput", "A copy has no body.");
            return Err(refused(fault, &mut body).await);
        }
    }
    let taken = take(&at, &permit, &asked).await?;
    if asked.sync {
        check_md5(&body.head, &[SOURCE_MD5], &taken.stored.md5)?;
    }
    let head = body.head;
    detached(async move { commit(&at, &permit, &head, asked, taken).await }).await
}

/// What can be refused before anything is read, the right to read among it.
async fn first_look(
    at: &At<Storage>,
    permit: &Permit<WriteBlob>,
    head: &RequestHead,
) -> Result<Asked, Fault> {
    check_copy_served(head)?;
    let sync = is_sync(head)?;
    let text = one(head, COPY_SOURCE)?.ok_or_else(|| faults::missing_header(COPY_SOURCE))?;
    let source = Source::parse(&at.names, text)?;
    let of_source = Conditions::of_source(head)?;
    let of_target = Conditions::of(head)?;
    let (metadata, tier) = (headers::metadata(head)?, headers::tier(head)?);
    let account = at.accounts.by_name(&source.account).ok_or_else(|| {
        faults::copy_source_absent("ResourceNotFound", "The specified resource does not exist.")
    })?;
    let scope = paths::container_scope(&account.id, &source.container)
        .and_then(|container| paths::blob_scope(&container, &source.blob))
        .map_err(|_| faults::invalid_header(COPY_SOURCE, text))?;
    permit.also::<ReadBlob>(&scope).map_err(|denial| denied(&denial))?;
    let found = at.find(&at.target.account, head.param("container"), head.param("blob")).await?;
    of_target.check_put(found.state())?;
    Ok(Asked { source, account, scope, of_source, of_target, metadata, tier, sync })
}

/// Whether the request waits for the copy by its own words. All do; but these words alone go with a hash and a token
/// for the source.
fn is_sync(head: &RequestHead) -> Result<bool, Fault> {
    let sync = match one(head, SYNC)? {
        None => false,
        Some(value) if value.eq_ignore_ascii_case("true") => true,
        Some(other) => return Err(faults::invalid_header(SYNC, other)),
    };
    if !sync && head.headers.contains_key(SOURCE_MD5) {
        return Err(faults::unsupported_header(SOURCE_MD5));
    }
    if let Some(source) = one(head, SOURCE_AUTHORIZATION)? {
        // The one who asks is the one who reads, so another's token cannot stand for the source.
        let is_bearer = source.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer "));
        if !sync || !is_bearer || one(head, header::AUTHORIZATION.as_str())? != Some(source) {
            return Err(faults::unsupported_header(SOURCE_AUTHORIZATION));
        }
    }
    Ok(sync)
}

fn denied(denial: &Denial) -> Fault {
    faults::copy_source_denied().denied(denial.reason.to_string())
}

/// Reads the source and writes its bytes, a chunk at a time. Left in the middle, it leaves nothing.
async fn take(at: &At<Storage>, permit: &Permit<WriteBlob>, asked: &Asked) -> Result<Taken, Fault> {
    let (blob, spans) = look(at, asked).await?;
    at.bytes.own_folder(permit.stamp()).await?;
    let mut upload = at.bytes.upload(blob.length)?;
    let mut reading = at.bytes.read(spans);
    while let Some(data) = reading.next().await? {
        upload = upload.write(&data).await?;
    }
    let stored = upload.finish().await?;
    Ok(Taken { blob, stored })
}

/// The source, and where its bytes are: all of one version. They stay for as long as those of an answer that is sent.
async fn look(at: &At<Storage>, asked: &Asked) -> Result<(Blob, Vec<Span>), Fault> {
    let Asked { source, account, of_source, .. } = asked;
    let absent = |fault: Fault| match fault.status {
        StatusCode::NOT_FOUND => faults::copy_source_absent(&fault.code, &fault.message),
        _ => fault,
    };
    let mut looks = 1;
    loop {
        let found = at.find(account, &source.container, &source.blob).await.map_err(absent)?;
        let blob = found.blob.ok_or_else(|| absent(faults::blob_not_found()))?.value;
        of_source.check_source(State { etag: &blob.etag, modified: blob.modified })?;
        match at.spans(&blob, 0, blob.length).await {
            Err(fault) if fault.status == StatusCode::SERVICE_UNAVAILABLE && looks < LOOKS_MAX => looks += 1,
            spans => return spans.map(|spans| (blob, spans)),
        }
    }
}

async fn commit(
    at: &At<Storage>,
    permit: &Permit<WriteBlob>,
    head: &RequestHead,
    asked: Asked,
    taken: Taken,
) -> Result<Reply, Fault> {
    // Much may be read for long. What was taken away meanwhile is not used.
    permit.also::<ReadBlob>(&asked.scope).map_err(|denial| denied(&denial))?;
    permit
        .also::<WriteBlob>(permit.scope())
        .map_err(|denial| at.refuse(head, permit.caller(), &denial).denied(denial.reason.to_string()))?;
    let Taken { blob: source, stored } = taken;
    let now = permit.epoch_seconds();
    let copied = Copied { id: permit.entropy().uuid(), source: asked.source.shown, at: now };
    let blob = Blob {
        name: head.param("blob").to_owned(),
        etag: new_etag(permit.entropy()),
        created: now,
        modified: now,
        length: stored.length,
        headers: source.headers,
        metadata: if asked.metadata.is_empty() { source.metadata } else { asked.metadata },
        tier_changed: asked.tier.is_some().then_some(now),
        tier: asked.tier,
        copied: Some(copied.clone()),
        content: stored.piece.clone().map_or(Content::Empty, Content::One),
    };
    let blob = replace(at, permit, head.param("container"), &asked.of_target, blob, stored).await?;
    let mut reply = Reply::empty(StatusCode::ACCEPTED);
    add_version(&mut reply, &blob.etag, blob.modified);
    add(&mut reply, "x-ms-copy-id", &copied.id.to_string());
    add(&mut reply, "x-ms-copy-status", COPY_DONE);
    if let Some(md5) = blob.headers.content_md5.as_deref().filter(|_| asked.sync) {
        add(&mut reply, "content-md5", md5);
    }
    Ok(reply)
}

/// There is never a copy that could be stopped: each is done when it is answered.
pub(super) async fn abort(at: At<Storage>, _: Permit<WriteBlob>, request: Request) -> Result<Reply, Fault> {
    Conditions::of(&request)?;
    if request.query.first("copyid").is_none_or(str::is_empty) {
        return Err(faults::missing_query("copyid"));
    }
    match one(&request, ACTION)? {
        None => return Err(faults::missing_header(ACTION)),
        Some(action) if action.eq_ignore_ascii_case("abort") => {}
        Some(other) => return Err(faults::invalid_header(ACTION, other)),
    }
    let found = at.find(&at.target.account, request.param("container"), request.param("blob")).await?;
    found.blob.ok_or_else(faults::blob_not_found)?;
    Err(faults::no_pending_copy())
}
