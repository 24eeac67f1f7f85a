//! How a site is reached: a CONNECT proxy that answers for the names the site serves, with certificates of the
//! site's own authority, and carries everything else through.

mod activity;
mod authority;
mod bodies;
mod body;
mod databases;
mod drain;
#[cfg(test)]
mod fuzz;
mod hosts;
mod http_connection;
mod limits;
mod listen;
mod lookups;
mod outside;
mod proxy;
mod public_address;
mod request_head;
mod stream;
mod tls;
mod upstream;

pub use authority::create_authority;
pub use databases::{DATABASE_PORT, FIRST_DATABASE_ADDRESS, bind_databases, serve_databases};
pub use drain::{Drain, Drainer};
pub use hosts::{HostTable, fold_host, withheld};
pub use limits::Limits;
pub use listen::{bind_loopback, bind_tcp, bind_unix, serve_tcp, serve_tls, serve_unix};
pub use outside::Outside;
pub use proxy::Proxy;
pub use tls::SiteTls;
pub use upstream::Upstream;

#[cfg(test)]
mod tests;
