"""Phases with real sockets: every row carries a conversation both ways, closed ports stay silent, ICMP errors of
live connections pass, forged packets that fit a live connection do not, and services open exactly what is named."""

import contextlib
import errno
import socket
import time

import packets
import rows
from listing import rules
from packets import ICMP, ICMPV6, TCP, UDP, owned_by, packet
from rows import Probe

PATIENCE = 1.0  # seconds; the network is in memory


@contextlib.contextmanager
def listener(bench, machine, local, port):
    family = socket.AF_INET if local.version == 4 else socket.AF_INET6
    with bench.topology.inside(machine):
        server = socket.socket(family, socket.SOCK_STREAM)
    with server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((str(local), port))
        server.listen()
        server.settimeout(PATIENCE)
        yield server


@contextlib.contextmanager
def caller(bench, machine, local, user=0):
    family = socket.AF_INET if local.version == 4 else socket.AF_INET6
    with bench.topology.inside(machine), owned_by(user):
        client = socket.socket(family, socket.SOCK_STREAM)
    with client:
        client.bind((str(local), 0))
        client.settimeout(PATIENCE)
        yield client


@contextlib.contextmanager
def connection(bench, source, destination, family, port):
    """A live connection along a row: (client, server side, client's address, server's address)."""
    sender, receiver, s, d = rows.endpoints(source, destination, family)
    with listener(bench, receiver, d, port) as server, caller(bench, sender, s) as client:
        client.connect((str(d), port))
        accepted, peer = server.accept()
        with accepted:
            accepted.settimeout(PATIENCE)
            if peer[0] != str(s):
                raise OSError(errno.EADDRNOTAVAIL, f"the server sees {peer[0]} where {s} called")
            yield client, accepted, s, d


def talk(client, accepted):
    """Both ways, and more than a segment; returns what went wrong."""
    text = b"220 ready\r\n" * 2000
    for one, other in [(accepted, client), (client, accepted)]:
        one.sendall(text)
        received = b""
        while len(received) < len(text):
            part = other.recv(65536)
            if not part:
                return ["the connection closed in the middle"]
            received += part
        if received != text:
            return ["other octets came than were sent"]
    return []


def attempt(action):
    try:
        return action()
    except OSError as error:
        return [str(error) or type(error).__name__]


def every_row_talks(results, bench):
    bench.load_both()
    for row, sources, destination, ports in rows.MATRIX:
        for source in sources:
            for family in (4, 6):
                for port in sorted(ports):
                    def whole():
                        with connection(bench, source, destination, family, port) as (client, accepted, _, _):
                            return talk(client, accepted)
                    results.check(f"talks: IPv{family} {source} -> {destination} tcp/{port}", attempt(whole))
    for node in sorted(rows.NODES):
        unused = [rule["comment"] for rule in accepting_rules(bench, node)
                  if rule["packets"] == 0 and "services that the site names" not in rule["comment"]]
        results.check(f"every row's own counter on the {node} node counted them", [f"no packet: {u}" for u in unused])


def accepting_rules(bench, node):
    return [r for r in rules(bench, node)
            if r["accepts"] and r["comment"].startswith(("firewall", "inside"))]


def knock(bench, sender, source, destination, port):
    """'refused' (an answer came), 'silent', or 'open'."""
    with caller(bench, sender, source) as client:
        client.settimeout(0.4)
        try:
            client.connect((str(destination), port))
            return "open"
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "silent"
        except PermissionError:
            return "silent"


def closed_ports_are_silent(results, bench):
    """With no listener an open port answers with a reset: the row really reaches the node; all else says nothing."""
    bench.load_both()
    for source, destination, opened, closed in [
            ("Internet", "gateway's public address", 25, 22), ("rest of the DMZ", "gateway", None, 25),
            ("rest of the DMZ", "internal mail server", None, 25), ("staff", "internal mail server", 993, 143),
            ("app server", "gateway", 25, 587), ("staff", "gateway", None, 25), ("gateway", "internal mail server", 25, 993)]:
        sender, _, s, d = rows.endpoints(source, destination, 4)
        found = []
        if opened and (answer := knock(bench, sender, s, d, opened)) != "refused":
            found.append(f"tcp/{opened}: {answer}, wanted an answer")
        if (answer := knock(bench, sender, s, d, closed)) != "silent":
            found.append(f"tcp/{closed}: {answer}, wanted silence")
        results.check(f"silence: {source} -> {destination} tcp/{closed}", found)


