"""Flow a: a real message from outside, DKIM-signed by its sender, reaches the mailbox unharmed.

It is greylisted first (451), accepted when its sender comes again, and read back over IMAPS byte for
byte but for trace headers on top. A forged Authentication-Results of our own name is gone
(RFC 8601 section 5); ours says that SPF, DKIM and DMARC passed.
"""

import email
import email.policy
import re
import time

import clients
import messages

ADDED = {"return-path", "delivered-to", "received", "authentication-results", "x-spam-status",
         "x-spam-flag", "x-spam-score"}


def run(world):
    message = messages.multipart(world.private_key)
    forged = messages.FORGED + message
    identity = email.message_from_bytes(message)["Message-ID"]

    with world.outside() as client:
        first = clients.send(client, messages.OUTSIDER, messages.ALICE, forged)
    assert first.code == 451, f"the first attempt was not greylisted: {first}"
    world.say(f"greylisted: {first}")

    deadline = time.monotonic() + 90
    while True:
        time.sleep(4)
        with world.outside() as client:
            outcome = clients.send(client, messages.OUTSIDER, messages.ALICE, forged)
        if outcome.code != 451 or time.monotonic() > deadline:
            break
    assert outcome.accepted, f"the retry was not accepted: {outcome}"
    world.say(f"accepted: {outcome.text}")

    got = world.wait_mail(lambda octets: identity.encode() in octets)
    assert got.endswith(message), (
        f"the mailbox does not hold what was sent: {len(message)} octets sent, {len(got)} read")
    added = got[:-len(message)]
    parsed = email.message_from_bytes(added + b"\r\n", policy=email.policy.SMTP)
    strange = {name.lower() for name in parsed.keys()} - ADDED
    assert not strange, f"headers that nobody asked for were added: {sorted(strange)}"
    assert not parsed.get_payload().strip(), f"not only headers were added: {added!r}"
    assert b"bank.example" not in got, "the forged Authentication-Results came through"
    assert messages.attachment_of(got) == messages.noise(40 << 10, "figures")

    own = [value for value in parsed.get_all("Authentication-Results", [])
           if value.split(";")[0].strip() == "mx1.example.org"]
    assert len(own) == 1, f"Authentication-Results of mx1.example.org: {own}"
    for method in ("spf", "dkim", "dmarc"):
        assert re.search(rf"\b{method}=pass\b", own[0]), f"{method} did not pass: {own[0]}"
    hosts = re.findall(r"\bby\s+(\S+)", " ".join(parsed.get_all("Received", [])))
    assert "mx1.example.org" in hosts and "mail.example.org" in hosts, f"Received: {hosts}"
    world.facts["inbound-id"] = outcome.queue_id
    world.say(world.trace("a. outside → gateway → internal → mailbox", "gateway", outcome.queue_id))
