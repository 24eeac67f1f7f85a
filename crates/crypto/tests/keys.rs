//! RSA keys in the forms that clients send, checked against the `openssl` command.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use arcadia_crypto::{
    JwtSigner, KeyFault, RsaBits, RsaKeyPair, RsaPublicKey, pem_decode, pem_encode, self_signed,
    validity_seconds,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

const NOW: i64 = 1_795_300_000;

fn key() -> &'static RsaKeyPair {
    static KEY: OnceLock<RsaKeyPair> = OnceLock::new();
    KEY.get_or_init(|| RsaKeyPair::generate(RsaBits::Bits2048).unwrap())
}

fn openssl(directory: &Path, arguments: &str) -> String {
    let output =
        Command::new("openssl").current_dir(directory).args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_form_gives_the_same_key() {
    let public = key().public();
    let (n, e) = public.jwk_n_e();
    let padded = format!("{n}==");
    let certificate = self_signed("a key", key(), NOW, 1).unwrap();
    for other in [
        RsaPublicKey::from_pkcs1_der(&public.to_pkcs1_der()),
        RsaPublicKey::from_spki_der(&public.to_spki_der()),
        RsaPublicKey::from_jwk(&n, &e),
        RsaPublicKey::from_jwk(&padded, &e),
        RsaPublicKey::from_x509_der(&certificate),
        RsaKeyPair::from_pkcs8_der(&key().to_pkcs8_der().unwrap()).map(|pair| pair.public().clone()),
    ] {
        assert_eq!(&other.unwrap(), public);
    }
    assert_eq!(public.modulus_bits(), 2048);
}

#[test]
fn openssl_reads_our_keys_and_verifies_our_signatures() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::fs::write(path.join("spki.pem"), pem_encode("PUBLIC KEY", &key().public().to_spki_der())).unwrap();
    std::fs::write(path.join("key.pem"), pem_encode("PRIVATE KEY", &key().to_pkcs8_der().unwrap())).unwrap();
    std::fs::write(path.join("message"), b"hello").unwrap();
    std::fs::write(path.join("signature"), key().sign_rs256(b"hello").unwrap()).unwrap();
    let verified = openssl(path, "dgst -sha256 -verify spki.pem -signature signature message");
    assert!(verified.contains("Verified OK"), "{verified}");
    openssl(path, "dgst -sha256 -sign key.pem -out theirs message");
    let theirs = std::fs::read(path.join("theirs")).unwrap();
    assert!(key().public().verify_rs256(b"hello", &theirs));
    assert!(!key().public().verify_rs256(b"hullo", &theirs));
    assert!(!key().public().verify_ps256(b"hello", &theirs));
}

#[test]
fn a_version_1_certificate_signed_with_sha1_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::fs::write(path.join("key.pem"), pem_encode("PRIVATE KEY", &key().to_pkcs8_der().unwrap())).unwrap();
    openssl(path, "req -new -key key.pem -subj /CN=lab-sp -out request.pem");
    openssl(path, "x509 -req -in request.pem -signkey key.pem -sha1 -days 365 -out certificate.pem");
    let text = openssl(path, "x509 -in certificate.pem -noout -text");
    assert!(text.contains("Version: 1 (0x0)") && text.contains("sha1WithRSAEncryption"), "{text}");

    let pem = std::fs::read_to_string(path.join("certificate.pem")).unwrap();
    let der = pem_decode(&pem).unwrap()[0].der.to_vec();
    assert_eq!(&RsaPublicKey::from_x509_der(&der).unwrap(), key().public());

    // Dates as GeneralizedTime, which DER reserves for the years from 2050.
    let odd = with_generalized_times(&der);
    assert_ne!(odd, der);
    assert_eq!(&RsaPublicKey::from_x509_der(&odd).unwrap(), key().public());

    let dates = validity_seconds(&der).unwrap();
    assert_eq!(dates.end() - dates.start(), 365 * 24 * 60 * 60);
    assert_eq!(validity_seconds(&odd), Some(dates));
    assert_eq!(validity_seconds(&der[..der.len() / 4]), None);
}

