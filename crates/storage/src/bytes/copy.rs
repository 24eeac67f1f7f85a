//! A copy of the bytes that the rows of a store name, from one folder of blobs to another.
//!
//! The same for a backup and for a restore: every piece that a row names is opened with the key in that row, and
//! written to where the row has it. So a copy that was made is one that can be read, and nothing else is in it, whatever
//! the files that it was made from have besides.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use arcadia_crypto::CHUNK_TAG_BYTES;
use arcadia_store::{StoreError, StoreReader};
use rustix::fs::OFlags;
use uuid::Uuid;

use super::files::{Files, make_directory};
use super::folder::{self, FOLDER, ROW};
use super::segments::{self, HEADER_BYTES};
use super::{CHUNK_BYTES, PLACES, Piece, Place};
use crate::records::{BLOBS, BLOCKS, CONTENTS, Content};

/// Segments that are held open at the same time, each twice: as it is, and the copy of it.
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
    let segments = copy.to.join("segments");
    make(&segments)?;
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
    copy.open.clear();
    for entry in fs::read_dir(&segments).map_err(CopyFault::file(&segments))? {
        let path = entry.map_err(CopyFault::file(&segments))?.path();
        segments::fill_holes(&path).map_err(CopyFault::file(&path))?;
    }
    Ok(copy.copied)
}

struct Copy<'a> {
    rows: &'a StoreReader,
    from: PathBuf,
    to: PathBuf,
    told: &'a mut dyn FnMut(u64),
    open: HashMap<u64, Segment>,
    copied: CopiedBytes,
}

/// A segment, and the copy of it.
struct Segment {
    source: File,
    target: File,
}

impl Copy<'_> {
    fn piece(&mut self, piece: &Piece, of: impl Fn() -> String) -> Result<(), CopyFault> {
        let damaged = |what| CopyFault::Damaged { of: of(), piece: piece.id, what };
        let place = self.rows.get(PLACES, &piece.id)?.map(|row| row.value);
        let read = match place {
            Some(Place::Packed { segment, offset }) => self.copy_packed(piece, segment, offset),
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

    /// With a header made anew: the one that is there is under no seal.
    fn copy_packed(&mut self, piece: &Piece, segment: u64, offset: u64) -> Result<bool, Unread> {
        // A packed piece is one chunk.
        let sealed_bytes = sealed_bytes(piece.length.min(CHUNK_BYTES as u64));
        let mut record = segments::header(piece.id, sealed_bytes as u32).to_vec();
        record.resize(HEADER_BYTES + sealed_bytes, 0);
        let [source, target] =
            [&self.from, &self.to].map(|root| segments::path(&root.join("segments"), segment));
        let open = self.segment(segment, &source, &target)?;
        let (_, chunk) = record.split_at_mut(HEADER_BYTES);
        open.source
            .read_exact_at(chunk, offset + HEADER_BYTES as u64)
            .map_err(|error| Unread::Failed(source, error))?;
        open.target.write_all_at(&record, offset).map_err(|error| Unread::Failed(target, error))?;
        (self.told)(record.len() as u64);
        let key = piece.key().map_err(|_| Unread::Damaged("their key cannot be read"))?;
        let mut chunk = record.split_off(HEADER_BYTES);
        key.open(0, &mut chunk).map_err(|_| Unread::Damaged(CHANGED))?;
        Ok(true)
    }

    fn segment(&mut self, segment: u64, source: &Path, target: &Path) -> Result<&Segment, Unread> {
        if self.open.len() >= OPEN_SEGMENTS_MAX && !self.open.contains_key(&segment) {
            self.open.clear();
        }
        let free = match self.open.entry(segment) {
            Entry::Occupied(open) => return Ok(open.into_mut()),
            Entry::Vacant(free) => free,
        };
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        Ok(free.insert(Segment {
            source: open_plain(source).map_err(|error| Unread::Failed(source.to_owned(), error))?,
            target: options.open(target).map_err(|error| Unread::Failed(target.to_owned(), error))?,
        }))
    }

    /// `false` when it was copied before, as a block that another row names as well.
    fn copy_file(&mut self, piece: &Piece) -> Result<bool, Unread> {
        let source = Files::path_in(&self.from.join("files"), piece.id);
        let target = Files::path_in(&self.to.join("files"), piece.id);
        if target.exists() {
            return Ok(false);
        }
        let key = piece.key().map_err(|_| Unread::Damaged("their key cannot be read"))?;
        let mut input = open_plain(&source).map_err(|error| Unread::Failed(source.clone(), error))?;
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

/// A plain file and nothing else that has its name: a link leads elsewhere, a pipe never ends.
fn open_plain(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file")),
    }
}

fn sealed_bytes(plain: u64) -> usize {
    usize::try_from(plain).unwrap_or(CHUNK_BYTES) + CHUNK_TAG_BYTES
}

fn make(path: &Path) -> Result<(), CopyFault> {
    make_directory(path).map_err(|fault| CopyFault::file(path)(io::Error::other(fault)))
}
