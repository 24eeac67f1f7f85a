//! Small pieces, packed: one thread appends whatever is waiting and syncs once for all of it.
//!
//! A segment is records of `"ARC1" | id (16) | length (4, big endian) | sealed bytes`. A segment is only appended
//! to by the process that made it, so nothing is ever written after a tail that a crash left torn; no row names
//! that tail.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::files::{Files, make_directory, sync_directory};
use super::{BytesFault, Place};

const MAGIC: [u8; 4] = *b"ARC1";
pub(super) const HEADER_BYTES: usize = 24;
/// Where in a header the length is.
const LENGTH_AT: u64 = 20;
/// A segment that has reached this size is not appended to any more.
const SEGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
const QUEUE_JOBS_MAX: usize = 1024;
/// What is written and synced together.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Segments that are kept open for readers.
const OPEN_SEGMENTS_MAX: usize = 64;

/// The segments of a site.
pub(super) struct Segments {
    root: PathBuf,
    open: Mutex<OpenSegments>,
    queue: mpsc::Sender<Job>,
    /// The segment that is appended to; older ones are complete.
    current: Arc<AtomicU64>,
}

struct Job {
    id: Uuid,
    sealed: Vec<u8>,
    done: oneshot::Sender<Result<Place, BytesFault>>,
}

/// What a segment's header says of a record.
pub(super) struct Found {
    pub id: Uuid,
    pub offset: u64,
    pub sealed_bytes: u32,
}

impl Segments {
    /// `named`: the last segment that rows lead to, 0 for none. What is appended goes behind it, though it is gone.
    pub fn open(root: &Path, named: u64) -> Result<Self, BytesFault> {
        make_directory(root)?;
        let next = numbers(root)?.into_iter().max().unwrap_or(0).max(named) + 1;
        let current = Arc::new(AtomicU64::new(next));
        let (queue, jobs) = mpsc::channel(QUEUE_JOBS_MAX);
        let appender = Appender { root: root.to_owned(), current: current.clone(), open: None };
        std::thread::Builder::new()
            .name("blob-segments".to_owned())
            .spawn(move || appender.run(jobs))
            .map_err(|error| BytesFault::io("start the thread that packs blobs", error))?;
        Ok(Self { root: root.to_owned(), open: Mutex::default(), queue, current })
    }

    /// Returns once the record is durable.
    pub async fn append(&self, id: Uuid, sealed: Vec<u8>) -> Result<Place, BytesFault> {
        let closed = || BytesFault::Closed("the thread that packs blobs has ended".to_owned());
        let (done, result) = oneshot::channel();
        self.queue.send(Job { id, sealed, done }).await.map_err(|_| closed())?;
        result.await.map_err(|_| closed())?
    }

    /// The sealed bytes of a record; `None` when its segment is gone, because it was rewritten.
    pub fn read(
        &self,
        segment: u64,
        offset: u64,
        sealed_bytes: usize,
    ) -> Result<Option<Vec<u8>>, BytesFault> {
        let file = match self.opened(segment) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BytesFault::io("open a segment", error)),
        };
        let mut sealed = vec![0; sealed_bytes];
        file.read_exact_at(&mut sealed, offset + HEADER_BYTES as u64)
            .map_err(|error| BytesFault::io("read a segment", error))?;
        Ok(Some(sealed))
    }

    fn opened(&self, segment: u64) -> std::io::Result<Arc<File>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).file(segment, || path(&self.root, segment))
    }

    /// Removes a segment that nobody reads any more.
    pub fn remove(&self, segment: u64) -> Result<(), BytesFault> {
        Files::remove(&path(&self.root, segment))?;
        // After its name is gone, so that nobody opens it again: an open file would go on taking its space.
        self.open.lock().unwrap_or_else(PoisonError::into_inner).close(segment);
        Ok(())
    }

    pub fn current(&self) -> u64 {
        self.current.load(Ordering::Acquire)
    }

    /// Every segment that is not appended to any more.
    pub fn complete(&self) -> Result<Vec<u64>, BytesFault> {
        let current = self.current();
        Ok(numbers(&self.root)?.into_iter().filter(|number| *number < current).collect())
    }

    pub fn root(&self) -> &Path {
        &self.root
    }
}

pub(super) fn path(root: &Path, segment: u64) -> PathBuf {
    root.join(format!("{segment:016x}.seg"))
}

pub(super) fn numbers(root: &Path) -> Result<Vec<u64>, BytesFault> {
    let failed = |error| BytesFault::io("list the segments", error);
    let mut found = Vec::new();
    for entry in fs::read_dir(root).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".seg"));
        found.extend(number.and_then(|number| u64::from_str_radix(number, 16).ok()));
    }
    Ok(found)
}

/// What is before the sealed bytes of a record.
pub(super) fn header(id: Uuid, sealed_bytes: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4..20].copy_from_slice(id.as_bytes());
    header[20..].copy_from_slice(&sealed_bytes.to_be_bytes());
    header
}

