"""Raw packets, and the recorder that says which of them came to a firewall and which came out of it.

A probe carries its number where no firewall looks (IPv4 identification, IPv6 flow label) and, as the mark of the
test, DSCP 43 and a time to live that no kernel's answer starts from. In every machine a table of the test's own writes the numbers into nft sets: `before` any filter
(prerouting and output, priority raw) and `after` all of them (input and postrouting, last).
"""

import contextlib
import ipaddress
import json
import re
import socket
import struct

from topology import LIBC

DSCP = 43
TTL = 200
ICMP, TCP, UDP, GRE, ESP, ICMPV6, SCTP = 1, 6, 17, 47, 50, 58, 132

RECORDER = f"""
table inet recorder
delete table inet recorder
table inet recorder {{
	set before4 {{ typeof ip id; size 131072; flags dynamic; }}
	set before6 {{ typeof ip6 flowlabel; size 131072; flags dynamic; }}
	set after4 {{ typeof ip id; size 131072; flags dynamic; }}
	set after6 {{ typeof ip6 flowlabel; size 131072; flags dynamic; }}
	counter came {{ }}
	chain before {{
		ip dscp {DSCP} ip ttl > 100 counter name came add @before4 {{ ip id }}
		ip6 dscp {DSCP} ip6 hoplimit > 100 counter name came add @before6 {{ ip6 flowlabel }}
	}}
	chain after {{
		ip dscp {DSCP} ip ttl > 100 add @after4 {{ ip id }}
		ip6 dscp {DSCP} ip6 hoplimit > 100 add @after6 {{ ip6 flowlabel }}
	}}
	chain prerouting {{ type filter hook prerouting priority -400; jump before; }}
	chain output {{ type filter hook output priority -400; jump before; }}
	chain input {{ type filter hook input priority 300; jump after; }}
	chain postrouting {{ type filter hook postrouting priority 300; jump after; }}
}}
"""


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo_header(source, destination, protocol, length):
    if source.version == 4:
        return source.packed + destination.packed + struct.pack("!BBH", 0, protocol, length)
    return source.packed + destination.packed + struct.pack("!IHBB", length, 0, 0, protocol)


def with_checksum(source, destination, protocol, payload, at):
    """The payload with its checksum put in at the given offset: conntrack calls a wrong one invalid."""
    pseudo = b"" if protocol == ICMP else pseudo_header(source, destination, protocol, len(payload))
    value = checksum(pseudo + payload)
    return payload[:at] + struct.pack("!H", value) + payload[at + 2:]


def tcp(source, destination, sport, dport, flags=0x02, sequence=1):
    header = struct.pack("!HHIIBBHHH", sport, dport, sequence, 0, 5 << 4, flags, 64240, 0, 0)
    return with_checksum(source, destination, TCP, header, 16)


def udp(source, destination, sport, dport):
    header = struct.pack("!HHHH", sport, dport, 12, 0) + b"post"
    return with_checksum(source, destination, UDP, header, 6)


def icmp(source, destination, kind, code=0, rest=b"\0\0\0\0", quoted=b""):
    protocol = ICMP if source.version == 4 else ICMPV6
    return with_checksum(source, destination, protocol, struct.pack("!BBH", kind, code, 0) + rest + quoted, 2)


def packet(source, destination, protocol, payload, number, ttl=TTL):
    if source.version == 4:
        return struct.pack("!BBHHHBBH", 0x45, DSCP << 2, 20 + len(payload), number, 0, ttl, protocol, 0) \
            + source.packed + destination.packed + payload
    first = 6 << 28 | DSCP << 22 | number
    return struct.pack("!IHBB", first, len(payload), protocol, ttl) + source.packed + destination.packed + payload


def sweep_packets(source, destination, sport=45000):
    """A SYN to each TCP port from 1 to 65535, numbered by the port; only three fields differ, so only they are made."""
    raw = bytearray(packet(source, destination, TCP, tcp(source, destination, sport, 0), 0))
    at = 20 if source.version == 4 else 40
    base = ~struct.unpack_from("!H", raw, at + 16)[0] & 0xFFFF
    for port in range(1, 65536):
        total = base + port
        total = (total & 0xFFFF) + (total >> 16)
        struct.pack_into("!H", raw, at + 2, port)
        struct.pack_into("!H", raw, at + 16, ~total & 0xFFFF)
        struct.pack_into("!H", raw, 4 if source.version == 4 else 2, port)
        yield raw


def address(text):
    return ipaddress.ip_address(text)


@contextlib.contextmanager
def owned_by(user):
    """What nft's `meta skuid` sees of a socket is its maker's file system user id; that alone is changed here."""
    LIBC.setfsuid(user)
    try:
        yield
    finally:
        LIBC.setfsuid(0)


class Wire:
    """Sends raw packets out of a machine, by its routes and through its output hook, as a user's own."""

    def __init__(self, topology, machine, user=0):
        with topology.inside(machine), owned_by(user):
            self.v4 = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
            self.v6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def send(self, destination, raw):
        try:
            if destination.version == 4:
                self.v4.sendto(raw, (str(destination), 0))
            else:
                self.v6.sendto(raw, (str(destination), 0))
        except PermissionError:
            pass  # how the output hook's drop looks to the sender


class Recorder:
    """Reads back what the recorder tables of all machines saw."""

    def __init__(self, topology):
        self.topology = topology

    def install(self, machines, with_before=True):
        """Empties the records; a sweep counts what came and does not need its numbers."""
        table = RECORDER if with_before else re.sub(r"add @before\d .*", "", RECORDER)
        for machine in machines:
            self.topology.nft(machine, "-f", "-", stdin=table)

    def numbers(self, machine, name):
        answer = self.topology.nft(machine, "-j", "list", "set", "inet", "recorder", name).stdout
        for item in json.loads(answer)["nftables"]:
            if "set" in item:
                return {value(element) for element in item["set"].get("elem", [])}
        raise RuntimeError(f"{machine}: nft did not list set {name}")

    def came(self, machine):
        """How many marked packets came, before any filter."""
        answer = self.topology.nft(machine, "-j", "list", "counter", "inet", "recorder", "came").stdout
        return next(i["counter"]["packets"] for i in json.loads(answer)["nftables"] if "counter" in i)


def value(element):
    """nft 1.0.6 prints plain values, later ones may wrap them."""
    return element["elem"]["val"] if isinstance(element, dict) and "elem" in element else element
