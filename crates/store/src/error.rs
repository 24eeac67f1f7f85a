//! What can go wrong, and what a client is told of it.

use std::path::PathBuf;
use std::sync::Arc;

use arcadia_kernel::{BoxError, Fault, StatusCode};

/// A failure of the store. For the log: its words name tables and files, never values.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Disk full, an I/O error, a lock that was not released in time. Trying again later may succeed.
    #[error("the store cannot {task} now: {source}; look at the free space and the health of its disk")]
    Unavailable { task: &'static str, source: Arc<BoxError> },
    /// The database refused in a way that trying again does not change.
    #[error("the store could not {task}: {source}")]
    Backend { task: &'static str, source: Arc<BoxError> },
    #[error(
        "the store is closed: what writes to it has ended; start the site again, and look for the reason in its log"
    )]
    Closed,
    #[error("{path} is open in another process; stop that one first")]
    InUse { path: PathBuf },
    #[error(
        "{path} was written by a newer version (schema {found}, this one knows {known}); use that version"
    )]
    NewerSchema { path: PathBuf, found: i64, known: i64 },
    #[error("{path} is not a store of this program; move it away or choose another directory")]
    Foreign { path: PathBuf },
    #[error(
        "the store does not open with this key ring; use the key file that belongs to this data directory"
    )]
    WrongKey,
    /// A value that was moved to another row, altered, or sealed under a key that the ring does not hold.
    #[error("{what} does not open: it was moved or altered outside this program; restore it from a backup")]
    NotAuthentic { what: String },
    #[error("{what} is damaged: {detail}; restore the store from a backup")]
    Damaged { what: String, detail: String },
    #[error("a record of table {table} cannot be {task}: {source}")]
    Record { table: String, task: &'static str, source: Arc<BoxError> },
    #[error("a record has schema {found} and this version knows only up to {known}")]
    UnknownSchema { found: u32, known: u32 },
    #[error("{what} has {found} where at most {max} are accepted")]
    TooLarge { what: &'static str, found: usize, max: usize },
    /// What is in memory may differ from what is on disk, so nothing more is accepted.
    #[error("an observer of the store failed, so its view may be stale; restart the site")]
    ObserverFailed,
    /// Somebody else removed, replaced or wrote to the files while they were open.
    #[error(
        "{path} was {what} while the site was running, so nothing more is answered; find out by whom, stop the \
         site, put the file back or restore a backup, look at it with `arcadia audit verify`, and start again"
    )]
    Interfered { path: PathBuf, what: &'static str },
    /// Seals and chain are whole, and yet not all rows are of the last commit.
    #[error(
        "the rows of the store are not the ones that were written last ({found} are there, {written} were written): \
         some were removed, added or put back to an earlier state while the site was stopped; find out by whom, keep \
         the data directory as it is, and restore a backup into another one"
    )]
    RowsReplaced { written: u64, found: u64 },
    /// They were being looked at while the store was in use already.
    #[error(
        "it could not be checked that the rows of the store are the ones that were written last ({source}), so nothing \
         more is answered; look at the health of its disk, and start the site again"
    )]
    RowsUnchecked { source: Arc<StoreError> },
    #[error("the data key has sealed as many values as one key may; replace it with `arcadia keys rotate`")]
    KeyUsedUp,
    /// Its files are older or shorter than what they held when something was acknowledged last.
    #[error(
        "{path} has not everything that was acknowledged: {detail}; put its files back as they were, or restore a \
         backup into another directory with `arcadia restore`. To go on without what is missing, move {anchor} away \
         and start again"
    )]
    Lost { path: PathBuf, anchor: PathBuf, detail: String },
    #[error("there is no store in {path}")]
    Missing { path: PathBuf },
}

impl StoreError {
    pub(crate) fn backend(task: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Backend { task, source: Arc::new(source.into()) }
    }

    pub(crate) fn unavailable(task: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Unavailable { task, source: Arc::new(source.into()) }
    }

    pub(crate) fn record(table: &str, task: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Record { table: table.to_owned(), task, source: Arc::new(source.into()) }
    }
}

impl From<StoreError> for Fault {
    /// 503 where trying again may help, 413 where less may, else 500. The cause is for the log alone.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { .. }
            | StoreError::Closed
            | StoreError::ObserverFailed
            | StoreError::KeyUsedUp
            | StoreError::Interfered { .. }
            | StoreError::RowsReplaced { .. }
            | StoreError::RowsUnchecked { .. } => {
                let message = "The service cannot read or write its data at the moment. Please retry.";
                Fault::unavailable(message).caused_by(error)
            }
            StoreError::TooLarge { .. } => {
                let message = "What the request asks for is larger than can be kept in one piece.";
                Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestContentTooLarge", message).caused_by(error)
            }
            _ => Fault::internal(error),
        }
    }
}

/// Why a commit is not acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// A requirement did not hold; nothing was written.
    #[error("another commit changed what this one relied on")]
    Conflict,
    /// Nothing was written, with two exceptions: after [`StoreError::ObserverFailed`] the change may be on disk,
    /// and a disk that fails in the very act of making a commit durable may still show it after a power loss.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<CommitError> for Fault {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict => {
                let message = "The resource was changed by another request at the same time. Please retry.";
                Fault::conflict("Conflict", message)
            }
            CommitError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_learns_nothing_of_the_cause() {
        let full = StoreError::unavailable("write", "disk full at /secret/path");
        let fault = Fault::from(full);
        assert_eq!(fault.status.as_u16(), 503);
        assert!(!fault.message.contains("/secret/path"));
        assert!(fault.source().is_some_and(|cause| cause.to_string().contains("/secret/path")));

        let fault = Fault::from(StoreError::WrongKey);
        assert_eq!(fault.status.as_u16(), 500);

        let fault = Fault::from(CommitError::Conflict);
        assert_eq!((fault.status.as_u16(), &*fault.code), (409, "Conflict"));
    }
}
