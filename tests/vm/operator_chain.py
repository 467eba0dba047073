"""The whole chain from the operator's panel to the actuator and back to the dashboard, as four processes on two buses, by
the guest's instruction clock: where the time goes, and how long each cut leg keeps the vehicle moving.

    panel (this test) --vcan-desk--> ocpcan run --4001--> ocpcan sim ocp --4000--> ocpcan run --vcan-drive--> ocpcan sim vehicle
    dashboard <-------vcan-desk-----            <-------                <--------            <--vcan-drive---

The two shipped examples for a panel, with their shipped times; only arming is quicker. One Python thread is the panel, the
eyes on both buses (with the kernel's timestamps) and the two TCP cables, which it reads along. Relies on mode icount, as
reaction.py does: neither the host's load nor the emulation's hiccups are in the figures, and no bound has an allowance
for them. What is in a bound beside SAFETY.md's figure is the way of the message: each part is named below.

The clock of a trip starts at the last good sign of the leg that is cut, seen in front of whoever watches it, and stops at
the kernel's timestamp of the first safe DRIVE_CMD. After it no frame may move anything, with the lever still pulled.
"""
import os
import random
import re
import selectors
import shutil
import socket
import struct
import time

from lib import ROOT, Failure, test
from lib.can import CLASSIC, SO_TIMESTAMPNS, TIMESPEC, Frame, to_bytes
from lib.drive import DRIVE_CMD, VEHICLE_STATE, Command, crc8_j1850
from reaction import ARMS_PER_PROCESS, QUICK, report, text_after

DESK_BUS, DRIVE_BUS = "vcan-desk", "vcan-drive"
PANEL, DASH = 0x500, 0x501
PANEL_PERIOD_NS = 20_000_000
# Where the lever's trembling is all that changes: twice as many frames as the Player sends messages, and never the same two
# steps on, so that no two of those messages are alike, whatever the phases.
TREMBLING = 2
SEED = 20_261_126
COUNT = int(os.environ.get("REACTION_N", "3"))

# The way of a message from the panel to the gateway's door, in ms, longest case.
STALE = 100         # [receive.PANEL] stale_after_ms: three periods of 20, at least 100
DESK = 20 + 10      # the desk's thread looks at least every 20 ms; between two messages to the Player are 10 ms
OCP = 20 + 20 + 10  # the simulated Player sends every 20 ms, the radio takes 20, the Streamer looks every 10
GATEWAY = 25        # SAFETY.md section 4: from the message at the door to the safe frame

# What SAFETY.md promises, in ms.
LOST_OPERATOR = 275          # S6: after the counter's last step at the door
LOST_OPERATOR_BY_OCP = 1045  # section 1: without a counter
LEVER_PERCENT = 70

COUNTER = re.compile(rb'"counter":(\d+)')
LEVER = re.compile(rb'"lever":([0-9.eE+-]+)')
PANEL_OK = re.compile(rb'"panel_ok":(true|false)')
SPEED = re.compile(rb'"speed_kph":([0-9.eE+-]+)')


def number(pattern, body):
    """The number behind a key, None where it is not there."""
    found = pattern.search(body)
    return float(found[1]) if found else None


