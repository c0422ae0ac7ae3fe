"""Flow d: the gateway relays for nobody outside, and refuses an unknown local user at RCPT.

Every trick that old relays fell for is tried in the same session state as honest mail, from an
address that is exempt from greylisting and limits, so that nothing else can be what refuses.
"""

import smtplib
import subprocess

import clients
import messages
import network

VICTIM = "victim@destination.example"
# (reverse-path, forward-path)
TRICKS = [
    ("bob@bulk.example", VICTIM),
    ("alice@example.org", VICTIM),
    ("", VICTIM),
    ("postmaster@example.org", VICTIM),
    ("bob@bulk.example", "victim%destination.example@example.org"),
    ("bob@bulk.example", '"victim@destination.example"@example.org'),
    ("bob@bulk.example", "destination.example!victim@example.org"),
    ("bob@bulk.example", "@example.org:victim@destination.example"),
    ("bob@bulk.example", "@mx1.example.org,@example.org:victim@destination.example"),
    ("bob@bulk.example", "victim@destination.example@example.org"),
    ("bob@bulk.example", "victim@[203.0.113.25]"),
    ("bob@bulk.example", "victim@[IPv6:2001:db8::25]"),
    ("bob@bulk.example", "victim@mx1.example.org"),
    ("bob@bulk.example", "victim@sub.example.org"),
    ("bob@bulk.example", "victim@example.org.destination.example"),
    ("bob@bulk.example", "victim"),
]


def run(world):
    before = len(world.received_by_mx())
    bulk = {"source": network.BULK, "helo": "mail.bulk.example"}
    for sender, recipient in TRICKS:
        with world.outside(**bulk) as client:
            code, text = client.docmd(f"MAIL FROM:<{sender}>")
            if code == 250:
                code, text = client.docmd(f"RCPT TO:<{recipient}>")
            assert code // 100 == 5, (
                f"MAIL FROM:<{sender}> RCPT TO:<{recipient}> got {code} {text.decode()}")
    world.say(f"{len(TRICKS)} relaying attempts refused")
    world.say(world.refusal("d. relaying refused", "gateway",
                            lambda e: VICTIM in str(e) or e["enhanced"] == "5.7.1"))

    with world.outside(**bulk) as client:
        outcome = clients.send(client, "bob@bulk.example", "nobody@example.org", b"x\r\n")
        assert (outcome.stage, outcome.code) == ("rcpt", 550), f"unknown user: {outcome}"
        assert outcome.text.startswith("5.1.1"), f"unknown user: {outcome}"
        # The same session may go on to someone who exists.
        client.docmd("MAIL FROM:<bob@bulk.example>")
        code, text = client.docmd(f"RCPT TO:<{messages.ALICE}>")
        assert code == 250, f"alice after nobody: {code} {text}"
    world.say(f"unknown user: {outcome}")
    world.say(world.refusal("d. unknown local user", "gateway", lambda e: e["enhanced"] == "5.1.1"))

    no_mail_in_clear(world)
    no_submission_without_login(world)
    selftest(world)
    assert len(world.received_by_mx()) == before, "the MX got mail that nobody may relay"


def no_mail_in_clear(world):
    client = clients.Smtp(world.networks["outside"], network.GATEWAY, 25, network.BULK)
    client.ehlo()
    code, text = client.docmd("MAIL FROM:<bob@bulk.example>")
    client.close()
    assert code == 530, f"mail without TLS got {code} {text} though the site requires TLS"


def no_submission_without_login(world):
    with world.outside(source=network.BULK, port=587) as client:
        code, text = client.docmd("MAIL FROM:<alice@example.org>")
        assert code == 530, f"587 without login: {code} {text}"
    with world.outside(source=network.BULK, port=587) as client:
        try:
            client.login(messages.ALICE, "guess")
        except smtplib.SMTPException:
            return
        raise AssertionError("587 on the gateway took a login that nobody could have checked")


def selftest(world):
    """The operator's own test, from an address that the gateway does not know: it waits out the greylist."""
    with world.networks["outside"].entered():
        done = subprocess.run(
            [str(world.postern), "selftest", "--node", network.GATEWAY, "--recipient", messages.ALICE,
             "--sender", "selftest@nowhere.example", "--wait", "180"],
            capture_output=True, text=True, timeout=900, check=False)
    lines = done.stdout.strip().splitlines()
    assert done.returncode == 0, "\n".join(
        [line for line in lines if not line.startswith("held")] + [done.stderr.strip()])
    world.say(f"postern selftest: {lines[-1]}")
