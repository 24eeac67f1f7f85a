#!/usr/bin/env python3
"""Runs every `sh` block of docs/guide as it is written, page by page, each page in a shell, a folder and a data
directory of its own. The last line is `N passed, N failed`, a page being a check.

    python3 tests/guide/run.py [WORD ...]     only pages whose name contains one of the words
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE_SECONDS_MAX = 600


def blocks(text):
    """The `sh` blocks of a page, each with the number of its first line."""
    found, block, start = [], None, 0
    for number, line in enumerate(text.splitlines(), 1):
        if block is None and line.strip() == "```sh":
            block, start = [], number + 1
        elif block is not None and line.strip() == "```":
            found.append((start, "\n".join(block)))
            block = None
        elif block is not None:
            block.append(line)
    if block is not None:
        raise ValueError(f"the block that begins in line {start} does not end")
    return found


def script(page):
    """One script of all blocks. It says where it is, so that a failure names its line."""
    parts = ["set -euo pipefail"]
    for start, block in blocks(page.read_text(encoding="utf-8")):
        parts += [f"echo '== {page.name}:{start}' >&2", block]
    return "\n".join(parts) + "\n"


def run(page):
    folder = tempfile.mkdtemp(prefix="arcadia-guide-")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AZURE_", "ARM_", "ARCADIA_"))}
    # The home stays the caller's: programs installed for one user are found through it.
    env |= {
        "ARCADIA_DATA": f"{folder}/site", "AZURE_CONFIG_DIR": f"{folder}/az", "XDG_DATA_HOME": f"{folder}/share",
        "AZURE_CORE_ONLY_SHOW_ERRORS": "true",
    }
    try:
        done = subprocess.run(
            ["bash", "-c", script(page)], cwd=folder, env=env, stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PAGE_SECONDS_MAX,
        )
        code, said = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        code, said = "none: the page took too long", str(late.stdout)
    # What a site says in the background nobody reads, and no client need notice a task that panicked. A machine's log goes
    # with the machine.
    logs = [*pathlib.Path(folder).glob("*/log/*"), *pathlib.Path(folder).glob("*/machines/*/holder.log")]
    said_aside = "".join(log.read_text(encoding="utf-8", errors="replace") for log in logs)
    for site in ("site", "guide-site"):
        data = pathlib.Path(folder, site)
        if data.is_dir():
            machines = data / "machines"
            for machine in machines.iterdir() if machines.is_dir() else []:
                subprocess.run(["arcadia", "--data", data, "machine", "delete", machine.name], env=env, capture_output=True)
            subprocess.run(["arcadia", "--data", data, "down"], env=env, capture_output=True)
    for log in pathlib.Path(folder).glob("*/log/*"):
        said_aside += log.read_text(encoding="utf-8", errors="replace")
    if "panicked at" in said_aside:
        code, said = "none: the site or a machine panicked", said_aside[said_aside.index("panicked at"):][:2000]
    shutil.rmtree(folder, ignore_errors=True)
    return code, said


def main():
    passed = failed = 0
    for page in sorted((ROOT / "docs" / "guide").glob("*.md")):
        if sys.argv[1:] and not any(word in page.name for word in sys.argv[1:]):
            continue
        if not blocks(page.read_text(encoding="utf-8")):
            continue
        code, said = run(page)
        if code == 0:
            passed += 1
            print(f"ok      docs/guide/{page.name}", flush=True)
        else:
            failed += 1
            tail = "\n        ".join(said.splitlines()[-25:])
            print(f"FAILED  docs/guide/{page.name}: exit status {code}\n        {tail}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 and passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
