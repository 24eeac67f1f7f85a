//! Tokens: what is accepted, and everything that must be refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Arc, OnceLock};

use arcadia_crypto::{
    AssertionFault, JwtSigner, KeySet, KeySetFault, RsaBits, RsaKeyPair, SignFault, TokenVerifier,
    VerifierFault, b64url, b64url_decode, hmac_sha256, pem_encode, self_signed, sha1, verify_assertion,
};
use arcadia_kernel::{Authenticator as _, CallerKind, TokenFault};
use aws_lc_rs::rand::SystemRandom;
use serde_json::{Map, Value, json};

const NOW: i64 = 1_800_000_000;
const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const OBJECT: &str = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";
const APP: &str = "04b07795-8ddb-461a-bbee-02f9e1bf7b46";

fn issuer() -> String {
    format!("https://sts.windows.net/{TENANT}/")
}

fn key(which: usize) -> RsaKeyPair {
    static KEYS: [OnceLock<RsaKeyPair>; 2] = [OnceLock::new(), OnceLock::new()];
    KEYS[which].get_or_init(|| RsaKeyPair::generate(RsaBits::Bits2048).unwrap()).clone()
}

fn signer(which: usize) -> JwtSigner {
    static CERTIFICATES: [OnceLock<Vec<u8>>; 2] = [OnceLock::new(), OnceLock::new()];
    let certificate =
        CERTIFICATES[which].get_or_init(|| self_signed("token signing", &key(which), NOW, 5).unwrap());
    JwtSigner::new(key(which), certificate.clone()).unwrap()
}

fn key_set(signer: &JwtSigner) -> KeySet {
    KeySet::from_jwks(&json!({ "keys": [signer.public_jwk_for_issuer(&issuer())] })).unwrap()
}

fn verifier() -> TokenVerifier {
    TokenVerifier::new(key_set(&signer(0)), [issuer()]).unwrap()
}

fn claims() -> Value {
    json!({
        "aud": "https://vault.azure.net", "iss": issuer(), "iat": NOW, "nbf": NOW, "exp": NOW + 3600,
        "appid": APP, "idtyp": "app", "oid": OBJECT, "sub": OBJECT, "tid": TENANT, "ver": "1.0",
    })
}

fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims();
    claims[name] = value.into();
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn refusal(token: &str) -> TokenFault {
    refusal_at(token, NOW)
}

fn refusal_at(token: &str, now: i64) -> TokenFault {
    let verifier = verifier();
    let fault = verifier.verify(token, now).unwrap_err();
    assert_eq!(
        verifier.verify(token, now).unwrap_err(),
        fault,
        "a refusal must not be remembered as anything else"
    );
    fault
}

/// A token with any header at all, signed with key 0 over exactly what is sent.
fn forge(header: &Value, claims: &Value) -> String {
    let signed =
        format!("{}.{}", b64url(header.to_string().as_bytes()), b64url(claims.to_string().as_bytes()));
    let signature = key(0).sign_rs256(signed.as_bytes()).unwrap();
    format!("{signed}.{}", b64url(&signature))
}

#[test]
fn an_application_token_names_its_caller() {
    let token = signer(0).sign(&claims()).unwrap();
    let verified = verifier().verify(&token, NOW).unwrap();
    let caller = &verified.caller;
    assert_eq!(caller.kind, CallerKind::Application);
    assert_eq!((caller.object_id.to_string(), caller.tenant_id.to_string()), (OBJECT.into(), TENANT.into()));
    assert_eq!((caller.app_id.to_string(), caller.name.as_str()), (APP.into(), APP));
    assert_eq!(caller.issuer, issuer());
    assert_eq!((caller.resource_id.as_deref(), caller.delegated_scopes.as_deref()), (None, None));
    assert_eq!((verified.audience.as_ref(), verified.expires_at), ("https://vault.azure.net", NOW + 3600));
}

