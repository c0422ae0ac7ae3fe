"""The reachability matrix in the words of the design, and the probes that try it and its neighbours.

This is the test's own statement of what may pass. It shares nothing with the rule sets.
"""

import dataclasses

import packets
from packets import ESP, GRE, ICMP, ICMPV6, SCTP, TCP, UDP, address

# endpoint -> (machine, IPv4, IPv6)
ENDPOINTS = {
    "Internet": ("world", "203.0.113.66", "2001:db8::66"),
    "Internet server": ("world", "203.0.113.77", "2001:db8::77"),
    "gateway's public address": ("gateway", "203.0.113.10", "2001:db8::10"),
    "gateway": ("gateway", "10.200.9.10", "2001:db8:9::10"),
    "rest of the DMZ": ("rest", "10.200.9.50", "2001:db8:9::50"),
    "dark IDS address": ("rest", "10.200.9.11", "2001:db8:9::11"),
    "internal node's DMZ address": ("internal", "10.200.9.2", "2001:db8:9::2"),
    "internal mail server": ("internal", "10.200.1.25", "2001:db8:1::25"),
    "app server": ("app", "10.200.1.12", "2001:db8:1::12"),
    "staff": ("staff", "10.200.1.100", "2001:db8:1::100"),
}

# (row, from, to, TCP ports). Everything else is dropped.
MATRIX = [
    ("firewall 1: Internet -> gateway", ["Internet", "Internet server"], "gateway's public address", {25, 587, 443}),
    # By option: site-ipv6.toml has it, the example site has not.
    ("option submissions: Internet -> gateway", ["Internet", "Internet server"], "gateway's public address", {465}),
    ("firewall 1: gateway -> Internet", ["gateway's public address"], "Internet", {25, 53, 80, 443}),
    ("firewall 1: gateway -> Internet", ["gateway's public address"], "Internet server", {25, 53, 80, 443}),
    ("firewall 2: gateway -> internal mail server", ["gateway"], "internal mail server", {25}),
    ("firewall 2: internal mail server, app server -> gateway", ["internal mail server", "app server"], "gateway", {25}),
    ("inside: internal network -> internal node", ["app server", "staff"], "internal mail server", {25, 587, 993, 443}),
]

SENDERS = [e for e in ENDPOINTS if e != "Internet server"]
RECEIVERS = [e for e in ENDPOINTS if e != "Internet"]
NODES = {"gateway", "internal"}
SEGMENTS = {"world": "outside", "rest": "dmz", "app": "internal", "staff": "internal"}

PORTS = [1, 22, 24, 25, 26, 53, 80, 110, 143, 443, 465, 587, 783, 853, 993, 995, 2525, 3310, 5432, 7844, 8080, 65535]
SOURCE_PORTS = [40000, 25, 53, 443]


def allowed_ports(source, destination):
    return set().union(*(ports for _, sources, to, ports in MATRIX if source in sources and to == destination))


def row_of(source, destination):
    return next((row for row, sources, to, _ in MATRIX if source in sources and to == destination), None)


def first_firewall(sender, receiver):
    """The node whose rule set a packet between two machines meets first (see topology.ROUTES)."""
    if sender in NODES:
        return sender
    if sender == "world":
        return "gateway"
    if sender == "rest":
        return "internal" if receiver in ("internal", "app", "staff") else "gateway"
    return "internal"


@dataclasses.dataclass
class Probe:
    pair: str
    sender: str
    receiver: str
    source: object
    destination: object
    protocol: int
    payload: bytes
    passes: bool
    what: str
    user: int = 0
    ttl: int = packets.TTL

    def raw(self, number):
        return packets.packet(self.source, self.destination, self.protocol, self.payload, number, self.ttl)


def pairs():
    """Every (from, to) whose packets have a firewall on their way."""
    for source in SENDERS:
        for destination in RECEIVERS:
            sender, receiver = ENDPOINTS[source][0], ENDPOINTS[destination][0]
            if sender == receiver:
                continue
            if sender not in NODES and receiver not in NODES and SEGMENTS[sender] == SEGMENTS[receiver]:
                continue
            yield source, destination


def endpoints(source, destination, family):
    sender, receiver = ENDPOINTS[source], ENDPOINTS[destination]
    which = 1 if family == 4 else 2
    return sender[0], receiver[0], address(sender[which]), address(receiver[which])


