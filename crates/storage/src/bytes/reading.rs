//! Pieces on their way out: opened chunk by chunk, so that no answer holds more than one chunk in memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;

use arcadia_crypto::{CHUNK_TAG_BYTES, ChunkKey};
use arcadia_kernel::{Body, BodyError, full_body};
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};

use super::{ByteStore, BytesFault, CHUNK_BYTES, Piece, Place, blocking};

/// A part of a piece: bytes `from..until`.
pub(crate) struct Span {
    pub piece: Piece,
    pub from: u64,
    pub until: u64,
}

/// Spans, read one after the other.
pub(crate) struct Reading {
    bytes: Arc<ByteStore>,
    spans: VecDeque<Span>,
    open: Option<OpenFile>,
}

struct OpenFile {
    file: Arc<File>,
    key: Arc<ChunkKey>,
}

impl ByteStore {
    pub fn read(self: &Arc<Self>, spans: Vec<Span>) -> Reading {
        let spans = spans.into_iter().filter(|span| span.from < span.until).collect();
        Reading { bytes: self.clone(), spans, open: None }
    }

    /// A packed piece, whole. It may be moved between the look-up and the read, so it is looked up again once.
    async fn read_packed(&self, piece: &Piece, mut place: Place) -> Result<Vec<u8>, BytesFault> {
        let sealed_bytes =
            usize::try_from(piece.length).unwrap_or(usize::MAX).saturating_add(CHUNK_TAG_BYTES);
        let gone = BytesFault::Damaged { piece: piece.id, what: "its segment is missing" };
        for _ in 0..2 {
            let Place::Packed { segment, offset } = place else { break };
            if let Some(mut chunk) = self.segments.read(segment, offset, sealed_bytes)? {
                piece.key()?.open(0, &mut chunk).map_err(|_| not_authentic(piece))?;
                return Ok(chunk);
            }
            place = self.place(piece).await?;
        }
        Err(gone)
    }

    async fn place(&self, piece: &Piece) -> Result<Place, BytesFault> {
        let row = self.places.get(&self.store, &piece.id).await?;
        row.map(|row| *row).ok_or(BytesFault::Damaged { piece: piece.id, what: "its place is not known" })
    }
}

fn not_authentic(piece: &Piece) -> BytesFault {
    BytesFault::Damaged { piece: piece.id, what: "its bytes were changed outside this program" }
}

impl Reading {
    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BytesFault> {
        let Some(span) = self.spans.front_mut() else { return Ok(None) };
        if self.open.is_none() {
            match self.bytes.place(&span.piece).await? {
                place @ Place::Packed { .. } => {
                    let chunk = self.bytes.read_packed(&span.piece, place).await?;
                    let part = slice(&span.piece, chunk, span.from, span.until)?;
                    self.spans.pop_front();
                    return Ok(Some(part));
                }
                Place::File => {
                    let (path, key) = (self.bytes.files.path(span.piece.id), span.piece.key()?);
                    let open =
                        || File::open(path).map_err(|error| BytesFault::io("open a file of a blob", error));
                    let file = blocking(open).await?;
                    self.open = Some(OpenFile { file: Arc::new(file), key: Arc::new(key) });
                }
            }
        }
        let Some(open) = &self.open else { return Ok(None) };
        let number = span.from / CHUNK_BYTES as u64;
        let start = number * CHUNK_BYTES as u64;
        let chunk = read_chunk(open, &span.piece, number).await?;
        let end = span.until.min(start + CHUNK_BYTES as u64);
        let part = slice(&span.piece, chunk, span.from - start, end - start)?;
        span.from = end;
        if span.from >= span.until {
            self.spans.pop_front();
            self.open = None;
        }
        Ok(Some(part))
    }

    /// An answer's body. The first bytes are read before the answer starts, so that what cannot be read at all
    /// is an error and not an answer that breaks off.
    pub async fn into_body(mut self) -> Result<Body, BytesFault> {
        let first = self.next().await?;
        if self.spans.is_empty() {
            // The usual case of a small blob: head and bytes leave together.
            return Ok(full_body(first.unwrap_or_default()));
        }
        let frames = stream::unfold((first, Some(self)), |(ready, reading)| async move {
            if let Some(bytes) = ready {
                return Some((Ok(Frame::data(bytes)), (None, reading)));
            }
            let mut reading = reading?;
            match reading.next().await {
                Ok(Some(bytes)) => Some((Ok(Frame::data(bytes)), (None, Some(reading)))),
                Ok(None) => None,
                Err(fault) => {
                    tracing::error!(%fault, "a blob's answer breaks off");
                    Some((Err(BodyError(fault.into())), (None, None)))
                }
            }
        });
        Ok(StreamBody::new(frames).boxed_unsync())
    }
}

async fn read_chunk(open: &OpenFile, piece: &Piece, number: u64) -> Result<Vec<u8>, BytesFault> {
    let plain = (piece.length - number * CHUNK_BYTES as u64).min(CHUNK_BYTES as u64);
    let sealed_bytes = usize::try_from(plain).unwrap_or(CHUNK_BYTES) + CHUNK_TAG_BYTES;
    let (file, key, damaged) = (open.file.clone(), open.key.clone(), not_authentic(piece));
    blocking(move || {
        let offset = number * (CHUNK_BYTES + CHUNK_TAG_BYTES) as u64;
        let read = read_at(&file, offset, sealed_bytes);
        let mut chunk = read.map_err(|error| BytesFault::io("read a file of a blob", error))?;
        key.open(number, &mut chunk).map_err(|_| damaged)?;
        Ok(chunk)
    })
    .await
}

/// So many bytes of a file, into memory that was not cleared before.
fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let at = offset + bytes.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut bytes), at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

fn slice(piece: &Piece, chunk: Vec<u8>, from: u64, until: u64) -> Result<Bytes, BytesFault> {
    let chunk = Bytes::from(chunk);
    match (usize::try_from(from), usize::try_from(until)) {
        (Ok(from), Ok(until)) if from <= until && until <= chunk.len() => Ok(chunk.slice(from..until)),
        _ => Err(BytesFault::Damaged { piece: piece.id, what: "it is shorter than its manifest says" }),
    }
}