#[test]
fn a_managed_identity_and_a_user_are_told_apart() {
    let machine = "/subscriptions/s/resourcegroups/rg/providers/Microsoft.HybridCompute/machines/m";
    let caller =
        verifier().verify(&signer(0).sign(&with("xms_mirid", machine)).unwrap(), NOW).unwrap().caller;
    assert_eq!((caller.kind, caller.resource_id.as_deref()), (CallerKind::ManagedIdentity, Some(machine)));

    let mut user = without("idtyp");
    user["upn"] = "nina@contoso.example".into();
    user["scp"] = "user_impersonation".into();
    user["xms_mirid"] = machine.into();
    let caller = verifier().verify(&signer(0).sign(&user).unwrap(), NOW).unwrap().caller;
    assert_eq!((caller.kind, caller.name.as_str()), (CallerKind::User, "nina@contoso.example"));
    assert_eq!(caller.delegated_scopes.as_deref(), Some("user_impersonation"));

    let mut second_version = without("appid");
    second_version["azp"] = APP.into();
    second_version["idtyp"] = "user".into();
    second_version["preferred_username"] = "nina@contoso.example".into();
    let caller = verifier().verify(&signer(0).sign(&second_version).unwrap(), NOW).unwrap().caller;
    assert_eq!((caller.name.as_str(), caller.app_id.to_string()), ("nina@contoso.example", APP.into()));
}

#[test]
fn an_independent_library_accepts_the_token_and_the_published_key() {
    let signer = signer(0);
    let jwk = signer.public_jwk();
    let key = jsonwebtoken::DecodingKey::from_rsa_components(
        jwk["n"].as_str().unwrap(),
        jwk["e"].as_str().unwrap(),
    );
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    validation.validate_exp = false;
    validation.set_audience(&["https://vault.azure.net"]);
    let token = signer.sign(&claims()).unwrap();
    let decoded = jsonwebtoken::decode::<Map<String, Value>>(&token, &key.unwrap(), &validation).unwrap();
    assert_eq!(decoded.claims["oid"], OBJECT);
    assert_eq!(decoded.header.kid.as_deref(), Some(signer.kid()));
    assert_eq!(decoded.header.x5t.as_deref(), Some(signer.kid()));
}

