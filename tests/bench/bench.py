#!/usr/bin/env python3
"""make bench: what a Postern gateway carries, next to others that do the same job on the same machine in the same run.

    make bench                    every line
    make bench ONLY=auth,idle     some of them, by name

  relay    take mail for one domain, 250 after stable storage, relay it to a sink: next to Postfix and Exim
  accept   take mail only, 100 kept connections: next to the disk's rate of flushes by one writer
  auth     SPF, DKIM, DMARC, greylist, limits: next to Postfix with milters and policy services, and with rspamd
  full     the same and spamd and clamd: time from MAIL to 250, next to Postfix with the same scanners
  idle     memory of 10,000 idle connections, in clear and in TLS, and of each process
  large    memory that one message of 50 MiB takes
  queued   a hundred thousand and a million waiting messages
  urgent   a password reset behind 100,000 newsletters

Peers take turns in the same run, on the same disk, with the same source and sink; each is configured in peers.py, filters.py
or scanners.py. A target that is missed fails nothing: it is printed, and docs/performance.md says what bounds it.
It needs root (network namespace, Postfix), a relay built with --release, and a spool that is not on tmpfs.
"""

import argparse
import os
import pathlib
import platform
import shutil
import sys
import tempfile
import time

import accepting
import authentication
import disk
import memory
import queued
import relaying
import report
import scanning
import urgent
import world
from load import Sink

TOP = pathlib.Path(__file__).resolve().parents[2]


class Run:
    """What every line works with."""

    def __init__(self, options, base, sink):
        self.base, self.sink, self.domain = base, sink, world.DOMAIN
        self.relay = options.relay.resolve()
        self.exim = TOP / "build/bench/exim/usr/sbin/exim4"
        self.rounds, self.scale = options.rounds, options.scale
        self.flush_millis = 0.0

    def count(self, messages):
        """So many messages, or as many fewer as the scale says."""
        return max(20, round(messages * self.scale))

    def directory(self, name):
        """A new directory for a line's peers, which run as users of their own."""
        directory = pathlib.Path(self.base, name)
        directory.mkdir()
        directory.chmod(0o755)
        return directory


LINES = {
    "relay": relaying.line,
    "accept": accepting.line,
    "auth": authentication.line,
    "full": scanning.line,
    "idle": memory.idle,
    "large": memory.large,
    "queued": queued.line,
    "urgent": urgent.line,
}


def fail(what):
    sys.exit(f"bench: {what}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relay", type=pathlib.Path, default=pathlib.Path("target/release/postern-relay"))
    parser.add_argument("--directory", default="/var/tmp", help="where the spools go (default /var/tmp)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each peer in each cell (default 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the messages that are sent: 0.1 for a look")
    parser.add_argument("--only", default="", help="lines, with commas between")
    options = parser.parse_args()
    options.lines = [name for name in options.only.split(",") if name] or list(LINES)
    if unknown := set(options.lines) - set(LINES):
        fail(f"there is no line {', '.join(unknown)}; there are: {', '.join(LINES)}")
    return options


def main():
    options = arguments()
    if os.geteuid() != 0:
        fail("Postfix's master and the network namespace need root: run make bench as root")
    for program in ("smtp-source", "smtp-sink", "postfix", "strace", "findmnt", "unshare", "ip"):
        if not shutil.which(program):
            fail(f"{program} is missing: run .ci/install bench")
    if not options.relay.is_file():
        fail(f"{options.relay} is missing: cargo build --release --workspace --bins")
    spool, began = disk.kind(options.directory), time.monotonic()
    world.enter()
    # All peers have the two cores that the targets are for, however many there are; what is started from here inherits it.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    with tempfile.TemporaryDirectory(prefix="postern-bench-", dir=options.directory) as base:
        os.chmod(base, 0o755)  # Postfix's processes and the relay run as users of their own
        prepared = pathlib.Path(base, "etc")
        prepared.mkdir()
        world.prepare(prepared)
        with Sink(base) as sink:
            run = Run(options, base, sink)
            run.flush_millis = disk.flush_millis(base)
            print(f"machine   {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores, Linux {platform.release()}, load {os.getloadavg()[0]:.1f} at the start")
            print(f"spool     {spool}; append of 4 KiB + fdatasync: {run.flush_millis:.2f} ms")
            print(f"rounds    {run.rounds} of each, in turns; medians, with the spread (max - min) in % of the median; "
                  "a spread above some 20% means a busy machine")
            if run.scale != 1:
                print(f"scale     {run.scale}: TOO FEW MESSAGES FOR FIGURES")
            broken = []
            for name in options.lines:
                start = time.monotonic()
                print(f"\n== {name}", flush=True)
                try:
                    LINES[name](run)
                except SystemExit as error:
                    # One peer that fails does not take the other lines with it.
                    broken.append(name)
                    report.absent(name, str(error).splitlines()[0])
                    print(error, flush=True)
                print(f"   {time.monotonic() - start:.0f} s", flush=True)
            report.summary()
    print(f"\n{time.monotonic() - began:.0f} s in all")
    if broken:
        fail(f"these lines could not be measured: {', '.join(broken)}")


if __name__ == "__main__":
    main()
