"""The client outside: `outside.py DIRECTORY RELAY`. Each case's docstring says what must hold."""

import base64
import smtplib
import socket
import ssl
import sys
import threading
import time
import traceback

from nodes import APP, ORDINARY, Nodes

ANN = "ann@example.org"
# Those that `postern selftest` tries, too.
FORMS = [b"\n.\n", b"\n.\r\n", b"\n.\r", b"\r.\r", b"\r.\r\n", b"\r.\n", b"\r\n.\n", b"\r\n.\r", b"\r\n.\r\r\n",
         b"\r\n\n.\n", b"\r\n\0.\r\n", b"\r\n.\0\r\n"]


CASES = []


def case(function):
    CASES.append(function)
    return function


class Client:
    """A raw client: says octets, reads replies. `source` is its address, of 127.0.0.0/8."""

    def __init__(self, world, source, port="submission", tls=True):
        self.world = world
        self.sock = socket.create_connection(("127.0.0.1", world.ports[port]), 90, (source, 0))
        self.buffer = b""
        if port == "submissions":
            self.encrypt()
        self.expect("220")
        self.say("EHLO client.example")
        self.offers = self.expect("250")
        if tls and port != "submissions":
            self.say("STARTTLS")
            self.expect("220")
            self.encrypt()
            self.say("EHLO client.example")
            self.offers = self.expect("250")

    def encrypt(self):
        self.sock = trusting(self.world).wrap_socket(self.sock, server_hostname="mx1.example.org")

    def raw(self, octets):
        self.sock.sendall(octets)

    def say(self, *lines):
        self.raw("".join(line + "\r\n" for line in lines).encode())

    def reply(self):
        lines = []
        while True:
            while b"\r\n" not in self.buffer:
                octets = self.sock.recv(65536)
                if not octets:
                    raise EOFError(f"closed after {lines}")
                self.buffer += octets
            line, self.buffer = self.buffer.split(b"\r\n", 1)
            lines.append(line.decode())
            if line[3:4] != b"-":
                return "\n".join(lines)

    def expect(self, start):
        reply = self.reply()
        assert reply.splitlines()[-1].startswith(start), f"wanted {start}, got {reply}"
        return reply

    def ask(self, line, start):
        self.say(line)
        return self.expect(start)

    def closed(self):
        try:
            return self.sock.recv(1) == b"" and not self.buffer
        except (ConnectionError, ssl.SSLError):
            return True

    def log_in(self, user=ANN, password=APP, start="235"):
        return self.ask("AUTH PLAIN " + plain(user, password), start)

    def envelope(self, to="bob@far.example"):
        self.ask(f"MAIL FROM:<{ANN}>", "250")
        self.ask(f"RCPT TO:<{to}>", "250")


def plain(user, password):
    return base64.b64encode(f"\0{user}\0{password}".encode()).decode()


def trusting(world):
    return ssl.create_default_context(cafile=str(world.directory / "ca.crt"))


def message(subject, *fields):
    return "".join(line + "\r\n" for line in
                   (f"From: {ANN}", f"Subject: {subject}", *fields, "", ".a line that begins with a dot", "end"))


@case
def smtplib_submits_by_starttls(world):
    """smtplib sends to the world and to a colleague; the message arrives whole, with the way it took, and none of the marks
    that only our own nodes may set. Both journals tell who it was."""
    text = message("by-starttls", "X-Postern-Return-Path: proven", "X-Spam-Flag: NO")
    with smtplib.SMTP("127.0.0.1", world.ports["submission"], "client.example",
                      source_address=("127.1.1.1", 0)) as client:
        client._host = "mx1.example.org"  # the name to check in the certificate
        client.starttls(context=trusting(world))
        client.login(ANN, APP)
        assert client.sendmail(ANN, ["bob@far.example", "carl@example.org"], text) == {}
    envelope, content = world.arrived("by-starttls")
    assert f"MAIL FROM:<{ANN}>".encode() in envelope and b"bob@far.example" in envelope
    head, _, body = content.partition(b"\r\n\r\n")
    assert body == text.partition("\r\n\r\n")[2].encode(), body
    assert head.count(b"with ESMTPSA") == 2 and b"127.1.1.1" in head, head
    assert b"X-Postern" not in head and b"X-Spam" not in head, head
    world.internal.wait(event="on-behalf", peer="127.1.1.1", helo="client.example")
    world.internal.wait(event="authenticated", user=ANN)
    world.internal.wait(event="queued", process="queue", provenance="submission")
    world.gateway.wait(event="authenticated", user=ANN)
    assert not world.gateway.find(event="queued"), "something rested in the DMZ"


