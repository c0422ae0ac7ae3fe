"""Flow f: a node whose root has one flipped byte, in a file that is read at boot, never serves.

dm-verity finds it when the block is read, and the node restarts at once (QEMU ends here: -no-reboot)
instead of going on with a root that is not the one that was built. The untouched image, started
in the same way by this same test, does serve.
"""

import re
import subprocess
import sys
import time

import vm
import world as testbed

FILE = "usr/bin/postern-relay"


def run(world):
    directory = world.directory / "tamper"
    directory.mkdir()
    gateway = world.nodes["gateway"]
    node = vm.Node("tamper", world.images["gateway"], directory, gateway.links, gateway.smbios,
                   gateway.accelerator)
    node.reboots = False
    node.prepare()
    flip(world, directory / "tamper.qcow2")
    node.start()
    deadline = time.monotonic() + testbed.BOOT_SECONDS
    while node.running() and time.monotonic() < deadline:
        time.sleep(0.5)
    stopped = not node.running()
    node.kill()
    text = node.text() + node.console.read_bytes().decode(errors="replace")
    assert "smtpd/public" not in text, "the altered node serves mail"
    assert stopped, f"the altered node neither serves nor restarts; see {node.journal}"
    refusal = [line for line in text.splitlines()
               if re.search(r"verity.*(corrupt|panic|mismatch)|panic.*verity", line)]
    assert refusal, f"nothing says that verity refused; see {node.journal} and {node.console}"
    world.say(f"refused: {refusal[0].strip()}")


def flip(world, overlay):
    """Writes the flipped octet through the overlay: the image itself stays as it is."""
    done = subprocess.run([sys.executable, testbed.TOP / "tests/image/flip_byte.py", "--print",
                           world.images["gateway"], FILE], capture_output=True, text=True)
    assert done.returncode == 0, f"flip_byte.py: {done.stdout}{done.stderr}"
    offset, old, new = done.stdout.split()
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", f"write -q -P 0x{new} {offset} 1", overlay],
                   check=True)
    world.say(f"one bit of /{FILE} flipped: octet {offset} of the disk, {old} → {new}")
