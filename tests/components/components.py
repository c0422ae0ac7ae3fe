"""Starts clamd, spamd, unbound and Dovecot from the images' root trees and asks each for what Postern
needs of it. Then runs the relay's own component test against the same clamd and spamd.

Runs inside the namespaces that `run` made: all networks here are loopback.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import traceback

import here

import certificates
import checks
import messages
import nameserver
import network
import roots
import site_files
import units


def sh(*words):
    subprocess.run([str(word) for word in words], check=True)


def prepare(trees):
    """Mounts and addresses: one /run for all, state of their own, the networks' addresses on lo."""
    sh("mount", "-t", "tmpfs", "tmpfs", "/run")
    for tree in trees.values():
        for directory in ("dev", "run"):
            sh("mount", "--rbind", f"/{directory}", tree / directory)
        sh("mount", "-t", "proc", "proc", tree / "proc")
        for directory in ("var", "tmp"):
            (tree / directory).mkdir(exist_ok=True)
            sh("mount", "-t", "tmpfs", "-o", "mode=755" if directory == "var" else "mode=1777",
               "tmpfs", tree / directory)
    sh("ip", "link", "set", "lo", "up")
    # Stands for AmbientCapabilities=CAP_NET_BIND_SERVICE of the units; of this namespace only.
    pathlib.Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0")
    for address in (network.DNS, network.GATEWAY, network.INTERNAL):
        sh("ip", "addr", "add", f"{address}/32", "dev", "lo")


def import_site(tree, name, site):
    """The image's own `postern` takes its credentials and renders, as at boot."""
    for line in (tree / "usr/lib/tmpfiles.d").glob("postern*.conf"):
        for words in map(str.split, line.read_text().splitlines()):
            if words and words[0] == "d" and words[1].startswith("/var/"):
                directory = tree / words[1].lstrip("/")
                directory.mkdir(parents=True, exist_ok=True)
                directory.chmod(int(words[2], 8))
                os.chown(directory, units.table(tree, "passwd", words[3]),
                         units.table(tree, "group", words[4]))
    credentials = pathlib.Path("/run/credentials", f"test-{name}")
    credentials.mkdir(parents=True)
    for key, value in site.credentials(name).items():
        (credentials / key).write_bytes(value)
    for command in (["import", "--credentials", credentials], ["render"]):
        done = subprocess.run(["chroot", tree, "/usr/bin/postern", "node", *command],
                              capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"postern node {command[0]} on {name}: {done.stdout}{done.stderr}")


# A mail host that is an alias, with a TLSA record (RFC 6698) at the alias; the digest is of nothing.
PROVED = f"""proved.example. MX 10 mx.proved.example.
mx.proved.example. CNAME real.proved.example.
real.proved.example. A {network.MX}
_25._tcp.mx.proved.example. TLSA 3 1 1 {"0123456789abcdef" * 4}
"""


def run_relay_test():
    """The relay's own client code against these very daemons; returns cargo's exit status."""
    done = subprocess.run(
        ["cargo", "test", "--offline", "--release", "--workspace",
         "--test", "components"],
        cwd=here.TOP, env={**os.environ, "POSTERN_TEST_CLAMD": "/run/clamav/clamd.sock",
                      "POSTERN_TEST_SPAMD": "/run/spamd/spamd.sock",
                      "POSTERN_TEST_UNBOUND": "127.0.0.1:53"})
    return done.returncode


def main():
    shutil.rmtree(here.LOGS, ignore_errors=True)
    trees = {role: roots.tree_of(role) for role in ("gateway", "internal")}
    here.LOGS.mkdir(parents=True)
    prepare(trees)
    gateway = trees["gateway"]
    work = pathlib.Path("/run/test")
    work.mkdir()
    server = nameserver.Server(here.Here, work / "dns", messages.sender_key()[1])
    ca = certificates.Authority(work / "tls")
    site = site_files.Site(gateway / "usr/bin/postern", work, server.start(), ca)
    server.add(PROVED)
    processes = start_daemons(trees, site)
    authority = work / "tls" / "ca.crt"
    chosen = [
        (checks.clamd_finds_viruses_and_only_them,),
        (checks.spamd_scores_spam_and_only_it,),
        (checks.unbound_validates,),
        (checks.unbound_refuses_what_does_not_validate, gateway),
        (checks.dovecot_delivers_and_shows, authority),
        (checks.dovecot_refuses_a_wrong_password, authority),
        (checks.an_app_password_submits_from_outside_and_nothing_else, authority, site.app_password),
    ]
    passed = failed = 0
    for check, *arguments in chosen:
        try:
            check(*arguments)
            passed += 1
            print(f"ok {check.__name__.replace('_', ' ')}", flush=True)
        except Exception:  # every failure of a check is a result
            failed += 1
            print(f"FAILED {check.__name__.replace('_', ' ')} (logs: {here.LOGS})", flush=True)
            traceback.print_exc()
    status = run_relay_test()
    for process in (*processes, server.process):
        process.kill()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or status else 0


def start_daemons(trees, site):
    """All four, each waited for until it answers."""
    gateway, internal = trees["gateway"], trees["internal"]
    started = []

    def up(tree, unit, ready):
        log = here.LOGS / f"{unit}.log"
        process = units.start(tree, unit, log)
        here.wait(unit, ready, process, log)
        started.append(process)

    def pings():
        with contextlib.suppress(OSError):
            return here.ask("/run/clamav/clamd.sock", b"zPING\0", end=False) == b"PONG\0"

    def pongs():
        with contextlib.suppress(OSError):
            return b"PONG" in here.ask("/run/spamd/spamd.sock", b"PING SPAMC/1.5\r\n\r\n")

    import_site(gateway, "gateway", site)
    up(gateway, "postern-clamd.service", pings)
    up(gateway, "postern-spamd.service", pongs)
    up(gateway, "postern-unbound.service", lambda: here.listens(53))
    # Both nodes render to /run/postern: keep the gateway's for a later check.
    os.rename("/run/postern", "/run/postern-gateway")
    import_site(internal, "internal", site)
    up(internal, "postern-dovecot.service", lambda: os.path.exists("/run/dovecot/lmtp"))
    return started


if __name__ == "__main__":
    sys.exit(main())