@case
def smtplib_submits_by_implicit_tls(world):
    """Port 465: TLS from the first octet (RFC 8314)."""
    with smtplib.SMTP_SSL("127.0.0.1", world.ports["submissions"], "client.example",
                          context=loose(world), source_address=("127.1.2.1", 0)) as client:
        client.login(ANN, APP)
        client.sendmail(ANN, "bob@far.example", message("by-tls"))
    world.arrived("by-tls")


def loose(world):
    """SMTP_SSL checks the name that it connected to, which is no name; the authority is checked."""
    context = trusting(world)
    context.check_hostname = False
    return context


@case
def the_answer_is_the_insides(world):
    """250 carries the internal node's queue id, a refusal its words."""
    client = Client(world, "127.1.3.1")
    client.log_in()
    reply = client.ask("MAIL FROM:<boss@example.org>", "550 5.7.1")
    assert f"{ANN} may not send under this address" in reply, reply
    client.envelope()
    client.ask("DATA", "354")
    client.say(message("answer") + ".")
    identity = client.expect("250 2.0.0 queued as ").split()[-1]
    world.internal.wait(event="queued", process="queue", id=identity)
    world.gateway.wait(event="refused", stage="mail", code=550)


@case
def who_may_send_as_any_may_from_outside_too(world):
    client = Client(world, "127.1.3.2")
    client.log_in("app@example.org")
    client.ask("MAIL FROM:<boss@example.org>", "250")


@case
def no_password_in_clear(world):
    """Before TLS AUTH is not offered and not taken, and mail neither."""
    client = Client(world, "127.1.4.1", tls=False)
    assert "AUTH" not in client.offers and "STARTTLS" in client.offers
    client.ask("AUTH PLAIN " + plain(ANN, APP), "538 5.7.11")
    client.ask(f"MAIL FROM:<{ANN}>", "530 5.7.0")
    before = world.way.connections
    client.ask("AUTH LOGIN", "538")
    assert world.way.connections == before, "the inside was asked"


@case
def the_submission_port_is_for_users_only(world):
    """Without AUTH no mail, to our own domains neither; port 25 offers no AUTH."""
    client = Client(world, "127.1.5.1")
    client.ask("MAIL FROM:<a@far.example>", "530 5.7.0")
    assert "AUTH PLAIN LOGIN" in client.offers and "XSUBMIT" not in client.offers
    mx = Client(world, "127.1.5.1", "mx")
    assert "AUTH" not in mx.offers
    mx.ask("AUTH PLAIN " + plain(ANN, APP), "502")


@case
def an_ordinary_password_is_nothing_outside(world):
    client = Client(world, "127.1.6.1")
    client.log_in(password=ORDINARY, start="535 5.7.8")
    client.log_in()


@case
def login_in_its_steps(world):
    client = Client(world, "127.1.7.1")
    client.ask("AUTH LOGIN", "334")
    client.ask(base64.b64encode(ANN.encode()).decode(), "334")
    client.ask(base64.b64encode(APP.encode()).decode(), "235")
    client.ask("AUTH PLAIN " + plain(ANN, APP), "503")
    client.envelope()


@case
def three_wrong_passwords_end_the_session(world):
    """535, 535, 421 and the end; both journals have each, with address, account and instance."""
    client = Client(world, "127.1.8.1")
    client.log_in(password="guess", start="535 5.7.8")
    client.log_in(password="guess", start="535 5.7.8")
    client.log_in(password="guess", start="421 4.7.0")
    assert client.closed()
    for node, instance in ((world.gateway, "public"), (world.internal, "dmz")):
        node.wait(event="authentication-failed", peer="127.1.8.1", account=ANN, instance=instance)
        assert len(node.find(event="authentication-failed", peer="127.1.8.1")) == 3


@case
def auth_and_mail_in_one_piece(world):
    """What is pipelined behind AUTH is answered in order: a wrong password opens nothing."""
    rest = f"MAIL FROM:<{ANN}>\r\nRCPT TO:<bob@far.example>\r\n"
    client = Client(world, "127.1.9.1")
    client.raw(f"AUTH PLAIN {plain(ANN, 'guess')}\r\n{rest}".encode())
    for start in ("535", "530", "503"):
        client.expect(start)
    client.raw(f"AUTH PLAIN {plain(ANN, APP)}\r\n{rest}".encode())
    for start in ("235", "250", "250"):
        client.expect(start)


