//! `arcadia reference`: the operation tables as a document.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use arcadia_crypto::SystemEntropy;
use arcadia_kernel::{Access, EntropyExt as _, OpInfo, Plane};
use arcadia_store::Store;
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::host::SystemClock;
use crate::names::SiteNames;
use crate::terminal::say;
use crate::wiring::{Assembly, assemble};

/// Print every operation with what it needs
#[derive(Debug, Args)]
pub struct Arguments {
    #[arg(long, value_enum, default_value_t = Form::Markdown)]
    format: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Markdown,
    Json,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let text = runtime.block_on(async {
        let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
        let store = Store::in_memory(clock.clone(), entropy.clone());
        // Blobs want a folder, which stays empty.
        let blobs = std::env::temp_dir().join(format!("arcadia-reference-{}", entropy.uuid()));
        let assembly = assemble(store, SiteNames::azure(), nowhere(), &blobs, clock, entropy).await;
        let _ = std::fs::remove_dir_all(&blobs);
        let assembly = assembly?;
        anyhow::Ok(match arguments.format {
            Form::Markdown => markdown(&assembly),
            Form::Json => serde_json::to_string_pretty(&rows(&assembly))?,
        })
    })?;
    say(text.trim_end());
    Ok(ExitCode::SUCCESS)
}

/// A service, the names it answers under, and its operations in the order of their paths.
fn services(assembly: &Assembly) -> Vec<(&'static str, Vec<String>, Vec<OpInfo>)> {
    let patterns = assembly.host_table().patterns();
    let mut all = Vec::new();
    for endpoint in assembly.endpoints() {
        let name = endpoint.service_name();
        let hosts = patterns.iter().filter(|(_, service)| *service == name);
        let hosts = hosts.map(|(pattern, _)| pattern.clone()).collect();
        let mut operations = endpoint.catalogue();
        operations.sort_by_key(|op| {
            let path = op.pattern.as_str().to_lowercase();
            (path, op.method.to_string(), query(op), op.name.clone())
        });
        all.push((name, hosts, operations));
    }
    all
}

fn query(op: &OpInfo) -> String {
    let one = |(name, value): &(&str, Option<&str>)| match value {
        Some(value) => format!("{name}={value}"),
        None => (*name).to_owned(),
    };
    op.query.iter().map(one).collect::<Vec<_>>().join("&")
}

fn rows(assembly: &Assembly) -> serde_json::Value {
    let mut all = Vec::new();
    for (service, hosts, operations) in services(assembly) {
        for op in operations {
            let (access, detail) = match &op.access {
                Access::Decided { action, plane } => (plane_name(*plane), action.to_string()),
                Access::SignedIn { because } => ("signedIn", (*because).to_owned()),
                Access::Public { because } => ("public", (*because).to_owned()),
            };
            all.push(json!({
                "service": service,
                "hosts": hosts,
                "name": op.name,
                "method": op.method.as_str(),
                "path": op.pattern.as_str(),
                "query": query(&op),
                "access": access,
                "detail": detail,
            }));
        }
    }
    all.into()
}

fn plane_name(plane: Plane) -> &'static str {
    match plane {
        Plane::Control => "action",
        Plane::Data => "dataAction",
        Plane::Directory => "directory",
        Plane::None => "none",
    }
}

fn markdown(assembly: &Assembly) -> String {
    let mut out = String::from(
        "# Operations\n\n\
         Every operation that a site serves, with what a caller needs for it. Generated from the operation tables by\n\
         `cargo xtask catalogue`; not edited by hand.\n\n\
         - **action**: a role with this action at the resource or above it. **data action**: a role with this data\n  \
         action (or, for a vault with access policies, the permission that goes with it). **directory**: a directory\n  \
         role or a default permission.\n\
         - **signed in**: any token for the service; the operation itself shows only what the caller may see.\n\
         - **open**: nothing. The reason stands beside it.\n",
    );
    for (service, hosts, operations) in services(assembly) {
        let _ = write!(out, "\n## {service}\n\n{}\n\n", hosts.join(", "));
        out.push_str("| operation | method | path | needs |\n|---|---|---|---|\n");
        for op in operations {
            let query = query(&op);
            let query = if query.is_empty() { query } else { format!("?{query}") };
            let needs = match &op.access {
                Access::Decided { action, plane } => format!("{} `{action}`", plane_words(*plane)),
                Access::SignedIn { because } => format!("signed in: {because}"),
                Access::Public { because } => format!("open: {because}"),
            };
            let path = op.pattern.as_str();
            let _ = writeln!(out, "| {} | {} | `{path}{query}` | {needs} |", op.name, op.method);
        }
    }
    out
}

fn plane_words(plane: Plane) -> &'static str {
    match plane {
        Plane::Data => "data action",
        other => plane_name(other),
    }
}

/// No server is made to document how servers are made.
fn nowhere() -> arcadia_postgres::Place {
    let folder = std::path::PathBuf::from("/nonexistent");
    arcadia_postgres::Place { folder, account: None, installation: None }
}
