"""Reaction times, by the guest's instruction clock: from a fault at our door to the safe frame on the bus, per cause,
against the budget of SAFETY.md without any allowance. The example configuration with its shipped times.

    tests/vm/boot --icount --deadline 3600 -- sh -c 'cd tests/vm && python3 reaction.py --n 200 [WORD...]'

tests/run runs it with n = 20. Owns its own OCP server and its own vehicle, both in this one Python thread, so that what
is sent, and when, is exact to the byte; the bus is read with the kernel's timestamps. Relies on mode icount: guest time
counts instructions, so neither the host's load nor the emulation's hiccups are in the figures.

The clock starts at the earliest moment at which the gateway could know: before the call that sends the faulty message
or closes the connection, or, where the fault is that nothing comes, before the call that sent the last good one. It
stops at the kernel's timestamp of the first safe DRIVE_CMD on the bus (on vcan that is its echo), and no frame that is
not safe may follow. Where frames cannot leave it stops when user_data no longer says ARMED.
"""
import argparse
import os
import random
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

from lib import Failure, percentiles, test
from lib.can import CLASSIC, SO_TIMESTAMPNS, TIMESPEC, Frame, to_bytes
from lib.bench import ROOT
from lib.drive import DRIVE_CMD, VEHICLE_STATE, Command, crc8_j1850, write_config

# Only the procedure of arming is at its lower bounds, to be quick. Every time that a reaction depends on is the shipped one.
QUICK = {"clear_ms": 500, "neutral_ms": 250, "hold_ms": 500, "transition_ms": 500, "stopping_ms": 500,
         "arms_per_minute": 15}
SEED = 20_260_820
ACK_START = 123_456
ARMS_PER_PROCESS = 14  # below arms_per_minute: more arms in a minute end in LOCKOUT
TURN_NS = 10_000_000   # OCP's own pace: new data every 10 ms
CAN_PERIOD_MS = {DRIVE_CMD: 20, 0x102: 50}

BUTTONS = ("a", "b", "x", "y", "left_bumper", "right_bumper", "back", "guide", "left_thumb", "right_thumb", "dpad_up",
           "dpad_right", "dpad_down", "dpad_left")
MESSAGE = (b'{%s"telemetry":{"latency":40,"fault":%s,"fault_reason":"%s"},"ack_time":%d,"ack_time_mac":3735928559,'
           b'"client_user_data":{"counter":%d,"headlights":false,"horn":false,"steering_mode":"manual"}}')
CONTROLLER = (b'"controller":{"buttons":{' + b"".join(b'"%s":false,' % name.encode() for name in BUTTONS) +
              b'"start":%s},"axes":{"left_x":%s,"left_y":0.0,"right_x":0.0,"right_y":0.0,"left_trigger":-1.0,'
              b'"right_trigger":%s}},')


