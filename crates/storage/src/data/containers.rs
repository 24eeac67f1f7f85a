//! Containers.

use arcadia_kernel::{At, EntropyExt as _, Fault, Permit, Reply, Request, StatusCode};
use arcadia_store::Batch;

use super::change::Leaving;
use super::{DeleteContainer, ReadContainer, WriteContainer};
use crate::account::Account;
use crate::conditions::{Conditions, State};
use crate::headers::{add_container, add_version, check_served, metadata, new_etag};
use crate::records::{CONTAINERS, Container, NAMES, Refuse};
use crate::{Storage, faults};

impl Storage {
    /// A batch that is only committed while the account is live and still the same one.
    async fn change_of(&self, account: &Account) -> Result<Batch, Fault> {
        let claim = self.store.get(NAMES, account.name()).await?;
        let claim = claim.filter(|row| row.value.instance == account.instance());
        let claim = claim.ok_or_else(faults::account_not_found)?;
        let mut batch = Batch::new();
        batch.require_revision(NAMES, account.name(), claim.revision);
        Ok(batch)
    }
}

fn state(container: &Container) -> State<'_> {
    State { etag: &container.etag, modified: container.modified }
}

pub(super) async fn create(
    at: At<Storage>,
    permit: Permit<WriteContainer>,
    request: Request,
) -> Result<Reply, Fault> {
    check_served(&request)?;
    if request.headers.contains_key("x-ms-blob-public-access") {
        let message = "Public access is not permitted on this storage account.";
        return Err(Fault::conflict("PublicAccessNotPermitted", message));
    }
    if let Some(name) = ["x-ms-default-encryption-scope", "x-ms-deny-encryption-scope-override"]
        .into_iter()
        .find(|name| request.headers.contains_key(*name))
    {
        return Err(faults::unsupported_header(name));
    }
    let account = &at.target.account;
    let container = Container {
        name: request.param("container").to_owned(),
        instance: permit.entropy().uuid(),
        etag: new_etag(permit.entropy()),
        modified: permit.epoch_seconds(),
        metadata: metadata(&request)?,
    };
    let key = (account.instance(), container.name.clone());
    let mut attempts = at.store.attempts();
    loop {
        let mut batch = at.change_of(account).await?;
        if at.store.get(CONTAINERS, &key).await?.is_some() {
            return Err(faults::container_exists());
        }
        batch.require_absent(CONTAINERS, &key);
        batch.put(CONTAINERS, &key, &container)?;
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            let mut reply = Reply::empty(StatusCode::CREATED);
            add_version(&mut reply, &container.etag, container.modified);
            return Ok(reply);
        }
    }
}

/// Properties and metadata; the latter alone is the same answer with fewer names to look at.
pub(super) async fn properties(
    at: At<Storage>,
    _: Permit<ReadContainer>,
    request: Request,
) -> Result<Reply, Fault> {
    let conditions = Conditions::of(&request)?;
    let container = at.container(&at.target.account, request.param("container")).await?.value;
    conditions.check_read(state(&container))?;
    let mut reply = Reply::empty(StatusCode::OK);
    add_container(&mut reply, &container);
    Ok(reply)
}

pub(super) async fn set_metadata(
    at: At<Storage>,
    permit: Permit<WriteContainer>,
    request: Request,
) -> Result<Reply, Fault> {
    let conditions = Conditions::of(&request)?;
    let metadata = metadata(&request)?;
    let key = (at.target.account.instance(), request.param("container").to_owned());
    let mut attempts = at.store.attempts();
    loop {
        let row = at.container(&at.target.account, &key.1).await?;
        conditions.check_change(state(&row.value))?;
        let container = Container {
            etag: new_etag(permit.entropy()),
            modified: permit.epoch_seconds(),
            metadata: metadata.clone(),
            ..row.value
        };
        let mut batch = Batch::new();
        batch.require_revision(CONTAINERS, &key, row.revision);
        batch.put(CONTAINERS, &key, &container)?;
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            let mut reply = Reply::empty(StatusCode::OK);
            add_version(&mut reply, &container.etag, container.modified);
            return Ok(reply);
        }
    }
}

/// The container and its name are gone at once; what it holds is unreachable then, and is removed by the sweep.
pub(super) async fn delete(
    at: At<Storage>,
    permit: Permit<DeleteContainer>,
    request: Request,
) -> Result<Reply, Fault> {
    let conditions = Conditions::of(&request)?;
    let key = (at.target.account.instance(), request.param("container").to_owned());
    let leaving = Leaving { now: permit.epoch_seconds(), entropy: permit.entropy() };
    let mut attempts = at.store.attempts();
    loop {
        let row = at.container(&at.target.account, &key.1).await?;
        conditions.check_change(state(&row.value))?;
        let mut batch = Batch::new();
        batch.require_revision(CONTAINERS, &key, row.revision);
        batch.delete(CONTAINERS, &key);
        leaving.leave(&mut batch, 0, Refuse::Container(row.value.instance))?;
        if attempts.commit(permit.stamp(), batch).await?.is_some() {
            return Ok(Reply::empty(StatusCode::ACCEPTED));
        }
    }
}
