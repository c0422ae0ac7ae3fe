"""The test's network: six machines and three Ethernets, in network namespaces named after this process.

      203.0.113.0/24            10.200.9.0/24                 10.200.1.0/24
      2001:db8::/64             2001:db8:9::/64               2001:db8:1::/64

    world ---- outside [gateway] dmz ------ dmz [internal] internal ---- staff
     .66 calls      .10          .10    |    .2            .25       |    .100
     .77 answers                        |                            |
                                       rest                         app
                                     .50, .11 (dark)                .12

Addresses are those of docs/site.example.toml. Everything that a kernel could drop by itself is switched off
(reverse path filter, forwarding off, local sources), and every machine has routes everywhere, so that what
does not arrive was stopped by the rule set and by nothing else. Nothing of this touches the host's own network.
"""

import contextlib
import ctypes
import json
import os
import subprocess

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000

# machine -> link -> addresses
MACHINES = {
    "world": {"eth0": ["203.0.113.66/24", "203.0.113.77/24", "2001:db8::66/64", "2001:db8::77/64"]},
    "gateway": {
        "outside": ["203.0.113.10/24", "2001:db8::10/64"],
        "dmz": ["10.200.9.10/24", "2001:db8:9::10/64"],
    },
    "rest": {"eth0": ["10.200.9.50/24", "10.200.9.11/24", "2001:db8:9::50/64", "2001:db8:9::11/64"]},
    "internal": {
        "dmz": ["10.200.9.2/24", "2001:db8:9::2/64"],
        "internal": ["10.200.1.25/24", "2001:db8:1::25/64"],
    },
    "app": {"eth0": ["10.200.1.12/24", "2001:db8:1::12/64"]},
    "staff": {"eth0": ["10.200.1.100/24", "2001:db8:1::100/64"]},
}
ETHERNET = {
    ("world", "eth0"): "outside", ("gateway", "outside"): "outside",
    ("gateway", "dmz"): "dmz", ("rest", "eth0"): "dmz", ("internal", "dmz"): "dmz",
    ("internal", "internal"): "internal", ("app", "eth0"): "internal", ("staff", "eth0"): "internal",
}
# machine -> (network, next hop, preferred source); the sources and next hops are ARCHITECTURE's.
ROUTES = {
    "world": [("10.200.0.0/16", "203.0.113.10", None), ("2001:db8:9::/64", "2001:db8::10", None),
              ("2001:db8:1::/64", "2001:db8::10", None)],
    "gateway": [("10.200.1.0/24", "10.200.9.2", None), ("2001:db8:1::/64", "2001:db8:9::2", None),
                ("default", "203.0.113.66", None), ("::/0", "2001:db8::66", None)],
    "rest": [("10.200.1.0/24", "10.200.9.2", None), ("2001:db8:1::/64", "2001:db8:9::2", None),
             ("default", "10.200.9.10", None), ("::/0", "2001:db8:9::10", None)],
    # A real internal node has no default route; this one has, to show that the rule set does not lean on it.
    "internal": [("default", "10.200.9.10", "10.200.1.25"), ("::/0", "2001:db8:9::10", "2001:db8:1::25")],
    "app": [("default", "10.200.1.25", None), ("::/0", "2001:db8:1::25", None)],
    "staff": [("default", "10.200.1.25", None), ("::/0", "2001:db8:1::25", None)],
}
PERMISSIVE = {
    "net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1,
    "net.ipv4.conf.all.rp_filter": 0, "net.ipv4.conf.default.rp_filter": 0,
    "net.ipv4.conf.all.accept_local": 1, "net.ipv4.conf.all.route_localnet": 1,
    "net.ipv4.icmp_echo_ignore_broadcasts": 0, "net.ipv4.icmp_ratelimit": 0,
    "net.ipv6.conf.all.accept_dad": 0, "net.ipv6.conf.default.accept_dad": 0,
    "net.ipv6.conf.all.accept_ra": 0, "net.ipv6.conf.default.accept_ra": 0,
}


def run(*command, stdin=None, check=True):
    done = subprocess.run(command, input=stdin, text=True, capture_output=True)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    return done


class Topology:
    """Builds the network on entry, removes it on exit, whatever happened between."""

    def __init__(self):
        self.prefix = f"postern-{os.getpid()}-"

    def name(self, machine):
        return self.prefix + machine

    def __enter__(self):
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for machine in [*MACHINES, "switch"]:
            run("ip", "netns", "del", self.name(machine), check=False)

    def _build(self):
        switch = self.name("switch")
        for machine in [*MACHINES, "switch"]:
            run("ip", "netns", "add", self.name(machine))
        commands = [f"link add {bridge} type bridge mcast_snooping 0\nlink set {bridge} up"
                    for bridge in sorted(set(ETHERNET.values()))]
        run("ip", "-n", switch, "-batch", "-", stdin="\n".join(commands) + "\n")
        for machine, links in MACHINES.items():
            with self.inside(machine):
                for key, value in PERMISSIVE.items():
                    with open("/proc/sys/" + key.replace(".", "/"), "w") as sysctl:
                        sysctl.write(str(value))
            lines = ["link set lo up"]
            for link, addresses in links.items():
                port = f"{machine[:6]}-{link[:7]}"
                run("ip", "link", "add", link, "netns", self.name(machine), "type", "veth",
                    "peer", "name", port, "netns", switch)
                run("ip", "-n", switch, "link", "set", port, "master", ETHERNET[machine, link], "up")
                lines.append(f"link set {link} up")
                lines += [f"address add {a} dev {link}" + (" nodad" if ":" in a else "") for a in addresses]
            for network, via, source in ROUTES[machine]:
                lines.append(f"route add {network} via {via}" + (f" src {source}" if source else ""))
            run("ip", "-n", self.name(machine), "-batch", "-", stdin="\n".join(lines) + "\n")

    def pin_neighbours(self):
        """Tells every machine the hardware addresses of the others on its Ethernets, for good."""
        neighbours = []
        for (machine, link), ethernet in ETHERNET.items():
            done = run("ip", "-n", self.name(machine), "-j", "link", "show", link)
            hardware = json.loads(done.stdout)[0]["address"]
            neighbours += [(ethernet, machine, a.split("/")[0], hardware) for a in MACHINES[machine][link]]
        for (machine, link), ethernet in ETHERNET.items():
            lines = [f"neighbour replace {a} lladdr {hardware} dev {link} nud permanent"
                     for e, owner, a, hardware in neighbours if e == ethernet and owner != machine]
            run("ip", "-n", self.name(machine), "-batch", "-", stdin="\n".join(lines) + "\n")

    @contextlib.contextmanager
    def inside(self, machine):
        """Sockets made in here belong to the machine, and go on belonging to it outside."""
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        there = os.open("/run/netns/" + self.name(machine), os.O_RDONLY)
        try:
            setns(there)
            yield
        finally:
            setns(home)
            os.close(there)
            os.close(home)

    def ip(self, machine, *arguments):
        return run("ip", "-n", self.name(machine), *arguments)

    def nft(self, machine, *arguments, stdin=None, check=True):
        return run("ip", "netns", "exec", self.name(machine), "nft", *arguments, stdin=stdin, check=check)


def setns(descriptor):
    if LIBC.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns: entering a network namespace needs root")
