"""Two machines on one host, and the host itself, do not see one another; ordinary users have machines too."""

import os
import subprocess
import threading

from checks_machine import MACHINE
from harness import check, contains, equal

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
exec setpriv --reuid 23456 --regid 23456 --clear-groups env -i PATH="$PATH" HOME="$1/home" sh -c '
  set -e
  cd "$HOME"
  ./arcadia --data data up --detach > /dev/null 2>&1
  trap "./arcadia --data data down > /dev/null 2>&1" EXIT
  ./arcadia --data data machine create m1
  ./arcadia --data data machine exec m1 -- sh -c "echo I am \$(id -u) on \$(hostname); stat -c %U /var/opt/azcmagent; curl -s -o /dev/null -w %{http_code} -H Metadata:true http://localhost:40342/metadata/versions"
  echo
  ./arcadia --data data machine exec m1 -- sh -c "umask 337; echo s > /var/opt/azcmagent/k; chgrp himds /var/opt/azcmagent/k" || true
  ./arcadia --data data machine exec --user arcadmin m1 -- cat /var/opt/azcmagent/k || echo refused
  ./arcadia --data data machine delete m1
  ls data/machines | wc -l
'
"""


def unprivileged(world, name, subordinate):
    """An ordinary user of this host, made up in a mount namespace of the test's own."""
    folder = os.path.join(world.folder, name)
    os.makedirs(f"{folder}/home")
    os.chmod(world.folder, 0o711)
    for file, line in (("passwd", f"lab1:x:23456:23456::{folder}/home:/bin/sh\n"), ("group", "lab1:x:23456:\n")):
        with open(f"/etc/{file}", encoding="utf-8") as base, open(f"{folder}/{file}", "w", encoding="utf-8") as out:
            out.write(base.read() + line)
    with open(f"{folder}/subuid", "w", encoding="utf-8") as out:
        out.write(subordinate)
    subprocess.run(["cp", world.arcadia, f"{folder}/home/arcadia"], check=True)
    subprocess.run(["chown", "-R", "23456:23456", f"{folder}/home"], check=True)
    os.chmod(f"{folder}/home", 0o700)
    return world.run(["unshare", "--mount", "bash", "-c", UNPRIVILEGED, "sh", folder])


@check("an ordinary user with subordinate ids has a site and a machine with separate users")
def ordinary(world):
    done = unprivileged(world, "ordinary", "lab1:300000:65536\n").ok()
    contains(done.out, "I am 0 on m1", "himds", "200", "refused")
    equal(done.out.splitlines()[-1], "0")


@check("an ordinary user without subordinate ids has one with a single user, and is told so")
def single(world):
    done = unprivileged(world, "single", "").ok()
    contains(done.out, "I am 0 on m1", "root", "200")
    contains(done.err, "one user only")
    equal(done.out.splitlines()[-1], "0")
