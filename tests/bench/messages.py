"""The messages of the lines that judge mail: ordinary text of several senders, signed by DKIM (RFC 6376, relaxed/relaxed,
rsa-sha256, 2048 bits, as most mail is), and the DNS records that go with them."""

import base64
import hashlib
import random
import re
import subprocess

import world

# Sender domains; each is signed by itself, publishes SPF with its host's address, and asks for refusal by DMARC.
SENDERS = 8
SELECTOR = "bench"
SIGNED = ["from", "to", "subject", "date", "message-id", "mime-version", "content-type"]
WORDS = """meeting report harbour invoice garden letter train museum schedule window paper bridge market copper river
lantern budget chapter engine forest island journal kitchen ladder morning number office painter quarter record season
ticket update valley weather yellow answer because during either further however instead perhaps quickly rather should
through until visitor without yesterday please attached regards""".split()


def domain(number):
    return f"sender{number}.example"


def sender(number):
    return f"writer@{domain(number)}"


def helo(number):
    return f"mail.{domain(number)}"


def make_key(directory):
    """An RSA key as a PEM file, and its public half for the record."""
    path = directory / "dkim.pem"
    subprocess.run(["openssl", "genrsa", "-out", path, "2048"], check=True, capture_output=True)
    public = subprocess.run(["openssl", "rsa", "-in", path, "-pubout", "-outform", "DER"], check=True, capture_output=True).stdout
    return path, base64.b64encode(public).decode()


def write_all(directory, octets):
    """One signed message of each sender, of some `octets`: their files, and the zone's records."""
    key, public = make_key(directory)
    files, records = [], []
    for number in range(SENDERS):
        path = directory / f"message-{number}.eml"
        # smtp-source makes the line ends.
        path.write_bytes(signed(number, text(number, octets), key).replace(b"\r\n", b"\n"))
        files.append(path)
        records += [
            f'{domain(number)}. IN TXT "v=spf1 ip4:{world.PUBLIC} -all"',
            f'{helo(number)}. IN TXT "v=spf1 ip4:{world.PUBLIC} -all"',
            f"{helo(number)}. IN A {world.PUBLIC}",
            f"{domain(number)}. IN MX 10 {helo(number)}.",
            f'_dmarc.{domain(number)}. IN TXT "v=DMARC1; p=reject"',
            f'{SELECTOR}._domainkey.{domain(number)}. IN TXT "v=DKIM1; k=rsa; p={public[:200]}" "{public[200:]}"',
        ]
    return files, records


def on_the_wire(path):
    """A message as a client sends it."""
    return path.read_bytes().replace(b"\n", b"\r\n")


def text(number, octets):
    """Body lines of ordinary words, the same in every run."""
    chosen, lines, length = random.Random(number), [], 0
    while length < octets:
        line = " ".join(chosen.choice(WORDS) for _ in range(10)) + "."
        lines.append(line)
        length += len(line) + 2
    return "\r\n".join(lines) + "\r\n"


def signed(number, body, key):
    """The message with its signature on top."""
    fields = {
        "From": f"A Writer <{sender(number)}>",
        "To": f"someone@{world.DOMAIN}",
        "Subject": f"notes of week {number}",
        "Date": "Fri, 20 Nov 2026 08:00:00 +0000",
        "Message-ID": f"<bench-{number}@{domain(number)}>",
        "MIME-Version": "1.0",
        "Content-Type": "text/plain; charset=us-ascii",
    }
    digest = base64.b64encode(hashlib.sha256(relaxed_body(body).encode()).digest()).decode()
    signature = (f"v=1; a=rsa-sha256; c=relaxed/relaxed; d={domain(number)}; s={SELECTOR};\r\n\t"
                 f"h={':'.join(SIGNED)};\r\n\tbh={digest};\r\n\tb=")
    by_name = {name.lower(): value for name, value in fields.items()}
    covered = "".join(relaxed(name, by_name[name]) + "\r\n" for name in SIGNED) + relaxed("dkim-signature", signature)
    made = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key], input=covered.encode(), check=True, capture_output=True)
    value = base64.b64encode(made.stdout).decode()
    folded = "\r\n\t ".join(value[at:at + 70] for at in range(0, len(value), 70))
    header = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"DKIM-Signature: {signature}{folded}\r\n{header}\r\n{body}".encode()


def relaxed(name, value):
    """RFC 6376 3.4.2."""
    unfolded = re.sub(r"[ \t]+", " ", value.replace("\r\n", "")).strip()
    return f"{name}:{unfolded}"


def relaxed_body(body):
    """RFC 6376 3.4.4."""
    lines = [re.sub(r"[ \t]+", " ", line).rstrip(" ") for line in body.split("\r\n")]
    while lines and not lines[-1]:
        lines.pop()
    return "".join(line + "\r\n" for line in lines)
