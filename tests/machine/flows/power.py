"""Flow e: the power of a node fails in the middle of a stream of mail; no message with a 250 is lost.

Two streams run at once: outside → mailbox and app server → outside MX. First the way onward from the
node is severed, so that what it takes piles up in its spool, and the neighbour seems to hang: that an
attempt at a silent host ends within minutes is seen on the way. Then, right after a 250 of the node,
its QEMU is killed (SIGKILL) with all those messages aboard, while the other stream still flows through
it. The node is started again, the way is open, and every message that got a 250 must arrive.

What this proves: the guest's memory and page cache are gone, so a 250 before the spool was written
out to the disk device shows as a lost message. QEMU's own writes survive in the host, so a missing
flush of the *device* would not show as loss; that the guest asks for flushes is therefore counted
at the device (QMP query-blockstats). Power cuts at every write are the crash tier's work.
"""

import contextlib
import email
import smtplib
import socket
import threading
import time

import clients
import messages
import network
import site_files

ENOUGH = 6          # acknowledged messages that the node must hold at the cut, at least
# What the killed node sends on over the DMZ: (from, to). The internal node goes there under its inner address.
ONWARD = {"gateway": (network.GATEWAY_DMZ, network.INTERNAL),
          "internal": (network.INTERNAL, network.GATEWAY_DMZ)}
# Seconds between the messages of the streams, inbound and outbound: an emulated gateway scans a message in seconds. What
# is scanned on its way in comes slowly enough by itself; what piles up unscanned must be scanned later.
PAUSES = {"gateway": (0.2, 8.0), "internal": (8.0, 2.0)}
RECIPIENT = "dave@destination.example"


class Stream(threading.Thread):
    """Sends message after message until told to stop; `accepted` has those with a 250:
    {Message-ID: the node's id for it}."""

    def __init__(self, connect, sender, recipient, pause):
        super().__init__(daemon=True)
        self.connect, self.sender, self.recipient = connect, sender, recipient
        self.pause, self.client = pause, None
        self.accepted, self.trouble, self.stopping = {}, [], threading.Event()

    def run(self):
        while not self.stopping.is_set():
            try:
                with self.connect() as client:
                    self.client = client
                    while not self.stopping.is_set():
                        self.one(client)
            except (OSError, smtplib.SMTPException) as error:
                self.trouble.append(repr(error))
                self.stopping.wait(1)

    def one(self, client):
        message = messages.build(self.sender, self.recipient, "stream",
                                 messages.filler(2048, time.monotonic()))
        outcome = clients.send(client, self.sender, self.recipient, message)
        if outcome.accepted:
            self.accepted[email.message_from_bytes(message)["Message-ID"]] = outcome.queue_id
        else:
            self.trouble.append(str(outcome))
        self.stopping.wait(self.pause)

    def stop(self):
        """Ends the stream now: of a dead node a client would learn only by its time-out."""
        self.stopping.set()
        with contextlib.suppress(AttributeError, OSError):
            self.client.sock.shutdown(socket.SHUT_RDWR)


def streams(world, node):
    """(inbound, outbound); the one that enters at the node is the fast one."""
    inbound, outbound = PAUSES[node]

    def from_outside():
        return world.outside(source=network.BULK, helo="mail.bulk.example")

    def from_app():
        return logged_in(world)

    return (Stream(from_outside, "bob@bulk.example", messages.CAROL, inbound),
            Stream(from_app, messages.APP, RECIPIENT, outbound))


class logged_in:
    """A session of the app server on the internal node, after login."""

    def __init__(self, world):
        self.session = clients.session(world.networks["app"], network.INTERNAL, world.authority(),
                                       587, helo="app.example.org", server_name="mail.example.org")

    def __enter__(self):
        client = self.session.__enter__()
        client.login(messages.APP, site_files.PASSWORDS[messages.APP])
        return client

    def __exit__(self, *error):
        return self.session.__exit__(*error)


def run(world, node):
    inbound, outbound = both = streams(world, node)
    entry = inbound if node == "gateway" else outbound
    flushes = world.nodes[node].disk_flushes()
    for stream in both:
        stream.start()
    try:
        # The first scans after a boot are slow. The gateway then knows the recipient for five minutes.
        wait_stream(both, lambda: all(stream.accepted for stream in both), 400)
        with world.networks.severed(*ONWARD[node], port=25):
            before = set(entry.accepted.values())
            wait_stream(both, lambda: len(entry.accepted) - len(before) >= ENOUGH, 240)
            given_up = world.wait_events(
                node, lambda e: e["event"] == "deferred" and e["id"] in entry.accepted.values(),
                timeout=150)[0]
            world.say(f"an attempt of {node} at its silent neighbour ended: {given_up['reply']}")
            flushed = world.nodes[node].disk_flushes() - flushes
            # The cut comes right after a 250 of the node itself.
            last = len(entry.accepted)
            wait_stream(both, lambda: len(entry.accepted) > last, 240)
            world.nodes[node].kill()
    finally:
        for stream in both:
            stream.stop()
    removed = {e["id"] for e in world.events(node) if e["event"] == "removed"}
    held = set(entry.accepted.values()) - removed
    world.say(f"power of {node} cut: {len(inbound.accepted)} inbound and {len(outbound.accepted)} "
              f"outbound messages had their 250, {len(held)} of them still with it; "
              f"{flushed} flushes at its disk")
    assert len(held) >= ENOUGH, f"{node} held {len(held)} messages: the cut proves too little"
    assert flushed > 0, f"{node} answered 250 and never flushed its disk"

    for stream in both:
        stream.join(60)
        assert not stream.is_alive(), "a client still hangs on the dead node"

    world.nodes[node].start()
    world.wait_serving(node)
    world.say(f"{node} is back")
    wait_all(world, "mailbox", inbound.accepted, lambda: ids_in_mailbox(world))
    wait_all(world, "MX", outbound.accepted, lambda: ids_at_mx(world))
    world.say(f"all {len(inbound.accepted) + len(outbound.accepted)} messages arrived")


def wait_stream(both, reached, timeout):
    deadline = time.monotonic() + timeout
    while not reached():
        assert time.monotonic() < deadline, "no stream of mail to cut: " + ", ".join(
            f"{stream.recipient} {len(stream.accepted)} accepted {stream.trouble[-3:]}"
            for stream in both)
        time.sleep(0.02)


def ids_in_mailbox(world):
    """Message-IDs in the mailbox. A cut can tear the tail of Dovecot's index; it then answers the
    first opening with NO and makes the index anew from the messages. Only opening again may mend it:
    a mailbox that stays shut fails the test by its deadline."""
    imap = world.mailbox(messages.CAROL)
    try:
        imap.numbers("ALL")
        _, parts = imap.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])")
        return [email.message_from_bytes(part[1])["Message-ID"]
                for part in parts if isinstance(part, tuple)]
    except imap.error as answer:
        world.say(f"the mailbox does not open at once: {answer}")
        return []
    finally:
        imap.logout()


def ids_at_mx(world):
    return [email.message_from_bytes(octets)["Message-ID"] for _, octets in world.received_by_mx()]


# The queue tries again after 60 s and then after 300 s; a boot may last longer than the first.
def wait_all(world, place, wanted, look, timeout=420):
    deadline = time.monotonic() + timeout
    while True:
        missing = set(wanted) - set(look())
        if not missing:
            return
        assert time.monotonic() < deadline, (
            f"{len(missing)} of {len(wanted)} messages that got a 250 never reached the {place}: "
            f"{sorted(missing)[:3]}; see the journals in {world.directory}")
        time.sleep(2)
