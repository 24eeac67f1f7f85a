//! What an account is.

use arcadia_kernel::{At, Fault, Permit, Reply, Request, StatusCode};

use super::AccountInformation;
use crate::Storage;
use crate::headers::add;

pub(super) async fn information(
    at: At<Storage>,
    _: Permit<AccountInformation>,
    _: Request,
) -> Result<Reply, Fault> {
    let account = &at.target.account;
    let mut reply = Reply::empty(StatusCode::OK);
    add(&mut reply, "x-ms-sku-name", &account.sku);
    add(&mut reply, "x-ms-account-kind", &account.kind);
    add(&mut reply, "x-ms-is-hns-enabled", "false");
    Ok(reply)
}
