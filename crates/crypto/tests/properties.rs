//! What holds for every input.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::OnceLock;

use arcadia_crypto::{
    KeyRing, KeySet, RootKey, RsaKeyPair, RsaPublicKey, SiteCa, SystemEntropy, TokenVerifier, WrappedKey,
    b64_decode, b64url, b64url_decode, peek, pem_decode, pem_encode, self_signed, validity_seconds,
    verify_assertion,
};
use arcadia_kernel::Authenticator as _;
use proptest::prelude::*;
use serde_json::json;

fn ring() -> &'static KeyRing {
    static RING: OnceLock<KeyRing> = OnceLock::new();
    RING.get_or_init(|| KeyRing::generate(&SystemEntropy).unwrap())
}

fn certificate() -> &'static (RsaKeyPair, Vec<u8>) {
    static CERTIFICATE: OnceLock<(RsaKeyPair, Vec<u8>)> = OnceLock::new();
    CERTIFICATE.get_or_init(|| {
        let key = RsaKeyPair::generate(arcadia_crypto::RsaBits::Bits2048).unwrap();
        let der = self_signed("x", &key, 1_795_300_000, 1).unwrap();
        (key, der)
    })
}

fn verifier() -> &'static TokenVerifier {
    static VERIFIER: OnceLock<TokenVerifier> = OnceLock::new();
    VERIFIER.get_or_init(|| {
        let (n, e) = certificate().0.public().jwk_n_e();
        let keys = KeySet::from_jwks(&json!({"keys": [{"kty": "RSA", "kid": "k", "n": n, "e": e}]})).unwrap();
        TokenVerifier::new(keys, ["i".to_owned()]).unwrap()
    })
}

/// Every parser of untrusted bytes; only that they return matters here.
fn parse_all(bytes: &[u8]) {
    let _ = RsaPublicKey::from_pkcs1_der(bytes);
    let _ = RsaPublicKey::from_spki_der(bytes);
    let _ = RsaPublicKey::from_x509_der(bytes);
    let _ = validity_seconds(bytes);
    let _ = RsaKeyPair::from_pkcs8_der(bytes);
    assert!(ring().open(b"", bytes).is_err());
}

