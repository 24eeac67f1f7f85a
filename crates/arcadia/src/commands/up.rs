//! `arcadia up`

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, bail};
use arcadia_crypto::Zeroizing;
use arcadia_kernel::{is_domain, is_site_domain};
use clap::Args;

use crate::host::variable;
use crate::logging;
use crate::net::Upstream;
use crate::serve::{self, Options, Ready};
use crate::site::{
    Credentials, DataDir, PASSPHRASE_FILE, RingFile, RootSource, SiteRecord, open_keys, read_from,
};
use crate::terminal::{BOLD, DIM, RESET, note, say};
use crate::wiring::{FirstNames, VALUES_PER_DATA_KEY_MAX};

/// The last line that is printed when the site can serve.
const READY: &str = "ready";
const DEFAULT_USER_NAME: &str = "admin";
const DEFAULT_USER_DOMAIN: &str = "arcadia.example";

/// Run a site
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  arcadia up\n  arcadia up --detach\n  arcadia up --data /srv/site --port 9000 \
                        --offline\n  arcadia up --domain site.test --listen 127.40.34.2:443\n  arcadia up --passphrase\n  arcadia up --passphrase-file \"$CREDENTIALS_DIRECTORY/passphrase\"\n\nThe last line printed when the site can serve is `ready`. SIGTERM and Ctrl-C \
                        finish the requests under way and stop it.\nThe Internet is reached by the proxy that \
                        HTTPS_PROXY names when the site starts, except for the hosts in NO_PROXY."
)]
pub struct Arguments {
    /// Return when the site can serve, and leave it running in the background
    #[arg(long)]
    detach: bool,
    /// Refuse hosts that are not the site's, instead of passing them on
    #[arg(long)]
    offline: bool,
    /// The proxy's port on 127.0.0.1 [default: the one of the last start, 8440 at the first]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Serve the site under its own names: login.NAME, management.NAME, *.vault.NAME, ... instead of Azure's.
    /// Chosen at the first start, for ever
    #[arg(long, value_name = "NAME", value_parser = own_domain)]
    domain: Option<String>,
    /// Serve the site's names here too, for clients that resolve them by DNS or /etc/hosts (see `arcadia hosts`);
    /// clients expect port 443
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// The first user's name before the @, at the first start [default: admin]
    #[arg(long, value_name = "NAME", value_parser = user_name)]
    user_name: Option<String>,
    /// The domain of user names, at the first start [default: that of --domain, else arcadia.example]
    #[arg(long, value_name = "DOMAIN", value_parser = user_domain)]
    user_domain: Option<String>,
    /// Make the root key of a passphrase, at the first start: asked for, or read from --passphrase-file. Later:
    /// `arcadia keys root`
    #[arg(long)]
    passphrase: bool,
    /// Replace the data key after it has sealed this many values
    #[arg(long, value_name = "COUNT", default_value_t = VALUES_PER_DATA_KEY_MAX,
          value_parser = clap::value_parser!(u64).range(1000..=VALUES_PER_DATA_KEY_MAX))]
    values_per_data_key: u64,
    /// Set in the process that `--detach` leaves behind
    #[arg(long, hide = true)]
    detached: bool,
}

/// Checked before anything is made: what the first user is called is kept.
fn user_name(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && !text.starts_with(['.', '-'])
        && !text.ends_with('.');
    if fits { Ok(text.to_owned()) } else { Err("use 1 to 64 letters, digits and . _ -".to_owned()) }
}

fn user_domain(text: &str) -> Result<String, String> {
    if is_domain(text) {
        Ok(text.to_lowercase())
    } else {
        Err("use a domain such as arcadia.example".to_owned())
    }
}

fn own_domain(text: &str) -> Result<String, String> {
    match (is_site_domain(text), is_domain(text)) {
        (true, _) => Ok(text.to_lowercase()),
        (false, true) => Err("use a domain of at most 180 characters, not an address".to_owned()),
        (false, false) => Err("use a domain such as site.test".to_owned()),
    }
}