/// Rewrites both UTCTime fields of a certificate as GeneralizedTime and corrects the three lengths around them.
fn with_generalized_times(der: &[u8]) -> Vec<u8> {
    let at = der.windows(2).position(|pair| pair == [0x17, 0x0d]).unwrap();
    let mut out = der[..at].to_vec();
    out[at - 1] += 4;
    for field in [&der[at + 2..at + 15], &der[at + 17..at + 30]] {
        out.extend_from_slice(&[0x18, 0x0f, b'2', b'0']);
        out.extend_from_slice(field);
    }
    out.extend_from_slice(&der[at + 30..]);
    for header in [0, 4] {
        assert_eq!(out[header..header + 2], [0x30, 0x82]);
        let length = u16::from_be_bytes([out[header + 2], out[header + 3]]) + 4;
        out[header + 2..header + 4].copy_from_slice(&length.to_be_bytes());
    }
    out
}

#[test]
fn the_signing_certificate_is_strict_enough_for_openssl() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let certificate = self_signed("token signing", key(), NOW, 5).unwrap();
    std::fs::write(path.join("signing.pem"), pem_encode("CERTIFICATE", &certificate)).unwrap();
    let text = openssl(path, "x509 -in signing.pem -noout -text");
    assert!(text.contains("Subject: CN = token signing") && text.contains("Version: 3"), "{text}");
    openssl(path, &format!("verify -attime {NOW} -check_ss_sig -CAfile signing.pem signing.pem"));
    assert!(text.contains("Issuer: CN = token signing"), "{text}");
    let (_, read) = X509Certificate::from_der(&certificate).unwrap();
    assert_eq!(read.validity().not_before.timestamp(), NOW - 600);
    JwtSigner::new(key().clone(), certificate).unwrap();
    assert!(self_signed("", key(), NOW, 5).is_err());
    assert!(self_signed("x", key(), -1, 5).is_err());
    assert!(self_signed("x", key(), NOW, 31).is_err());
}

#[test]
fn thumbprint_known_answer() {
    // RFC 7638, section 3.1.
    let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n\
             3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgd\
             AZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur\
             -kEgU8awapJzKnqDKgw";
    let key = RsaPublicKey::from_jwk(n, "AQAB").unwrap();
    assert_eq!(key.thumbprint_sha256(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
}

#[test]
fn small_broken_and_foreign_keys_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    openssl(path, "genrsa -out small.pem 1024");
    openssl(path, "rsa -in small.pem -pubout -outform DER -out small.der");
    openssl(path, "pkcs8 -topk8 -nocrypt -in small.pem -outform DER -out small.p8");
    openssl(
        path,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ec.key -subj /CN=ec -outform DER -out ec.der",
    );
    let read = |name: &str| std::fs::read(path.join(name)).unwrap();
    assert_eq!(RsaPublicKey::from_spki_der(&read("small.der")).err(), Some(KeyFault::Size));
    // The library itself refuses private keys this small.
    assert!(RsaKeyPair::from_pkcs8_der(&read("small.p8")).is_err());
    assert_eq!(RsaPublicKey::from_x509_der(&read("ec.der")).err(), Some(KeyFault::Malformed));
    assert_eq!(RsaPublicKey::from_pkcs1_der(&[0x30; 70_000]).err(), Some(KeyFault::TooLong));
    assert_eq!(RsaPublicKey::from_jwk("", "").err(), Some(KeyFault::Malformed));
    let (n, _) = key().public().jwk_n_e();
    for exponent in ["", "AA", "AQ", "Ag"] {
        assert_eq!(RsaPublicKey::from_jwk(&n, exponent).err(), Some(KeyFault::Malformed), "{exponent}");
    }
    assert_eq!(RsaPublicKey::from_jwk(&"_".repeat(1500), "AQAB").err(), Some(KeyFault::Size));
    assert_eq!(RsaBits::try_from(1024), Err(KeyFault::Size));
    assert!(!format!("{:?}", key()).contains("private"));
}
