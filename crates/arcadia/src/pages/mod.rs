//! Names of others that lead to pages of the site.

use std::borrow::Cow;
use std::sync::Arc;

use arcadia_kernel::{
    ArmId, At, AuthFailure, Caller, Denial, Fault, Located, Method, Op, OpInfo, Open, Permit, Reply,
    RequestHead, Service, StatusCode, header, public,
};

/// Answers as jwt.ms, where the walk-through sends people with their tokens, by sending them on to the page of
/// this site that decodes a token in the browser. Browsers keep the fragment, in which a token may be.
pub struct Pages {
    decode_page: String,
}

impl Pages {
    pub fn new(decode_page: String) -> Arc<Self> {
        Arc::new(Self { decode_page })
    }
}

pub fn page_ops() -> Vec<Op<Pages>> {
    vec![public(
        "TokenPage",
        Method::GET,
        "/",
        "it leads to a static page that sends a token nowhere",
        token_page,
    )]
}

async fn token_page(at: At<Pages>, _: Permit<Open>, (): ()) -> Result<Reply, Fault> {
    Reply::empty(StatusCode::FOUND).with_text(header::LOCATION, &at.decode_page)
}

const NO_SUCH_PAGE: &str = "There is no such page here; the token page is at /.";

impl Service for Pages {
    type Target = ();
    const NAME: &'static str = "pages";

    fn audiences(&self, _: &RequestHead) -> Vec<Cow<'_, str>> {
        Vec::new()
    }

    fn locate(&self, _: &OpInfo, _: &RequestHead) -> Result<Located<()>, Fault> {
        Ok(Located { scope: ArmId::root(), target: () })
    }

    fn challenge(&self, _: &RequestHead, _: &AuthFailure) -> Fault {
        // No row asks for a token, so only paths that do not exist come here.
        Fault::not_found("NotFound", NO_SUCH_PAGE)
    }

    fn refuse(&self, _: &RequestHead, _: &Caller, _: &Denial) -> Fault {
        Fault::not_found("NotFound", NO_SUCH_PAGE)
    }

    fn no_such_operation(&self, _: &RequestHead, _: bool) -> Fault {
        Fault::not_found("NotFound", NO_SUCH_PAGE)
    }

    fn render(&self, _: &RequestHead, fault: &Fault) -> Reply {
        Reply::bytes(fault.status, "text/plain; charset=utf-8", format!("{}\n", fault.message))
    }

    fn finish(&self, _: &RequestHead, _: &mut Reply) {}
}

/// Answers for the names below an own domain that lead to no service, such as those of the cloud's metadata that are
/// not served: clients are told in words, instead of by a connection that fails.
pub struct Unserved {
    domain: String,
}

impl Unserved {
    pub fn new(domain: &str) -> Arc<Self> {
        Arc::new(Self { domain: domain.to_owned() })
    }

    fn told(&self, head: &RequestHead) -> Fault {
        let message = format!(
            "This site does not serve {}. It serves login.{domain}, management.{domain} and graph.{domain}, and \
             what they name; `arcadia status` lists all names.",
            head.host,
            domain = self.domain
        );
        Fault::not_found("ServiceNotServed", message)
    }
}

impl Service for Unserved {
    type Target = ();
    const NAME: &'static str = "unserved";

    fn audiences(&self, _: &RequestHead) -> Vec<Cow<'_, str>> {
        Vec::new()
    }

    fn locate(&self, _: &OpInfo, _: &RequestHead) -> Result<Located<()>, Fault> {
        Ok(Located { scope: ArmId::root(), target: () })
    }

    fn challenge(&self, head: &RequestHead, _: &AuthFailure) -> Fault {
        // There is nothing here that a token could open.
        self.told(head)
    }

    fn refuse(&self, head: &RequestHead, _: &Caller, _: &Denial) -> Fault {
        self.told(head)
    }

    fn no_such_operation(&self, head: &RequestHead, _: bool) -> Fault {
        self.told(head)
    }

    fn render(&self, _: &RequestHead, fault: &Fault) -> Reply {
        let body = serde_json::json!({ "error": { "code": fault.code, "message": fault.message } });
        Reply::bytes(fault.status, "application/json; charset=utf-8", body.to_string())
    }

    fn finish(&self, _: &RequestHead, _: &mut Reply) {}
}
