#!/usr/bin/env python3
"""make bench: messages per second through a Postern gateway, next to Postfix doing the same job.

    smtp-source  ──▶  gateway under test, port A  ──▶  smtp-sink, port B          all on loopback

The job: take mail for example.org from anybody, say 250 when it is on stable storage, relay it to one fixed
next hop. No scanners, no DNS, no TLS, on both sides. Both get the same spool disk, the same source, the same
sink, the same number of parallel deliveries, in turns in the same run, each first in every other round.

Two figures for each cell of sessions and size, medians over the rounds:
  accepted  messages / time until the source has its last 250
  relayed   messages / time until the sink has the last message
and, from runs of their own under strace, flushes for each message.

It needs root (Postfix does), a relay built with --release, and a spool that is not on tmpfs.
"""

import argparse
import contextlib
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import flushes
from load import Sink, send
from peers import Postern, Postfix

DOMAIN = "example.org"
SIZES = [(4096, "4 KiB"), (102400, "100 KiB")]
# Messages for one run of each (sessions, size): some seconds of work for either peer.
COUNTS = {(1, 4096): 800, (10, 4096): 2500, (100, 4096): 4000, (1, 102400): 400, (10, 102400): 1200, (100, 102400): 2000}
# Seconds after which no further cell is begun.
DEADLINE = {"full": 600, "quick": 120}
MEMORY_FILE_SYSTEMS = {"tmpfs", "ramfs", "devtmpfs", "overlay"}


def fail(what):
    sys.exit(f"bench: {what}")


def spool_disk(directory):
    """Refuses a spool whose flushes cost nothing; returns what it is on."""
    out = subprocess.run(["findmnt", "-n", "-o", "FSTYPE,SOURCE,TARGET,OPTIONS", "-T", directory],
                         check=True, capture_output=True, text=True).stdout.split()
    kind, source, target, options = out[:4]
    if kind in MEMORY_FILE_SYSTEMS:
        fail(f"{directory} is on {kind}: a flush would cost nothing there, and the figures would mean nothing; "
             "name a directory on a disk with --directory")
    unsafe = {"nobarrier", "barrier=0"} & set(options.split(","))
    if unsafe:
        fail(f"{directory} ({target}) is mounted with {unsafe.pop()}: flushes do not reach the disk there")
    return f"{kind} on {source}"


def flush_cost(directory, rounds=300):
    """Milliseconds for an append of 4 KiB and an fdatasync: what the disk itself allows one writer."""
    times = []
    with open(os.path.join(directory, "probe"), "wb", buffering=0) as probe:
        for _ in range(rounds):
            start = time.perf_counter()
            probe.write(b"x" * 4096)
            os.fdatasync(probe.fileno())
            times.append(time.perf_counter() - start)
    os.unlink(os.path.join(directory, "probe"))
    return statistics.median(times) * 1000


def run_cell(peers, sink, sessions, size, count, rounds):
    """Runs of one cell: {peer: ([accepted/s], [relayed/s])}."""
    results = {peer.name: ([], []) for peer in peers}
    for turn in range(rounds):
        for peer in peers if turn % 2 == 0 else reversed(peers):
            accepted, relayed = send(peer.port, sink, sessions, size, count, DOMAIN)
            results[peer.name][0].append(accepted)
            results[peer.name][1].append(relayed)
    return results