class World:
    """The OCP server, the operator and the vehicle of one gateway, stepped by one thread."""

    def __init__(self, bench, program=None):
        self.bench = bench
        self.program = program or bench.ocpcan_program()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.client = None
        self.rest = b""
        self.start, self.left_x, self.trigger = b"false", b"0.0", b"-1.0"
        self.counter = self.ack = 0
        self.session_ns = time.monotonic_ns()
        # Faults come at any phase of the gateway's rhythms of 5, 10 and 20 ms.
        self.phase = random.Random(SEED)
        self.state = self.next = self.cause = None
        self.state_at_ns = 0
        self.turn_at = time.monotonic_ns()
        self.turns = self.vehicle_counter = 0
        self.frames = []
        self.gateway = None
        self.arms = 0
        self.can = socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
        self.can.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.can.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.can.bind(("vcan0",))
        self.can.setblocking(False)
        runtime = bench.folder / "runtime"
        runtime.mkdir(mode=0o700)
        self.environment = {"RUNTIME_DIRECTORY": str(runtime)}
        self.config = write_config(bench.folder, "vcan0", self.port, QUICK, stale_ms=None)

    # The gateway.

    def start_gateway(self, **environment):
        self.drop_client()
        self.state = None
        self.gateway = self.bench.start("ocpcan run", self.program, "run", "--config", self.config, **self.environment,
                                        **environment)
        self.arms = 0

    def stop_gateway(self):
        if self.gateway and self.gateway.running():
            self.gateway.signal(signal.SIGTERM)
            deadline = time.monotonic() + 10
            while self.gateway.running() and time.monotonic() < deadline:
                self.turn()
            self.gateway.kill()
        self.gateway = None

    # One turn of OCP and the vehicle.

    def body(self, controller=None, fault=b"false", reason=b""):
        """The next message; its ack_time and counter advance unless frozen by the caller."""
        if controller is None:
            controller = CONTROLLER % (self.start, self.left_x, self.trigger)
        return MESSAGE % (controller, fault, reason, self.ack, self.counter)

    def send(self, body):
        """One message in one segment. Returns the time before the call."""
        before_ns = time.time_ns()
        try:
            self.client.sendall(struct.pack("<I", len(body)) + body)
        except OSError:
            self.drop_client()
        return before_ns

    def turn(self, speak=True, advance_ack=True, advance_counter=True, body=None):
        """Waits for the next 10 ms, then speaks, drives the vehicle and reads. Returns the time before the message."""
        while True:
            left_ns = self.turn_at + TURN_NS - time.monotonic_ns()
            if left_ns <= 0:
                break
            watched = [self.client or self.listener]
            if select.select(watched, [], [], left_ns / 1e9)[0]:
                self.read()
        self.turn_at = max(self.turn_at + TURN_NS, time.monotonic_ns() - TURN_NS)
        self.turns += 1
        if self.turns % 2 == 0:
            self.send_state()
        sent_ns = 0
        if self.client:
            if advance_ack:
                self.ack = ACK_START + (time.monotonic_ns() - self.session_ns) // 1_000_000
            # The operator sends at 50 Hz, so every second message repeats.
            self.counter += advance_counter and self.turns % 2 == 0
            if speak:
                sent_ns = self.send(body or self.body())
        self.collect()
        return sent_ns

    def send_state(self):
        """VEHICLE_STATE: standing, straight, in park."""
        self.vehicle_counter = (self.vehicle_counter + 1) % 16
        data = struct.pack("<HhBBB", 0, 0, 0, 0, self.vehicle_counter << 4)
        try:
            self.can.send(to_bytes(Frame(id=VEHICLE_STATE, data=data + bytes([crc8_j1850(data)]))))
        except OSError:
            pass  # the interface is down: part of a trial

    def read(self):
        """Accepts the gateway, or takes its answers."""
        if self.client is None:
            self.client, _ = self.listener.accept()
            self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.rest = b""
            return
        try:
            chunk = self.client.recv(65536)
        except OSError:
            chunk = b""
        if not chunk:
            self.drop_client()
            return
        at_ns = time.time_ns()
        self.rest += chunk
        while len(self.rest) >= 4 and len(self.rest) >= 4 + struct.unpack_from("<I", self.rest)[0]:
            size = struct.unpack_from("<I", self.rest)[0]
            answer, self.rest = self.rest[4:4 + size], self.rest[4 + size:]
            # Not decoded as JSON: Python's share of the guest's one CPU is to stay small.
            state = text_after(answer, b'"state":"')
            if state is None:
                continue  # the first answer of a session may come before the first status of the watchdog
            if state != self.state:
                self.state, self.state_at_ns = state, at_ns
            self.next, self.cause = text_after(answer, b'"next":"'), text_after(answer, b'"cause":"')

    def drop_client(self, reset=False):
        if self.client is None:
            return
        if reset:
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.close()
        self.client = None

    def collect(self):
        """Takes the frames that the bus has, with the kernel's time."""
        while True:
            try:
                raw, ancillary, _, _ = self.can.recvmsg(CLASSIC.size, 64)
            except BlockingIOError:
                return
            except OSError:
                return  # ENETDOWN comes once
            raw_id, length, data = CLASSIC.unpack(raw)
            seconds, nanoseconds = TIMESPEC.unpack(ancillary[0][2])
            self.frames.append((seconds * 10**9 + nanoseconds, raw_id, data[:length]))

    # The procedure.

    def until(self, condition, within_s, what):
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() >= deadline:
                said = self.gateway.lines[-1][2] if self.gateway and self.gateway.lines else ""
                raise Failure(f"no {what} within {within_s} s; state {self.state}, to do: {self.next}; log: {said}")
            self.turn()

    def arm_and_drive(self):
        """The whole procedure, then half throttle and some steering, steadily on the bus."""
        if self.gateway is None or not self.gateway.running() or self.arms >= ARMS_PER_PROCESS:
            self.stop_gateway()
            self.start_gateway()
        self.start, self.left_x, self.trigger = b"false", b"0.0", b"-1.0"
        self.until(lambda: self.state == "READY" and self.next == "press and hold the arm switch", 20, "READY")
        self.start = b"true"
        self.until(lambda: self.state == "ARMED", 5, "ARMED")
        self.arms += 1
        self.start, self.left_x, self.trigger = b"false", b"0.5", b"0.4"
        self.frames.clear()
        self.until(lambda: any(raw_id == DRIVE_CMD and self.command(data).throttle > 2 for _, raw_id, data in self.frames),
                   5, "moving frame")
        self.turn_at += self.phase.randrange(TURN_NS)
        for _ in range(self.phase.randrange(2, 5)):
            self.turn()
        self.frames.clear()

    def wait_phase(self):
        """Up to one turn of nothing, for faults that are not a message."""
        time.sleep(self.phase.randrange(TURN_NS) / 1e9)

    @staticmethod
    def command(data):
        return Command(Frame(id=DRIVE_CMD, data=data))

    def drive_frames(self):
        return [(at_ns, self.command(data)) for at_ns, raw_id, data in self.frames if raw_id == DRIVE_CMD]

    def safe_since(self, start_ns, foreign=b""):
        """Time of the first safe frame, once there is one; fails if a frame that moves follows it."""
        row = [(at_ns, self.command(data)) for at_ns, raw_id, data in self.frames
               if raw_id == DRIVE_CMD and at_ns >= start_ns and data != foreign]
        first = next((at_ns for at_ns, command in row if not command.moves), None)
        late = [str(command) for at_ns, command in row if first is not None and at_ns > first and command.moves]
        if late:
            raise Failure(f"a moving frame after the safe one: {late[0]}")
        return first


