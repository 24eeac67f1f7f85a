//! Where the walk-through happens: a fresh site, the workstation's shell and the machine's.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use arcadia_crypto::SystemEntropy;
use arcadia_kernel::EntropyExt as _;

use super::check::Seen;
use super::steps::{Side, Step};
use crate::host::{variable, variable_os};

/// The machine of the text.
pub const MACHINE: &str = "ubuntu-01";

const STEP_SECONDS_MAX: u32 = 180;

/// Printed between what the commands print and what the step's question prints.
const MARK: char = '\u{1e}';

/// The variables of the text. They are kept from one step to the next, as in the shell of a person.
const KEPT: &str = "uniq vault keyvaultId objectId secretId scope onboarding admin_password psql_cmd vaultId \
                    storage storageId imds subscriptionId resourceGroupName challengeTokenPath challengeToken \
                    token vaultToken storageToken";

pub struct Bench {
    folder: PathBuf,
    data: PathBuf,
    program: PathBuf,
    /// What `arcadia env --admin` gives.
    site: Vec<(String, String)>,
}

impl Bench {
    /// Makes the lab's folder. A data directory that was named for it must be new.
    pub fn prepare(named: Option<PathBuf>) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("arcadia-lab-{}", std::process::id()));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let data = match named {
            Some(data) if fs::read_dir(&data).is_ok_and(|mut entries| entries.next().is_some()) => {
                fs::remove_dir(&folder)?;
                bail!("{} is not empty; the walk-through is for a fresh site", data.display());
            }
            Some(data) => std::path::absolute(data)?,
            None => folder.join("data"),
        };
        for part in ["home", "az", "state"] {
            fs::DirBuilder::new().mode(0o700).create(folder.join(part))?;
        }
        let program = std::env::current_exe().context("the program cannot find itself")?;
        Ok(Self { folder, data, program, site: Vec::new() })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    pub fn az_folder(&self) -> PathBuf {
        self.folder.join("az")
    }

    pub fn start_site(&mut self) -> Result<()> {
        self.arcadia(&["up", "--detach", "--user-name", "nina"])?;
        let text = self.arcadia(&["env", "--admin", "--format", "json"])?;
        let values: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text)?;
        self.site =
            values.into_iter().filter_map(|(name, value)| Some((name, value.as_str()?.to_owned()))).collect();
        Ok(())
    }

    pub fn restart_site(&mut self) -> Result<()> {
        self.arcadia(&["down"])?;
        self.start_site()
    }

    /// Stops everything and removes it. A data directory that was named stays, as it may hold what is looked for.
    pub fn remove(&self) -> Result<()> {
        if self.data.join("machines").join(MACHINE).exists() {
            self.arcadia(&["machine", "delete", MACHINE])?;
        }
        self.arcadia(&["down"])?;
        fs::remove_dir_all(&self.folder).with_context(|| format!("cannot remove {}", self.folder.display()))
    }

    /// A terraform state with the outputs that the text reads: the first eight digits of a hash over the id of the
    /// resource group, as the configuration that the text belongs to has it, and a password.
    pub fn write_terraform(&self) -> Result<()> {
        let folder = self.folder.join("home/arc-onprem-servers");
        fs::create_dir(&folder)?;
        let subscription = self.site_value("AZURE_SUBSCRIPTION_ID")?;
        let group = format!("/subscriptions/{subscription}/resourceGroups/arc-hack");
        let drawn = SystemEntropy.uuid().simple().to_string();
        let password = format!("Awesome-Antelope-{}!", drawn.get(..8).unwrap_or(&drawn));
        let text = format!(
            "output \"uniq\" {{\n  value = substr(sha1(\"{group}\"), 0, 8)\n}}\n\
             output \"windows_admin_password\" {{\n  value     = \"{password}\"\n  sensitive = true\n}}\n"
        );
        fs::write(folder.join("main.tf"), text)?;
        for arguments in [
            ["init", "-input=false", "-no-color"].as_slice(),
            &["apply", "-auto-approve", "-input=false", "-no-color"],
        ] {
            let mut command = Command::new("terraform");
            command.args(arguments).current_dir(&folder);
            self.dress(&mut command);
            let done = command.stdin(Stdio::null()).output().context("cannot run terraform")?;
            if !done.status.success() {
                bail!(
                    "terraform {} failed: {}",
                    arguments.join(" "),
                    String::from_utf8_lossy(&done.stderr).trim()
                );
            }
        }
        Ok(())
    }

    fn site_value(&self, name: &str) -> Result<&str> {
        let found = self.site.iter().find(|(known, _)| known == name);
        found
            .map(|(_, value)| value.as_str())
            .with_context(|| format!("the site's environment has no {name}"))
    }

    /// Types a step's commands where they belong and reads what they print.
    pub fn type_in(&self, step: &Step) -> Result<Seen> {
        let state = match step.side {
            Side::Workstation => "workstation",
            Side::Machine => "machine",
        };
        let state = crate::quote::sh(&self.folder.join("state").join(state).display().to_string());
        let text = format!(
            "exec 2>&1; umask 077; [ -f {state} ] && . {state}\n{}\nstatus=$?\n\
             declare -p {KEPT} 2>/dev/null > {state}\nprintf '{MARK}\\n'\n{}\nexit $status\n",
            step.script, step.question
        );
        let mut command = Command::new("timeout");
        command.arg("--foreground").arg(STEP_SECONDS_MAX.to_string());
        match step.side {
            Side::Workstation => {
                command.args(["bash", "-c", &text]);
                self.dress(&mut command);
            }
            Side::Machine => {
                command.arg(&self.program).arg("--data").arg(&self.data);
                command.args(["machine", "exec", MACHINE, "--", "bash", "-c", &text]);
                // As over SSH: nothing of the workstation's environment.
                command.env_clear().envs(
                    ["PATH", "HOME", "LANG"].iter().filter_map(|name| Some((name, variable_os(name)?))),
                );
            }
        }
        command.current_dir(self.folder.join("home")).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        // What is typed fits into the pipe, and the pipe is closed behind it. Commands that read nothing leave it.
        match child.stdin.take().map(|mut input| input.write_all(step.typed.as_bytes())) {
            Some(Err(error)) if error.kind() != ErrorKind::BrokenPipe => return Err(error.into()),
            _ => {}
        }
        let done = child.wait_with_output()?;
        let printed = String::from_utf8_lossy(&done.stdout);
        let (text, answer) = printed.split_once(MARK).unwrap_or((&printed, ""));
        // The script's own errors are in its output; what is here is said by the way into the machine.
        let said = String::from_utf8_lossy(&done.stderr);
        Ok(Seen {
            text: format!("{said}{text}"),
            answer: answer.trim().to_owned(),
            code: done.status.code().unwrap_or(-1),
        })
    }

    /// The workstation's environment: the caller's with the site's, a home and an az of the lab's own, and this
    /// program on the search path.
    fn dress(&self, command: &mut Command) {
        for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
            command.env_remove(name);
        }
        command.envs(self.site.iter().map(|(name, value)| (name, value)));
        let own = self.program.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
        let path = variable("PATH").unwrap_or_default();
        command.env("PATH", format!("{own}:{path}"));
        command.env("ARCADIA_DATA", &self.data).env("HOME", self.folder.join("home"));
        command.env("AZURE_CONFIG_DIR", self.az_folder()).env("AZURE_CORE_ONLY_SHOW_ERRORS", "true");
        command.env("CHECKPOINT_DISABLE", "1").env("TF_IN_AUTOMATION", "1");
    }

    /// Runs this program for the lab's site and gives what it prints.
    fn arcadia(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.arg("--data").arg(&self.data).args(arguments).stdin(Stdio::null());
        let done = command.output()?;
        if !done.status.success() {
            bail!("arcadia {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr).trim());
        }
        Ok(String::from_utf8(done.stdout)?)
    }
}
