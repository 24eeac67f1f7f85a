//! The site authority before strict verifiers: the `openssl` command and Python's `ssl`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use arcadia_crypto::{
    IpSubnet, IssueFault, IssuedLeaf, SiteCa, Zeroizing, pem_decode, pem_encode, pem_encode_secret,
};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const DAY: i64 = 86_400;
const CA_NAME: &str = "Arcadia site lab";

/// Python verifies at the machine's time, so these certificates are made for it.
#[allow(clippy::disallowed_methods)]
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

fn subnets() -> Vec<IpSubnet> {
    ["127.0.0.0/8", "::1/128"].map(|text| text.parse().unwrap()).to_vec()
}

fn authority() -> SiteCa {
    SiteCa::create(CA_NAME, &["vault.azure.net", "management.azure.com", "localhost"], &subnets(), now(), 10)
        .unwrap()
}

struct Files {
    directory: TempDir,
}

impl Files {
    fn new(ca: &SiteCa) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), ca.certificate_pem()).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, leaf: &IssuedLeaf) {
        let chain: String = leaf.chain_der.iter().map(|der| pem_encode("CERTIFICATE", der)).collect();
        std::fs::write(self.path("leaf.pem"), chain).unwrap();
        std::fs::write(self.path("key.pem"), pem_encode_secret("PRIVATE KEY", &leaf.key_pkcs8_der)).unwrap();
    }

    /// `openssl verify`: whether it accepted, and all it printed.
    fn openssl(&self, check: &[&str]) -> (bool, String) {
        let output = Command::new("openssl")
            .args(["verify", "-x509_strict", "-check_ss_sig", "-purpose", "sslserver", "-CAfile"])
            .arg(self.path("ca.pem"))
            .args(check)
            .arg(self.path("leaf.pem"))
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    fn python(&self, hosts: &[&str]) -> Vec<String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/strict_tls.py");
        let output = Command::new("python3")
            .arg(script)
            .args(["ca.pem", "leaf.pem", "key.pem"].map(|name| self.path(name)))
            .args(hosts)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    fn openssl_text(&self, name: &str) -> String {
        let output =
            Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(self.path(name)).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn permitted_names_verify_strictly() {
    let ca = authority();
    let files = Files::new(&ca);
    let names = ["kv1.vault.azure.net", "*.vault.azure.net", "management.azure.com", "localhost"];
    files.write(&ca.issue_server(&names, &ips(&["127.0.0.1", "::1"]), now(), 30).unwrap());
    for check in [
        ["-verify_hostname", "kv1.vault.azure.net"],
        ["-verify_hostname", "other.vault.azure.net"],
        ["-verify_hostname", "management.azure.com"],
        ["-verify_hostname", "localhost"],
        ["-verify_ip", "127.0.0.1"],
        ["-verify_ip", "::1"],
    ] {
        let (accepted, text) = files.openssl(&check);
        assert!(accepted, "{check:?}: {text}");
    }
    let (accepted, text) = files.openssl(&["-verify_hostname", "kv1.vault.example"]);
    assert!(!accepted && text.contains("hostname mismatch"), "{text}");
    let hosts = ["kv1.vault.azure.net", "localhost", "127.0.0.1", "::1", "login.microsoftonline.com"];
    let lines = files.python(&hosts);
    for (line, host) in lines.iter().zip(&hosts[..4]) {
        assert_eq!(line, &format!("{host} ok"));
    }
    assert!(lines[4].contains("refused: Hostname mismatch"), "{lines:?}");
}

#[test]
fn a_leaf_for_addresses_alone_verifies() {
    let ca = authority();
    let files = Files::new(&ca);
    files.write(&ca.issue_server(&[], &ips(&["127.0.0.1"]), now(), 1).unwrap());
    let (accepted, text) = files.openssl(&["-verify_ip", "127.0.0.1"]);
    assert!(accepted, "{text}");
    assert_eq!(files.python(&["127.0.0.1"]), ["127.0.0.1 ok"]);
}

/// A leaf as a thief of the authority's key would make it: signed by the authority, for a name it does not permit.
fn stolen_key_leaf(ca: &SiteCa, name: &str) -> IssuedLeaf {
    let ca_key = KeyPair::from_pem(&ca.key_pem()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate_pem(), ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "thief");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let der = params.signed_by(&key, &issuer).unwrap().der().to_vec();
    IssuedLeaf {
        chain_der: vec![der],
        key_pkcs8_der: Zeroizing::new(key.serialize_der()),
        not_before_seconds: 0,
        not_after_seconds: i64::MAX,
    }
}

#[test]
fn a_stolen_key_is_of_no_use_for_other_names() {
    let ca = authority();
    let files = Files::new(&ca);
    for name in ["www.example.com", "vault.azure.net.example", "evilvault.azure.net", "azure.net"] {
        files.write(&stolen_key_leaf(&ca, name));
        let (accepted, text) = files.openssl(&["-verify_hostname", name]);
        assert!(!accepted && text.contains("permitted subtree violation"), "{name}: {text}");
        let lines = files.python(&[name]);
        assert!(lines[0].contains("refused: permitted subtree violation"), "{lines:?}");
    }
    files.write(&stolen_key_leaf(&ca, "10.0.0.1"));
    let (accepted, text) = files.openssl(&["-verify_ip", "10.0.0.1"]);
    assert!(!accepted && text.contains("permitted subtree violation"), "{text}");
    assert!(files.python(&["10.0.0.1"])[0].contains("permitted subtree violation"));
    // The same hand makes a good certificate for a permitted name: it is the constraint that refuses.
    files.write(&stolen_key_leaf(&ca, "kv1.vault.azure.net"));
    assert!(files.openssl(&["-verify_hostname", "kv1.vault.azure.net"]).0);
    assert_eq!(files.python(&["kv1.vault.azure.net"]), ["kv1.vault.azure.net ok"]);
}

#[test]
fn an_authority_without_address_ranges_permits_no_address() {
    let ca = SiteCa::create(CA_NAME, &["vault.azure.net"], &[], now(), 1).unwrap();
    let files = Files::new(&ca);
    for (address, check) in [("127.0.0.1", "-verify_ip"), ("::1", "-verify_ip")] {
        assert_eq!(
            ca.issue_server(&[], &ips(&[address]), now(), 1).err(),
            Some(IssueFault::NotPermitted(address.into()))
        );
        files.write(&stolen_key_leaf(&ca, address));
        let (accepted, text) = files.openssl(&[check, address]);
        assert!(!accepted && text.contains("excluded subtree violation"), "{text}");
    }
}

#[test]
fn names_outside_the_constraints_are_not_issued() {
    let ca = authority();
    let refusal =
        |names: &[&str], addresses: &[&str]| ca.issue_server(names, &ips(addresses), now(), 1).err().unwrap();
    let outside = |name: &str| IssueFault::NotPermitted(name.to_owned());
    assert_eq!(refusal(&["www.example.com"], &[]), outside("www.example.com"));
    assert_eq!(refusal(&["kv1.vault.azure.net", "*.azure.net"], &[]), outside("*.azure.net"));
    assert_eq!(refusal(&["localhost"], &["10.0.0.1"]), outside("10.0.0.1"));
    assert!(matches!(refusal(&["bad name"], &[]), IssueFault::InvalidName(_)));
    assert!(matches!(refusal(&[], &[]), IssueFault::NameCount(_)));
    assert!(matches!(refusal(&["localhost"; 129], &[]), IssueFault::NameCount(_)));
    assert!(ca.permits_dns("KV1.Vault.Azure.Net") && !ca.permits_dns("example.com"));
}

#[test]
fn the_certificates_say_what_they_must() {
    let ca = authority();
    let files = Files::new(&ca);
    let long = format!("{}.{}.vault.azure.net", "a".repeat(40), "b".repeat(40));
    let leaf = ca.issue_server(&[&long], &[], now(), 90).unwrap();
    files.write(&leaf);
    let text = files.openssl_text("ca.pem");
    for expected in [
        "Subject: O = Arcadia, CN = Arcadia site lab",
        "X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:0",
        "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign",
        "X509v3 Subject Key Identifier",
        "X509v3 Name Constraints: critical",
        "DNS:vault.azure.net",
        "IP:127.0.0.0/255.0.0.0",
        "ASN1 OID: prime256v1",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    let text = files.openssl_text("leaf.pem");
    for expected in [
        format!("Subject: CN = {}\n", &long[..64]).as_str(),
        "Issuer: O = Arcadia, CN = Arcadia site lab",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "X509v3 Extended Key Usage: \n                TLS Web Server Authentication",
        "X509v3 Authority Key Identifier",
        "X509v3 Subject Key Identifier",
        "X509v3 Basic Constraints: critical\n                CA:FALSE",
        format!("DNS:{long}").as_str(),
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    assert!(files.openssl(&["-verify_hostname", &long]).0);
    let (_, read) = X509Certificate::from_der(&leaf.chain_der[0]).unwrap();
    let serial = read.raw_serial();
    assert!(serial.len() == 20 && (0x40..0x80).contains(&serial[0]), "positive and 20 octets");
}

#[test]
fn validity_begins_earlier_and_never_outlasts_the_authority() {
    let start = now();
    let ca = SiteCa::create(CA_NAME, &["localhost"], &[], start, 1).unwrap();
    let issue = |now: i64, days: u32| ca.issue_server(&["localhost"], &[], now, days);
    let leaf = issue(start + DAY, 30).unwrap();
    let (_, read) = X509Certificate::from_der(&leaf.chain_der[0]).unwrap();
    let (from, until) = (read.validity().not_before.timestamp(), read.validity().not_after.timestamp());
    assert_eq!((from, until), (start + DAY - 600, start + 31 * DAY - 600));
    assert_eq!((leaf.not_before_seconds, leaf.not_after_seconds), (from, until));
    assert_eq!(issue(start + DAY, 397).unwrap().not_after_seconds, ca.not_after_seconds());
    assert_eq!(issue(start + 366 * DAY, 1).err(), Some(IssueFault::AuthorityExpired));
    for (now, days) in [(start, 0), (start, 398), (-1, 1), (i64::MIN, 1), (i64::MAX, 1)] {
        assert_eq!(issue(now, days).err(), Some(IssueFault::Validity));
    }
    for years in [0, 31, u32::MAX] {
        assert!(SiteCa::create(CA_NAME, &["localhost"], &[], start, years).is_err());
    }
    let long_lived = SiteCa::create(CA_NAME, &["localhost"], &[], start, 30).unwrap();
    let leaf = long_lived.issue_server(&["localhost"], &[], start, 397).unwrap();
    assert_eq!(leaf.not_after_seconds - leaf.not_before_seconds, 397 * DAY);
}

#[test]
fn a_stored_authority_goes_on_issuing() {
    let first = authority();
    let ca = SiteCa::from_pem(&first.certificate_pem(), &first.key_pem()).unwrap();
    let files = Files::new(&first);
    files.write(&ca.issue_server(&["localhost"], &ips(&["::1"]), now(), 1).unwrap());
    assert!(files.openssl(&["-verify_hostname", "localhost"]).0);
    assert_eq!(
        ca.issue_server(&["www.example.com"], &[], now(), 1).err(),
        Some(IssueFault::NotPermitted("www.example.com".into()))
    );
    assert!(!format!("{ca:?}").contains("PRIVATE"));
}

#[test]
fn other_authorities_are_not_taken() {
    let (ca, other) = (authority(), authority());
    let refusal = |certificate: &str, key: &str| SiteCa::from_pem(certificate, key).err().unwrap();
    assert_eq!(refusal(&ca.certificate_pem(), &other.key_pem()), IssueFault::KeyMismatch);
    let unreadable = |certificate: &str, key: &str| match refusal(certificate, key) {
        IssueFault::Unreadable(why) => why,
        other => panic!("{other}"),
    };
    let (no_certificate, no_key) =
        ("no CERTIFICATE block in its PEM text", "no PRIVATE KEY block in its PEM text");
    assert_eq!(unreadable("", &ca.key_pem()), no_certificate);
    assert_eq!(unreadable(&ca.certificate_pem(), ""), no_key);
    assert_eq!(unreadable(&ca.certificate_pem(), &ca.certificate_pem()), no_key);
    let cut = pem_encode("CERTIFICATE", &ca.certificate_der()[1..]);
    assert_eq!(unreadable(&cut, &ca.key_pem()), "its certificate is not X.509");
    let longer = pem_encode("CERTIFICATE", &[ca.certificate_der(), &[0]].concat());
    assert_eq!(unreadable(&longer, &ca.key_pem()), "its certificate is not an authority's");

    let key = KeyPair::from_pem(&ca.key_pem()).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let unconstrained = params.self_signed(&key).unwrap().pem();
    let lacks = "its certificate lacks the name constraints it must have";
    assert_eq!(unreadable(&unconstrained, &ca.key_pem()), lacks);
    let leaf = ca.issue_server(&["localhost"], &[], now(), 1).unwrap();
    let leaf_key = pem_encode_secret("PRIVATE KEY", &leaf.key_pkcs8_der);
    let leaf_pem = pem_encode("CERTIFICATE", &leaf.chain_der[0]);
    assert_eq!(unreadable(&leaf_pem, &leaf_key), "its certificate is not an authority's");
    assert_eq!(pem_decode(&ca.certificate_pem()).unwrap()[0].der.as_slice(), ca.certificate_der());
}
