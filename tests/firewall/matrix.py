"""Proves the reachability matrix by packets: `python3 tests/firewall/matrix.py --postern PATH`, as root.

The real rule sets of firewall/ with the site.nft that `postern site render` makes are loaded into the gateway and
the internal node of topology.py. Then: every row and its neighbours, all 65,535 TCP ports between any two places,
forged sources, real conversations, reloads, and the closed set. First of all the same packets are sent with no rule set
at all and must all arrive: so a packet that is missing later was stopped by a rule.
"""

import argparse
import os
import pathlib
import re
import signal
import sys
import tempfile
import time

import conversations
import reloads
import rows
from harness import SITES, STATE_SITES, Bench, Results
from listing import rules
from packets import sweep_packets
from rows import everything, first_firewall
from topology import Topology, run


def report(results, title, probes, faults):
    for pair, found in faults.items():
        mine = [p for p in probes if p.pair == pair]
        row = f"{len(mine)} packets, {sum(p.passes for p in mine)} to pass"
        results.check(f"{title}: {pair} ({row})", found)


def without_rules(results, bench):
    for family in (4, 6):
        probes = everything(family)
        faults = bench.faults(probes, lambda _: True)
        lost = [f"{pair}: {text}" for pair, found in faults.items() for text in found]
        results.check(f"without a rule set all {len(probes)} IPv{family} packets arrive", lost)


def matrix(results, bench):
    bench.load_both()
    for family in (4, 6):
        probes = everything(family)
        before = dropped(bench)
        report(results, "matrix", probes, bench.faults(probes, lambda p: p.passes))
        for node, count in dropped(bench).items():
            wanted = sum(not p.passes and first_firewall(p.sender, p.receiver) == node for p in probes)
            found = count - before[node]
            results.check(f"the {node} node counted each of {wanted} IPv{family} packets that it dropped",
                          [] if found >= wanted else [f"it counted {found}"])
    probes = list(rows.neighbour_probes(passes=True))
    report(results, "matrix", probes, bench.faults(probes, lambda p: p.passes))


def dropped(bench):
    """Packets that the drop rules of each node counted; a packet that only a chain's policy drops is in no count."""
    return {node: sum(r["packets"] for r in rules(bench, node) if r["comment"].startswith("drop:")) for node in sorted(rows.NODES)}


def matrix_of_example_site(results, bench):
    bench.load_both("example")
    probes = everything(4)
    faults = bench.faults(probes, lambda p: p.passes and not p.what.startswith("tcp/465 "))
    results.check(f"the example site: the same {len(probes)} IPv4 packets, the same outcome, but for the option it has not",
                  [f"{pair}: {text}" for pair, found in faults.items() for text in found])
    # Neighbour discovery is closed too: without it no packet would even be sent.
    bench.topology.pin_neighbours()
    probes = everything(6) + list(rows.neighbour_probes(passes=False))
    faults = bench.faults(probes, lambda _: False)
    results.check(f"the example site has no IPv6: {len(probes)} IPv6 packets, none passes",
                  [f"{pair}: {text}" for pair, found in faults.items() for text in found])


def servants(results, bench):
    bench.load_both()
    for family in (4, 6):
        probes = list(rows.servant_probes(family))
        report(results, "servants", probes, bench.faults(probes, lambda p: p.passes))


def dmz_state(results, bench):
    for family in (4, 6):
        bench.load_both(f"state{family}")
        probes = list(rows.state_probes(family))
        report(results, "option dmz-state", probes, bench.faults(probes, lambda p: p.passes))
        probes = everything(family)
        faults = bench.faults(probes, lambda p: p.passes)
        results.check(f"with option dmz-state the same {len(probes)} IPv{family} packets have the same outcome",
                      [f"{pair}: {text}" for pair, found in faults.items() for text in found])
        bench.load_both()
        probes = list(rows.state_probes(family))
        faults = bench.faults(probes, lambda _: False)
        results.check(f"without option dmz-state none of these {len(probes)} IPv{family} packets passes",
                      [f"{pair}: {text}" for pair, found in faults.items() for text in found])


def sweep(results, bench):
    """All TCP ports from everywhere to everywhere: what arrives is the row's ports and no other."""
    bench.load_both()
    for family in (4, 6):
        for source, destination in rows.pairs():
            sender, receiver, s, d = rows.endpoints(source, destination, family)
            bench.recorder.install({sender, receiver, first_firewall(sender, receiver)}, with_before=False)
            wire, probes = bench.wire(sender), 65535
            for raw in sweep_packets(s, d):
                wire.send(d, raw)
            came = bench.recorder.came(first_firewall(sender, receiver))
            arrived = bench.recorder.numbers(receiver, f"after{family}")
            wanted = rows.allowed_ports(source, destination)
            faults = [f"tcp/{p} passed, but no row allows it" for p in sorted(arrived - wanted)]
            faults += [f"tcp/{p} dropped, but the matrix allows it" for p in sorted(wanted - arrived)]
            if came < probes:
                faults.append(f"only {came} of {probes} packets came to the first firewall")
            named = ",".join(map(str, sorted(wanted))) or "nothing"
            results.check(f"sweep: IPv{family} {source} -> {destination}: tcp 1-65535 passes {named}", faults)


PHASES = [
    without_rules, matrix, matrix_of_example_site, servants, dmz_state, *conversations.PHASES, *reloads.PHASES, sweep,
]


def render(postern, directory):
    """The sites' site.nft for both nodes, by the real renderer."""
    sites = dict(SITES)
    for family, host in STATE_SITES.items():
        sites[f"state{family}"] = directory / f"state{family}.toml"
        option = f'\n[dmz-state]\naddress = "{host}"\nhostname = "state.example.org"\n'
        sites[f"state{family}"].write_text(SITES["ipv6"].read_text() + option)
    for site, path in sites.items():
        for node in rows.NODES:
            output = directory / site / node
            output.mkdir(parents=True)
            run(postern, "site", "render", str(path), "--node", node, "--out", str(output))
            if not (output / "site.nft").is_file():
                raise RuntimeError(f"{postern} site render wrote no site.nft to {output}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--postern", required=True, help="the `postern` program that renders site.nft")
    parser.add_argument("--only", default="", help="run only the phases whose name this regular expression finds")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("matrix: needs root for network namespaces and nft: run it as root")
    # However this ends, the namespaces are removed: a signal becomes an exception.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    results = Results()
    with tempfile.TemporaryDirectory(prefix="postern-firewall-") as directory:
        rendered = pathlib.Path(directory)
        render(options.postern, rendered)
        for phase in PHASES:
            if not re.search(options.only, phase.__name__):
                continue
            started = time.monotonic()
            with Topology() as topology:
                try:
                    phase(results, Bench(topology, rendered))
                except OSError as error:
                    results.check(f"{phase.__name__} comes to its end", [f"{type(error).__name__}: {error}"])
            print(f"      {phase.__name__}: {time.monotonic() - started:.1f} s", flush=True)
    print(f"{results.passed} passed, {results.failed} failed")
    return 1 if results.failed or not results.passed else 0


if __name__ == "__main__":
    sys.exit(main())
