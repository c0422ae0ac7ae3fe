"""The steps of the machine tests in their order, and how one is run and reported."""

import functools
import pathlib
import subprocess
import sys
import time
import traceback

from flows import console, content, daemons, inbound, outbound, power, refusals, rules, submission, tamper

FLOWS = [
    ("a", "mail from outside reaches the mailbox unharmed, after greylisting", inbound.run),
    ("b", "spam and viruses are refused at the end of DATA", content.run),
    ("c", "the app server's mail leaves signed, over TLS", outbound.run),
    ("d", "nobody relays; unknown users are refused at RCPT", refusals.run),
    ("submission", "a user outside submits with an app password", submission.run),
    ("e1", "the gateway's power is cut in a stream of mail",
     functools.partial(power.run, node="gateway")),
    ("e2", "the internal node's power is cut in a stream of mail",
     functools.partial(power.run, node="internal")),
]
PROBES = [
    ("console", "the console shows the node, and no key gets behind it", console.run),
    ("daemons", "the daemons of the images serve; Suricata alerts", daemons.run),
    ("firewall", "both firewalls are live", rules.run),
]
LAST = [("f", "a node with one flipped byte in its root never serves", tamper.run)]


class Report:
    """Prints progress with times and counts results."""

    def __init__(self):
        self.begun = time.monotonic()
        self.passed, self.failed = 0, []

    def say(self, text):
        seconds = int(time.monotonic() - self.begun)
        stamp = f"{seconds // 60:2d}:{seconds % 60:02d}"
        # A trace or a screen is set on lines of its own.
        print(f"{stamp}  {text}" if "\n" not in text else text, flush=True)

    def step(self, world, name, title, action):
        """Runs one step; returns whether it passed. A failure says where to look."""
        self.say(f"── {name}. {title}")
        try:
            action(world)
        except Exception as error:  # every failure of a step is a result
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            self.say(f"FAILED {name}: {kind}{error}")
            trail = world.directory / f"failed-{name}.txt"
            trail.write_text(traceback.format_exc())
            self.say(f"       details in {trail}; the nodes' journals are "
                     f"{world.directory}/*.journal")
            self.failed.append(name)
            return False
        self.passed += 1
        self.say(f"ok {name}")
        return True

    def finish(self):
        """The closing line, and the exit status."""
        for name in self.failed:
            print(f"failed: {name}")
        print(f"{self.passed} passed, {len(self.failed)} failed", flush=True)
        return 1 if self.failed else 0


def requisites(directory, postern):
    """Installs packages, and looks for what must have been built: returns the images."""
    subprocess.run([pathlib.Path(__file__).with_name("setup.sh")], check=True)
    images = {name: directory / f"postern-{name}.raw" for name in ("gateway", "internal")}
    for path in (postern, *images.values()):
        if not path.exists():
            sys.exit(f"{path} is not there: build it by `make images`")
    return images