def text_after(answer, key):
    """The text that follows the last place of the key: the gateway's own object is the last one in user_data."""
    at = answer.rfind(key)
    if at < 0:
        return None
    at += len(key)
    return answer[at:answer.index(b'"', at)].decode()


# The causes. Each breaks something and returns the moment from which it is counted.

def fault_flag(world):
    return world.turn(body=world.body(fault=b"true", reason=b"CameraLost"))


def bad_axis(world):
    return world.turn(body=world.body(CONTROLLER % (b"false", b"1e39", world.trigger)))


def controller_gone(world):
    return world.turn(body=world.body(controller=b""))


def fin(world):
    world.wait_phase()
    before_ns = time.time_ns()
    world.drop_client()
    return before_ns


def rst(world):
    world.wait_phase()
    before_ns = time.time_ns()
    world.drop_client(reset=True)
    return before_ns


def silence(world):
    """Counted from the last message."""
    last_ns = world.turn()
    for _ in range(14):
        world.turn(speak=False)
    return last_ns


def ack_freeze(world):
    """Counted from the last message with a new ack_time; everything else goes on."""
    last_ns = world.turn()
    for _ in range(29):
        world.turn(advance_ack=False)
    return last_ns


def counter_freeze(world):
    """Counted from the message with the last new counter; everything else goes on."""
    before = world.counter
    last_ns = 0
    while world.counter == before:
        last_ns = world.turn()
    for _ in range(29):
        world.turn(advance_counter=False)
    return last_ns


FOREIGN = bytes.fromhex("0000E80300000100")


def foreign_frame(world):
    """Counted from the kernel's timestamp of the foreign frame."""
    world.wait_phase()
    with socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW) as other:
        other.bind(("vcan0",))
        other.send(to_bytes(Frame(id=DRIVE_CMD, data=FOREIGN)))
    world.turn()
    return next(at_ns for at_ns, raw_id, data in world.frames if raw_id == DRIVE_CMD and data == FOREIGN)


