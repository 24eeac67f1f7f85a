//! The tier of a blob. A site stores every blob alike: it is kept and shown for who asks for it.

use arcadia_kernel::{At, Fault, Permit, Reply, Request, StatusCode};

use super::WriteBlob;
use crate::conditions::Conditions;
use crate::headers::{check_served, one, tier};
use crate::records::BLOBS;
use crate::{Storage, faults};

const PRIORITY: &str = "x-ms-rehydrate-priority";
const PRIORITIES: [&str; 2] = ["Standard", "High"];

/// Neither the tag nor the time of the last change tell of it.
pub(super) async fn set(
    at: At<Storage>,
    permit: Permit<WriteBlob>,
    request: Request,
) -> Result<Reply, Fault> {
    check_served(&request)?;
    Conditions::check_none(&request)?;
    let tier = tier(&request)?.ok_or_else(|| faults::missing_header("x-ms-access-tier"))?;
    // How soon an archived blob is read again; clients say so whether it is archived or not, and none is.
    if let Some(asked) = one(&request, PRIORITY)?
        && !PRIORITIES.iter().any(|known| known.eq_ignore_ascii_case(asked))
    {
        return Err(faults::invalid_header(PRIORITY, asked));
    }
    let (container, name) = (request.param("container"), request.param("blob"));
    let mut attempts = at.store.attempts();
    loop {
        let (found, mut batch) = at.plan(&at.target.account, container, name).await?;
        let mut blob = found.blob.ok_or_else(faults::blob_not_found)?.value;
        blob.tier = Some(tier.clone());
        blob.tier_changed = Some(permit.epoch_seconds());
        batch.put(BLOBS, &found.key, &blob)?;
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            return Ok(Reply::empty(StatusCode::OK));
        }
    }
}
