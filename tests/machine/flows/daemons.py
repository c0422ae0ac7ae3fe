"""The daemons in the images really serve: seen in what they did, not only in that they run.

clamd and spamd: each refused its test message in flow b and passed clean mail. unbound: DKIM and
DMARC of flow a were answered from a DNSSEC-signed root over TCP. Dovecot: flow a was read from it.
Here: their units are up by systemd's own word, and Suricata alerts on a probe from outside.
"""

import clients
import network


def run(world):
    for name in world.nodes:
        world.wait_units(name, timeout=30)
    alerts = 'event_type":"alert"'
    before = world.nodes["gateway"].text(whole=True).count(alerts)
    client = clients.Smtp(world.networks["outside"], network.GATEWAY, 25, network.BULK)
    client.ehlo()
    for command in ("VRFY root", "EXPN staff", "VRFY alice", "EXPN all"):
        client.docmd(command)
    client.close()
    found = world.nodes["gateway"].wait_for(
        r'^.*event_type":\s*"alert".*(VRFY|EXPN).*$', 60, "Suricata's alert on VRFY and EXPN")
    assert world.nodes["gateway"].text(whole=True).count(alerts) >= before
    world.say(f"Suricata: {found.group(0)[-300:]}")