def spread(values):
    """Median, and how far the rounds lie apart, in per cent of it."""
    middle = statistics.median(values)
    return middle, 100 * (max(values) - min(values)) / middle


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--relay", type=pathlib.Path, default=pathlib.Path("target/release/postern-relay"))
    parser.add_argument("--directory", default="/var/tmp", help="where the spools go (default /var/tmp)")
    parser.add_argument("--rounds", type=int, help="runs of each peer in each cell (default 5; 3 with BENCH_QUICK=1)")
    options = parser.parse_args()
    quick = os.environ.get("BENCH_QUICK", "") not in ("", "0")
    rounds = options.rounds or (3 if quick else 5)
    if os.geteuid() != 0:
        fail("Postfix's master needs root: run make bench as root")
    for program in ("smtp-source", "smtp-sink", "postfix", "strace", "findmnt"):
        if not shutil.which(program):
            fail(f"{program} is missing: apt-get install postfix strace util-linux")
    if not options.relay.is_file():
        fail(f"{options.relay} is missing: cargo build --release -p postern-relay")
    disk, began = spool_disk(options.directory), time.monotonic()

    with tempfile.TemporaryDirectory(prefix="postern-bench-", dir=options.directory) as directory:
        os.chmod(directory, 0o755)  # Postfix's processes and the relay run as users of their own
        with Sink(directory) as sink:
            gateways = {"base": directory, "relay": options.relay.resolve(), "sink": sink.port, "domain": DOMAIN}
            print(f"machine   {os.cpu_count()} cores, Linux {platform.release()}, load {os.getloadavg()[0]:.1f} at the start")
            print(f"spool     {disk}; append of 4 KiB + fdatasync: {flush_cost(directory):.2f} ms")
            print(f"rounds    {rounds} of each, in turns; medians, with the spread (max - min) in % of the median")
            with pair(gateways) as peers:
                measure(peers, sink, rounds, quick)
            with pair(gateways, counted=True) as peers:
                count_flushes(peers, sink)
            print(f"\n{time.monotonic() - began:.0f} s in all. Ratio above 1: Postern is faster. "
                  "A spread above some 20% means a busy machine.")


@contextlib.contextmanager
def pair(gateways, counted=False):
    """Both peers, started and ended."""
    without_relay = {name: value for name, value in gateways.items() if name != "relay"}
    with Postern(**gateways, counted=counted) as postern, Postfix(**without_relay, counted=counted) as postfix:
        yield [postern, postfix]


def measure(peers, sink, rounds, quick):
    deadline = time.monotonic() + DEADLINE["quick" if quick else "full"]
    print(f"peers     {peers[0].version}  |  {peers[1].version}\n")
    for peer in peers:  # warm up: processes started, caches filled
        send(peer.port, sink, 10, 4096, 200, DOMAIN)
    heading = f"{'sessions':>8} {'size':>8} {'messages':>8}  {'':8} {'Postern/s':>16} {'Postfix/s':>16} {'ratio':>7}"
    print(heading)
    cells = [(s, size) for size in SIZES for s in (1, 10, 100)]
    for number, (sessions, (octets, size)) in enumerate(cells):
        count = COUNTS[sessions, octets] // (4 if quick else 1)
        left = deadline - time.monotonic()
        if left < 0:
            fail(f"out of time after {number} of {len(cells)} cells: this machine is too slow or too busy for this bench")
        results = run_cell(peers, sink, sessions, octets, count, rounds)
        for which, label in enumerate(("accepted", "relayed")):
            (ours, a), (theirs, b) = (spread(results[peer.name][which]) for peer in peers)
            start = f"{sessions:>8} {size:>8} {count:>8}" if which == 0 else " " * 26
            print(f"{start}  {label:8} {ours:>9.0f} ±{a:>4.0f}% {theirs:>9.0f} ±{b:>4.0f}% {ours / theirs:>7.2f}", flush=True)


def count_flushes(peers, sink):
    print("\nflushes (fsync, fdatasync, ...) for each message accepted and relayed, counted in runs of their own")
    print(f"{'sessions':>8} {'size':>8} {'messages':>8}  {'':8} {'Postern':>16} {'Postfix':>16}")
    for sessions, count in [(1, 200), (10, 1000), (100, 1000)]:
        per = [flushes.count(peer, lambda p=peer: send(p.port, sink, sessions, 4096, count, DOMAIN)) / count for peer in peers]
        print(f"{sessions:>8} {'4 KiB':>8} {count:>8}  {'':8} {per[0]:>16.2f} {per[1]:>16.2f}", flush=True)


if __name__ == "__main__":
    main()