class Cable:
    """One TCP connection, read along: a listener in front of a server, and what each side says, message by message."""

    def __init__(self, selector, to_port, from_client, from_server):
        self.selector, self.to_port = selector, to_port
        self.takers = [from_client, from_server]
        self.ends, self.rests = [], [b"", b""]
        self.is_cut = False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        selector.register(self.listener, selectors.EVENT_READ, self.accept)

    def accept(self):
        client, _ = self.listener.accept()
        if self.is_cut or self.ends:
            client.close()
            return
        try:
            server = socket.create_connection(("127.0.0.1", self.to_port), timeout=5)
        except OSError:
            client.close()
            return
        self.ends, self.rests = [client, server], [b"", b""]
        for side, end in enumerate(self.ends):
            end.settimeout(5)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.selector.register(end, selectors.EVENT_READ, lambda side=side: self.copy(side))

    def copy(self, side):
        if not self.ends:
            return
        try:
            chunk = self.ends[side].recv(65536)
            before_ns = time.time_ns()
            self.ends[1 - side].sendall(chunk)
        except OSError:
            chunk = b""
        if not chunk:
            self.drop()
            return
        rest = self.rests[side] + chunk
        while len(rest) >= 4 and len(rest) >= 4 + struct.unpack_from("<I", rest)[0]:
            size = struct.unpack_from("<I", rest)[0]
            body, rest = rest[4:4 + size], rest[4 + size:]
            self.takers[side](before_ns, body)
        self.rests[side] = rest

    def drop(self):
        for end in self.ends:
            self.selector.unregister(end)
            end.close()
        self.ends = []

    def cut(self):
        """Ends the connection, and each new one at once. Returns the time before."""
        before_ns = time.time_ns()
        self.is_cut = True
        self.drop()
        return before_ns

    def mend(self):
        self.is_cut = False

    def close(self):
        self.drop()
        self.selector.unregister(self.listener)
        self.listener.close()


