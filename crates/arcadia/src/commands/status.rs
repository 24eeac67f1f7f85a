//! `arcadia status`

use std::fmt::Display;
use std::process::ExitCode;

use arcadia_kernel::Clock as _;
use arcadia_postgres::logs_of_waiting;
use clap::Args;
use serde_json::json;

use crate::host::SystemClock;
use crate::site::{DataDir, Running, SiteRecord, State, Trouble, authority_notice};
use crate::terminal::{BOLD, RESET, say};

/// Show whether a site runs, where, and what it answers for
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  arcadia status\n  arcadia status --json | jq -r .state\n\n\
                        Exits with 0 when the site is running and can answer, else with 1.")]
pub struct Arguments {
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(data: &DataDir, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let state = Running::state(data)?;
    // One that cannot be read is told by the command that starts it.
    let is_absent =
        matches!(state, State::Stopped) && SiteRecord::load(data).is_ok_and(|record| record.is_none());
    let notice = authority_notice(data, SystemClock.now());
    let missing = match &state {
        // Not everything is there yet.
        State::Changing(_) => Vec::new(),
        _ => data.missing(),
    };
    let trouble = match &state {
        State::Running(running) => Trouble::of(data, running.pid)?,
        State::Stopped => Trouble::last(data)?,
        State::Changing(_) => None,
    };
    if arguments.json {
        let mut described = describe(data, &state);
        if is_absent {
            described["state"] = "absent".into();
        } else {
            described["caFile"] = data.ca_file().display().to_string().into();
        }
        if let Some(notice) = &notice {
            described["authority"] = notice.clone().into();
        }
        if !missing.is_empty() {
            described["missing"] = json!(missing);
        }
        if let Some(trouble) = &trouble {
            described["trouble"] = json!({
                "since": trouble.since, "reason": trouble.reason, "lasting": trouble.lasting,
            });
        }
        say(serde_json::to_string_pretty(&described)?);
    } else {
        if is_absent {
            say(format!("{BOLD}absent{RESET}: there is no site in {}", data.path().display()));
            row("make it", format!("arcadia up --detach{}", data.option()));
        } else {
            show(data, &state);
        }
        if let Some(notice) = &notice {
            say(notice);
        }
        for path in &missing {
            say(format!(
                "{BOLD}missing{RESET} {}: the site does not start without it; put it back from a backup",
                path.display()
            ));
        }
        if let Some(trouble) = &trouble {
            let what = match (&state, trouble.lasting) {
                (State::Stopped, _) => "ended in trouble",
                (_, true) => "answers nothing since",
                (_, false) => "cannot write since",
            };
            say(format!("{BOLD}{what}{RESET} {}: {}", trouble.since, trouble.reason));
        }
    }
    let well = matches!(state, State::Running(_)) && trouble.is_none();
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn describe(data: &DataDir, state: &State) -> serde_json::Value {
    let directory = data.path().display().to_string();
    match state {
        State::Running(running) => {
            let names: Vec<_> = running
                .names
                .iter()
                .map(|(name, service)| json!({ "name": name, "service": service }))
                .collect();
            json!({
                "state": "running",
                "pid": running.pid,
                "version": running.version,
                "startedAt": running.started_at,
                "addresses": addresses(running),
                "databasesNotReady": logs_of_waiting(&data.postgres_folder()),
                "offline": running.offline,
                "names": names,
                "dataDirectory": directory,
            })
        }
        State::Changing(pid) => json!({
            "state": "changing",
            "pid": pid,
            "version": crate::VERSION,
            "addresses": {},
            "names": [],
            "dataDirectory": directory,
        }),
        State::Stopped => json!({
            "state": "stopped",
            "pid": null,
            "version": crate::VERSION,
            "addresses": {},
            "names": [],
            "dataDirectory": directory,
        }),
    }
}

fn addresses(running: &Running) -> serde_json::Value {
    let mut addresses = json!({
        "proxy": format!("http://{}", running.proxy),
        "proxySocket": running.proxy_socket,
    });
    if let Some(listen) = running.listen {
        addresses["listen"] = listen.to_string().into();
    }
    if let Some(databases) = running.postgres {
        addresses["databases"] = databases.to_string().into();
    }
    addresses
}

fn show(data: &DataDir, state: &State) {
    let directory = data.path().display();
    match state {
        State::Running(running) => {
            say(format!("{BOLD}running{RESET}, pid {}, Arcadia {}", running.pid, running.version));
            row("data", directory);
            let offline = if running.offline { " (offline)" } else { "" };
            row("proxy", format!("http://{}{offline}", running.proxy));
            if let Some(listen) = running.listen {
                row("listen", listen);
            }
            if let Some(databases) = running.postgres {
                row("databases", databases);
            }
            for log in logs_of_waiting(&data.postgres_folder()) {
                row("", format!("a database server is not ready; {} says why", log.display()));
            }
            row("socket", running.proxy_socket.display());
            row("roots", data.ca_file().display());
            row("since", running.started_at);
            for (name, service) in &running.names {
                row("serves", format!("{name:<28} {service}"));
            }
        }
        State::Changing(pid) => {
            let pid = pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
            say(format!("{BOLD}starting or stopping{RESET}{pid}"));
            row("data", directory);
        }
        State::Stopped => {
            say(format!("{BOLD}stopped{RESET}"));
            row("data", directory);
            row("roots", data.ca_file().display());
            row("start it", format!("arcadia up --detach{}", data.option()));
        }
    }
}

fn row(label: &str, value: impl Display) {
    say(format!("  {label:<9} {value}"));
}
