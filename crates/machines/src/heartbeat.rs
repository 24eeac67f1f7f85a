//! When a machine was last heard of, and what that makes of its status.

use std::time::Duration;

use arcadia_kernel::ArmId;
use arcadia_store::{Record, Table};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A machine is `Disconnected` after this long without a heartbeat (agents send one every five minutes).
const DISCONNECTED_AFTER_SECONDS: i64 = 15 * 60;
/// A machine is `Expired` after this long, and must be connected anew.
const EXPIRED_AFTER_SECONDS: i64 = 45 * 24 * 3600;

pub const HEARTBEATS: Table<ArmId, Heartbeat> = Table::new("machines/heartbeat");

/// The last word from a machine. Keyed by the machine's resource identifier.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Heartbeat {
    pub machine: ArmId,
    pub at: Timestamp,
    /// Since when the machine has been heard of without a gap.
    pub connected_since: Timestamp,
    pub agent_version: Option<String>,
    pub os_name: Option<String>,
    pub os_version: Option<String>,
    pub machine_fqdn: Option<String>,
}

impl Record for Heartbeat {}

/// What clients see as `status` and `lastStatusChange`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub name: &'static str,
    pub since: Timestamp,
}

impl Heartbeat {
    pub(crate) fn is_connected(&self, now: Timestamp) -> bool {
        self.silence_seconds(now) <= DISCONNECTED_AFTER_SECONDS
    }

    pub(crate) fn status(&self, now: Timestamp) -> Status {
        let silence = self.silence_seconds(now);
        let after =
            |seconds: i64| self.at.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(self.at);
        if silence > EXPIRED_AFTER_SECONDS {
            Status { name: "Expired", since: after(EXPIRED_AFTER_SECONDS) }
        } else if silence > DISCONNECTED_AFTER_SECONDS {
            Status { name: "Disconnected", since: after(DISCONNECTED_AFTER_SECONDS) }
        } else {
            Status { name: "Connected", since: self.connected_since }
        }
    }

    /// Whether the machine comes back by being connected anew alone. Just after a time in which the site heard nobody, it
    /// comes back by itself.
    pub(crate) fn is_lapsed(&self, listening_since: Timestamp, now: Timestamp) -> bool {
        let listened = now.as_second().saturating_sub(listening_since.as_second());
        self.silence_seconds(now) > EXPIRED_AFTER_SECONDS && listened > DISCONNECTED_AFTER_SECONDS
    }

    fn silence_seconds(&self, now: Timestamp) -> i64 {
        now.as_second().saturating_sub(self.at.as_second())
    }
}

/// Since when the site could be told something: its start, or the moment from which it was awake again.
pub(crate) struct Listening {
    since: Timestamp,
    seen: (Timestamp, Duration),
}

impl Listening {
    /// `awake` is [`arcadia_kernel::Clock::awake`].
    pub fn from(now: Timestamp, awake: Duration) -> Self {
        Self { since: now, seen: (now, awake) }
    }

    pub fn since(&mut self, now: Timestamp, awake: Duration) -> Timestamp {
        let passed = now.as_second().saturating_sub(self.seen.0.as_second());
        let slept = passed.saturating_sub_unsigned(awake.saturating_sub(self.seen.1).as_secs());
        self.seen = (now, awake);
        if slept > DISCONNECTED_AFTER_SECONDS {
            self.since = now;
        }
        self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn silence_makes_a_machine_disconnected_and_then_expired() {
        let heartbeat = Heartbeat {
            machine: ArmId::root(),
            at: at(1000),
            connected_since: at(10),
            agent_version: None,
            os_name: None,
            os_version: None,
            machine_fqdn: None,
        };
        let status = |now| heartbeat.status(at(now));
        assert_eq!(status(1000), Status { name: "Connected", since: at(10) });
        assert_eq!(status(1000 + 900).name, "Connected");
        assert_eq!(status(1000 + 901), Status { name: "Disconnected", since: at(1900) });
        let expiry = 1000 + EXPIRED_AFTER_SECONDS;
        assert_eq!(status(expiry + 1), Status { name: "Expired", since: at(expiry) });
        assert!(!heartbeat.is_lapsed(at(1000), at(expiry)));
        assert!(heartbeat.is_lapsed(at(1000), at(expiry + 1)));
        let began = expiry + 5000;
        assert!(!heartbeat.is_lapsed(at(began), at(began + 900)), "the site was off");
        assert!(heartbeat.is_lapsed(at(began), at(began + 901)));
    }
}