pub fn run(data: &DataDir, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    check_first_user(data, arguments)?;
    if arguments.detach && !arguments.detached {
        return detach(data, passphrase(data, arguments)?);
    }
    if arguments.detached {
        take_passphrase(data)?;
        rustix::process::setsid().context("the site cannot leave its terminal")?;
        std::env::set_current_dir("/")?;
    }
    // Nothing of a site is for other users, whatever made the file.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let log = logging::start(if arguments.detached { "info" } else { "warn" })?;
    let options = Options {
        offline: arguments.offline,
        port: arguments.port,
        upstream: upstream(arguments.offline)?,
        listen: arguments.listen,
        domain: arguments.domain.clone(),
        values_per_data_key: arguments.values_per_data_key,
        first: FirstNames {
            user_name: arguments.user_name.clone().unwrap_or_else(|| DEFAULT_USER_NAME.to_owned()),
            user_domain: [&arguments.user_domain, &arguments.domain]
                .into_iter()
                .flatten()
                .next()
                .map_or_else(|| DEFAULT_USER_DOMAIN.to_owned(), Clone::clone),
        },
    };
    if !arguments.detached {
        passphrase(data, arguments)?;
    }
    let detached = arguments.detached;
    serve::serve(data, options, |ready| {
        // Before `ready` is printed: whoever waits for it may look for the log.
        if detached {
            log.move_to(data.log_file()).with_context(|| data.log_file().display().to_string())?;
        }
        show(data, ready);
        if detached {
            let nowhere = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
            // The parent sees the end of its pipe and returns.
            rustix::stdio::dup2_stdout(&nowhere)?;
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What the first user is called is chosen at the first start, also at one that came to no end.
fn check_first_user(data: &DataDir, arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.user_name.is_none() && arguments.user_domain.is_none() {
        return Ok(());
    }
    let known = match (Credentials::load(data)?, SiteRecord::load(data)?) {
        (Some(credentials), _) => credentials.user,
        // The file with the name may be removed once it is noted.
        (None, Some(record)) => format!("@{}", record.user_domain),
        (None, None) => return Ok(()),
    };
    let (name, domain) = known.rsplit_once('@').unwrap_or_default();
    let is_other = |asked: &Option<String>, known: &str| asked.as_deref().is_some_and(|asked| asked != known);
    if !name.is_empty() && is_other(&arguments.user_name, name) || is_other(&arguments.user_domain, domain) {
        bail!(
            "the first user of the site in {} is {known} since its first start: start it without --user-name and \
             --user-domain, or make another site with --data",
            data.path().display()
        );
    }
    Ok(())
}

/// The passphrase that this start needs, if any. Asked for, and tried, before anything is made or left behind.
fn passphrase(data: &DataDir, arguments: &Arguments) -> anyhow::Result<Option<Zeroizing<String>>> {
    let source = data.passphrase();
    if let Some(ring) = RingFile::load(&data.ring_file())? {
        if arguments.passphrase && ring.passphrase_costs().next().is_none() {
            let here = data.option();
            bail!("the site has its root key in a file; `arcadia keys root --passphrase{here}` changes that");
        }
        // Without --detach it is asked for when the site is opened.
        return Ok(match arguments.detach.then(|| open_keys(data)).transpose()? {
            Some(keys) if keys.root.source != RootSource::File => Some(source.get()?),
            _ => None,
        });
    }
    if arguments.passphrase || source.is_given() {
        return Ok(Some(source.choose(PASSPHRASE_FILE)?));
    }
    Ok(None)
}

/// What the process that was asked hands on; nothing, when no passphrase is needed.
fn take_passphrase(data: &DataDir) -> anyhow::Result<()> {
    let mut first = [0];
    let mut input = std::io::stdin().lock();
    if input.read(&mut first)? == 1 {
        let rest = first.as_slice().chain(input);
        data.passphrase().set(read_from(rest).context("the passphrase that was handed on")?);
    }
    Ok(())
}

/// The shell's own proxy, unless it is not used at all.
fn upstream(offline: bool) -> anyhow::Result<Option<Upstream>> {
    let first = |names: [&str; 2]| names.iter().find_map(|name| variable(name));
    let Some(address) = first(["HTTPS_PROXY", "https_proxy"]).filter(|_| !offline) else { return Ok(None) };
    let direct = first(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    Ok(Some(Upstream::parse(&address, &direct).context("HTTPS_PROXY")?))
}

/// Starts this program again in the background, and passes on what it prints until it can serve.
fn detach(data: &DataDir, passphrase: Option<Zeroizing<String>>) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe().context("the program cannot find itself")?;
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .arg("--detached")
        .env("ARCADIA_DATA", data.path())
        .stdin(if passphrase.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("the site cannot be started")?;
    if let (Some(passphrase), Some(mut stdin)) = (passphrase, child.stdin.take()) {
        // Shorter than a pipe is, so this does not wait; a child that ended already says why itself.
        let _ = stdin.write_all(passphrase.as_bytes());
    }
    let errors = child.stderr.take().map(|stderr| {
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                note(line);
            }
        })
    });
    let stdout = child.stdout.take().context("the site's output is not a pipe")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        say(&line);
        if line == READY {
            return Ok(ExitCode::SUCCESS);
        }
    }
    let status = child.wait()?;
    if let Some(errors) = errors {
        let _ = errors.join();
    }
    note(format!("arcadia: the site did not start ({status})"));
    Ok(ExitCode::FAILURE)
}

fn show(data: &DataDir, ready: &Ready) {
    let Ready { running, record, user, upstream } = ready;
    let outside = match (running.offline, upstream) {
        (true, _) => "refused (--offline)".to_owned(),
        (false, Some(upstream)) => format!("passed on through {upstream}"),
        (false, None) => "passed on".to_owned(),
    };
    say(format!("{BOLD}Arcadia {}{RESET} in {}", running.version, data.path().display()));
    say("");
    for (name, service) in &running.names {
        say(format!("  {name:<28} {DIM}{service}{RESET}"));
    }
    say("");
    say(format!("  proxy          http://{}", running.proxy));
    if let Some(listen) = running.listen {
        say(format!("  without proxy  https on {listen}"));
    }
    if let Some(databases) = running.postgres {
        say(format!("  databases      {databases}"));
    }
    say(format!("  other hosts    {outside}"));
    say(format!("  tenant         {}", record.tenant_id));
    say(format!("  subscription   {}", record.subscription_id));
    say(format!("  first user     {user}"));
    say(format!("  credentials    {}", data.credentials_file().display()));
    say("");
    let here = data.option();
    say("In another shell:");
    say(format!("  eval \"$(arcadia env --admin{here})\""));
    if let Some(domain) = &record.domain {
        say(format!(
            "  az cloud register --name Arcadia --endpoint-resource-manager https://management.{domain}"
        ));
        say("  az cloud set --name Arcadia");
    }
    say(
        "  az login --service-principal -u $AZURE_CLIENT_ID -p $AZURE_CLIENT_SECRET --tenant $AZURE_TENANT_ID",
    );
    if running.listen.is_some() {
        say(format!(
            "  arcadia hosts{here}                    {DIM}# lines for /etc/hosts, or for DNS{RESET}"
        ));
    }
    say(format!("  arcadia machine create ubuntu-01{here}      {DIM}# a machine to connect{RESET}"));
    say(READY);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_before_they_are_kept() {
        for good in ["admin", "nina.o-x_1"] {
            assert!(user_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a@b", "-a", ".a", "a.", "a b", "a'b", &"a".repeat(65)] {
            assert!(user_name(bad).is_err(), "{bad}");
        }
        assert_eq!(user_domain("Arcadia.Example").unwrap(), "arcadia.example");
        assert_eq!(own_domain("Site.Test").unwrap(), "site.test");
        for bad in
            ["test", "10.0.0.1", "site.test.", "*.site.test", &format!("{}test", "abcdefgh.".repeat(20))]
        {
            assert!(own_domain(bad).is_err(), "{bad}");
        }
        for bad in ["", "example", "a..b", "-a.b", "a_b.c", "a.b/", &"a.".repeat(130)] {
            assert!(user_domain(bad).is_err(), "{bad}");
        }
    }
}
