#!/usr/bin/env python3
"""An operator's client as the vendor's documentation shows one: it waits for feedback, and answers each with one message.

    player_plain.py HOST:PORT VEHICLE

It returns the acks of the first vehicle in the feedback, and always names the same `active_vehicle`. No timeout; after an
error it connects again at once. Written from the protocol page; see wire.py for what it prints.
"""
import sys

from wire import Seen, connect, read_message, write_message


def serve(connection, vehicle, seen):
    while True:
        feedback = read_message(connection)["vehicle_feedback"]
        seen.count("messages")
        first = next(iter(feedback), None)
        if first is None:
            continue
        entry = feedback[first]
        seen["entry"], seen["vehicles"] = entry, list(feedback)
        # The newest pair may be none yet: the vehicle's client has not answered.
        if entry["ack_time"] != 0:
            seen.note_ack(entry["ack_time"])
        write_message(connection, {
            "active_vehicle": vehicle,
            "client_user_data": {
                first: {
                    "user_data": {"lever": 0.25, "counter": seen["sent"], "from": "player_plain"},
                    "ack_time_returned": entry["ack_time"],
                    "ack_time_mac_returned": entry["ack_time_mac"],
                },
            },
        })
        seen.count("sent")


def main():
    seen = Seen()
    address, vehicle = sys.argv[1:]
    while True:
        try:
            with connect(address) as connection:
                seen.count("connections")
                serve(connection, vehicle, seen)
        except (OSError, ValueError, KeyError) as error:
            seen.error(error)


main()
