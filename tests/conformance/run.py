#!/usr/bin/env python3
"""Real clients against a started site. The last line is `N passed, N failed`.

    python3 tests/conformance/run.py [--keep] [WORD ...]

`arcadia` and `az` are taken from the search path; `cargo xtask ci` puts them there. With words, only checks whose
name contains one of them run; later checks need what earlier ones made.
"""

import sys

import harness

# In the order in which they run.
import checks_login  # noqa: F401
import checks_groups  # noqa: F401
import checks_vaults  # noqa: F401
import checks_directory  # noqa: F401
import checks_roles  # noqa: F401
import checks_secrets  # noqa: F401
import checks_policies  # noqa: F401
import checks_resources  # noqa: F401
import checks_machine  # noqa: F401
import checks_extensions  # noqa: F401
import checks_isolation  # noqa: F401
import checks_sdks  # noqa: F401
import checks_storage  # noqa: F401
import checks_database  # noqa: F401
import checks_backup  # noqa: F401
import checks_wire  # noqa: F401
import checks_own_domain  # noqa: F401
import checks_time  # noqa: F401
import checks_harness  # noqa: F401


def main():
    words = [word for word in sys.argv[1:] if word != "--keep"]
    world = harness.World(keep="--keep" in sys.argv)
    counter = harness.Counter()
    try:
        world.start()
        counter = harness.run_checks(world, words)
    except AssertionError as error:
        counter.tell("the site starts", str(error))
    finally:
        try:
            world.stop()
        except AssertionError as error:
            counter.tell("nothing panicked", str(error))
    print(f"{counter.passed} passed, {counter.failed} failed")
    return 0 if counter.failed == 0 and counter.passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
