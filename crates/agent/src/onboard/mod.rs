//! Becoming a machine of the site, ceasing to be one, and saying which one this is.
//!
//! What the command line does, without the command line: nothing here prints; progress is told to a [`Listener`].

mod arm;
mod connect;
mod disconnect;
mod fault;
mod show;
mod sign_in;

pub use connect::{ConnectRequest, Connected, Service, connect};
pub use disconnect::{DisconnectRequest, Disconnected, disconnect};
pub use fault::{Failure, OnboardFault};
pub use show::{Field, show};
pub use sign_in::SignIn;

/// What happens while a command works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Info(String),
    Warning(String),
    /// Percent of the way.
    Progress(u8),
}

/// Who is told.
pub type Listener<'a> = dyn FnMut(Event) + Send + 'a;
