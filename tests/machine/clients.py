"""SMTP and IMAP clients of the test hosts: Python's own, on sockets made inside a namespace."""

import contextlib
import dataclasses
import imaplib
import smtplib
import ssl


class Smtp(smtplib.SMTP):
    """smtplib from a host of ours; `source` is the address to come from."""

    def __init__(self, namespace, host, port=25, source=None, helo="mail.sender.example",
                 timeout=180):
        self._namespace, self._from = namespace, source
        super().__init__(host, port, local_hostname=helo, timeout=timeout)

    def _get_socket(self, host, port, timeout):
        return self._namespace.connect(host, port, self._from, timeout)


@dataclasses.dataclass
class Outcome:
    """How far an attempt at a message came: the stage whose reply ended it, and that reply."""
    stage: str
    code: int
    text: str

    @property
    def accepted(self):
        return self.stage == "data" and self.code == 250

    @property
    def queue_id(self):
        return self.text.rpartition("queued as ")[2].split()[0] if self.accepted else None

    def __str__(self):
        return f"{self.code} {self.text} (after {self.stage})"


def trusting(authority):
    """A TLS context that trusts only the given CA file."""
    return ssl.create_default_context(cafile=str(authority))


@contextlib.contextmanager
def session(namespace, host, authority, port=25, source=None, helo="mail.sender.example",
            server_name=None):
    """An SMTP session after STARTTLS with a verified certificate."""
    client = Smtp(namespace, host, port, source, helo)
    try:
        starttls(client, authority, server_name or host)
        yield client
    finally:
        with contextlib.suppress(smtplib.SMTPException, OSError):
            client.quit()
        client.close()


def starttls(client, authority, server_name):
    """STARTTLS, with the server's name checked in its certificate."""
    client.ehlo_or_helo_if_needed()
    # smtplib takes the name to check from the host it was told to connect to.
    client._host = server_name
    code, text = client.starttls(context=trusting(authority))
    if code != 220:
        raise smtplib.SMTPResponseException(code, text)
    client.ehlo()


def send(client, sender, recipient, message):
    """One message, as octets, exactly as they are (smtplib would mend line ends)."""
    code, text = client.docmd(f"MAIL FROM:<{sender}>", f"BODY=8BITMIME SIZE={len(message)}")
    if code != 250:
        return Outcome("mail", code, text.decode(errors="replace"))
    code, text = client.docmd(f"RCPT TO:<{recipient}>")
    if code != 250:
        client.rset()
        return Outcome("rcpt", code, text.decode(errors="replace"))
    code, text = client.docmd("DATA")
    if code != 354:
        client.rset()
        return Outcome("data-start", code, text.decode(errors="replace"))
    client.send(dot_stuffed(message))
    code, text = client.getreply()
    return Outcome("data", code, text.decode(errors="replace"))


def dot_stuffed(message):
    """RFC 5321 section 4.5.2, and the final line."""
    lines = message.split(b"\r\n")
    stuffed = b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines)
    return stuffed + (b"" if message.endswith(b"\r\n") else b"\r\n") + b".\r\n"


class Imap(imaplib.IMAP4_SSL):
    """imaplib over TLS from a host of ours."""

    def __init__(self, namespace, host, authority, server_name):
        self._namespace, self._server_name = namespace, server_name
        super().__init__(host, 993, ssl_context=trusting(authority), timeout=120)

    def _create_socket(self, timeout):
        plain = self._namespace.connect(self.host, self.port, None, timeout)
        return self.ssl_context.wrap_socket(plain, server_hostname=self._server_name)

    def all_messages(self):
        """Every message of the inbox, as octets."""
        return [self.message(number) for number in self.numbers("ALL")]

    def numbers(self, *criteria):
        """The messages of the inbox, by sequence number."""
        status, found = self.select("INBOX", readonly=True)
        if status != "OK":
            raise imaplib.IMAP4.error(f"SELECT: {found[0].decode()}")
        status, found = self.search(None, *criteria)
        if status != "OK":
            raise imaplib.IMAP4.error(f"SEARCH: {found}")
        return found[0].split()

    def message(self, number):
        status, parts = self.fetch(number.decode(), "(BODY.PEEK[])")
        if status != "OK":
            raise imaplib.IMAP4.error(f"FETCH {number}: {parts}")
        return parts[0][1]
