"""Both nodes as `postern-relay run` starts them, and what surrounds them: Dovecot's SASL service, the way from the gateway
to the internal node, and the host that gets what the internal node sends.
"""

import base64
import json
import pathlib
import re
import socket
import socketserver
import subprocess
import threading
import time

ORDINARY, APP = "her own password", "k7f2m9qa-her-app-password"
PATIENCE = 60

INTERNAL = """
role = "internal"
hostname = "mail.example.org"
local-domains = ["example.org"]
postmaster = "postmaster@example.org"
state-directory = "state"
runtime-directory = "run"
[resolver]
address = "127.0.0.1:9"
[limits]
max-message-size = 800000
message-memory = 2000000
[instance.dmz]
listen = ["127.0.0.1:{dmz}"]
tls = "required"
certificate = "../internal.crt"
key = "../internal.key"
client-ca = "../ca.crt"
trusted-names = ["mx1.example.org"]
relay-for = "local-domains"
authentication = "client-certificate"
submission = "from-gateway"
send-as-any = ["app@example.org"]
[sasl]
socket = "auth.sock"
[next-hop.world]
kind = "smtp"
host = "127.0.0.1"
port = {world}
tls = "off"
[[route]]
from = ["submission"]
domains = ["*"]
next-hop = "world"
[queue]
retry = [1]
"""

GATEWAY = """
role = "gateway"
hostname = "mx1.example.org"
local-domains = ["example.org"]
postmaster = "postmaster@example.org"
state-directory = "state"
runtime-directory = "run"
[resolver]
address = "127.0.0.1:9"
[limits]
max-message-size = 800000
message-memory = 2000000
messages-per-hour = 50
greeting-delay = 0
[instance.public]
listen = ["127.0.0.1:{mx}"]
listen-submission = ["127.0.0.1:{submission}"]
listen-submissions = ["127.0.0.1:{submissions}"]
tls = "offered"
certificate = "../gateway.crt"
key = "../gateway.key"
relay-for = "local-domains"
authentication = "none"
submission = "pass-inward"
[proxy]
next-hop = "internal"
[next-hop.internal]
kind = "smtp"
host = "127.0.0.1"
port = {way}
tls = "mutual"
server-name = "mail.example.org"
certificate = "../gateway.crt"
key = "../gateway.key"
ca = "../ca.crt"
[[route]]
from = ["public"]
domains = ["example.org"]
next-hop = "internal"
"""


def free_ports(count):
    """Ports that were free a moment ago; held together so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def serve(server):
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()


class Threading(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 128


class Sasl(socketserver.StreamRequestHandler):
    """Dovecot's side of its authentication protocol: app passwords for outside, ordinary ones for the rest."""

    def handle(self):
        self.wfile.write(b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t00\nDONE\n")
        for line in self.rfile:
            words = line.decode().rstrip("\n").split("\t")
            if words[0] != "AUTH":
                continue
            given = dict(word.partition("=")[::2] for word in words[3:])
            _, user, password = base64.b64decode(given["resp"]).decode().split("\0")
            right = {"postern-outside": APP, "smtp": ORDINARY}[given["service"]]
            if user.startswith("down@"):
                answer = f"FAIL\t{words[1]}\tuser={user}\ttemp\n"
            elif password == right and user.endswith("@example.org"):
                answer = f"OK\t{words[1]}\tuser={user.lower()}\n"
            else:
                answer = f"FAIL\t{words[1]}\tuser={user}\n"
            self.wfile.write(answer.encode())


class World(socketserver.StreamRequestHandler):
    """A host that takes everything and keeps it: envelope lines, then the message."""

    def handle(self):
        def say(text):
            self.wfile.write(text.encode() + b"\r\n")

        say("220 world")
        envelope = []
        while line := self.rfile.readline():
            verb = line[:4].upper()
            if verb == b"EHLO":
                say("250-world\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250 SIZE")
            elif verb == b"DATA":
                say("354 go on")
                content = b""
                while (line := self.rfile.readline()) not in (b".\r\n", b""):
                    content += line[1:] if line.startswith(b".") else line
                if line:
                    self.server.kept.append((b"".join(envelope), content))
                    say("250 2.0.0 kept")
            elif verb == b"QUIT":
                say("221 bye")
                return
            else:
                if verb == b"MAIL":
                    envelope = []
                envelope.append(line)
                say("250 ok")


class Way(socketserver.BaseRequestHandler):
    """From the gateway to the internal node; closed, or cut after so many octets inward, when the test says so."""

    def handle(self):
        server = self.server
        server.connections += 1
        if server.closed:
            return
        inside = socket.create_connection(server.inside)
        back = threading.Thread(target=self.copy, args=(inside, self.request, False), daemon=True)
        back.start()
        self.copy(self.request, inside, True)

    def copy(self, source, sink, inward):
        try:
            while octets := source.recv(65536):
                if inward and self.server.cut_after is not None:
                    self.server.cut_after -= len(octets)
                    if self.server.cut_after < 0:
                        break
                sink.sendall(octets)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Node:
    """One `postern-relay run`, and the events it tells."""

    def __init__(self, relay, directory, text):
        directory.mkdir(exist_ok=True)
        (directory / "relay.toml").write_text(text)
        self.events, self.lines = [], []
        self.process = subprocess.Popen([relay, "run", "--config", directory / "relay.toml"],
                                        stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(r"event (\{.*)", line):
                self.events.append(json.loads(found.group(1)))

    def find(self, **wanted):
        """The events so far that have all of these."""
        return [e for e in self.events if all(e.get(key) == value for key, value in wanted.items())]

    def wait(self, **wanted):
        """The first such event, waited for."""
        return until(lambda: self.find(**wanted), f"no event {wanted}")[0]


def until(look, complaint):
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(complaint)
        time.sleep(0.02)
    return found


class Nodes:
    """Everything, running."""

    def __init__(self, directory, relay):
        self.directory = pathlib.Path(directory)
        names = ("dmz", "world", "mx", "submission", "submissions", "way")
        self.ports = dict(zip(names, free_ports(len(names))))
        inside = self.directory / "internal"
        inside.mkdir()
        serve(socketserver.ThreadingUnixStreamServer(str(inside / "auth.sock"), Sasl))
        self.world = Threading(("127.0.0.1", self.ports["world"]), World)
        self.world.kept = []
        serve(self.world)
        self.way = Threading(("127.0.0.1", self.ports["way"]), Way)
        self.way.inside = ("127.0.0.1", self.ports["dmz"])
        self.way.connections, self.way.closed, self.way.cut_after = 0, False, None
        serve(self.way)
        self.internal = Node(relay, inside, INTERNAL.format(**self.ports))
        self.gateway = Node(relay, self.directory / "gateway", GATEWAY.format(**self.ports))
        # On each: the queue; besides one smtpd inside, and smtpd and proxy at the gateway.
        for node, parts in ((self.internal, 2), (self.gateway, 3)):
            until(lambda node=node, parts=parts: len(node.find(event="started")) == parts,
                  "a node does not start")

    def arrived(self, text):
        """The message with this text, once it has reached the world: envelope and content."""
        return until(lambda: self.seen(text), f"{text!r} did not arrive")

    def seen(self, text):
        return next((kept for kept in self.world.kept if text.encode() in kept[1]), None)

    def stop(self):
        """Both end by themselves, and well."""
        for node in (self.gateway, self.internal):
            node.process.terminate()
        codes = [node.process.wait(PATIENCE) for node in (self.gateway, self.internal)]
        assert codes == [0, 0], f"the nodes ended with {codes}"
