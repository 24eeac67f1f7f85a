//! Fuzz targets for keys, certificates, tokens and their text forms.

use std::net::IpAddr;
use std::sync::OnceLock;

use arcadia_kernel::Authenticator as _;
use serde_json::{Map, Value, json};

use crate::{
    IpSubnet, JwtSigner, KeySet, RsaBits, RsaKeyPair, RsaPublicKey, SiteCa, SystemEntropy, TokenVerifier,
    b64, b64_decode, b64url, b64url_decode, certificate_summary, peek, pem_decode, pem_encode, self_signed,
    verify_assertion,
};

const NOW: i64 = 1_795_262_400;
const ISSUER: &str = "https://sts.windows.net/11111111-1111-1111-1111-111111111111/";

fn signer() -> &'static JwtSigner {
    static SIGNER: OnceLock<JwtSigner> = OnceLock::new();
    SIGNER.get_or_init(|| {
        let key = RsaKeyPair::generate(RsaBits::Bits2048).unwrap();
        let certificate = self_signed("x", &key, NOW, 1).unwrap();
        JwtSigner::new(key, certificate).unwrap()
    })
}

arcadia_fuzz::target!(pem, |data: &[u8]| pem_blocks_come_back(data));

fn pem_blocks_come_back(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(blocks) = pem_decode(&text) {
        assert!(
            !blocks.is_empty() && blocks.iter().map(|block| block.der.len()).sum::<usize>() <= text.len()
        );
        let again: String = blocks.iter().map(|block| pem_encode(&block.label, &block.der)).collect();
        let read = pem_decode(&again).unwrap();
        assert_eq!(read.len(), blocks.len());
        for (read, block) in read.iter().zip(&blocks) {
            assert_eq!((&read.label, &*read.der), (&block.label, &*block.der));
        }
    }
    let _ = RsaPublicKey::from_x509_pem(&text);
    assert_eq!(b64_decode(&b64(data)).as_deref(), Some(data));
    assert_eq!(b64url_decode(&b64url(data)).as_deref(), Some(data));
    if let Some(bytes) = b64url_decode(&text) {
        assert_eq!(b64url(&bytes), text.trim_end_matches('='));
    }
}

arcadia_fuzz::target!(der, |data: &[u8]| keys_are_read_whole(data));

/// Keys and certificates: a key that is read is written in a form that is read as the same key.
fn keys_are_read_whole(data: &[u8]) {
    let keys = [
        RsaPublicKey::from_pkcs1_der(data),
        RsaPublicKey::from_spki_der(data),
        RsaPublicKey::from_x509_der(data),
        RsaKeyPair::from_pkcs8_der(data).map(|pair| pair.public().clone()),
    ];
    for key in keys.into_iter().flatten() {
        assert!((2048..=8192).contains(&key.modulus_bits()));
        assert!(RsaPublicKey::from_pkcs1_der(&key.to_pkcs1_der()).unwrap() == key);
        assert!(RsaPublicKey::from_spki_der(&key.to_spki_der()).unwrap() == key);
        let (n, e) = key.jwk_n_e();
        assert!(RsaPublicKey::from_jwk(&n, &e).unwrap() == key);
        assert!(!key.verify_rs256(data, data));
    }
    if let Ok(summary) = certificate_summary(data) {
        assert_eq!(summary.sha256_fingerprint.len(), 64);
    }
}

arcadia_fuzz::target!(jwt, |data: &[u8]| tokens_need_their_signature(data));

fn verifier() -> TokenVerifier {
    let keys = KeySet::from_jwks(&json!({ "keys": [signer().public_jwk()] })).unwrap();
    TokenVerifier::new(keys, [ISSUER.to_owned()], 300).unwrap()
}

fn good_claims() -> Value {
    let id = "22222222-2222-2222-2222-222222222222";
    json!({ "iss": ISSUER, "aud": "a", "sub": "s", "nbf": NOW - 5, "exp": NOW + 3600, "tid": id, "oid": id, "appid": id })
}

