"""Flow e: the power of a node fails in the middle of a stream of mail; no message with a 250 is lost.

Two streams run at once: outside → mailbox and app server → outside MX. While both get their 250s,
QEMU of one node is killed (SIGKILL). The node is started again and every message that got a 250
must arrive, whichever node held it.

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

ENOUGH = 4          # 250s in each stream before the cut
# Seconds between the messages of a stream. What leaves is not scanned: without a pause it would take
# all of an emulated gateway's time, and the scanners none.
PAUSE = {"inbound": 0.2, "outbound": 2.0}
RECIPIENT = "dave@destination.example"


class Stream(threading.Thread):
    """Sends message after message until told to stop; `accepted` holds the Message-IDs with a 250."""

    def __init__(self, connect, sender, recipient, pause):
        super().__init__(daemon=True)
        self.connect, self.sender, self.recipient = connect, sender, recipient
        self.pause, self.client = pause, None
        self.accepted, self.trouble, self.stopping = [], [], threading.Event()

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
            self.accepted.append(email.message_from_bytes(message)["Message-ID"])
        else:
            self.trouble.append(str(outcome))
        self.stopping.wait(self.pause)

    def stop(self):
        """Ends the stream now: of a dead node a client would learn only by its time-out."""
        self.stopping.set()
        with contextlib.suppress(AttributeError, OSError):
            self.client.sock.shutdown(socket.SHUT_RDWR)


def streams(world):
    def from_outside():
        return world.outside(source=network.BULK, helo="mail.bulk.example")

    def from_app():
        return logged_in(world)

    return (Stream(from_outside, "bob@bulk.example", messages.ALICE, PAUSE["inbound"]),
            Stream(from_app, messages.APP, RECIPIENT, PAUSE["outbound"]))


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
    inbound, outbound = both = streams(world)
    flushes = world.nodes[node].disk_flushes()
    for stream in both:
        stream.start()
    deadline = time.monotonic() + 400    # the first scans after a boot are slow
    try:
        while min(len(stream.accepted) for stream in both) < ENOUGH:
            assert time.monotonic() < deadline, (
                f"no stream of mail to cut: inbound {len(inbound.accepted)} {inbound.trouble[-3:]}, "
                f"outbound {len(outbound.accepted)} {outbound.trouble[-3:]}")
            time.sleep(0.05)
        flushed = world.nodes[node].disk_flushes() - flushes
        # The cut comes right after a 250 of the node itself, while that message is still with it.
        entry = inbound if node == "gateway" else outbound
        last = len(entry.accepted)
        while len(entry.accepted) == last:
            assert time.monotonic() < deadline, f"the stream ended by itself: {entry.trouble[-3:]}"
            time.sleep(0.01)
        world.nodes[node].kill()
    finally:
        for stream in both:
            stream.stop()
    events = world.events(node)
    queued, removed = ({e["id"] for e in events if e["event"] == kind}
                       for kind in ("queued", "removed"))
    world.say(f"power of {node} cut: {len(inbound.accepted)} inbound and "
              f"{len(outbound.accepted)} outbound messages had their 250, {len(queued - removed)} of "
              f"them still with it; {flushed} flushes at its disk")
    assert flushed > 0 and queued, f"{node} answered 250 and never flushed its disk"

    for stream in both:
        stream.join(60)
        assert not stream.is_alive(), "a client still hangs on the dead node"

    world.nodes[node].start()
    world.wait_serving(node)
    world.say(f"{node} is back")
    wait_all(world, "mailbox", inbound.accepted, lambda: ids_in_mailbox(world))
    wait_all(world, "MX", outbound.accepted, lambda: ids_at_mx(world))
    world.say(f"all {len(inbound.accepted) + len(outbound.accepted)} messages arrived")


def ids_in_mailbox(world):
    """Message-IDs in the mailbox. A cut can tear the tail of Dovecot's index; it then answers the
    first opening with NO and makes the index anew from the messages. Only opening again may mend it:
    a mailbox that stays shut fails the test by its deadline."""
    imap = world.mailbox()
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
