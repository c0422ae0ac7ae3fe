"""What somebody waits for, behind 100,000 newsletters to the same host: time from the 250 of a password reset until the host has it.

The spool is full of newsletters that are due, and the host takes 100 ms for each message, so that they go out all the
time at a host's usual pace and every place there is always taken.
"""

import asyncio
import contextlib
import re
import shutil
import smtplib
import threading
import time

import report
from load import free_port
from queued import DOMAIN, ask, fill, running
from scanning import quantile

NEWSLETTERS, RESETS = 100_000, 200
# Seconds between two resets; seconds that the host takes for a message.
PACE, HOST_TAKES = 0.1, 0.1
RESET = re.compile(rb"^Subject: reset (\d+)\r$", re.M)


class Host:
    """A receiving host that takes its time. Notes when each reset had arrived."""

    def __init__(self):
        self.port, self.resets, self.messages = free_port(), {}, 0

    async def serve(self, reader, writer):
        async def say(line):
            writer.write(line + b"\r\n")
            await writer.drain()

        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await say(b"220 host.example ESMTP")
            while line := await reader.readline():
                verb = line[:4].upper()
                if verb == b"EHLO":
                    await say(b"250-host.example\r\n250 PIPELINING")
                elif verb == b"DATA":
                    await say(b"354 go on")
                    message = await reader.readuntil(b"\r\n.\r\n")
                    self.messages += 1
                    if reset := RESET.search(message):
                        self.resets.setdefault(int(reset[1]), time.perf_counter())
                    await asyncio.sleep(HOST_TAKES)
                    await say(b"250 2.0.0 taken")
                elif verb == b"QUIT":
                    await say(b"221 2.0.0 bye")
                    break
                else:
                    await say(b"250 2.0.0 ok")
        writer.close()

    @contextlib.contextmanager
    def listening(self):
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(asyncio.start_server(self.serve, "127.0.0.1", self.port))
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield
        finally:
            loop.call_soon_threadsafe(server.close)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


def resets(port, count):
    """Sends resets, one at a time; when each had its 250."""
    taken = {}
    for number in range(count):
        with smtplib.SMTP("127.0.0.1", port, local_hostname="shop.example") as client:
            client.sendmail("shop@example.net", [f"customer@{DOMAIN}"], f"Subject: reset {number}\r\n\r\nhere it is\r\n")
            taken[number] = time.perf_counter()
        time.sleep(PACE)
    return taken


def line(run):
    newsletters, count = run.count(NEWSLETTERS), run.count(RESETS)
    directory = run.directory("urgent")
    fill(directory / "state" / "spool", newsletters, newsletter=True)
    host = Host()
    with host.listening(), running(directory, run.relay, host.port) as (port, _, _):
        before = host.messages
        taken = resets(port, count)
        deadline = time.monotonic() + 60
        while len(host.resets) < count and time.monotonic() < deadline:
            time.sleep(0.1)
        waiting, sent = ask(directory, "status")[0]["queue"]["messages"], host.messages - before - len(host.resets)
    shutil.rmtree(directory)
    if len(host.resets) < count:
        raise SystemExit(f"bench: only {len(host.resets)} of {count} resets arrived, {waiting} messages wait")
    if not waiting or not sent:
        raise SystemExit(f"bench: {sent} newsletters went meanwhile and {waiting} wait: that is no queue to pass")
    seconds = [max(0.0, host.resets[number] - taken[number]) for number in range(count)]
    print(f"{newsletters} newsletters in the queue, of which {sent} left meanwhile and {waiting} waited in the end; {count} resets: "
          f"p50 {quantile(seconds, 50):.2f} s, the slowest {max(seconds):.2f} s")
    report.target("urgent", "250 to the host, p99", quantile(seconds, 99), 2, least=False, unit=" s")
