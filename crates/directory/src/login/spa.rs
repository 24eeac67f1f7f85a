//! Applications in a browser that redeem their codes themselves. A page is let read an answer of another site only when
//! the answer names the page's origin (Fetch standard, CORS protocol).

use arcadia_kernel::{Fault, HeaderValue, Query, Reply, RequestHead, header};

use crate::login::client::Client;
use crate::login::redirect::{form_target, loopback, same_redirect};

/// The page that may read the answer at the token endpoint, whether it is a token or an error.
pub(super) struct SpaOrigin(HeaderValue);

impl SpaOrigin {
    /// Only for what such a page redeems: the codes that were sent to it, and refresh tokens.
    pub(super) fn of(client: &Client, fields: &Query, head: &RequestHead) -> Option<Self> {
        let origin = head.header(&header::ORIGIN)?;
        let mut pages = client.application.as_ref()?.redirect_uris("spa").filter(|uri| is_at(uri, origin));
        let may_read = match fields.first("grant_type")? {
            "authorization_code" => {
                let sent_to = fields.first("redirect_uri")?;
                pages.any(|page| same_redirect(page, sent_to))
            }
            "refresh_token" => pages.next().is_some(),
            _ => false,
        };
        may_read.then(|| HeaderValue::from_str(origin).ok().map(Self)).flatten()
    }

    pub(super) fn name_in(self, answer: Result<Reply, Fault>) -> Result<Reply, Fault> {
        let vary = HeaderValue::from_static("Origin");
        let name = header::ACCESS_CONTROL_ALLOW_ORIGIN;
        match answer {
            Ok(reply) => Ok(reply.with(name, self.0).with(header::VARY, vary)),
            Err(fault) => Err(fault.header(name, self.0).header(header::VARY, vary)),
        }
    }
}

/// Whether the registered address is of this origin. As with redirects, the port of loopback addresses is free.
fn is_at(registered: &str, origin: &str) -> bool {
    let host = |text: &str| loopback(text).map(|(host, _)| host);
    match (host(registered), host(origin)) {
        (Some(registered), Some(asked)) => registered == asked,
        _ => form_target(registered).is_some_and(|target| target.eq_ignore_ascii_case(origin)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pages_own_origin_may_read() {
        for good in ["https://app.example", "https://APP.example"] {
            assert!(is_at("https://app.example/cb?x=y", good), "{good}");
        }
        for bad in [
            "http://app.example",
            "https://app.example:444",
            "https://app.example.evil.example",
            "https://evil.example",
            "https://app.example/",
            "null",
            "*",
            "",
        ] {
            assert!(!is_at("https://app.example/cb", bad), "{bad}");
        }
        assert!(is_at("http://localhost/cb", "http://localhost:5173"));
        assert!(!is_at("http://localhost/cb", "http://127.0.0.1:5173"));
        assert!(!is_at("app://x", "null"));
    }
}
