//! A small HTTPS client of the public wire, for the command line, the agent and tests: never a back door.
//!
//! It reaches a site as any other client does: through an HTTPS proxy's CONNECT or directly, with the system's
//! roots and the site's certificate, and with bearer tokens. There is no way to switch verification off. Every
//! wait and every body has a bound. Redirects are not followed.
//!
//! [`Client`] sends a [`Call`] and returns an [`Answer`]; [`OAuth`] gets tokens from the directory; [`Endpoints`]
//! names the services. Nothing here reads the environment: what it holds is handed in with [`ClientOptions`].

mod answer;
mod assertion;
mod call;
mod client;
mod connect;
mod endpoints;
mod fault;
#[cfg(test)]
mod fuzz;
mod oauth;
mod origin;
mod pool;
mod proxy;
mod tls;
mod tunnel;

pub use answer::Answer;
pub use assertion::AssertionKey;
pub use call::{Call, form_encode};
pub use client::{Client, ClientOptions, DEFAULT_BODY_BYTES_MAX};
pub use endpoints::{AZ_CLIENT_ID, Endpoints};
pub use fault::{ClientFault, Refusal};
pub use oauth::{Ask, DeviceCode, DevicePoll, OAuth, Token};
pub use proxy::{NoProxy, Proxy};

pub use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
