//! What can go wrong with bytes, and what a client is told of it.

use std::io;
use std::path::PathBuf;
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
    #[error(
        "{folder} is missing or is not the folder that the site's blobs are in; mount it or put it back, or restore a \
         backup into another directory with `arcadia restore`. To go on without the bytes that were in it, make it {anew}",
        folder = folder.display()
    )]
    Lost { folder: PathBuf, anew: String },
    #[error(
        "{folder} has blobs in it that no row of this site leads to: they are another site's, its own from after its \
         database was put back, or what is left of blobs that were deleted under an earlier version. Nothing was removed. Mount or put back the folder that goes with the database, or move \
         what is in this one elsewhere",
        folder = folder.display()
    )]
    NotOwn { folder: PathBuf },
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

    /// Whether other records cannot be moved either: there is no room, or the store takes nothing now.
    pub fn stops_writes(&self) -> bool {
        use StoreError::{Closed, ObserverFailed, Unavailable};
        matches!(
            self,
            Self::Full | Self::Closed(_) | Self::Store(Unavailable { .. } | Closed | ObserverFailed)
        )
    }
}

/// The first fault among things that do not depend on one another: each is tried, whatever became of those before.
#[derive(Default)]
pub(super) struct FirstFault(Option<BytesFault>);

impl FirstFault {
    /// What it gave, or what nothing done gives.
    pub fn of<T: Default>(&mut self, result: Result<T, BytesFault>) -> T {
        result.unwrap_or_else(|fault| {
            self.0.get_or_insert(fault);
            T::default()
        })
    }

    pub fn into_result(self) -> Result<(), BytesFault> {
        self.0.map_or(Ok(()), Err)
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
