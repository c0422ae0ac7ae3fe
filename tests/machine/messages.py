"""The messages that the tests send.

GTUBE and the EICAR test string are put together here at run time, so that no file of the project
is itself what a scanner looks for.
"""

import base64
import email.message
import email.policy
import email.utils
import hashlib
import io
import zipfile

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

ALICE, CAROL, APP = "alice@example.org", "carol@example.org", "app@example.org"
OUTSIDER = "bob@sender.example"
FORGED = (b"Authentication-Results: mx1.example.org; dkim=pass header.d=bank.example;\r\n"
          b" dmarc=pass header.from=bank.example\r\n")


def eicar():
    """The EICAR test file (eicar.org), 68 octets."""
    return (r"X5O!P%@AP[4\PZX54(P^)7CC)7}" + "$" + "-".join(
        ("EICAR", "STANDARD", "ANTIVIRUS", "TEST", "FILE!")) + "$H+" + "H*").encode()


def gtube():
    """The Generic Test for Unsolicited Bulk Email of SpamAssassin."""
    return "XJS*C4JDBQADN1.NSBN3*2IDNEN*" + "-".join(
        ("GTUBE", "STANDARD", "ANTI", "UBE", "TEST", "EMAIL")) + "*C.34X"


def signatures():
    """A ClamAV database (.ndb: name, any type, any offset, hex) that knows EICAR and nothing else."""
    return f"Postern.Test.EICAR:0:*:{eicar().hex()}\n".encode()


def sender_key():
    """The sender domain's DKIM key: (private PEM, public DER)."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return (
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL,
                          serialization.NoEncryption()),
        key.public_key().public_bytes(serialization.Encoding.DER,
                                      serialization.PublicFormat.SubjectPublicKeyInfo))


def build(sender, recipient, subject, text, attachments=(), html=None):
    """A message with CRLF line ends. `attachments`: (file name, octets)."""
    mail = email.message.EmailMessage(policy=email.policy.SMTP)
    mail["From"], mail["To"], mail["Subject"] = sender, recipient, subject
    mail["Date"] = email.utils.localtime()
    mail["Message-ID"] = email.utils.make_msgid(domain=sender.partition("@")[2])
    mail.set_content(text)
    if html:
        mail.add_alternative(html, subtype="html")
    for name, octets in attachments:
        mail.add_attachment(octets, maintype="application", subtype="octet-stream", filename=name)
    return mail.as_bytes()


def noise(size, seed):
    """Octets that look random and are the same each time."""
    block = (hashlib.sha256(f"{seed} {n}".encode()).digest() for n in range(size // 32 + 1))
    return b"".join(block)[:size]


def filler(size, seed):
    """Lines of hex digits, about `size` octets of them."""
    digits = noise(size // 2, seed).hex()
    return "\n".join(digits[i:i + 72] for i in range(0, len(digits), 72)) + "\n"


def zipped(name, octets):
    """A zip archive with one deflated file."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, octets)
    return archive.getvalue()


def signed(message, key, domain=b"sender.example", selector=b"out"):
    """The message with the sender's own DKIM signature on top (RFC 6376, by dkimpy)."""
    signature = dkim.sign(message, selector, domain, key, canonicalize=(b"relaxed", b"relaxed"),
                          include_headers=[b"from", b"to", b"subject", b"date", b"message-id",
                                           b"mime-version", b"content-type"])
    return signature + message


def multipart(key):
    """The message of flow a: text with dots and non-ASCII, HTML, an attachment of 40 KiB."""
    text = ("Grüße aus dem Netz draußen.\n.\n..two dots\n.leading dot\n"
            "A line that is long " + "and longer " * 60 + "\n\ntrailing blank lines\n\n\n")
    return signed(build(OUTSIDER, ALICE, "Quarterly figures — naïve check", text,
                        [("figures.bin", noise(40 << 10, "figures"))],
                        "<p>Gr&uuml;&szlig;e</p>"), key)


def attachment_of(message):
    """The octets of the first attachment."""
    parsed = email.message_from_bytes(message, policy=email.policy.SMTP)
    return next(parsed.iter_attachments()).get_content()


def digest(octets):
    """Short name of some octets, for messages to people."""
    return base64.b32encode(hashlib.sha256(octets).digest())[:8].decode()
