"""Captures made packet by packet: whole TCP sessions with their handshakes, written as pcap files."""

import pathlib
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "firewall"))
from packets import ICMP, TCP, UDP, address, icmp, pseudo_header, udp, with_checksum  # noqa: E402

SYN, ACK, PSH, FIN = 0x02, 0x10, 0x08, 0x01


class Capture:
    """Packets in the order they were seen, a millisecond apart."""

    def __init__(self):
        self.packets = []
        self.port = 40000

    def add(self, source, destination, protocol, payload):
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), len(self.packets) + 1, 0x4000, 64, protocol, 0)
        header += source.packed + destination.packed
        total = sum(struct.unpack("!10H", header))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        header = header[:10] + struct.pack("!H", ~total & 0xFFFF) + header[12:]
        self.packets.append(bytes(12) + b"\x08\x00" + header + payload)

    def session(self, client, server, port):
        self.port += 1
        return Session(self, address(client), address(server), self.port, port)

    def knock(self, client, server, port):
        """A SYN that nobody answers."""
        self.port += 1
        c, s = address(client), address(server)
        self.add(c, s, TCP, segment(c, s, self.port, port, 1000, 0, SYN))

    def udp(self, client, server, port):
        c, s = address(client), address(server)
        self.add(c, s, UDP, udp(c, s, 40000, port))

    def ping(self, client, server):
        c, s = address(client), address(server)
        self.add(c, s, ICMP, icmp(c, s, 8))

    def write(self, path):
        with open(path, "wb") as file:
            file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
            for number, raw in enumerate(self.packets):
                seconds, millis = divmod(number, 1000)
                file.write(struct.pack("<IIII", 1_700_000_000 + seconds, millis * 1000, len(raw), len(raw)) + raw)


def segment(source, destination, sport, dport, sequence, acknowledged, flags, data=b""):
    header = struct.pack("!HHIIBBHHH", sport, dport, sequence & 0xFFFFFFFF, acknowledged & 0xFFFFFFFF, 5 << 4, flags,
                         64240, 0, 0)
    return with_checksum(source, destination, TCP, header + data, 16)


class Session:
    """One TCP connection; `say` is the client's turn, `hear` the server's."""

    def __init__(self, capture, client, server, sport, dport):
        self.capture, self.client, self.server, self.sport, self.dport = capture, client, server, sport, dport
        self.sent, self.heard = 1001, 5001
        self._from_client(SYN, b"", 1000, 0)
        self._from_server(SYN | ACK, b"", 5000)
        self._from_client(ACK)

    def _from_client(self, flags, data=b"", sequence=None, acknowledged=None):
        self.capture.add(self.client, self.server, TCP, segment(
            self.client, self.server, self.sport, self.dport, self.sent if sequence is None else sequence,
            self.heard if acknowledged is None else acknowledged, flags, data))

    def _from_server(self, flags, data=b"", sequence=None):
        self.capture.add(self.server, self.client, TCP, segment(
            self.server, self.client, self.dport, self.sport, self.heard if sequence is None else sequence, self.sent, flags, data))

    def say(self, *parts):
        for data in parts:
            self._from_client(PSH | ACK, data)
            self.sent += len(data)
            self._from_server(ACK)
        return self

    def hear(self, *parts):
        for data in parts:
            self._from_server(PSH | ACK, data)
            self.heard += len(data)
            self._from_client(ACK)
        return self

    def greet(self):
        self.hear(b"220 mx1.example.org ESMTP\r\n").say(b"EHLO mail.example.com\r\n")
        return self.hear(b"250-mx1.example.org\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-8BITMIME\r\n250 STARTTLS\r\n")

    def close(self):
        self._from_client(FIN | ACK)
        self.sent += 1
        self._from_server(FIN | ACK)
        self.heard += 1
        self._from_client(ACK)