/// The first byte says how the rest is used: as a token, as edits of a good token, or as claims that are signed.
fn tokens_need_their_signature(data: &[u8]) {
    static GOOD: OnceLock<(TokenVerifier, String)> = OnceLock::new();
    let (verifier, good) = GOOD.get_or_init(|| (verifier(), signer().sign(&good_claims()).unwrap()));
    let keys = [signer().public_key().clone()];
    let Some((how, rest)) = data.split_first() else { return };
    match how % 3 {
        0 => {
            let token = String::from_utf8_lossy(rest);
            let _ = peek(&token);
            assert!(verifier.verify(&token, NOW).is_err());
            assert!(verify_assertion(&token, &keys, &["a"], NOW).is_err());
        }
        1 => {
            let edited = edited(good, rest);
            assert_eq!(verifier.verify(&edited, NOW).is_ok(), edited == *good);
            assert_eq!(verify_assertion(&edited, &keys, &["a"], NOW).is_ok(), edited == *good);
        }
        _ => {
            let Ok(claims) = serde_json::from_slice::<Map<String, Value>>(rest) else { return };
            let token = signer().sign(&claims).unwrap();
            signed_claims_are_judged(verifier, &token, &claims);
            if let Ok(assertion) = verify_assertion(&token, &keys, &["a"], NOW) {
                assert_eq!(claims.get("iss").and_then(Value::as_str), Some(&*assertion.issuer));
                assert!((NOW - 300..=NOW + 24 * 3600 + 300).contains(&assertion.expires_at));
            }
        }
    }
}

/// Pairs of bytes: a place, and the character that is written there.
fn edited(token: &str, edits: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = token.as_bytes().to_vec();
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % bytes.len();
        match edit[2] {
            240.. => bytes.truncate(at.max(1)),
            224.. => bytes.insert(at, b'.'),
            letter => bytes[at] = ALPHABET[usize::from(letter % 64)],
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn signed_claims_are_judged(verifier: &TokenVerifier, token: &str, claims: &Map<String, Value>) {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let number = |name: &str| claims.get(name).and_then(Value::as_f64);
    if let Ok(verified) = verifier.verify(token, NOW) {
        assert_eq!((text("iss"), text("aud")), (Some(ISSUER), Some(&*verified.audience)));
        assert!(number("exp").unwrap() > (NOW - 300) as f64 && number("nbf").unwrap() <= (NOW + 300) as f64);
        assert_eq!(text("oid").map(|id| id.parse().ok()), Some(Some(verified.caller.object_id)));
        // What is remembered says the same as what was verified, and forgets in time.
        assert_eq!(verifier.verify(token, NOW).unwrap().audience, verified.audience);
        if let Some(after) = verified.expires_at.checked_add(301) {
            assert!(verifier.verify(token, after).is_err());
        }
    }
}

arcadia_fuzz::target!(key_set, |data: &[u8]| key_sets_are_bounded(data));

fn key_sets_are_bounded(data: &[u8]) {
    let Ok(document) = serde_json::from_slice::<Value>(data) else { return };
    if let Ok(keys) = KeySet::from_jwks(&document) {
        assert!(keys.len() <= 64);
    }
}

arcadia_fuzz::target!(certified_names, |data: &[u8]| only_permitted_names_are_certified(data));

/// Names of hosts and ranges of addresses.
fn only_permitted_names_are_certified(data: &[u8]) {
    static CA: OnceLock<SiteCa> = OnceLock::new();
    let ca = CA.get_or_init(|| {
        let _ = SystemEntropy;
        SiteCa::create("fuzz", &["vault.azure.net", "localhost"], &["127.0.0.0/8".parse().unwrap()], NOW, 1)
            .unwrap()
    });
    let text = String::from_utf8_lossy(data);
    if ca.permits_dns(&text) {
        let folded = text.to_ascii_lowercase();
        let labels: Vec<&str> = folded.split('.').collect();
        assert!(labels.ends_with(&["vault", "azure", "net"]) || labels.ends_with(&["localhost"]));
        assert!(
            text.len() <= 253
                && text.is_ascii()
                && labels.iter().all(|label| (1..=63).contains(&label.len()))
        );
    }
    if let Ok(subnet) = text.parse::<IpSubnet>() {
        assert_eq!(subnet.to_string().parse::<IpSubnet>(), Ok(subnet));
        let address: IpAddr = text.split('/').next().unwrap().parse().unwrap();
        assert!(subnet.contains(address));
    }
}
