"""What Postern needs of each daemon, asked of the daemon itself.

Each check's name and docstring say what must hold; it raises AssertionError where it does not.
"""

import base64
import contextlib
import itertools
import pathlib
import re
import smtplib
import socket
import subprocess

import dns.flags
import dns.message
import dns.query
import dns.rcode

import here

import clients
import messages
import network
import site_files


def clamd(octets):
    """clamd's verdict by INSTREAM."""
    chunk = len(octets).to_bytes(4, "big") + octets
    return here.ask("/run/clamav/clamd.sock", b"zINSTREAM\0" + chunk + bytes(4), end=False)


def clamd_finds_viruses_and_only_them():
    """EICAR plain, as an attachment, and in a zip as an attachment; a clean message passes."""
    mail = messages.build("a@b.example", "c@d.example", "s", "text",
                          [("x.zip", messages.zipped("x.com", messages.eicar()))])
    plain = messages.build("a@b.example", "c@d.example", "s", "text", [("x.com", messages.eicar())])
    for name, octets in (("plain", messages.eicar()), ("attached", plain), ("zipped", mail)):
        answer = clamd(octets)
        assert b"FOUND" in answer and b"EICAR" in answer, f"{name}: {answer}"
    clean = clamd(messages.build("a@b.example", "c@d.example", "s", "text"))
    assert clean.rstrip(b"\0") == b"stream: OK", clean
    print(here.ask("/run/clamav/clamd.sock", b"zVERSION\0", end=False).rstrip(b"\0").decode())


def spamd_scores_spam_and_only_it():
    """GTUBE gets its thousand points by SPAMC/1.5 SYMBOLS; an ordinary message stays under the mark."""
    scores = []
    for text in (messages.gtube(), "Shall we meet on Tuesday at ten?"):
        mail = messages.build("a@b.example", "c@d.example", "Tuesday", text)
        answer = here.ask("/run/spamd/spamd.sock",
                          b"SYMBOLS SPAMC/1.5\r\nContent-length: %d\r\n\r\n" % len(mail) + mail)
        scores.append(float(re.search(rb"Spam: \w+ ; (-?[\d.]+) /", answer).group(1)))
    assert scores[0] > 900 and scores[1] < 5, f"scores of GTUBE and of plain mail: {scores}"


def resolve(name, port=53):
    return dns.query.udp(dns.message.make_query(name, "TXT", want_dnssec=True), "127.0.0.1",
                         timeout=20, port=port)


def unbound_validates():
    """Signed answers come with AD set, and so does the proof that a name does not exist."""
    good = resolve("_dmarc.sender.example")
    assert good.flags & dns.flags.AD and good.answer, f"not validated: {good}"
    absent = resolve("nothing.sender.example")
    assert absent.rcode() == dns.rcode.NXDOMAIN and absent.flags & dns.flags.AD, str(absent)


def unbound_refuses_what_does_not_validate(tree):
    """With an anchor that does not fit the zone's key there is SERVFAIL, and no answer."""
    right = pathlib.Path("/run/postern-gateway/unbound.conf").read_text()
    wrong = re.sub(r'(trust-anchor: ".* DS \d+ \d+ \d+ )(.)',
                   lambda m: m.group(1) + ("0" if m.group(2) != "0" else "1"), right)
    assert wrong != right, "the rendered unbound.conf names no trust anchor"
    wrong = re.sub(r"interface: (127.0.0.1|::1)", r"interface: \1@5300", wrong)
    pathlib.Path("/run/wrong-anchor.conf").write_text(wrong)
    with open(here.LOGS / "unbound-wrong-anchor.log", "wb") as log:
        process = subprocess.Popen(
            ["chroot", tree, "/usr/sbin/unbound", "-d", "-p", "-c", "/run/wrong-anchor.conf"],
            stdout=log, stderr=log)
    try:
        here.wait("unbound with a wrong anchor", lambda: here.listens(5300), process, log.name)
        answer = resolve("_dmarc.sender.example", 5300)
        assert answer.rcode() == dns.rcode.SERVFAIL and not answer.answer, str(answer)
    finally:
        process.kill()


class Lmtp(smtplib.LMTP):
    """smtplib's LMTP over Dovecot's unix socket."""

    def __init__(self):
        super().__init__("/run/dovecot/lmtp", local_hostname="mail.example.org")


def dovecot_delivers_and_shows(authority):
    """A message given by LMTP is read back by IMAPS as it was; unknown users get 550 5.1.1 at RCPT."""
    mail = messages.build("a@b.example", messages.ALICE, "hello", "Grüße\n.dot\n",
                          [("x.bin", messages.noise(5000, "lmtp"))])
    lmtp = Lmtp()
    lmtp.ehlo_or_helo_if_needed()
    lmtp.mail("a@b.example")
    code, text = lmtp.rcpt("nobody@example.org")
    assert code == 550 and text.startswith(b"5.1.1"), f"unknown user: {code} {text}"
    assert lmtp.rcpt(messages.ALICE)[0] == 250
    assert lmtp.docmd("DATA")[0] == 354
    lmtp.send(clients.dot_stuffed(mail))
    code, text = lmtp.getreply()
    assert code == 250, f"LMTP: {code} {text}"
    lmtp.quit()
    imap = login(authority, site_files.PASSWORDS[messages.ALICE])
    got = imap.all_messages()
    assert len(got) == 1 and got[0].endswith(mail), f"{len(got)} messages, not the one sent"
    status, quota = imap.getquotaroot("INBOX")
    assert status == "OK" and b"STORAGE" in quota[1][0], f"no quota: {quota}"
    imap.logout()


def login(authority, password):
    imap = clients.Imap(here.Here, network.INTERNAL, authority, "mail.example.org")
    imap.login(messages.ALICE, password)
    return imap


def dovecot_refuses_a_wrong_password(authority):
    """IMAP login with a wrong password fails, and with the right one works."""
    login(authority, site_files.PASSWORDS[messages.ALICE]).logout()
    with contextlib.suppress(clients.Imap.error):
        login(authority, "a guess")
        raise AssertionError("Dovecot took a wrong password")


CLIENTS = itertools.count(0x4100_0000)


def sasl(service, user, password):
    """Whether Dovecot's SASL service takes the login for this service."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect("/run/dovecot/auth-postern")
        lines = sock.makefile("rw", newline="\n")
        lines.write(f"VERSION\t1\t2\nCPID\t{next(CLIENTS)}\n")
        lines.flush()
        while not lines.readline().startswith("DONE"):
            pass
        response = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        lines.write(f"AUTH\t1\tPLAIN\tservice={service}\tsecured\tnologin\trip=203.0.113.66\tresp={response}\n")
        lines.flush()
        answer = lines.readline().split("\t")
    assert answer[0] in ("OK", "FAIL") and "temp" not in answer, f"Dovecot said {answer}"
    return answer[0] == "OK"


def an_app_password_submits_from_outside_and_nothing_else(authority, app_password):
    """For `postern-outside` the app password and not the user's own; for submission inside and IMAP the reverse."""
    own = site_files.PASSWORDS[messages.ALICE]
    for service, password, right in (
            ("postern-outside", app_password, True), ("postern-outside", own, False),
            ("postern-outside", "a'b\\" + app_password, False),
            ("smtp", own, True), ("smtp", app_password, False)):
        assert sasl(service, messages.ALICE, password) is right, f"{service}: not {right}"
    with contextlib.suppress(clients.Imap.error):
        login(authority, app_password)
        raise AssertionError("IMAP took an app password")
