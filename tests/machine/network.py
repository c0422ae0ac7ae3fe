"""The networks of the machine tests: namespaces and bridges that this process makes and removes.

    outside ns                     switch ns (no addresses)                 app ns     10.200.1.12
      203.0.113.1  router    veth  ┌─────────────────────────┐   veth       staff ns   10.200.1.77
      203.0.113.20 sender  ────────┤ br-outside              │
      203.0.113.25 MX              │    └ tap gateway        │
      203.0.113.53 DNS             │ br-dmz                  │
    stray ns 10.200.9.99   ────────┤    ├ tap gateway        │
                                   │    └ tap internal       │
                                   │ br-internal             ├───────────── app, staff
                                   │    └ tap internal       │
                                   └─────────────────────────┘

Nothing has an uplink: no packet of a test can leave the machine. Names carry the process id.
A socket stays in the namespace it was made in, so a test enters one only to make its sockets.
"""

import contextlib
import ctypes
import os
import socket
import subprocess

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000

GATEWAY, INTERNAL = "203.0.113.10", "10.200.1.25"
GATEWAY_DMZ, INTERNAL_DMZ = "10.200.9.10", "10.200.9.2"
ROUTER, SENDER, MX, BULK, DNS = (f"203.0.113.{n}" for n in (1, 20, 25, 30, 53))
STRAY, APP, STAFF = "10.200.9.99", "10.200.1.12", "10.200.1.77"

# host namespace -> (network it is plugged into, its addresses, its routes)
HOSTS = {
    "outside": ("outside", [f"{a}/24" for a in (ROUTER, SENDER, MX, BULK, DNS)],
                [("10.200.0.0/16", GATEWAY)]),
    "stray": ("dmz", [f"{STRAY}/24"],
              [("10.200.1.0/24", INTERNAL_DMZ), ("203.0.113.0/24", GATEWAY_DMZ)]),
    "app": ("internal", [f"{APP}/24"],
            [("10.200.9.0/24", INTERNAL), ("203.0.113.0/24", INTERNAL)]),
    "staff": ("internal", [f"{STAFF}/24"],
              [("10.200.9.0/24", INTERNAL), ("203.0.113.0/24", INTERNAL)]),
}
BRIDGES = ("outside", "dmz", "internal")


def ip(*words, namespace=None):
    """Runs ip(8); a failure names the command and what ip said."""
    command = ["ip", *(["-n", namespace] if namespace else []), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


class Namespace:
    """One network namespace of ours."""

    def __init__(self, name):
        self.name = name

    @contextlib.contextmanager
    def entered(self):
        """The calling thread is inside; what it opens or starts stays there."""
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{self.name}") as there:
            self._enter(there.fileno())
            try:
                yield self
            finally:
                self._enter(home.fileno())

    @staticmethod
    def _enter(descriptor):
        if LIBC.setns(descriptor, CLONE_NEWNET):
            error = ctypes.get_errno()
            raise OSError(error, f"setns: {os.strerror(error)}")

    def connect(self, host, port, source=None, timeout=60):
        """A TCP connection from this namespace, as socket.create_connection makes it."""
        with self.entered():
            return socket.create_connection(
                (host, port), timeout, (source, 0) if source else None)

    def start(self, argv, **options):
        """A process in this namespace."""
        with self.entered():
            return subprocess.Popen([str(word) for word in argv], **options)


class Networks:
    """All namespaces, with the cables between them."""

    def __init__(self, tag):
        self.tag = tag
        self.names = [f"{tag}-{host}" for host in ("switch", *HOSTS)]
        self.made = []

    def up(self):
        for name in self.names:
            ip("netns", "add", name)
            self.made.append(name)
            # No IPv6 chatter and no addresses but ours; the IPv6 rows are proved by tests/network.
            ip("link", "set", "lo", "up", namespace=name)
        switch = f"{self.tag}-switch"
        for bridge in BRIDGES:
            ip("link", "add", f"br-{bridge}", "type", "bridge", "forward_delay", "0",
               namespace=switch)
            ip("link", "set", f"br-{bridge}", "up", namespace=switch)
        for host, (bridge, addresses, routes) in HOSTS.items():
            namespace = f"{self.tag}-{host}"
            ip("link", "add", f"to-{host}", "type", "veth", "peer", "name", "eth0",
               "netns", namespace, namespace=switch)
            ip("link", "set", f"to-{host}", "master", f"br-{bridge}", "up", namespace=switch)
            ip("link", "set", "eth0", "up", namespace=namespace)
            for address in addresses:
                ip("addr", "add", address, "dev", "eth0", namespace=namespace)
            for destination, gateway in routes:
                ip("route", "add", destination, "via", gateway, namespace=namespace)

    def __getitem__(self, host):
        return Namespace(f"{self.tag}-{host}")

    def tap(self, name, bridge):
        """A tap device on a bridge, for a node's link; it outlives the QEMU that uses it."""
        switch = f"{self.tag}-switch"
        ip("tuntap", "add", name, "mode", "tap", namespace=switch)
        ip("link", "set", name, "master", f"br-{bridge}", "up", namespace=switch)

    @contextlib.contextmanager
    def severed(self, source, destination, port):
        """No segment from `source` to the port of `destination` crosses the DMZ, but for those that
        open a connection: a host that takes connections and then lies dead, the worst of its kind."""
        rules = (f"table bridge severed {{ chain forward {{ type filter hook forward priority 0; "
                 f"ip saddr {source} ip daddr {destination} tcp dport {port} "
                 f"tcp flags & syn == 0 drop; }}; }}")
        self._nft(rules)
        try:
            yield
        finally:
            self._nft("delete table bridge severed")

    def _nft(self, commands):
        done = subprocess.run(["ip", "netns", "exec", f"{self.tag}-switch", "nft", commands],
                              capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"nft {commands}: {done.stderr.strip()}")

    def down(self):
        """Removes what was made; a namespace takes its links with it."""
        while self.made:
            name = self.made.pop()
            subprocess.run(["ip", "netns", "del", name], check=False)
