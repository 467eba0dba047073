"""The whole drive in a guest: `ocpcan sim ocp`, `ocpcan run` and `ocpcan sim vehicle` as three processes, and what must
hold on the bus whatever happens to them.

Owns the configuration that the processes get (the shipped example with the test's own interface and times) and the oracle
over DRIVE_CMD. Relies on the processes' documented surface alone: command line, control port, user_data, log lines, and
frames. Never uses the gateway's code to judge the gateway: checksum and layout are written down here once more.
"""
import collections
import json
import re
import shutil
import socket
import struct
import time
from pathlib import Path

from .bench import ROOT, Failure
from .can import Sniffer, now_ns

DRIVE_CMD, BODY_CMD, VEHICLE_STATE = 0x101, 0x102, 0x201
PERIOD_MS = 20

# Scheduling hiccups of 20 to 70 ms are normal under emulation, so the functional tests use times at their upper bounds.
# Those of the arming procedure are at their lower ones: waiting proves nothing more. Reaction times are proven elsewhere
# (reaction.py), with the shipped times.
GENEROUS = {
    "ocp_silence_ms": 250, "stale_ms": 250, "ack_freeze_ms": 500, "operator_freeze_ms": 500, "reply_ms": 200,
    "frame_assembly_ms": 200, "echo_ms": 100, "thread_stall_ms": 100, "own_gap_ms": 100,
    "clear_ms": 500, "neutral_ms": 250, "hold_ms": 500, "transition_ms": 500, "stopping_ms": 3000,
}
# Before a test does anything, the drive is prepared: armed and moving. A slow host may spoil that, and then it is prepared
# again; each time is counted in the test's result line. These are the only causes that a slow host explains. Whatever else
# ends the preparation fails the test: so do LOCKOUT (its causes are never the host's, but for deadline_missed, from which
# no way leads back) and a gateway that does not arm without saying why.
SLOW_HOST = {
    "own_gap": "the gateway's watchdog thread got no CPU",
    "ocp_stalled": "the gateway's OCP thread got no CPU",
    "can_stalled": "the gateway's CAN thread got no CPU",
    "ocp_silence": "the simulated server got no CPU, so no message came",
    "frame_assembly": "the server was held between two parts of one message",
    "reply_blocked": "the server was held and did not read the answers",
    "stale": "messages waited in a socket",
    "ack_frozen": "the server was held; what waited in the socket all has one time",
    "operator_frozen": "the operator's part of the server was held",
    "latency_high": "answers came late to the server, which measures the latency",
    "ocp_fault": "the server raises NoControlMessage and HighLatency by itself when it or an answer is late",
    "echo_lost": "the echo of a frame waited for CPU in the kernel or in its thread",
    "feedback_lost": "the simulated vehicle got no CPU",
    "unsteady_stream": "no trip: messages came too irregularly to arm",
}
FELL = re.compile(r"^(STANDBY|READY|ARMED) -> (STANDBY|SAFE|STOPPING|LOCKOUT)(?: because of (\w+))?")
USER_DATA = {"headlights": False, "horn": False, "steering_mode": "manual"}


def crc8_j1850(data):
    """CRC-8 SAE J1850: polynomial 0x1D, start and final xor 0xFF. Of "123456789": 0x4B."""
    crc = 0xFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = ((crc << 1) ^ 0x1D if crc & 0x80 else crc << 1) & 0xFF
    return crc ^ 0xFF


