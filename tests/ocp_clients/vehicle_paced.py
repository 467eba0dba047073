#!/usr/bin/env python3
"""A vehicle's client as the vendor's newer examples are: a reader and, beside it, a writer every 10 ms.

    vehicle_paced.py HOST:PORT

The writer begins at once and sends the newest pair, 0 and 0 before the first message of a connection, and never any
vehicle data (`null`). A read that takes 2 s ends the connection; the next one is made 100 ms later. Written from the
protocol page; see wire.py for what it prints.
"""
import sys
import threading
import time

from wire import Seen, connect, read_message, write_message

PERIOD_S = 0.01
READ_TIMEOUT_S = 2
RECONNECT_S = 0.1


class Newest:
    """The pair of the newest message of one connection."""

    def __init__(self):
        self.pair = (0, 0)
        self.is_open = True


def write(connection, newest, seen):
    while newest.is_open:
        ack_time, ack_time_mac = newest.pair
        try:
            write_message(connection, {"ack_time": ack_time, "ack_time_mac": ack_time_mac, "vehicle_user_data": None})
        except OSError:
            return  # the reader sees it too
        seen.count("sent")
        if ack_time == 0:
            seen.count("sent_without_pair")
        time.sleep(PERIOD_S)


def read(connection, newest, seen):
    while True:
        message = read_message(connection)
        seen.count("messages")
        telemetry = message["telemetry"]
        seen.latencies.append(telemetry["latency"])
        seen["fault"], seen["fault_reason"] = telemetry["fault"], telemetry["fault_reason"]
        # Absent in older versions; then no camera is missing.
        seen["missing_cameras"] = telemetry.get("missing_cameras") or []
        seen["has_missing_cameras"] = "missing_cameras" in telemetry
        # Absent and null are the same: nobody drives with a gamepad.
        seen["controller"] = message.get("controller")
        seen["client_user_data"] = message.get("client_user_data")
        seen.note_ack(message["ack_time"])
        newest.pair = (message["ack_time"], message["ack_time_mac"])


def main():
    seen = Seen()
    seen["sent_without_pair"] = 0
    while True:
        try:
            with connect(sys.argv[1], READ_TIMEOUT_S) as connection:
                seen.count("connections")
                newest = Newest()
                writer = threading.Thread(target=write, args=(connection, newest, seen), daemon=True)
                writer.start()
                try:
                    read(connection, newest, seen)
                finally:
                    newest.is_open = False
                    writer.join(timeout=1)
        except (OSError, ValueError, KeyError) as error:
            seen.error(error)
        time.sleep(RECONNECT_S)


main()
