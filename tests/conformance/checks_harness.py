"""That the checks notice what no client sees."""

import os
import shutil

from harness import World, check, contains, equal


@check("a panic in a site's log, or a machine's, fails the checks")
def panic(world):
    for log in ("log/site.log", "log/site.log.1", "machines/m1/holder.log"):
        site, outer = World(False), World(False)
        outer.others.append(site)
        path = os.path.join(site.data, log)
        os.makedirs(os.path.dirname(path))
        with open(path, "w", encoding="utf-8") as file:
            file.write("all is well\nthread 'main' panicked at src/a.rs:1:2:\nno reason\n")
        try:
            outer.stop()
        except AssertionError as error:
            contains(str(error), log, "panicked at src/a.rs:1:2: no reason")
        else:
            raise AssertionError(f"{log} was not looked at")
        equal(os.path.exists(path), True)
        for folder in (site.folder, outer.folder):
            shutil.rmtree(folder)
    unharmed = World(False)
    unharmed.stop()
    equal(os.path.exists(unharmed.folder), False)
