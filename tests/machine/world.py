"""The test world: networks, peers, site, credentials and both nodes, put up and taken down in order."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import accelerator
import certificates
import clients
import messages
import nameserver
import network
import site_files
import trace
import vm

TOP = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
BOOT_SECONDS = 420
DOORS = {
    "gateway": [("outside", network.GATEWAY, 25), ("outside", network.GATEWAY, 587)],
    "internal": [("app", network.INTERNAL, 25), ("app", network.INTERNAL, 587),
                 ("staff", network.INTERNAL, 993)],
}
UNITS = {
    "gateway": ["clamd", "spamd", "scan", "unbound", "suricata"],
    "internal": ["unbound", "dovecot"],
}


class World:
    """Everything a flow needs; `say` prints progress."""

    def __init__(self, postern, images, say=print, keep=False):
        self.postern, self.images, self.say, self.keep = postern, images, say, keep
        self.tag = f"postern-{os.getpid()}"
        self.directory = TOP / "build" / "machine" / self.tag
        self.networks = network.Networks(self.tag)
        self.processes = []
        self.nodes = {}
        self.facts = {}               # what one flow leaves for another

    # -- up and down ------------------------------------------------------------------------------

    def up(self):
        """Networks, peers, site, nodes; returns when both nodes serve."""
        self.prepare()
        kind = accelerator.choose(self.images["gateway"], self.directory / "trial", self.say)
        for name in site_files.LINKS:
            self.nodes[name] = vm.Node(
                name, self.images[name], self.directory, site_files.LINKS[name], self.site.smbios(name),
                kind, self.networks)
            self.nodes[name].prepare()
            self.nodes[name].start()
        self.say("both nodes are powered on")
        for name in self.nodes:
            self.wait_serving(name)
        self.publish_site()

    def prepare(self):
        """All but the nodes."""
        if self.directory.exists():
            shutil.rmtree(self.directory)
        self.directory.mkdir(parents=True)
        self.networks.up()
        self.private_key, public_key = messages.sender_key()
        self.dns = nameserver.Server(self.networks["outside"], self.directory / "dns", public_key)
        anchor = self.dns.start()
        self.processes.append(self.dns.process)
        self.ca = certificates.Authority(self.directory / "tls")
        self.start_mx()
        self.site = site_files.Site(self.postern, self.directory, anchor, self.ca)
        self.say("three networks, DNS with DNSSEC, receiving MX: up")

    def start_mx(self):
        certificate, key = self.ca.issue("mx", "mx.destination.example", [network.MX])
        self.dns.add(f"_25._tcp.mx.destination.example. TLSA {certificates.tlsa(certificate)}")
        self.mx_directory = self.directory / "mx"
        self.mx_directory.mkdir()
        self.start_peer("mx", "outside", HERE / "peers" / "mx.py", self.mx_directory, network.MX,
                        certificate, key)

    def start_peer(self, name, host, *argv):
        """A peer program of ours in the venv's Python; returns when it says `ready`."""
        log = self.directory / f"{name}.log"
        with open(log, "wb") as file:
            process = self.networks[host].start(
                [TOP / "build/venv/bin/python", *argv], stdout=file, stderr=file)
        self.processes.append(process)
        deadline = time.monotonic() + 30
        while b"ready" not in log.read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the peer {name} did not start; see {log}")
            time.sleep(0.1)

    def down(self):
        """Ends our processes and removes our namespaces; with `keep`, says how to do it later."""
        if self.keep and any(node.running() for node in self.nodes.values()):
            pids = [node.qemu.pid for node in self.nodes.values() if node.running()]
            pids += [process.pid for process in self.processes if process.poll() is None]
            (self.directory / "kept.json").write_text(json.dumps(
                {"processes": {pid: born(pid) for pid in pids}, "namespaces": self.networks.made}))
            return
        for node in self.nodes.values():
            node.kill()
        for process in self.processes:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
        self.networks.down()
        remove_disks(self.directory)

    # -- site and nodes ---------------------------------------------------------------------------

    def wait_serving(self, name, timeout=BOOT_SECONDS):
        """Waits until every door of the node answers and its daemons are up by systemd's word."""
        begun = time.monotonic()
        for host, address, port in DOORS[name]:
            while not self.answers(host, address, port):
                node = self.nodes[name]
                if not node.running() or time.monotonic() - begun > timeout:
                    raise vm.NodeError(
                        f"{name}: nobody answers at {address}:{port} after {timeout} s; "
                        f"see {node.journal} and {node.console}")
                time.sleep(1)
        self.wait_units(name, timeout)
        self.say(f"{name} serves, {time.monotonic() - begun:.0f} s later")

    def answers(self, host, address, port):
        """Somebody takes the connection, and where the server speaks first, greets."""
        try:
            with self.networks[host].connect(address, port, timeout=5) as sock:
                return port == 993 or sock.recv(3) == b"220"
        except OSError:
            return False

    def wait_units(self, name, timeout):
        for unit in UNITS[name]:
            self.nodes[name].wait_for(rf"Started postern-{unit}\.service", timeout,
                                      f"systemd's word that postern-{unit} is up")

    def publish_site(self):
        """Puts the site's own records and the gateway's DKIM keys into the DNS."""
        zone = self.site.run("site", "dns", self.site.file)
        (self.directory / "site.zone").write_text(zone)
        keys = self.wait_events("gateway", lambda e: e["event"] == "dkim-key", count=2)
        lines = [f'{key["record_name"].rstrip(".")}. TXT {nameserver.txt(key["record_value"])}'
                 for key in keys]
        self.dns.add(zone + "\n" + "\n".join(lines))

    # -- looking ----------------------------------------------------------------------------------

    def events(self, name):
        return trace.events(self.nodes[name].text(whole=True))

    def wait_events(self, name, wanted, count=1, timeout=60):
        deadline = time.monotonic() + timeout
        while True:
            found = [event for event in self.events(name) if wanted(event)]
            if len(found) >= count:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"{name}: saw {len(found)} of {count} events within "
                                     f"{timeout} s; see {self.nodes[name].journal}")
            time.sleep(0.5)

    def trace(self, title, first, queue_id, timeout=30):
        """The message's way over both nodes, as text, once its first node is done with it."""
        self.wait_events(first, lambda e: e["event"] == "removed" and e.get("id") == queue_id,
                         timeout=timeout)
        nodes = {name: self.events(name) for name in self.nodes}
        return trace.render(title, trace.follow(nodes, first, queue_id))

    def refusal(self, title, node, wanted, count=1):
        """What the connection did whose `refused` event satisfies `wanted`, the newest of at least
        `count`, as text."""
        self.wait_events(node, lambda e: e["event"] == "refused" and wanted(e), count)
        found = trace.refusal(self.events(node), wanted)
        return trace.render(title, [(node, event) for event in found])

    def received_by_mx(self):
        """[(facts, octets)…] of what the outside MX took, oldest first."""
        files = sorted(self.mx_directory.glob("*.json"), key=lambda p: int(p.stem.split("-")[1]))
        return [(json.loads(path.read_text()), path.with_suffix(".eml").read_bytes())
                for path in files]

    # -- acting -----------------------------------------------------------------------------------

    def authority(self):
        return self.directory / "tls" / "ca.crt"

    def outside(self, source=network.SENDER, helo="mail.sender.example", port=25):
        """A session from the outside network to the gateway, after STARTTLS."""
        return clients.session(self.networks["outside"], network.GATEWAY, self.authority(), port,
                               source, helo, "mx1.example.org")

    def mailbox(self, user=messages.ALICE):
        """The user's mailbox, by IMAPS from the staff host."""
        imap = clients.Imap(self.networks["staff"], network.INTERNAL, self.authority(),
                            "mail.example.org")
        imap.login(user, site_files.PASSWORDS[user])
        return imap

    def count_mail(self, user=messages.ALICE):
        imap = self.mailbox(user)
        try:
            return len(imap.numbers("ALL"))
        finally:
            imap.logout()

    def wait_mail(self, wanted, user=messages.ALICE, timeout=90):
        """Waits until a message in the user's inbox satisfies `wanted`; returns its octets."""
        deadline = time.monotonic() + timeout
        while True:
            imap = self.mailbox(user)
            try:
                for message in imap.all_messages():
                    if wanted(message):
                        return message
            finally:
                imap.logout()
            if time.monotonic() > deadline:
                raise AssertionError(f"the message did not reach {user} within {timeout} s")
            time.sleep(1)


def born(pid):
    """When a process began, in clock ticks since boot (proc_pid_stat(5), field 22), or None."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return None
    return stat.rpartition(")")[2].split()[19]


def stop_kept(directory):
    """Ends what a run with KEEP=1 left."""
    kept = json.loads((directory / "kept.json").read_text())
    for pid, birth in kept["processes"].items():
        if born(pid) == birth:          # else the number is someone else's by now
            os.kill(int(pid), signal.SIGKILL)
    for name in kept["namespaces"]:
        subprocess.run(["ip", "netns", "del", name], check=False)
    remove_disks(directory)
    (directory / "kept.json").unlink()


def remove_disks(directory):
    """Logs stay; disks (up to gigabytes) go."""
    for pattern in ("*.qcow2", "*.vars"):
        for path in directory.rglob(pattern):
            path.unlink()
