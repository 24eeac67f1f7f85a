//! A piece on its way in: hashed, sealed and written as it arrives.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use arcadia_crypto::{CHUNK_TAG_BYTES, ChunkKey};
use arcadia_kernel::EntropyExt as _;
use arcadia_store::{Batch, StoreError};
use md5::{Digest as _, Md5};
use uuid::Uuid;

use super::files::Files;
use super::room::Room;
use super::{ByteStore, BytesFault, CHUNK_BYTES, InFlight, PACKED_BYTES_MAX, Piece, Place, blocking};

/// Dropped before [`Upload::finish`], it leaves nothing.
pub(crate) struct Upload {
    bytes: Arc<ByteStore>,
    id: Uuid,
    key: Arc<ChunkKey>,
    /// Plaintext that is not written yet; less than a chunk between calls.
    buffer: Vec<u8>,
    length: u64,
    md5: Md5,
    spilled: Option<Spilled>,
    in_flight: InFlight,
    room: Room,
}

/// A file that is being written. Removed when dropped, unless kept.
struct Spilled {
    path: PathBuf,
    file: File,
    chunks: u64,
    keep: bool,
}

impl Drop for Spilled {
    fn drop(&mut self) {
        if !self.keep
            && let Err(fault) = Files::remove(&self.path)
        {
            tracing::warn!(%fault, "an abandoned upload stays on the disk until the next start");
        }
    }
}

impl Spilled {
    fn write(&mut self, key: &ChunkKey, mut chunk: Vec<u8>) -> Result<(), BytesFault> {
        key.seal(self.chunks, &mut chunk).map_err(|_| BytesFault::Seal)?;
        self.chunks += 1;
        self.file.write_all(&chunk).map_err(|error| BytesFault::io("write a file of a blob", error))
    }
}

/// A piece that is durable and that no row names yet.
pub(crate) struct Stored {
    /// `None` for no bytes at all.
    pub piece: Option<Piece>,
    pub md5: [u8; 16],
    pub length: u64,
    place: Place,
    spilled: Option<Spilled>,
    bytes: Arc<ByteStore>,
    _in_flight: InFlight,
}

impl Stored {
    /// Adds the row that keeps the bytes. From here on the file stays, whatever becomes of the commit: when it
    /// fails, the next start removes what no row names. Only [`Self::not_kept`] takes this back.
    pub fn keep(&mut self, batch: &mut Batch) -> Result<(), StoreError> {
        let Some(piece) = &self.piece else { return Ok(()) };
        self.bytes.lead_to(batch, &piece.id, &self.place)?;
        self.set_keep(true);
        Ok(())
    }

    /// The commit of that row was refused for certain. Without another one, the file goes with this.
    pub fn not_kept(&mut self) {
        self.set_keep(false);
    }

    fn set_keep(&mut self, keep: bool) {
        if let Some(spilled) = &mut self.spilled {
            spilled.keep = keep;
        }
    }
}

impl ByteStore {
    /// `announced`: how many bytes are said to come, 0 when nothing is said.
    pub fn upload(self: &Arc<Self>, announced: u64) -> Result<Upload, BytesFault> {
        let room = Room::new(self, announced)?;
        let id = self.entropy.uuid();
        let key = ChunkKey::generate(&*self.entropy).map_err(|_| BytesFault::Seal)?;
        Ok(Upload {
            id,
            key: Arc::new(key),
            buffer: Vec::new(),
            length: 0,
            md5: Md5::new(),
            spilled: None,
            in_flight: self.flight.begin(id),
            room,
            bytes: self.clone(),
        })
    }
}

impl Upload {
    pub async fn write(mut self, mut data: &[u8]) -> Result<Self, BytesFault> {
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(CHUNK_BYTES - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            self.length += now.len() as u64;
            data = later;
            if self.buffer.len() == CHUNK_BYTES {
                self = self.spill().await?;
            }
        }
        Ok(self)
    }

    /// Writes the buffer as the next chunk of a file.
    async fn spill(mut self) -> Result<Self, BytesFault> {
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES + CHUNK_TAG_BYTES));
        blocking(move || {
            let bytes = chunk.len() as u64;
            self.room.check(bytes)?;
            self.md5.update(&chunk);
            let spilled = match &mut self.spilled {
                Some(spilled) => spilled,
                None => {
                    let path = self.bytes.files.path(self.id);
                    let file = Files::create(&path)?;
                    self.spilled.insert(Spilled { path, file, chunks: 0, keep: false })
                }
            };
            spilled.write(&self.key, chunk)?;
            self.room.written(bytes);
            Ok(self)
        })
        .await
    }

    /// Returns once the bytes are durable.
    pub async fn finish(mut self) -> Result<Stored, BytesFault> {
        if self.spilled.is_none() && self.buffer.len() <= PACKED_BYTES_MAX {
            return self.pack().await;
        }
        if !self.buffer.is_empty() {
            self = self.spill().await?;
        }
        blocking(move || {
            if let Some(spilled) = &self.spilled {
                Files::sync(&spilled.file, &spilled.path)?;
            }
            Ok(Stored {
                piece: Some(Piece::new(self.id, self.length, &self.key)),
                md5: self.md5.finalize().into(),
                length: self.length,
                place: Place::File,
                spilled: self.spilled.take(),
                bytes: self.bytes,
                _in_flight: self.in_flight,
            })
        })
        .await
    }

    async fn pack(mut self) -> Result<Stored, BytesFault> {
        let mut sealed = std::mem::take(&mut self.buffer);
        self.md5.update(&sealed);
        let mut piece = None;
        // No bytes need no place.
        let mut place = Place::File;
        if !sealed.is_empty() {
            // What was announced was let in a moment ago.
            if !self.room.covers(self.length) {
                self.room.check(self.length)?;
            }
            piece = Some(Piece::new(self.id, self.length, &self.key));
            self.key.seal(0, &mut sealed).map_err(|_| BytesFault::Seal)?;
            place = self.bytes.append(self.id, sealed).await?;
        }
        Ok(Stored {
            piece,
            md5: self.md5.finalize().into(),
            length: self.length,
            place,
            spilled: None,
            bytes: self.bytes,
            _in_flight: self.in_flight,
        })
    }
}
