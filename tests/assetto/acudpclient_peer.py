"""Python's acudpclient 1.1.0 as a plugin: prints every event as JSON until the server says version 77.

    acudpclient_peer.py PORT SERVER_PORT

Owns nothing but the way around the package's defects that would end it: `packets` is imported, subscribers are not called,
an exception because nothing is pending is not one. Asks as its users do: positions and the session after each new session,
one session that is not there, and each car once loaded. Never corrects an event. Prints `ready` once it listens.
"""
import json
import select
import sys

import acudpclient.packets  # noqa: F401  (without it no message is known)
from acudpclient.client import ACUDPClient
from acudpclient.exceptions import NotEnoughBytes

LAST_VERSION = 77


def fields(value):
    """The attributes of an event under their own names."""
    if hasattr(value, "__dict__"):
        return {name: fields(inner) for name, inner in vars(value).items()}
    if isinstance(value, (list, tuple)):
        return [fields(inner) for inner in value]
    return value


def main():
    client = ACUDPClient(port=int(sys.argv[1]), host="127.0.0.1", remote_port=int(sys.argv[2]))
    client.listen()
    print("ready", flush=True)
    while True:
        if not select.select([client.sock], [], [], 60)[0]:
            sys.exit("nothing came for a minute")
        while True:
            try:
                event = client.get_next_event(call_subscribers=False)
            except (NotEnoughBytes, TypeError):
                break  # nothing is pending
            name = event.packet_name()
            print(json.dumps({"event": name, **fields(event)}), flush=True)
            if name == "ACSP_NEW_SESSION":
                client.enable_realtime_report(20)
                client.get_session_info()
                client.get_session_info(99)
            elif name == "ACSP_CLIENT_LOADED":
                client.get_car_info(event.car_id)
            elif name == "ACSP_VERSION" and event.proto_version == LAST_VERSION:
                return


main()
