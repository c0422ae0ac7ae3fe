"""The disk under the spools: whether its flushes are worth anything, and what one costs."""

import os
import statistics
import subprocess
import time

MEMORY_FILE_SYSTEMS = {"tmpfs", "ramfs", "devtmpfs", "overlay"}


def kind(directory):
    """Refuses a spool whose flushes cost nothing; returns what it is on."""
    out = subprocess.run(["findmnt", "-n", "-o", "FSTYPE,SOURCE,TARGET,OPTIONS", "-T", directory],
                         check=True, capture_output=True, text=True).stdout.split()
    kind, source, target, options = out[:4]
    if kind in MEMORY_FILE_SYSTEMS:
        raise SystemExit(f"bench: {directory} is on {kind}: a flush would cost nothing there, and the figures would mean nothing; "
             "name a directory on a disk with --directory")
    unsafe = {"nobarrier", "barrier=0"} & set(options.split(","))
    if unsafe:
        raise SystemExit(f"bench: {directory} ({target}) is mounted with {unsafe.pop()}: flushes do not reach the disk there")
    return f"{kind} on {source}"


def flush_millis(directory, rounds=300):
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
