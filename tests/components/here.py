"""This test's own namespaces, and how its programs wait and ask in them."""

import pathlib
import socket
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
LOGS = TOP / "build" / "components" / "logs"
# The peers are those of the machine tests.
sys.path.insert(0, str(TOP / "tests" / "machine"))


class Here:
    """This namespace, in the form that the machine tests' nameserver wants one."""

    @staticmethod
    def start(argv, **options):
        return subprocess.Popen([str(word) for word in argv], **options)

    @staticmethod
    def connect(host, port, source=None, timeout=60):
        return socket.create_connection((host, port), timeout)


def wait(what, ready, process, log, timeout=120):
    deadline = time.monotonic() + timeout
    while not ready():
        if process.poll() not in (None, 0) or time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not come up; see {log}")
        time.sleep(0.2)


def ask(path, request, end=True):
    """One question to a unix socket, the whole answer."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(path))
        sock.sendall(request)
        if end:
            sock.shutdown(socket.SHUT_WR)
        answer = b""
        while part := sock.recv(65536):
            answer += part
        return answer


def listens(port):
    """Something listens on this UDP port of loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return True
        return False
