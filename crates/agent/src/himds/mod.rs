//! The Hybrid Instance Metadata Service: Azure's metadata protocol, with Arc's challenge before a token.
//!
//! | path | what | open to |
//! |---|---|---|
//! | `/metadata/instance[/...]` | the machine in the cloud's words | every local process |
//! | `/metadata/versions` | api-versions | every local process |
//! | `/metadata/identity/info` | the tenant | every local process |
//! | `/metadata/identity/oauth2/token` | an access token | who can read a challenge file |
//! | `/agentstatus` | how the connection is | every local process |

mod ask;
mod caller;
#[cfg(test)]
mod fuzz;
mod instance;
mod limit;
mod reply;
mod token;

use http::request::Parts;
use http::{HeaderMap, Method, header};

use crate::daemon::Core;
pub(crate) use caller::LocalCaller;
pub(crate) use limit::Limiter;
use reply::{Answer, Refused};

/// Which group of paths a request is for; groups differ in limits and in the form of their errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Area {
    Metadata,
    Identity,
    Status,
}

/// Answers one request, whose body nothing asks for. Never fails: what cannot be served is refused in the protocol's
/// words.
pub(crate) async fn answer(core: &Core, caller: &LocalCaller, head: &Parts) -> Answer {
    let path = arcadia_kernel::split_path(head.uri.path());
    let segments: Vec<&str> = path.iter().flatten().map(String::as_str).collect();
    let area = area(&segments);
    let asked = Asked { core, caller, head, area };
    match route(&asked, &segments, path.is_some()).await {
        Ok(answer) => answer,
        Err(refused) => refused.render(core, area),
    }
}

fn area(segments: &[&str]) -> Area {
    let is =
        |index: usize, name: &str| segments.get(index).is_some_and(|found| found.eq_ignore_ascii_case(name));
    match segments {
        [_] if is(0, "agentstatus") => Area::Status,
        _ if is(0, "metadata") && is(1, "identity") => Area::Identity,
        _ => Area::Metadata,
    }
}

/// A request, who asks it, and of whom.
struct Asked<'a> {
    core: &'a Core,
    caller: &'a LocalCaller,
    head: &'a Parts,
    area: Area,
}

impl Asked<'_> {
    /// Takes one request of what local processes may ask. What is refused before, such as what a web page makes a
    /// browser ask, takes nothing from anybody.
    fn count(&self) -> Result<(), Refused> {
        self.core.limiter.check(self.area, self.caller)
    }
}

async fn route(asked: &Asked<'_>, segments: &[&str], path_is_sound: bool) -> Result<Answer, Refused> {
    let Asked { core, head, area, .. } = *asked;
    check_origin(&head.headers)?;
    if head.method != Method::GET {
        return Err(Refused::method());
    }
    if !path_is_sound {
        return Err(Refused::not_found());
    }
    if area == Area::Status {
        asked.count()?;
        let current = core.links.current().map_err(|fault| Refused::unavailable(&fault))?;
        return reply::json(&core.health.status(current.config.as_deref()));
    }
    check_metadata(&head.headers)?;
    let fields = ask::fields(head.uri.query().unwrap_or(""), &core.options.limits)?;
    let lower: Vec<String> = segments.iter().take(4).map(|segment| segment.to_ascii_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    let is_token = lower == ["metadata", "identity", "oauth2", "token"] && segments.len() == 4;
    if !is_token {
        asked.count()?;
    }
    match lower.as_slice() {
        ["metadata", "instance", ..] => {
            ask::api_version(&fields, area)?;
            instance::answer(core, &segments[2..], &fields)
        }
        ["metadata", "versions"] if segments.len() == 2 => instance::versions(),
        ["metadata", "identity", "info"] if segments.len() == 3 => {
            ask::api_version(&fields, area)?;
            token::info(core)
        }
        _ if is_token => token::answer(asked, &fields).await,
        _ => Err(Refused::not_found()),
    }
}

/// Only for processes of this machine that speak to it directly: no forwarder, and no web page whose name was made
/// to lead here.
fn check_origin(headers: &HeaderMap) -> Result<(), Refused> {
    if headers.contains_key("x-forwarded-for") {
        return Err(Refused::bad_request("Requests that carry an X-Forwarded-For header are not served."));
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    // One that is no text is another host and not a missing one.
    let host = hosts.next().map_or(Some(""), |host| host.to_str().ok());
    if hosts.next().is_some() || !host.is_some_and(is_loopback_host) {
        return Err(Refused::bad_request("Use localhost, 127.0.0.1 or [::1] as the host."));
    }
    Ok(())
}

/// HTTP/1.0 clients may send no host at all.
fn is_loopback_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').unwrap_or((rest, "]")),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let port_fits = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    let is_loopback = name.trim_end_matches('.').eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    host.is_empty() || (is_loopback && port_fits)
}

fn check_metadata(headers: &HeaderMap) -> Result<(), Refused> {
    let mut values = headers.get_all("metadata").iter();
    let first = values.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    if first && values.next().is_none() {
        Ok(())
    } else {
        Err(Refused::bad_request("Required metadata header not specified"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for host in
            ["localhost:40342", "LOCALHOST", "127.0.0.1:40342", "[::1]:40342", "127.0.0.2", "", "localhost."]
        {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in [
            "evil.example.net",
            "localhost.evil.net",
            "127.0.0.1.nip.example",
            "169.254.169.254",
            "[::2]",
            "[",
            "[::1",
            "[::1]x",
            "[::1]40342",
            "localhost:40342/x",
            "0.0.0.0",
        ] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    #[test]
    fn a_host_that_is_no_text_is_not_a_missing_one() {
        let of = |host: &[u8]| {
            HeaderMap::from_iter([(header::HOST, http::HeaderValue::from_bytes(host).unwrap())])
        };
        assert!(check_origin(&HeaderMap::new()).is_ok() && check_origin(&of(b"localhost")).is_ok());
        assert!(check_origin(&of(b"127.0.0.\xb5")).is_err());
        let mut two = of(b"localhost");
        two.append(header::HOST, http::HeaderValue::from_static("localhost"));
        assert!(check_origin(&two).is_err());
    }

    #[test]
    fn areas() {
        assert_eq!(area(&["AgentStatus"]), Area::Status);
        assert_eq!(area(&["metadata", "Identity", "oauth2", "token"]), Area::Identity);
        assert_eq!(area(&["metadata", "instance"]), Area::Metadata);
        assert_eq!(area(&[]), Area::Metadata);
    }
}
