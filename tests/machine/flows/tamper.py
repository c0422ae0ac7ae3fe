"""Flow f: a node whose root has one flipped byte, in a file that is read at boot, never serves.

dm-verity finds it when the block is read, and the node restarts at once (QEMU ends here: -no-reboot)
instead of going on with a root that is not the one that was built. The untouched image, started
in the same way by this same test, does serve.
"""

import subprocess
import sys
import time

import vm
import world as testbed

FILE = "usr/bin/postern-relay"



def run(world):
    directory = world.directory / "tamper"
    directory.mkdir()
    image = directory / "flipped.raw"
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", world.images["gateway"], image],
                   check=True)
    done = subprocess.run([sys.executable, testbed.TOP / "tests/image/flip_byte.py", image, FILE],
                          capture_output=True, text=True)
    assert done.returncode == 0, f"flip_byte.py: {done.stdout}{done.stderr}"
    world.say(done.stdout.strip())
    try:
        node = vm.Node("tamper", image, directory, {}, world.nodes["gateway"].smbios,
                       world.nodes["gateway"].accelerator)
        node.reboots = False
        node.prepare()
        node.start()
        deadline = time.monotonic() + testbed.BOOT_SECONDS
        while node.running() and time.monotonic() < deadline:
            time.sleep(0.5)
        stopped = not node.running()
        node.kill()
        text = node.text() + node.console.read_bytes().decode(errors="replace")
        assert "smtpd/public" not in text, "the altered node serves mail"
        assert "verity" in text, f"nothing says that verity refused; see {node.journal}"
        assert stopped, f"the altered node neither serves nor restarts; see {node.journal}"
        world.say(next(line for line in text.splitlines() if "verity" in line
                       and ("corrupt" in line or "panic" in line)).strip())
    finally:
        image.unlink()
