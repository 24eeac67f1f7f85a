"""What the checks share: a started site, a way to run clients against it, and counting.

A check is a function with a name. It passes when it returns, and fails when it raises; there is no third way.
Checks run in the order in which they are written, because clients are used as people use them: log in, make a
vault, then a secret in it.
"""

import base64
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

CHECKS = []


def check(name):
    """Registers a check."""

    def register(function):
        CHECKS.append((name, function))
        return function

    return register


def is_alive(pid):
    """Whether a process has anything open still; one that nobody has waited for yet has not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class Result:
    """What a client printed and how it ended."""

    def __init__(self, command, code, out, err):
        self.command, self.code, self.out, self.err = command, code, out, err

    def ok(self):
        if self.code != 0:
            raise AssertionError(f"{self.command}: exit status {self.code}: {clip(self.err or self.out)}")
        return self

    def fails(self, *words, code=None):
        """The client must have failed, and said these words."""
        if self.code == 0:
            raise AssertionError(f"{self.command}: succeeded, and should have been refused: {clip(self.out)}")
        if code is not None and self.code != code:
            raise AssertionError(f"{self.command}: exit status {self.code}, not {code}: {clip(self.err)}")
        said = self.err + self.out
        for word in words:
            if word not in said:
                raise AssertionError(f"{self.command}: did not say {word!r}: {clip(said)}")
        return self

    def json(self):
        try:
            return json.loads(self.ok().out)
        except ValueError:
            raise AssertionError(f"{self.command}: did not print JSON: {clip(self.out)}") from None

    def text(self):
        return self.ok().out.strip()

    def lines(self):
        return self.text().splitlines()


class World:
    """A site in a directory of its own, and clients that use it."""

    def __init__(self, keep):
        self.keep = keep
        self.arcadia = find("arcadia", "cargo build")
        self.az = find("az", "cargo xtask ci")
        self.folder = tempfile.mkdtemp(prefix="arcadia-conformance-")
        self.data = os.path.join(self.folder, "data")
        self.sdk_python = os.environ.get("ARCADIA_SDK_PYTHON") or sys.executable
        self.node_modules = os.environ.get("ARCADIA_NODE_MODULES", "")
        self.env = {}
        self.machines = []
        # Further sites that checks started.
        self.others = []

    def start(self, *arguments):
        self.program("up", "--detach", *arguments).ok()
        site = self.program("env", "--admin", "--format", "json").json()
        self.env = {**os.environ, **site}
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            self.env.pop(name, None)
        self.tenant, self.subscription = site["AZURE_TENANT_ID"], site["AZURE_SUBSCRIPTION_ID"]
        self.client, self.secret = site["AZURE_CLIENT_ID"], site["AZURE_CLIENT_SECRET"]
        self.user, self.password = site["ARCADIA_USER"], site["ARCADIA_PASSWORD"]
        self.group_id = f"/subscriptions/{self.subscription}/resourceGroups/arc-hack"

    def stop(self):
        """Raises when something of the site panicked, once everything is put away."""
        # A machine's log goes with the machine.
        told = {line: None for line in panics(self.folder)}
        for other in self.others:
            try:
                other.stop()
            except AssertionError as error:
                told[str(error)] = None
        for name in self.machines:
            self.program("machine", "delete", name)
        self.program("down")
        told.update((line, None) for line in panics(self.folder))
        if self.keep or told:
            print(f"kept: {self.folder}", file=sys.stderr)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        if told:
            raise AssertionError("\n        ".join(told))

    def program(self, *arguments, **options):
        """Runs `arcadia`."""
        return self.run([self.arcadia, "--data", self.data, *arguments], **options)

    def kill_site(self):
        """As a crash does; comes back when the process is gone, and its sockets with it."""
        pid = self.program("status", "--json").json()["pid"]
        os.kill(pid, signal.SIGKILL)
        while is_alive(pid):
            time.sleep(0.01)

    def run(self, command, env=None, stdin="", timeout=180, cwd=None):
        full = {**(self.env or os.environ), **(env or {})}
        shown = " ".join(os.path.basename(word) if place == 0 else word for place, word in enumerate(command))
        try:
            done = subprocess.run(
                command, env=full, input=stdin, capture_output=True, text=True, timeout=timeout, cwd=cwd or self.folder
            )
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{clip(shown)}: did not end within {timeout} s") from None
        return Result(clip(shown), done.returncode, done.stdout, done.stderr)

    def login_folder(self, name):
        folder = os.path.join(self.folder, f"az-{name}")
        os.makedirs(folder, exist_ok=True)
        return {"AZURE_CONFIG_DIR": folder, "AZURE_CORE_ONLY_SHOW_ERRORS": "true"}

    def run_az(self, *arguments, who="user", **options):
        """Runs `az` with the login of `who`."""
        return self.run([self.az, *arguments], env=self.login_folder(who), **options)

    def on_machine(self, name, *command, user=None, **options):
        """Runs a command on a machine, as root unless `user` is named."""
        who = ["--user", user] if user else []
        return self.program("machine", "exec", *who, name, "--", *command, **options)

    def az_on_machine(self, name, *arguments, **options):
        variables = [f"{key}={value}" for key, value in self.login_folder(f"machine-{name}").items()]
        return self.on_machine(name, "env", *variables, self.az, *arguments, **options)


def panics(folder):
    """The lines of the logs of all sites in a folder, and of their machines', that tell of a panic, each with the line
    after it. Nobody reads these, and a task that panics is cut off without any client having to notice."""
    found = []
    for log in sorted(glob.glob(f"{folder}/*/log/*") + glob.glob(f"{folder}/*/machines/*/holder.log")):
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines() + [""]
        found += [f"{log}: {line} {lines[at + 1]}" for at, line in enumerate(lines) if "panicked at" in line]
    return found


def find(program, how):
    path = shutil.which(program)
    if not path:
        sys.exit(f"{program} is not on the search path; {how} puts it there")
    return os.path.realpath(path) if program == "arcadia" else path


def clip(text, length=600):
    text = re.sub(r"\s+", " ", text.strip())
    text = re.sub(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", "<token>", text)
    return text if len(text) <= length else text[:length] + " ..."


def claims(token):
    """What a token says, unverified."""
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def equal(found, wanted):
    if found != wanted:
        raise AssertionError(f"found {found!r}, wanted {wanted!r}")


def contains(found, *wanted):
    for one in wanted:
        if one not in found:
            raise AssertionError(f"{one!r} is not in {clip(str(found))}")


def eventually(function, seconds=20):
    """Repeats a check until it passes or the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return function()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