/// The records of a complete segment, up to its end or a torn tail or a damaged header, and its size in bytes.
pub(super) fn scan(root: &Path, segment: u64) -> Result<(Vec<Found>, u64), BytesFault> {
    let failed = |error| BytesFault::io("read a segment", error);
    let file = File::open(path(root, segment)).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let mut found = Vec::new();
    let mut offset = 0;
    while offset + HEADER_BYTES as u64 <= size {
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, offset).map_err(failed)?;
        let (magic, rest) = header.split_at(MAGIC.len());
        let (id, length) = rest.split_at(16);
        let sealed_bytes = u32::from_be_bytes([length[0], length[1], length[2], length[3]]);
        let end = offset + HEADER_BYTES as u64 + u64::from(sealed_bytes);
        if magic != MAGIC {
            // Zeros are a tail that was never written. Else this header is damaged, or the length before it that led
            // here: a record is not moved by a length that may be wrong.
            if header != [0; HEADER_BYTES] {
                found.pop();
            }
            break;
        }
        if end > size {
            break;
        }
        let id = Uuid::from_slice(id).unwrap_or_default();
        found.push(Found { id, offset, sealed_bytes });
        offset = end;
    }
    // Too few bytes for a header: a torn one, or the last record's length is damaged. A record that is moved with a
    // few bytes too many is whole: readers go by the length in its row.
    let rest = size - offset;
    if rest < HEADER_BYTES as u64
        && let Some(last) = found.last_mut()
    {
        last.sealed_bytes = last.sealed_bytes.saturating_add(rest as u32);
    }
    Ok((found, size))
}

/// Makes a record of nobody of each hole in a segment to which only some records were written, each to its place, so that
/// the ones behind it are found. It takes no room on the disk.
pub(super) fn fill_holes(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let size = file.metadata()?.len();
    let (mut end, mut last) = (0, 0);
    while end < size {
        let start = written_from(&file, end)?;
        let hole = u32::try_from(start - end).map_err(std::io::Error::other)?;
        if let Some(rest) = hole.checked_sub(HEADER_BYTES as u32) {
            file.write_all_at(&header(Uuid::nil(), rest), end)?;
        } else if hole > 0 {
            // The record before it was once moved with a few bytes too many.
            let bytes = sealed_bytes_at(&file, last)?.saturating_add(hole);
            file.write_all_at(&bytes.to_be_bytes(), last + LENGTH_AT)?;
        }
        end = start + HEADER_BYTES as u64 + u64::from(sealed_bytes_at(&file, start)?);
        last = start;
    }
    Ok(())
}

/// Where the next byte is that is no zero, as every record begins with one.
fn written_from(file: &File, mut from: u64) -> std::io::Result<u64> {
    let mut bytes = [0; 16 * 1024];
    // As a rule a record follows at once.
    let mut length = 1;
    loop {
        let count = file.read_at(&mut bytes[..length], from)?;
        length = bytes.len();
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(at) = bytes.iter().take(count).position(|byte| *byte != 0) {
            return Ok(from + at as u64);
        }
        from += count as u64;
    }
}

fn sealed_bytes_at(file: &File, record: u64) -> std::io::Result<u32> {
    let mut length = [0; 4];
    file.read_exact_at(&mut length, record + LENGTH_AT)?;
    Ok(u32::from_be_bytes(length))
}

/// Open files by number, the one that was used last at the end.
#[derive(Default)]
struct OpenSegments(Vec<(u64, Arc<File>)>);

impl OpenSegments {
    fn file(&mut self, segment: u64, path: impl FnOnce() -> PathBuf) -> std::io::Result<Arc<File>> {
        let found = match self.0.iter().rposition(|(number, _)| *number == segment) {
            Some(at) => self.0.remove(at),
            None => {
                if self.0.len() == OPEN_SEGMENTS_MAX {
                    self.0.remove(0);
                }
                (segment, Arc::new(File::open(path())?))
            }
        };
        let file = found.1.clone();
        self.0.push(found);
        Ok(file)
    }

    fn close(&mut self, segment: u64) {
        self.0.retain(|(number, _)| *number != segment);
    }
}

struct Appender {
    root: PathBuf,
    current: Arc<AtomicU64>,
    open: Option<(File, u64)>,
}

