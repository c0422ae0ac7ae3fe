"""The namespaces in which the benchmark runs, and what all of it shares there.

Network, mounts and processes are its own: no peer reaches the host's services or is mixed up with one, the names of the
test world are the only ones that exist, and whatever a run leaves behind ends with it.
"""

import os
import pathlib
import subprocess
import sys
import time

INSIDE = "POSTERN_BENCH_INSIDE"
# Where gateways listen when it matters whence mail comes: filters take mail from 127.0.0.0/8 for our own. Clients on this
# machine have the same address, so the zones' SPF records permit it.
PUBLIC = "192.0.2.1"
DOMAIN = "example.org"
HOSTNAME = "mx1.example.org"
# Bound to nothing: a next hop here is one that is down.
NOBODY = 9


def enter():
    """Starts this program again inside, unless it is there."""
    if os.environ.get(INSIDE):
        return
    os.environ[INSIDE] = "yes"
    os.execvp("unshare", ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child=KILL", "--mount-proc",
                          sys.executable, *sys.argv])


def prepare(directory):
    """Loopback, names by the benchmark's own DNS server, and the account that Debian's Exim wants to exist."""
    sh("ip", "link", "set", "lo", "up")
    sh("ip", "address", "add", f"{PUBLIC}/32", "dev", "lo")
    over("/etc/resolv.conf", directory, "nameserver 127.0.0.1\n")
    for name, line in (("passwd", "Debian-exim:x:64999:64999::/nonexistent:/usr/sbin/nologin"), ("group", "Debian-exim:x:64999:")):
        known = pathlib.Path("/etc", name).read_text()
        if "Debian-exim:" not in known:
            over(f"/etc/{name}", directory, known.rstrip("\n") + f"\n{line}\n")


def over(path, directory, text):
    """Puts a file in front of the host's, for this namespace."""
    path = os.path.realpath(path)
    replacement = pathlib.Path(directory, os.path.basename(path))
    replacement.write_text(text)
    sh("mount", "--bind", replacement, path)


def sh(*words):
    subprocess.run([str(word) for word in words], check=True)


class Daemon:
    """A program of somebody else, in the foreground, that is ready when `ready()` says so."""

    def __init__(self, name, words, log, ready, patience=60, **more):
        self.name, self.log = name, log
        with open(log, "ab") as out:
            self.process = subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=subprocess.STDOUT, start_new_session=True, **more)
        deadline = time.monotonic() + patience
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                if ready():
                    return
            except OSError:
                pass
            time.sleep(0.05)
        self.end()
        raise SystemExit(f"bench: {name} does not start; {log} ends with:\n{log.read_text(errors='replace')[-2000:]}")

    def end(self):
        """Ends it; what it started ends with the namespace."""
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()
