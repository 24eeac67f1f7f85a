//! Whether a folder is the one that a site's blobs are in: its id is in a file there and in a row of the store.
//!
//! An empty folder looks the same whether nothing was ever kept in it or its volume is not there. A site that took
//! the latter for its own would remove, overwrite and number anew what comes back with the volume.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arcadia_store::{Batch, Record, Store, StoreError, Table};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::files::make_directory;
use super::{ByteStore, BytesFault, PLACES, Place};

/// One row, under [`ROW`]; there from the first piece on.
pub(super) const FOLDER: Table<str, Folder> = Table::new("storage/folder");
pub(super) const ROW: &str = "blobs";
const FILE: &str = "id";
const PLACES_PER_READ: usize = 1000;

/// What the store knows of the folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Folder {
    pub id: Uuid,
    /// No row leads to a later segment.
    pub segment: u64,
}

impl Record for Folder {}

/// What the rows of a site say of its folder.
pub(super) struct Known {
    /// `None` before the first piece, and of a site from when folders had no id.
    pub row: Option<Folder>,
    /// The last segment that rows lead to. `None`: they lead to nothing.
    pub segment: Option<u64>,
}

impl Known {
    pub async fn of(store: &Store) -> Result<Self, StoreError> {
        if let Some(row) = store.get(FOLDER, ROW).await? {
            return Ok(Self { segment: Some(row.value.segment), row: Some(row.value) });
        }
        let (mut segment, mut after) = (None, None);
        loop {
            let page = store.range(PLACES, &(), after.as_ref(), PLACES_PER_READ).await?;
            segment = segment.max(page.items.iter().map(|row| row.value.segment()).max());
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(Self { row: None, segment }),
            }
        }
    }

    /// The folder's id, which is `new` where it has none yet. Refuses a folder without what the rows lead to.
    pub fn claim(&self, folder: &Path, new: Uuid) -> Result<Uuid, BytesFault> {
        let file = folder.join(FILE);
        let found =
            read(&file).map_err(|error| BytesFault::io("read the id of the folder of blobs", error))?;
        let lost = |anew| Err(BytesFault::Lost { folder: folder.to_owned(), anew });
        match (&self.row, found) {
            (Some(row), Some(id)) if row.id == id => Ok(id),
            (Some(row), _) => lost(format!("with a file {FILE} in it that holds {}", row.id)),
            (None, _) if self.segment.is_some() && !folder.join("segments").is_dir() => {
                lost("with an empty folder segments in it".to_owned())
            }
            (None, Some(id)) => Ok(id),
            (None, None) => {
                make_directory(folder)?;
                write(folder, new)
                    .map_err(|error| BytesFault::io("write the id of the folder of blobs", error))?;
                Ok(new)
            }
        }
    }
}

/// `None` where there is no id: no file, or one that a crash left before it was whole.
fn read(file: &Path) -> io::Result<Option<Uuid>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Uuid::try_parse(text.trim()).ok()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Writes the id into the folder. Making its name durable is the caller's part.
pub(super) fn write(folder: &Path, id: Uuid) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(folder.join(FILE))?;
    writeln!(file, "{id}")?;
    file.sync_all()
}

impl Place {
    /// 0 for a file, which is in none.
    fn segment(self) -> u64 {
        match self {
            Self::Packed { segment, .. } => segment,
            Self::File => 0,
        }
    }
}

impl ByteStore {
    /// Adds the row that leads to a piece, and in the same commit the folder's, where that has yet to say so.
    pub(super) fn lead_to(&self, batch: &mut Batch, id: &Uuid, place: &Place) -> Result<(), StoreError> {
        batch.put(PLACES, id, place)?;
        let told = *self.folder_row.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|segment| segment < place.segment()) {
            batch.put(FOLDER, ROW, &Folder { id: self.folder_id, segment: self.segments.current() })?;
        }
        Ok(())
    }
}

/// The segment in the folder's row, as of the last commit. `None` while there is no row.
pub(super) fn follow(store: &Store, known: &Known) -> Arc<Mutex<Option<u64>>> {
    let row = Arc::new(Mutex::new(known.row.as_ref().map(|row| row.segment)));
    let follower = row.clone();
    store.observe(FOLDER, move |changes| {
        let last = changes.last().and_then(|change| change.after.as_ref());
        *follower.lock().unwrap_or_else(PoisonError::into_inner) = last.map(|row| row.segment);
    });
    row
}
