"""Flow c: the app server's mail, sent by Django with STARTTLS and login, leaves signed and over TLS, to
a host that proves itself by DANE.

app server → internal:587 → gateway (DMZ side) → receiving MX. Both DKIM signatures (RSA and
Ed25519, RFC 8463) are verified by dkimpy with the keys that the DNS publishes.
"""

import email
import json
import os
import re
import subprocess
import time

import dkim

import clients
import messages
import network
import site_files
import world as testbed

RECIPIENT = "carol@destination.example"


def django(world, identity, password):
    """Runs Django's backend on the app server; returns the finished process."""
    mail = {"from": messages.APP, "to": [RECIPIENT], "subject": "Ihre Rechnung – März",
            "body": "Guten Tag,\n\n.\ndie Rechnung hängt an.\n", "html": "<p>Die Rechnung</p>",
            "attachment": "Posten;Betrag\n1;9,99 €\n", "message-id": identity}
    process = world.networks["app"].start(
        [testbed.TOP / "build/venv/bin/python", testbed.HERE / "peers" / "django_send.py",
         network.INTERNAL, 587, messages.APP, password],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "SSL_CERT_FILE": str(world.authority())})
    out, err = process.communicate(json.dumps(mail), timeout=180)
    return process.returncode, out.strip(), err


def arrived(world, identity, timeout=90):
    """What the MX got under this Message-ID: (facts, octets)."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for facts, octets in world.received_by_mx():
            if identity.encode() in octets:
                return facts, octets
        time.sleep(0.5)
    raise AssertionError(f"{identity} did not reach the MX within {timeout} s; "
                         f"see the journals in {world.directory}")


def verify_signatures(world, octets):
    """Both of our signatures verify; returns their algorithms."""
    parsed = email.message_from_bytes(octets)
    algorithms = []
    for index, header in enumerate(parsed.get_all("DKIM-Signature", [])):
        assert re.search(r"\bd=example\.org\b", header), f"signed by a stranger: {header}"
        verifier = dkim.DKIM(octets)
        assert verifier.verify(idx=index, dnsfunc=world.dns.txt), f"dkimpy refuses: {header}"
        algorithms.append(re.search(r"\ba=([\w-]+)", header).group(1))
    assert sorted(algorithms) == ["ed25519-sha256", "rsa-sha256"], f"signatures: {algorithms}"
    try:
        intact = dkim.DKIM(octets.replace("Rechnung".encode(), b"Mahnung!", 1)).verify(
            dnsfunc=world.dns.txt)
    except dkim.DKIMException:
        intact = False
    assert not intact, "the verifier accepts an altered message: it proves nothing"


def run(world):
    code, _, error = django(world, "<wrong-login@example.org>", "not the password")
    assert code and "SMTPAuthenticationError" in error, f"a wrong password was taken: {error}"

    identity = f"<flow-c-{world.tag}@example.org>"
    code, sent, error = django(world, identity, site_files.PASSWORDS[messages.APP])
    assert code == 0 and sent == "1", f"Django could not send: {error}"
    facts, octets = arrived(world, identity)
    assert facts["tls"] in ("TLSv1.2", "TLSv1.3"), f"it came without TLS: {facts}"
    assert facts["peer"] == network.GATEWAY and facts["mail-from"] == messages.APP, facts
    verify_signatures(world, octets)
    tried = world.wait_events("gateway", lambda e: e["event"] == "attempt"
                              and e.get("recipient") == RECIPIENT)
    assert tried[-1].get("authentication") == "dane", f"its TLSA record did not count: {tried[-1]}"
    world.say(f"the MX has it over {facts['tls']}; both signatures verify by dkimpy")
    queued = world.wait_events("internal", lambda e: e["event"] == "queued"
                               and RECIPIENT in e.get("to", []))
    world.say(world.trace("c. app server → internal → gateway → outside MX", "internal",
                          queued[-1]["id"]))

    # The matrix also lets the app server hand over to the gateway itself (TLS required there, with
    # the certificate that the site's own authority gave the node).
    direct = messages.build(messages.APP, RECIPIENT, "Rechnung, on its own way", "Rechnung\n")
    with clients.session(world.networks["app"], network.GATEWAY_DMZ, world.site.pki / "ca.crt",
                         helo="app.example.org", server_name="mx1.example.org") as client:
        outcome = clients.send(client, messages.APP, RECIPIENT, direct)
    assert outcome.accepted, f"the gateway refused the app server: {outcome}"
    facts, octets = arrived(world, email.message_from_bytes(direct)["Message-ID"])
    verify_signatures(world, octets)