def path_mtu(results, bench):
    bench.load_both()
    for family in (4, 6):
        source, destination = "gateway's public address", "Internet server"
        with connection(bench, source, destination, family, 25) as (client, _, s, d):
            sport = client.getsockname()[1]
            router = rows.endpoints("Internet", source, family)[2]

            def error(what, quoted_port, passes):
                inner = packet(s, d, TCP, packets.tcp(s, d, quoted_port, 25), 0)
                if family == 4:
                    body, protocol = packets.icmp(router, s, 3, 4, b"\0\0\x04\xb0", inner), ICMP
                else:
                    body, protocol = packets.icmp(router, s, 2, 0, b"\0\0\x05\0", inner), ICMPV6
                return Probe(f"IPv{family} {what}", "world", "gateway", router, s, protocol, body, passes, what)

            probes = [error("path MTU error about a live connection", sport, True),
                      error("path MTU error about no connection", sport ^ 1, False)]
            for pair, found in bench.faults(probes, lambda p: p.passes).items():
                results.check(f"ICMP: {pair}", found)


def liberal(bench):
    """Connection tracking takes a segment of any sequence number: a forger who guesses well is not stopped by it."""
    for node in rows.NODES:
        with bench.topology.inside(node), open("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal", "w") as sysctl:
            sysctl.write("1")


def forgery(source, destination, family, forger, role, client, s, d):
    """An ACK that fits the live connection, as its client or its server would send it, from another machine."""
    sport = client.getsockname()[1]
    sender, receiver, *_ = rows.endpoints(source, destination, family)
    forged, target, a, b, ports = (destination, sender, d, s, (25, sport)) if role == "server" \
        else (source, receiver, s, d, (sport, 25))
    return Probe(f"IPv{family} {forger} forges the {forged} of {source} -> {destination}", forger, target, a, b, TCP,
                 packets.tcp(a, b, *ports, flags=0x10), False, "ACK of a live connection")


def forged_into_live_connection(results, bench):
    """The packet fits a live connection in all but the link that it comes from."""
    bench.load_both()
    liberal(bench)
    for family in (4, 6):
        for source, destination, forger, role in [
                ("gateway", "internal mail server", "world", "server"), ("internal mail server", "gateway", "world", "client"),
                ("gateway's public address", "Internet server", "rest", "server"), ("app server", "gateway", "world", "server"),
                ("staff", "internal mail server", "rest", "client")]:
            with connection(bench, source, destination, family, 25) as (client, accepted, s, d):
                probe = forgery(source, destination, family, forger, role, client, s, d)
                for pair, found in bench.faults([probe], lambda _: False).items():
                    results.check(f"forged: {pair}", found + attempt(lambda: talk(client, accepted)))


def forged_while_routes_are_lost(results, bench):
    """Where a route is missing the default route answers for it, and the reverse path proves nothing: the networks do."""
    bench.load_both()
    liberal(bench)
    for family, dmz, inside, staff in [(4, "10.200.9.0/24", "10.200.1.0/24", "10.200.1.100"),
                                       (6, "2001:db8:9::/64", "2001:db8:1::/64", "2001:db8:1::100")]:
        def route(node, *words):
            bench.topology.ip(node, f"-{family}", "route", *words)

        with connection(bench, "staff", "internal mail server", family, 25) as (client, _, s, d):
            route("internal", "del", inside, "dev", "internal")
            probe = forgery("staff", "internal mail server", family, "rest", "client", client, s, d)
            report_all(results, "no route to the inside", bench, [probe])
            route("internal", "add", inside, "dev", "internal")
        with connection(bench, "gateway", "internal mail server", family, 25) as (client, _, s, d):
            route("internal", "del", dmz, "dev", "dmz")
            route("internal", "replace", "default", "via", staff)
            probe = forgery("gateway", "internal mail server", family, "staff", "client", client, s, d)
            report_all(results, "no route to the DMZ", bench, [probe])

        route("gateway", "del", inside)
        route("gateway", "del", dmz, "dev", "dmz")
        probes = []
        public = rows.endpoints("Internet", "gateway's public address", family)[3]
        for number, name in enumerate(["rest of the DMZ", "internal mail server"]):
            other = rows.endpoints("Internet", name, family)[3]
            probes.append(Probe(f"IPv{family} world forges the {name}", "world", "gateway", other, public, TCP,
                                packets.tcp(other, public, 47000 + number, 25), False, "tcp/25"))
            probes.append(Probe(f"IPv{family} gateway calls the {name} over the Internet", "gateway", "world", public, other, TCP,
                                packets.tcp(public, other, 48000 + number, 25), False, "tcp/25"))
        report_all(results, "no route to the DMZ", bench, probes)


