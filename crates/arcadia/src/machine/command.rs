//! The command line of `arcadia machine`.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::{ExitCode, Stdio};

use anyhow::Result;
use arcadia_crypto::Zeroizing;

use super::name::MachineName;
use super::{Site, enter, launch};
use crate::site::{Credentials, DataDir};

/// Connected machines as Linux namespaces: no VM, and no root where user namespaces are allowed.
#[derive(clap::Subcommand, Debug)]
#[command(after_help = "Examples:\n  \
    arcadia machine create ubuntu-01\n  \
    arcadia machine create ubuntu-02 --connect\n  \
    arcadia machine shell ubuntu-01\n  \
    arcadia machine exec ubuntu-01 -- azcmagent show\n  \
    arcadia machine delete ubuntu-01")]
pub enum Command {
    /// Make a machine with the agent installed, not yet connected, and start it.
    ///
    /// Connect it from inside, as in real life: `arcadia machine exec NAME -- azcmagent connect ...`.
    #[command(after_help = "Examples:\n  \
        arcadia machine create ubuntu-01\n  \
        arcadia machine create ubuntu-02 --connect --resource-group arc-hack")]
    Create {
        /// 1 to 54 of a-z, 0-9 and -; also its host name.
        name: MachineName,
        /// Connect it at once, with the site's first service principal.
        #[arg(long)]
        connect: bool,
        /// Where `--connect` puts the machine's resource; the group is made when it does not exist.
        #[arg(long, short = 'g', value_name = "NAME", default_value = "arc-hack", requires = "connect")]
        resource_group: String,
        /// The location of the resource that `--connect` makes.
        #[arg(long, short, value_name = "NAME", default_value = "uksouth", requires = "connect")]
        location: String,
    },
    /// Show the machines and whether they run.
    #[command(after_help = "Examples:\n  \
        arcadia machine list\n  \
        arcadia machine list --json | jq -r '.[].name'")]
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run a command on a machine, as root there. Its exit status is returned.
    ///
    /// The machine has its own 127.0.0.1, /var/opt/azcmagent, /opt/azcmagent, /etc/hosts, users and processes;
    /// all other files are this host's. The environment is the caller's without its proxies and credentials.
    #[command(after_help = "Examples:\n  \
        arcadia machine exec ubuntu-01 -- azcmagent show\n  \
        arcadia machine exec ubuntu-01 --user arcadmin -- id")]
    Exec {
        /// Of the machine, as `arcadia machine list` shows it.
        name: MachineName,
        /// Be another user there, for example arcadmin.
        #[arg(long, short)]
        user: Option<String>,
        /// The command and its arguments, after `--`.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// A shell on a machine, as root there.
    #[command(after_help = "Examples:\n  \
        arcadia machine shell ubuntu-01\n  \
        arcadia machine shell ubuntu-01 --user arcadmin")]
    Shell {
        /// Of the machine, as `arcadia machine list` shows it.
        name: MachineName,
        /// Be another user there, for example arcadmin.
        #[arg(long, short)]
        user: Option<String>,
    },
    /// Stop a machine and remove its files. Its resource, if it was connected, stays until you delete that.
    #[command(after_help = "Examples:\n  \
        arcadia machine delete ubuntu-01 ubuntu-02")]
    Delete {
        /// Of the machines, as `arcadia machine list` shows them.
        #[arg(required = true)]
        names: Vec<MachineName>,
    },
}

/// Runs a subcommand. `site` gives the running site, or says why there is none.
pub fn run(command: &Command, data: &DataDir, site: impl FnOnce() -> Result<Site>) -> Result<ExitCode> {
    match command {
        Command::Create { name, connect, resource_group, location } => {
            let site = site()?;
            create(&site, name)?;
            if *connect { join_site(data, name, resource_group, location) } else { say_next(data, name) }
        }
        Command::List { json } => list(data.path(), *json),
        Command::Exec { name, user, command } => go_in(data.path(), name, user.as_deref(), command, site),
        Command::Shell { name, user } => {
            let command = [OsString::from("bash"), OsString::from("-i")];
            go_in(data.path(), name, user.as_deref(), &command, site)
        }
        Command::Delete { names } => delete(data.path(), names),
    }
}

fn create(site: &Site, name: &MachineName) -> Result<()> {
    say(&format!("Making machine {name} ..."))?;
    let record = launch::create(site, name)?;
    if let Some(note) = record.isolation.note() {
        say(&format!("Note: {note}."))?;
    }
    say(&format!("Machine {name} runs; its agent is installed and not yet connected."))
}

fn say_next(data: &DataDir, name: &MachineName) -> Result<ExitCode> {
    let here = data.option();
    say(&format!("Next: arcadia machine exec{here} {name} -- azcmagent connect --help"))?;
    Ok(ExitCode::SUCCESS)
}

/// Becomes `azcmagent connect` on the machine.
fn join_site(data: &DataDir, name: &MachineName, group: &str, location: &str) -> Result<ExitCode> {
    let first = Credentials::expect(data)?;
    let (words, secrets) = connect_words(&first, group, location)?;
    let (input, mut output) = std::io::pipe()?;
    // Shorter than a pipe holds, so this does not wait for whoever reads it.
    output.write_all(secrets.as_bytes())?;
    drop(output);
    enter::become_enter(&launch::existing(data.path(), name)?, None, &words, input.into())
}

/// The command, and what it reads from its standard input: every user of the host can read the words of a command.
fn connect_words(
    first: &Credentials,
    group: &str,
    location: &str,
) -> Result<(Vec<OsString>, Zeroizing<String>)> {
    let words = [
        "azcmagent".to_owned(),
        "connect".to_owned(),
        format!("--tenant-id={}", first.tenant_id),
        format!("--subscription-id={}", first.subscription_id),
        format!("--service-principal-id={}", first.client_id),
        format!("--resource-group={group}"),
        format!("--location={location}"),
        "--config=/proc/self/fd/0".to_owned(),
    ];
    let secrets = serde_json::json!({ "service-principal-secret": *first.client_secret });
    Ok((words.map(OsString::from).to_vec(), Zeroizing::new(serde_json::to_string(&secrets)?)))
}

fn list(data: &Path, json: bool) -> Result<ExitCode> {
    let mut output = std::io::stdout().lock();
    let machines: Vec<_> = launch::all(data)?
        .into_iter()
        .map(|(name, folder)| (name, folder.running().map(|run| run.pid), folder.record().ok()))
        .collect();
    if json {
        let rows: Vec<_> = machines
            .iter()
            .map(|(name, pid, record)| {
                let separate = record.as_ref().is_some_and(|record| record.isolation.separates_users());
                serde_json::json!({"name": name, "running": pid.is_some(), "pid": pid, "separateUsers": separate})
            })
            .collect();
        writeln!(output, "{}", serde_json::to_string_pretty(&rows)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if machines.is_empty() {
        say("No machines yet. Make one: arcadia machine create ubuntu-01")?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(output, "{:<24} {:<8} PID", "NAME", "STATE")?;
    for (name, pid, _) in machines {
        let state = if pid.is_some() { "running" } else { "stopped" };
        let pid = pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        writeln!(output, "{:<24} {state:<8} {pid}", name.as_str())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn go_in(
    data: &Path,
    name: &MachineName,
    user: Option<&str>,
    command: &[OsString],
    site: impl FnOnce() -> Result<Site>,
) -> Result<ExitCode> {
    let folder = launch::existing(data, name)?;
    launch::settle(&folder)?;
    if folder.running().is_none() {
        say(&format!("Machine {name} is stopped; starting it ..."))?;
        launch::start(&site()?, &folder)?;
    }
    enter::become_enter(&folder, user, command, Stdio::inherit())
}

fn delete(data: &Path, names: &[MachineName]) -> Result<ExitCode> {
    for error in launch::sweep(data) {
        say(&format!("Note: what is left of a deleted machine stays: {error:#}."))?;
    }
    for name in names {
        launch::delete(data, name)?;
        say(&format!("Machine {name} is deleted."))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Progress and notes, which are no results.
fn say(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stderr(), "{text}")?)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_secret_is_none_of_the_words_that_every_user_reads() {
        let hidden = |text: &str| Zeroizing::new(text.to_owned());
        let first = Credentials {
            tenant_id: Uuid::nil(),
            subscription_id: Uuid::nil(),
            client_id: Uuid::nil(),
            client_secret: hidden("the-secret"),
            user: "admin@a.example".to_owned(),
            password: hidden("the-password"),
        };
        let (words, secrets) = connect_words(&first, "arc-hack", "uksouth").unwrap();
        assert!(words.contains(&OsString::from("--resource-group=arc-hack")));
        for word in words {
            let word = word.into_string().unwrap();
            assert!(!word.contains("the-secret") && !word.contains("the-password"), "{word}");
        }
        let read: serde_json::Value = serde_json::from_str(&secrets).unwrap();
        assert_eq!(read, serde_json::json!({ "service-principal-secret": "the-secret" }));
    }
}
