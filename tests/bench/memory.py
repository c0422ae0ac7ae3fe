"""Memory: 10,000 idle connections in clear and in TLS, each process at rest, and one message of 50 MiB on its way through.

Resident memory is the kernel's figure for a process (VmRSS), shared libraries included. For the large message it is what
belongs to a message: anonymous memory of smtpd, queue, and scan with its workers, and memory files, each counted once however
many hold it.
"""

import contextlib
import os
import pathlib
import re
import resource
import smtplib
import ssl
import subprocess
import threading
import time

import report
from peers import PLAIN, Postern, children

CONNECTIONS = 10_000
IDLE_TARGET, PROCESS_TARGET = 250, 25
MIB = 1 << 20
# What a gateway of the default site makes of each client and message; the other end of a socket need not be there at rest.
CHECKS = '["helo", "reverse-dns", "spf", "dkim", "arc", "dmarc", "content", "spam", "virus", "greylist", "recipient"]'
TABLES = """
[client]
reverse-dns = "mark"
helo = "mark"
[greylist]
delay = 300
[content]
[spam]
socket = "/run/spamd/spamd.sock"
mark-score = 5.0
reject-score = 10.0
[virus]
socket = "/run/clamav/clamd.sock"
[recipient]
via = "proxy"
[proxy]
next-hop = "sink"
"""
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
    directory = run.directory("idle")
    tls = certificate(directory)
    with Postern(run.directory("rest"), run.relay, run.sink.port, run.domain,
                 checks=CHECKS, more=TABLES, tls=tls) as postern:
        at_rest(postern)
    for name, how in (("clear", PLAIN["tls"]), ("TLS", tls)):
        place = directory / name
        place.mkdir(mode=0o755)
        with Postern(place, run.relay, run.sink.port, run.domain, connections=capacity, tls=how) as postern:
            hold(postern, count, name)


def certificate(directory):
    """A certificate that the bench's own clients believe, as the relay's configuration names it."""
    key, made = directory / "smtp.key", directory / "smtp.crt"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
                    "-subj", "/CN=mx1.example.org", "-keyout", key, "-out", made], check=True, capture_output=True)
    key.chmod(0o644)
    return f'tls = "offered"\ncertificate = "{made}"\nkey = "{key}"'


def at_rest(postern):
    """Each process of a gateway that makes all checks of the default site."""
    processes = postern.processes()
    processes |= {f"scan's worker {number}": pid for number, pid in enumerate(children(processes["scan"]), 1)}
    used = {name: status(pid, "VmRSS") for name, pid in processes.items()}
    print("at rest   " + ", ".join(f"{name} {mib:.1f} MiB" for name, mib in used.items()))
    report.target("idle", "the largest process at rest", max(used.values()), PROCESS_TARGET, least=False, unit=" MiB")


def hold(postern, count, name):
    """Opens the connections, says EHLO on each, and looks at smtpd while they are idle."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            client = smtplib.SMTP(postern.address, postern.port, local_hostname="client.example.net", timeout=60)
            stack.callback(client.close)
            client.ehlo()
            if name == "TLS":
                client.starttls(context=context)
                client.ehlo()
        time.sleep(1)
        used = status(postern.processes()["smtpd"], "VmRSS")
    print(f"{count} connections after EHLO, {name}: smtpd {used:.0f} MiB, {used * 1024 / count:.1f} KiB each")
    if name == "clear":
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
    with Postern(run.directory("large"), run.relay, run.sink.port, run.domain, checks='["content"]', more="[content]") as postern:
        processes = postern.processes()
        watched = [processes["smtpd"], processes["queue"], processes["scan"], *children(processes["scan"])]
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
        print(f"one message of {size:.1f} MiB: smtpd, queue and scan together {before:.1f} MiB before, {peak[0]:.1f} MiB at most")
        # Once, with buffers of some MiB beside it; a second copy would show as 2.
        report.target("large", "memory more than at rest / size of the message", (peak[0] - before) / size, 1.25, least=False)
