"""Memory: 10,000 idle connections, each process at rest, and one message of 50 MiB on its way through.

Resident memory is the kernel's figure for a process (VmRSS), shared libraries included. For the large message it is what
belongs to a message: anonymous memory of smtpd and queue, and sealed memory files, each counted once however many hold it.
"""

import asyncio
import os
import pathlib
import re
import resource
import smtplib
import threading
import time

import report
from peers import Postern

CONNECTIONS = 10_000
IDLE_TARGET, PROCESS_TARGET = 250, 25
MIB = 1 << 20
# Octets, a little below the limit of 50 MiB, which is on the whole message.
LARGE = 50 * MIB - 4096


def status(pid, field):
    """A field of /proc/PID/status, in MiB."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)[1]) / 1024


def idle(run):
    count = min(CONNECTIONS, run.count(CONNECTIONS))
    # More than are opened: from 80 % of its capacity on a stranger may have fewer of them.
    capacity = count * 4 // 3
    # For us and, inherited, for the relay: its unit raises it likewise.
    resource.setrlimit(resource.RLIMIT_NOFILE, (capacity + 1000, max(capacity + 1000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    with Postern(run.directory("idle"), run.relay, run.sink.port, run.domain, connections=capacity) as postern:
        processes = postern.processes()
        print("at rest   " + ", ".join(f"{name} {status(pid, 'VmRSS'):.1f} MiB" for name, pid in processes.items()))
        largest = max(status(pid, "VmRSS") for pid in processes.values())
        report.target("idle", "the largest process at rest", largest, PROCESS_TARGET, least=False, unit=" MiB")
        asyncio.run(hold(postern, count, lambda: tell_held(processes["smtpd"], count)))


async def hold(postern, count, then):
    """Opens the connections, says EHLO on each, calls `then` while they are idle, and closes them."""
    writers = []

    async def one():
        reader, writer = await asyncio.open_connection(postern.address, postern.port)
        writers.append(writer)
        if not (await reader.readline()).startswith(b"220"):
            raise SystemExit("bench: a connection was not greeted")
        writer.write(b"EHLO client.example.net\r\n")
        while (await reader.readline())[3:4] == b"-":
            pass

    for start in range(0, count, 200):
        await asyncio.gather(*(one() for _ in range(min(200, count - start))))
    await asyncio.sleep(1)
    then()
    for writer in writers:
        writer.close()


def tell_held(smtpd, count):
    used = status(smtpd, "VmRSS")
    print(f"{count} connections after EHLO: smtpd {used:.0f} MiB, {used * 1024 / count:.1f} KiB each")
    report.target("idle", f"{count} idle connections", used, IDLE_TARGET, least=False, unit=" MiB")


def held(pids):
    """MiB of anonymous memory in these processes and of the memory files that they hold."""
    files = {}
    for pid in pids:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            try:
                if os.readlink(entry.path).startswith("/memfd:"):
                    found = os.stat(entry.path)
                    files[found.st_ino] = found.st_blocks * 512 / MIB
            except OSError:
                pass  # closed meanwhile
    return sum(status(pid, "RssAnon") for pid in pids) + sum(files.values())


def large(run):
    """One message as large as may be, received and relayed, while memory is looked at."""
    with Postern(run.directory("large"), run.relay, run.sink.port, run.domain) as postern:
        processes = postern.processes()
        watched = [processes["smtpd"], processes["queue"]]
        line = b"x" * 76 + b"\r\n"
        body = b"Subject: large\r\n\r\n" + line * (LARGE // len(line))
        before, peak, ended = held(watched), [0.0], threading.Event()

        def watch():
            while not ended.wait(0.005):
                peak[0] = max(peak[0], held(watched))

        watcher, taken = threading.Thread(target=watch), run.sink.messages()
        watcher.start()
        try:
            with smtplib.SMTP(postern.address, postern.port, timeout=120) as client:
                client.sendmail("sender@example.net", f"someone@{run.domain}", body)
            deadline = time.monotonic() + 60
            while run.sink.messages() == taken and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            ended.set()
            watcher.join()
        if run.sink.messages() == taken:
            raise SystemExit("bench: the large message did not reach the sink")
        size = len(body) / MIB
        print(f"one message of {size:.1f} MiB: smtpd and queue together {before:.1f} MiB before, {peak[0]:.1f} MiB at most")
        # Once, with buffers of some MiB beside it; a second copy would show as 2.
        report.target("large", "memory more than at rest / size of the message", (peak[0] - before) / size, 1.25, least=False)
