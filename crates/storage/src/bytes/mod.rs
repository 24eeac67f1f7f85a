//! Where the bytes of blobs are: outside the database, sealed, and durable before a row refers to them.
//!
//! A *piece* is what one request brought: a whole blob or one block. It is sealed in chunks under a random key of
//! its own ([`arcadia_crypto::ChunkKey`]), which only the blob's row knows, and rows are sealed by the store; each
//! chunk's tag is its checksum. Small pieces are appended to segments by one thread that syncs many at once, large
//! ones are a file each. [`PLACES`] says where a piece is; a file or record that it does not name is an orphan, of
//! an upload that broke off or of a crash, and is removed. So a site refuses to start on a folder that is not its own
//! (`folder`).
//!
//! Bytes stay for [`crate::records::GRACE_SECONDS`] after the last row that led to them is gone or names another place. So an answer
//! that is still being sent comes to its end. And nothing is removed while somebody holds a [`BytePin`]: a copy of the
//! store that is taken under one and followed by a copy of these folders is a whole backup, however long it takes.
//!
//! This is part of the storage service and not of `arcadia-store`, because nothing else keeps bytes yet and the
//! store's own guarantees need none of it: it uses tables and commits as any other client of the store does.

mod collect;
mod copy;
mod fault;
mod files;
mod folder;
mod pin;
mod reading;
mod room;
mod segments;
mod upload;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use arcadia_crypto::{ChunkKey, b64url, b64url_decode};
use arcadia_kernel::{Entropy, EntropyExt as _};
use arcadia_store::{Recent, Record, Store, Table};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use copy::{CopiedBytes, CopyFault, copy_bytes};
pub(crate) use fault::BytesFault;
pub use pin::BytePin;
pub(crate) use reading::Span;
pub(crate) use upload::Stored;

use crate::service::RECENT_ROWS_MAX;
use files::Files;
use folder::Known;
use segments::Segments;

/// Plaintext bytes of a chunk of a large piece; the last one may be shorter.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;
/// Pieces up to this size are packed; a packed piece is one chunk.
pub(crate) const PACKED_BYTES_MAX: usize = 64 * 1024;

/// Where a piece is, by its id.
pub(crate) const PLACES: Table<Uuid, Place> = Table::new("storage/places");

/// What a manifest keeps of a piece. Not `Debug`: it holds a key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece {
    pub id: Uuid,
    /// Plaintext bytes; never 0.
    pub length: u64,
    /// Base64url.
    key: String,
}

impl Piece {
    fn new(id: Uuid, length: u64, key: &ChunkKey) -> Self {
        Self { id, length, key: b64url(key.to_bytes().as_slice()) }
    }

    fn key(&self) -> Result<ChunkKey, BytesFault> {
        let damaged = || BytesFault::Damaged { piece: self.id, what: "its key cannot be read" };
        let bytes = b64url_decode(&self.key).ok_or_else(damaged)?;
        ChunkKey::from_bytes(&bytes).map_err(|_| damaged())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Place {
    /// The record at this byte of this segment.
    Packed { segment: u64, offset: u64 },
    /// A file named by the piece's id.
    File,
}

impl Record for Place {}

/// Every byte of a site's blobs.
pub(crate) struct ByteStore {
    folder: PathBuf,
    folder_id: Uuid,
    folder_row: Arc<Mutex<Option<u64>>>,
    store: Store,
    entropy: Arc<dyn Entropy>,
    files: Files,
    segments: Arc<Segments>,
    places: Recent<Uuid, Place>,
    flight: Arc<Flight>,
    /// Bytes that uploads under way have announced and not written yet.
    announced: Mutex<u64>,
    orphans_removed: AtomicBool,
    dirty: Mutex<collect::Dirty>,
    /// When a record was last moved out of a segment, in seconds since 1970: who looked for it before reads it there.
    moved: Mutex<HashMap<u64, i64>>,
    /// Segments in which nothing lives any more.
    retired: Mutex<HashSet<u64>>,
}

impl ByteStore {
    /// Opens `directory`, or makes it (mode 0700) as long as no row leads to bytes in it. Only one process may have it
    /// open, which is the caller's to see to.
    pub async fn open(
        directory: &Path,
        store: Store,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Arc<Self>, BytesFault> {
        let known = Known::of(&store, directory).await?;
        let folder_row = folder::follow(&store, &known);
        let (folder, new_id) = (directory.to_owned(), entropy.uuid());
        let (folder_id, files, segments) = blocking(move || {
            let id = known.claim(&folder, new_id)?;
            let files = Files::open(&folder.join("files"))?;
            let segments = Segments::open(&folder.join("segments"), known.segment.unwrap_or(0))?;
            files::sync_directory(&folder)?;
            if let Some(parent) = folder.parent() {
                files::sync_directory(parent)?;
            }
            Ok((id, files, Arc::new(segments)))
        })
        .await?;
        let places = Recent::of(&store, PLACES, RECENT_ROWS_MAX);
        Ok(Arc::new(Self {
            folder: directory.to_owned(),
            folder_id,
            folder_row,
            store,
            entropy,
            files,
            segments,
            places,
            flight: Arc::default(),
            announced: Mutex::default(),
            orphans_removed: AtomicBool::new(false),
            dirty: Mutex::default(),
            moved: Mutex::default(),
            retired: Mutex::default(),
        }))
    }
}

/// Pieces that are being written and that no row names yet.
#[derive(Default)]
struct Flight(Mutex<HashSet<Uuid>>);

impl Flight {
    fn begin(self: &Arc<Self>, id: Uuid) -> InFlight {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        InFlight { id, flight: self.clone() }
    }

    fn has(&self, id: Uuid) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }
}

struct InFlight {
    id: Uuid,
    flight: Arc<Flight>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.flight.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// Runs file work on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BytesFault> + Send + 'static,
) -> Result<T, BytesFault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(BytesFault::Closed(error.to_string())),
    }
}
