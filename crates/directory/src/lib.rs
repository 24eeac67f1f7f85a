//! The directory: Microsoft Entra ID and the part of Microsoft Graph that Azure's clients call.
//!
//! [`Directory`] holds tenants, people, groups, applications, service principals and their credentials in the
//! store, and all that a decision needs in memory. Two services stand in front of it: [`login::Login`] issues
//! tokens (OAuth 2.0, OpenID Connect), [`graph::Graph`] shows and changes the directory.
//!
//! Secrets are kept as hashes only. A principal that is disabled or deleted gets no token and passes no
//! decision from the same commit on.

mod actions;
mod decide;
mod directory;
mod founding;
pub mod graph;
mod identity;
pub mod login;
mod model;
mod names;
mod secret;
mod snapshot;
mod sweep;
mod throttle;

pub use actions::*;
pub use directory::{Directory, DirectoryNames, PrincipalFacts};
pub use founding::{Founded, Founding};

pub use graph::{Graph, graph_ops};
pub use identity::{ManagedIdentity, ManagedIdentitySpec};
pub use login::{Login, login_ops};
pub use model::{AZURE_CLI_APP_ID, GLOBAL_ADMINISTRATOR, Tenant};
pub use secret::new_password;