class Counter:
    def __init__(self):
        self.passed = self.failed = 0

    def tell(self, name, error=None):
        if error is None:
            self.passed += 1
            print(f"ok      {name}", flush=True)
        else:
            self.failed += 1
            print(f"FAILED  {name}\n        {error}", flush=True)


def run_checks(world, words):
    """Runs the checks whose names contain one of the words; all without words."""
    counter = Counter()
    for name, function in CHECKS:
        if words and not any(word in name for word in words):
            continue
        try:
            nested = function(world)
        except AssertionError as error:
            counter.tell(name, str(error))
        except Exception:  # a fault of the check itself, which fails it as well
            counter.tell(name, traceback.format_exc().strip().replace("\n", "\n        "))
        else:
            # A program that made checks of its own gives their outcomes.
            if nested is None:
                counter.tell(name)
            for inner, error in nested or []:
                counter.tell(f"{name}: {inner}", error)
    return counter


def outcomes(result, least):
    """The `ok NAME` and `failed NAME: WHY` lines of a client program, which must have made `least` checks and
    ended by itself."""
    found = []
    for line in result.out.splitlines():
        if line.startswith("ok "):
            found.append((line[3:], None))
        elif line.startswith("failed "):
            name, _, why = line[7:].partition(": ")
            found.append((name, why or "no reason given"))
    if result.code != 0 and all(error is None for _, error in found):
        found.append(("ends well", f"exit status {result.code}: {clip(result.err)}"))
    if len(found) < least:
        found.append((f"makes at least {least} checks", f"{len(found)}: {clip(result.err)}"))
    return found
