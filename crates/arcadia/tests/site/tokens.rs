//! Tokens that look right and are not, at every plane.

use arcadia_crypto::{RsaBits, RsaKeyPair, b64url, b64url_decode, hmac_sha256, peek};
use serde_json::Value;

use crate::support::{ARM, ARM_SCOPE, GRAPH, GRAPH_SCOPE, LOGIN, Site, VAULT_SCOPE};

struct Parts {
    header: serde_json::Map<String, Value>,
    claims: serde_json::Map<String, Value>,
}

impl Parts {
    fn of(token: &str) -> Self {
        let (header, claims) = peek(token).unwrap();
        Self { header, claims }
    }

    fn signed(&self, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
        let part = |value: &serde_json::Map<String, Value>| b64url(&serde_json::to_vec(value).unwrap());
        let text = format!("{}.{}", part(&self.header), part(&self.claims));
        format!("{text}.{}", b64url(&sign(text.as_bytes())))
    }
}

#[tokio::test]
async fn forged_and_misdirected_tokens_are_refused_by_every_plane() {
    let site = Site::start();
    let wire = site.client();
    wire.vault("kvtokens").await;
    let planes = [
        (ARM_SCOPE, format!("{ARM}/subscriptions?api-version=2022-12-01")),
        (GRAPH_SCOPE, format!("{GRAPH}/v1.0/applications")),
        (VAULT_SCOPE, "https://kvtokens.vault.azure.net/secrets?api-version=7.4".to_owned()),
    ];
    let foreign = RsaKeyPair::generate(RsaBits::Bits2048).unwrap();
    let keys =
        wire.must("GET", &format!("{LOGIN}/{}/discovery/v2.0/keys", wire.tenant()), "none", None).await;
    let modulus = b64url_decode(keys["keys"][0]["n"].as_str().unwrap()).unwrap();

    for (at, (scope, url)) in planes.iter().enumerate() {
        let good = wire.admin_token(scope).await;
        let accepted = wire.send("GET", url, Some(&good), None).await.status.as_u16();
        assert!(accepted == 200 || (accepted == 403 && url.contains("vault")), "{url}: {accepted}");

        let mut bad = vec![("nonsense", "a.b.c".to_owned())];
        let parts = Parts::of(&good);
        bad.push(("a foreign key under the same id", parts.signed(|text| foreign.sign_rs256(text).unwrap())));
        let mut parts = Parts::of(&good);
        parts.header.insert("alg".into(), "none".into());
        bad.push(("no signature", parts.signed(|_| Vec::new())));
        parts.header.insert("alg".into(), "HS256".into());
        bad.push(("HS256 over the public key", parts.signed(|text| hmac_sha256(&modulus, text).to_vec())));
        let mut parts = Parts::of(&good);
        parts.header.insert("kid".into(), "another".into());
        bad.push(("an unknown key id", parts.signed(|text| foreign.sign_rs256(text).unwrap())));
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let mut parts = Parts::of(&good);
        parts.claims.insert("oid".into(), "00000000-0000-0000-0000-000000000001".into());
        bad.push(("changed claims", parts.signed(|_| b64url_decode(signature).unwrap())));
        bad.push(("a cut signature", format!("{signed}.{}", &signature[..signature.len() - 4])));
        let elsewhere = planes[(at + 1) % planes.len()].0;
        bad.push(("another service's token", wire.admin_token(elsewhere).await));
        for (what, token) in bad {
            let answer = wire.send("GET", url, Some(&token), None).await;
            assert_eq!(answer.status, 401, "{what} at {url}");
            assert!(
                answer.header_named("www-authenticate").is_some_and(|value| value.starts_with("Bearer")),
                "{what} at {url}"
            );
        }
    }
}

#[test]
fn decode_shows_a_token_without_a_site() {
    let folder = tempfile::TempDir::new().unwrap();
    let token =
        format!("{}.{}.AA", b64url(br#"{"alg":"RS256"}"#), b64url(br#"{"exp":1800000000,"oid":"x"}"#));
    let run = |arguments: &[&str]| crate::support::arcadia(folder.path()).args(arguments).output().unwrap();
    let shown = run(&["token", "decode", &token]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains("2027-01-15T08:00:00Z") && text.contains("RS256"), "{text}");
    let json: Value = serde_json::from_slice(&run(&["token", "decode", "--json", &token]).stdout).unwrap();
    assert_eq!(json["claims"]["oid"], "x");
    assert_eq!(run(&["token", "decode", "nonsense"]).status.code(), Some(1));
}
