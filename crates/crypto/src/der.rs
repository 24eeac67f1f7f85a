//! Just enough DER to read and write RSA public keys and to find the key and the dates inside a certificate.
//!
//! Certificates that clients upload are often not what RFC 5280 asks for (version 1, SHA-1, dates in the wrong
//! time type). Only their public key and their dates matter, so the walk steps over everything else without judging it.

pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
const NULL: u8 = 0x05;
const OBJECT_IDENTIFIER: u8 = 0x06;
const CONTEXT_0: u8 = 0xa0;

/// 1.2.840.113549.1.1.1, content octets.
const RSA_ENCRYPTION: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// Reads elements one after another from a byte slice. Every read is bounded by the slice.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn peek_tag(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element's tag and content.
    pub(crate) fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        // Multi-byte tags do not occur in anything read here.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (digits.iter().fold(0usize, |value, digit| value << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    pub(crate) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, content) = self.next()?;
        (found == tag).then_some(content)
    }
}

/// The magnitude of a non-negative INTEGER without leading zeros.
fn unsigned(content: &[u8]) -> Option<&[u8]> {
    if content.is_empty() || content[0] & 0x80 != 0 {
        return None;
    }
    Some(strip_zeros(content))
}

pub(crate) fn strip_zeros(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    &bytes[start..]
}

/// Modulus and exponent of a PKCS#1 `RSAPublicKey`.
pub(crate) fn pkcs1_public(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut outer = Reader::new(der);
    let mut key = Reader::new(outer.expect(SEQUENCE)?);
    let modulus = unsigned(key.expect(INTEGER)?)?;
    let exponent = unsigned(key.expect(INTEGER)?)?;
    (outer.is_empty() && key.is_empty()).then_some((modulus, exponent))
}

/// The PKCS#1 key inside a `SubjectPublicKeyInfo`, if it is an RSA key.
pub(crate) fn spki_rsa(der: &[u8]) -> Option<&[u8]> {
    let mut outer = Reader::new(der);
    let content = outer.expect(SEQUENCE)?;
    outer.is_empty().then_some(())?;
    spki_rsa_content(content)
}

fn spki_rsa_content(content: &[u8]) -> Option<&[u8]> {
    let mut info = Reader::new(content);
    let mut algorithm = Reader::new(info.expect(SEQUENCE)?);
    if algorithm.expect(OBJECT_IDENTIFIER)? != RSA_ENCRYPTION {
        return None;
    }
    let bits = info.expect(BIT_STRING)?;
    let (&unused_bits, key) = bits.split_first()?;
    (unused_bits == 0 && info.is_empty()).then_some(key)
}

/// The PKCS#1 key of an X.509 certificate of any version.
pub(crate) fn certificate_rsa(der: &[u8]) -> Option<&[u8]> {
    let (_, key) = certificate_dates_and_key(der)?;
    spki_rsa_content(key)
}

/// The content of `Validity` of an X.509 certificate of any version.
pub(crate) fn certificate_dates(der: &[u8]) -> Option<&[u8]> {
    certificate_dates_and_key(der).map(|(dates, _)| dates)
}

fn certificate_dates_and_key(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut certificate = Reader::new(Reader::new(der).expect(SEQUENCE)?);
    let mut body = Reader::new(certificate.expect(SEQUENCE)?);
    if body.peek_tag()? == CONTEXT_0 {
        body.next()?;
    }
    body.expect(INTEGER)?;
    for _signature_issuer in 0..2 {
        body.expect(SEQUENCE)?;
    }
    let dates = body.expect(SEQUENCE)?;
    let _subject = body.expect(SEQUENCE)?;
    Some((dates, body.expect(SEQUENCE)?))
}

/// One element with its length in the shortest form.
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 6);
    out.push(tag);
    let length = content.len();
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let digits = length.to_be_bytes();
        let digits = strip_zeros(&digits);
        out.push(0x80 | digits.len() as u8);
        out.extend_from_slice(digits);
    }
    out.extend_from_slice(content);
    out
}

/// A non-negative INTEGER from its magnitude.
pub(crate) fn integer(magnitude: &[u8]) -> Vec<u8> {
    let magnitude = strip_zeros(magnitude);
    let mut content = Vec::with_capacity(magnitude.len() + 1);
    if magnitude.first().is_none_or(|byte| byte & 0x80 != 0) {
        content.push(0);
    }
    content.extend_from_slice(magnitude);
    element(INTEGER, &content)
}

pub(crate) fn write_pkcs1(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[integer(modulus), integer(exponent)].concat())
}

pub(crate) fn write_spki(pkcs1: &[u8]) -> Vec<u8> {
    let algorithm =
        element(SEQUENCE, &[element(OBJECT_IDENTIFIER, &RSA_ENCRYPTION), element(NULL, &[])].concat());
    let mut bits = Vec::with_capacity(pkcs1.len() + 1);
    bits.push(0);
    bits.extend_from_slice(pkcs1);
    element(SEQUENCE, &[algorithm, element(BIT_STRING, &bits)].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_round_trip_in_every_form() {
        for length in [0usize, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000] {
            let bytes = element(0x04, &vec![7; length]);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.next().unwrap().1.len(), length);
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn a_length_beyond_the_input_is_refused() {
        for bytes in [&[0x30, 0x05, 1, 2][..], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0x30, 0x80], &[0x30]]
        {
            assert!(Reader::new(bytes).next().is_none());
        }
    }

    #[test]
    fn keys_with_trailing_bytes_or_negative_numbers_are_refused() {
        let good = write_pkcs1(&[0x81; 4], &[1, 0, 1]);
        assert_eq!(pkcs1_public(&good).unwrap(), (&[0x81; 4][..], &[1, 0, 1][..]));
        let trailing = [good.clone(), vec![0]].concat();
        assert!(pkcs1_public(&trailing).is_none());
        let negative = element(SEQUENCE, &[element(INTEGER, &[0x81]), integer(&[3])].concat());
        assert!(pkcs1_public(&negative).is_none());
        assert_eq!(spki_rsa(&write_spki(&good)).unwrap(), good);
    }
}
