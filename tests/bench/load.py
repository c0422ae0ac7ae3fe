"""The source and the sink of the benchmark: Postfix's own smtp-source and smtp-sink, the same for all peers."""

import pathlib
import re
import socket
import subprocess
import time

# A run that takes longer than this has gone wrong: a peer is stuck, or lost mail.
PATIENCE = 180


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_greeting(port, process, what, log, address="127.0.0.1"):
    """Waits until something greets with 220 on the port."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with socket.create_connection((address, port), timeout=5) as connection:
                if connection.recv(3) == b"220":
                    connection.sendall(b"QUIT\r\n")
                    while connection.recv(512):
                        pass
                    return
        except OSError:
            time.sleep(0.05)
    with open(log, errors="replace") as text:
        raise SystemExit(f"bench: {what} does not greet on port {port}; {log} ends with:\n{text.read()[-3000:]}")


class Sink:
    """smtp-sink, which takes everything and counts."""

    def __init__(self, directory):
        self.port = free_port()
        # Its counters are a line for each event: in memory, so that they cost the disk nothing.
        self.counters = open("/dev/shm/postern-bench-sink." + str(self.port), "w+b", buffering=0)
        command = ["smtp-sink", "-u", "nobody", "-c", f"127.0.0.1:{self.port}", "1000"]
        self.process = subprocess.Popen(command, stdout=self.counters, cwd=directory)

    def __enter__(self):
        wait_for_greeting(self.port, self.process, "smtp-sink", self.counters.name)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.counters.close()
        subprocess.run(["rm", "-f", self.counters.name], check=True)

    def messages(self):
        """Messages taken so far."""
        size = self.counters.seek(0, 2)
        self.counters.seek(max(0, size - 200))
        counts = re.findall(rb"mesg=(\d+)", self.counters.read(200))
        self.counters.seek(0, 2)
        return int(counts[-1]) if counts else 0


class Load:
    """What is sent by one smtp-source: sessions, messages, octets or a file, from whom, to whom."""

    def __init__(self, sessions, count, content, sender="sender@example.net", helo="client.example.net", kept=False):
        how = ["-F", str(content)] if isinstance(content, pathlib.Path) else ["-l", str(content)]
        self.count = count
        self.words = ["smtp-source", "-s", str(sessions), "-m", str(count), *how, "-f", sender, "-M", helo, *["-d"] * kept]


def accept(address, port, loads, recipient):
    """Sends all loads side by side; returns the seconds until each message has its 250."""
    start = time.perf_counter()
    sources = [subprocess.Popen([*load.words, "-t", recipient, f"{address}:{port}"], stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True) for load in loads]
    try:
        for source in sources:
            said = source.communicate(timeout=PATIENCE)[1]
            if source.returncode != 0 or said:
                raise SystemExit(f"bench: smtp-source failed on port {port}: {said}")
    except subprocess.TimeoutExpired:
        raise SystemExit(f"bench: the gateway on port {port} has not taken all messages in {PATIENCE} s") from None
    finally:
        for source in sources:
            source.kill()
    return time.perf_counter() - start


def relay(address, port, sink, loads, recipient):
    """One run. Returns messages accepted per second and messages relayed per second."""
    count = sum(load.count for load in loads)
    before = sink.messages()
    start = time.perf_counter()
    accepted = accept(address, port, loads, recipient)
    while (arrived := sink.messages() - before) < count:
        if time.perf_counter() - start > PATIENCE:
            raise SystemExit(f"bench: only {arrived} of {count} messages arrived at the sink through port {port}")
        time.sleep(0.002)
    relayed = time.perf_counter() - start
    time.sleep(0.3)  # no run starts while the last one's deletions are still written
    if (arrived := sink.messages() - before) != count:
        raise SystemExit(f"bench: {arrived} messages arrived at the sink, {count} were sent through port {port}")
    return count / accepted, count / relayed


def send(port, sink, sessions, size, count, domain):
    """One run of plain messages of `size` octets, each over a connection of its own."""
    return relay("127.0.0.1", port, sink, [Load(sessions, count, size)], f"someone@{domain}")
