//! The proxy of a real site.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use crate::support::Site;

fn ask(site: &Site, head: &str) -> String {
    let address = site.proxy();
    let mut stream = TcpStream::connect(address.strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    let mut byte = [0];
    while !answer.ends_with("\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        answer.push(char::from(byte[0]));
    }
    answer
}

#[test]
fn curl_reaches_the_site_and_trusts_its_authority_alone() {
    let site = Site::start();
    let discovery =
        site.curl(&["https://login.microsoftonline.com/organizations/v2.0/.well-known/openid-configuration"]);
    assert_eq!((discovery.status, discovery.proxy_status), (200, 200), "{discovery:?}");
    let document = discovery.json();
    assert!(document["token_endpoint"].as_str().unwrap().starts_with("https://login.microsoftonline.com/"));
    let keys = site.curl(&[document["jwks_uri"].as_str().unwrap()]);
    assert!(!keys.json()["keys"].as_array().unwrap().is_empty());
    for version in ["--http1.1", "--http2"] {
        assert_eq!(site.curl(&[version, "https://management.azure.com/subscriptions"]).status, 401);
    }
    // Without the authority nothing verifies.
    let untrusting =
        site.curl(&["--cacert", "/etc/ssl/certs/ca-certificates.crt", "https://management.azure.com/"]);
    assert_eq!(untrusting.exit, 60, "{untrusting:?}");
    let page = site.curl(&["--location", "https://jwt.ms/"]);
    assert!(page.status == 200 && page.body.contains("token"), "{page:?}");
}

/// Where SDKs sign in when AZURE_REGIONAL_AUTHORITY_NAME names a region.
#[test]
fn a_regions_sign_in_is_this_sites() {
    let site = Site::start_with(&[]);
    let path = "/organizations/v2.0/.well-known/openid-configuration";
    let discovery = site.curl(&[&format!("https://uksouth.login.microsoft.com{path}")]);
    assert_eq!((discovery.status, discovery.proxy_status), (200, 200), "{discovery:?}");
    assert_eq!(discovery.json(), site.curl(&[&format!("https://login.microsoftonline.com{path}")]).json());
    for name in ["a.uksouth.login.microsoft.com", "uksouth.r.login.microsoftonline.com"] {
        let answer = ask(&site, &format!("CONNECT {name}:443 HTTP/1.1\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 403 "), "{name} -> {answer}");
    }
}

#[test]
fn a_name_that_no_host_has_is_refused_before_the_tunnel() {
    let site = Site::start();
    for name in ["-", "a-", "a b", &"a".repeat(64)] {
        let answer = ask(&site, &format!("CONNECT {name}.vault.azure.net:443 HTTP/1.1\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 400 "), "{name} -> {answer}");
    }
    let longest = ask(&site, &format!("CONNECT {}.vault.azure.net:443 HTTP/1.1\r\n\r\n", "a".repeat(63)));
    assert!(longest.starts_with("HTTP/1.1 200 "), "{longest}");
}

#[test]
fn old_clients_send_connect_without_a_host() {
    let site = Site::start();
    let answer = ask(&site, "CONNECT management.azure.com:443 HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn what_is_not_carried_is_refused() {
    // Not offline: these are refused for what they are.
    let site = Site::start_with(&[]);
    for target in [
        "127.0.0.1:443",
        "localhost:443",
        "LocalHost.:443",
        "[::1]:443",
        "169.254.169.254:443",
        "10.0.0.1:443",
        "100.64.0.1:443",
        "192.168.1.1:443",
        "0.0.0.0:443",
        "[::]:443",
        "[::ffff:127.0.0.1]:443",
        "[fe80::1]:443",
        "[fd00::1]:443",
        "127.1:443",
        "0x7f.0.0.1:443",
        "2130706433:443",
        "azcliprod.blob.core.windows.net:443",
        "dc.services.visualstudio.com:443",
        "account.queue.core.windows.net:443",
        "management.azure.com:80",
        "example.com:22",
    ] {
        let answer = ask(&site, &format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 403 "), "{target} -> {answer}");
    }
    let plain =
        ask(&site, "GET http://localhost:40342/metadata/instance HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(plain.starts_with("HTTP/1.1 403 "), "{plain}");
    assert_eq!(site.curl(&["https://169.254.169.254/"]).proxy_status, 403);
}

#[test]
fn the_socket_speaks_the_same_protocol_and_is_closed_to_others() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::start();
    let path = site.data.join("proxy.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(b"CONNECT graph.microsoft.com:443 HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[test]
fn a_name_that_is_not_served_has_no_certificate() {
    let site = Site::start();
    // The tunnel to a served name, and another name in the client's hello.
    let address = site.proxy();
    let output = std::process::Command::new("openssl")
        .args(["s_client", "-proxy", address.strip_prefix("http://").unwrap()])
        .args(["-connect", "management.azure.com:443", "-servername", "portal.azure.com"])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(!String::from_utf8_lossy(&output.stdout).contains("BEGIN CERTIFICATE"));
    let strict = std::process::Command::new("openssl")
        .args(["s_client", "-proxy", address.strip_prefix("http://").unwrap(), "-x509_strict"])
        .args(["-connect", "management.azure.com:443", "-servername", "management.azure.com"])
        .args(["-verify_return_error", "-CAfile"])
        .arg(site.data.join("ca.pem"))
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&strict.stdout);
    assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
}

/// The refusal leaves before the body has arrived; the client must see it all the same, and not a broken stream.
#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    let site = Site::start();
    let folder = tempfile::tempdir().unwrap();
    let body = folder.path().join("body");
    for bytes in [100, 20_000, 900_000] {
        std::fs::write(&body, vec![b'x'; bytes]).unwrap();
        let data = format!("@{}", body.display());
        for version in ["--http2", "--http1.1"] {
            for _ in 0..15 {
                let arguments =
                    [version, "--data-binary", &data, "https://management.azure.com/subscriptions"];
                let answer = site.curl(&arguments);
                assert_eq!((answer.exit, answer.status), (0, 401), "{version} {bytes} {answer:?}");
            }
        }
    }
}
