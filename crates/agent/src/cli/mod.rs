//! The command line: `azcmagent`, and `himds` when called by that name.

mod args;
mod config_file;
#[cfg(test)]
mod fuzz;
mod himds;
mod surroundings;
mod voice;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use serde_json::{Map, Value, json};

use crate::onboard::{self, Disconnected, Failure, OnboardFault, Service};
use crate::{AGENT_VERSION, AgentOptions};
use args::{Azcmagent, Command, Common};
pub use surroundings::Environment;
use surroundings::{Surroundings, runtime};
use voice::Voice;

/// Runs the command line and returns its exit code. `args` starts with the name it was called by: `himds` is the
/// daemon, anything else `azcmagent`. Must not be called on a thread of an asynchronous runtime.
pub fn azcmagent(args: Vec<OsString>, env: &Environment) -> i32 {
    azcmagent_to(args, env, &mut std::io::stdout(), &mut std::io::stderr())
}

/// [`azcmagent`] with its output streams handed in.
pub fn azcmagent_to(
    args: Vec<OsString>,
    env: &Environment,
    out: &mut (dyn Write + Send),
    err: &mut (dyn Write + Send),
) -> i32 {
    let called = args.first().map(|name| Path::new(name).file_name().unwrap_or(name).to_owned());
    if called.is_some_and(|name| name == "himds") {
        return himds::run(args, env, out, err);
    }
    let parsed = config_file::expand(args).and_then(|args| match Azcmagent::try_parse_from(args) {
        Ok(parsed) => Ok(parsed),
        Err(fault) if is_help(&fault) => Err(Stop::Help(fault)),
        Err(fault) => Err(Stop::Usage(fault)),
    });
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(stop) => return stop.tell(out, err),
    };
    let common = parsed.common;
    let mut voice = Voice::new(out, err, common.log_stderr || common.json);
    match command(parsed.command, &common, env, &mut voice) {
        Ok(()) => 0,
        Err(fault) => {
            voice.error(&fault);
            fault.failure.exit_code()
        }
    }
}

/// Why nothing was done.
enum Stop {
    Help(clap::Error),
    Usage(clap::Error),
    ConfigFile(String),
}