def matrix_probes(family):
    """Each pair tried on all of PORTS, by TCP and UDP, from all of SOURCE_PORTS, and by other protocols."""
    for source, destination in pairs():
        sender, receiver, s, d = endpoints(source, destination, family)
        pair = f"IPv{family} {source} -> {destination}"

        def probe(protocol, payload, what, passes=False):
            return Probe(pair, sender, receiver, s, d, protocol, payload, passes, what)

        for dport in PORTS:
            for sport in SOURCE_PORTS:
                passes = dport in allowed_ports(source, destination)
                yield probe(TCP, packets.tcp(s, d, sport, dport), f"tcp/{dport} from {sport}", passes)
                yield probe(UDP, packets.udp(s, d, sport, dport), f"udp/{dport} from {sport}")
        for name, flags in [("ACK", 0x10), ("SYN+ACK", 0x12), ("FIN", 0x01), ("RST", 0x04), ("no flag", 0), ("FIN+PSH+URG", 0x29)]:
            yield probe(TCP, packets.tcp(s, d, 40001, 25, flags), f"tcp/25 {name} of no connection")
        yield from other_protocols(probe, s, d)


def other_protocols(probe, s, d):
    quoted = packets.packet(d, s, TCP, packets.tcp(d, s, 25, 41000), 0)[:48]
    if s.version == 4:
        for name, kind, code in [("echo", 8, 0), ("echo reply", 0, 0), ("redirect", 5, 1), ("timestamp", 13, 0),
                                 ("router advertisement", 9, 0)]:
            yield probe(ICMP, packets.icmp(s, d, kind, code), f"icmp {name}")
        yield probe(ICMP, packets.icmp(s, d, 3, 4, b"\0\0\2\0", quoted), "icmp fragmentation-needed of no connection")
    else:
        for name, kind in [("echo", 128), ("echo reply", 129), ("router advertisement", 134), ("redirect", 137),
                           ("neighbour solicitation with a hop limit under 255", 135)]:
            yield probe(ICMPV6, packets.icmp(s, d, kind, 0, rest=b"\0" * 20), f"icmpv6 {name}")
        yield probe(ICMPV6, packets.icmp(s, d, 2, 0, b"\0\0\5\0", quoted), "icmpv6 packet-too-big of no connection")
    # First octets that any of these protocols could begin with; TCP's port 25 is no key to another protocol.
    begin = bytes.fromhex("9c400019000000010000000000000000")
    for name, protocol in [("GRE", GRE), ("ESP", ESP), ("SCTP", SCTP), ("UDP-Lite", 136), ("DCCP", 33), ("IP in IP", 4)]:
        yield probe(protocol, begin, name)


# (why, sending machine, forged IPv4 source, IPv6 source, endpoint, TCP port): each with a port that its row opens.
FORGED = [
    ("internal mail server's address from the Internet", "world", "10.200.1.25", "2001:db8:1::25", "gateway", 25),
    ("app server's address from the Internet", "world", "10.200.1.12", "2001:db8:1::12", "gateway", 25),
    ("internal address from the Internet to the public address", "world", "10.200.1.25", "2001:db8:1::25", "gateway's public address", 25),
    ("DMZ address from the Internet", "world", "10.200.9.50", "2001:db8:9::50", "gateway's public address", 25),
    ("gateway's own public address from the Internet", "world", "203.0.113.10", "2001:db8::10", "gateway's public address", 25),
    ("gateway's own DMZ address from the Internet", "world", "10.200.9.10", "2001:db8:9::10", "gateway's public address", 25),
    ("gateway's address from the Internet, inward", "world", "10.200.9.10", "2001:db8:9::10", "internal mail server", 25),
    ("link-local source", "world", "169.254.1.1", "fe80::bad:1", "gateway's public address", 25),
    ("reserved source", "world", "240.1.1.1", None, "gateway's public address", 25),
    ("loopback source (IPv4-compatible source)", "world", "127.0.0.1", "::198.51.100.66", "gateway's public address", 25),
    ("Internet address from the DMZ", "rest", "203.0.113.66", "2001:db8::66", "gateway's public address", 25),
    ("Internet address from the DMZ to the DMZ side", "rest", "203.0.113.66", "2001:db8::66", "gateway", 25),
    ("gateway's own address from the DMZ", "rest", "10.200.9.10", "2001:db8:9::10", "gateway", 25),
    ("inside address from the DMZ", "rest", "10.200.1.100", "2001:db8:1::100", "internal mail server", 993),
    ("internal mail server's own address from the DMZ", "rest", "10.200.1.25", "2001:db8:1::25", "internal mail server", 25),
    ("app server's address from the DMZ", "rest", "10.200.1.12", "2001:db8:1::12", "internal mail server", 587),
    ("gateway's address from the internal network", "staff", "10.200.9.10", "2001:db8:9::10", "internal mail server", 25),
    ("DMZ address from the internal network", "staff", "10.200.9.50", "2001:db8:9::50", "internal mail server", 993),
    ("Internet address from the internal network", "staff", "203.0.113.66", "2001:db8::66", "internal mail server", 993),
    ("internal mail server's own address from the inside", "staff", "10.200.1.25", "2001:db8:1::25", "internal mail server", 993),
]


