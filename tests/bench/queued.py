"""What a queue full of waiting mail costs: its start, its memory, and the mail that comes meanwhile.

Writes a spool of messages that are due in twelve hours, starts the relay on it three times (without indexes of the
segments, as after a loss of all of them; with indexes, after a stop; after SIGKILL), and at the second time sends some mail
through it to a sink, then holds, releases and cancels one message. The same mail goes through an empty queue first, and through one
with a tenth of the messages. Time and memory are the relay's own figures and the
kernel's.
"""

import contextlib
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import struct
import subprocess
import time
import zlib

from load import free_port, send, wait_for_greeting
from peers import PLAIN, RELAY_TOML

DOMAIN = "example.org"
MESSAGES = 1_000_000
SEGMENT = 64 << 20
BODY = b"Subject: waits\r\n\r\n" + (b"x" * 98 + b"\r\n") * 10


def record(salt, number, now, newsletter):
    """A message, due in twelve hours, or a newsletter that is due: its record as crates/relay/src/spool/record.rs has it, and
    its entry in the index as spool/index.rs and summary.rs have that."""
    at, reply = now if newsletter else now + 12 * 3600 * 1000, "451 4.4.1 cannot connect"
    waits = {"due": {"at": at, "attempts": 1, "reply": reply}}
    sender, recipient, message = f"sender{number}@example.net", f"user{number}@{DOMAIN}", now * 1000 - 10_000_000 + number
    envelope = {"trace": f"{number:016x}", "reverse_path": sender, "peer": "192.0.2.1",
                "recipients": [{"address": recipient}], "helo": "client.example",
                "return_path_proven": True, "size": len(BODY)}
    meta = json.dumps({"envelope": envelope, "provenance": "public", "arrived": now, "statuses": [waits],
                       "bulk": newsletter}).encode()
    header = struct.pack("<QBxxxIQQ", salt, 1, len(meta), len(BODY), message)
    header += struct.pack("<I", zlib.crc32(header))
    summary = (struct.pack("<BBQ", 0, 2 * newsletter, now) + text(sender) + struct.pack("<I", 1) + text(recipient)
               + struct.pack("<IBQI", 1, 2, at, 1) + text(reply) + b"\0")
    entry = struct.pack("<BQIQI", 1, message, len(meta), len(BODY), len(summary)) + summary
    return header + meta + BODY + struct.pack("<II", zlib.crc32(meta), zlib.crc32(BODY)), entry


def text(value):
    return struct.pack("<I", len(value)) + value.encode()


def fill(spool, messages, newsletter=False):
    """Writes the segments; returns their indexes, by path."""
    spool.mkdir(parents=True)
    now, number, indexes = int(time.time() * 1000), 0, {}
    while number < messages:
        segment, salt, entries = len(indexes) + 1, int.from_bytes(os.urandom(8)), bytearray()
        path = spool / f"{segment:016x}-{salt:016x}.segment"
        with open(path, "wb") as out:
            while number < messages and out.tell() < SEGMENT:
                octets, entry = record(salt, number, now, newsletter)
                out.write(octets)
                entries += entry
                number += 1
            prefix = b"PSTNIDX1" + struct.pack("<QQQ", salt, out.tell(), len(entries))
        prefix += struct.pack("<I", zlib.crc32(prefix))
        indexes[path.with_suffix(".index")] = prefix + entries + struct.pack("<I", zlib.crc32(entries))
    return indexes


@contextlib.contextmanager
def running(directory, relay, sink):
    """A relay on `directory` with a next hop on port `sink`; yields its port, its log and the queue's process id."""
    nobody, port, log = pwd.getpwnam("nobody"), free_port(), directory / "log"
    config = RELAY_TOML.format(port=port, sink=sink, domain=DOMAIN, **PLAIN)
    (directory / "relay.toml").write_text(config.replace("retry = [60]", "retry = [86400]"))
    subprocess.run(["chown", "-R", "nobody", directory], check=True)
    with open(log, "wb") as out:
        process = subprocess.Popen([relay, "run", "--config", directory / "relay.toml"], stdin=subprocess.DEVNULL,
                                   stdout=out, stderr=subprocess.STDOUT, user=nobody.pw_uid, extra_groups=[])
    try:
        while process.poll() is None and "spool-recovered" not in log.read_text(errors="replace"):
            time.sleep(0.2)
        wait_for_greeting(port, process, "the relay", log)
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        queue = next(pid for pid in children if b"\0queue\0" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes())
        yield port, log, queue
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def ask(directory, request, **more):
    """One request to the control socket: the reply and its milliseconds."""
    path = next(directory.glob("run/**/control.sock"))
    with socket.socket(socket.AF_UNIX) as connection:
        start = time.perf_counter()
        connection.connect(str(path))
        connection.sendall(json.dumps({"request": request, **more}).encode() + b"\n")
        reply = connection.makefile().readline()
    return json.loads(reply), (time.perf_counter() - start) * 1000


