"""The firewalls in the running nodes: a few probes from each side, to what the matrix allows and
to its neighbours. (tests/firewall proves every row by packets; here is shown that these rules are live.)
"""

import concurrent.futures
import errno

import network as net

OPEN, REFUSED, DROPPED = "open", "refused", "dropped"
# (host, source, destination, port, expected). `passes` = the packet came through the firewall: the
# service answers, or the node itself says that nobody listens.
PROBES = [
    ("outside", net.SENDER, net.GATEWAY, 25, OPEN),
    ("outside", net.SENDER, net.GATEWAY, 587, OPEN),
    ("outside", net.SENDER, net.GATEWAY, 22, DROPPED),
    ("outside", net.SENDER, net.GATEWAY, 53, DROPPED),
    ("outside", net.SENDER, net.GATEWAY, 80, DROPPED),
    ("outside", net.SENDER, net.GATEWAY, 465, DROPPED),
    ("outside", net.SENDER, net.GATEWAY, 993, DROPPED),
    ("outside", net.SENDER, net.GATEWAY_DMZ, 25, DROPPED),
    ("outside", net.SENDER, net.STRAY, 25, DROPPED),
    ("outside", net.SENDER, net.INTERNAL_DMZ, 25, DROPPED),
    ("outside", net.SENDER, net.INTERNAL, 25, DROPPED),
    ("outside", net.SENDER, net.INTERNAL, 993, DROPPED),
    ("stray", None, net.GATEWAY_DMZ, 25, DROPPED),
    ("stray", None, net.GATEWAY_DMZ, 22, DROPPED),
    ("stray", None, net.INTERNAL, 25, DROPPED),
    ("stray", None, net.INTERNAL, 993, DROPPED),
    ("stray", None, net.INTERNAL_DMZ, 25, DROPPED),
    ("stray", None, net.APP, 25, DROPPED),
    ("stray", None, net.MX, 25, DROPPED),
    ("app", None, net.INTERNAL, 25, OPEN),
    ("app", None, net.INTERNAL, 587, OPEN),
    ("app", None, net.INTERNAL, 993, OPEN),
    ("app", None, net.GATEWAY_DMZ, 25, OPEN),
    ("app", None, net.GATEWAY_DMZ, 587, DROPPED),
    ("app", None, net.GATEWAY_DMZ, 22, DROPPED),
    ("app", None, net.STRAY, 25, DROPPED),
    ("app", None, net.MX, 25, DROPPED),
    ("staff", None, net.INTERNAL, 993, OPEN),
    ("staff", None, net.INTERNAL, 22, DROPPED),
    ("staff", None, net.INTERNAL, 24, DROPPED),
    ("staff", None, net.GATEWAY_DMZ, 25, DROPPED),
    ("staff", None, net.INTERNAL_DMZ, 25, DROPPED),
    ("staff", None, net.STRAY, 25, DROPPED),
]
PATIENCE = 6


def probe(world, host, source, destination, port):
    try:
        world.networks[host].connect(destination, port, source, PATIENCE).close()
        return OPEN
    except TimeoutError:
        return DROPPED
    except ConnectionRefusedError:
        return REFUSED
    except OSError as error:
        # No answer to ARP is what a host that ignores us looks like on its own network.
        if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
            return DROPPED
        raise


def run(world):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda p: probe(world, *p[:4]), PROBES))
    wrong = [f"{host} → {destination}:{port} is {got}, must be {expected}"
             for (host, _, destination, port, expected), got in zip(PROBES, found)
             if got != expected]
    assert not wrong, "; ".join(wrong)
    # Nothing dropped because nobody was there: the stray host itself answers its neighbours.
    world.say(f"{len(PROBES)} probes: {found.count(OPEN)} open as the matrix says, "
              f"{found.count(DROPPED)} dropped")