impl Appender {
    /// Until every sender is gone.
    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            let mut bytes = first.sealed.len();
            let mut group = vec![first];
            while bytes < GROUP_BYTES_MAX {
                let Ok(job) = jobs.try_recv() else { break };
                bytes += job.sealed.len();
                group.push(job);
            }
            self.append(group);
        }
    }

    fn append(&mut self, group: Vec<Job>) {
        match self.write(&group) {
            Ok(places) => {
                for (job, place) in group.into_iter().zip(places) {
                    let _ = job.done.send(Ok(place));
                }
            }
            Err(fault) => {
                // What is in the file now is not known, so nothing is appended to it.
                self.close();
                for job in group {
                    let _ = job.done.send(Err(fault.clone()));
                }
            }
        }
    }

    fn write(&mut self, group: &[Job]) -> Result<Vec<Place>, BytesFault> {
        if self.open.as_ref().is_some_and(|(_, size)| *size >= SEGMENT_BYTES_MAX) {
            self.close();
        }
        let segment = self.current.load(Ordering::Acquire);
        if self.open.is_none() {
            let file = OpenOptions::new()
                .append(true)
                .create_new(true)
                .mode(0o600)
                .open(path(&self.root, segment))
                .map_err(|error| BytesFault::io("create a segment", error))?;
            self.open = Some((file, 0));
            sync_directory(&self.root)?;
        }
        let Some((file, size)) = self.open.as_mut() else {
            return Err(BytesFault::Closed("no segment is open".to_owned()));
        };
        let mut out = Vec::with_capacity(group.iter().map(|job| HEADER_BYTES + job.sealed.len()).sum());
        let mut places = Vec::with_capacity(group.len());
        for job in group {
            places.push(Place::Packed { segment, offset: *size + out.len() as u64 });
            let length = u32::try_from(job.sealed.len()).map_err(|_| BytesFault::Seal)?;
            out.extend_from_slice(&header(job.id, length));
            out.extend_from_slice(&job.sealed);
        }
        file.write_all(&out).map_err(|error| BytesFault::io("write a segment", error))?;
        file.sync_data().map_err(|error| BytesFault::io("sync a segment", error))?;
        *size += out.len() as u64;
        Ok(places)
    }

    fn close(&mut self) {
        self.open = None;
        self.current.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn records_are_found_again_and_a_torn_tail_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let segments = Arc::new(Segments::open(directory.path(), 0).unwrap());
        let mut waiting = Vec::new();
        for number in 1..=40_u128 {
            let segments = segments.clone();
            waiting.push(tokio::spawn(async move {
                segments.append(Uuid::from_u128(number), vec![number as u8; 100]).await.unwrap()
            }));
        }
        for (number, place) in waiting.into_iter().enumerate() {
            let Place::Packed { segment, offset } = place.await.unwrap() else { panic!("not packed") };
            let read = segments.read(segment, offset, 100).unwrap().unwrap();
            assert_eq!(read, vec![number as u8 + 1; 100]);
        }
        assert!(segments.complete().unwrap().is_empty(), "the one segment is still open");
        drop(segments);

        let file = path(directory.path(), 1);
        let size = fs::metadata(&file).unwrap().len();
        assert_eq!(scan(directory.path(), 1).unwrap().0.len(), 40);
        for torn in [1, 50, 99, 110, 123] {
            OpenOptions::new().write(true).open(&file).unwrap().set_len(size - torn).unwrap();
            assert_eq!(scan(directory.path(), 1).unwrap().0.len(), 39, "{torn}");
        }
        // The next process appends to a segment of its own.
        let segments = Segments::open(directory.path(), 0).unwrap();
        let place = segments.append(Uuid::from_u128(99), vec![9; 10]).await.unwrap();
        assert_eq!(place, Place::Packed { segment: 2, offset: 0 });
        assert_eq!(segments.complete().unwrap(), [1]);
        assert_eq!(segments.read(7, 0, 10).unwrap(), None);
        // One that was read is still gone once it is removed.
        assert!(segments.read(1, 0, 100).unwrap().is_some());
        segments.remove(1).unwrap();
        assert_eq!(segments.read(1, 0, 100).unwrap(), None);
    }

    #[test]
    fn holes_become_records_of_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let file = path(directory.path(), 1);
        // A hole before the first, one after it, none, and one that is too small for a header.
        let places = [(100, 10), (200, 0), (224, 20), (224 + 44 + 23, 5)];
        let written = File::create(&file).unwrap();
        for (number, (offset, bytes)) in (1..).zip(places) {
            let header = header(Uuid::from_u128(number), bytes);
            written.write_all_at(&[&header[..], &vec![7; bytes as usize]].concat(), offset).unwrap();
        }
        let size = written.metadata().unwrap().len();
        fill_holes(&file).unwrap();
        let (found, scanned) = scan(directory.path(), 1).unwrap();
        let found: Vec<_> =
            found.iter().map(|record| (record.id.as_u128(), record.offset, record.sealed_bytes)).collect();
        let nobody = [(0, 0, 100 - 24), (0, 134, 200 - 134 - 24)];
        let expected =
            [nobody[0], (1, 100, 10), nobody[1], (2, 200, 0), (3, 224, 20 + 23), (4, 224 + 44 + 23, 5)];
        assert_eq!(found, expected);
        assert_eq!(scanned, size, "it is as long as it was");
        fill_holes(&file).unwrap();
        assert_eq!(scan(directory.path(), 1).unwrap().0.len(), expected.len());
    }

    #[test]
    fn a_bounded_number_of_segments_is_open() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("segment");
        fs::write(&file, "").unwrap();
        let gone = || directory.path().join("no such file");
        let mut open = OpenSegments::default();
        for number in 0..=100 {
            open.file(number, || file.clone()).unwrap();
            // Used in between, so never the one that goes.
            open.file(0, gone).unwrap();
            assert!(open.0.len() <= OPEN_SEGMENTS_MAX);
        }
        assert!(open.file(100, gone).is_ok() && open.file(1, gone).is_err());
    }
}
