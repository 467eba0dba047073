"""The gateway's own tunnel on real vcan: what a peer can do to a bus while the gateway drives it.

Relies on lib/drive.py for the drive and the oracle over DRIVE_CMD. The peer is written here from the protocol's page. Row
numbers are those of SAFETY.md.
"""
import contextlib
import random
import select
import socket
import struct
import time

from lib import Failure, test, wait_for
from lib.bench import percentiles
from lib.drive import Drive

PORT = 20010
VERSION = b"v\x04\x00\x00\x00\x01"
EXTENDED, REMOTE, ERROR = 1 << 31, 1 << 30, 1 << 29
LISTED = 0x7DF
TESTER_PRESENT = b"\x02\x3e\x00"  # a request that changes nothing: it may pass while the vehicle is driven


def expect(condition, why):
    if not condition:
        raise Failure(why)


def classic(word, data=bytes(8)):
    return b"d\x10" + struct.pack("<IBxxx", word, len(data)) + data.ljust(8, b"\0")


def fd(word, length=64):
    return b"d\x48" + struct.pack("<IBBxx", word, length, 1) + bytes(64)


def tunnel(listen="127.0.0.1", allow=None):
    lines = ["", "[tcpcan.vehicle]", f'listen = "{listen}:{PORT}"', "frames_per_s = 100"]
    if allow:
        lines.append(f'allow = ["{allow}"]')
    lines += ["[tcpcan.vehicle.inject]", f"always = [{LISTED}]", ""]
    return lambda text: text + "\n".join(lines)


def connect(host="127.0.0.1", source=None):
    """A peer that has agreed; its frames are thrown away when it is asked to send."""
    peer = socket.create_connection((host, PORT), timeout=20, source_address=source)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.sendall(VERSION)
    got = b""
    while len(got) < len(VERSION):
        chunk = peer.recv(len(VERSION) - len(got))
        expect(chunk, "closed instead of the version")
        got += chunk
    expect(got == VERSION, f"answered {got}")
    return peer


def is_open(peer):
    """Reads what came; false at the end of the connection."""
    with contextlib.suppress(ConnectionError):
        while select.select([peer], [], [], 0)[0]:
            if not peer.recv(65536):
                return False
        return True
    return False


@test(mode="default", deadline_s=240)
def row_91_a_spray_of_ids_while_armed(bench):
    """All standard ids and a sample of extended ones in every encoding, through the real socket while it drives."""
    drive = Drive(bench, bench.vcan(), edit=tunnel())
    drive.gateway.wait_line(r"tcpcan: .*listening", 10)
    seed = random.randrange(1 << 32)
    bench.note(f"seed {seed}")
    chance = random.Random(seed)
    drive.drive_off()
    mark, sent = drive.bus.mark(), 0
    ids = [word for raw in range(2048) if raw != LISTED for word in (raw, raw | EXTENDED)]
    ids += [chance.randrange(1 << 29) | EXTENDED for _ in range(2000)]
    peer = connect()
    for word in ids:
        actuator = word & 0x1FFFFFFF in (0x101, 0x102)
        messages = [classic(word), classic(word | REMOTE, b""), classic(word | ERROR), fd(word)]
        for message in messages if actuator else chance.sample(messages, 1):
            try:
                peer.sendall(message)
                sent += 1
            except ConnectionError:
                peer = connect()
        if actuator or sent % 512 == 0:
            if not is_open(peer):
                peer = connect()
    last = connect()
    last.sendall(classic(LISTED, TESTER_PRESENT))
    drive.bus.wait(LISTED, within_s=20, mark=mark)
    passed = [frame for frame in drive.bus.after(mark) if frame.id not in (0x101, 0x102, 0x201, 0x202)]
    expect([frame.id for frame in passed] == [LISTED], f"{len(passed)} frames passed: {passed[:3]}")
    expect(drive.state() == "ARMED", f"tripped: {drive.gateway_data()}")
    row = drive.commands(mark)
    expect(row and all(command.enable for command in row), "the drive was disturbed")
    drive.check_row()
    bench.note(f"{sent} frames sent, 1 passed, {len(row)} frames of the drive meanwhile")


