"""The management plane of a gateway that drives on vcan and on real controllers: what it tells, what it can stop, and that
eight bad clients change nothing for the actuators.

Owns a client of its own, written from the protocol page alone. Relies on Drive. Judges order, never time: periods are
printed.
"""
import contextlib
import json
import re
import select
import socket
import struct
import subprocess
import time

from lib import Failure, percentiles, test, wait_for
from lib.drive import Drive, look_for

HEADER = struct.Struct("<BBBBI")
COMMAND, OK, ERROR, EVENT = 1, 2, 3, 4


def expect(condition, why):
    if not condition:
        raise Failure(why)


def message(command, track_id, arguments=None):
    record = {"Command": command, "TrackId": track_id, "Version": 1}
    if arguments is not None:
        record["Arguments"] = arguments
    body = json.dumps(record).encode()
    return HEADER.pack(0xDC, 1, 8, COMMAND, len(body)) + body


class Client:
    """One connection: answers in order, events kept aside."""

    def __init__(self, port, host="127.0.0.1", source=None):
        self.socket = socket.create_connection((host, port), timeout=30, source_address=source)
        self.events = []
        self.sent = 0

    def _exactly(self, size):
        data = b""
        while len(data) < size:
            chunk = self.socket.recv(size - len(data))
            if not chunk:
                raise Failure("RCSP: the server closed the connection")
            data += chunk
        return data

    def read(self):
        marker, version, size, kind, length = HEADER.unpack(self._exactly(HEADER.size))
        expect((marker, version, size) == (0xDC, 1, 8) and length > 0, f"header {marker, version, size, kind, length}")
        return kind, json.loads(self._exactly(length))

    def reply(self, track_id):
        while True:
            kind, body = self.read()
            if kind != EVENT:
                expect(body["TrackId"] == track_id, f"answer to {body['TrackId']}, not to {track_id}")
                return kind, body
            self.events.append(body)

    def call(self, command, arguments=None):
        self.sent += 1
        track_id = f"t{self.sent}"
        self.socket.sendall(message(command, track_id, arguments))
        return self.reply(track_id)

    def ok(self, command, arguments=None):
        kind, body = self.call(command, arguments)
        expect(kind == OK, f"{command}: {body}")
        return body.get("Response", {})

    def error(self, command, arguments=None):
        kind, body = self.call(command, arguments)
        expect(kind == ERROR, f"{command} is no error: {body}")
        return body["Error"]["Code"]


def asked_at(drive):
    """The port of the drive's gateway."""
    return int(drive.gateway.wait_line(r"RCSP: `ocpcan status` can ask at 127\.0\.0\.1:(\d+)", 20)[1])


def status_command(bench, port, *options):
    """`ocpcan status`: exit code and text."""
    done = subprocess.run([bench.ocpcan_program(), "status", "--port", str(port), *options], capture_output=True,
                          text=True, timeout=60, check=False)
    return done.returncode, done.stdout


@test(mode="default", deadline_s=240)
def eight_clients_with_100_commands_each_and_an_unchanged_period(bench):
    """Issue 5, point 2: one client never reads, one sends a byte a second, all have asked 100 things at once."""
    drive = Drive(bench, bench.vcan())
    port = asked_at(drive)
    drive.drive_off()

    def periods(mark):
        times = [command.frame.time_ns for command in drive.commands(mark)]
        return percentiles([(two - one) / 1e6 for one, two in zip(times, times[1:])])

    def memory_kib():
        with open(f"/proc/{drive.gateway.pid}/status", encoding="ascii") as told:
            return int(re.search(r"VmRSS:\s+(\d+) kB", told.read())[1])
    mark = drive.bus.mark()
    time.sleep(5)
    quiet = periods(mark)
    before_kib = memory_kib()
    commands = ["ListDevices", "GwGetStatus", "GwGetConfig", "GwGetEvents", "GwGetCounters"]
    pipeline = [(commands[number % 5], f"p{number}") for number in range(100)]
    burst = b"".join(message(command, track_id) for command, track_id in pipeline)
    deaf = Client(port)
    deaf.socket.setblocking(False)
    slow = Client(port)
    # Little room: what it does not read stays with the server.
    readers = [Client(port) for _ in range(6)]
    mark, until, rounds = drive.bus.mark(), time.monotonic() + 10, 0
    dripped, next_drip = 0, time.monotonic()
    while time.monotonic() < until:
        with contextlib.suppress(BlockingIOError, ConnectionResetError, BrokenPipeError):
            deaf.socket.send(burst)
        if time.monotonic() >= next_drip and dripped < len(burst):
            slow.socket.sendall(burst[dripped:dripped + 1])
            dripped, next_drip = dripped + 1, next_drip + 1
        for reader in readers:
            reader.socket.sendall(burst)
        # In turn: a client that takes nothing for ten seconds is cut, and this guest is slow.
        for command, track_id in pipeline:
            for reader in readers:
                kind, body = reader.reply(track_id)
                expect(kind == OK, f"{command}: {body}")
        rounds += 1
    loaded = periods(mark)
    peak_kib = memory_kib()
    expect(drive.state() == "ARMED", f"tripped under the load: {drive.gateway_data()}")
    expect(rounds > 0 and peak_kib - before_kib < 16 * 1024, f"{before_kib} KiB grew to {peak_kib} KiB")
    bench.note(f"period of DRIVE_CMD without clients: {quiet}")
    bench.note(f"period of DRIVE_CMD while 6 clients got {rounds * 600} answers, one did not read and one dripped: {loaded}")
    bench.note(f"memory of the gateway: {before_kib} KiB, then {peak_kib} KiB")
    drive.check_row()


