//! Bodies as they arrive.

use std::sync::Arc;

use arcadia_kernel::{AuditStamp, Fault, RequestHead, Streamed, header};

use crate::bytes::{ByteStore, Stored};
use crate::faults;

/// What is still read of a body whose request is refused, so that a client that sends first and reads then gets to
/// the answer.
const DRAINED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Writes the body as one piece. A body that breaks off is a fault and leaves nothing.
pub(super) async fn receive(
    bytes: &Arc<ByteStore>,
    stamp: &AuditStamp,
    body: &mut Streamed,
) -> Result<Stored, Fault> {
    bytes.own_folder(stamp).await?;
    let announced = body.head.header(&header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    let mut upload = bytes.upload(announced.unwrap_or(0))?;
    while let Some(data) = body.next().await? {
        upload = upload.write(&data).await?;
    }
    let stored = upload.finish().await?;
    check_length(&body.head, stored.length)?;
    if announced.is_some_and(|announced| announced != stored.length) {
        let message = "The request body is not as long as its Content-Length header says.";
        return Err(Fault::bad_request("InvalidInput", message));
    }
    Ok(stored)
}

/// Refuses a request that brought nothing and did not say that it would: by mistake, it would make a blob empty. HTTP/2
/// has bodies that announce no length.
pub(super) fn check_length(head: &RequestHead, length: u64) -> Result<(), Fault> {
    let announces = |name| head.headers.contains_key(name);
    if length > 0 || announces(header::CONTENT_LENGTH) || announces(header::TRANSFER_ENCODING) {
        return Ok(());
    }
    Err(faults::missing_length())
}

/// The fault, after the body was read as far as that is worth it.
pub(super) async fn refused(fault: Fault, body: &mut Streamed) -> Fault {
    let mut left = DRAINED_BYTES_MAX;
    while let Ok(Some(data)) = body.next().await {
        match left.checked_sub(data.len()) {
            Some(less) => left = less,
            None => break,
        }
    }
    fault
}
