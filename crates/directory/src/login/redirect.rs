//! Where a browser may be sent back to: the addresses that applications are registered with.

use http::Uri;

use crate::login::client::Client;
use crate::model::{AZURE_CLI_APP_ID, Application};

/// Whether the browser may be sent there with an answer for this client.
pub(super) fn may_redirect(client: &Client, uri: &str) -> bool {
    if client.app_id == AZURE_CLI_APP_ID {
        return loopback(uri).is_some();
    }
    let Some(application) = &client.application else { return false };
    ["web", "spa", "publicClient"]
        .into_iter()
        .any(|kind| application.redirect_uris(kind).any(|registered| same_redirect(registered, uri)))
}

/// Whether the address is registered for clients that can keep no secret.
pub(super) fn is_public_redirect(application: &Application, uri: &str) -> bool {
    application.public_redirect_uris().any(|registered| same_redirect(registered, uri))
}

/// Equal to the letter, but for the port of loopback addresses (RFC 8252 section 7.3).
pub(super) fn same_redirect(registered: &str, uri: &str) -> bool {
    registered == uri
        || match (loopback(registered), loopback(uri)) {
            (Some(registered), Some(asked)) => registered == asked,
            _ => false,
        }
}

/// Host and path of a plain-HTTP loopback address.
pub(super) fn loopback(text: &str) -> Option<(String, String)> {
    if text.contains(['#', '\\']) || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return None;
    }
    let uri: Uri = text.parse().ok()?;
    let authority = uri.authority()?;
    let host = authority.host();
    let is_loopback = ["localhost", "127.0.0.1", "[::1]"].contains(&host);
    // What stands beside the host can only be a port: others may read `localhost:80;x` or `[::1].x` otherwise.
    let whole = match authority.port_u16() {
        Some(port) => authority.as_str() == format!("{host}:{port}"),
        None => authority.as_str() == host,
    };
    let plain = uri.scheme_str() == Some("http") && whole;
    (is_loopback && plain).then(|| (host.to_owned(), uri.path().to_owned()))
}

/// Where the page's policy lets its form lead, as browsers ask it again for the redirect: `scheme://host[:port]`, or
/// `scheme:` of an address that an application on the device listens to.
pub(super) fn form_target(text: &str) -> Option<String> {
    let uri: Uri = text.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?.as_str());
    let safe =
        |text: &str, marks: &[u8]| text.bytes().all(|b| b.is_ascii_alphanumeric() || marks.contains(&b));
    match scheme {
        "http" | "https" => safe(authority, b".-:[]").then(|| format!("{scheme}://{authority}")),
        // Addresses that are script or carry their content are never registered.
        _ => safe(scheme, b"+-.").then(|| format!("{scheme}:")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_loopback_addresses_pass_for_it() {
        for good in
            ["http://localhost:46441", "http://127.0.0.1:1/", "http://localhost/x?y=1", "http://[::1]:9"]
        {
            assert!(loopback(good).is_some(), "{good}");
        }
        for bad in [
            "https://localhost:1",
            "http://localhost.evil.example",
            "http://localhost@evil.example/",
            "http://x@localhost/",
            "http://evil.example/#http://localhost",
            "http://localhost:1\\@evil.example",
            "http://127.0.0.2/",
            "http://localhost:80;evil.example/",
            "http://localhost:99999999/",
            "http://localhost:/",
            "http://[::1].evil.example/",
            "http://[::1]evil.example:80/",
            "//localhost",
            "localhost",
            "javascript:alert(1)",
            "",
        ] {
            assert!(loopback(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_port_of_a_loopback_address_is_free_and_nothing_else() {
        assert!(same_redirect("http://localhost", "http://localhost:5000"));
        assert!(same_redirect("http://localhost/cb", "http://localhost:5000/cb"));
        assert!(!same_redirect("http://localhost/cb", "http://localhost:5000/other"));
        assert!(!same_redirect("https://app.example/cb", "https://app.example:444/cb"));
        assert!(!same_redirect("https://app.example/cb", "https://app.example/cb/"));
    }

    #[test]
    fn the_page_policy_takes_plain_origins_only() {
        assert_eq!(form_target("http://localhost:8400/x").as_deref(), Some("http://localhost:8400"));
        assert_eq!(form_target("https://a;b/"), None);
    }

    #[test]
    fn the_page_policy_names_the_scheme_of_an_application_on_the_device() {
        assert_eq!(form_target("app://callback").as_deref(), Some("app:"));
        assert_eq!(form_target("com.example.App+x://cb;/").as_deref(), Some("com.example.App+x:"));
        for bad in ["app;script-src *://x", "app", "a b://x"] {
            assert_eq!(form_target(bad), None, "{bad}");
        }
    }
}
