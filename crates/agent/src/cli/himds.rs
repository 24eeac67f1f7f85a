//! `himds`: the daemon's own flags.
//!
//! They are few, and the daemon runs on every machine for as long as it is up: so it does not build the command line
//! of `azcmagent`, whose code and tables would stay in its memory.

use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, ValueExt as _};

use super::surroundings::{Environment, Surroundings, runtime, told_to_stop};
use crate::onboard::{Failure, OnboardFault};
use crate::{AGENT_VERSION, AgentOptions, DEFAULT_ROOT};

const HEARTBEAT_SECONDS: u64 = 300;
const HEARTBEAT_SECONDS_MAX: u64 = 3600;

const USAGE: &str = "Usage: himds [OPTIONS]";
const HELP: &str = "\
The agent's service: answers http://localhost:40342 and tells the site that the machine is there.

Usage: himds [OPTIONS]

Options:
      --heartbeat-seconds <SECONDS>  Seconds between two heartbeats, 1 to 3600 [default: 300]
  -h, --help                         Print help
  -V, --version                      Print version

Examples:
  himds
  himds --heartbeat-seconds 60
";

/// What the daemon was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Help,
    Version,
    Run(Flags),
}

#[derive(Debug, PartialEq, Eq)]
struct Flags {
    /// Where the agent's files and its service are; other than usual only on a test bench.
    root: PathBuf,
    addresses: Vec<SocketAddr>,
    heartbeat_seconds: u64,
}

fn read(args: Vec<OsString>) -> Result<Asked, lexopt::Error> {
    let mut flags =
        Flags { root: DEFAULT_ROOT.into(), addresses: Vec::new(), heartbeat_seconds: HEARTBEAT_SECONDS };
    let mut parser = lexopt::Parser::from_iter(args);
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Short('h') | Arg::Long("help") => return Ok(Asked::Help),
            Arg::Short('V') | Arg::Long("version") => return Ok(Asked::Version),
            Arg::Long("root") => flags.root = parser.value()?.into(),
            Arg::Long("address") => flags.addresses.push(parser.value()?.parse()?),
            Arg::Long("heartbeat-seconds") => {
                flags.heartbeat_seconds = parser.value()?.parse_with(seconds)?
            }
            _ => return Err(arg.unexpected()),
        }
    }
    Ok(Asked::Run(flags))
}

fn seconds(text: &str) -> Result<u64, String> {
    let seconds = text.parse().ok().filter(|seconds| (1..=HEARTBEAT_SECONDS_MAX).contains(seconds));
    seconds.ok_or_else(|| format!("give a whole number from 1 to {HEARTBEAT_SECONDS_MAX}"))
}

impl Flags {
    fn options(&self, env: &Environment) -> Result<AgentOptions, OnboardFault> {
        let mut options = Surroundings::read(env).options(&self.root, &self.addresses)?;
        options.heartbeat_interval = Duration::from_secs(self.heartbeat_seconds);
        Ok(options)
    }
}

/// The daemon, until SIGTERM or SIGINT.
pub(super) fn run(args: Vec<OsString>, env: &Environment, out: &mut dyn Write, err: &mut dyn Write) -> i32 {
    let flags = match read(args) {
        Ok(Asked::Run(flags)) => flags,
        Ok(Asked::Help) => {
            let _ = write!(out, "{HELP}");
            return 0;
        }
        Ok(Asked::Version) => {
            let _ = writeln!(out, "himds {AGENT_VERSION}");
            return 0;
        }
        Err(fault) => {
            let _ = writeln!(err, "error: {fault}\n\n{USAGE}\n\nFor more information, try '--help'.");
            return 2;
        }
    };
    let outcome = flags.options(env).and_then(|options| {
        runtime()?.block_on(async {
            let stop =
                told_to_stop().map_err(|fault| OnboardFault::new(Failure::Internal, fault.to_string()))?;
            crate::run(options, stop).await.map_err(OnboardFault::from)
        })
    });
    match outcome {
        Ok(()) => 0,
        Err(fault) => {
            let _ = writeln!(err, "himds: {fault}");
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(flags: &[&str]) -> Result<Asked, String> {
        let all = ["himds"].iter().chain(flags).map(OsString::from).collect();
        read(all).map_err(|fault| fault.to_string())
    }

    #[test]
    fn flags_are_read_in_both_spellings() {
        let usual = Flags { root: DEFAULT_ROOT.into(), addresses: Vec::new(), heartbeat_seconds: 300 };
        assert_eq!(asked(&[]), Ok(Asked::Run(usual)));
        let given = Flags {
            root: "/x".into(),
            addresses: vec!["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()],
            heartbeat_seconds: 3600,
        };
        let flags = ["--root", "/x", "--address=127.0.0.1:1", "--address", "[::1]:2"];
        assert_eq!(asked(&[&flags[..], &["--heartbeat-seconds=3600"]].concat()), Ok(Asked::Run(given)));
        assert_eq!(asked(&["-h"]), Ok(Asked::Help));
        assert_eq!(asked(&["--root", "/x", "--version"]), Ok(Asked::Version));
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for (flags, said) in [
            (&["--rot", "/x"][..], "--rot"),
            (&["run"], "run"),
            (&["--root"], "--root"),
            (&["--address", "here"], "here"),
            (&["--heartbeat-seconds", "0"], "from 1 to 3600"),
            (&["--heartbeat-seconds", "3601"], "from 1 to 3600"),
            (&["--heartbeat-seconds", "-1"], "from 1 to 3600"),
        ] {
            let told = asked(flags).unwrap_err();
            assert!(told.contains(said), "{flags:?}: {told}");
        }
    }

    #[test]
    fn the_end_of_a_run_is_told_by_its_code() {
        let ran = |flags: &[&str]| {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let all = ["himds"].iter().chain(flags).map(OsString::from).collect();
            let code = run(all, &|_| None, &mut out, &mut err);
            (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
        };
        assert_eq!(ran(&["--help"]), (0, HELP.to_owned(), String::new()));
        assert_eq!(ran(&["-V"]), (0, format!("himds {AGENT_VERSION}\n"), String::new()));
        let (code, out, err) = ran(&["--nothing"]);
        assert_eq!((code, out.as_str()), (2, ""));
        assert!(err.contains("--nothing") && err.contains(USAGE), "{err}");
        // Not a loopback address, so it does not start.
        let (code, _, err) = ran(&["--address", "192.0.2.1:1", "--root", "/proc/none"]);
        assert_eq!(code, 1, "{err}");
        assert!(err.starts_with("himds: "), "{err}");
    }
}
