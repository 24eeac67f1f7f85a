//! Whether a folder is the one that a site's blobs are in: its id is in a file there and in a row of the store.
//!
//! An empty folder looks the same whether nothing was ever kept in it or its volume is not there. A site that took
//! the latter for its own would remove, overwrite and number anew what comes back with the volume.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arcadia_kernel::AuditStamp;
use arcadia_store::{Batch, CommitError, Record, Store, StoreError, Table};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::files::{Files, make_directory};
use super::{ByteStore, BytesFault, PLACES, Place, blocking, segments};

/// One row, under [`ROW`]; there before the first piece.
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
    /// Not looked for where there is a row.
    held: Held,
}

/// Whose pieces are in a folder that no row says anything of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Nothing,
    /// Rows lead to one of them at least.
    Own,
    Unknown,
}

impl Known {
    pub async fn of(store: &Store, folder: &Path) -> Result<Self, BytesFault> {
        let row = store.get(FOLDER, ROW).await?.map(|row| row.value);
        let segments = segments_in(folder).await?;
        let mut segment = row.as_ref().map(|row| row.segment);
        // Of commits that crossed, the last may have said less than one before it. The segments that are there count
        // as well; where there are none, the places do.
        if row.is_none() || segments.is_empty() {
            segment = segment.max(last_segment(store).await?);
        }
        let held = match &row {
            Some(_) => Held::Own,
            None => Held::of(store, folder, segments).await?,
        };
        Ok(Self { row, segment, held })
    }

    /// The folder's id, which is `new` where it has none yet. Refuses a folder without what the rows lead to, and one
    /// with pieces that none of them leads to: the site's own are there after its row only.
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
            (None, _) if self.held == Held::Unknown => Err(BytesFault::NotOwn { folder: folder.to_owned() }),
            (None, Some(id)) if self.held == Held::Own => Ok(id),
            // The id of an empty folder may be in another site's row, which would take what comes for its own.
            (None, _) => {
                make_directory(folder)?;
                write(folder, new)
                    .map_err(|error| BytesFault::io("write the id of the folder of blobs", error))?;
                Ok(new)
            }
        }
    }
}

impl Held {
    async fn of(store: &Store, folder: &Path, segments: Vec<u64>) -> Result<Self, BytesFault> {
        let mut held = Self::Nothing;
        for segment in segments {
            held = Self::Unknown;
            let root = folder.join("segments");
            // One that cannot be read does not keep a site whose other pieces are there.
            let found = blocking(move || Ok(segments::scan(&root, segment).unwrap_or_default().0)).await?;
            let ids: Vec<Uuid> = found.iter().map(|record| record.id).collect();
            if leads_to_one(store, &ids).await? {
                return Ok(Self::Own);
            }
        }
        for shard in 0..=255 {
            let root = folder.join("files");
            let path = Files::shard_in(&root, shard);
            let ids = blocking(move || listed(&path, || Files::in_shard(&root, shard))).await?;
            if leads_to_one(store, &ids).await? {
                return Ok(Self::Own);
            }
            if !ids.is_empty() {
                held = Self::Unknown;
            }
        }
        Ok(held)
    }
}

async fn leads_to_one(store: &Store, ids: &[Uuid]) -> Result<bool, StoreError> {
    for ids in ids.chunks(PLACES_PER_READ) {
        if store.get_many(PLACES, ids).await?.iter().any(Option::is_some) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn segments_in(folder: &Path) -> Result<Vec<u64>, BytesFault> {
    let root = folder.join("segments");
    blocking(move || listed(&root, || segments::numbers(&root))).await
}

/// Nothing where the folder does not exist, as in one that was restored.
fn listed<T>(folder: &Path, list: impl FnOnce() -> Result<Vec<T>, BytesFault>) -> Result<Vec<T>, BytesFault> {
    let exists =
        folder.try_exists().map_err(|error| BytesFault::io("look into the folder of blobs", error))?;
    if exists { list() } else { Ok(Vec::new()) }
}

async fn last_segment(store: &Store) -> Result<Option<u64>, StoreError> {
    let (mut segment, mut after) = (None, None);
    loop {
        let page = store.range(PLACES, &(), after.as_ref(), PLACES_PER_READ).await?;
        segment = segment.max(page.items.iter().map(|row| row.value.segment()).max());
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(segment),
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
    /// Writes the folder's row where there is none. What no row says to be the site's own is not, so this comes before
    /// the first piece.
    pub async fn own_folder(&self, stamp: &AuditStamp) -> Result<(), BytesFault> {
        if self.told().is_some() {
            return Ok(());
        }
        let mut batch = Batch::new();
        self.put_folder(&mut batch)?;
        match self.store.commit(stamp, batch).await {
            Ok(_) | Err(CommitError::Conflict) => Ok(()),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }

    /// Adds the row that leads to a piece, and in the same commit the folder's, where that has yet to say so.
    pub(super) fn lead_to(&self, batch: &mut Batch, id: &Uuid, place: &Place) -> Result<(), StoreError> {
        batch.put(PLACES, id, place)?;
        if self.told().is_none_or(|segment| segment < place.segment()) {
            self.put_folder(batch)?;
        }
        Ok(())
    }

    fn put_folder(&self, batch: &mut Batch) -> Result<(), StoreError> {
        batch.put(FOLDER, ROW, &Folder { id: self.folder_id, segment: self.segments.current() })
    }

    fn told(&self) -> Option<u64> {
        *self.folder_row.lock().unwrap_or_else(PoisonError::into_inner)
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
