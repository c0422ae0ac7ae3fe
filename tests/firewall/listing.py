"""Rule sets as `nft -j` lists them."""

import json


def listing(bench, node, table="postern"):
    done = bench.topology.nft(node, "-j", "list", "table", "inet", table, check=False)
    return json.loads(done.stdout)["nftables"] if done.returncode == 0 else []


def rules(bench, node):
    """Every rule: chain, comment (or None), packets (or None where there is no counter), whether it accepts."""
    found = []
    for rule in (item["rule"] for item in listing(bench, node) if "rule" in item):
        counter = next((e["counter"] for e in rule["expr"] if "counter" in e), None)
        found.append({"chain": rule["chain"], "comment": rule.get("comment"),
                      "packets": counter["packets"] if counter else None,
                      "accepts": any("accept" in e for e in rule["expr"])})
    return found


def shape(bench, node):
    """The rule set without what changes from load to load: handles and counts."""
    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if k not in ("handle", "packets", "bytes")}
        return [plain(v) for v in value] if isinstance(value, list) else value
    return plain([item for item in listing(bench, node) if "metainfo" not in item])
