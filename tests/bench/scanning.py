"""The full pipeline: what the line `auth` judges, and spamd and clamd. Nearly all of the time is theirs, so it is the time
of single messages that is measured, from MAIL to the 250 after the message, and of it our own share: what is left without
the slower one of the two scanners, which Postern asks side by side."""

import collections
import contextlib
import json
import re
import smtplib
import statistics
import threading
import time

import authentication
import filters
import messages
import report
import scanners
import world

OCTETS, MESSAGES, SESSIONS = 16384, 160, 2

SCANNING = authentication.JUDGING + """
[spam]
socket = "{directory}/spamd.sock"
mark-score = 5.0
reject-score = 15.0

[virus]
socket = "{directory}/clamd.sock"
"""
CHECKS = '["greylist", "spf", "dkim", "dmarc", "spam", "virus"]'


def line(run):
    if absent := scanners.missing():
        report.absent("full", f"{', '.join(absent)} not installed")
        return
    base = run.directory("full")
    files, records = messages.write_all(base, OCTETS)
    count = run.count(MESSAGES)
    with filters.name_server(base / "dns", records), scanners.running(base) as (directory, known):
        versions = map(filters.version, ("spamd", "clamav-daemon", "spamass-milter", "clamav-milter"))
        print(f"{SESSIONS} sessions, {count} messages of 16 KiB; {known}\n({', '.join(versions)})")
        gateway = authentication.postern(run, base, checks=CHECKS, more=SCANNING.format(directory=directory))
        with gateway as postern:
            ours, ids = measure(postern, files, count)
            scanned = at_scanners(postern.log)
        tell("Postern", ours)
        share = [took - scanned[id] for took, id in zip(ours, ids)]
        tell("of it our own", share)
        if absent := filters.missing(filters.CLASSICAL):
            report.absent("full", f"Postfix: {', '.join(absent)} not installed")
            return
        with filters.classical(base) as how, scanners.milters(directory):
            how["main"] = how["main"].format(scanners=scanners.MILTERS)
            with authentication.named("scanners", base, run, how) as postfix:
                theirs, _ = measure(postfix, files, count)
    tell("Postfix with milters", theirs)


def tell(name, millis):
    report.figure("full", f"MAIL to 250, {name:22} p50 {quantile(millis, 50):>6.0f} ms   p99 {quantile(millis, 99):>6.0f} ms")


def quantile(values, percent):
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def measure(peer, files, count):
    """Sends `count` messages over connections of their own; their milliseconds from MAIL to 250, and their ids there."""
    authentication.meet(peer)
    todo, done, lock = collections.deque(range(count + SESSIONS)), [], threading.Lock()
    contents = [messages.on_the_wire(path) for path in files]
    failures = []

    def work():
        with contextlib.suppress(IndexError):
            while not failures:
                turn = todo.popleft()
                try:
                    result = one(peer, turn % len(files), contents[turn % len(files)])
                except (OSError, smtplib.SMTPException) as error:
                    failures.append(error)
                    return
                with lock:
                    done.append((turn, *result))

    threads = [threading.Thread(target=work) for _ in range(SESSIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"bench: {peer.name} did not take a message: {failures[0]}; see {peer.directory}")
    # The first of each session warmed the scanners up.
    measured = [(took, id) for turn, took, id in done if turn >= SESSIONS]
    return [took for took, _ in measured], [id for _, id in measured]


def one(peer, number, content):
    with smtplib.SMTP(peer.address, peer.port, local_hostname=messages.helo(number), timeout=120) as client:
        client.ehlo()
        start = time.perf_counter()
        client.mail(messages.sender(number))
        client.rcpt(f"someone@{world.DOMAIN}")
        code, said = client.data(content)
        took = (time.perf_counter() - start) * 1000
        if code != 250:
            raise smtplib.SMTPDataError(code, said)
        found = re.search(rb"queued as (\S+)", said)
        return took, found[1].decode() if found else ""


def at_scanners(log):
    """Milliseconds that the slower scanner took, by the id of the message, from the trace."""
    checks, traces = collections.defaultdict(int), {}
    for text in log.read_text(errors="replace").splitlines():
        if not (found := re.search(r"event (\{.*\})$", text)):
            continue
        event = json.loads(found[1])
        if event["event"] == "check" and event["check"] in ("spam", "virus"):
            checks[event["trace"]] = max(checks[event["trace"]], event["millis"])
        elif event["event"] == "queued":
            traces[event["id"]] = event["trace"]
    return {id: checks[trace] for id, trace in traces.items()}
