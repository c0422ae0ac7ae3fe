#!/usr/bin/env python3
"""`make demo`: boots both images under QEMU on three networks and takes mail through both firewalls.

    build/venv/bin/python tests/machine/demo.py          run the flows, print every message's trace
    KEEP=1 … demo.py                                     … and leave the nodes running
    … demo.py --stop DIRECTORY                           end what KEEP=1 left running
"""

import argparse
import os
import pathlib
import signal
import sys

import run
import steps
import world as testbed

FURTHER = """
How to look further
  images            {images}
  flash one         dd if={gateway} of=/dev/YOURDISK bs=4M conv=fsync status=progress
  this run's files  {directory}
                    *.journal (what the nodes logged), *.console (their screens), mx/ (mail that left)
  the site          {directory}/site.toml; try: {postern} site matrix {directory}/site.toml
"""
KEPT = """
The nodes keep running.
  a node's console  socat -,raw,echo=0,escape=0x1d UNIX-CONNECT:{directory}/gateway.tty   (Ctrl-] leaves)
  from outside      ip netns exec {tag}-outside swaks --server 203.0.113.10 --tls …
  as the staff      ip netns exec {tag}-staff openssl s_client -connect 10.200.1.25:993
  watch a journal   tail -f {directory}/gateway.journal
  stop it all       {python} tests/machine/demo.py --stop {directory}
"""


def main():
    parser = argparse.ArgumentParser(description="the demonstration")
    parser.add_argument("--stop", type=pathlib.Path, metavar="DIRECTORY")
    parser.add_argument("--postern", type=pathlib.Path, default=run.default_postern())
    words = parser.parse_args()
    if words.stop:
        testbed.stop_kept(words.stop)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    images = steps.requisites(testbed.TOP / "build" / "images", words.postern)
    report = steps.Report()
    world = testbed.World(words.postern, images, report.say, os.environ.get("KEEP") == "1")
    try:
        if report.step(world, "boot", "both nodes boot, take their site and serve",
                       testbed.World.up):
            for step in steps.FLOWS:
                report.step(world, *step)
            show_consoles(world)
        print(FURTHER.format(images=testbed.TOP / "build/images", gateway=images["gateway"],
                             directory=world.directory, postern=words.postern))
        if world.keep:
            print(KEPT.format(directory=world.directory, tag=world.tag, python=sys.executable))
    finally:
        world.down()
    return report.finish()


def show_consoles(world):
    for node in world.nodes.values():
        world.say(steps.console.picture(node))


if __name__ == "__main__":
    sys.exit(main())
