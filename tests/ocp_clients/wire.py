"""What the four clients share: OCP's framing, and the one line that each of them prints in the end.

Owns the bytes of a frame (a length of four bytes, little-endian, and so many bytes of JSON) and what a client has seen.
Relies on the standard library alone. Never uses the code under test.
"""
import collections
import json
import signal
import socket
import struct
import sys
import time

BODY_LIMIT = 16 * 1024  # the vendor's: a longer length means that this is not OCP
KEPT = 2048             # pairs and latencies: twenty seconds at the fastest pace


class Closed(ConnectionError):
    """The server has ended the connection, or it is none of OCP."""


def connect(address, timeout_s=None):
    """A connection to HOST:PORT. Without a timeout reads wait for ever."""
    host, port = address.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), timeout=5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(timeout_s)
    return connection


def read_exactly(connection, count):
    parts = b""
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            raise Closed("the server closed")
        parts += part
    return parts


def read_message(connection):
    """One JSON object."""
    length = struct.unpack("<I", read_exactly(connection, 4))[0]
    if length > BODY_LIMIT:
        raise Closed(f"a length of {length}: this is not OCP")
    return json.loads(read_exactly(connection, length))


def write_message(connection, message):
    body = json.dumps(message, separators=(",", ":")).encode()
    connection.sendall(struct.pack("<I", len(body)) + body)


class Seen:
    """What a client has seen: printed as one JSON line at SIGTERM, and for a look in between at SIGUSR1."""

    def __init__(self):
        self.values = {"connections": 0, "messages": 0, "sent": 0, "errors": []}
        # (ack_time, when): received by a vehicle's client, returned by an operator's. CLOCK_MONOTONIC in ns, which all
        # programs of a machine share: from both lists what the loop takes can be told without the simulator.
        self.acks = collections.deque(maxlen=KEPT)
        self.latencies = collections.deque(maxlen=KEPT)
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGUSR1, self._show)

    def __setitem__(self, key, value):
        self.values[key] = value

    def __getitem__(self, key):
        return self.values[key]

    def count(self, key):
        self.values[key] += 1

    def error(self, error):
        """The first few; a server that stays away would fill the memory."""
        if len(self.values["errors"]) < 20:
            self.values["errors"].append(f"{type(error).__name__}: {error}")

    def note_ack(self, ack):
        self.acks.append((ack, time.monotonic_ns()))

    def _line(self):
        return json.dumps({**self.values, "acks": list(self.acks), "latencies": list(self.latencies)})

    def _show(self, *_):
        print(self._line(), flush=True)

    def _end(self, *_):
        self._show()
        sys.exit(0)
