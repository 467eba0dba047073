#!/usr/bin/env python3
"""An RCSP client as plain as the vendor's example: it lists the devices and asks for the first one's information.

    rcsp_client_plain.py HOST PORT [DEVICE]

Written from the protocol page alone; it shares nothing with the program. One command after the other, five seconds for
everything, events are passed over, and nothing is checked that the page does not promise: what is missing, null or empty
where it should not be ends the program with a traceback. With DEVICE it asks for that one too and prints the refusal.
"""
import json
import socket
import struct
import sys

HEADER = struct.Struct("<BBBBI")
MARKER = 0xDC
COMMAND, OK, ERROR, EVENT = 1, 2, 3, 4
TIMEOUT_S = 5

events = 0
track_id = 0


def read_exactly(connection, size):
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionError("the server has closed the connection")
        data += more
    return data


def read_message(connection):
    marker, _version, _size, kind, length = HEADER.unpack(read_exactly(connection, HEADER.size))
    if marker != MARKER:
        raise ValueError(f"marker {marker:#x}")
    if kind not in (OK, ERROR, EVENT):
        raise ValueError(f"type {kind}")
    return kind, json.loads(read_exactly(connection, length).decode("utf-8"))


def command(connection, name, arguments=None):
    """Returns (kind, body) of the one answer."""
    global events, track_id
    track_id += 1
    message = {"Command": name, "TrackId": str(track_id), "Version": 1}
    if arguments is not None:
        message["Arguments"] = arguments
    body = json.dumps(message).encode("utf-8")
    connection.sendall(HEADER.pack(MARKER, 1, HEADER.size, COMMAND, len(body)) + body)
    while True:
        kind, answer = read_message(connection)
        if kind != EVENT:
            return kind, answer
        events += 1


def show_error(answer):
    error = answer.get("Error", {})
    print("error " + json.dumps({"Code": error.get("Code"), "Message": error["Message"]}), flush=True)


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    with socket.create_connection((host, port), timeout=TIMEOUT_S) as connection:
        kind, answer = command(connection, "ListDevices")
        if kind == ERROR:
            show_error(answer)
            return 1
        devices = answer.get("Response", {}).get("Devices") or []
        print("devices " + json.dumps(devices), flush=True)
        if devices:
            kind, answer = command(connection, "GetDeviceInfo", {"DeviceId": devices[0]["DeviceId"]})
            if kind == ERROR:
                show_error(answer)
                return 1
            print("info " + json.dumps(answer.get("Response", {})), flush=True)
        for device in sys.argv[3:]:
            kind, answer = command(connection, "GetDeviceInfo", {"DeviceId": device})
            assert kind == ERROR, answer
            show_error(answer)
    print(f"events {events}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
