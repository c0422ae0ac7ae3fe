#!/usr/bin/env python3
"""The machine tier: both images under QEMU, the mail flows, power cuts, tamper, console, firewalls.

    build/venv/bin/python tests/machine/run.py [--only a,b,…]

Needs root (namespaces, taps). Ends with "N passed, M failed"; logs stay in build/machine/.
"""

import argparse
import os
import pathlib
import signal
import sys

import steps
import world as testbed


def main():
    parser = argparse.ArgumentParser(description="the machine tier of the tests")
    parser.add_argument("--only", help="steps to run, by name, separated by commas")
    parser.add_argument("--postern", type=pathlib.Path, default=default_postern())
    parser.add_argument("--images", type=pathlib.Path, default=testbed.TOP / "build" / "images")
    words = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))   # so that clean-up runs
    images = steps.requisites(words.images, words.postern)
    chosen = steps.FLOWS[:4] + steps.PROBES + steps.FLOWS[4:] + steps.LAST
    if words.only:
        names = words.only.split(",")
        unknown = set(names) - {name for name, *_ in chosen}
        if unknown:
            parser.error(f"no step is called {', '.join(sorted(unknown))}; there are: "
                         f"{', '.join(name for name, *_ in chosen)}")
        chosen = [step for step in chosen if step[0] in names]
    report = steps.Report()
    world = testbed.World(words.postern, images, report.say)
    try:
        if report.step(world, "boot", "both nodes boot, take their site and serve",
                       testbed.World.up):
            for step in chosen:
                report.step(world, *step)
        else:
            report.failed += [name for name, *_ in chosen]
    finally:
        world.down()
    return report.finish()


def default_postern():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", testbed.TOP / "target"))
    return target / "release" / "postern"


if __name__ == "__main__":
    sys.exit(main())