@case
def one_session_inside_for_each_outside(world):
    """Two messages with RSET between, on one connection inward."""
    before = world.way.connections
    client = Client(world, "127.1.10.1")
    client.log_in()
    client.envelope("dropped@far.example")
    client.ask("RSET", "250")
    for subject in ("first-of-two", "second-of-two"):
        client.envelope()
        client.ask("DATA", "354")
        client.say(message(subject) + ".")
        client.expect("250 2.0.0 queued as ")
    assert world.way.connections == before + 1
    for subject in ("first-of-two", "second-of-two"):
        envelope, _ = world.arrived(subject)
        assert b"dropped@" not in envelope


@case
def a_client_that_leaves_in_data_leaves_nothing(world):
    """The inside hears of a message when it is whole."""
    client = Client(world, "127.1.11.1")
    client.log_in()
    client.envelope()
    client.ask("DATA", "354")
    client.say(message("half"))
    client.sock.close()
    world.gateway.wait(event="disconnected", trace=trace_of(world, "127.1.11.1"))
    session = world.internal.wait(event="on-behalf", peer="127.1.11.1")["trace"]
    world.internal.wait(event="disconnected", trace=session)
    assert not world.internal.find(event="queued", trace=session) and not world.seen("half")


def trace_of(world, peer):
    return world.gateway.wait(event="connected", peer=peer)["trace"]


@case
def an_inside_that_dies_in_data_takes_nothing(world):
    """451 with words, nothing delivered; what follows is told to log in again."""
    client = Client(world, "127.1.12.1")
    client.log_in()
    client.envelope()
    client.ask("DATA", "354")
    world.way.cut_after = 30_000
    client.say(message("cut") + ("x" * 70 + "\r\n") * 1000 + ".")
    reply = client.expect("451 4.4.2")
    world.way.cut_after = None
    assert "internal mail server" in reply, reply
    assert client.ask(f"MAIL FROM:<{ANN}>", "421 4.4.2").count("log in again") == 1
    assert client.closed() and not world.seen("cut")


@case
def a_dead_inside_checks_no_password(world):
    """454 with words, and no guess is counted."""
    world.way.closed = True
    client = Client(world, "127.1.13.1")
    for _ in range(4):
        reply = client.log_in(start="454 4.7.0")
        assert "internal mail server does not answer" in reply, reply
    world.way.closed = False
    client.log_in()


@case
def a_dovecot_that_cannot_tell_is_no_wrong_password(world):
    client = Client(world, "127.1.14.1")
    client.log_in("down@example.org", start="454 4.7.0")
    client.log_in()


@case
def nothing_smuggles(world):
    """Every form of a false end is refused, and nothing of it arrives."""
    client = Client(world, "127.1.15.1")
    client.log_in()
    for number, form in enumerate(FORMS):
        client.envelope()
        client.ask("DATA", "354")
        inner = f"MAIL FROM:<{ANN}>\r\nRCPT TO:<x@far.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n"
        client.raw(message(f"outer-{number}").encode() + form + inner.encode())
        client.expect("5")
        # The rest was commands, if the true end came inside it.
        client.sock.close()
        client = Client(world, f"127.1.15.{number + 2}")
        client.log_in()
    client.envelope()
    client.ask("DATA", "354")
    client.say(message("after-the-smugglers") + ".")
    client.expect("250")
    world.arrived("after-the-smugglers")
    assert not world.seen("outer-") and not world.seen("smuggled")


@case
def size_is_kept_to(world):
    """SIZE by word and by octets (RFC 1870)."""
    client = Client(world, "127.1.16.1")
    client.log_in()
    client.ask(f"MAIL FROM:<{ANN}> SIZE=900000", "552 5.3.4")
    client.envelope()
    client.ask("DATA", "354")
    client.say(message("large") + ("x" * 70 + "\r\n") * 12000 + ".")
    client.expect("552 5.3.4")
    # Larger than what smtpd holds in its own memory.
    body = "".join(f"{n:070}\r\n" for n in range(9700))
    client.envelope()
    client.ask("DATA", "354")
    client.say(message("nearly-as-large") + body + ".")
    client.expect("250")
    assert body.encode() in world.arrived("nearly-as-large")[1]


