"""What each rule is for, as traffic: a capture that must set it off, and a neighbour that must not.

Addresses are those of docs/site.example.toml.
"""

STRANGER, GATEWAY, GATEWAY_DMZ = "198.51.100.66", "203.0.113.10", "10.200.9.10"
MAIL_SERVER, APP, STAFF, DMZ_HOST, SERVER = "10.200.1.25", "10.200.1.12", "10.200.1.100", "10.200.9.50", "198.51.100.77"

MESSAGE = (b"From: a@example.com\r\nTo: b@example.org\r\nSubject: VRFY and AUTH \r\n\r\nVRFY is a verb, and so is\r\n"
           b"AUTH .\r\n..\r\n550 5.1.1 is a reply. MAIL FROM: is not one.\r\n.\r\n")


def to_gateway(capture, *lines, port=25, client=STRANGER):
    session = capture.session(client, GATEWAY, port).greet()
    session.say(*lines)
    return session


def transaction(session, data):
    session.say(b"MAIL FROM:<a@example.com>\r\n").hear(b"250 2.1.0 ok\r\n")
    session.say(b"RCPT TO:<b@example.org>\r\n").hear(b"250 2.1.5 ok\r\n")
    session.say(b"DATA\r\n").hear(b"354 go on\r\n").say(data).hear(b"250 2.0.0 queued as 1\r\n")
    session.say(b"QUIT\r\n").hear(b"221 2.0.0 bye\r\n").close()


def with_data(data):
    return lambda capture: transaction(capture.session(STRANGER, GATEWAY, 25).greet(), data)


def refused(times, reply, verb):
    def play(capture):
        session = capture.session(STRANGER, GATEWAY, 25).greet()
        for _ in range(times):
            session.say(verb).hear(reply)
        session.say(b"QUIT\r\n").hear(b"221 2.0.0 bye\r\n").close()
    return play


def first_words(data, port=25):
    def play(capture):
        capture.session(STRANGER, GATEWAY, port).hear(b"220 mx1.example.org ESMTP\r\n").say(data).close()
    return play


def knocks(client, server, port, times=1):
    def play(capture):
        for number in range(times):
            capture.knock(client, server, port + number if times > 1 and port > 1024 else port)
    return play


def starttls(capture):
    """A session that changes to TLS; the records are of TLS's shape, their contents noise that looks like faults."""
    session = capture.session(STRANGER, GATEWAY, 25).greet().say(b"STARTTLS\r\n").hear(b"220 2.0.0 ready\r\n")
    hello = b"\x01\x00\x00\x31\x03\x03" + bytes(range(32)) + b"\x00\x00\x04\x13\x01\x13\x02\x01\x00\x00\x04\x00\x17\x00\x00"
    session.say(b"\x16\x03\x01" + len(hello).to_bytes(2, "big") + hello)
    answer = b"\x02\x00\x00\x26\x03\x03" + bytes(range(32)) + b"\x00\x13\x01\x00"
    session.hear(b"\x16\x03\x03" + len(answer).to_bytes(2, "big") + answer)
    noise = b"x\n.\nMAIL FROM:x\r.\rMAIL FROM:\nVRFY AUTH " * 4
    for _ in range(5):
        session.say(b"\x17\x03\x03" + len(noise).to_bytes(2, "big") + noise)
        session.hear(b"\x17\x03\x03" + len(noise).to_bytes(2, "big") + noise)
    session.close()


def ordinary(capture):
    """A day's mail, each flow of the matrix among it."""
    transaction(capture.session(STRANGER, GATEWAY, 25).greet(), MESSAGE)
    starttls(capture)
    transaction(capture.session(GATEWAY_DMZ, MAIL_SERVER, 25).greet(), MESSAGE)
    transaction(capture.session(MAIL_SERVER, GATEWAY_DMZ, 25).greet(), MESSAGE)
    transaction(capture.session(APP, GATEWAY_DMZ, 25).greet(), MESSAGE)
    transaction(capture.session(GATEWAY, SERVER, 25).greet(), MESSAGE)
    to_gateway(capture, b"QUIT\r\n", port=587).close()
    for port in (53, 80, 443):
        capture.session(GATEWAY, SERVER, port).say(b"a question").hear(b"an answer").close()
    capture.session(STRANGER, GATEWAY, 443).say(b"a question").hear(b"an answer").close()