def forged_probes(family):
    for number, (why, sender, v4, v6, destination, port) in enumerate(FORGED):
        source = v4 if family == 4 else v6
        if source is None:
            continue
        receiver = ENDPOINTS[destination][0]
        s, d = address(source), address(ENDPOINTS[destination][1 if family == 4 else 2])
        payload = packets.tcp(s, d, 42000 + number, port)
        yield Probe(f"IPv{family} forged: {why}", sender, receiver, s, d, TCP, payload, False, f"tcp/{port}")


def neighbour_probes(passes):
    """Neighbour solicitations, as IPv6 cannot do without them: hop limit 255, from the link itself."""
    for source, destination in [("Internet", "gateway's public address"), ("rest of the DMZ", "gateway"),
                                ("rest of the DMZ", "internal node's DMZ address"), ("staff", "internal mail server")]:
        sender, receiver, s, d = endpoints(source, destination, 6)
        payload = packets.icmp(s, d, 135, rest=b"\0\0\0\0" + d.packed)
        yield Probe(f"IPv6 neighbour solicitation {source} -> {destination}", sender, receiver, s, d, ICMPV6, payload, passes,
                    "icmpv6 135, hop limit 255", ttl=255)


def everything(family):
    return list(matrix_probes(family)) + list(forged_probes(family))


# smtpd, console, spamd, Suricata and Dovecot's users: no row is theirs.
SERVANTS = [3001, 3002, 3003, 3008, 3020, 3102, 3104, 3105, 3106]


# Option dmz-state: the host in the DMZ that the sites of harness.STATE_SITES name, and the process that may speak to it.
STATE_PORT, PROXY = 6379, 3004


def state_probes(family):
    """The option's row, its neighbours by port, protocol, user, source and destination, and the way back."""
    sport = 45000

    def probes(source, destination, protocol, port, user, passes):
        nonlocal sport
        sport += 1
        sender, receiver, s, d = endpoints(source, destination, family)
        kind, payload = ("tcp", packets.tcp(s, d, sport, port)) if protocol == TCP else ("udp", packets.udp(s, d, sport, port))
        return Probe(f"IPv{family} dmz-state: {source} -> {destination}", sender, receiver, s, d, protocol, payload, passes,
                     f"{kind}/{port} by user {user}", user)

    for port in [*PORTS, STATE_PORT - 1, STATE_PORT, STATE_PORT + 1]:
        for user in [0, PROXY, 3005, *SERVANTS]:
            yield probes("gateway", "rest of the DMZ", TCP, port, user, user == PROXY and port == STATE_PORT)
    yield probes("gateway", "rest of the DMZ", UDP, STATE_PORT, PROXY, False)
    yield probes("gateway's public address", "rest of the DMZ", TCP, STATE_PORT, PROXY, False)
    yield probes("gateway", "Internet server", TCP, STATE_PORT, PROXY, False)
    yield probes("gateway", "internal mail server", TCP, STATE_PORT, PROXY, False)
    if family == 4:
        yield probes("gateway", "dark IDS address", TCP, STATE_PORT, PROXY, False)
    for port in (25, STATE_PORT):
        yield probes("rest of the DMZ", "gateway", TCP, port, 0, False)
        yield probes("internal mail server", "rest of the DMZ", TCP, port, 0, False)


def servant_probes(family):
    """The flows that a node may open, tried by processes that may not, and by those that may."""
    sport = 43000
    for source, destination, port in [("gateway's public address", "Internet server", 25), ("gateway", "internal mail server", 25),
                                      ("internal mail server", "gateway", 25)]:
        sender, receiver, s, d = endpoints(source, destination, family)
        for user in [*SERVANTS, 3004, 3005]:
            sport += 1
            passes = user == 3005 or (user == 3004 and destination != "Internet server")
            yield Probe(f"IPv{family} user {user}: {source} -> {destination}", sender, receiver, s, d, TCP,
                        packets.tcp(s, d, sport, port), passes, f"tcp/{port} by user {user}", user)
