//! Containers.

use std::sync::Arc;

use arcadia_arm::end_assignments;
use arcadia_kernel::{At, EntropyExt as _, Fault, Permit, Reply, Request, StatusCode};

use super::change::{Leaving, detached};
use super::{DeleteContainer, ReadContainer, WriteContainer};
use crate::account::Account;
use crate::conditions::{Conditions, State};
use crate::headers::{add_container, add_version, check_served, metadata, new_etag};
use crate::paths::container_scope;
use crate::records::{CONTAINERS, Container, Metadata, Refuse};
use crate::{Storage, faults};

/// What a container is after a change, and whether the change made it.
pub(crate) struct Written {
    pub container: Container,
    pub created: bool,
}

impl Container {
    pub(crate) fn new(name: &str, metadata: Metadata, permit: &Permit<WriteContainer>) -> Self {
        Self {
            name: name.to_owned(),
            instance: permit.entropy().uuid(),
            etag: new_etag(permit.entropy()),
            modified: permit.epoch_seconds(),
            metadata,
        }
    }

    pub(crate) fn with_metadata(&self, metadata: Metadata, permit: &Permit<WriteContainer>) -> Self {
        Self { etag: new_etag(permit.entropy()), modified: permit.epoch_seconds(), metadata, ..self.clone() }
    }

    pub(crate) fn state(&self) -> State<'_> {
        State { etag: &self.etag, modified: self.modified }
    }
}

/// Changes that the data plane and the resource manager make alike.
impl Storage {
    /// Makes a container, or changes it, to what `plan` says of the one that is there; nothing leaves it as it is.
    pub(crate) async fn write_container(
        &self,
        account: &Account,
        name: &str,
        permit: &Permit<WriteContainer>,
        plan: impl Fn(Option<&Container>) -> Result<Option<Container>, Fault> + Send,
    ) -> Result<Written, Fault> {
        let key = (account.instance(), name.to_owned());
        let mut attempts = self.store.attempts();
        loop {
            let mut batch = self.change_of(account).await?;
            let row = self.store.get(CONTAINERS, &key).await?;
            let planned = plan(row.as_ref().map(|row| &row.value))?;
            let created = row.is_none();
            match &row {
                Some(row) => batch.require_revision(CONTAINERS, &key, row.revision),
                None => batch.require_absent(CONTAINERS, &key),
            }
            let container = match (row, planned) {
                (None, None) => return Err(faults::container_not_found()),
                (Some(row), None) => return Ok(Written { container: row.value, created }),
                (_, Some(container)) => container,
            };
            batch.put(CONTAINERS, &key, &container)?;
            if attempts.commit(permit.stamp(), batch).await?.is_some() {
                return Ok(Written { container, created });
            }
        }
    }

    /// The container and its name are gone at once, and with them the roles that were assigned there; what it holds is
    /// unreachable then, and is removed by the sweep. Gives whether there was one.
    pub(crate) async fn delete_container(
        self: Arc<Self>,
        account: Arc<Account>,
        name: &str,
        permit: Permit<DeleteContainer>,
        conditions: Conditions,
    ) -> Result<bool, Fault> {
        let name = name.to_owned();
        detached(async move { self.end_container(&account, &name, &permit, &conditions).await }).await
    }

    async fn end_container(
        &self,
        account: &Account,
        name: &str,
        permit: &Permit<DeleteContainer>,
        conditions: &Conditions,
    ) -> Result<bool, Fault> {
        let scope = container_scope(&account.id, name).map_err(|_| faults::invalid_resource_name())?;
        let key = (account.instance(), name.to_owned());
        let leaving = Leaving { now: permit.epoch_seconds(), entropy: permit.entropy() };
        let mut attempts = self.store.attempts();
        loop {
            let mut batch = self.change_of(account).await?;
            let Some(row) = self.store.get(CONTAINERS, &key).await? else { return Ok(false) };
            conditions.check_change(row.value.state())?;
            batch.require_revision(CONTAINERS, &key, row.revision);
            batch.delete(CONTAINERS, &key);
            leaving.leave(&mut batch, 0, Refuse::Container(row.value.instance))?;
            end_assignments(&self.store, permit.stamp(), &account.id, &scope, &mut batch).await?;
            if attempts.commit(permit.stamp(), batch).await?.is_some() {
                return Ok(true);
            }
        }
    }
}

fn written(status: StatusCode, container: &Container) -> Reply {
    let mut reply = Reply::empty(status);
    add_version(&mut reply, &container.etag, container.modified);
    reply
}

pub(super) async fn create(
    at: At<Storage>,
    permit: Permit<WriteContainer>,
    request: Request,
) -> Result<Reply, Fault> {
    check_served(&request)?;
    Conditions::check_none(&request)?;
    if request.headers.contains_key("x-ms-blob-public-access") {
        return Err(faults::public_access_not_permitted());
    }
    if let Some(name) = ["x-ms-default-encryption-scope", "x-ms-deny-encryption-scope-override"]
        .into_iter()
        .find(|name| request.headers.contains_key(*name))
    {
        return Err(faults::unsupported_header(name));
    }
    let (name, metadata) = (request.param("container"), metadata(&request)?);
    let made = at.write_container(&at.target.account, name, &permit, |current| match current {
        Some(_) => Err(faults::container_exists()),
        None => Ok(Some(Container::new(name, metadata.clone(), &permit))),
    });
    Ok(written(StatusCode::CREATED, &made.await?.container))
}

/// Properties and metadata; the latter alone is the same answer with fewer names to look at.
pub(super) async fn properties(
    at: At<Storage>,
    _: Permit<ReadContainer>,
    request: Request,
) -> Result<Reply, Fault> {
    let conditions = Conditions::of(&request)?;
    let container = at.container(&at.target.account, request.param("container")).await?.value;
    conditions.check_read(container.state())?;
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
    let name = request.param("container");
    let changed = at.write_container(&at.target.account, name, &permit, |current| {
        let current = current.ok_or_else(faults::container_not_found)?;
        conditions.check_change(current.state())?;
        Ok(Some(current.with_metadata(metadata.clone(), &permit)))
    });
    Ok(written(StatusCode::OK, &changed.await?.container))
}

pub(super) async fn delete(
    at: At<Storage>,
    permit: Permit<DeleteContainer>,
    request: Request,
) -> Result<Reply, Fault> {
    let conditions = Conditions::of(&request)?;
    let name = request.param("container");
    if !at.service.delete_container(at.target.account, name, permit, conditions).await? {
        return Err(faults::container_not_found());
    }
    Ok(Reply::empty(StatusCode::ACCEPTED))
}
