"""The DNS of the outside network: knotd (Knot DNS) serving one signed private root zone.

All names of the test world are in that zone; the gateway's unbound gets its address as root hint
and its DS as trust anchor (site.toml [dns]), so every answer the relay uses was validated
(RFC 4033-4035). `.example` names, because resolvers answer `.test` by themselves (RFC 6761).
"""

import base64
import re
import subprocess
import time

import dns.message
import dns.query
import dns.rcode
import dns.rdatatype

import network

CONF = """server:
    rundir: "{dir}"
    listen: {address}@53
    pidfile: "{dir}/knot.pid"
log:
  - target: stdout
    any: info
database:
    storage: "{dir}"
policy:
  - id: lab
    algorithm: ecdsap256sha256
    single-type-signing: on
zone:
  - domain: .
    storage: "{dir}"
    file: root.zone
    zonefile-sync: -1
    zonefile-load: difference-no-serial
    journal-content: all
    dnssec-signing: on
    dnssec-policy: lab
"""


def txt(text):
    """A TXT value as quoted strings of at most 255 octets (RFC 1035 section 3.3.14)."""
    return " ".join(f'"{text[i:i + 250]}"' for i in range(0, len(text), 250))


def base_records(sender_dkim):
    """The names of the outside world. `sender_dkim`: public key (DER) of selector `out`."""
    key = base64.b64encode(sender_dkim).decode()
    reverse = "113.0.203.in-addr.arpa."
    return f"""$TTL 60
. SOA ns.root.example. hostmaster.root.example. 1 3600 600 86400 5
. NS ns.root.example.
ns.root.example. A {network.DNS}
sender.example. MX 10 mx.destination.example.
sender.example. TXT "v=spf1 ip4:{network.SENDER} -all"
mail.sender.example. A {network.SENDER}
out._domainkey.sender.example. TXT {txt(f"v=DKIM1; k=rsa; p={key}")}
_dmarc.sender.example. TXT "v=DMARC1; p=reject; adkim=s; aspf=s"
bulk.example. MX 10 mx.destination.example.
bulk.example. TXT "v=spf1 ip4:{network.BULK} -all"
mail.bulk.example. A {network.BULK}
destination.example. MX 10 mx.destination.example.
destination.example. TXT "v=spf1 ip4:{network.MX} -all"
mx.destination.example. A {network.MX}
mx.destination.example. TXT "v=spf1 ip4:{network.MX} -all"
mail.sender.example. TXT "v=spf1 ip4:{network.SENDER} -all"
mail.bulk.example. TXT "v=spf1 ip4:{network.BULK} -all"
20.{reverse} PTR mail.sender.example.
25.{reverse} PTR mx.destination.example.
30.{reverse} PTR mail.bulk.example.
10.{reverse} PTR mx1.example.org.
"""


class Server:
    """knotd in the outside namespace."""

    def __init__(self, namespace, directory, sender_dkim):
        self.namespace, self.directory = namespace, directory
        self.records = base_records(sender_dkim)
        self.process = None

    def start(self):
        """Starts and waits until the zone is signed; returns the DS record of its key."""
        self.directory.mkdir()
        conf = self.directory / "knot.conf"
        conf.write_text(CONF.format(dir=self.directory, address=network.DNS))
        self._write()
        log = open(self.directory / "knotd.log", "wb")
        self.process = self.namespace.start(["knotd", "-c", conf], stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.query(".", "DNSKEY", dnssec=True).answer:
                    return self._ds(conf)
            except OSError:
                pass
            time.sleep(0.1)
        raise RuntimeError(f"knotd does not serve a signed root; see {log.name}")

    def add(self, zone_text):
        """Adds records (zone-file lines) and waits until the server answers with them."""
        self.records += zone_text.rstrip() + "\n"
        self._write()
        done = subprocess.run(
            ["knotc", "-b", "-c", str(self.directory / "knot.conf"), "zone-reload", "."],
            capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"knotc zone-reload: {done.stdout}{done.stderr}; "
                               f"see {self.directory}/knotd.log")

    def query(self, name, kind, dnssec=False):
        """Asks over TCP, from the outside network."""
        question = dns.message.make_query(name, kind, want_dnssec=dnssec)
        with self.namespace.connect(network.DNS, 53, timeout=5) as sock:
            return dns.query.tcp(question, network.DNS, sock=sock, timeout=5)

    def txt(self, name, timeout=5):
        """TXT lookup in the form dkimpy wants for its `dnsfunc`."""
        name = name.decode() if isinstance(name, bytes) else name
        for rrset in self.query(name, "TXT").answer:
            if rrset.rdtype == dns.rdatatype.TXT:
                return b"".join(rrset[0].strings)
        return None

    def _write(self):
        (self.directory / "root.zone").write_text(self.records)

    @staticmethod
    def _ds(conf):
        found = subprocess.run(["keymgr", "-c", str(conf), ".", "ds"],
                               capture_output=True, text=True, check=True).stdout
        # keymgr prints one line per digest type; SHA-256 (type 2) is what everyone reads.
        for line in found.splitlines():
            if re.search(r" DS \d+ \d+ 2 ", line):
                return ". IN" + line[line.index(" DS "):]
        raise RuntimeError(f"keymgr printed no SHA-256 DS record: {found}")
