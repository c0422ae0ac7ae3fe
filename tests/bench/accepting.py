"""Accept only: 100 kept connections, 4 KiB, the next hop down, so that nothing is relayed meanwhile. With one flush for each
message nobody could take more than the disk's single-writer rate; above it group commit is at work."""

import statistics

import disk
import report
import world
from load import Load, accept
from peers import Postern

SESSIONS, OCTETS, MESSAGES = 100, 4096, 10000


def line(run):
    base, count = run.directory("accept"), run.count(MESSAGES)
    rates, flushes = [], []
    for number in range(run.rounds):
        # A new spool for each: what waits is not relayed and would grow.
        directory = base / str(number)
        directory.mkdir(mode=0o755)
        with Postern(directory, run.relay, world.NOBODY, run.domain) as postern:
            accept(postern.address, postern.port, [Load(SESSIONS, 200, OCTETS, kept=True)], f"someone@{run.domain}")
            load = [Load(SESSIONS, count, OCTETS, kept=True)]
            rates.append(count / accept(postern.address, postern.port, load, f"someone@{run.domain}"))
        flushes.append(1000 / disk.flush_millis(directory))
    rate, single = statistics.median(rates), statistics.median(flushes)
    print(f"{SESSIONS} kept connections, 4 KiB, {count} messages: {rate:.0f} accepted/s; "
          f"one writer's appends of 4 KiB with fdatasync: {single:.0f}/s")
    report.target("accept", "accepted / single-writer flushes", rate / single, 1)
