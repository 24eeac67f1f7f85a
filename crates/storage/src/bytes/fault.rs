//! What can go wrong with bytes, and what a client is told of it.

use std::io;
use std::sync::Arc;

use arcadia_kernel::{Fault, StatusCode};
use arcadia_store::StoreError;
use uuid::Uuid;

/// For the log: names pieces and tasks, never contents.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum BytesFault {
    #[error("the site cannot {task}: {source}; look at the health of its disk")]
    Io { task: &'static str, source: Arc<io::Error> },
    #[error("there is not enough free space on the disk of the site's data directory")]
    Full,
    #[error("piece {piece} is damaged: {what}; restore it from a backup")]
    Damaged { piece: Uuid, what: &'static str },
    #[error("a piece could not be sealed")]
    Seal,
    #[error("the site is stopping: {0}")]
    Closed(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BytesFault {
    pub fn io(task: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io { task, source: Arc::new(source) },
        }
    }
}

impl From<BytesFault> for Fault {
    fn from(fault: BytesFault) -> Self {
        match fault {
            BytesFault::Full => Fault::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "ServerBusy",
                "There is not enough free space on the site's disk. Free some and retry.",
            )
            .caused_by(fault),
            BytesFault::Closed(_) => Fault::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "ServerBusy",
                "The server is stopping. Please retry your request.",
            )
            .caused_by(fault),
            BytesFault::Store(error) => error.into(),
            _ => Fault::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "InternalError",
                "The server encountered an internal error. Please retry the request; the site's log names the \
                 cause.",
            )
            .caused_by(fault),
        }
    }
}
