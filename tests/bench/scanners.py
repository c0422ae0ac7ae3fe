"""spamd and clamd, shared by Postern and Postfix, and the milters by which Postfix asks them."""

import contextlib
import os
import pathlib
import pwd
import random
import re
import shutil
import socket

from world import Daemon

TOP = pathlib.Path(__file__).resolve().parents[2]
HOST_SIGNATURES = pathlib.Path("/var/lib/clamav")
# Signatures that are made where the host has none (it has never run freshclam): they match nothing that is sent, and
# give clamd some of its usual work.
MADE = 50_000
PROGRAMS = ("spamd", "clamd", "spamass-milter", "clamav-milter", "spamc")

# clamd's own limits are those that Postern ships (images/), so are spamd's: only places and owners differ.
CLAMD_OWN = {
    "LocalSocket": "{directory}/clamd.sock",
    "LocalSocketMode": "666",
    "DatabaseDirectory": "{signatures}",
    "TemporaryDirectory": "/tmp",
}
CLAMAV_MILTER = """\
Foreground yes
MilterSocket inet:8894@127.0.0.1
ClamdSocket unix:{directory}/clamd.sock
OnClean Accept
OnInfected Reject
OnFail Defer
MaxFileSize 52M
LogSyslog no
TemporaryDirectory /tmp
"""
# What Postfix asks after opendkim and opendmarc.
MILTERS = ", inet:127.0.0.1:8895, inet:127.0.0.1:8894"


def answers(path, request, wanted):
    def ready():
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(path))
            connection.sendall(request)
            return wanted in connection.recv(100)
    return ready


def greets(port):
    def ready():
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    return ready


def signatures(directory):
    """Where clamd's signatures are, and what they are."""
    if any(HOST_SIGNATURES.glob("main.c[vl]d")):
        return HOST_SIGNATURES, f"the host's signatures in {HOST_SIGNATURES}"
    made, chosen = directory / "signatures", random.Random(1)
    made.mkdir()
    lines = (f"Bench.Made.{number}:0:*:{chosen.randbytes(24).hex()}\n" for number in range(MADE))
    (made / "made.ndb").write_text("".join(lines))
    return made, f"{MADE} made signatures, for the host has none; with ClamAV's own it is slower"


def clamd_conf(directory, where):
    text = (TOP / "images/root/extra-gateway/usr/share/postern/clamd.conf").read_text()
    for key, value in CLAMD_OWN.items():
        text = re.sub(rf"^{key} .*$", f"{key} {value.format(directory=directory, signatures=where)}", text, flags=re.MULTILINE)
    text = re.sub(r"^LocalSocketGroup .*\n", "", text, flags=re.MULTILINE)
    path = directory / "clamd.conf"
    path.write_text(text)
    return path


@contextlib.contextmanager
def running(base):
    """Both scanners. Yields their sockets' directory and what clamd knows."""
    directory = pathlib.Path(base, "scanners")
    directory.mkdir()
    spamd = pwd.getpwnam("debian-spamd")
    os.chown(directory, spamd.pw_uid, spamd.pw_gid)
    where, what = signatures(directory)
    clamd = ["clamd", "-c", clamd_conf(directory, where)]
    assassin = ["spamd", "--local", "--nouser-config", "--max-children=4", "--max-spare=2", "--username=debian-spamd",
                f"--socketpath={directory}/spamd.sock", "--socketmode=0666", "--syslog=stderr", "--helper-home-dir=/tmp"]
    with (Daemon("clamd", clamd, directory / "clamd.log", answers(directory / "clamd.sock", b"zPING\0", b"PONG"), patience=180),
          Daemon("spamd", assassin, directory / "spamd.log",
                 answers(directory / "spamd.sock", b"PING SPAMC/1.5\r\n\r\n", b"PONG"), patience=180)):
        yield directory, what


@contextlib.contextmanager
def milters(directory):
    """What stands between Postfix and the scanners; spamass-milter starts a spamc for each message."""
    (directory / "clamav-milter.conf").write_text(CLAMAV_MILTER.format(directory=directory))
    clamav = ["clamav-milter", "-c", directory / "clamav-milter.conf"]
    assassin = ["spamass-milter", "-p", "inet:8895@127.0.0.1", "-r", "15", "-u", "nobody", "--", "-U", directory / "spamd.sock"]
    with (Daemon("clamav-milter", clamav, directory / "clamav-milter.log", greets(8894)),
          Daemon("spamass-milter", assassin, directory / "spamass-milter.log", greets(8895))):
        yield


def missing():
    return [program for program in PROGRAMS if not shutil.which(program)]