class Chain:
    """The processes, the panel, the cables and the eyes on both buses, stepped by one thread."""

    def __init__(self, bench, has_counter=True):
        self.bench = bench
        self.phase = random.Random(SEED)
        self.selector = selectors.DefaultSelector()
        bench.vcan(DESK_BUS)
        bench.vcan(DRIVE_BUS)
        # The panel.
        self.lever = self.panel_counter = 0
        self.is_seated, self.is_plugged, self.trembles = True, True, False
        self.panel_at = time.monotonic_ns()
        self.panel_sent_ns = 0
        self.out = socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
        self.out.bind((DESK_BUS,))
        # What was seen: frames as (time_ns, id, data), and of each cable the first message that meets a wish.
        self.frames = {}
        self.eyes = [self.watch(name) for name in (DESK_BUS, DRIVE_BUS)]
        self.wishes = {}
        self.state = self.next = self.cause = None
        self.state_at_ns = self.changed_ns = self.panel_lost_ns = 0
        self.last_change = None
        # The processes.
        self.server = bench.ocpcan("sim", "ocp", "--listen", "127.0.0.1:0", "--player", "127.0.0.1:0", "--control",
                                   "127.0.0.1:0")
        vehicle_port, player_port, control_port = (
            int(self.server.wait_line(rf"^{what} on 127\.0\.0\.1:(\d+)", 60)[1])
            for what in ("listening", "player", "control"))
        self.control = socket.create_connection(("127.0.0.1", control_port), timeout=5)
        self.control.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answers = b""
        self.selector.register(self.control, selectors.EVENT_READ, self.take_answer)
        self.to_vehicle = Cable(self.selector, vehicle_port, self.take_response, self.take_command)
        self.to_player = Cable(self.selector, player_port, self.take_client, self.take_feedback)
        self.configs = write_configs(bench.folder, self.to_vehicle.port, self.to_player.port, has_counter)
        self.vehicle = bench.ocpcan("sim", "vehicle", "--quiet", "--bus", DRIVE_BUS)
        self.gateway = None
        self.arms = 0
        self.desk = self.run("desk")

    def run(self, side):
        runtime = self.bench.folder / f"runtime-{side}"
        runtime.mkdir(mode=0o700, exist_ok=True)
        return self.bench.ocpcan("run", "--config", self.configs[side], RUNTIME_DIRECTORY=str(runtime))

    def close(self):
        for process in (self.gateway, self.desk, self.vehicle, self.server):
            if process and process.running():
                process.kill()
        for cable in (self.to_vehicle, self.to_player):
            cable.close()
        for end in (*self.eyes, self.out, self.control):
            end.close()
        self.selector.close()

    # The panel.

    def send_panel(self):
        self.panel_counter = (self.panel_counter + 1) % 16
        lever = self.lever * 10
        if self.trembles and self.lever:
            lever += self.panel_counter % 4
        data = struct.pack("<HBBBBB", lever, self.is_seated << 6, 0, 0, 0, self.panel_counter << 4)
        self.panel_sent_ns = time.time_ns()
        self.out.send(to_bytes(Frame(id=PANEL, data=data + bytes([crc8_j1850(data)]))))

    # The eyes.

    def watch(self, interface):
        eye = socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
        eye.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        eye.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        eye.bind((interface,))
        eye.setblocking(False)
        self.selector.register(eye, selectors.EVENT_READ, lambda: self.collect(eye))
        return eye

    def collect(self, eye):
        while True:
            try:
                raw, ancillary, _, _ = eye.recvmsg(CLASSIC.size, 64)
            except OSError:
                return  # no more; or ENETDOWN, which comes once and is part of a trial
            raw_id, length, data = CLASSIC.unpack(raw)
            seconds, nanoseconds = TIMESPEC.unpack(ancillary[0][2])
            self.frames.setdefault(raw_id, []).append((seconds * 10**9 + nanoseconds, data[:length]))

    def commands(self, since_ns=0):
        row = self.frames.get(DRIVE_CMD, [])
        return [(at_ns, Command(Frame(id=DRIVE_CMD, data=data))) for at_ns, data in row if at_ns >= since_ns]

    def wish(self, name, condition):
        """Notes when the first message of a cable meets a condition."""
        self.wishes[name] = (condition, None)

    def granted(self, name):
        return self.wishes[name][1]

    def note(self, name, at_ns, body):
        condition, seen_ns = self.wishes.get(name, (None, None))
        if condition and seen_ns is None and condition(body):
            self.wishes[name] = (condition, at_ns)

    def take_command(self, at_ns, body):
        """To the gateway."""
        change = (number(COUNTER, body), number(LEVER, body))
        if change != self.last_change:
            self.last_change, self.changed_ns = change, at_ns
        found = PANEL_OK.search(body)
        if found and found[1] == b"true":
            self.panel_lost_ns = 0
        elif found and not self.panel_lost_ns:
            self.panel_lost_ns = at_ns
        self.note("command", at_ns, body)

    def take_response(self, at_ns, body):
        """From the gateway. Not decoded as JSON: Python's share of the guest's one CPU is to stay small."""
        state = text_after(body, b'"state":"')
        if state is not None:  # the first answer of a session may come before the first status of the watchdog
            if state != self.state:
                self.state, self.state_at_ns = state, at_ns
            self.next, self.cause = text_after(body, b'"next":"'), text_after(body, b'"cause":"')
        self.note("response", at_ns, body)

    def take_client(self, at_ns, body):
        """From the desk."""
        self.note("client", at_ns, body)

    def take_feedback(self, at_ns, body):
        """To the desk."""
        self.note("feedback", at_ns, body)

    # Time.

    def pump(self, until_ns):
        """Serves everything until then."""
        while (left_ns := until_ns - time.monotonic_ns()) > 0:
            for key, _ in self.selector.select(left_ns / 1e9):
                key.data()

    def turn(self):
        """One period of the panel."""
        frames = TREMBLING if self.trembles else 1
        period_ns = PANEL_PERIOD_NS // frames
        for _ in range(frames):
            self.panel_at = max(self.panel_at + period_ns, time.monotonic_ns() - period_ns)
            self.pump(self.panel_at)
            if self.is_plugged:
                self.send_panel()

    def until(self, condition, within_s, what):
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() >= deadline:
                said = [process.lines[-1][2] for process in (self.gateway, self.desk) if process and process.lines]
                raise Failure(f"no {what} within {within_s} s; state {self.state}, to do: {self.next}, cause {self.cause}; "
                              f"log: {said}")
            self.turn()

    # The simulator.

    def take_answer(self):
        self.answers += self.control.recv(65536)

    def say(self, *lines):
        """Lines of the simulator's control language. Returns the time before the first."""
        before_ns = time.time_ns()
        for line in lines:
            self.control.sendall(line.encode() + b"\n")
            deadline = time.monotonic() + 5
            while b"\n" not in self.answers:
                if time.monotonic() >= deadline:
                    raise Failure(f"sim ocp does not answer {line!r}")
                for key, _ in self.selector.select(0.01):
                    key.data()
            answer, self.answers = self.answers.split(b"\n", 1)
            if answer != b"ok":
                raise Failure(f"sim ocp, {line!r}: {answer.decode()}")
        return before_ns

    # The procedure.

    def start_gateway(self):
        if self.gateway and self.gateway.running():
            self.gateway.terminate()
        self.state = None
        self.gateway = self.run("vehicle")
        self.arms = 0

    def arm(self):
        """The whole procedure, lever released; more arms in a minute than the gateway allows need a new one."""
        if self.gateway is None or not self.gateway.running() or self.arms >= ARMS_PER_PROCESS:
            self.start_gateway()
        if self.state == "ARMED":
            return
        self.lever = 0
        self.say("neutral")
        self.until(lambda: self.state == "READY" and self.next == "press and hold the arm switch", 30, "READY")
        self.say("press start")
        self.until(lambda: self.state == "ARMED", 5, "ARMED")
        self.arms += 1
        self.say("release start")
        self.frames.clear()

    def arm_and_drive(self):
        """Armed, the lever pulled, throttle on the bus; then at any phase of everybody's rhythms."""
        self.arm()
        self.lever = LEVER_PERCENT
        self.until(lambda: any(command.throttle > 2 for _, command in self.commands()), 5, "moving frame")
        for _ in range(self.phase.randrange(2, 5)):
            self.turn()
        self.pump(time.monotonic_ns() + self.phase.randrange(PANEL_PERIOD_NS))
        self.frames.clear()

    def safe_since(self, start_ns):
        """Time of the first safe frame, once there is one; fails if a frame that moves follows it."""
        row = self.commands(start_ns)
        first = next((at_ns for at_ns, command in row if not command.moves), None)
        late = [str(command) for at_ns, command in row if first is not None and at_ns > first and command.moves]
        if late:
            raise Failure(f"a moving frame after the safe one: {late[0]}")
        return first

    def stays_safe(self, start_ns, turns=25):
        """The lever is still pulled: whatever comes, nothing moves."""
        # The answer that tells the end of ARMED may come after the first safe frame.
        self.until(lambda: self.state != "ARMED", 2, "end of ARMED in user_data")
        for _ in range(turns):
            self.turn()
            if self.state == "ARMED":
                raise Failure("ARMED again by itself")
        if self.safe_since(start_ns) is None:
            raise Failure("no safe frame")


