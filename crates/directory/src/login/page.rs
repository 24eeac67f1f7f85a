//! The frame of every page, and its safe words.

use std::fmt::Write as _;

use arcadia_kernel::{EntropyExt as _, Fault, HeaderName, HeaderValue, Reply, StatusCode, header};

use crate::directory::Directory;
use crate::login::ticket::Browser;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:0;background:#f3f4f6;color:#111}\
    main{max-width:26rem;margin:10vh auto;background:#fff;padding:2rem;border:1px solid #d5d8dd;border-radius:6px}\
    h1{font-size:1.3rem;margin:0 0 1rem}label{display:block;margin:.8rem 0 .2rem}\
    input,textarea{font:inherit;width:100%;box-sizing:border-box;padding:.5rem;border:1px solid #8a9099;\
    border-radius:4px}button{font:inherit;margin:1.2rem .5rem 0 0;padding:.5rem 1.2rem;border:0;border-radius:4px;\
    background:#0b5cad;color:#fff}button.plain{background:#e3e6ea;color:#111}.error{color:#a4001d}\
    .code{font:1.1rem ui-monospace,monospace;letter-spacing:.1em}pre{white-space:pre-wrap;overflow-wrap:anywhere;\
    background:#f3f4f6;padding:.8rem}.wide{max-width:60rem}.small{font-size:.85rem;color:#4a4f57}";

/// Text as it may stand in HTML, inside and outside quotation marks.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A page under construction.
pub(crate) struct Page<'a> {
    pub status: StatusCode,
    pub title: &'a str,
    /// HTML; whatever a stranger sent must be escaped.
    pub body: String,
    pub script: Option<&'static str>,
    /// Where forms may lead besides this site.
    pub form_target: Option<String>,
    pub wide: bool,
}

impl<'a> Page<'a> {
    pub(crate) fn new(title: &'a str, body: String) -> Self {
        Self { status: StatusCode::OK, title, body, script: None, form_target: None, wide: false }
    }

    pub(crate) fn render(self, directory: &Directory, browser: Option<&Browser>) -> Result<Reply, Fault> {
        let nonce = directory.entropy.token(16);
        let mut html = format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>{}</title>\
             <style nonce=\"{nonce}\">{STYLE}</style></head><body><main{}><h1>{}</h1>{}</main>",
            escape(self.title),
            if self.wide { " class=\"wide\"" } else { "" },
            escape(self.title),
            self.body
        );
        if let Some(script) = self.script {
            let _ = write!(html, "<script nonce=\"{nonce}\">{script}</script>");
        }
        html.push_str("</body></html>");
        let target = self.form_target.map(|target| format!(" {target}")).unwrap_or_default();
        let policy = format!(
            "default-src 'none'; connect-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; \
             form-action 'self'{target}; frame-ancestors 'none'; base-uri 'none'"
        );
        let mut reply = Reply::bytes(self.status, "text/html; charset=utf-8", html)
            .with_text(header::CONTENT_SECURITY_POLICY, &policy)?
            .with(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"))
            .with(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"))
            .with(
                HeaderName::from_static("cross-origin-opener-policy"),
                HeaderValue::from_static("same-origin"),
            );
        if let Some(cookie) = browser.and_then(Browser::set_cookie) {
            reply = reply.with_text(header::SET_COOKIE, &cookie)?;
        }
        Ok(reply)
    }
}

/// What went wrong, above a form.
pub(crate) fn error_line(error: Option<&str>) -> String {
    error.map(|error| format!("<p class=\"error\" role=\"alert\">{}</p>", escape(error))).unwrap_or_default()
}

/// A form with user name and password. `action` is empty for the page's own address.
pub(crate) fn sign_in_form(
    action: &str,
    ticket: &str,
    purpose: &str,
    user: &str,
    error: Option<&str>,
) -> String {
    let action = if action.is_empty() { String::new() } else { format!(" action=\"{}\"", escape(action)) };
    format!(
        "<p>{}</p>{}<form method=\"post\"{action}><input type=\"hidden\" name=\"ticket\" value=\"{}\">\
         <label for=\"u\">User name</label><input id=\"u\" name=\"username\" autocomplete=\"username\" \
         value=\"{}\" required maxlength=\"320\" autofocus><label for=\"p\">Password</label>\
         <input id=\"p\" name=\"password\" type=\"password\" autocomplete=\"current-password\" required \
         maxlength=\"256\"><button type=\"submit\">Sign in</button></form>",
        escape(purpose),
        error_line(error),
        escape(ticket),
        escape(user),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_stranger_sends_is_markup() {
        assert_eq!(escape("<script>\"'&"), "&lt;script&gt;&quot;&#39;&amp;");
        let form = sign_in_form("/\"><x", "t", "<b>", "\"><script>", Some("<i>"));
        assert!(!form.contains("<script>") && !form.contains("<b>") && !form.contains("<i>"));
        assert!(!form.contains("\"><x"));
    }
}