def look_for(condition, within_s, what):
    """As wait_for, but at a person's pace: asking the processes every 2 ms would itself load the guest's two CPUs."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise Failure(f"not within {within_s} s: {what}")
        time.sleep(0.04)


class Command:
    """DRIVE_CMD, unpacked by hand from deploy/example.dbc."""

    def __init__(self, frame):
        if len(frame.data) != 8:
            raise Failure(f"DRIVE_CMD of {len(frame.data)} bytes: {frame}")
        steer, throttle, brake, flags, self.crc = struct.unpack("<hHHBB", frame.data)
        self.steer, self.throttle, self.brake = steer / 10, throttle / 10, brake / 10
        self.enable, self.counter = flags & 1, flags >> 4
        self.crc_is_right = self.crc == crc8_j1850(frame.data[:7])
        self.frame = frame

    @property
    def moves(self):
        """Non-safe: the vehicle obeys it, or would accelerate."""
        return bool(self.enable) or self.throttle > 0

    @property
    def is_final(self):
        """The safe values of the example: what every state but ARMED and STOPPING sends."""
        return not self.moves and self.steer == 0 and self.brake == 30

    def __str__(self):
        return (f"{self.frame} = steer {self.steer} throttle {self.throttle} brake {self.brake} enable {self.enable} "
                f"counter {self.counter}")


def write_config(folder, interface, port, times=GENEROUS, echo=None, stale_ms=500, edit=lambda text: text):
    """The shipped example, changed only where a test must: interface, port, times, age limit of the feedback."""
    text = (ROOT / "deploy" / "ocpcan.example.toml").read_text(encoding="utf-8")

    def put(pattern, replacement):
        nonlocal text
        text, count = re.subn(pattern, replacement, text, count=1, flags=re.MULTILINE)
        if count != 1:
            raise Failure(f"the example configuration has no line /{pattern}/")
    put(r'^interface = "can0"', f'interface = "{interface}"')
    put(r'^address = "127\.0\.0\.1:4000"', f'address = "127.0.0.1:{port}"')
    if echo:
        put(r'^echo = "required"', f'echo = "{echo}"')
    if stale_ms:
        put(r"^# stale_after_ms = 100 ", f"stale_after_ms = {stale_ms} ")
    for key, value in times.items():
        put(rf"^# {key} = \d+", f"{key} = {value}")
    path = Path(folder) / "ocpcan.toml"
    path.write_text(edit(text), encoding="utf-8")
    shutil.copy(ROOT / "deploy" / "example.dbc", folder)
    return path


class OcpControl:
    """`ocpcan sim ocp` as a process, obeying its control port."""

    def __init__(self, bench, port=0, control=0, settings=(), script=None):
        extra = ["--script", script] if script else []
        for setting in settings:
            extra += ["--set", setting]
        self.process = bench.ocpcan("sim", "ocp", "--player", "none", "--listen", f"127.0.0.1:{port}",
                                    "--control", f"127.0.0.1:{control}", *extra)
        self.port = int(self.process.wait_line(r"^listening on 127\.0\.0\.1:(\d+)", 20)[1])
        self.control = int(self.process.wait_line(r"^control on 127\.0\.0\.1:(\d+)", 20)[1])
        self._socket = socket.create_connection(("127.0.0.1", self.control), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def _line(self):
        while b"\n" not in self._rest:
            chunk = self._socket.recv(65536)
            if not chunk:
                raise Failure("sim ocp closed its control port")
            self._rest += chunk
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode()

    def say(self, *lines):
        """Runs lines of the control language; each must be understood."""
        for line in lines:
            self._socket.sendall(line.encode() + b"\n")
            answer = self._line()
            if answer != "ok":
                raise Failure(f"sim ocp, {line!r}: {answer}")

    def status(self):
        """What the server sees, as a dict: the last user_data among it."""
        self.say("status")
        return json.loads(self._line())


class Drive:
    """Three processes and a sniffer on the bus of the vehicle."""

    def __init__(self, bench, interface="vcan0", vehicle_on=None, times=GENEROUS, echo=None, relay=False,
                 settings=(), sniff_on=None, edit=lambda text: text, run_options=(), **environment):
        self.bench = bench
        self.interface = interface
        self.bus: Sniffer = bench.sniff(sniff_on or interface)
        bench.early_trips = bench.early_trips or collections.Counter()
        self.causes = []  # what the operator was told while stays_safe looked
        self.foreign = []  # payloads on our id that the test itself sent
        self.server = OcpControl(bench, settings=settings)
        self.relay = bench.relay(self.server.port) if relay else None
        self.config = write_config(bench.folder, interface, self.relay.port if relay else self.server.port, times, echo,
                                   edit=edit)
        self.runtime = bench.folder / "runtime"
        self.runtime.mkdir(mode=0o700, exist_ok=True)
        self.environment = {"RUNTIME_DIRECTORY": str(self.runtime), **environment}
        self.vehicle = self.start_vehicle(vehicle_on or interface)
        self.gateway = self.start_gateway(*run_options)

    def start_vehicle(self, interface):
        extra = ["--on-real-bus"] if interface.startswith("can") else []
        self.vehicle_on = interface
        return self.bench.ocpcan("sim", "vehicle", "--bus", interface, *extra)

    def start_gateway(self, *options):
        return self.bench.ocpcan("run", "--config", self.config, *options, **self.environment)

    def restart_server(self, *script):
        """A new server on the same ports, whose operator does what the lines say from the start."""
        path = self.bench.folder / f"script-{time.monotonic_ns()}.txt"
        path.write_text("\n".join(script) + "\n", encoding="utf-8")
        self.server = OcpControl(self.bench, self.server.port, self.server.control, script=path)

    # What the operator sees.

    def gateway_data(self):
        """The gateway's own object in the newest user_data; {} before the first."""
        return (self.server.status()["user_data"] or {}).get("gateway", {})

    def speed(self):
        """km/h as the operator reads it; 0 where it is not known."""
        return (self.server.status()["user_data"] or {}).get("speed_kph") or 0

    def state(self):
        return self.gateway_data().get("state")

    def wait_state(self, wanted, within_s, what=""):
        wanted = {wanted} if isinstance(wanted, str) else set(wanted)
        last = [None]

        def reached():
            last[0] = self.gateway_data()
            return last[0].get("state") in wanted
        try:
            look_for(reached, within_s, "")
        except Failure:
            raise Failure(f"not {' or '.join(sorted(wanted))} within {within_s} s {what}; gateway says {last[0]}") from None
        return last[0]

    # What the operator does.

    def make_ready(self, within_s=60):
        self.server.say("neutral", f"user {json.dumps(USER_DATA)}")
        last = [None]

        def ready():
            last[0] = self.gateway_data()
            return last[0].get("state") == "READY" and last[0].get("next") == "press and hold the arm switch"
        try:
            look_for(ready, within_s, "")
        except Failure:
            raise Failure(f"not READY within {within_s} s; gateway says {last[0]}") from None

    def arm(self, within_s=90):
        """The whole procedure. Begins again where a slow host spoils it, see SLOW_HOST."""
        deadline = time.monotonic() + within_s
        log = self.gateway.mark()
        while True:
            self.make_ready(max(5.0, deadline - time.monotonic()))
            self.server.say("press start")
            try:
                # Pressed for twenty times hold_ms: a gateway that is still READY then is wrong.
                seen = self.wait_state({"ARMED", "SAFE", "STANDBY", "LOCKOUT"}, 10)
            finally:
                self.server.say("release start")
            if seen["state"] == "ARMED":
                self.count_early(log)
                return
            log = self.count_early(log, fell=True)
            if time.monotonic() >= deadline:
                raise Failure(f"not ARMED within {within_s} s: {dict(self.bench.early_trips)}; gateway says {seen}")

    def count_early(self, log, fell=False):
        """Counts what ended the preparation of the drive since this place in the gateway's log, and fails if a slow host
        does not explain it. With `fell` at least one such line must come. Returns the place to go on from."""
        if fell:
            self.gateway.wait_line(FELL.pattern, 10, log)
        for at, (_, _, line) in enumerate(self.gateway.lines[log:], log):
            match = FELL.search(line)
            if not match:
                continue
            before, after, cause = match.groups()
            if after == "STANDBY":
                cause = "not_neutral"
            elif before != "ARMED":
                # Without a trip the cause that is told is that of the last one. What is missing now comes in the next line.
                todo = self.gateway.wait_line(r"^\w+: (?:cannot|to) arm: (.*)", 10, at + 1)[1]
                cause = "unsteady_stream" if "steady stream" in todo else cause
            cause = cause or "no cause told"
            self.bench.early_trips[cause] += 1
            if after == "LOCKOUT" or cause not in SLOW_HOST:
                raise Failure(f"before the test did anything: {line!r} ({cause}), and no slow host explains that")
            log = at + 1
        return log

    def hold_stick(self):
        """Half throttle and some steering, held until told otherwise, also under faults."""
        self.server.say("defaults last", "trigger right 0.7", "axis left_x 0.5")

    def drive_off(self, attempts=3):
        """Armed and moving: returns the first frame with throttle and enable. Prepared again only after a trip that a slow
        host explains, see SLOW_HOST."""
        for _ in range(attempts):
            self.arm()
            log = self.gateway.mark()
            self.hold_stick()
            mark = self.bus.mark()
            try:
                moving = self.bus.wait(lambda f: f.id == DRIVE_CMD and not f.error and Command(f).enable
                                       and Command(f).throttle > 5 and abs(Command(f).steer) > 10,
                                       within_s=10, mark=mark, what="moving DRIVE_CMD")
                if self.state() == "ARMED":
                    return moving
            except AssertionError:
                if self.state() == "ARMED":
                    raise
            # A trip between arming and this mark is in the log before it.
            self.count_early(log, fell=True)
        raise Failure(f"does not stay armed: {dict(self.bench.early_trips)}; gateway says {self.gateway_data()}")

    # What must hold on the bus.

    def commands(self, mark=0):
        """DRIVE_CMD frames of the gateway since a mark, decoded."""
        return [Command(frame) for frame in self.bus.after(mark)
                if frame.id == DRIVE_CMD and not frame.error and not frame.remote and not frame.extended
                and frame.data not in self.foreign]

    def wait_safe(self, mark, within_s=5):
        """The first safe frame since mark, as Command."""
        return Command(self.bus.wait(
            lambda f: f.id == DRIVE_CMD and not f.error and not f.remote and f.data not in self.foreign
            and not Command(f).moves, within_s, mark, "safe DRIVE_CMD"))

    def stays_safe(self, mark, seconds):
        """After the first safe frame since mark nothing non-safe, observed for some seconds, never ARMED again."""
        first = self.wait_safe(mark)
        # The newest answer that the server has may still be one from before; from here on none may say ARMED.
        look_for(lambda: self.state() not in (None, "ARMED"), 5, "user_data leaves ARMED")
        until = time.monotonic() + seconds
        states, self.causes = set(), []
        while time.monotonic() < until:
            told = self.gateway_data()
            states.add(told.get("state"))
            if told.get("cause") and told["cause"] not in self.causes:
                self.causes.append(told["cause"])
            time.sleep(0.05)
        after = [command for command in self.commands(mark) if command.frame.time_ns >= first.frame.time_ns]
        moving = [str(command) for command in after if command.moves]
        if moving:
            raise Failure(f"{len(moving)} of {len(after)} frames after the first safe one are not safe: {moving[:3]}")
        if "ARMED" in states:
            raise Failure("armed again by itself")
        if len(after) < seconds * 1000 / PERIOD_MS / 3:
            raise Failure(f"only {len(after)} safe frames in {seconds} s: silence is never the stop signal")
        return after

    def check_row(self, mark=0, breaks=0):
        """Counter one further each frame and the right checksum, across trips; `breaks` gaps are allowed (lost bus)."""
        row = self.commands(mark)
        wrong = [str(command) for command in row if not command.crc_is_right]
        if wrong:
            raise Failure(f"wrong CRC: {wrong[:3]}")
        jumps = [f"{one} then {two}" for one, two in zip(row, row[1:]) if two.counter != (one.counter + 1) % 16]
        if len(jumps) > breaks:
            raise Failure(f"{len(jumps)} jumps of the counter in {len(row)} frames: {jumps[:3]}")
        if self.bus.lost:
            raise Failure(f"the sniffer lost {self.bus.lost} frames")
        return row

    def trips(self, break_it, causes, mend=lambda: None, observe_s=3.0, breaks=0):
        """The pattern of most tests: drive, break something, be safe, mend it with the stick still held, stay safe."""
        self.drive_off()
        mark, broken_ns = self.bus.mark(), now_ns()
        break_it()
        first = self.wait_safe(mark)
        self.bench.note(f"first safe frame {(first.frame.time_ns - broken_ns) / 1e6:.0f} ms after the test's own action "
                        f"(functional, times generous)")
        mend()
        self.stays_safe(mark, observe_s)
        # The first one: once everything was clear again, a hiccup of the emulation may trip anew.
        causes = {causes} if isinstance(causes, str) else set(causes)
        if not self.causes or self.causes[0] not in causes:
            raise Failure(f"the operator is told {self.causes}, not {' or '.join(sorted(causes))}: {self.gateway_data()}")
        self.check_row(breaks=breaks)