@test(mode="default", deadline_s=240)
def a_stop_is_a_trip_and_nothing_arms(bench):
    """GwSafeStop while driving; what the client is told; and that no command moves anything."""
    drive = Drive(bench, bench.vcan())
    port = asked_at(drive)
    client = Client(port)
    code, text = status_command(bench, port)
    expect(code == 1 and "SAFE" in text, f"status before arming: exit {code}\n{text}")
    client.ok("Subscribe", {"Publisher": "Gateway", "Topic": "*"})
    drive.drive_off()
    code, text = status_command(bench, port)
    expect(code == 0 and "ARMED" in text, f"status while driving: exit {code}\n{text}")
    expect(client.error("GwEnterDiag") == 8, "DIAG while ARMED")
    expect(client.error("GwAcknowledgeLockout") == 8, "acknowledged while ARMED")
    for command in ("GwArm", "Arm", "GwSetThrottle"):
        expect(client.error(command) == 2, f"{command} exists")
    mark = drive.bus.mark()
    told = client.ok("GwSafeStop")
    expect(told["State"] in ("STOPPING", "SAFE"), f"{told}")
    drive.stays_safe(mark, 3)
    expect(drive.causes[0] == "stop_requested", f"told {drive.causes}")
    client.ok("GwGetStatus")
    topics = [event["Topic"] for event in client.events]
    for topic in ("Armed", "Trip", "StateChanged", "Reaction", "Requested"):
        expect(topic in topics, f"no event {topic} in {topics}")
    trip = next(event for event in client.events if event["Topic"] == "Trip")
    expect(trip["Data"]["Fault"] == "stop_requested" and trip["Data"]["Class"] == "A", f"{trip}")
    # A late client knows as well.
    late = Client(port).ok("GwGetEvents", {"Last": 50})
    expect(any(event["Topic"] == "Trip" for event in late["Events"]), f"{late}")
    drive.server.say("neutral")
    drive.arm()
    drive.check_row()


@test(mode="default", deadline_s=300)
def a_lockout_is_acknowledged_here_and_only_when_its_cause_has_gone(bench):
    """A foreign writer locks out; a person at the box acknowledges; the marker does not survive; DIAG only from SAFE."""
    drive = Drive(bench, bench.vcan())
    client = Client(asked_at(drive))
    drive.drive_off()
    payload = "0000E80300000100"
    drive.foreign.append(bytes.fromhex(payload))
    bench.cansend("vcan0", f"101#{payload}")
    drive.wait_state("LOCKOUT", 10)
    told = client.ok("GwGetStatus")
    expect(told["Lockout"]["Fault"] == "foreign_writer", f"{told.get('Lockout')}")
    expect(client.error("GwEnterDiag") == 8, "DIAG out of LOCKOUT")
    drive.server.say("neutral")

    def acknowledged():
        kind, _ = client.call("GwAcknowledgeLockout")
        return kind == OK
    look_for(acknowledged, 20, "the lockout is acknowledged")
    expect(drive.wait_state({"SAFE", "STANDBY", "READY"}, 10)["state"] != "LOCKOUT", "still locked out")
    drive.gateway.terminate()
    drive.gateway = drive.start_gateway()
    client = Client(asked_at(drive))
    expect(client.ok("GwGetStatus")["State"] != "LOCKOUT", "the marker survived the acknowledgement")
    # Diagnosis: from SAFE, at standstill.
    drive.server.say("silence on")
    # Asked of the gateway itself: it answers OCP only what OCP sends.
    look_for(lambda: client.ok("GwGetStatus")["State"] == "SAFE", 20, "SAFE without a message")
    told = client.ok("GwEnterDiag")
    expect(told["State"] == "DIAG", f"{told}")
    expect(client.error("GwEnterDiag") == 8, "DIAG twice")
    expect(client.ok("GwLeaveDiag")["State"] != "DIAG", "DIAG is not left")


