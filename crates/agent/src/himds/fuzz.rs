//! Fuzz target for requests of local processes.

use arcadia_kernel::Query;
use http::{HeaderMap, HeaderValue, header};

use super::ask::{self, Selector, TokenAsk};
use super::{area, check_origin, is_loopback_host};
use crate::HimdsLimits;

arcadia_fuzz::target!(himds_request, |data: &[u8]| asks_are_bounded_and_clean(data));

/// A path, a host and a query, a line each.
fn asks_are_bounded_and_clean(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(3, '\n');
    let (path, host, raw) =
        (lines.next().unwrap_or(""), lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let segments = arcadia_kernel::split_path(path);
    let segments: Vec<&str> = segments.iter().flatten().map(String::as_str).collect();
    let area = area(&segments);
    if let Ok(value) = HeaderValue::from_str(host) {
        let headers = HeaderMap::from_iter([(header::HOST, value)]);
        assert_eq!(check_origin(&headers).is_ok(), host.is_ascii() && is_loopback_host(host));
        if is_loopback_host(host) && !host.is_empty() {
            let name = host.trim_start_matches('[').to_ascii_lowercase();
            assert!(
                ["localhost", "127.", "::1", "0:", "0000:", "00:", "000:", ":"]
                    .iter()
                    .any(|start| name.starts_with(start))
            );
        }
    }
    let limits = HimdsLimits::default();
    let Ok(fields) = ask::fields(raw, &limits) else { return };
    assert!(raw.len() <= limits.query_bytes_max && fields.iter().count() <= limits.query_fields_max);
    assert!(fields.iter().all(|(name, value)| !format!("{name}{value}").contains(char::is_control)));
    if ask::api_version(&fields, area).is_ok() {
        assert_eq!(fields.first("api-version").map(str::len), Some(10));
    }
    if let Ok(ask) = TokenAsk::read(&fields) {
        assert_eq!(Some(&*ask.resource), fields.first("resource"));
        let ours = crate::config::tests::example();
        if ask.selector.check(&ours).is_ok() && ask.selector != Selector::Machine {
            let named = ["client_id", "object_id", "msi_res_id"]
                .iter()
                .filter_map(|name| Query::first(&fields, name));
            let known = [ours.client_id.to_string(), ours.principal_id.to_string(), ours.resource_id];
            let plain =
                |text: &str| text.to_ascii_lowercase().replace(['-', '{', '}'], "").replace("urn:uuid:", "");
            assert!(
                named.filter(|id| !id.is_empty()).all(|id| known.iter().any(|own| plain(own) == plain(id)))
            );
        }
    }
}
