"""The console on the serial line: it shows the node's state, and no key gets behind it.

The bytes of ttyS0 are fed to a terminal emulator (pyte), so that what is checked is what a person
at the terminal sees.
"""

import re
import time

import pyte

COLUMNS, LINES = 80, 24
# node -> (an address of its overview, a service of its services page)
SHOWS = {"gateway": (r"10.200.9.10/24", r"clamd"), "internal": (r"10.200.1.25/24", r"dovecot")}
KEYS = [b"\r", b"q", b"Q", b"\x1b", b"\x03", b"\x04", b"\x1a", b"\x1c", b":q!\r", b"root\r",
        b"\x1b[11~", b"\x1b[A", b"\x1b[Z", b"\x1bOP", b"!sh\r", b"\xff\xfe\x00", b"\x1b[200~"]
NOT_HERE = re.compile(r"login:|password:|emergency mode|[#$] $|sulogin|bash|panicked", re.IGNORECASE)


class Screen(pyte.Screen):
    """Takes a cursor position with a number too many: QEMU's log may hold an octet twice, when a
    client comes to the line or leaves it. The console writes everything again every 20 seconds."""

    def cursor_position(self, *numbers, **options):
        super().cursor_position(*numbers[:2], **options)


def screen(node):
    """The screen as it is now, as text lines."""
    terminal = Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(terminal)
    stream.feed(node.console.read_bytes())
    return [line.rstrip() for line in terminal.display]


def expect(node, wanted, timeout=60):
    """Waits until the screen matches all patterns; returns it."""
    deadline = time.monotonic() + timeout
    while True:
        lines = screen(node)
        text = "\n".join(lines)
        missing = [pattern for pattern in wanted if not re.search(pattern, text)]
        if not missing:
            return text
        assert time.monotonic() < deadline, (
            f"the console of {node.name} does not show {missing}:\n{text}")
        time.sleep(1)


def picture(node):
    """The screen in a frame, for people."""
    return "\n".join([f"  ┌─ console of {node.name} " + "─" * (COLUMNS - 14 - len(node.name)),
                      *(f"  │ {line}" for line in screen(node) if line), "  └" + "─" * COLUMNS])


def run(world):
    for name, node in world.nodes.items():
        address, service = SHOWS[name]
        overview = [rf"node {name}\b", rf"role {name}\b", r"Postern 0\.1\.0", re.escape(address),
                    r"Services +(\d+) of \1 active", r"Firewall +loaded", r"Queue +messages \d+"]
        expect(node, overview)
        world.say(picture(node))
        node.type(b"2")
        expect(node, [service])
        for keys in KEYS:
            node.type(keys)
        after_keys = node.console.stat().st_size
        deadline = time.monotonic() + 60
        while node.console.stat().st_size <= after_keys:
            assert time.monotonic() < deadline, f"the console of {name} stopped drawing after keys"
            time.sleep(0.5)
        node.type(b"1")
        text = expect(node, overview)
        found = NOT_HERE.search(text)
        assert not found, f"the console of {name} shows {found.group(0)!r}:\n{text}"