def change(directory, message):
    """Milliseconds until one message is held, until it is released, and until it is cancelled, each on stable storage."""
    took = []
    for what in ("hold", "release", "cancel"):
        reply, millis = ask(directory, "queue-change", change=what, ids=[message])
        if reply["done"] != [message]:
            raise SystemExit(f"bench: {what} was not done: {reply['failed']}")
        took.append(millis)
    return took


def recovery(log, waiting, indexes):
    """Seconds that the relay took to read its spool, by so many indexes at least."""
    recovered = re.search(r'event (\{.*"spool-recovered".*\})', log.read_text(errors="replace"))
    started = json.loads(recovered[1])
    if started["messages"] != waiting:
        raise SystemExit(f"bench: {started['messages']} messages were recovered, {waiting} were written")
    if started["indexed"] < indexes:
        raise SystemExit(f"bench: {started['indexed']} indexes were believed, {indexes} were written")
    return started["millis"] / 1000


def measure(directory, relay, sink, waiting, indexes):
    with running(directory, relay, sink.port) as (_, log, _):
        whole = recovery(log, waiting, 0)
    for path, octets in indexes.items():
        path.write_bytes(octets)
    with running(directory, relay, sink.port) as (port, log, queue):
        stopped = recovery(log, waiting, len(indexes))
        status = ask(directory, "status")[1]
        page, listing = ask(directory, "queue-list")
        send(port, sink, 1, 4096, 50, DOMAIN)
        one, ten = send(port, sink, 1, 4096, 300, DOMAIN), send(port, sink, 10, 4096, 1000, DOMAIN)
        left = ask(directory, "status")[0]["queue"]["messages"]
        if left != waiting:
            raise SystemExit(f"bench: {left} messages wait in the end, {waiting} should")
        took = change(directory, page["messages"][0]["id"]) if waiting else []
        left -= bool(took)
        memory = re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{queue}/status").read_text())
        os.kill(int(queue), signal.SIGKILL)
    with running(directory, relay, sink.port) as (_, log, _):
        killed = recovery(log, left, len(indexes))
    print(f"{waiting:>9} {whole:>8.1f} s {stopped:>8.1f} s {killed:>8.1f} s {int(memory[1]) / 1024:>8.0f} MiB "
          f"{status:>8.1f} ms {listing:>8.1f} ms {one[1]:>8.0f}/s {ten[1]:>8.0f}/s   "
          + (" / ".join(f"{millis:.1f}" for millis in took) + " ms" if took else "-"), flush=True)


def line(run):
    base, relay = run.directory("queued"), pathlib.Path(run.base, "postern-relay-queued")
    shutil.copy(run.relay, relay)
    print(f"{'':>9} {'start with':>10} {'after a':>10} {'after':>10} {'memory of':>12} {'':>11} {'list the':>11} "
          f"{'relayed,':>10} {'relayed,':>10}   one: hold /")
    print(f"{'waiting':>9} {'no index':>10} {'stop':>10} {'SIGKILL':>10} {'the queue':>12} {'status':>11} {'oldest':>11} "
          f"{'1 session':>10} {'10':>10}   release / cancel")
    for waiting in (0, run.count(MESSAGES // 10), run.count(MESSAGES)):
        directory = base / str(waiting)
        indexes = fill(directory / "state" / "spool", waiting)
        measure(directory, relay, run.sink, waiting, indexes)
        # 1.6 GB that nothing after this line needs.
        shutil.rmtree(directory)
