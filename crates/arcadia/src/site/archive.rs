//! A stream of any length in one sealed file of a backup.
//!
//! `"ARCB1" | length of the sealed key (2, big endian) | sealed key | chunks`. The key is the file's own, sealed under
//! the site's data keys with the file's name as additional data, so that no file stands for another. Every chunk but
//! the last has [`CHUNK_BYTES`] before sealing and the last one fewer, if only by one: a file that was cut between two
//! chunks has no last one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use arcadia_crypto::{CHUNK_TAG_BYTES, ChunkKey, KeyRing, SealFault};
use arcadia_kernel::Entropy;

use super::backup::additional_data;

const MAGIC: &[u8; 5] = b"ARCB1";
const CHUNK_BYTES: usize = 256 * 1024;
const SEALED_KEY_BYTES_MAX: u16 = 1024;

/// Seals what is written to it. Only [`ArchiveWriter::finish`] makes the file whole.
pub struct ArchiveWriter<W: Write> {
    out: W,
    key: ChunkKey,
    /// Less than a chunk between calls.
    buffer: Vec<u8>,
    number: u64,
}

impl ArchiveWriter<File> {
    /// Makes the file `name` in `folder`.
    pub fn create(folder: &Path, name: &str, ring: &KeyRing, entropy: &dyn Entropy) -> io::Result<Self> {
        let path = folder.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Self::new(file, name, ring, entropy)
    }
}

impl<W: Write> ArchiveWriter<W> {
    fn new(mut out: W, name: &str, ring: &KeyRing, entropy: &dyn Entropy) -> io::Result<Self> {
        let key = ChunkKey::generate(entropy).map_err(io::Error::other)?;
        let sealed = ring
            .seal(&additional_data(name), key.to_bytes().as_slice(), entropy)
            .map_err(io::Error::other)?;
        let length = u16::try_from(sealed.len()).map_err(io::Error::other)?;
        out.write_all(MAGIC)?;
        out.write_all(&length.to_be_bytes())?;
        out.write_all(&sealed)?;
        Ok(Self { out, key, buffer: Vec::with_capacity(CHUNK_BYTES + CHUNK_TAG_BYTES), number: 0 })
    }

    fn write_chunk(&mut self) -> io::Result<()> {
        self.key.seal(self.number, &mut self.buffer).map_err(io::Error::other)?;
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        self.number += 1;
        Ok(())
    }

    /// Writes the last chunk.
    pub fn finish(mut self) -> io::Result<W> {
        self.write_chunk()?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for ArchiveWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // A chunk that could not be written is sealed, and longer; nothing may follow it.
        let room = CHUNK_BYTES.checked_sub(self.buffer.len()).ok_or(io::ErrorKind::BrokenPipe)?;
        let taken = data.len().min(room);
        self.buffer.extend_from_slice(&data[..taken]);
        if self.buffer.len() == CHUNK_BYTES {
            self.write_chunk()?;
        }
        Ok(taken)
    }

    /// A chunk is written when it is full.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens what an [`ArchiveWriter`] sealed. What was changed is an error at the latest when the end is read.
pub struct ArchiveReader<R: Read> {
    input: R,
    key: ChunkKey,
    chunk: Vec<u8>,
    /// How much of the chunk was given away.
    taken: usize,
    number: u64,
    ended: bool,
}

impl ArchiveReader<File> {
    pub fn open(folder: &Path, name: &str, ring: &KeyRing) -> io::Result<Self> {
        Self::new(File::open(folder.join(name))?, name, ring)
    }
}

impl<R: Read> ArchiveReader<R> {
    fn new(mut input: R, name: &str, ring: &KeyRing) -> io::Result<Self> {
        let mut head = [0; MAGIC.len() + 2];
        input.read_exact(&mut head)?;
        let (magic, length) = head.split_at(MAGIC.len());
        let length = u16::from_be_bytes([length[0], length[1]]);
        if magic != MAGIC || length > SEALED_KEY_BYTES_MAX {
            return Err(invalid("it is not an archive that this version reads"));
        }
        let mut sealed = vec![0; usize::from(length)];
        input.read_exact(&mut sealed)?;
        let key = ring.open(&additional_data(name), &sealed).map_err(not_ours)?;
        let key = ChunkKey::from_bytes(&key).map_err(not_ours)?;
        Ok(Self { input, key, chunk: Vec::new(), taken: 0, number: 0, ended: false })
    }

    fn read_chunk(&mut self) -> io::Result<()> {
        let sealed_bytes = CHUNK_BYTES + CHUNK_TAG_BYTES;
        self.chunk.clear();
        self.taken = 0;
        (&mut self.input).take(sealed_bytes as u64).read_to_end(&mut self.chunk)?;
        if self.chunk.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "its end is missing"));
        }
        self.ended = self.chunk.len() < sealed_bytes;
        self.key.open(self.number, &mut self.chunk).map_err(not_ours)?;
        self.number += 1;
        Ok(())
    }
}

impl<R: Read> Read for ArchiveReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.chunk.len() {
            if self.ended {
                return Ok(0);
            }
            self.read_chunk()?;
        }
        let rest = &self.chunk[self.taken..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        Ok(count)
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn not_ours(fault: SealFault) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, fault)
}

#[cfg(test)]
mod tests {
    use arcadia_crypto::SystemEntropy;

    use super::*;

    fn sealed(ring: &KeyRing, name: &str, plain: &[u8]) -> Vec<u8> {
        let mut writer = ArchiveWriter::new(Vec::new(), name, ring, &SystemEntropy).unwrap();
        writer.write_all(plain).unwrap();
        writer.finish().unwrap()
    }

    fn opened(ring: &KeyRing, name: &str, sealed: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        ArchiveReader::new(sealed, name, ring)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let ring = KeyRing::generate(&SystemEntropy).unwrap();
        for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES] {
            let plain: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let file = sealed(&ring, "a", &plain);
            assert!(opened(&ring, "a", &file).unwrap() == plain, "{length}");
            assert!(opened(&ring, "b", &file).is_err(), "another name");
            for cut in [0, 3, 6, 20, file.len() / 2, file.len() - CHUNK_TAG_BYTES, file.len() - 1] {
                assert!(opened(&ring, "a", &file[..cut]).is_err(), "{length} cut at {cut}");
            }
            for at in [0, 5, 10, file.len() / 2, file.len() - 1] {
                let mut bent = file.clone();
                bent[at] ^= 1;
                assert!(opened(&ring, "a", &bent).is_err(), "{length} bent at {at}");
            }
            assert!(opened(&ring, "a", &[file.as_slice(), b"x"].concat()).is_err(), "{length} and more");
        }
        let other = KeyRing::generate(&SystemEntropy).unwrap();
        assert!(opened(&other, "a", &sealed(&ring, "a", b"x")).is_err());
    }

    #[test]
    fn a_file_cut_between_two_chunks_is_not_whole() {
        let ring = KeyRing::generate(&SystemEntropy).unwrap();
        let file = sealed(&ring, "a", &vec![7; 2 * CHUNK_BYTES]);
        let last = CHUNK_TAG_BYTES;
        let told = opened(&ring, "a", &file[..file.len() - last]).unwrap_err();
        assert_eq!(told.kind(), io::ErrorKind::UnexpectedEof);
    }
}
