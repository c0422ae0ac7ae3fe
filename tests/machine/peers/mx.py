"""The receiving MX of the outside network (aiosmtpd): TLS or nothing, and it records what it got.

    mx.py DIRECTORY ADDRESS CERTIFICATE KEY

Each message becomes DIRECTORY/N.eml, the octets as received, and DIRECTORY/N.json, the envelope and
the TLS state; both are complete before the 250 goes out.
"""

import itertools
import json
import os
import pathlib
import signal
import ssl
import sys
import threading

from aiosmtpd.controller import Controller


class Recorder:
    """Writes every message down."""

    def __init__(self, directory):
        self.directory, self.numbers = directory, itertools.count(1)

    async def handle_DATA(self, server, session, envelope):
        name = f"mx-{next(self.numbers)}"
        facts = {
            "mail-from": envelope.mail_from, "recipients": envelope.rcpt_tos,
            "peer": session.peer[0], "helo": session.host_name,
            "tls": tls_of(server),
        }
        (self.directory / f"{name}.eml").write_bytes(envelope.original_content)
        staged = self.directory / f"{name}.json.new"
        staged.write_text(json.dumps(facts))
        os.rename(staged, self.directory / f"{name}.json")
        return f"250 2.0.0 queued as {name}"


def tls_of(server):
    """Protocol version of the session's TLS, or None in the clear."""
    layer = server.transport.get_extra_info("ssl_object")
    return layer and layer.version()


def main():
    directory, address, certificate, key = sys.argv[1:]
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    controller = Controller(
        Recorder(pathlib.Path(directory)), hostname=address, port=25, tls_context=context,
        require_starttls=True, enable_SMTPUTF8=True, ident="mx.destination.example ESMTP",
        server_hostname="mx.destination.example", data_size_limit=64 << 20)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    controller.start()
    print("ready", flush=True)
    stop.wait()
    controller.stop()


main()
