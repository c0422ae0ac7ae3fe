"""The test site: site.toml, its certificates and users, and what a node is given of them at boot."""

import subprocess

import messages
import network

PASSWORDS = {messages.ALICE: "alice reads her mail", messages.CAROL: "carol reads hers",
             messages.APP: "the app may submit"}
HOSTNAMES = {"gateway": "mx1.example.org", "internal": "mail.example.org"}
ADDRESSES = {"gateway": [network.GATEWAY, network.GATEWAY_DMZ], "internal": [network.INTERNAL]}
LINKS = {
    "gateway": {"outside": "52:54:00:c8:00:0a", "dmz": "52:54:00:c8:09:0a"},
    "internal": {"dmz": "52:54:00:c8:09:02", "internal": "52:54:00:c8:01:19"},
}
GREYLIST_SECONDS = 10

TEMPLATE = """[site]
name = "machine-test"
domains = ["example.org"]
postmaster = "postmaster@example.org"
dkim-selector = "postern"

[[node]]
name = "gateway"
role = "gateway"
hostname = "mx1.example.org"
public-addresses = ["{gateway}"]
[node.links.outside]
mac = "{mac[gateway][outside]}"
addresses = ["{gateway}/24"]
gateway = "{router}"
[node.links.dmz]
mac = "{mac[gateway][dmz]}"
addresses = ["{gateway_dmz}/24"]

[[node]]
name = "internal"
role = "internal"
hostname = "mail.example.org"
[node.links.dmz]
mac = "{mac[internal][dmz]}"
addresses = ["{internal_dmz}/24"]
[node.links.internal]
mac = "{mac[internal][internal]}"
addresses = ["{internal}/24"]

[network]
dmz = "10.200.9.0/24"
internal = "10.200.1.0/24"
app-servers = ["{app}"]

[dns]
root-servers = ["{dns}"]
trust-anchor = "{anchor}"

[policy]
greylist-delay = "{greylist}s"
listed-peers = ["{bulk}"]
"""


class Site:
    """The files of the site in `directory`; `run` is the operator's command."""

    def __init__(self, postern, directory, anchor, ca):
        self.postern, self.directory, self.ca = postern, directory, ca
        self.file = directory / "site.toml"
        self.file.write_text(TEMPLATE.format(
            mac=LINKS, anchor=anchor, greylist=GREYLIST_SECONDS, gateway=network.GATEWAY,
            gateway_dmz=network.GATEWAY_DMZ, internal=network.INTERNAL,
            internal_dmz=network.INTERNAL_DMZ, router=network.ROUTER, app=network.APP,
            dns=network.DNS, bulk=network.BULK))
        self.run("site", "check", self.file)
        self.pki = directory / "pki"
        self.run("pki", "init", "--site", self.file, "--out", self.pki)
        self.users = "".join(self.run("user", "hash", user, stdin=password + "\n")
                             for user, password in PASSWORDS.items())
        words = [str(postern), "user", "app-password", "hash", messages.ALICE, "phone"]
        made = subprocess.run(words, capture_output=True, text=True, check=True)
        # The line for the credential, and beside it the password itself.
        self.users += made.stdout
        self.app_password = made.stderr.splitlines()[0]
        self.public = {name: ca.issue(name, HOSTNAMES[name], ADDRESSES[name]) for name in HOSTNAMES}

    def run(self, *words, stdin=None):
        """Runs `postern`; a failure shows what it said."""
        done = subprocess.run([str(self.postern), *map(str, words)], input=stdin,
                              capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"postern {' '.join(map(str, words))} ended with "
                               f"{done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def credentials(self, name):
        """{credential: octets} of a node."""
        certificate, key = self.public[name]
        given = {
            "postern.site": self.file.read_bytes(),
            "postern.node": name.encode(),
            "postern.ca": (self.pki / "ca.crt").read_bytes(),
            "postern.node-cert": (self.pki / f"{name}.crt").read_bytes(),
            "postern.node-key": (self.pki / f"{name}.key").read_bytes(),
            "postern.smtp-cert": certificate.read_bytes(),
            "postern.smtp-key": key.read_bytes(),
        }
        if name == "internal":
            given["postern.users"] = self.users.encode()
        else:
            given["postern.clamav-db"] = messages.signatures()
        return given

    def smbios(self, name):
        """Files for QEMU's -smbios type=11,path=, one string each, by `postern node credentials`."""
        given = self.directory / "credentials" / name
        given.mkdir(parents=True, mode=0o700)
        certificate, key = self.public[name]
        words = ["--site", self.file, "--node", name, "--pki", self.pki,
                 "--smtp-cert", certificate, "--smtp-key", key, "--out", given / "all"]
        if name == "internal":
            (given / "users").write_text(self.users)
            words += ["--users", given / "users"]
        else:
            (given / "test.ndb").write_bytes(messages.signatures())
            words += ["--extra", f"postern.clamav-db={given / 'test.ndb'}"]
        self.run("node", "credentials", *words)
        files = []
        for number, line in enumerate((given / "all").read_text().splitlines()):
            files.append(given / f"{number}.smbios")
            files[-1].write_text(line)
        return files
