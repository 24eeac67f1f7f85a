"""Tells the outcome of each check in a line: `ok NAME` or `failed NAME: WHY`."""

import sys

failed = False


def tell(name, error=None):
    global failed
    if error is None:
        print(f"ok {name}", flush=True)
    else:
        failed = True
        print(f"failed {name}: {' '.join(str(error).split())[:400]}", flush=True)


def attempt(name, function):
    """Runs a check; gives its value, or none when it failed."""
    try:
        value = function()
    except Exception as error:
        tell(name, f"{type(error).__name__}: {error}")
        return None
    tell(name)
    return value


async def attempt_async(name, coroutine):
    try:
        value = await coroutine
    except Exception as error:
        tell(name, f"{type(error).__name__}: {error}")
        return None
    tell(name)
    return value


def equal(found, wanted):
    if found != wanted:
        raise AssertionError(f"found {found!r}, wanted {wanted!r}")


def end():
    sys.exit(1 if failed else 0)
