//! `sudo` on a machine.
//!
//! Where the machine is held by root and sudo is installed, the real one works, with a rule for `arcadmin`.
//! In a user namespace it cannot: its files belong to a user that the namespace does not know, and it refuses
//! to start. There, and where sudo is not installed, a small script of the same name runs the command when the
//! caller is root already, which is what `arcadia machine exec` gives, and says so otherwise.

use super::environment;

/// The folder of the stand-in, in front of the search path only where the real sudo cannot work.
pub const FALLBACK_BIN: &str = "/opt/azcmagent/fallback";

/// Where sudo reads the machine's rule.
pub const RULE: &str = "/etc/sudoers.d/arcadia-machine";

/// The rule: `arcadmin` may do everything, as on the walk-through's machines, and `sudo CMD` keeps the way to
/// the site and finds `azcmagent`.
pub fn rule() -> String {
    // A site of any names: a variable that is not set is not kept.
    let variables = environment::variables(Some("site.test"));
    let names: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
    format!(
        "Defaults env_keep += \"{}\"\n\
         Defaults secure_path=\"{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"\n\
         arcadmin ALL=(ALL:ALL) NOPASSWD: ALL\n",
        names.join(" "),
        environment::BIN
    )
}

/// The stand-in. It knows the options that scripts use, and refuses what it does not know.
pub const SCRIPT: &str = r#"#!/bin/sh
# Stand-in for sudo on an Arcadia machine where the real one cannot work. It gives no rights:
# it runs the command for a caller who is root already.
user=root
while [ $# -gt 0 ]; do
  case "$1" in
    --) shift; break ;;
    -u|--user) user=$2; shift 2 || exit 1 ;;
    --user=*) user=${1#--user=}; shift ;;
    -E|-H|-n|-S|-b|-k|-P|-EH|-nE|-En|-Hn|-nH|--preserve-env|--preserve-env=*|--non-interactive|--set-home) shift ;;
    -i|-s|--login|--shell) shift; set -- "${SHELL:-/bin/sh}" "$@"; break ;;
    -V|--version) echo "sudo: stand-in of an Arcadia machine"; exit 0 ;;
    -v|-l) exit 0 ;;
    -*) echo "sudo: option $1 is not known to this machine's stand-in for sudo" >&2; exit 1 ;;
    *=*) export "$1"; shift ;;
    *) break ;;
  esac
done
if [ "$(id -u)" != 0 ]; then
  echo "sudo: this machine's stand-in cannot give rights; enter the machine as root: arcadia machine exec NAME -- ..." >&2
  exit 1
fi
if [ $# -eq 0 ]; then
  echo "usage: sudo [-u USER] [NAME=VALUE ...] COMMAND [ARGUMENT ...]" >&2
  exit 1
fi
if [ "$user" = root ]; then
  exec "$@"
fi
exec setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups -- "$@"
"#;
