"""Two machines on one host, and the host itself, do not see one another; ordinary users have machines too."""

import os
import signal
import subprocess
import threading

from checks_machine import MACHINE, answer, challenge
from harness import check, contains, equal, eventually

OTHER = "ubuntu-02"


@check("two machines have their own loopback, files, hosts and processes")
def two(world):
    world.machines.append(OTHER)
    world.program("machine", "create", OTHER).ok()
    world.on_machine(MACHINE, "sh", "-c", "echo 127.0.0.9 only-here >> /etc/hosts; touch /var/opt/azcmagent/only-here").ok()
    equal(world.on_machine(OTHER, "grep", "-c", "only-here", "/etc/hosts").out.strip(), "0")
    world.on_machine(OTHER, "test", "-e", "/var/opt/azcmagent/only-here").fails(code=1)
    with open("/etc/hosts", encoding="utf-8") as hosts:
        equal("only-here" in hosts.read(), False)
    world.on_machine(OTHER, "curl", "-s", "-H", "Metadata:true", "http://127.0.0.1:40342/metadata/versions").ok()
    contains(world.on_machine(OTHER, "azcmagent", "show").out, "Disconnected")


@check("the host does not have the machines' port 40342, nor they the host's")
def host(world):
    def count(where):
        return where(["sh", "-c", "cat /proc/net/tcp /proc/net/tcp6 | grep -ci ':9D96 .* 0A '"]).out.strip()

    equal(count(lambda command: world.on_machine(MACHINE, *command)), "2")
    own = subprocess.run(["readlink", "/proc/self/ns/net"], capture_output=True, text=True, check=True).stdout
    equal(world.on_machine(MACHINE, "readlink", "/proc/self/ns/net").text() == own.strip(), False)
    port = world.env["HTTPS_PROXY"].rpartition(":")[2]
    world.on_machine(MACHINE, "curl", "-s", "-m", "2", f"http://127.0.0.1:{port}/").fails(code=7)


@check("a machine has no way out but the site's proxy")
def no_network(world):
    equal(world.on_machine(MACHINE, "sh", "-c", "tail -n +2 /proc/net/route | wc -l").text(), "0")


@check("exec passes standard input, exit status and signals")
def exec_contract(world):
    equal(world.on_machine(MACHINE, "tr", "a-z", "A-Z", stdin="shout").ok().out, "SHOUT")
    equal(world.on_machine(MACHINE, "sh", "-c", "exit 7").code, 7)
    equal(world.on_machine(MACHINE, "sh", "-c", "kill -9 $$").code, 137)
    equal(world.on_machine(MACHINE, "no-such-command").code, 127)
    equal(world.on_machine(MACHINE, "pwd").text(), os.path.realpath(world.folder))
    command = [world.arcadia, "--data", world.data, "machine", "exec", MACHINE, "--"]
    script = "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
    child = subprocess.Popen([*command, "sh", "-c", script], env=world.env, text=True, stdout=subprocess.PIPE)
    watchdog = threading.Timer(20, child.kill)
    watchdog.start()
    equal(child.stdout.readline(), "ready\n")
    child.terminate()
    equal((child.stdout.read(), child.wait()), ("got it\n", 3))
    watchdog.cancel()


@check("the agent's daemon is started again when it ends")
def daemon(world):
    def pid():
        return world.on_machine(OTHER, "sh", "-c", "for p in /proc/[0-9]*; do case $(tr '\\0' ' ' < $p/cmdline) in */himds*) echo ${p#/proc/};; esac; done").text().split()

    before = pid()
    equal(len(before) >= 1, True)
    world.on_machine(OTHER, "kill", "-9", before[0]).ok()
    script = "for i in $(seq 100); do curl -sf -o /dev/null -H Metadata:true http://127.0.0.1:40342/metadata/versions && exit 0; sleep 0.1; done; exit 1"
    world.on_machine(OTHER, "sh", "-c", f"sleep 0.3; {script}").ok()
    equal(before[0] in pid(), False)


@check("a machine that was killed is started again by the next command")
def killed(world):
    holder = next(row["pid"] for row in world.program("machine", "list", "--json").json() if row["name"] == OTHER)
    os.kill(holder, signal.SIGKILL)
    equal(eventually(lambda: stopped(world)), "stopped")
    equal(world.on_machine(OTHER, "hostname").text(), OTHER)


def stopped(world):
    lines = world.program("machine", "list").lines()
    state = next(line.split()[1] for line in lines if line.startswith(OTHER))
    equal(state, "stopped")
    return state