fn is_help(fault: &clap::Error) -> bool {
    matches!(fault.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
}

impl Stop {
    /// Nothing can be done about a stream that is closed.
    fn tell(self, out: &mut dyn Write, err: &mut dyn Write) -> i32 {
        match self {
            Self::Help(text) => {
                let _ = write!(out, "{text}");
                0
            }
            Self::Usage(text) => {
                let failure = match text.kind() {
                    ErrorKind::MissingRequiredArgument
                    | ErrorKind::MissingSubcommand
                    | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Failure::MissingParameter,
                    _ => Failure::BadArguments,
                };
                let _ = write!(err, "{text}\n{}\n", failure.code());
                failure.exit_code()
            }
            Self::ConfigFile(text) => {
                let _ = writeln!(err, "{}: {text}", Failure::ConfigFile.code());
                Failure::ConfigFile.exit_code()
            }
        }
    }
}

fn command(
    command: Command,
    common: &Common,
    env: &Environment,
    voice: &mut Voice<'_>,
) -> Result<(), OnboardFault> {
    let surroundings = Surroundings::read(env);
    match command {
        Command::Connect(connect) => {
            let options = common.options(&surroundings)?;
            let request = connect.request(&surroundings)?;
            require_root(&options)?;
            let done =
                runtime()?.block_on(onboard::connect(&options, request, &mut |event| voice.event(event)))?;
            voice.info("Connected machine to Azure");
            voice.info(&format!("Machine overview page: {}", done.portal_page));
            match done.service {
                Service::Connected => {}
                Service::NotYet => {
                    voice.warning("The agent's service has not reached the site yet; see 'azcmagent show'.")
                }
                Service::NotRunning => voice.warning(
                    "The agent's service does not run; start it with 'himds' or 'arcadia agent run'.",
                ),
            }
            voice.result(
                common.json,
                &json!({ "status": "Connected", "resourceId": done.config.resource_id }),
            );
        }
        Command::Disconnect(disconnect) => {
            let options = common.options(&surroundings)?;
            let request = disconnect.request()?;
            require_root(&options)?;
            let done = runtime()?
                .block_on(onboard::disconnect(&options, request, &mut |event| voice.event(event)))?;
            voice.info(match done {
                Disconnected::WasNotConnected => "The machine is not connected; there is nothing to do",
                Disconnected::ResourceWasGone => {
                    "The machine's resource was deleted before; disconnected this machine"
                }
                Disconnected::LocalOnly => {
                    "Disconnected this machine; its resource, if there is one, still exists in Azure"
                }
                Disconnected::Whole => "Disconnected machine from Azure",
            });
            voice.result(common.json, &json!({ "status": "Disconnected" }));
        }
        Command::Show(show) => {
            let fields = runtime()?.block_on(onboard::show(&common.options(&surroundings)?))?;
            report(&fields, &show.properties, common.json, voice)?;
        }
        Command::Version => {
            if common.json {
                voice.line(&json!({ "agentVersion": AGENT_VERSION }).to_string());
            } else {
                voice.line(&format!("azcmagent version {AGENT_VERSION}"));
            }
        }
        Command::Help { command } => help(command.as_deref(), voice)?,
        Command::Absent(absent) => return Err(OnboardFault::new(Failure::Unsupported, absent.why())),
    }
    Ok(())
}

/// Only who can write the agent's files can connect and disconnect the machine: root, unless they were placed
/// elsewhere.
fn require_root(options: &AgentOptions) -> Result<(), OnboardFault> {
    let mut nearest = options.root.as_path();
    while !nearest.exists() {
        let Some(parent) = nearest.parent() else { break };
        nearest = parent;
    }
    if rustix::fs::access(nearest, rustix::fs::Access::WRITE_OK).is_ok() {
        return Ok(());
    }
    Err(OnboardFault::new(
        Failure::NotRoot,
        format!("cannot write to {}; run the command as root", nearest.display()),
    ))
}

/// All fields, or those that were named by title or key.
fn report(
    fields: &[onboard::Field],
    wanted: &[String],
    as_json: bool,
    voice: &mut Voice<'_>,
) -> Result<(), OnboardFault> {
    let named = |field: &onboard::Field, name: &str| {
        field.title.eq_ignore_ascii_case(name) || field.key.eq_ignore_ascii_case(name)
    };
    if let Some(unknown) = wanted.iter().find(|name| !fields.iter().any(|field| named(field, name))) {
        return Err(OnboardFault::new(
            Failure::BadArguments,
            format!("there is no property '{unknown}'; 'azcmagent show' lists them all"),
        ));
    }
    let chosen =
        fields.iter().filter(|field| wanted.is_empty() || wanted.iter().any(|name| named(field, name)));
    if as_json {
        let object: Map<String, Value> =
            chosen.map(|field| (field.key.to_owned(), Value::from(field.value.clone()))).collect();
        voice.line(&serde_json::to_string_pretty(&object).unwrap_or_default());
    } else {
        for field in chosen {
            voice.line(&format!("{:<40}: {}", field.title, field.value));
        }
    }
    Ok(())
}

fn help(command: Option<&str>, voice: &mut Voice<'_>) -> Result<(), OnboardFault> {
    let mut all = Azcmagent::command();
    let text = match command {
        None => all.render_long_help(),
        Some(name) => match all.find_subcommand_mut(name) {
            Some(found) => found.render_long_help(),
            None => {
                let message = format!("there is no command '{name}'; 'azcmagent help' lists them all");
                return Err(OnboardFault::new(Failure::BadArguments, message));
            }
        },
    };
    voice.line(text.to_string().trim_end());
    Ok(())
}