def report_all(results, title, bench, probes):
    for pair, found in bench.faults(probes, lambda _: False).items():
        results.check(f"{title}: {pair}", found)


def services(results, bench):
    """None by default (the matrix phase shows it); one named service opens one address, protocol and port."""
    bench.load_both()
    for family, host in ((4, "10.200.1.100"), (6, "2001:db8:1::100")):
        bench.topology.nft("internal", "add", "element", "inet", "postern", f"services{family}",
                           "{", host, ".", "tcp", ".", "5432", "}")
        probes = []
        for destination, protocol, port in [("staff", TCP, 5432), ("staff", UDP, 5432), ("staff", TCP, 5433),
                                            ("app server", TCP, 5432), ("gateway", TCP, 5432), ("rest of the DMZ", TCP, 5432)]:
            sender, receiver, s, d = rows.endpoints("internal mail server", destination, family)
            make = packets.tcp if protocol == TCP else packets.udp
            name = "tcp" if protocol == TCP else "udp"
            probes.append(Probe(f"IPv{family} internal mail server -> {destination} {name}/{port}", sender, receiver, s, d,
                                protocol, make(s, d, 46000, port), (destination, protocol, port) == ("staff", TCP, 5432),
                                f"{name}/{port}"))
        for pair, found in bench.faults(probes, lambda p: p.passes).items():
            results.check(f"service {host} tcp/5432: {pair}", found)


def smarthost(results, bench):
    """The option opens one port, for the queue alone and outward alone; without it nothing."""
    for site, on in [("smarthost", True), ("ipv6", False)]:
        bench.load_both(site)
        for family in (4, 6):
            probes, sport = [], 47000
            for source, destination, port, user in [
                ("gateway's public address", "Internet server", 587, 3005), ("gateway's public address", "Internet server", 587, 0),
                ("gateway's public address", "Internet server", 587, 3001), ("gateway's public address", "Internet server", 587, 3004),
                ("gateway's public address", "Internet server", 465, 3005), ("gateway's public address", "Internet server", 588, 3005),
                ("gateway", "internal mail server", 587, 3005), ("gateway", "rest of the DMZ", 587, 3005),
            ]:
                sport += 1
                sender, receiver, s, d = rows.endpoints(source, destination, family)
                passes = on and (destination, port, user) == ("Internet server", 587, 3005)
                probes.append(Probe(f"IPv{family} user {user}: {source} -> {destination} tcp/{port}", sender, receiver, s, d, TCP,
                                    packets.tcp(s, d, sport, port), passes, f"tcp/{port} by user {user}", user))
            for pair, found in bench.faults(probes, lambda p: p.passes).items():
                results.check(f"option smarthost {'on' if on else 'off'}: {pair}", found)


def loopback(results, bench):
    """What a node says to itself, by loopback and by its own addresses, is no one else's business."""
    bench.load_both()
    for node, addresses in [("gateway", ["127.0.0.1", "::1", "10.200.9.10"]), ("internal", ["127.0.0.1", "::1", "10.200.1.25"])]:
        for local in map(packets.address, addresses):
            def whole():
                with listener(bench, node, local, 53) as server, caller(bench, node, local, user=3001) as client:
                    client.connect((str(local), 53))
                    accepted, _ = server.accept()
                    with accepted:
                        accepted.settimeout(PATIENCE)
                        return talk(client, accepted)
            results.check(f"loopback: the {node} node talks to itself on {local}", attempt(whole))


def multicast_listeners(results, bench):
    """Joining a group makes the kernel report it, from each IPv6 link and from no other."""
    for site, wanted in [("ipv6", True), ("example", False)]:
        bench.load_both(site)
        with bench.topology.inside("gateway"):
            member = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            link = socket.if_nametoindex("dmz")
        with member:
            request = packets.address("ff02::4242").packed + link.to_bytes(4, "little")
            member.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
            time.sleep(0.5)
            reports = sum(r["packets"] for r in rules(bench, "gateway") if r["comment"].startswith("base: MLD"))
        results.check(f"MLD: site {site}: a report {'leaves' if wanted else 'does not leave'}",
                      [] if (reports > 0) == wanted else [f"{reports} reports"])


PHASES = [every_row_talks, loopback, multicast_listeners, closed_ports_are_silent, path_mtu, forged_into_live_connection,
          forged_while_routes_are_lost, services, smarthost]
