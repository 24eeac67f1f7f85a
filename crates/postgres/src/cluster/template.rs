//! A server's files before it is anybody's: made by `initdb` once, then copied for each server.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use arcadia_crypto::{hex, sha256};
use arcadia_kernel::{Entropy, EntropyExt as _};
use tokio::process::Command;

use super::files::{complete, copy_tree, own, private_directory, private_file, unfinished};
use super::process::{in_nothing, run_as};
use super::{Place, files, sql};
use crate::fault::ServerFault;

const SECRET_BYTES: usize = 32;
/// How much of a program's complaint is kept, in characters.
const SAID_CHARS_MAX: usize = 2000;

/// From this version on, a server that comes back after a crash makes its files durable all at once.
const SYNCFS_MAJOR_MIN: u32 = 14;

/// Written over `initdb`'s own. Whatever a server must not be talked out of is on its command line instead.
const CONFIGURATION: &str = "\
# Written by the site when it made this server.
max_connections = 100
superuser_reserved_connections = 5
shared_buffers = 32MB
dynamic_shared_memory_type = posix
fsync = on
password_encryption = scram-sha-256
authentication_timeout = 30s
timezone = 'UTC'
log_timezone = 'UTC'
datestyle = 'iso, mdy'
lc_messages = 'C'
log_min_messages = warning
";

/// Everyone proves a password, the site as well. The socket is the only way in.
const AUTHENTICATION: &str = "\
# Written by the site when it made this server.
local all all scram-sha-256
";

/// The template of this version, made when it is missing.
pub(super) async fn prepare(place: &Place, entropy: &dyn Entropy) -> Result<PathBuf, ServerFault> {
    let template = path(place)?;
    if template.is_dir() {
        return Ok(template);
    }
    if !place.folder.is_dir() {
        private_directory(&place.folder, None)?;
    }
    let scratch = scratch(place);
    remove(&scratch)?;
    private_directory(&scratch, place.account)?;
    let made = make(place, &template, &scratch, &entropy.token(SECRET_BYTES)).await;
    let _ = fs::remove_dir_all(&scratch);
    made.map(|()| template)
}

/// Where `initdb` works: the same place for the same site, so that what a killed one left behind is found again.
fn scratch(place: &Place) -> PathBuf {
    let digest = hex(&sha256(place.folder.as_os_str().as_encoded_bytes()));
    place.scratch.join(format!("arcadia-initdb-{}", &digest[..16]))
}

/// Removes what a killed site left behind.
pub(super) fn clean(place: &Place) -> Result<(), ServerFault> {
    remove(&scratch(place))
}

fn path(place: &Place) -> Result<PathBuf, ServerFault> {
    Ok(place.folder.join(format!("template-{}", place.installed()?.major())))
}

fn secret_file(template: &Path) -> PathBuf {
    template.with_extension("secret")
}

/// The password of the site's role in the template; each server is given one of its own.
pub(super) fn secret(place: &Place) -> Result<String, ServerFault> {
    let file = secret_file(&path(place)?);
    fs::read_to_string(&file).map_err(ServerFault::file(&file))
}

async fn make(place: &Place, template: &Path, scratch: &Path, secret: &str) -> Result<(), ServerFault> {
    let password = scratch.join("password");
    private_file(&password, secret, place.account)?;
    let data = scratch.join("data");
    let mut command = Command::new(place.installed()?.program("initdb"));
    in_nothing(&mut command);
    run_as(&mut command, place.account);
    command.arg("--pgdata").arg(&data).arg("--pwfile").arg(&password);
    command.args(["--username", sql::KEEPER, "--encoding=UTF8", "--data-checksums", "--auth=scram-sha-256"]);
    // The copies are made durable, this one need not be.
    command.args(["--locale=C.UTF-8", "--no-sync", "--no-instructions"]);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(ServerFault::file(&data))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).chars().take(SAID_CHARS_MAX).collect();
        return Err(ServerFault::Program { program: "initdb", status: output.status.to_string(), said });
    }
    let (template, secret) = (template.to_owned(), secret.to_owned());
    let copied = tokio::task::spawn_blocking(move || {
        let to = unfinished(&template);
        remove(&to)?;
        copy_tree(&data, &to, None)?;
        private_file(&secret_file(&template), &secret, None)?;
        complete(&template)
    });
    copied.await.map_err(|_| ServerFault::Broken)?
}

/// Makes a server's directory of the template.
pub(super) fn copy_to(place: &Place, template: &Path, directory: &Path) -> Result<(), ServerFault> {
    let to = unfinished(directory);
    remove(&to)?;
    copy_tree(template, &to, place.account)?;
    let mut configuration = CONFIGURATION.to_owned();
    if place.installed()?.major() >= SYNCFS_MAJOR_MIN {
        configuration.push_str("recovery_init_sync_method = syncfs\n");
    }
    private_file(&to.join("postgresql.conf"), &configuration, place.account)?;
    private_file(&to.join("pg_hba.conf"), AUTHENTICATION, place.account)?;
    own(&to, place.account)?;
    files::complete(directory)
}

fn remove(path: &Path) -> Result<(), ServerFault> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ServerFault::file(path)(error)),
        _ => Ok(()),
    }
}
