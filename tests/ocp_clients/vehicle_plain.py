#!/usr/bin/env python3
"""A vehicle's client as the vendor's documentation shows one: it waits for a length, then for the body, and answers.

    vehicle_plain.py HOST:PORT

One answer after each message, with the pair of that message; no timeout; after an error it connects again at once.
Sends a little user data, and a position. Written from the protocol page; see wire.py for what it prints.
"""
import sys

from wire import Seen, connect, read_message, write_message


def serve(connection, seen):
    while True:
        message = read_message(connection)
        seen.count("messages")
        telemetry = message["telemetry"]
        seen.latencies.append(telemetry["latency"])
        seen["fault"], seen["fault_reason"] = telemetry["fault"], telemetry["fault_reason"]
        seen["has_missing_cameras"] = "missing_cameras" in telemetry
        seen["controller"] = message.get("controller")
        seen["client_user_data"] = message.get("client_user_data")
        seen.note_ack(message["ack_time"])
        write_message(connection, {
            "ack_time": message["ack_time"],
            "ack_time_mac": message["ack_time_mac"],
            "vehicle_user_data": {
                "pos": {"lat": 57.7, "lon": 11.9},
                "user_data": {"speed_mps": 1.5, "battery": 0.8, "drive_mode": "manual", "answers": seen["sent"]},
            },
        })
        seen.count("sent")


def main():
    seen = Seen()
    while True:
        try:
            with connect(sys.argv[1]) as connection:
                seen.count("connections")
                serve(connection, seen)
        except (OSError, ValueError, KeyError) as error:
            seen.error(error)


main()
