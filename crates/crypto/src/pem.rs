//! PEM text (RFC 7468), read leniently: headers, blank lines and text between blocks are stepped over.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::encoding::b64_decode;

/// Longest text [`pem_decode`] reads.
pub const PEM_TEXT_BYTES_MAX: usize = 1 << 20;
const BLOCKS_MAX: usize = 256;
const LINE_CHARACTERS: usize = 64;

/// One block, for example `CERTIFICATE` or `PRIVATE KEY`. The bytes are wiped when dropped.
#[derive(Clone)]
pub struct PemBlock {
    pub label: String,
    pub der: Zeroizing<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemFault {
    #[error("the PEM text is longer than {PEM_TEXT_BYTES_MAX} bytes or has more than {BLOCKS_MAX} blocks")]
    TooLong,
    #[error("the PEM text has no -----BEGIN ...----- block")]
    NoBlock,
    #[error("a PEM block has no matching -----END ...----- line")]
    Unterminated,
    #[error("a PEM block does not hold base64")]
    NotBase64,
}

/// All blocks of a PEM text, in order; at least one.
pub fn pem_decode(text: &str) -> Result<Vec<PemBlock>, PemFault> {
    if text.len() > PEM_TEXT_BYTES_MAX {
        return Err(PemFault::TooLong);
    }
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        if blocks.len() == BLOCKS_MAX {
            return Err(PemFault::TooLong);
        }
        let (label, after) = after.split_once("-----").ok_or(PemFault::Unterminated)?;
        let end = format!("-----END {label}-----");
        let (body, after) = after.split_once(end.as_str()).ok_or(PemFault::Unterminated)?;
        let der = b64_decode(without_headers(body)).ok_or(PemFault::NotBase64)?;
        blocks.push(PemBlock { label: label.to_owned(), der: Zeroizing::new(der) });
        rest = after;
    }
    if blocks.is_empty() { Err(PemFault::NoBlock) } else { Ok(blocks) }
}

/// Steps over RFC 1421 headers (`Proc-Type: ...`), which end at a blank line.
fn without_headers(body: &str) -> &str {
    if !body.contains(':') {
        return body;
    }
    body.split_once("\n\n").or_else(|| body.split_once("\r\n\r\n")).map_or(body, |(_, content)| content)
}

/// One block of PEM text with lines of 64 characters.
pub fn pem_encode(label: &str, der: &[u8]) -> String {
    let body = Zeroizing::new(STANDARD.encode(der));
    // The exact capacity matters: a growing string would leave copies of a private key behind.
    let mut out = String::with_capacity(body.len() + body.len() / LINE_CHARACTERS + 2 * label.len() + 40);
    out.push_str("-----BEGIN ");
    out.push_str(label);
    out.push_str("-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE_CHARACTERS));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str("-----END ");
    out.push_str(label);
    out.push_str("-----\n");
    out
}

/// [`pem_encode`] for private keys: the text is wiped when dropped.
pub fn pem_encode_secret(label: &str, der: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(pem_encode(label, der))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_of_several_blocks_with_text_between() {
        let text = format!("note\n{}between\r\n{}", pem_encode("A", &[1; 100]), pem_encode("B C", &[2]));
        let blocks = pem_decode(&text).unwrap();
        assert_eq!(blocks.len(), 2);
        assert_eq!((blocks[0].label.as_str(), blocks[0].der.as_slice()), ("A", &[1; 100][..]));
        assert_eq!((blocks[1].label.as_str(), blocks[1].der.as_slice()), ("B C", &[2][..]));
    }

    #[test]
    fn lines_are_64_characters_and_the_capacity_is_not_exceeded() {
        for length in [0usize, 1, 47, 48, 49, 96, 1000] {
            let text = pem_encode("X", &vec![9; length]);
            assert!(text.lines().all(|line| line.len() <= 64));
            assert_eq!(pem_decode(&text).unwrap()[0].der.len(), length);
        }
    }

    #[test]
    fn headers_are_stepped_over() {
        let text = "-----BEGIN K-----\nProc-Type: 4,X\nA: b\n\nAQID\n-----END K-----\n";
        assert_eq!(pem_decode(text).unwrap()[0].der.as_slice(), [1, 2, 3]);
    }

    #[test]
    fn faults() {
        let fault = |text: &str| pem_decode(text).err().unwrap();
        assert_eq!(fault("hello"), PemFault::NoBlock);
        assert_eq!(fault("-----BEGIN A-----\nAQID"), PemFault::Unterminated);
        assert_eq!(fault("-----BEGIN A-----\nAQID\n-----END B-----"), PemFault::Unterminated);
        assert_eq!(fault("-----BEGIN A-----\n*\n-----END A-----"), PemFault::NotBase64);
        assert_eq!(fault(&" ".repeat(PEM_TEXT_BYTES_MAX + 1)), PemFault::TooLong);
    }
}
