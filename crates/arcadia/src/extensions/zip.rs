//! Zip archives (APPNOTE.TXT 6.3, sections 4.3.7, 4.3.12 and 4.3.16) of small files, stored as they are. The bytes
//! depend on the files alone: every entry has the date on which zip's calendar begins.

const LOCAL_HEADER: u32 = 0x0403_4b50;
const CENTRAL_HEADER: u32 = 0x0201_4b50;
const END_OF_CENTRAL: u32 = 0x0605_4b50;
/// 2.0, made on Unix.
const MADE_BY: u16 = (3 << 8) | 20;
const NEEDED: u16 = 20;
/// The names are UTF-8.
const FLAGS: u16 = 1 << 11;
const STORED: u16 = 0;
const TIME: u16 = 0;
/// 1980-01-01.
const DATE: u16 = (1 << 5) | 1;
/// A regular file with mode 0644, in the upper half as Unix has it.
const ATTRIBUTES: u32 = 0o100_644 << 16;

/// An archive of the files in their order. `None` when a size or a count does not fit the format's fields.
pub fn archive(files: &[(String, Vec<u8>)]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut central = Vec::new();
    for (name, content) in files {
        let offset = u32::try_from(out.len()).ok()?;
        let facts = facts(name, content)?;
        put32(&mut out, LOCAL_HEADER);
        out.extend_from_slice(&facts);
        put32(&mut central, CENTRAL_HEADER);
        put16(&mut central, MADE_BY);
        central.extend_from_slice(&facts);
        // No comment, the first disk, no attributes of its own.
        for field in [0, 0, 0] {
            put16(&mut central, field);
        }
        put32(&mut central, ATTRIBUTES);
        put32(&mut central, offset);
        central.extend_from_slice(name.as_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(content);
    }
    let (start, size) = (u32::try_from(out.len()).ok()?, u32::try_from(central.len()).ok()?);
    let count = u16::try_from(files.len()).ok()?;
    out.append(&mut central);
    put32(&mut out, END_OF_CENTRAL);
    for field in [0, 0, count, count] {
        put16(&mut out, field);
    }
    put32(&mut out, size);
    put32(&mut out, start);
    put16(&mut out, 0);
    Some(out)
}

/// The fields that the local and the central header share, from the needed version to the length of extra fields.
fn facts(name: &str, content: &[u8]) -> Option<Vec<u8>> {
    let size = u32::try_from(content.len()).ok()?;
    let mut out = Vec::new();
    for field in [NEEDED, FLAGS, STORED, TIME, DATE] {
        put16(&mut out, field);
    }
    for field in [crc32(content), size, size] {
        put32(&mut out, field);
    }
    put16(&mut out, u16::try_from(name.len()).ok()?);
    put16(&mut out, 0);
    Some(out)
}

fn put16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// CRC-32 as zip, gzip and PNG have it (reflected, polynomial 0x04C11DB7).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_known_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn an_archive_of_one_file_byte_by_byte() {
        let found = archive(&[("a".to_owned(), b"123456789".to_vec())]).unwrap();
        let facts = b"\x14\0\0\x08\0\0\0\0\x21\0\x26\x39\xf4\xcb\x09\0\0\0\x09\0\0\0\x01\0\0\0";
        let mut wanted = b"PK\x03\x04".to_vec();
        wanted.extend_from_slice(facts);
        wanted.extend_from_slice(b"a123456789");
        wanted.extend_from_slice(b"PK\x01\x02\x14\x03");
        wanted.extend_from_slice(facts);
        wanted.extend_from_slice(b"\0\0\0\0\0\0\0\0\xa4\x81\0\0\0\0a");
        wanted.extend_from_slice(b"PK\x05\x06\0\0\0\0\x01\0\x01\0\x2f\0\0\0\x28\0\0\0\0\0");
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_does_not_fit_is_no_archive() {
        assert!(archive(&[("a".repeat(70_000), Vec::new())]).is_none());
        assert!(archive(&vec![(String::new(), Vec::new()); 70_000]).is_none());
    }
}
