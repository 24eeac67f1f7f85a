//! Failures by the numbers that scripts know.

use arcadia_client::ClientFault;

use crate::AgentFault;

/// `AZCM0016` and its kin; the number is also the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Default = 1,
    Internal = 2,
    Unsupported = 3,
    BadAccessToken = 12,
    MissingParameter = 16,
    NotRoot = 18,
    ConfigFile = 19,
    UnknownRegion = 20,
    BadArguments = 23,
    Network = 26,
    NoToken = 41,
    CreateFailed = 42,
    DeleteFailed = 43,
    AlreadyExists = 44,
    AlreadyConnected = 67,
    SubscriptionLookup = 68,
    LocalState = 69,
    IdentityRefused = 81,
}

impl Failure {
    pub fn exit_code(self) -> i32 {
        self as i32
    }

    /// `AZCM0016`.
    pub fn code(self) -> String {
        format!("AZCM{:04}", self as i32)
    }
}

/// A command that could not be done, in words for the person who gave it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct OnboardFault {
    pub failure: Failure,
    pub message: String,
}

impl OnboardFault {
    pub fn new(failure: Failure, message: impl Into<String>) -> Self {
        Self { failure, message: message.into() }
    }

    /// A call to the site that failed: `refused` when the site said no, else the network is to blame.
    pub(crate) fn site(refused: Failure, doing: &str, fault: &ClientFault) -> Self {
        let failure = match fault {
            ClientFault::Refused(_) => refused,
            ClientFault::Unreachable { .. }
            | ClientFault::Proxy { .. }
            | ClientFault::Tls { .. }
            | ClientFault::Timeout { .. }
            | ClientFault::Broken { .. } => Failure::Network,
            ClientFault::Options(_) | ClientFault::Url(_) => Failure::BadArguments,
            _ => refused,
        };
        Self::new(failure, format!("{doing}: {fault}"))
    }
}

impl From<AgentFault> for OnboardFault {
    fn from(fault: AgentFault) -> Self {
        let denied = fault.is_denied();
        let failure = match &fault {
            _ if denied => Failure::NotRoot,
            AgentFault::Client(_) => Failure::BadArguments,
            AgentFault::File { .. } | AgentFault::Content { .. } => Failure::LocalState,
            _ => Failure::Internal,
        };
        let hint = if denied { "; run the command as root" } else { "" };
        Self::new(failure, format!("{fault}{hint}"))
    }
}