@case
def parameters_go_inward(world):
    """8BITMIME, DSN and BDAT (RFC 6152, 3461, 3030): the world sees what the client said."""
    client = Client(world, "127.1.17.1")
    client.log_in()
    octets = message("parameters").encode() + "grüße\r\n".encode()
    client.ask(f"MAIL FROM:<{ANN}> BODY=8BITMIME SIZE={len(octets)} RET=HDRS ENVID=QQ314159", "250")
    client.ask("RCPT TO:<bob@far.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;robert@far.example", "250")
    client.raw(b"BDAT 20\r\n" + octets[:20])
    client.expect("250")
    client.raw(b"BDAT %d LAST\r\n" % (len(octets) - 20) + octets[20:])
    client.expect("250 2.0.0 queued as ")
    envelope, content = world.arrived("parameters")
    for word in (b"BODY=8BITMIME", b"RET=HDRS", b"ENVID=QQ314159", b"ORCPT=rfc822;robert@far.example"):
        assert word in envelope, envelope
    assert b"NOTIFY=" in envelope and "grüße".encode() in content


@case
def only_the_gateway_says_xsubmit(world):
    """At neither node a stranger can, with no certificate or with another authority's."""
    Client(world, "127.1.18.1").ask("XSUBMIT 192.0.2.1 x", "500")
    plain_client = Client(world, "127.1.18.1", "dmz", tls=False)
    plain_client.ask("XSUBMIT 192.0.2.1 x", "500")
    plain_client.ask("STARTTLS", "220")
    context = loose(world)
    plain_client.sock = context.wrap_socket(plain_client.sock)
    assert "XSUBMIT" not in plain_client.ask("EHLO gateway", "250")
    plain_client.ask("XSUBMIT 192.0.2.1 x", "500")
    plain_client.ask("AUTH PLAIN " + plain(ANN, APP), "502")
    context = loose(world)
    context.load_cert_chain(world.directory / "stranger.crt", world.directory / "stranger.key")
    other = Client(world, "127.1.18.1", "dmz", tls=False)
    other.ask("STARTTLS", "220")
    try:
        other.sock = context.wrap_socket(other.sock)
        other.ask("EHLO gateway", "250")
    except (OSError, EOFError):
        return
    raise AssertionError("a certificate of another authority was taken")


@case
def the_gateway_submits_for_nobody_without_a_login(world):
    """Its certificate alone lets it relay to our own domains, not outward; after XSUBMIT nothing without AUTH."""
    client = Client(world, "127.1.19.1", "dmz", tls=False)
    client.ask("STARTTLS", "220")
    context = loose(world)
    context.load_cert_chain(world.directory / "gateway.crt", world.directory / "gateway.key")
    client.sock = context.wrap_socket(client.sock)
    assert "XSUBMIT" in client.ask("EHLO gateway", "250")
    client.ask("MAIL FROM:<a@far.example>", "250")
    client.ask("RCPT TO:<bob@far.example>", "550 5.7.1")
    client.ask("RSET", "250")
    client.ask("XSUBMIT 192.0.2.1 client.example", "250")
    client.ask(f"MAIL FROM:<{ANN}>", "530")


def guess(world, sources, user=ANN):
    """One wrong password from each of `sources`, all at a time."""
    failures = []

    def one(source):
        try:
            Client(world, source).log_in(user, "guess", "535")
        except Exception as error:  # told by the caller
            failures.append(error)

    threads = [threading.Thread(target=one, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


@case
def an_address_that_guesses_is_shut_out_alone(world):
    """After six wrong ones 454, the right password too; the neighbour logs in."""
    guess(world, ["127.2.1.1"] * 6, "zoe@example.org")
    reply = Client(world, "127.2.1.1").log_in(start="454 4.7.0")
    assert "wrong passwords came from your address" in reply, reply
    Client(world, "127.2.1.2").log_in()


@case
def an_account_that_is_guessed_at_still_has_its_owner(world):
    """After twenty wrong ones from all over, the inside refuses strangers, in its words; where the owner was before she logs in."""
    owner = "eve@example.org"
    Client(world, "127.3.0.1").log_in(owner)
    guess(world, [f"127.3.{n}.1" for n in range(1, 21)], owner)
    reply = Client(world, "127.3.99.1").log_in(owner, start="454 4.7.0")
    assert "tried for this account" in reply, reply
    world.internal.wait(event="authentication-failed", peer="127.3.99.1", instance="dmz")
    Client(world, "127.3.0.2").log_in(owner)


def main():
    world = Nodes(*sys.argv[1:])
    failed = 0
    for check in CASES:
        title, began = check.__name__.replace("_", " "), time.monotonic()
        try:
            check(world)
            print(f"ok {title} ({time.monotonic() - began:.1f} s)", flush=True)
        except Exception:  # every failure of a case is a result
            failed += 1
            print(f"FAILED {title}", flush=True)
            traceback.print_exc(file=sys.stdout)
            for node in (world.gateway, world.internal):
                print("".join(node.lines[-12:]))
    world.stop()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
