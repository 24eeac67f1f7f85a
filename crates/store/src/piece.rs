//! Pieces of the audit log: records that were committed together, sealed together under the number of the last.
//!
//! One record alone is sealed as its JSON. Several are packed, as they say much the same: `1 | length as 4 bytes big
//! endian | LZ4 block`, of one record per line. So a piece tells by its length how much its records have in common;
//! no record holds a value that this could give away.

use arcadia_crypto::Wiped;
use lz4_flex::block;

use crate::StoreError;
use crate::backend::AuditRow;
use crate::seal::{Sealer, Sealing};

/// The longest record, in bytes of JSON.
pub(crate) const RECORD_BYTES_MAX: usize = 128 * 1024;
/// A piece takes no further record beyond so many bytes.
const PIECE_BYTES_MAX: usize = RECORD_BYTES_MAX;
/// Between records. JSON as it is written here has it nowhere.
const BETWEEN: u8 = b'\n';
/// No JSON begins so.
const PACKED: u8 = 1;
const PACKED_HEADER_BYTES: usize = 5;

/// A piece that is being put together.
pub(crate) struct Piece {
    lines: Vec<u8>,
    records: usize,
}

impl Piece {
    /// For records of about so many bytes, at the most one piece.
    pub fn of(bytes: usize) -> Self {
        Self { lines: Vec::with_capacity(bytes.min(PIECE_BYTES_MAX)), records: 0 }
    }

    pub fn takes(&self, record: &[u8]) -> bool {
        self.lines.len() + record.len() < PIECE_BYTES_MAX
    }

    pub fn add(&mut self, record: &[u8]) {
        if self.records > 0 {
            self.lines.push(BETWEEN);
        }
        self.lines.extend_from_slice(record);
        self.records += 1;
    }

    /// `sequence` is the number of the last record.
    pub fn sealed(self, sealing: &mut Sealing<'_>, sequence: u64) -> Result<Vec<u8>, StoreError> {
        let packed = if self.records > 1 { packed(&self.lines)? } else { self.lines };
        sealing.seal(&aad(sequence), &packed)
    }
}

/// The records of a piece.
pub(crate) struct Records {
    lines: Wiped,
    first: u64,
}

impl Records {
    pub fn open(sealer: &Sealer, row: &AuditRow) -> Result<Self, StoreError> {
        let what = || format!("audit record {}", row.sequence);
        let lines = unpacked(sealer.open(&aad(row.sequence), &row.records, what)?).ok_or_else(|| {
            StoreError::Damaged { what: what(), detail: "it cannot be unpacked".to_owned() }
        })?;
        let more = lines.iter().filter(|byte| **byte == BETWEEN).count() as u64;
        // Whoever holds the key numbers from 1.
        Ok(Self { first: row.sequence.saturating_sub(more), lines })
    }

    /// With their numbers.
    pub fn each(&self) -> impl Iterator<Item = (u64, &[u8])> {
        (self.first..).zip(self.lines.split(|byte| *byte == BETWEEN))
    }

    /// The same piece under the current key.
    pub fn sealed_again(&self, sealer: &Sealer, sequence: u64) -> Result<Vec<u8>, StoreError> {
        let mut piece = Piece::of(self.lines.len());
        self.each().for_each(|(_, record)| piece.add(record));
        piece.sealed(&mut sealer.sealing(1), sequence)
    }
}

fn packed(lines: &[u8]) -> Result<Vec<u8>, StoreError> {
    let failed = |error| StoreError::backend("pack audit records", error);
    let mut packed = vec![PACKED; PACKED_HEADER_BYTES + block::get_maximum_output_size(lines.len())];
    // A piece is far shorter than 4 GiB.
    packed[1..PACKED_HEADER_BYTES].copy_from_slice(&(lines.len() as u32).to_be_bytes());
    let bytes = block::compress_into(lines, &mut packed[PACKED_HEADER_BYTES..]).map_err(failed)?;
    packed.truncate(PACKED_HEADER_BYTES + bytes);
    Ok(packed)
}

/// `None` when it is not what [`packed`] makes.
fn unpacked(piece: Wiped) -> Option<Wiped> {
    let Some((&[PACKED, ref length @ ..], block)) = piece.split_first_chunk::<PACKED_HEADER_BYTES>() else {
        return Some(piece);
    };
    let bytes = u32::from_be_bytes(*length) as usize;
    let mut lines = Wiped::from(vec![0; Some(bytes).filter(|bytes| *bytes <= PIECE_BYTES_MAX)?]);
    (block::decompress_into(block, &mut lines).ok()? == bytes).then_some(lines)
}

fn aad(sequence: u64) -> Vec<u8> {
    [b"\0audit ".as_slice(), &sequence.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_and_nothing_else() {
        let line = b"{\"service\":\"keyvault\",\"operation\":\"SecretGet\"}\n";
        for lines in [line.repeat(40), line.to_vec(), vec![b'x'; PIECE_BYTES_MAX]] {
            let packed = packed(&lines).unwrap();
            assert_eq!(*unpacked(Wiped::from(packed.clone())).unwrap(), lines);
            for length in 1..packed.len().min(200) {
                let cut = unpacked(Wiped::from(packed[..length].to_vec()));
                assert!(cut.is_none_or(|cut| *cut == packed[..length] && length < PACKED_HEADER_BYTES));
            }
            let mut other = packed.clone();
            other[PACKED_HEADER_BYTES - 1] ^= 1;
            assert!(unpacked(Wiped::from(other)).is_none(), "another length");
            let mut large = packed.clone();
            large[1] = 0x7F;
            assert!(unpacked(Wiped::from(large)).is_none(), "more than a piece");
        }
        assert!(packed(&line.repeat(40)).unwrap().len() < 200);
        for plain in [&b"{}"[..], b"", b"\x01"] {
            assert_eq!(*unpacked(Wiped::from(plain.to_vec())).unwrap(), plain);
        }
    }
}
