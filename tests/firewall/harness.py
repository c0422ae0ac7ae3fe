"""What all phases share: the count of results, and the two nodes with their rule sets."""

import pathlib
import time

import rows
from packets import Recorder, Wire
from rows import first_firewall
from topology import MACHINES

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
FIREWALL = REPOSITORY / "firewall"
SITES = {
    "example": REPOSITORY / "docs" / "site.example.toml",
    "ipv6": pathlib.Path(__file__).resolve().parent / "site-ipv6.toml",
    "smarthost": pathlib.Path(__file__).resolve().parent / "site-smarthost.toml",
}

# The IPv6 site with option dmz-state: the host of rows.py's "rest of the DMZ", by either family.
STATE_SITES = {4: "10.200.9.50", 6: "2001:db8:9::50"}


class Results:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, what, faults):
        """One test; faults is a list of what went wrong, empty when nothing did."""
        if faults:
            self.failed += 1
            print(f"FAIL  {what}")
            for fault in faults[:10]:
                print(f"        {fault}")
            if len(faults) > 10:
                print(f"        ... and {len(faults) - 10} more")
        else:
            self.passed += 1
            print(f"ok    {what}")


class Bench:
    """The two nodes with their rule sets, and what tests do with them."""

    def __init__(self, topology, rendered):
        self.topology = topology
        self.rendered = rendered
        self.recorder = Recorder(topology)
        self.recorder.install(MACHINES)
        self.wires = {}

    def load(self, node, site="ipv6", check=True):
        return self.load_files(node, FIREWALL, self.rendered / site / node, check)

    def load_files(self, node, firewall, elements, check=True):
        return self.topology.nft(node, "-I", str(firewall), "-I", str(elements),
                                 "-f", str(firewall / f"role-{node}.nft"), check=check)

    def load_both(self, site="ipv6"):
        for node in sorted(rows.NODES):
            self.load(node, site)

    def close_both(self):
        for node in sorted(rows.NODES):
            self.topology.nft(node, "-f", str(FIREWALL / "closed.nft"))

    def wire(self, machine, user=0):
        if (machine, user) not in self.wires:
            self.wires[machine, user] = Wire(self.topology, machine, user)
        return self.wires[machine, user]

    def send(self, probes):
        """Sends the probes; returns two sets of their indices: came to the first firewall, arrived."""
        self.recorder.install(MACHINES)
        # What must be dropped goes first: an accepted packet makes a connection, and the mirror image of its
        # addresses and ports would then be a reply.
        order = sorted(range(len(probes)), key=lambda i: probes[i].passes)
        for index in order:
            probe = probes[index]
            self.wire(probe.sender, probe.user).send(probe.destination, probe.raw(index + 1))
        time.sleep(0.2)
        seen = {}

        def recorded(machine, name, probe):
            key = machine, f"{name}{probe.destination.version}"
            if key not in seen:
                seen[key] = self.recorder.numbers(*key)
            return seen[key]

        came, arrived = set(), set()
        for index, probe in enumerate(probes):
            if index + 1 in recorded(first_firewall(probe.sender, probe.receiver), "before", probe):
                came.add(index)
            if index + 1 in recorded(probe.receiver, "after", probe):
                arrived.add(index)
        return came, arrived

    def faults(self, probes, expected):
        """What went wrong, by pair, where expected(probe) says whether it should arrive."""
        came, arrived = self.send(probes)
        faults = {}
        for index, probe in enumerate(probes):
            found = faults.setdefault(probe.pair, [])
            if index not in came:
                found.append(f"{probe.what}: never came to a firewall, so nothing is proved")
            elif expected(probe) and index not in arrived:
                found.append(f"{probe.what}: dropped, but the matrix allows it")
            elif not expected(probe) and index in arrived:
                found.append(f"{probe.what}: passed, but no row allows it")
        return faults
