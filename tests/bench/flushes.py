"""How often a peer asks the disk to flush: system calls counted by strace, attached to all processes of the peer."""

import re
import subprocess
import tempfile
import time

CALLS = "fsync,fdatasync,sync_file_range,msync,sync,syncfs"


def count(peer, work):
    """Runs `work` and returns how many flushes the peer made meanwhile."""
    with tempfile.NamedTemporaryFile("r", suffix=".strace") as log:
        command = ["strace", "-f", "-qq", "-e", "signal=none", "-e", f"trace={CALLS}", "-o", log.name]
        for pid in peer.processes():
            command += ["-p", str(pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            wait_until_attached(peer, tracer)
            work()
            time.sleep(0.5)  # what follows the last delivery
        finally:
            tracer.terminate()
            errors = tracer.communicate(timeout=30)[1]
        calls = len(re.findall(rf"^\d+ +(?:{CALLS.replace(',', '|')})\(", log.read(), re.MULTILINE))
    if calls == 0:
        raise SystemExit(f"bench: strace saw no flush of {peer.name}: 250 before stable storage, or strace failed: {errors}")
    return calls


def wait_until_attached(peer, tracer):
    """Every thread of every process has a tracer."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if tracer.poll() is not None:
            raise SystemExit(f"bench: strace cannot attach to {peer.name}: {tracer.stderr.read()}")
        if all(traced(pid) for pid in peer.processes()):
            return
        time.sleep(0.05)
    raise SystemExit(f"bench: strace did not attach to every process of {peer.name} in 20 s")


def traced(pid):
    try:
        with open(f"/proc/{pid}/status") as status:
            return re.search(r"^TracerPid:\t(\d+)", status.read(), re.MULTILINE)[1] != "0"
    except OSError:
        return True  # it has ended
