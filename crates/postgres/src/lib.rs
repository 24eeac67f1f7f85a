//! Azure Database for PostgreSQL, single server and flexible server: a real PostgreSQL behind each resource, and one
//! TLS gateway in front of all of them.
//!
//! [`Postgres`] holds what both sides share. The kinds ([`kinds`]) are declared to the resource manager and are
//! asynchronous: a PUT is committed, and the server, database or role is made in the background. A server runs as
//! an unprivileged user in a directory of its own, listens on a Unix socket only, and is started again after a
//! crash. Clients reach it through the [`Gateway`], which finds the server by SNI or by the `user@server` suffix,
//! enforces TLS and the firewall rules, and passes SCRAM through; a directory token takes the place of a password
//! for the principals that are a server's administrators.

mod cluster;
mod fault;
mod gateway;
mod kinds;
mod names;
mod postgres;
mod records;
mod scram;
mod snapshot;

pub use cluster::{Account, Installation, Place, RunningCopy, ServerData, give, logs_of_waiting};
pub use fault::ServerFault;
pub use gateway::{Gateway, Trust};
pub use kinds::kinds;
pub use names::PostgresNames;
pub use postgres::Postgres;