@test(mode="default", deadline_s=200)
def row_94_a_flood_while_armed(bench):
    """A peer that floods: the drive goes on. The actuator period with and without it is printed, and judged by nobody."""
    drive = Drive(bench, bench.vcan(), edit=tunnel())
    drive.gateway.wait_line(r"tcpcan: .*listening", 10)
    drive.drive_off()

    def periods(mark):
        times = [command.frame.time_ns for command in drive.commands(mark)]
        return percentiles([(two - one) / 1e6 for one, two in zip(times, times[1:])])
    mark = drive.bus.mark()
    time.sleep(3)
    quiet = periods(mark)
    peer = connect()
    peer.settimeout(0.5)
    burst = b"".join(classic(LISTED, TESTER_PRESENT) for _ in range(80))
    mark, sent, until = drive.bus.mark(), 0, time.monotonic() + 3
    while time.monotonic() < until:
        with contextlib.suppress(TimeoutError):
            peer.sendall(burst)
            sent += 80
        expect(is_open(peer), "the flooding peer was closed")
    flooded = periods(mark)
    expect(drive.state() == "ARMED", f"tripped: {drive.gateway_data()}")
    passed = len(drive.bus.frames(LISTED))
    expect(0 < passed < 100 * 8 and passed < sent, f"{passed} of {sent} passed")
    bench.note(f"period of DRIVE_CMD without the flood: {quiet}")
    bench.note(f"period of DRIVE_CMD with {sent} frames in 3 s ({passed} passed): {flooded}")
    drive.check_row()


@test(mode="default", deadline_s=120)
def row_98_a_client_from_elsewhere_is_refused(bench):
    """An address of another network on this machine: refused without a place on the list, let in with one."""
    bench.run("ip", "addr", "add", "10.98.0.1/32", "dev", "lo")
    bench.run("ip", "addr", "add", "10.98.0.2/32", "dev", "lo")
    try:
        drive = Drive(bench, bench.vcan(), edit=tunnel("0.0.0.0", "10.98.0.2"))
        drive.gateway.wait_line(r"tcpcan: .*listening", 10)
        connect().close()
        connect("10.98.0.1", ("10.98.0.2", 0)).close()
        # The reset may come before the connection is made for this side. The gateway's line below is the proof either way.
        with contextlib.suppress(ConnectionResetError):
            stranger = socket.create_connection(("10.98.0.1", PORT), timeout=20, source_address=("10.98.0.1", 0))
            wait_for(lambda: not is_open(stranger), 10, "the stranger is refused")
        drive.gateway.wait_line(r"10\.98\.0\.1:\d+: refused, not on the allow list", 10)
    finally:
        bench.run("ip", "addr", "del", "10.98.0.1/32", "dev", "lo")
        bench.run("ip", "addr", "del", "10.98.0.2/32", "dev", "lo")


@test(mode="default", deadline_s=60)
def a_driven_bus_is_refused_by_the_standalone_tunnel(bench):
    """Before and after: a tunnel that was there first ends when the gateway comes."""
    bus = bench.vcan()
    early = bench.ocpcan("tcpcan", bus, "--serve", "--port", PORT + 1, "-v")
    early.wait_line("listening", 10)
    drive = Drive(bench, bus)
    expect(early.wait(20) == 69, "exit status of the tunnel that was there first")
    late = bench.ocpcan("tcpcan", bus, "--serve", "--port", PORT + 1)
    late.wait_line(r"\[tcpcan\.NAME\]", 10)
    expect(late.wait(10) == 69, "exit status of the tunnel that came later")
    expect(drive.gateway.running(), "the gateway goes on")
