//! A copy of the bytes that the rows of a store name, from one folder of blobs to another.
//!
//! The same for a backup and for a restore: whole segments and single files are copied, and every piece that a row
//! names is opened with the key in that row. So a copy that was made is one that can be read.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use arcadia_crypto::CHUNK_TAG_BYTES;
use arcadia_store::{StoreError, StoreReader};
use uuid::Uuid;

use super::files::{Files, make_directory};
use super::folder::{self, FOLDER, ROW};
use super::segments::{self, HEADER_BYTES};
use super::{CHUNK_BYTES, PLACES, Piece, Place};
use crate::records::{BLOBS, BLOCKS, CONTENTS, Content};

/// Segments that are held open at the same time.
const OPEN_SEGMENTS_MAX: usize = 64;

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopiedBytes {
    /// Whole blobs and blocks. A small block that several rows name counts for each.
    pub pieces: u64,
    /// Their length before sealing.
    pub bytes: u64,
}

/// Why bytes could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyFault {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("the bytes of {of} cannot be read: {what} ({piece})")]
    Damaged { of: String, piece: Uuid, what: &'static str },
}

impl CopyFault {
    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

/// Copies every byte that `rows` name from the folder `from` into the empty folder `to`, opening each piece on the
/// way, and gives it the id that `rows` have for it. Calls `told` with the number of bytes written each time. Where a site may be running on `from`, hold a
/// [`super::BytePin`] since before `rows` were copied. Making the files durable is the caller's part.
pub fn copy_bytes(
    rows: &StoreReader,
    from: &Path,
    to: &Path,
    told: &mut dyn FnMut(u64),
) -> Result<CopiedBytes, CopyFault> {
    let mut copy = Copy {
        rows,
        from: from.to_owned(),
        to: to.to_owned(),
        told,
        open: HashMap::new(),
        copied: CopiedBytes::default(),
    };
    copy.segments()?;
    if let Some(row) = rows.get(FOLDER, ROW)? {
        folder::write(to, row.value.id).map_err(CopyFault::file(to))?;
    }
    rows.each(BLOBS, |blob| match &blob.content {
        Content::One(piece) => copy.piece(piece, || format!("blob {:?}", blob.name)),
        Content::Empty | Content::Listed { .. } => Ok(()),
    })?;
    let mut block = |block: crate::records::Block| {
        let of = || format!("block {:?}", block.id);
        copy.piece(&block.piece, of)
    };
    rows.each(CONTENTS, |part| part.blocks.into_iter().try_for_each(&mut block))?;
    rows.each(BLOCKS, block)?;
    Ok(copy.copied)
}

struct Copy<'a> {
    rows: &'a StoreReader,
    from: PathBuf,
    to: PathBuf,
    told: &'a mut dyn FnMut(u64),
    /// Segments of the copy.
    open: HashMap<u64, File>,
    copied: CopiedBytes,
}

