"""A user outside submits on the gateway's port 587 with an app password: to a colleague and to the world. Her own password is
refused there, and the app password opens no mailbox."""

import smtplib

import clients
import messages
import network
import world as testbed
from flows import outbound

RECIPIENT = "carol@destination.example"


def run(world):
    with world.outside(source=network.BULK, port=587, helo="phone.example") as client:
        try:
            client.login(messages.ALICE, testbed.site_files.PASSWORDS[messages.ALICE])
            raise AssertionError("her own password was taken outside")
        except smtplib.SMTPAuthenticationError as error:
            assert error.smtp_code == 535, f"her own password: {error}"
        client.login(messages.ALICE, world.site.app_password)
        for recipient in (RECIPIENT, messages.CAROL):
            identity = f"<submitted-{world.tag}-{recipient}>"
            mail = (f"From: {messages.ALICE}\r\nTo: {recipient}\r\nMessage-ID: {identity}\r\n"
                    "Subject: from the train\r\n\r\n.\r\nSee you.\r\n").encode()
            outcome = clients.send(client, messages.ALICE, recipient, mail)
            assert outcome.accepted, f"to {recipient}: {outcome}"
            world.wait_events("internal", lambda e, outcome=outcome: e["event"] == "queued"
                              and e.get("id") == outcome.queue_id
                              and e.get("provenance") == "submission")
    facts, octets = outbound.arrived(world, f"<submitted-{world.tag}-{RECIPIENT}>")
    assert facts["peer"] == network.GATEWAY and facts["mail-from"] == messages.ALICE, facts
    assert b"DKIM-Signature" in octets, "it left unsigned"
    world.wait_mail(lambda octets: f"<submitted-{world.tag}-{messages.CAROL}>".encode() in octets,
                    messages.CAROL)
    imap = clients.Imap(world.networks["staff"], network.INTERNAL, world.authority(), "mail.example.org")
    try:
        imap.login(messages.ALICE, world.site.app_password)
    except clients.Imap.error:
        return
    raise AssertionError("IMAP took an app password")
