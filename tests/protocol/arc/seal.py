#!/usr/bin/env python3
"""Seals the messages of this folder with dkimpy, so that ARC is tested against an implementation that is not ours.

usage: seal.py    (needs dkimpy 1.1 and authres; the results are committed, so that the tests need neither it nor the key)
The key is made anew and thrown away; what is left of it is key.txt, the TXT record that the tests' name server shows for each sealer.
"""

import base64
import pathlib

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

HERE = pathlib.Path(__file__).parent
AUTHOR = "reject.example"


def message(name: str) -> bytes:
    lines = [f"From: Ann <a@{AUTHOR}>", "To: someone@example.org", f"Subject: {name}", "", "[list] body", ""]
    return "\r\n".join(lines).encode()


def sealed(octets: bytes, sealer: str, results: str, headers=(b"from", b"to", b"subject")) -> bytes:
    """The message with one set more; `results` is what the sealer found when it came to him."""
    seen = f"Authentication-Results: {sealer}; {results}\r\n".encode() + octets
    fields = dkim.arc_sign(seen, b"arc", sealer.encode(), KEY, sealer.encode(), include_headers=list(headers))
    return b"".join(fields) + octets


def key() -> bytes:
    pair = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = pair.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (HERE / "key.txt").write_text(f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}\n")
    return pair.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def write(name: str, octets: bytes) -> None:
    (HERE / f"{name}.eml").write_bytes(octets.replace(b"\r\n", b"\n"))


KEY = key()
PASSED = f"dmarc=pass header.from={AUTHOR}"
FAILED = f"dmarc=fail header.from={AUTHOR}"

one = sealed(message("arc-one"), "list.example", PASSED)
write("one", one)
write("altered", sealed(message("arc-altered"), "list.example", PASSED).replace(b"[list] body", b"other body"))
write("stranger", sealed(message("arc-stranger"), "stranger.example", PASSED))
write("saw-it-fail", sealed(message("arc-saw-it-fail"), "list.example", FAILED))
write("other-author", sealed(message("arc-other-author"), "list.example", "dmarc=pass header.from=pass.example"))
write("no-key", sealed(message("arc-no-key"), "temporary.example", PASSED))
two = sealed(message("arc-two"), "list.example", PASSED)
write("two", sealed(two, "forward.example", f"arc=pass; {FAILED}"))
two = sealed(message("arc-two-stranger"), "stranger.example", PASSED)
write("two-stranger", sealed(two, "forward.example", f"arc=pass; {FAILED}"))