def write_configs(folder, ocp_port, player_port, has_counter):
    """The two examples for a panel, changed only where the test must: interfaces, ports, the times of arming."""
    texts = {"vehicle": (ROOT / "deploy/vehicle-with-panel.example.toml").read_text(encoding="utf-8"),
             "desk": (ROOT / "deploy/operator.example.toml").read_text(encoding="utf-8")}

    def put(side, pattern, replacement):
        texts[side], count = re.subn(pattern, replacement, texts[side], count=1, flags=re.MULTILINE)
        if count != 1:
            raise Failure(f"the {side}'s example has no line /{pattern}/")
    put("vehicle", r'^interface = "can0"', f'interface = "{DRIVE_BUS}"')
    put("vehicle", r'^address = "127\.0\.0\.1:4000"', f'address = "127.0.0.1:{ocp_port}"')
    put("desk", r'^interface = "can0"', f'interface = "{DESK_BUS}"')
    put("desk", r'^address = "127\.0\.0\.1:4001"', f'address = "127.0.0.1:{player_port}"')
    if not has_counter:
        put("vehicle", r'^counter = "user\.counter".*\n', "")
        put("vehicle", r"^counter_modulo = .*\n", "")
        put("desk", r"^counter = \{ counter = 256 \}.*\n", "")
    if "[safety]" in texts["vehicle"]:
        raise Failure("the vehicle's example has times of its own")
    texts["vehicle"] += "\n[safety]\n" + "".join(f"{key} = {value}\n" for key, value in QUICK.items())
    paths = {}
    for side, text in texts.items():
        paths[side] = folder / f"{side}.toml"
        paths[side].write_text(text, encoding="utf-8")
    for name in ("example.dbc", "panel.dbc"):
        shutil.copy(ROOT / "deploy" / name, folder)
    return paths


