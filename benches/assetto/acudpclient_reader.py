"""Python's acudpclient 1.1.0, measured as it is: its decoder over a stream in memory, and its client on a socket.

    acudpclient_reader.py version
    acudpclient_reader.py decode FILE ROUNDS     nanoseconds of each round over all datagrams, without and with JSON
    acudpclient_reader.py allocations FILE       calls of the allocator; needs count_allocations.c preloaded
    acudpclient_reader.py receive [--json]       a client on a free port until its stdin ends; JSON lines to stdout

Owns the loop around the package. Relies on a FILE of datagrams, each behind its length in two bytes. In memory the
datagrams stand one behind the other in one io.BytesIO, because the package reads a stream: so it pays for no object per
datagram, and meets no end of one. Never changes the package, but for the way around the defects that would end a
program: `packets` is imported, subscribers are not called, nothing pending (TypeError) is not an error, and every other
exception is counted. The name of an event is looked up once per type: `packet_name()` searches for it each time.
"""
import ctypes
import importlib.metadata
import io
import json
import platform
import select
import socket
import struct
import sys
import time

import acudpclient.packets  # noqa: F401  (without it no message is known)
from acudpclient.client import ACUDPClient
from acudpclient.packet_base import ACUDPPacket

NAMES = {type_: class_().packet_name() for type_, class_ in ACUDPPacket.packets().items()}


def text(event):
    """One event as JSON, with its name."""
    return json.dumps({"event": NAMES[event._type], **vars(event)}, default=vars)


def load(path):
    """The datagrams one behind the other, and how many there are."""
    with open(path, "rb") as file:
        saved = file.read()
    datagrams, at = [], 0
    while at < len(saved):
        (length,) = struct.unpack_from("<H", saved, at)
        datagrams.append(saved[at + 2:at + 2 + length])
        at += 2 + length
    return b"".join(datagrams), len(datagrams)


def events(stream, count):
    file = io.BytesIO(stream)
    for _ in range(count):
        ACUDPPacket.factory(file)
    return file


def texts(stream, count):
    file = io.BytesIO(stream)
    for _ in range(count):
        text(ACUDPPacket.factory(file))
    return file


def decode(path, rounds):
    stream, count = load(path)
    took = {"datagrams": count}
    for name, work in (("events_ns", events), ("json_ns", texts)):
        took[name] = []
        for _ in range(rounds):
            begin = time.perf_counter_ns()
            file = work(stream, count)
            took[name].append(time.perf_counter_ns() - begin)
            assert file.read() == b"", "not all of the stream was read"
    print(json.dumps(took))


def allocations(path):
    stream, count = load(path)
    calls = ctypes.CDLL(None).count_allocations
    calls.restype = ctypes.c_uint64
    made = {"datagrams": count}
    for name, work in (("events", events), ("json", texts)):
        work(stream, count)  # what is made once is made here
        before = calls()
        work(stream, count)
        made[name] = calls() - before
    print(json.dumps(made))


def receive(is_json):
    client = ACUDPClient(port=0)
    client.listen()
    buffer = client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    print(f"ready {client.sock.getsockname()[1]} {buffer}", file=sys.stderr, flush=True)
    told = {"events": 0, "errors": 0}
    out = sys.stdout
    while True:
        ready, _, _ = select.select([client.sock, sys.stdin], [], [])
        while client.sock in ready:
            try:
                event = client.get_next_event(call_subscribers=False)
            except TypeError:
                break  # nothing is pending
            except Exception:
                told["errors"] += 1
                continue
            told["events"] += 1
            if is_json:
                out.write(text(event))
                out.write("\n")
        out.flush()
        if client.sock not in ready:
            break  # stdin has ended
    print(json.dumps(told), file=sys.stderr, flush=True)


def main():
    what, arguments = sys.argv[1], sys.argv[2:]
    if what == "version":
        print(importlib.metadata.version("acudpclient"), platform.python_version())
    elif what == "decode":
        decode(arguments[0], int(arguments[1]))
    elif what == "allocations":
        allocations(arguments[0])
    elif what == "receive":
        receive("--json" in arguments)
    else:
        sys.exit(__doc__)


main()