proptest! {
    #[test]
    fn sealed_values_open_to_themselves(aad: Vec<u8>, plaintext: Vec<u8>) {
        let sealed = ring().seal(&aad, &plaintext, &SystemEntropy).unwrap();
        prop_assert_eq!(ring().open(&aad, &sealed).unwrap().to_vec(), plaintext);
    }

    #[test]
    fn a_moved_value_does_not_open(aad: Vec<u8>, other: Vec<u8>, plaintext: Vec<u8>) {
        prop_assume!(aad != other);
        let sealed = ring().seal(&aad, &plaintext, &SystemEntropy).unwrap();
        prop_assert!(ring().open(&other, &sealed).is_err());
    }

    #[test]
    fn a_flipped_bit_does_not_open(plaintext: Vec<u8>, at: prop::sample::Index, bit in 0u8..8) {
        let mut sealed = ring().seal(b"aad", &plaintext, &SystemEntropy).unwrap();
        let at = at.index(sealed.len());
        sealed[at] ^= 1 << bit;
        prop_assert!(ring().open(b"aad", &sealed).is_err());
    }

    #[test]
    fn a_shortened_or_lengthened_value_does_not_open(plaintext: Vec<u8>, at: prop::sample::Index, more: u8) {
        let mut sealed = ring().seal(b"aad", &plaintext, &SystemEntropy).unwrap();
        prop_assert!(ring().open(b"aad", &sealed[..at.index(sealed.len())]).is_err());
        sealed.push(more);
        prop_assert!(ring().open(b"aad", &sealed).is_err());
    }

    #[test]
    fn a_changed_wrapped_key_does_not_open(at: prop::sample::Index, bit in 0u8..8) {
        let root = RootKey::from_bytes(&[7; 32]);
        let mut wrapped: Vec<WrappedKey> = ring().wrapped(&root, &SystemEntropy).unwrap();
        let mut bytes = b64url_decode(&wrapped[0].wrapped).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        wrapped[0].wrapped = b64url(&bytes);
        prop_assert!(KeyRing::from_wrapped(&root, &wrapped).is_err());
    }

    #[test]
    fn tokens_of_any_text_are_refused_calmly(token in ".{0,200}", now: i64) {
        let _ = peek(&token);
        prop_assert!(verifier().verify(&token, now).is_err());
        prop_assert!(verify_assertion(&token, &[certificate().0.public().clone()], &["a"], now).is_err());
    }

    #[test]
    fn tokens_of_any_shape_are_refused_calmly(
        header in r#"\{("(alg|kid|crit|x5t)":("RS256"|"PS256"|"none"|"k"|1|null|\[\])(,"kid":"k")?)?\}"#,
        claims: Vec<u8>,
        signature in prop::collection::vec(any::<u8>(), 0..300),
        now: i64,
    ) {
        let token = format!("{}.{}.{}", b64url(header.as_bytes()), b64url(&claims), b64url(&signature));
        let _ = peek(&token);
        prop_assert!(verifier().verify(&token, now).is_err());
        prop_assert!(verify_assertion(&token, &[certificate().0.public().clone()], &["a"], now).is_err());
    }

    /// Signed claims of any kind: the signature is good, the rest must still be judged without a panic.
    #[test]
    fn signed_claims_of_any_kind_are_judged_calmly(
        name in "(exp|nbf|iss|aud|oid|tid|iat|sub)",
        number: f64,
        now: i64,
    ) {
        let header = b64url(br#"{"alg":"RS256","kid":"k"}"#);
        let claims = json!({"iss": "i", "aud": "a", "exp": number, "nbf": number, name: number});
        let signed = format!("{header}.{}", b64url(claims.to_string().as_bytes()));
        let token = format!("{signed}.{}", b64url(&certificate().0.sign_rs256(signed.as_bytes()).unwrap()));
        prop_assert!(verifier().verify(&token, now).is_err());
        let _ = verify_assertion(&token, &[certificate().0.public().clone()], &["a"], now);
    }

    #[test]
    fn bytes_of_any_kind_are_parsed_calmly(bytes: Vec<u8>) {
        parse_all(&bytes);
    }

    #[test]
    fn changed_certificates_and_keys_are_parsed_calmly(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut: prop::sample::Index,
    ) {
        let (key, der) = certificate();
        let pkcs8 = key.to_pkcs8_der().unwrap().to_vec();
        for source in [der, &pkcs8, &key.public().to_spki_der(), &key.public().to_pkcs1_der()] {
            let mut bytes = source.clone();
            for (at, value) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            parse_all(&bytes);
            parse_all(&bytes[..cut.index(bytes.len())]);
        }
    }

    #[test]
    fn text_of_any_kind_is_parsed_calmly(text in "(-----BEGIN [A-Z ]{0,12}-----)?\\PC{0,100}(-----END [A-Z ]{0,12}-----)?") {
        let _ = pem_decode(&text);
        prop_assert!(SiteCa::from_pem(&text, &text).is_err());
        let _ = (b64_decode(&text), b64url_decode(&text));
        let _ = text.parse::<arcadia_crypto::IpSubnet>();
    }

    #[test]
    fn encodings_round_trip(bytes: Vec<u8>) {
        prop_assert_eq!(&b64url_decode(&b64url(&bytes)).unwrap(), &bytes);
        prop_assert_eq!(&b64_decode(&arcadia_crypto::b64(&bytes)).unwrap(), &bytes);
        prop_assert_eq!(pem_decode(&pem_encode("X Y", &bytes)).unwrap()[0].der.to_vec(), bytes);
    }
}