# One lever movement.

def follow_lever(chain):
    """From the panel's frame to the actuator's and back to the dashboard's: the time of each leg."""
    chain.arm()
    # The dashboard knows the vehicle, and it stands.
    chain.until(lambda: any(data[:2] == b"\0\0" for _, data in chain.frames.get(DASH, [])), 5, "speed 0 on the dashboard")
    chain.frames.clear()
    for name in ("client", "command"):
        chain.wish(name, lambda body: (number(LEVER, body) or 0) > 0)
    for name in ("response", "feedback"):
        chain.wish(name, lambda body: (number(SPEED, body) or 0) > 0)
    chain.lever = LEVER_PERCENT

    def first(can_id, condition):
        return next((at_ns for at_ns, data in chain.frames.get(can_id, []) if condition(data)), None)

    def speed(data):
        return struct.unpack_from("<H", data)[0]

    def legs():
        return [
            ("panel frame", first(PANEL, speed)),  # the lever is in the same place
            ("desk to Player", chain.granted("client")),
            ("Player, radio, Streamer to the gateway's door", chain.granted("command")),
            ("gateway to actuator frame", first(DRIVE_CMD, lambda data: Command(Frame(id=DRIVE_CMD, data=data)).throttle)),
            ("the vehicle begins to move and reports it", first(VEHICLE_STATE, speed)),
            ("gateway to Streamer", chain.granted("response")),
            ("Streamer, radio, Player to the desk's door", chain.granted("feedback")),
            ("desk to dashboard frame", first(DASH, lambda data: 0 < speed(data) < 0xFFFF)),
        ]
    chain.until(lambda: all(at_ns for _, at_ns in legs()), 10, "whole way of the lever")
    row = legs()
    return [(name, (at_ns - before_ns) / 1e6) for (_, before_ns), (name, at_ns) in zip(row, row[1:])]


# The cuts. Each breaks a leg and returns a function that says, once it is known, from when the trip is counted.

def panel_silent(chain):
    """Counted from the panel's last frame."""
    chain.is_plugged = False
    return lambda: chain.panel_sent_ns


def desk_stopped(chain):
    """SIGSTOP, while the Player goes on with the desk's last data: counted from the last change at the gateway's door."""
    chain.desk.stall()
    return lambda: chain.changed_ns


def player_gone(chain):
    """The desk's TCP connection: the same."""
    chain.to_player.cut()
    return lambda: chain.changed_ns


def uplink_cut(chain):
    """The radio: the same."""
    chain.say("cut uplink")
    return lambda: chain.changed_ns


def streamer_gone(chain):
    """Counted from before the gateway's connection is closed."""
    before_ns = chain.to_vehicle.cut()
    # Nobody hears the gateway until it is mended.
    chain.state = None
    return lambda: before_ns


def mend(chain):
    chain.is_plugged = True
    chain.desk.resume()
    chain.to_player.mend()
    chain.to_vehicle.mend()
    chain.say("restore uplink")


