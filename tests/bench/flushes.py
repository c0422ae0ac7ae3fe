"""How often a peer asks the disk to flush: its system calls, counted by strace.

The peer is started under strace with a seccomp filter, so that only the calls of interest stop it: one that is
stopped at every call would work so slowly that its group commits would not be its own. The figures of speed come
from peers without strace all the same.
"""

import re
import time

CALLS = "fsync,fdatasync,sync_file_range,msync,sync,syncfs"


def prefix(log):
    """The command to put before the peer's own. -D: the process that is started is the peer, not strace."""
    return ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-e", "signal=none", "-e", f"trace={CALLS}", "-o", str(log)]


def count(peer, work):
    """Runs `work` and returns how many flushes the peer made meanwhile."""
    before = made(peer)
    work()
    time.sleep(1)  # what follows the last delivery
    calls = made(peer) - before
    if calls == 0:
        raise SystemExit(f"bench: strace saw no flush of {peer.name}: it says 250 before stable storage, or strace failed")
    return calls


def made(peer):
    with open(peer.flush_log, encoding="ascii", errors="replace") as log:
        return len(re.findall(rf"^\d+ +(?:{CALLS.replace(',', '|')})\(", log.read(), re.MULTILINE))