@test(mode="default", deadline_s=180)
def who_is_allowed_from_elsewhere_may_look_and_no_more(bench):
    """An allowed address of another network: it reads, it cannot stop, acknowledge or diagnose, and it cannot keep the box's
    own people out. One that is not allowed gets nothing."""
    for address in ("10.98.0.1/32", "10.98.0.2/32"):
        bench.run("ip", "addr", "add", address, "dev", "lo")
    try:
        def opened(text):
            return text.replace("\n[rcsp]\n", '\n[rcsp]\nlisten = "0.0.0.0:45451"\nallow = ["10.98.0.2"]\n', 1)
        drive = Drive(bench, bench.vcan(), edit=opened)
        drive.gateway.wait_line(r"RCSP: `ocpcan status` can ask", 20)
        here, there = ("127.0.0.1", None), ("10.98.0.1", ("10.98.0.2", 0))
        with contextlib.suppress(ConnectionResetError):
            stranger = Client(45451, "10.98.0.1", ("10.98.0.1", 0))
            with contextlib.suppress(ConnectionResetError):
                expect(stranger.socket.recv(1) == b"", "a stranger was let in")
        remote = [Client(45451, *there) for _ in range(8)]
        for client in remote:
            client.ok("GwGetStatus")
        drive.drive_off()
        for command in ("GwSafeStop", "GwAcknowledgeLockout", "GwEnterDiag", "GwLeaveDiag"):
            expect(remote[0].error(command) == 10, f"{command} from elsewhere")
        expect(drive.state() == "ARMED", "stopped from elsewhere")
        # Every place is taken by others: one of them gives way to who is here.
        expect(Client(45451, *here).ok("GwSafeStop")["State"] != "ARMED", "not stopped from here")
    finally:
        for address in ("10.98.0.1/32", "10.98.0.2/32"):
            bench.run("ip", "addr", "del", address, "dev", "lo")


@test(mode="default", deadline_s=120)
def status_when_nobody_is_there_and_when_a_gateway_ends(bench):
    """Exit codes of `ocpcan status`: 69 without a gateway."""
    code, _ = status_command(bench, 45451)
    expect(code == 69, f"exit {code} without a gateway")
    drive = Drive(bench, bench.vcan())
    port = asked_at(drive)
    client = Client(port)
    client.ok("ListDevices")
    expect(drive.gateway.terminate() == 0, "SIGTERM does not end in 0")
    expect(client.socket.recv(1) == b"", "the connection outlived the gateway")
    code, _ = status_command(bench, port)
    expect(code == 69, f"exit {code} after the gateway's end")


@test(mode="sja1000", deadline_s=240)
def a_controllers_state_rate_and_load_are_told(bench):
    """On a controller the bit rate, the load and the state are there, and each change of the state is an event."""
    can0, can1 = bench.controllers()
    drive = Drive(bench, can0, vehicle_on=can1, sniff_on=can1)
    client = Client(asked_at(drive))
    client.ok("DeviceSubscribe", {"DeviceId": "bus:vehicle", "Publisher": "DeviceEvents", "Topic": "BusStateChanged"})
    drive.drive_off()

    def bus():
        return client.ok("GwGetStatus")["Buses"][0]
    seen = wait_for(lambda: (told := bus()).get("LoadPercent", 0) > 0 and told, 20, "the load of the bus")
    expect(seen["BitrateBps"] == 500_000 and seen["State"] == "ErrorActive", f"{seen}")
    expect(0 < seen["LoadPercent"] < 100, f"{seen}")
    info = client.ok("GetDeviceInfo", {"DeviceId": "bus:vehicle"})
    bench.note(f"bus of the drive: {seen}; driver {info.get('Driver')}")
    bench.link_down(can0)
    wait_for(lambda: bus()["State"] == "Down", 20, "the bus is told down")
    bench.link_up(can0)
    wait_for(lambda: bus()["State"] == "ErrorActive", 20, "the bus is told up again")
    states = [event["Data"]["State"] for event in client.events if event["Topic"] == "BusStateChanged"]
    expect("Down" in states and states[-1] in ("Up", "ErrorActive"), f"{states}")
    readable, _, _ = select.select([client.socket], [], [], 0)
    expect(not readable or client.read()[0] == EVENT, "an answer nobody asked for")
