//! A server's files before it is anybody's: made by `initdb` with the first server, then copied for each other one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use arcadia_kernel::{Entropy, EntropyExt as _};
use rustix::fs::MemfdFlags;
use tokio::process::Command;

use super::files::{complete, copy_tree, own, private_directory, private_file, unfinished};
use super::process::{in_nothing, run_as};
use super::{Account, Place, sql};
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

/// Makes the files of this version's first server, and of the template for all later ones, with one run of `initdb`
/// and one wait for the disk.
pub(super) async fn found(place: &Place, directory: &Path, entropy: &dyn Entropy) -> Result<(), ServerFault> {
    let template = path(place)?;
    if !place.folder.is_dir() {
        private_directory(&place.folder, None)?;
    }
    let raw = unfinished(&template);
    remove(&raw)?;
    private_directory(&raw, place.account)?;
    let secret = entropy.token(SECRET_BYTES);
    initialize(place, &raw, &secret).await?;
    let (place, directory) = (place.clone(), directory.to_owned());
    let made = tokio::task::spawn_blocking(move || {
        // From here on the template is the site's alone.
        own(&raw, Some(Account::own()))?;
        private_file(&secret_file(&template), &secret, None)?;
        copy(&place, &raw, &directory)?;
        complete(&[&template, &directory])
    });
    made.await.map_err(|_| ServerFault::Broken)?
}

/// The template of the installed version.
pub(super) fn path(place: &Place) -> Result<PathBuf, ServerFault> {
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

/// Runs `initdb` in an empty directory of the account's. It gets there through a handle, as it has no way through
/// the directories above, and so do the programs that it runs itself; their standard input is another, so the
/// handle has a number of its own. The password is in memory that has no name.
async fn initialize(place: &Place, data: &Path, secret: &str) -> Result<(), ServerFault> {
    let directory = File::open(data).map_err(ServerFault::file(data))?;
    let password = unnamed(secret).map_err(ServerFault::file(data))?;
    let mut command = Command::new("/bin/sh");
    in_nothing(&mut command);
    run_as(&mut command, place.account);
    command
        .args(["-c", r#"exec 3<&1 >/dev/null; exec "$@""#, "sh"])
        .arg(place.installed()?.program("initdb"));
    command.args(["--pgdata=/proc/self/fd/3", "--pwfile=/proc/self/fd/0", "--username", sql::KEEPER]);
    command.args(["--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", "--auth=scram-sha-256"]);
    // All files are made durable together, at the end.
    command.args(["--no-sync", "--no-instructions"]);
    command
        .stdin(Stdio::from(password))
        .stdout(Stdio::from(directory))
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output =
        async { command.spawn()?.wait_with_output().await }.await.map_err(ServerFault::file(data))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).chars().take(SAID_CHARS_MAX).collect();
        return Err(ServerFault::Program { program: "initdb", status: output.status.to_string(), said });
    }
    Ok(())
}

/// A file without a name that holds a text.
fn unnamed(text: &str) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("arcadia", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    Ok(file)
}

/// Makes a server's directory of the template.
pub(super) fn copy_to(place: &Place, template: &Path, directory: &Path) -> Result<(), ServerFault> {
    copy(place, template, directory)?;
    complete(&[directory])
}

fn copy(place: &Place, template: &Path, directory: &Path) -> Result<(), ServerFault> {
    let to = unfinished(directory);
    remove(&to)?;
    copy_tree(template, &to, place.account)?;
    let mut configuration = CONFIGURATION.to_owned();
    if place.installed()?.major() >= SYNCFS_MAJOR_MIN {
        configuration.push_str("recovery_init_sync_method = syncfs\n");
    }
    private_file(&to.join("postgresql.conf"), &configuration, place.account)?;
    private_file(&to.join("pg_hba.conf"), AUTHENTICATION, place.account)?;
    own(&to, place.account)
}

fn remove(path: &Path) -> Result<(), ServerFault> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ServerFault::file(path)(error)),
        _ => Ok(()),
    }
}
