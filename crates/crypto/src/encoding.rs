//! Text forms of bytes.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose};

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const URL_LENIENT: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
const STANDARD_LENIENT: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);

/// base64url without padding (RFC 7515).
pub fn b64url(bytes: &[u8]) -> String {
    general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// The same, at the end of a text.
pub(crate) fn add_b64url(bytes: &[u8], text: &mut String) {
    general_purpose::URL_SAFE_NO_PAD.encode_string(bytes, text);
}

/// base64url, with or without padding; `None` for anything else.
pub fn b64url_decode(text: &str) -> Option<Vec<u8>> {
    URL_LENIENT.decode(text).ok()
}

/// base64url without padding and in its one canonical form, as the segments of a JWS must be.
pub(crate) fn b64url_decode_strict(text: &str) -> Option<Vec<u8>> {
    general_purpose::URL_SAFE_NO_PAD.decode(text).ok()
}

/// Standard base64 with padding.
pub fn b64(bytes: &[u8]) -> String {
    general_purpose::STANDARD.encode(bytes)
}

/// Standard base64, with or without padding; line breaks and blanks are skipped, as clients wrap certificates.
pub fn b64_decode(text: &str) -> Option<Vec<u8>> {
    if text.bytes().any(|byte| byte.is_ascii_whitespace()) {
        let compact: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        return STANDARD_LENIENT.decode(compact).ok();
    }
    STANDARD_LENIENT.decode(text).ok()
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_optional_when_reading() {
        for text in ["_-8", "_-8="] {
            assert_eq!(b64url_decode(text).unwrap(), [0xff, 0xef]);
        }
        assert_eq!(b64url(&[0xff, 0xef]), "_-8");
        assert_eq!(b64_decode("/+\r\n8=\n").unwrap(), [0xff, 0xef]);
        assert_eq!(b64_decode("/+8").unwrap(), [0xff, 0xef]);
    }

    #[test]
    fn the_other_alphabet_and_junk_are_refused() {
        assert_eq!(b64url_decode("/+8"), None);
        assert_eq!(b64url_decode("_-9"), None, "trailing bits must be zero");
        assert_eq!(b64_decode("_-8"), None);
        assert_eq!(b64url_decode_strict("_-8="), None);
        assert_eq!(b64url_decode("a"), None);
    }
}
