"""The authentication pipeline: SPF, DKIM verification, DMARC, greylist and limits, one local DNS, signed messages of several
senders, the same sink. Greylists have met all senders before: what is measured is mail that passes."""

import contextlib
import smtplib
import statistics
import time

import filters
import messages
import report
import world
from load import Load, relay
from peers import Postern, Postfix

OCTETS, MESSAGES, SESSIONS = 4096, 1600, 40
# accepted and relayed, Postern / peer
TARGETS = {"classical": 8, "rspamd": 3}

# The same judgements as the others make; the greylist's wait is theirs, too.
JUDGING = """
[greylist]
delay = 1
"""


def postern(run, base, checks='["greylist", "spf", "dkim", "dmarc"]', more=JUDGING, **others):
    return Postern(base, run.relay, run.sink.port, run.domain, address=world.PUBLIC, checks=checks, more=more,
                   hourly=1_000_000, **others)


def meet(peer):
    """Each sender is seen, waits, and is taken: afterwards the greylist knows him."""
    deadline = time.monotonic() + 60
    waiting = set(range(messages.SENDERS))
    while waiting:
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: {peer.name} still greylists senders after a minute: see {peer.log}")
        for number in sorted(waiting):
            with smtplib.SMTP(peer.address, peer.port, local_hostname=messages.helo(number), timeout=30) as client:
                client.ehlo()
                code, said = client.mail(messages.sender(number))
                if code == 250:
                    code, said = client.rcpt(f"someone@{world.DOMAIN}")
                if code == 250:
                    waiting.discard(number)
                elif code // 100 != 4:
                    raise SystemExit(f"bench: {peer.name} refuses {messages.sender(number)}: {code} {said}")
        time.sleep(0.5)


def judged(peer, path):
    """What a peer says of an altered message, as a proof that it judges at all: its owner asks for refusal."""
    altered = messages.on_the_wire(path).replace(b"Subject: notes", b"Subject: other", 1)
    # From a sender of nobody's, so that SPF does not align and only the broken signature is left to pass DMARC.
    with smtplib.SMTP(peer.address, peer.port, local_hostname=messages.helo(1), timeout=60) as client:
        client.ehlo()
        client.mail("")
        code, said = client.rcpt(f"someone@{world.DOMAIN}")
        tries = 0
        while code // 100 == 4 and tries < 20:
            time.sleep(0.5)
            tries += 1
            code, said = client.rcpt(f"someone@{world.DOMAIN}")
        if code != 250:
            raise SystemExit(f"bench: {peer.name} does not take the recipient of a forged message: {code} {said}")
        return client.data(altered)[0]


def line(run):
    base = run.directory("auth")
    files, records = messages.write_all(base, OCTETS)
    each = run.count(MESSAGES) // messages.SENDERS
    loads = [Load(SESSIONS // messages.SENDERS, each, path, sender=messages.sender(number), helo=messages.helo(number))
             for number, path in enumerate(files)]
    with filters.name_server(base / "dns", records):
        compare(run, base, files, loads)


def compare(run, base, files, loads):
    print(f"{SESSIONS} sessions of {messages.SENDERS} senders, {sum(load.count for load in loads)} messages of 4 KiB, DKIM 2048 bits; "
          f"{filters.version('unbound')} serves the zone")
    ours = turns(run, postern(run, base), files, loads)
    if absent := filters.missing(filters.CLASSICAL):
        report.absent("auth", f"Postfix with milters: {', '.join(absent)} not installed")
    else:
        packages = ("opendkim", "opendmarc", "postfix-policyd-spf-python", "postgrey")
        with filters.classical(base) as how:
            how["main"] = how["main"].format(scanners="")
            theirs = turns(run, named("milters", base, run, how), files, loads)
        tell("classical", "Postfix with milters", ", ".join(map(filters.version, packages)), ours, theirs)
    if absent := filters.missing(["rspamd"]):
        report.absent("auth", f"Postfix with rspamd: {absent[0]} not installed")
    else:
        with filters.rspamd(base) as how:
            theirs = turns(run, named("rspamd", base, run, how), files, loads)
        tell("rspamd", "Postfix with rspamd", filters.version("rspamd"), ours, theirs)


def named(name, base, run, how):
    return Postfix(base, run.sink.port, run.domain, name=f"postfix-{name}", address=world.PUBLIC, **how)


def turns(run, gateway, files, loads):
    """Medians of accepted and relayed, after the greylist has met everybody and one forged message was refused."""
    accepted, relayed = [], []
    with contextlib.ExitStack() as stack:
        peer = stack.enter_context(gateway)
        if (code := judged(peer, files[0])) != 550 and code != 554:
            raise SystemExit(f"bench: {peer.name} answers {code} to a forged message whose owner asks for refusal: see {peer.directory}")
        meet(peer)
        relay(peer.address, peer.port, run.sink, [Load(4, 20, files[0], sender=messages.sender(0), helo=messages.helo(0))],
              f"someone@{world.DOMAIN}")
        for _ in range(run.rounds):
            a, r = relay(peer.address, peer.port, run.sink, loads, f"someone@{world.DOMAIN}")
            accepted.append(a)
            relayed.append(r)
    print(f"  {peer.name + ' ' + peer.directory.name:28} {statistics.median(accepted):>8.0f} accepted/s "
          f"{statistics.median(relayed):>8.0f} relayed/s", flush=True)
    return statistics.median(relayed)


def tell(which, name, versions, ours, theirs):
    print(f"  ({versions})")
    report.target("auth", f"relayed, Postern / {name}", ours / theirs, TARGETS[which])
