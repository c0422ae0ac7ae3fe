"""Accept and relay: mail for one domain from anybody, 250 when it is on stable storage, relayed to one fixed next hop.

    smtp-source  ──▶  gateway under test, port A  ──▶  smtp-sink, port B          all on loopback

No scanners, no DNS, no TLS, on all sides; each message over a connection of its own. Two figures for each cell:
  accepted  messages / time until the source has its last 250
  relayed   messages / time until the sink has the last message
and, from runs of their own under strace, flushes for each message.
"""

import contextlib
import statistics
import subprocess
import time

import flushes
import report
from load import send
from peers import Exim, Postern, Postfix

SIZES = {4096: "4 KiB", 102400: "100 KiB"}
# Messages for one run of each (sessions, size): some seconds of work for any peer.
COUNTS = {(1, 4096): 500, (10, 4096): 2000, (50, 4096): 3000, (100, 4096): 4000,
          (1, 102400): 300, (10, 102400): 1000, (50, 102400): 1500, (100, 102400): 1500}
# Exim starts processes for each message: it is compared where that is no handicap of latency alone, and with a part of the
# messages, so that the runs take equally long.
EXIM_FROM, EXIM_PART = 50, 4
# Seconds after which no further cell is begun.
DEADLINE = 540
# relayed, Postern / Postfix
TARGETS = {(100, 4096): 6, (1, 4096): 2, (1, 102400): 3, (10, 102400): 3, (50, 102400): 3, (100, 102400): 3}


def spread(values):
    """Median, and how far the rounds lie apart, in per cent of it."""
    middle = statistics.median(values)
    return middle, 100 * (max(values) - min(values)) / middle


@contextlib.contextmanager
def peers(run, counted=False):
    """All peers, started and ended. Exim has its own flushes counted, too."""
    base = run.directory("relay-counted" if counted else "relay")
    common = {"sink": run.sink.port, "domain": run.domain, "counted": counted}
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(Postern(base, run.relay, **common)), stack.enter_context(Postfix(base, **common))]
        if run.exim.is_file():
            try:
                started.append(stack.enter_context(Exim(base, run.exim, **common)))
            except subprocess.CalledProcessError as error:
                report.absent("relay", f"Exim does not run here: {error.stderr.strip()}")
        else:
            report.absent("relay", "Exim is not unpacked under build/bench: run .ci/install bench")
        yield started


def line(run):
    with peers(run) as started:
        measure(run, started)
    with peers(run, counted=True) as started:
        count_flushes(run, started)


def measure(run, started):
    deadline = time.monotonic() + DEADLINE
    print("peers     " + "  |  ".join(peer.version for peer in started) + "\n")
    for peer in started:  # warm up: processes started, caches filled
        send(peer.port, run.sink, 10, 4096, run.count(200), run.domain)
    print(f"{'sessions':>8} {'size':>8} {'messages':>8}  {'':8}" + "".join(f"{peer.name + '/s':>17}" for peer in started) + "   ratios")
    for (sessions, octets), messages in COUNTS.items():
        if time.monotonic() > deadline:
            report.absent("relay", f"{sessions} sessions, {SIZES[octets]}: out of time, the machine is too slow or too busy")
            continue
        cell(run, [peer for peer in started if peer.name != "Exim" or sessions >= EXIM_FROM], sessions, octets, run.count(messages))


def cell(run, chosen, sessions, octets, count):
    results = {peer.name: ([], []) for peer in chosen}
    for turn in range(run.rounds):
        for peer in chosen if turn % 2 == 0 else reversed(chosen):
            sent = max(sessions, count // EXIM_PART) if peer.name == "Exim" else count
            for values, value in zip(results[peer.name], send(peer.port, run.sink, sessions, octets, sent, run.domain)):
                values.append(value)
    for which, label in enumerate(("accepted", "relayed")):
        found = [spread(results[peer.name][which]) for peer in chosen]
        start = f"{sessions:>8} {SIZES[octets]:>8} {count:>8}" if which == 0 else " " * 26
        ratios = [found[0][0] / theirs for theirs, _ in found[1:]]
        print(f"{start}  {label:8}" + "".join(f"{middle:>11.0f} ±{apart:>3.0f}%" for middle, apart in found)
              + " " * 17 * (3 - len(found)) + "".join(f"{ratio:>7.2f}" for ratio in ratios), flush=True)
        if which == 1 and (sessions, octets) in TARGETS:
            report.target("relay", f"{sessions} sessions, {SIZES[octets]}, relayed, Postern / Postfix", ratios[0],
                          TARGETS[sessions, octets])


def count_flushes(run, started):
    print("\nflushes (fsync, fdatasync, ...) for each message accepted and relayed, counted in runs of their own")
    print(f"{'sessions':>8} {'size':>8} {'messages':>8}  {'':8}" + "".join(f"{peer.name:>17}" for peer in started))
    for sessions, messages in [(1, 200), (10, 1000), (100, 1000)]:
        count = run.count(messages)
        per = [flushes.count(peer, lambda p=peer: send(p.port, run.sink, sessions, 4096, count, run.domain)) / count for peer in started]
        print(f"{sessions:>8} {'4 KiB':>8} {count:>8}  {'':8}" + "".join(f"{value:>17.2f}" for value in per), flush=True)
