//! Fuzz targets for what clients of the proxy send first, and for the names that their requests are for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::OnceLock;

use arcadia_kernel::parse_authority;
use http::{HeaderValue, Request, StatusCode, header};
use tokio::runtime::Runtime;

use super::hosts::{HostTable, Route, fold_host};
use super::http_connection::check_name;
use super::public_address::is_public;
use super::request_head::{Ask, read_head};

arcadia_fuzz::target!(proxy_head, |data: &[u8]| heads_are_read_once(data));

/// What comes after the head belongs to the tunnel, byte for byte; a host is one that can be compared.
fn heads_are_read_once(data: &[u8]) {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| tokio::runtime::Builder::new_current_thread().build().unwrap());
    let Ok((ask, rest)) = runtime.block_on(read_head(&mut &*data)) else { return };
    assert!(data.ends_with(&rest) && data[..data.len() - rest.len()].ends_with(b"\r\n\r\n"));
    let Ask::Connect { host, port } = ask else { return };
    assert!(
        port != 0 && host.len() <= 253 && host.is_ascii() && !host.contains(['/', '@', '%', '[', ']', ' '])
    );
    let written = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    assert_eq!(parse_authority(&written), Some((host.clone(), port)));
    let table = HostTable::default();
    let shown = |route: Route| match route {
        Route::Here => "here",
        Route::Withheld(_) => "withheld",
        Route::Outside => "outside",
    };
    let once = shown(table.route(&host));
    assert_eq!(once, shown(table.route(&fold_host(&host))));
    assert_eq!(once, shown(table.route(&host.to_ascii_uppercase())));
    let folded = fold_host(&host);
    if folded == "management.azure.com" || folded.ends_with(".vault.azure.net") {
        assert_eq!(once, "withheld");
    }
}

arcadia_fuzz::target!(proxy_addresses, |data: &[u8]| inner_addresses_stay_inside(data));

/// Addresses that carry a private one inside are as private as that.
fn inner_addresses_stay_inside(data: &[u8]) {
    if let Some(octets) = data.first_chunk::<4>() {
        let inner = Ipv4Addr::from(*octets);
        let private =
            inner.is_private() || inner.is_loopback() || inner.is_link_local() || inner.is_unspecified();
        let public = is_public(IpAddr::V4(inner));
        assert!(!(private && public));
        let bits = u128::from(inner.to_bits());
        for prefix in [0x64_ff9b_u128 << 96, 0xffff << 32, 0, 0x2002 << 112 | bits << 80] {
            let outer = is_public(IpAddr::V6(Ipv6Addr::from_bits(prefix | bits)));
            assert!(!outer || public);
        }
    }
    if let Some(octets) = data.first_chunk::<16>() {
        let address = Ipv6Addr::from(*octets);
        let inside = address.is_loopback() || address.is_unspecified() || address.is_multicast();
        assert!(!(is_public(IpAddr::V6(address)) && (inside || address.segments()[0] & 0xfe00 == 0xfc00)));
    }
}

arcadia_fuzz::target!(request_name, |data: &[u8]| requests_keep_to_their_connection(data));

/// A target and the values of `Host`, a line each: all of them that there are name the connection's own host, in one of
/// four spellings, or the request is refused.
fn requests_keep_to_their_connection(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let Ok(uri) = http::Uri::try_from(lines.next().unwrap_or_default()) else { return };
    let (mut head, ()) = Request::new(()).into_parts();
    head.uri = uri;
    for value in lines.filter_map(|line| HeaderValue::from_bytes(line.trim_ascii()).ok()) {
        head.headers.append(header::HOST, value);
    }
    let hosts: Vec<&[u8]> = head.headers.get_all(header::HOST).iter().map(HeaderValue::as_bytes).collect();
    let target = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    for name in ["kv1.vault.azure.net", "login.site.test"] {
        let is_own = |found: &&[u8]| {
            ["", ".", ":443", ".:443"]
                .iter()
                .any(|end| found.eq_ignore_ascii_case(format!("{name}{end}").as_bytes()))
        };
        let mut named = target.iter().chain(&hosts);
        let fits = hosts.len() + target.iter().len() > 0 && hosts.len() < 2 && named.all(is_own);
        match check_name(name, &head) {
            Ok(()) => assert!(fits, "{:?}", String::from_utf8_lossy(data)),
            Err(refusal) => {
                assert!(!fits, "{:?}", String::from_utf8_lossy(data));
                assert!(matches!(
                    refusal.status(),
                    StatusCode::BAD_REQUEST | StatusCode::MISDIRECTED_REQUEST
                ));
            }
        }
    }
}