impl Copy<'_> {
    /// Segments are copied whole, as rows name places in them. One that is appended to meanwhile is copied as far
    /// as it is by now, which is past everything that the rows name.
    fn segments(&mut self) -> Result<(), CopyFault> {
        let mut named = BTreeSet::new();
        self.rows.each(PLACES, |place| {
            if let Place::Packed { segment, .. } = place {
                named.insert(segment);
            }
            Ok::<_, CopyFault>(())
        })?;
        let (from, to) = (self.from.join("segments"), self.to.join("segments"));
        make(&to)?;
        for segment in named {
            let (source, target) = (segments::path(&from, segment), segments::path(&to, segment));
            match fs::copy(&source, &target) {
                Ok(bytes) => (self.told)(bytes),
                // Missed below if a living row names it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(CopyFault::file(&target)(error)),
            }
        }
        Ok(())
    }

    fn piece(&mut self, piece: &Piece, of: impl Fn() -> String) -> Result<(), CopyFault> {
        let damaged = |what| CopyFault::Damaged { of: of(), piece: piece.id, what };
        let place = self.rows.get(PLACES, &piece.id)?.map(|row| row.value);
        let read = match place {
            Some(Place::Packed { segment, offset }) => self.check_packed(piece, segment, offset),
            Some(Place::File) => self.copy_file(piece),
            None => Err(Unread::Damaged("their place is not known")),
        };
        match read {
            Ok(new) => {
                self.copied.pieces += u64::from(new);
                self.copied.bytes += if new { piece.length } else { 0 };
                Ok(())
            }
            Err(Unread::Damaged(what)) => Err(damaged(what)),
            Err(Unread::Failed(path, error)) => match error.kind() {
                io::ErrorKind::NotFound => Err(damaged("their file is missing")),
                io::ErrorKind::UnexpectedEof => Err(damaged("their file is too short")),
                _ => Err(CopyFault::file(&path)(error)),
            },
        }
    }

    /// Opens a packed piece in the copy of its segment.
    fn check_packed(&mut self, piece: &Piece, segment: u64, offset: u64) -> Result<bool, Unread> {
        let path = segments::path(&self.to.join("segments"), segment);
        if self.open.len() >= OPEN_SEGMENTS_MAX && !self.open.contains_key(&segment) {
            self.open.clear();
        }
        let file = match self.open.entry(segment) {
            std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(File::open(&path).map_err(|error| Unread::Failed(path.clone(), error))?)
            }
        };
        // A packed piece is one chunk.
        let mut chunk = vec![0; sealed_bytes(piece.length.min(CHUNK_BYTES as u64))];
        file.read_exact_at(&mut chunk, offset + HEADER_BYTES as u64)
            .map_err(|error| Unread::Failed(path, error))?;
        let key = piece.key().map_err(|_| Unread::Damaged("their key cannot be read"))?;
        key.open(0, &mut chunk).map_err(|_| Unread::Damaged(CHANGED))?;
        Ok(true)
    }

    /// `false` when it was copied before, as a block that another row names as well.
    fn copy_file(&mut self, piece: &Piece) -> Result<bool, Unread> {
        let source = Files::path_in(&self.from.join("files"), piece.id);
        let target = Files::path_in(&self.to.join("files"), piece.id);
        if target.exists() {
            return Ok(false);
        }
        let key = piece.key().map_err(|_| Unread::Damaged("their key cannot be read"))?;
        let mut input = File::open(&source).map_err(|error| Unread::Failed(source.clone(), error))?;
        let failed = |error| Unread::Failed(target.clone(), error);
        if let Some(shard) = target.parent() {
            make(shard).map_err(|fault| Unread::Failed(shard.to_owned(), io::Error::other(fault)))?;
        }
        let mut output = Files::create_new(&target).map_err(failed)?;
        let mut chunk = Vec::with_capacity(CHUNK_BYTES + CHUNK_TAG_BYTES);
        let (mut left, mut number) = (piece.length, 0);
        while left > 0 {
            let plain = left.min(CHUNK_BYTES as u64);
            chunk.resize(sealed_bytes(plain), 0);
            input.read_exact(&mut chunk).map_err(|error| Unread::Failed(source.clone(), error))?;
            output.write_all(&chunk).map_err(failed)?;
            (self.told)(chunk.len() as u64);
            key.open(number, &mut chunk).map_err(|_| Unread::Damaged(CHANGED))?;
            left -= plain;
            number += 1;
        }
        Ok(true)
    }
}

const CHANGED: &str = "they were changed outside this program";

enum Unread {
    Damaged(&'static str),
    Failed(PathBuf, io::Error),
}

fn sealed_bytes(plain: u64) -> usize {
    usize::try_from(plain).unwrap_or(CHUNK_BYTES) + CHUNK_TAG_BYTES
}

fn make(path: &Path) -> Result<(), CopyFault> {
    make_directory(path).map_err(|fault| CopyFault::file(path)(io::Error::other(fault)))
}
