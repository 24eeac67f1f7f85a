//! `arcadia hosts`

use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use crate::names::SiteNames;
use crate::net::fold_host;
use crate::site::{DataDir, Running, SiteRecord, State};
use crate::terminal::say;

const BEGIN: &str = "# begin arcadia";
const END: &str = "# end arcadia";
/// How long resolvers may keep a record.
const TTL_SECONDS: u32 = 300;

/// Print what makes the site's names resolve: lines for /etc/hosts, or records for a DNS zone
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  arcadia hosts kv1.vault.site.test\n  arcadia hosts --format zone\n  \
                        arcadia hosts kv1.vault.site.test | sudo tee -a /etc/hosts\n\nNothing is changed: the lines \
                        are printed, between two marks by which they are found again.\n/etc/hosts knows no patterns, \
                        so each vault is named; a zone has one record for all of them.")]
pub struct Arguments {
    /// Names to print besides the fixed ones, such as a vault's; only those that the site has
    names: Vec<String>,
    #[arg(long, value_enum, default_value_t = Form::Hosts)]
    format: Form,
    /// The address that the names lead to [default: the one of `arcadia up --listen`]
    #[arg(long)]
    address: Option<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Lines for /etc/hosts
    Hosts,
    /// Records for a zone file (RFC 1035); only for a site with a domain of its own
    Zone,
}

pub fn run(data: &DataDir, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let names = SiteRecord::expect(data)?.names();
    let address = match arguments.address {
        Some(address) => address,
        None => listening(data)?,
    };
    if address.is_unspecified() {
        bail!("the site listens on every address; name the one that clients reach with --address");
    }
    let text = match arguments.format {
        Form::Hosts => hosts(&names, address, &arguments.names)?,
        Form::Zone => zone(&names, address, &arguments.names)?,
    };
    say(text.trim_end());
    Ok(ExitCode::SUCCESS)
}

fn listening(data: &DataDir) -> anyhow::Result<IpAddr> {
    let State::Running(running) = Running::state(data)? else {
        bail!("the site is not running; {}", how_to_listen(data));
    };
    let by_proxy = || format!("the site is reached by its proxy only; {}", how_to_listen(data));
    Ok(running.listen.with_context(by_proxy)?.ip())
}

fn how_to_listen(data: &DataDir) -> String {
    format!("start it with `arcadia up --listen ADDRESS:443{}`, or give --address", data.option())
}

/// A block of /etc/hosts.
fn hosts(names: &SiteNames, address: IpAddr, more: &[String]) -> anyhow::Result<String> {
    let patterns: Vec<String> = names.hosts().into_iter().map(|(pattern, _)| pattern).collect();
    let mut all: Vec<String> = patterns.iter().filter(|pattern| !pattern.contains('*')).cloned().collect();
    all.push(his_host(names));
    for name in more {
        let name = fold_host(name);
        let fits = |pattern: &String| match pattern.strip_prefix("*.") {
            Some(parent) => {
                name.split_once('.').is_some_and(|(label, rest)| is_label(label) && rest == parent)
            }
            None => *pattern == name,
        };
        if !patterns.iter().any(fits) {
            let known = patterns.join(", ");
            bail!("{name} is no name of this site, whose names are {known}");
        }
        if !all.contains(&name) {
            all.push(name);
        }
    }
    let mut text = format!("{BEGIN}\n");
    for name in all {
        writeln!(text, "{address}\t{name}")?;
    }
    writeln!(text, "{END}")?;
    Ok(text)
}

/// Names are relative to the domain, so that the block fits a zone of it or of a parent with its own `$ORIGIN`.
fn zone(names: &SiteNames, address: IpAddr, more: &[String]) -> anyhow::Result<String> {
    let Some(domain) = names.domain() else {
        bail!("this site has Azure's names, which are nobody else's to put in a zone; use --format hosts");
    };
    if !more.is_empty() {
        bail!("a zone has one record for all names of a kind; leave the names out");
    }
    let kind = if address.is_ipv4() { "A" } else { "AAAA" };
    let mut text = format!("; begin arcadia\n$ORIGIN {domain}.\n");
    for (pattern, _) in names.hosts() {
        let relative =
            pattern.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.')).unwrap_or(&pattern);
        writeln!(text, "{relative:<14} {TTL_SECONDS} IN {kind} {address}")?;
    }
    text.push_str("; end arcadia\n");
    Ok(text)
}

/// Where the agent sends its heartbeats.
fn his_host(names: &SiteNames) -> String {
    names.endpoints().his.trim_start_matches("https://").to_owned()
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 40, 34, 2));

    #[test]
    fn the_block_has_the_fixed_names_and_those_asked_for() {
        let names = SiteNames::of_domain("site.test");
        let text = hosts(&names, ADDRESS, &["KV1.vault.site.test.".to_owned()]).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], *lines.last().unwrap()), (BEGIN, END));
        for name in ["login", "graph", "management", "gbl.his", "kv1.vault"] {
            assert!(lines.contains(&format!("127.40.34.2\t{name}.site.test").as_str()), "{name} in {text}");
        }
        assert!(!text.contains('*'));
        for wrong in [
            "kv1.vault.azure.net",
            "a.b.vault.site.test",
            "vault.site.test\n1.1.1.1 x",
            "site.test",
            ".vault.site.test",
        ] {
            assert!(hosts(&names, ADDRESS, &[wrong.to_owned()]).is_err(), "{wrong}");
        }
        assert!(
            hosts(&SiteNames::azure(), ADDRESS, &[]).unwrap().contains("127.40.34.2\tmanagement.azure.com\n")
        );
    }

    #[test]
    fn a_zone_has_a_record_for_each_pattern() {
        let text = zone(&SiteNames::of_domain("site.test"), "::1".parse().unwrap(), &[]).unwrap();
        assert!(text.contains("$ORIGIN site.test.\n"), "{text}");
        for (relative, kind) in
            [("login ", "AAAA ::1"), ("*.vault ", "AAAA ::1"), ("*.blob ", "AAAA ::1"), ("* ", "AAAA ::1")]
        {
            assert!(
                text.lines().any(|line| line.starts_with(relative) && line.ends_with(kind)),
                "{relative}: {text}"
            );
        }
        assert!(zone(&SiteNames::azure(), ADDRESS, &[]).is_err());
    }
}