@check("machines and their identities outlive a site that was killed")
def site_killed(world):
    world.kill_site()
    refused = world.on_machine(MACHINE, "curl", "-sS", "-m", "5", "https://management.azure.com/")
    refused.fails("503")
    world.program("up", "--detach").ok()
    path = challenge(world)
    code, _ = answer(world, world.on_machine(MACHINE, "cat", path).text())
    equal(code, "200")
    world.on_machine(MACHINE, "curl", "-sS", "-m", "5", "-o", "/dev/null", "https://management.azure.com/").ok()


@check("delete leaves neither processes, mounts nor files")
def delete(world):
    world.on_machine(OTHER, "sh", "-c", "setsid sleep 4711 > /dev/null 2>&1 &").ok()
    world.program("machine", "delete", OTHER).ok()
    world.machines.remove(OTHER)
    equal(os.path.exists(os.path.join(world.data, "machines", OTHER)), False)
    equal(subprocess.run(["pgrep", "-f", "sleep 4711"], capture_output=True, check=False).returncode, 1)
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        equal("azcmagent" in mounts.read(), False)


UNPRIVILEGED = r"""
set -e
mount --bind "$1/passwd" /etc/passwd; mount --bind "$1/group" /etc/group
mount --bind "$1/subuid" /etc/subuid; mount --bind "$1/subuid" /etc/subgid
exec setpriv --reuid 23456 --regid 23456 --clear-groups env -i PATH="$PATH" HOME="$1/home" bash -c '
  set -e
  cd "$HOME"
  export ARCADIA_DATA="$HOME/data"
  ./arcadia up --detach > /dev/null 2>&1
  trap "./arcadia down > /dev/null 2>&1" EXIT
  ./arcadia machine create m1 --connect
  ./arcadia machine exec m1 -- bash < inside
  ./arcadia machine exec --user arcadmin m1 -- bash -c "ls /var/opt/azcmagent/tokens" || echo refused
  ./arcadia machine delete m1
  ls data/machines | wc -l
'
"""

INSIDE = r"""
echo "I am $(id -u) on $(hostname)"
azcmagent show -j | jq -r .status
url="http://localhost:40342/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fmanagement.azure.com"
path=$(curl -s -D - -H Metadata:true "$url" | grep Www-Authenticate | cut -d "=" -f 2 | tr -d "[:cntrl:]")
sudo stat -c "%U %G %a" "$path"
token=$(curl -s -H Metadata:true -H "Authorization: Basic $(sudo cat $path)" "$url" | jq -r .access_token)
curl -sS -H "Authorization: Bearer $token" "https://management.azure.com/subscriptions?api-version=2022-12-01" | jq -c .value

ps -e -o user=,args= | grep himds | grep -v grep | cut -d " " -f 1
"""


def unprivileged(world, name, subordinate):
    """An ordinary user of this host, made up in a mount namespace of the test's own."""
    folder = os.path.join(world.folder, name)
    os.makedirs(f"{folder}/home")
    os.chmod(world.folder, 0o711)
    for file, line in (("passwd", f"lab1:x:23456:23456::{folder}/home:/bin/sh\n"), ("group", "lab1:x:23456:\n")):
        with open(f"/etc/{file}", encoding="utf-8") as base, open(f"{folder}/{file}", "w", encoding="utf-8") as out:
            out.write(base.read() + line)
    for file, text in (("subuid", subordinate), ("home/inside", INSIDE)):
        with open(f"{folder}/{file}", "w", encoding="utf-8") as out:
            out.write(text)
    subprocess.run(["cp", world.arcadia, f"{folder}/home/arcadia"], check=True)
    subprocess.run(["chown", "-R", "23456:23456", f"{folder}/home"], check=True)
    os.chmod(f"{folder}/home", 0o700)
    return world.run(["unshare", "--mount", "bash", "-c", UNPRIVILEGED, "sh", folder])


@check("an ordinary user with subordinate ids has a site and a machine with separate users")
def ordinary(world):
    done = unprivileged(world, "ordinary", "lab1:300000:65536\n").ok()
    contains(done.out, "I am 0 on m1", "Connected", "[]", "refused")
    contains(done.out.splitlines(), "himds himds 440", "himds")
    equal(done.out.splitlines()[-1], "0")


@check("an ordinary user without subordinate ids has one with a single user, and is told so")
def single(world):
    done = unprivileged(world, "single", "").ok()
    contains(done.out, "I am 0 on m1", "Connected", "[]")
    contains(done.out.splitlines(), "root")
    contains(done.err, "one user only")
    equal(done.out.splitlines()[-1], "0")