#[test]
fn header_and_published_key_have_the_form_clients_know() {
    let signer = signer(0);
    let token = signer.sign(&claims()).unwrap();
    let header = String::from_utf8(b64url_decode(token.split('.').next().unwrap()).unwrap()).unwrap();
    let kid = signer.kid();
    assert_eq!(header, format!(r#"{{"typ":"JWT","alg":"RS256","x5t":"{kid}","kid":"{kid}"}}"#));
    assert_eq!(kid, b64url(&sha1(signer.certificate_der())));
    let jwk = signer.public_jwk_for_issuer("https://issuer/");
    assert_eq!(
        (jwk["kty"].as_str(), jwk["use"].as_str(), jwk["e"].as_str()),
        (Some("RSA"), Some("sig"), Some("AQAB"))
    );
    assert_eq!(jwk["issuer"], "https://issuer/");

    assert!(matches!(
        JwtSigner::new(key(1), signer.certificate_der().to_vec()),
        Err(SignFault::CertificateMismatch)
    ));
}

#[test]
fn a_foreign_key_under_our_kid_is_refused() {
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": signer(0).kid()});
    let signed =
        format!("{}.{}", b64url(header.to_string().as_bytes()), b64url(claims().to_string().as_bytes()));
    let token = format!("{signed}.{}", b64url(&key(1).sign_rs256(signed.as_bytes()).unwrap()));
    assert_eq!(refusal(&token), TokenFault::Signature);
}

#[test]
fn a_foreign_issuer_is_refused_even_with_our_signature() {
    let found = "https://sts.windows.net/99999999-2222-3333-4444-555555555555/";
    let token = signer(0).sign(&with("iss", found)).unwrap();
    assert_eq!(refusal(&token), TokenFault::Issuer { expected: vec![issuer()], found: found.into() });
    assert!(matches!(refusal(&signer(0).sign(&without("iss")).unwrap()), TokenFault::Issuer { .. }));
    let cased = with("iss", issuer().to_uppercase());
    assert!(matches!(refusal(&signer(0).sign(&cased).unwrap()), TokenFault::Issuer { .. }));
}

#[test]
fn no_algorithm_but_the_pinned_one() {
    let kid = signer(0).kid().to_owned();
    for algorithm in ["none", "None", "NONE", "", "HS256", "RS384", "ES256", "rs256"] {
        let token = forge(&json!({"alg": algorithm, "kid": kid}), &claims());
        assert_eq!(refusal(&token), TokenFault::Algorithm, "{algorithm}");
    }
    assert_eq!(refusal(&forge(&json!({"kid": kid}), &claims())), TokenFault::Algorithm);
    assert_eq!(refusal(&forge(&json!({"alg": ["RS256"], "kid": kid}), &claims())), TokenFault::Algorithm);
    // The key is pinned to RS256; even a genuine PS256 signature is not taken.
    assert_eq!(refusal(&ps256_token(&json!({"alg": "PS256", "kid": kid}), &claims())), TokenFault::Algorithm);

    let unsigned = format!(
        "{}.{}.",
        b64url(json!({"alg": "none", "kid": kid}).to_string().as_bytes()),
        b64url(claims().to_string().as_bytes())
    );
    assert_eq!(refusal(&unsigned), TokenFault::Algorithm);
}

#[test]
fn hs256_over_the_public_key_is_refused() {
    let public = signer(0).public_key().clone();
    let spki_pem = pem_encode("PUBLIC KEY", &public.to_spki_der());
    let certificate_pem = pem_encode("CERTIFICATE", signer(0).certificate_der());
    for secret in
        [spki_pem.as_bytes(), spki_pem.trim().as_bytes(), certificate_pem.as_bytes(), &public.to_spki_der()]
    {
        for algorithm in ["HS256", "RS256"] {
            let header = json!({"alg": algorithm, "kid": signer(0).kid()});
            let signed = format!(
                "{}.{}",
                b64url(header.to_string().as_bytes()),
                b64url(claims().to_string().as_bytes())
            );
            let token = format!("{signed}.{}", b64url(&hmac_sha256(secret, signed.as_bytes())));
            assert!(matches!(refusal(&token), TokenFault::Algorithm | TokenFault::Signature));
        }
    }
}

#[test]
fn unknown_or_missing_kid_and_unknown_extensions_are_refused() {
    let kid = signer(0).kid().to_owned();
    assert_eq!(refusal(&signer(1).sign(&claims()).unwrap()), TokenFault::UnknownKey);
    assert_eq!(refusal(&forge(&json!({"alg": "RS256"}), &claims())), TokenFault::UnknownKey);
    assert_eq!(refusal(&forge(&json!({"alg": "RS256", "kid": 1}), &claims())), TokenFault::UnknownKey);
    // A key that the token brings along is not looked at.
    let brought = json!({"alg": "RS256", "kid": "x", "jwk": signer(0).public_jwk(), "x5c": []});
    assert_eq!(refusal(&forge(&brought, &claims())), TokenFault::UnknownKey);
    for header in [
        json!({"alg": "RS256", "kid": kid, "crit": ["exp"], "exp": 1}),
        json!({"alg": "RS256", "kid": kid, "crit": []}),
        json!({"alg": "RS256", "kid": kid, "b64": false}),
    ] {
        assert_eq!(refusal(&forge(&header, &claims())), TokenFault::Algorithm);
    }
    verifier().verify(&forge(&json!({"alg": "RS256", "kid": kid}), &claims()), NOW).unwrap();
}

#[test]
fn times_are_required_and_kept_within_the_leeway() {
    let token = signer(0).sign(&claims()).unwrap();
    for good in [NOW - 300, NOW, NOW + 3600, NOW + 3600 + 299] {
        verifier().verify(&token, good).unwrap();
    }
    assert_eq!(refusal_at(&token, NOW - 301), TokenFault::NotYetValid);
    assert_eq!(refusal_at(&token, NOW + 3600 + 300), TokenFault::Expired);
    assert_eq!(refusal_at(&token, i64::MAX), TokenFault::Expired);
    assert_eq!(refusal_at(&token, i64::MIN), TokenFault::NotYetValid);
    for name in ["exp", "nbf"] {
        assert_eq!(refusal(&signer(0).sign(&without(name)).unwrap()), TokenFault::Malformed);
        assert_eq!(refusal(&signer(0).sign(&with(name, "1800000000")).unwrap()), TokenFault::Malformed);
    }
    assert_eq!(TokenVerifier::new(KeySet::default(), []).err(), Some(VerifierFault::Issuers));
}

#[test]
fn a_remembered_token_still_expires() {
    let verifier = verifier();
    let token = signer(0).sign(&claims()).unwrap();
    let first = verifier.verify(&token, NOW).unwrap();
    let again = verifier.verify(&token, NOW + 10).unwrap();
    assert!(Arc::ptr_eq(&first.caller, &again.caller), "the second check comes from memory");
    assert_eq!(verifier.verify(&token, NOW + 4000).unwrap_err(), TokenFault::Expired);
    assert_eq!(verifier.verify(&token, NOW - 4000).unwrap_err(), TokenFault::NotYetValid);
}

#[test]
fn a_changed_token_is_refused() {
    let token = signer(0).sign(&claims()).unwrap();
    let [header, _, signature]: [&str; 3] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let other = b64url(with("oid", "00000000-0000-0000-0000-000000000001").to_string().as_bytes());
    assert_eq!(refusal(&format!("{header}.{other}.{signature}")), TokenFault::Signature);

    let verifier = verifier();
    verifier.verify(&token, NOW).unwrap();
    for position in (0..token.len()).step_by(7) {
        let mut bytes = token.clone().into_bytes();
        bytes[position] = if bytes[position] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(verifier.verify(&changed, NOW).is_err(), "position {position}");
    }
}

#[test]
fn other_shapes_are_refused() {
    let token = signer(0).sign(&claims()).unwrap();
    let [header, payload, signature]: [&str; 3] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    for bad in [
        String::new(),
        "a.b.c".into(),
        format!("{header}.{payload}"),
        format!("{token}.{signature}"),
        format!("{header}.{payload}.{payload}.{signature}"),
        format!("{token}="),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{}.{}", "A".repeat(17 * 1024), token),
    ] {
        assert_eq!(refusal(&bad), TokenFault::Malformed, "{bad:.40}");
    }
    assert_eq!(refusal(&format!("{header}.{payload}.")), TokenFault::Signature);
    let long = signer(0).sign(&with("filler", "x".repeat(16 * 1024))).unwrap();
    assert_eq!(refusal(&long), TokenFault::Malformed);
}

#[test]
fn claims_that_name_nobody_are_refused() {
    for bad in [
        without("oid"),
        without("tid"),
        without("appid"),
        without("aud"),
        with("oid", "nina"),
        with("oid", 7),
        with("idtyp", "device"),
        with("aud", json!(["a", "b"])),
    ] {
        assert_eq!(refusal(&signer(0).sign(&bad).unwrap()), TokenFault::Malformed, "{bad}");
    }
}

#[test]
fn key_sets_take_signing_keys_only() {
    let good = signer(0).public_jwk();
    let changed = |name: &str, value: Value| {
        let mut key = good.clone();
        key[name] = value;
        json!({ "keys": [key] })
    };
    assert_eq!(KeySet::from_jwks(&json!({"keys": [good]})).unwrap().len(), 1);
    for (name, value) in [
        ("kty", json!("EC")),
        ("use", json!("enc")),
        ("use", json!(["enc"])),
        ("alg", json!("PS256")),
        ("kid", json!(null)),
    ] {
        assert!(KeySet::from_jwks(&changed(name, value)).unwrap().is_empty(), "{name}");
    }
    assert!(matches!(KeySet::from_jwks(&changed("n", json!("AQAB"))), Err(KeySetFault::Key(_))));
    assert_eq!(KeySet::from_jwks(&changed("n", json!(null))).err(), Some(KeySetFault::Malformed));
    assert_eq!(KeySet::from_jwks(&json!({"keys": [good, good]})).err(), Some(KeySetFault::DuplicateKid));
    assert_eq!(KeySet::from_jwks(&json!({"keys": vec![good; 65]})).err(), Some(KeySetFault::TooMany));
    assert_eq!(KeySet::from_jwks(&json!([])).err(), Some(KeySetFault::Malformed));
}

// Client assertions.

const ENDPOINT: &str = "https://login.microsoftonline.com/organizations/oauth2/v2.0/token";

fn assertion_claims() -> Value {
    json!({
        "aud": ENDPOINT, "iss": APP, "sub": APP, "jti": "one", "exp": NOW as f64 + 600.25, "iat": NOW as f64 - 0.5,
    })
}

fn assertion(change: impl FnOnce(&mut Value)) -> String {
    let mut claims = assertion_claims();
    change(&mut claims);
    forge(&json!({"alg": "RS256", "typ": "JWT", "x5t": "rFrEuFRvzQaNaa9H2LQtZcdXvVo="}), &claims)
}

fn ps256_token(header: &Value, claims: &Value) -> String {
    use aws_lc_rs::rsa::KeyPair;
    use aws_lc_rs::signature::RSA_PSS_SHA256;
    let pair = KeyPair::from_pkcs8(&key(0).to_pkcs8_der().unwrap()).unwrap();
    let signed =
        format!("{}.{}", b64url(header.to_string().as_bytes()), b64url(claims.to_string().as_bytes()));
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PSS_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    format!("{signed}.{}", b64url(&signature))
}

fn check(token: &str) -> Result<arcadia_crypto::Assertion, AssertionFault> {
    verify_assertion(token, &[key(1).public().clone(), key(0).public().clone()], &["other", ENDPOINT], NOW)
}

#[test]
fn assertions_with_fractional_times_and_padded_thumbprints_are_taken() {
    let taken = check(&assertion(|_| ())).unwrap();
    assert_eq!(
        (taken.issuer.as_str(), taken.subject.as_str(), taken.jti.as_deref()),
        (APP, APP, Some("one"))
    );
    assert_eq!(taken.expires_at, NOW + 600);
    assert_eq!(taken.header["x5t"].as_str(), Some("rFrEuFRvzQaNaa9H2LQtZcdXvVo="));
    check(&assertion(|claims| claims["aud"] = json!(["x", ENDPOINT]))).unwrap();
    check(&ps256_token(&json!({"alg": "PS256"}), &assertion_claims())).unwrap();
}

#[test]
fn assertions_are_refused_for_every_reason() {
    let fault = |token: String| check(&token).err().unwrap();
    assert_eq!(fault(assertion(|c| c["aud"] = json!("https://elsewhere/"))), AssertionFault::Audience);
    assert_eq!(fault(assertion(|c| c["aud"] = json!([]))), AssertionFault::Audience);
    assert_eq!(fault(assertion(|c| c["aud"] = json!({"a": ENDPOINT}))), AssertionFault::Audience);
    assert_eq!(fault(assertion(|c| c["exp"] = json!(NOW - 300))), AssertionFault::Expired);
    assert_eq!(fault(assertion(|c| c["exp"] = json!(NOW + 86_401))), AssertionFault::LifetimeTooLong);
    assert_eq!(fault(assertion(|c| c["exp"] = json!("soon"))), AssertionFault::MissingClaim("exp"));
    assert_eq!(fault(assertion(|c| c["nbf"] = json!(NOW + 301))), AssertionFault::NotYetValid);
    assert_eq!(fault(assertion(|c| c["iat"] = json!(NOW + 301))), AssertionFault::NotYetValid);
    for name in ["iss", "sub", "aud", "exp"] {
        let missing = assertion(|c| drop(c.as_object_mut().unwrap().remove(name)));
        assert_eq!(fault(missing), AssertionFault::MissingClaim(name));
    }
    for algorithm in ["none", "HS256", "RS512"] {
        let token = forge(&json!({"alg": algorithm}), &assertion_claims());
        assert_eq!(fault(token), AssertionFault::Algorithm);
    }
    // A signature of one kind under the name of the other.
    assert_eq!(fault(ps256_token(&json!({"alg": "RS256"}), &assertion_claims())), AssertionFault::Signature);
    assert_eq!(fault(forge(&json!({"alg": "PS256"}), &assertion_claims())), AssertionFault::Signature);
    let token = assertion(|_| ());
    let strangers = [key(1).public().clone()];
    assert_eq!(verify_assertion(&token, &strangers, &[ENDPOINT], NOW).err(), Some(AssertionFault::Signature));
    assert_eq!(verify_assertion(&token, &[], &[ENDPOINT], NOW).err(), Some(AssertionFault::Signature));
    assert_eq!(
        verify_assertion(&token, &[key(0).public().clone()], &[], NOW).err(),
        Some(AssertionFault::Audience)
    );
}