def trip(chain, cut, causes):
    """Drives, cuts, and mends with the lever still pulled. Returns the time to the safe frame in ms."""
    chain.arm_and_drive()
    mark_ns = time.time_ns()
    start = cut(chain)
    deadline = time.monotonic() + 3
    while (first_ns := chain.safe_since(mark_ns)) is None:
        if time.monotonic() > deadline:
            raise Failure(f"no safe frame within 3 s of {cut.__name__}")
        chain.turn()
    took_ms = (first_ns - start()) / 1e6
    # What the door saw, while it is still that of this trip: panel_ok.
    door_ms = (first_ns - chain.panel_lost_ns) / 1e6 if chain.panel_lost_ns else None
    chain.stays_safe(mark_ns)
    mend(chain)
    chain.until(lambda: chain.state is not None and chain.cause in causes, 5, f"cause {' or '.join(causes)}")
    chain.stays_safe(mark_ns, turns=75)
    return took_ms, door_ms


def bus_down(chain):
    """Nothing can leave, so the proof is user_data out of ARMED (SAFETY.md, S9)."""
    chain.arm_and_drive()
    before_ns = time.time_ns()
    chain.bench.link_down(DRIVE_BUS)
    chain.until(lambda: chain.state != "ARMED", 2, "end of ARMED in user_data")
    took_ms, cause = (chain.state_at_ns - before_ns) / 1e6, chain.cause
    if cause != "bus_down":
        raise Failure(f"the operator is told {cause}, not bus_down")
    chain.frames.clear()
    chain.bench.link_up(DRIVE_BUS)
    chain.until(lambda: len(chain.commands()) >= 5, 5, "frames on the bus again")
    moving = [str(command) for _, command in chain.commands() if command.moves]
    if moving:
        raise Failure(f"moving frames after the bus was down: {moving[0]}")
    chain.stays_safe(0)
    return took_ms


@test(mode="icount", deadline_s=3600)
def a_lever_is_followed_and_every_cut_leg_trips(bench):
    chain = Chain(bench)
    try:
        for name, took_ms in follow_lever(chain):
            bench.note(f"lever: {name}: {took_ms:.1f} ms")
        way = STALE + DESK + OCP + GATEWAY
        table = [
            (panel_silent, {"requirement_lost"}, way),
            (desk_stopped, {"operator_frozen"}, LOST_OPERATOR),
            (player_gone, {"operator_frozen"}, LOST_OPERATOR),
            (uplink_cut, {"operator_frozen"}, LOST_OPERATOR),
            # The seat switch is lost with the connection, and may be told first.
            (streamer_gone, {"ocp_down", "dead_man"}, GATEWAY),
        ]
        for cut, causes, budget_ms in table:
            rows = [trip(chain, cut, causes) for _ in range(COUNT)]
            report(bench, cut.__name__, [took_ms for took_ms, _ in rows], budget_ms)
            if cut is panel_silent:
                # The gateway's own part: from the message that says panel_ok false.
                doors = [door_ms for _, door_ms in rows if door_ms is not None]
                if len(doors) != len(rows):
                    raise Failure("it stopped before panel_ok was false at the gateway's door")
                report(bench, "panel_ok false", doors, GATEWAY)
        report(bench, "vehicle bus down", [bus_down(chain) for _ in range(COUNT)], GATEWAY, "user_data")
    finally:
        chain.close()


@test(mode="icount", deadline_s=3600)
def without_a_counter_ocps_own_fault_trips(bench):
    chain = Chain(bench, has_counter=False)
    try:
        # What changes at the door, while there is no counter.
        chain.trembles = True
        for cut, causes in ((desk_stopped, {"ocp_fault", "latency_high"}), (uplink_cut, {"ocp_fault"})):
            samples = [trip(chain, cut, causes)[0] for _ in range(COUNT)]
            report(bench, f"{cut.__name__}, no counter", samples, LOST_OPERATOR_BY_OCP)
    finally:
        chain.close()
