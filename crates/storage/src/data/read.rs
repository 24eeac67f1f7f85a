//! Blobs that are read.

#[cfg(test)]
mod fuzz;

use std::sync::Arc;

use arcadia_crypto::b64;
use arcadia_kernel::{At, Fault, Permit, Reply, Request, RequestHead, StatusCode, header};
use http_body_util::BodyExt as _;
use md5::{Digest as _, Md5};

use super::ReadBlob;
use crate::bytes::Span;
use crate::conditions::{Conditions, State};
use crate::headers::{add, add_blob, add_metadata, add_version, check_served, one};
use crate::records::{Blob, Content};
use crate::{Storage, faults};

/// The longest range whose hash is made while it is read.
const HASHED_RANGE_BYTES_MAX: u64 = 4 * 1024 * 1024;
const RANGE: &str = "x-ms-range";
const RANGE_MD5: &str = "x-ms-range-get-content-md5";

/// The blob, if the request's conditions let it be read.
async fn found(at: &At<Storage>, head: &RequestHead) -> Result<Arc<Blob>, Fault> {
    check_served(head)?;
    let conditions = Conditions::of_read(head)?;
    let blob = at.recent(&at.target.account, head.param("container"), head.param("blob")).await?;
    conditions.check_read(State { etag: &blob.etag, modified: blob.modified })?;
    Ok(blob)
}

pub(super) async fn properties(
    at: At<Storage>,
    _: Permit<ReadBlob>,
    request: Request,
) -> Result<Reply, Fault> {
    let blob = found(&at, &request).await?;
    let mut reply = Reply::empty(StatusCode::OK);
    add_blob(&mut reply, &blob, &at.target.account.properties.access_tier, true);
    add(&mut reply, "content-length", &blob.length.to_string());
    Ok(reply)
}

pub(super) async fn metadata(at: At<Storage>, _: Permit<ReadBlob>, request: Request) -> Result<Reply, Fault> {
    let blob = found(&at, &request).await?;
    let mut reply = Reply::empty(StatusCode::OK);
    add_version(&mut reply, &blob.etag, blob.modified);
    add_metadata(&mut reply, &blob.metadata);
    Ok(reply)
}

pub(super) async fn get(at: At<Storage>, _: Permit<ReadBlob>, request: Request) -> Result<Reply, Fault> {
    let blob = found(&at, &request).await?;
    let range = asked_range(&request, blob.length)?;
    let hashed = one(&request, RANGE_MD5)?.is_some_and(|asked| asked.eq_ignore_ascii_case("true"));
    if hashed && range.is_none_or(|(from, until)| until - from > HASHED_RANGE_BYTES_MAX) {
        return Err(faults::invalid_header(RANGE_MD5, "true"));
    }
    let (from, until) = range.unwrap_or((0, blob.length));
    let spans = at.spans(&blob, from, until).await?;
    let mut body = at.bytes.read(spans).into_body().await?;
    let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut reply = Reply::empty(status);
    add_blob(&mut reply, &blob, &at.target.account.properties.access_tier, range.is_none());
    add(&mut reply, "content-length", &(until - from).to_string());
    if range.is_some() {
        add(&mut reply, "content-range", &format!("bytes {from}-{}/{}", until - 1, blob.length));
        if hashed {
            let bytes = body.collect().await.map_err(Fault::internal)?.to_bytes();
            add(&mut reply, "content-md5", &b64(&Md5::digest(&bytes)));
            body = arcadia_kernel::full_body(bytes);
        }
    }
    reply.body = body;
    Ok(reply)
}

/// The bytes that are asked for, `from..until`. A `Range` that is not understood asks for everything, as HTTP has
/// it; the service's own header must be right.
fn asked_range(head: &RequestHead, length: u64) -> Result<Option<(u64, u64)>, Fault> {
    let own = one(head, RANGE)?;
    let Some(text) = own.or_else(|| head.header(&header::RANGE)) else { return Ok(None) };
    let Some((first, last)) = parse_range(text) else {
        return if own.is_some() { Err(faults::invalid_header(RANGE, text)) } else { Ok(None) };
    };
    if first >= length {
        return Err(faults::invalid_range(length));
    }
    let until = last.map_or(length, |last| length.min(last.saturating_add(1)));
    Ok(Some((first, until)))
}

/// `bytes=0-499` or `bytes=500-`.
pub(crate) fn parse_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
    let number = |digits: &str| {
        let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if all_digits { digits.parse::<u64>().ok() } else { None }
    };
    let first = number(first)?;
    if last.is_empty() {
        return Some((first, None));
    }
    let last = number(last)?;
    (first <= last).then_some((first, Some(last)))
}

impl Storage {
    /// The parts of pieces that hold the bytes `from..until` of a blob.
    pub(super) async fn spans(&self, blob: &Blob, from: u64, until: u64) -> Result<Vec<Span>, Fault> {
        let pieces: Vec<_> = match &blob.content {
            Content::Empty => Vec::new(),
            Content::One(piece) => vec![piece.clone()],
            Content::Listed { .. } => {
                let parts = self.parts(&blob.content).await?;
                parts.into_iter().flat_map(|part| part.blocks).map(|block| block.piece).collect()
            }
        };
        let (mut spans, mut start) = (Vec::new(), 0);
        for piece in pieces {
            let end = start + piece.length;
            let (first, last) = (from.clamp(start, end), until.clamp(start, end));
            if first < last {
                spans.push(Span { piece, from: first - start, until: last - start });
            }
            start = end;
        }
        if start != blob.length {
            // A blob that was replaced at this moment may have lost its list of blocks already.
            return Err(Fault::unavailable("The blob was changed while it was read. Please retry."));
        }
        Ok(spans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(parse_range("bytes=0-0"), Some((0, Some(0))));
        assert_eq!(parse_range("bytes=5-"), Some((5, None)));
        for text in [
            "",
            "bytes=",
            "bytes=-",
            "bytes=-5",
            "bytes=5-4",
            "bytes=a-b",
            "bytes=0-1,3-4",
            "items=0-1",
            "bytes=+1-2",
            "bytes=0-99999999999999999999",
        ] {
            assert_eq!(parse_range(text), None, "{text}");
        }
    }
}
