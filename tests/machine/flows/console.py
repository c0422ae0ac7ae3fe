"""The console on the serial line: it shows the node's state, and no key gets behind it.

The bytes of ttyS0 are fed to a terminal emulator (pyte), so that what is checked is what a person
at the terminal sees.
"""

import re
import time

import pyte

COLUMNS, LINES = 80, 24
KEYS = [b"\r", b"q", b"Q", b"\x1b", b"\x03", b"\x04", b"\x1a", b"\x1c", b":q!\r", b"root\r",
        b"\x1b[11~", b"\x1b[A", b"\x1b[Z", b"\x1bOP", b"!sh\r", b"\xff\xfe\x00", b"\x1b[200~"]
NOT_HERE = re.compile(r"login:|password:|emergency mode|[#$] $|sulogin|bash|panicked", re.IGNORECASE)


def screen(node):
    """The screen as it is now, as text lines."""
    terminal = pyte.Screen(COLUMNS, LINES)
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
        address = {"gateway": "10.200.9.10", "internal": "10.200.1.25"}[name]
        service = {"gateway": "clamd", "internal": "dovecot"}[name]
        wanted = [rf"\b{name}\b", r"\b0\.1\.0\b", re.escape(address), rf"(?i){service}",
                  r"(?i)queue"]
        expect(node, wanted)
        before = node.console.stat().st_size
        for keys in KEYS:
            node.type(keys)
        # Alive: it has drawn again since the last key, and what it shows is the same screen.
        deadline = time.monotonic() + 60
        after_keys = node.console.stat().st_size
        while node.console.stat().st_size <= after_keys:
            assert time.monotonic() < deadline, f"the console of {name} stopped drawing after keys"
            time.sleep(0.5)
        text = expect(node, wanted)
        assert after_keys >= before
        found = NOT_HERE.search(text)
        assert not found, f"the console of {name} shows {found.group(0)!r}:\n{text}"
        world.say(picture(node))
