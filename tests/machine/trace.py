"""Reads the nodes' journals and tells, for each message, what every stage on both nodes did.

Enters: journal text with lines `… event {json}` (crate control, event.rs). Leaves: aligned text.
A message is followed from node to node by its trace on one node, its queue id there, and the
`queued as ID` in the answer of the next hop.
"""

import json
import re

EVENT = re.compile(r"\bevent (\{.*\})\s*$", re.MULTILINE)
QUEUED = re.compile(r"queued as ([\w.-]+)")


def events(text):
    """All events in a journal, in order; a line cut off by a power cut is left out."""
    found = []
    for match in EVENT.finditer(text):
        try:
            found.append(json.loads(match.group(1)))
        except json.JSONDecodeError:
            continue
    return found


def of_message(journal_events, queue_id):
    """What one node did for a message: its connection's events, then the queue's, without those of
    other messages on the same connection."""
    start = next((n for n, event in enumerate(journal_events)
                  if event.get("id") == queue_id and event["event"] == "queued"), None)
    if start is None:
        return []
    connection = next((event.get("trace") for event in journal_events
                       if event.get("id") == queue_id and event["event"] == "queued"
                       and event["process"].startswith("smtpd")), None)
    chosen, pending = [], []
    for event in journal_events:
        if event.get("id") == queue_id:
            if event["event"] == "queued" and event["process"].startswith("smtpd"):
                chosen += pending
            chosen.append(event)
        elif connection and event.get("trace") == connection and not event.get("id"):
            pending.append(event)
        elif connection and event.get("trace") == connection and event["event"] == "queued":
            # Another message ends here: what was pending for it is not ours, but the
            # connection's opening (peer, TLS, login) is everyone's.
            pending = [e for e in pending if e["event"] in ("connected", "tls", "authenticated")]
    return sorted(chosen, key=lambda event: event["time"])


def follow(nodes, first, queue_id):
    """[(node, event)…] of a message from the node that took it first, across all nodes.
    `nodes`: {name: events}."""
    path, waiting, seen = [], [(first, queue_id)], set()
    while waiting:
        node, identity = waiting.pop(0)
        if (node, identity) in seen:
            continue
        seen.add((node, identity))
        for event in of_message(nodes[node], identity):
            path.append((node, event))
            if event["event"] not in ("attempt", "delivered"):
                continue
            answer = QUEUED.search(event.get("reply", ""))
            for other in nodes:
                if answer and other != node and of_message(nodes[other], answer.group(1)):
                    waiting.append((other, answer.group(1)))
    return path


def describe(event):
    """What happened, in one line."""
    kind = event["event"]
    get = event.get
    if kind == "connected":
        return f"from {get('peer')}"
    if kind == "tls":
        return " ".join(filter(None, (get("version"), get("cipher"), get("peer_name"))))
    if kind == "authenticated":
        return get("user", "")
    if kind == "refused":
        why = f"  [{get('check')}: {get('evidence')}]" if get("check") else ""
        return f"{get('stage')}: {get('code')} {get('enhanced')} {get('text')}{why}"
    if kind == "check":
        return f"{get('check')}={get('result')}  {get('evidence')}  ({get('millis')} ms)"
    if kind == "verdict":
        score = get("score")
        return get("decision", "") + (f", score {score:g}" if score is not None else "")
    if kind == "queued":
        return f"as {get('id')}, {get('size')} octets, <{get('from')}> to {', '.join(get('to', []))}"
    if kind == "signed":
        return f"d={get('domain')} s={', '.join(get('selectors', []))}"
    if kind == "attempt":
        proof = f", authentication {get('authentication')}" if get("authentication") else ""
        return f"{get('next_hop')} {get('host')} {get('tls') or 'in clear'}{proof}: {get('reply')}"
    if kind in ("delivered", "deferred", "bounced"):
        return f"{get('recipient')}: {get('reply')}"
    if kind == "disconnected":
        return get("reason") or ""
    return " ".join(f"{key}={value}" for key, value in event.items()
                    if key not in ("event", "time", "process", "trace", "id"))


def render(title, path):
    """The trace of one message as aligned text."""
    lines = [f"  ┌ {title}"]
    for node, event in path:
        clock = event["time"][11:23]
        text = describe(event)
        if len(text) > 150:
            text = text[:149] + "…"
        lines.append(f"  │ {clock}  {node:<8}  {event['process']:<13} {event['event']:<13} {text}")
    lines.append("  └" if path else "  └ (no event found)")
    return "\n".join(lines)


def refusal(journal_events, wanted):
    """Everything the connection did whose `refused` event satisfies `wanted`, newest first found."""
    for event in reversed(journal_events):
        if event["event"] == "refused" and wanted(event):
            return [e for e in journal_events
                    if e.get("trace") == event.get("trace") and e.get("trace")]
    return []