def measure(bench, cause, count, expected, fresh=False, foreign=b"", program=None, exit_status=None):
    """Runs the cause count times; returns the reaction times in ms. `expected` is the cause that the gateway must tell."""
    world = World(bench, program)
    samples = []
    try:
        for number in range(count):
            if fresh and number:
                world.stop_gateway()
            world.arm_and_drive()
            start_ns = cause(world)
            deadline = time.monotonic() + 2
            while world.safe_since(start_ns, foreign) is None:
                if time.monotonic() > deadline:
                    raise Failure(f"no safe frame within 2 s of {cause.__name__}")
                world.turn(speak=cause not in (fin, rst))
            first_ns = world.safe_since(start_ns, foreign)
            samples.append((first_ns - start_ns) / 1e6)
            # The stick is still held: whatever comes in the next quarter of a second may not move anything.
            for _ in range(25):
                world.turn()
            world.safe_since(start_ns, foreign)
            if exit_status is None:
                world.until(lambda: world.cause is not None, 5, "cause in user_data")
                if world.cause != expected:
                    raise Failure(f"the operator is told {world.cause}, not {expected}")
            elif world.gateway.wait(5) != exit_status:
                raise Failure(f"exit status {world.gateway.wait(5)}, not {exit_status}")
    finally:
        world.stop_gateway()
        world.drop_client()
        world.listener.close()
        world.can.close()
    return samples


def report(bench, name, samples, budget_ms, what="safe frame"):
    """One line of the table. Fails when one of them is over the budget, or implausible."""
    over = [sample for sample in samples if sample > budget_ms]
    bench.note(f"reaction {name:22} to {what}: {percentiles(samples)}, budget {budget_ms} ms")
    if min(samples) < 0:
        raise Failure(f"{name}: answered {-min(samples):.3f} ms before it happened: the measurement is wrong")
    if over:
        raise Failure(f"{name}: {len(over)} of {len(samples)} over {budget_ms} ms, the longest {max(samples):.3f} ms")


COUNT = int(os.environ.get("REACTION_N", "20"))


def run(bench, cause, budget_ms, expected, **options):
    bench.vcan()
    report(bench, cause.__name__, measure(bench, cause, COUNT, expected, **options), budget_ms)


@test(mode="icount", deadline_s=3600)
def row_25_fault_flag(bench):
    run(bench, fault_flag, 25, "ocp_fault")


@test(mode="icount", deadline_s=3600)
def row_35_bad_axis(bench):
    run(bench, bad_axis, 25, "invalid_message")


@test(mode="icount", deadline_s=3600)
def row_29_controller_gone(bench):
    run(bench, controller_gone, 25, "controller_missing")


@test(mode="icount", deadline_s=3600)
def row_02_fin(bench):
    run(bench, fin, 25, "ocp_down")


@test(mode="icount", deadline_s=3600)
def row_03_rst(bench):
    run(bench, rst, 25, "ocp_down")


@test(mode="icount", deadline_s=3600)
def row_04_silence(bench):
    run(bench, silence, 125, "ocp_silence")


@test(mode="icount", deadline_s=3600)
def row_19_ack_freeze(bench):
    run(bench, ack_freeze, 275, "ack_frozen")


@test(mode="icount", deadline_s=3600)
def row_30_counter_freeze(bench):
    run(bench, counter_freeze, 275, "operator_frozen")


@test(mode="icount", deadline_s=3600)
def row_58_foreign_frame(bench):
    run(bench, foreign_frame, 25, "foreign_writer", fresh=True, foreign=FOREIGN)


# A thread that panics, in a program that has the means to make it (feature fault-points).

def fault_point_program(bench):
    """The newest program with fault points, without its debug symbols, on tmpfs."""
    built = ROOT / "target" / "debug" / "ocpcan"
    copy = bench.folder / "ocpcan-with-fault-points"
    if built.exists() and b"fault point: " in built.read_bytes():
        if not shutil.which("strip") or subprocess.run(["strip", "-o", copy, built], check=False).returncode != 0:
            shutil.copy(built, copy)
        return copy
    raise Failure("target/debug/ocpcan has no fault points; run `cargo build --features fault-points`")


def panics(thread):
    def panic(world):
        """Counted from before the message whose turn panics, or, in the watchdog, from before the trigger is there."""
        trigger = world.bench.folder / "trigger"
        draft = world.bench.folder / "draft"
        draft.write_text(f"panic {thread}", encoding="ascii")
        world.wait_phase()
        before_ns = time.time_ns()
        draft.rename(trigger)
        world.turn()
        return before_ns
    panic.__name__ = f"panic_{thread}"
    return panic