SPLICE = b"MAIL FROM:<x@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nhello\r\n.\r\n"
UNKNOWN, GUESS = b"550 5.1.1 no such user here\r\n", b"535 5.7.8 authentication failed\r\n"
RCPT, AUTH = b"RCPT TO:<who@example.org>\r\n", b"dXNlcgBwYXNz\r\n"

# (sid, what sets it off, the capture, its neighbour, the neighbour's capture)
SCENARIOS = [
    (9000001, "VRFY", lambda c: to_gateway(c, b"VRFY root\r\n").close(), "VERB", lambda c: to_gateway(c, b"VERB root\r\n").close()),
    (9000001, "EXPN", lambda c: to_gateway(c, b"expn staff\r\n").close(), "NOOP", lambda c: to_gateway(c, b"NOOP expn\r\n").close()),
    (9000002, "ten unknown recipients", refused(10, UNKNOWN, RCPT), "nine", refused(9, UNKNOWN, RCPT)),
    (9000003, "five failed logins", refused(5, GUESS, AUTH), "four", refused(4, GUESS, AUTH)),
    (9000004, "AUTH in the clear", lambda c: to_gateway(c, b"AUTH PLAIN AHUAcA==\r\n", port=587).close(),
     "MAIL with AUTH=", lambda c: to_gateway(c, b"MAIL FROM:<a@example.com> AUTH=<>\r\n", port=587).close()),
    (9000005, "30 calls of 587", knocks(STRANGER, GATEWAY, 587, 30), "29", knocks(STRANGER, GATEWAY, 587, 29)),
    (9000006, "100 calls of 25", knocks(STRANGER, GATEWAY, 25, 100), "99", knocks(STRANGER, GATEWAY, 25, 99)),
    (9000020, "LF.LF", with_data(b"a\n.\n" + SPLICE), "CRLF.CRLF", with_data(b"a\r\n.\r\n" + SPLICE)),
    (9000020, "CRLF.LF", with_data(b"a\r\n.\n" + SPLICE), "the word alone", with_data(b"a\r\n. MAIL FROM:x\r\n.\r\n")),
    (9000021, "LF.CRLF", with_data(b"a\n.\r\n" + SPLICE), "CRLF.CRLF", with_data(b"a\r\n.\r\n" + SPLICE)),
    (9000022, "CR.CR", with_data(b"a\r.\r" + SPLICE), "CRLF.CRLF", with_data(b"a\r\n.\r\n" + SPLICE)),
    (9000023, "bare LF", with_data(b"one\ntwo\r\n.\r\n"), "CRLF", with_data(b"one\r\ntwo\r\n.\r\n")),
    (9000024, "STARTTLS with a stowaway", lambda c: to_gateway(c, b"STARTTLS\r\nRSET\r\n").close(), "STARTTLS alone", starttls),
    (9000041, "HTTP", first_words(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "EHLO", first_words(b"EHLO x\r\n")),
    (9000041, "TLS from the first octet", first_words(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", 587), "after STARTTLS", starttls),
    (9000041, "SSH", first_words(b"SSH-2.0-x\r\n"), "HELO", first_words(b"helo x\r\n")),
    (9000060, "DMZ host to the gateway's 22", knocks(DMZ_HOST, GATEWAY_DMZ, 22), "the app server to its 25", knocks(APP, GATEWAY_DMZ, 25)),
    (9000060, "gateway to the mail server's 993", knocks(GATEWAY_DMZ, MAIL_SERVER, 993), "to its 25", knocks(GATEWAY_DMZ, MAIL_SERVER, 25)),
    (9000061, "tcp/25 to a staff machine", knocks(GATEWAY_DMZ, STAFF, 25), "to the mail server", knocks(GATEWAY_DMZ, MAIL_SERVER, 25)),
    (9000062, "gateway to a shell's port outside", knocks(GATEWAY, SERVER, 4444), "to 443", knocks(GATEWAY, SERVER, 443)),
    (9000063, "DMZ host to the Internet's 443", knocks(DMZ_HOST, SERVER, 443), "gateway", knocks(GATEWAY, SERVER, 443)),
    (9000064, "UDP from the DMZ", lambda c: c.udp(DMZ_HOST, SERVER, 53), "UDP from outside", lambda c: c.udp(STRANGER, GATEWAY, 53)),
    (9000065, "ping from the DMZ", lambda c: c.ping(DMZ_HOST, MAIL_SERVER), "ping from outside", lambda c: c.ping(STRANGER, GATEWAY)),
    (9000066, "20 closed ports", knocks(STRANGER, GATEWAY, 2000, 20), "19", knocks(STRANGER, GATEWAY, 2000, 19)),
]
