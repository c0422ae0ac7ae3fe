"""Phases about the rule sets as a whole: each rule counted and named, loads atomic and repeatable, closed is closed."""

import contextlib
import pathlib
import tempfile

import conversations
import rows
from conversations import attempt, connection, talk
from harness import FIREWALL
from listing import listing, rules, shape

FOREIGN = "table inet bans\ndelete table inet bans\ntable inet bans {\n" \
          "\tset banned4 { type ipv4_addr; elements = { 192.0.2.1 } }\n}\n"


def counted_and_named(results, bench):
    bench.load_both()
    for node in sorted(rows.NODES):
        all_rules = rules(bench, node)
        faults = [f"chain {r['chain']}: {r['comment'] or 'a rule'} has no counter" for r in all_rules if r["packets"] is None]
        faults += [f"chain {r['chain']}: a rule has no comment" for r in all_rules if not r["comment"]]
        faults += ["no rules at all"] if not all_rules else []
        results.check(f"{node}: each of {len(all_rules)} rules has a counter and a comment", faults)
        hooks = [i["chain"] for i in listing(bench, node) if "chain" in i and "hook" in i["chain"]]
        wrong = [f"chain {c['name']} has policy {c['policy']}" for c in hooks if c["policy"] != "drop"]
        missing = {"input", "forward", "output"} - {c["hook"] for c in hooks}
        results.check(f"{node}: every base chain drops by default", wrong + [f"no base chain at hook {m}" for m in missing])


def repeatable(results, bench):
    for node in sorted(rows.NODES):
        bench.topology.nft(node, "-f", "-", stdin=FOREIGN)
        bench.load(node)
        first = shape(bench, node)
        for _ in range(3):
            bench.load(node)
        results.check(f"{node}: loaded four times, the rule set is what it was after one",
                      [] if shape(bench, node) == first else ["it differs"])
        bench.close_both()
        bench.load(node)
        results.check(f"{node}: loaded over the closed set, it is the same", [] if shape(bench, node) == first else ["it differs"])
        foreign = [i for i in listing(bench, node, "bans") if "set" in i]
        kept = len(foreign) == 1 and foreign[0]["set"].get("elem") == ["192.0.2.1"]
        results.check(f"{node}: a table that is not ours survives loads and the closed set", [] if kept else ["it is gone"])


def failed_loads_change_nothing(results, bench):
    """A load that fails in its last line leaves what stood before, whole: the open set or the closed one."""
    for node in sorted(rows.NODES):
        good = (bench.rendered / "ipv6" / node / "site.nft").read_text()
        for what, text in [("an element of no known set", good + "add element inet postern link_moon { \"moon\" }\n"),
                           ("a syntax error", good + "add element inet postern {\n"), ("no site.nft", None)]:
            for before in ("rule set", "closed set"):
                bench.load(node) if before == "rule set" else bench.close_both()
                stood = shape(bench, node)
                with tempfile.TemporaryDirectory() as directory:
                    if text is not None:
                        (pathlib.Path(directory) / "site.nft").write_text(text)
                    done = bench.load_files(node, FIREWALL, directory, check=False)
                faults = [] if done.returncode != 0 else ["nft reported success"]
                faults += [] if shape(bench, node) == stood else ["the rules changed"]
                results.check(f"{node}: {what}: the load fails and the {before} stands", faults)


def live_connections(results, bench):
    """A reload does not cut a connection; the closed set does, at once."""
    bench.load_both()
    for source, destination in [("Internet", "gateway's public address"), ("gateway", "internal mail server"),
                                ("app server", "gateway"), ("staff", "internal mail server")]:
        with contextlib.ExitStack() as stack:
            client, accepted, *_ = stack.enter_context(connection(bench, source, destination, 4, 25))
            bench.load_both()
            results.check(f"reload keeps a live connection {source} -> {destination}", attempt(lambda: talk(client, accepted)))
            bench.close_both()
            cut = attempt(lambda: talk(client, accepted))
            results.check(f"closed set cuts a live connection {source} -> {destination}", [] if cut else ["it went on"])
        bench.load_both()


def nothing_passes(results, bench, title):
    bench.topology.pin_neighbours()
    for family in (4, 6):
        probes = rows.everything(family)
        faults = bench.faults(probes, lambda _: False)
        results.check(f"{title}: {len(probes)} IPv{family} packets, none passes",
                      [f"{pair}: {text}" for pair, found in faults.items() for text in found])


def closed(results, bench):
    bench.load_both()
    bench.close_both()
    nothing_passes(results, bench, "closed set")
    for row, sources, destination, ports in rows.MATRIX:
        for source in sources:
            sender, _, s, d = rows.endpoints(source, destination, 4)
            answer = conversations.knock(bench, sender, s, d, min(ports))
            results.check(f"closed set: {row}: {source} hears nothing", [] if answer == "silent" else [answer])
    bench.load_both()

    def again():
        with connection(bench, "Internet", "gateway's public address", 4, 25) as (client, accepted, _, _):
            return talk(client, accepted)
    results.check("the rule set opens what the closed set closed", attempt(again))


def no_site(results, bench):
    """Rule sets whose named sets are all empty let nothing pass: an empty set matches nothing."""
    with tempfile.TemporaryDirectory() as directory:
        (pathlib.Path(directory) / "site.nft").write_text("# no elements\n")
        for node in sorted(rows.NODES):
            bench.load_files(node, FIREWALL, directory)
    nothing_passes(results, bench, "empty sets")


PHASES = [counted_and_named, repeatable, failed_loads_change_nothing, live_connections, closed, no_site]
