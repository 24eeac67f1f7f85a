//! The clients that the walk-through uses.

use anyhow::{Result, bail};

use crate::machine::on_path;

/// What is there.
pub struct Tools {
    /// Why what the text takes from terraform is had without it, if it is.
    pub no_terraform: Option<String>,
}

/// Each program and how to have it.
const NEEDED: [(&str, &str); 6] = [
    ("az", "pip install azure-cli==2.91.0 (in a virtual environment), or https://aka.ms/InstallAzureCLI"),
    ("curl", "apt-get install curl"),
    ("jq", "apt-get install jq"),
    ("bash", "apt-get install bash"),
    // The text installs it on the machine, which shares the host's programs and has no network to fetch them.
    ("psql", "apt-get install postgresql"),
    ("setpriv", "apt-get install util-linux"),
];

/// Looks for the clients. Those that are missing are named all at once.
pub fn find() -> Result<Tools> {
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|(program, _)| !on_path(program))
        .map(|(program, how)| format!("  {program:<8} {how}"))
        .collect();
    if !missing.is_empty() {
        bail!(
            "the walk-through needs programs that are not on your search path:\n{}\nIn a checkout of Arcadia, \
             `cargo xtask lab` installs them and runs this.",
            missing.join("\n")
        );
    }
    let no_terraform = (!on_path("terraform")).then(|| {
        "terraform is not installed: of what the text reads from terraform's output, `uniq` is worked out the way \
         that configuration does it, from the id of the resource group, and the administrator's password is drawn"
            .to_owned()
    });
    Ok(Tools { no_terraform })
}
