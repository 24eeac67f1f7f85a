//! Fuzz targets for keys, certificates, tokens and their text forms.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::OnceLock;

use arcadia_kernel::Authenticator as _;
use serde_json::{Map, Value, json};

use crate::jwt::Algorithm;
use crate::{
    IpSubnet, JwtSigner, KeySet, RsaBits, RsaKeyPair, RsaPublicKey, SiteCa, SystemEntropy, TokenVerifier,
    b64, b64_decode, b64url, b64url_decode, peek, pem_decode, pem_encode, self_signed, validity_seconds,
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
    assert_eq!(b64_decode(&b64(data)).as_deref(), Some(data));
    assert_eq!(b64url_decode(&b64url(data)).as_deref(), Some(data));
    if let Some(bytes) = b64url_decode(&text) {
        assert_eq!(b64url(&bytes), text.trim_end_matches('='));
    }
}

arcadia_fuzz::target!(der, |data: &[u8]| keys_are_read_whole(data));

/// Keys and certificates: a key that is read is written in a form that is read as the same key.
fn keys_are_read_whole(data: &[u8]) {
    let _ = validity_seconds(data);
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
}

arcadia_fuzz::target!(jwt, |data: &[u8]| tokens_need_their_signature(data));

fn verifier() -> TokenVerifier {
    let keys = KeySet::from_jwks(&json!({ "keys": [signer().public_jwk()] })).unwrap();
    TokenVerifier::new(keys, [ISSUER.to_owned()]).unwrap()
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
            assertion_is_judged(&token, &claims);
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

/// An assertion is taken exactly when all that it says is right, and read as it says it.
fn assertion_is_judged(token: &str, claims: &Map<String, Value>) {
    let number = |name: &str| claims.get(name).map(Value::as_f64);
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let is_for_us = match claims.get("aud") {
        Some(Value::Array(all)) => all.len() <= 16 && all.contains(&json!("a")),
        one => one == Some(&json!("a")),
    };
    let seconds = number("exp").flatten().map(|seconds| seconds - NOW as f64);
    let is_in_time = seconds.is_some_and(|seconds| -300.0 < seconds && seconds <= 24.0 * 3600.0)
        && ["nbf", "iat"]
            .iter()
            .all(|name| number(name).is_none_or(|from| from.is_some_and(|from| from <= (NOW + 300) as f64)));
    let is_small = token.len() <= crate::jwt::TOKEN_BYTES_MAX;
    let is_good = is_for_us && is_in_time && is_small && text("iss").is_some() && text("sub").is_some();
    let taken = verify_assertion(token, &[signer().public_key().clone()], &["a"], NOW);
    assert_eq!(taken.is_ok(), is_good, "{claims:?}: {taken:?}");
    if let Ok(taken) = taken {
        assert_eq!((text("iss"), text("sub")), (Some(&*taken.issuer), Some(&*taken.subject)));
        assert_eq!(text("jti"), taken.jti.as_deref());
        assert_eq!(number("exp").flatten().map(f64::floor), Some(taken.expires_at as f64));
        assert_eq!(taken.claims, *claims);
    }
}

arcadia_fuzz::target!(key_set, |data: &[u8]| key_sets_hold_what_they_were_given(data));

fn key_sets_hold_what_they_were_given(data: &[u8]) {
    let Ok(document) = serde_json::from_slice::<Value>(data) else { return };
    let (keys, expected) = (KeySet::from_jwks(&document), signing_keys(&document));
    assert_eq!(keys.is_ok(), expected.is_some(), "{document}: {:?}", keys.err());
    let (Ok(keys), Some(expected)) = (keys, expected) else { return };
    assert_eq!(keys.len(), expected.len());
    for (kid, key) in &expected {
        let (found, algorithm) = keys.find(kid).unwrap();
        assert!(found == key && algorithm == Algorithm::Rs256, "{kid}");
    }
    for key in document["keys"].as_array().unwrap() {
        let kid = key["kid"].as_str().unwrap_or_default();
        assert_eq!(keys.find(kid).is_some(), expected.contains_key(kid), "{kid}");
    }
}

/// The keys of a document that sign with RS256; none, when one of them is not a key, or is one of two by a name.
fn signing_keys(document: &Value) -> Option<BTreeMap<String, RsaPublicKey>> {
    let listed = document.get("keys")?.as_array()?;
    let mut keys = BTreeMap::new();
    for key in listed {
        let is = |name: &str, value: &str| key.get(name) == Some(&json!(value));
        let is_or_absent = |name: &str, value: &str| key.get(name).is_none() || is(name, value);
        let kid = key.get("kid").and_then(Value::as_str).filter(|kid| kid.len() <= 128);
        if let Some(kid) = kid
            && is("kty", "RSA")
            && is_or_absent("use", "sig")
            && is_or_absent("alg", "RS256")
        {
            let number = |name: &str| b64url_decode(key.get(name)?.as_str()?);
            let (n, e) = (b64url(&number("n")?), b64url(&number("e")?));
            let key = RsaPublicKey::from_jwk(&n, &e).ok()?;
            keys.insert(kid.to_owned(), key).is_none().then_some(())?;
        }
    }
    (listed.len() <= 64).then_some(keys)
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