def run_panic(bench, thread):
    bench.vcan()
    trigger = bench.folder / "trigger"
    os.environ["OCPCAN_FAULT_POINT"] = str(trigger)
    try:
        cause = panics(thread)
        samples = measure(bench, cause, COUNT, None, fresh=True, program=fault_point_program(bench), exit_status=70)
    finally:
        del os.environ["OCPCAN_FAULT_POINT"]
    report(bench, cause.__name__, samples, 25)


@test(mode="icount", deadline_s=3600)
def row_81_panic_of_a_reader(bench):
    """At the next message, which is up to 10 ms after the trigger, and that wait is counted."""
    run_panic(bench, "ocp")


@test(mode="icount", deadline_s=3600)
def row_81_panic_of_the_watchdog(bench):
    run_panic(bench, "watchdog")


# Where frames cannot leave.

def leaves_armed(bench, name, budget_ms, expected, break_it, mend):
    """Reaction to what keeps frames from leaving: until user_data no longer says ARMED."""
    world = World(bench)
    samples = []
    try:
        for _ in range(COUNT):
            world.arm_and_drive()
            start_ns = break_it(world)
            world.until(lambda: world.state != "ARMED", 2, "end of ARMED in user_data")
            start_ns = start_ns or first_lost(world)
            samples.append((world.state_at_ns - start_ns) / 1e6)
            if world.cause != expected:
                raise Failure(f"the operator is told {world.cause}, not {expected}")
            world.frames.clear()
            mend(world)
            world.until(lambda: len(world.drive_frames()) >= 5, 5, "frames on the bus again")
            moving = [str(command) for _, command in world.drive_frames() if command.moves]
            # A frame that was in flight may be released by what stored it; here nothing stores.
            if moving:
                raise Failure(f"moving frames after {name}: {moving[0]}")
    finally:
        world.stop_gateway()
        world.drop_client()
        world.listener.close()
        world.can.close()
    report(bench, name, samples, budget_ms, "user_data")


def first_lost(world):
    """When the first frame that did not leave was due: one period after the last of its id that did."""
    last = {}
    for at_ns, raw_id, _ in world.frames:
        last[raw_id] = at_ns
    return min(last[raw_id] + period_ms * 1_000_000 for raw_id, period_ms in CAN_PERIOD_MS.items() if raw_id in last)


@test(mode="icount", deadline_s=3600)
def row_50_interface_down(bench):
    """Nothing can leave, so the proof is user_data out of ARMED (SAFETY.md, S9)."""
    bench.vcan()

    def down(world):
        world.wait_phase()
        before_ns = time.time_ns()
        bench.link_down("vcan0")
        return before_ns
    leaves_armed(bench, "interface_down", 25, "bus_down", down, lambda world: bench.link_up("vcan0"))


@test(mode="icount", deadline_s=3600)
def row_52_echo_lost(bench):
    """Writes succeed and nothing leaves: netem loss 100 % on a vcan whose driver makes the echo."""
    bench.run("modprobe", "-r", "vcan")
    bench.run("modprobe", "vcan", "echo=1")
    try:
        bench.vcan()
        # One shell for all of them: starting a program from Python takes longer than the whole reaction.
        shell = bench.start("sh", "sh")

        def lose(world):
            world.until(lambda: {raw_id for _, raw_id, _ in world.frames} >= {*CAN_PERIOD_MS}, 2, "frames of both ids")
            world.wait_phase()
            shell.write("tc qdisc replace dev vcan0 root netem loss 100%; echo lost")

        def mend(world):
            mark = shell.mark()
            shell.write("tc qdisc del dev vcan0 root; echo mended")
            world.until(lambda: "mended" in [text for _, _, text in shell.lines[mark:]], 5, "end of tc")
        leaves_armed(bench, "echo_lost", 75, "echo_lost", lose, mend)
    finally:
        bench.close()
        bench.run("modprobe", "-r", "vcan")
        bench.run("modprobe", "vcan")


def main():
    """Every cause, or those named, with n trials each: the registry runs them as it does for tests/run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=200, help="trials per cause (200)")
    parser.add_argument("words", nargs="*", help="only the causes whose name contains one of these")
    options = parser.parse_args()
    words = [f"reaction.{word}" for word in options.words] or ["reaction."]
    os.execvpe(sys.executable, [sys.executable, "-m", "lib", "icount", *words],
               {**os.environ, "REACTION_N": str(options.n)})


if __name__ == "__main__":
    main()
