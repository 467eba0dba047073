#!/usr/bin/env python3
"""An operator's client as the vendor's newer example is: a reader and, beside it, a writer every 10 ms.

    player_paced.py HOST:PORT

It drives the first vehicle that is not only watched (`is_monitor`, absent in older versions), returns that one's acks, and
switches the gamepad off, as its command is in the user data. A read that takes 2 s ends the connection; the next one is
made 100 ms later. Written from the protocol page; see wire.py for what it prints.
"""
import sys
import threading
import time

from wire import Seen, connect, read_message, write_message

PERIOD_S = 0.01
READ_TIMEOUT_S = 2
RECONNECT_S = 0.1


class Newest:
    """What the newest feedback of one connection says: the vehicle to drive and its pair."""

    def __init__(self):
        self.driven = None  # (name, ack_time, ack_time_mac)
        self.is_open = True


def message(newest, seen):
    if newest.driven is None:
        return {"active_vehicle": None, "client_user_data": {}}
    name, ack_time, ack_time_mac = newest.driven
    if ack_time != 0:
        seen.note_ack(ack_time)
    return {
        "active_vehicle": name,
        "client_user_data": {
            name: {
                "user_data": {"lever": 0.75, "counter": seen["sent"], "from": "player_paced"},
                "ocp_disable_gamepad": True,
                "ack_time_returned": ack_time,
                "ack_time_mac_returned": ack_time_mac,
            },
        },
    }


def write(connection, newest, seen):
    while newest.is_open:
        try:
            write_message(connection, message(newest, seen))
        except OSError:
            return  # the reader sees it too
        seen.count("sent")
        time.sleep(PERIOD_S)


def read(connection, newest, seen):
    while True:
        feedback = read_message(connection)["vehicle_feedback"]
        seen.count("messages")
        driven = next((name for name, entry in feedback.items() if not entry.get("is_monitor", False)), None)
        if driven is None:
            newest.driven = None
            continue
        entry = feedback[driven]
        seen["entry"], seen["vehicles"] = entry, list(feedback)
        newest.driven = (driven, entry["ack_time"], entry["ack_time_mac"])


def main():
    seen = Seen()
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
