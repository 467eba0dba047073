"""The same drive on two emulated SJA1000 controllers, the gateway on can0 and the vehicle on can1, and on a serial adapter:
here frames can be accepted and not leave, leave late, or meet a bus-off, and a bus has another end.

Relies on lib/drive.py and on the ways of breaking a bus that vcan_basic.py proves. Row numbers are those of SAFETY.md.
"""
import os
import socket
import threading
import time

from lib import Failure, now_ns, test, wait_for
from lib.drive import BODY_CMD, DRIVE_CMD, GENEROUS, PERIOD_MS, Command, Drive, crc8_j1850, look_for


def expect(condition, why):
    if not condition:
        raise Failure(why)


def drive_on_wire(bench, **options):
    """The gateway on can0, the vehicle and the observer on can1."""
    zero, one = bench.controllers()
    return Drive(bench, zero, vehicle_on=one, sniff_on=one, **options)


@test(mode="sja1000", deadline_s=180)
def drive_over_two_controllers(bench):
    drive = drive_on_wire(bench)
    drive.drive_off()
    mark = drive.bus.mark()
    look_for(lambda: drive.speed() > 3, 20, "the vehicle moves")
    time.sleep(2)
    row = drive.commands(mark)
    expect(len(row) > 80 and all(command.enable and command.throttle > 0 for command in row), f"{len(row)} frames")
    expect(not any(command.frame.local for command in row), "the frames did not come over the wire")
    drive.check_row()
    drive.server.say("fault CameraLost on")
    drive.wait_safe(mark)
    drive.server.say("fault CameraLost off")
    drive.stays_safe(mark, 3)
    expect(drive.gateway_data()["cause"] == "ocp_fault", f"told {drive.gateway_data()}")
    drive.check_row()


@test(mode="sja1000", deadline_s=200)
def row_52_frames_do_not_leave(bench):
    """netem loss 100 %: every write succeeds. The missing echo trips; the way back is the whole procedure."""
    drive = drive_on_wire(bench)
    drive.drive_off()
    bench.netem("can0", "loss 100%")
    told = drive.wait_state({"STOPPING", "SAFE"}, 2, "after frames stopped leaving")
    expect(told["cause"] == "echo_lost", f"told {told}")
    time.sleep(1)
    mark = drive.bus.mark()
    bench.clear_qdisc("can0")
    first = Command(drive.bus.wait(DRIVE_CMD, within_s=5, mark=mark))
    expect(not first.moves, f"the first frame after the gap is {first}")
    drive.stays_safe(mark, 3)
    expect(drive.gateway_data()["cause"] == "echo_lost", f"told {drive.gateway_data()}")
    drive.drive_off()


@test(mode="sja1000", deadline_s=200)
def row_54_dead_bus_locks_out_and_the_service_stays(bench):
    """Nothing leaves for can_dead_ms: LOCKOUT, and systemd's watchdog is still fed: killing repairs no bus."""
    path = bench.folder / "notify"
    beats = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    beats.bind(str(path))
    beats.settimeout(0.5)
    said = []

    def listen():
        while not gone.is_set():
            try:
                said.append((time.monotonic(), beats.recv(4096).decode()))
            except TimeoutError:
                pass
    gone = threading.Event()
    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    drive = drive_on_wire(bench, times={**GENEROUS, "can_dead_ms": 2000}, NOTIFY_SOCKET=str(path),
                          WATCHDOG_USEC="1000000")
    drive.drive_off()
    bench.netem("can0", "loss 100%")
    drive.wait_state("LOCKOUT", 10, "after two seconds without an echo")
    locked = time.monotonic()
    time.sleep(1.5)
    bench.clear_qdisc("can0")
    mark = drive.bus.mark()
    drive.stays_safe(mark, 1.5)
    expect(drive.state() == "LOCKOUT", f"left LOCKOUT by itself: {drive.gateway_data()}")
    fed = [at for at, text in said if "WATCHDOG=1" in text]
    gaps = [two - one for one, two in zip(fed, fed[1:])]
    expect(any("READY=1" in text for _, text in said), "never READY=1")
    expect(fed and fed[-1] > locked + 1 and max(gaps) < 1, f"fed {len(fed)} times, longest pause {max(gaps, default=0):.1f} s")
    expect(drive.gateway.terminate() == 0, "exit status")
    gone.set()
    listener.join()
    expect(any("STOPPING=1" in text for _, text in said), "never STOPPING=1")
    beats.close()


@test(mode="sja1000", deadline_s=200)
def row_52_stored_frames_come_late(bench):
    """netem delay 1 s: frames are stored and released later. At most one old frame per id, and the last one is safe."""
    drive = drive_on_wire(bench)
    drive.drive_off()
    bench.netem("can0", "delay 1s")
    drive.wait_state({"STOPPING", "SAFE"}, 2, "after frames were held back")
    tripped_ns = now_ns()
    expect(drive.gateway_data()["cause"] == "echo_lost", f"told {drive.gateway_data()}")
    time.sleep(2.5)  # everything that was stored comes out meanwhile
    late = [Command(frame) for frame in drive.bus.frames(DRIVE_CMD, since_ns=tripped_ns)]
    moving = [command for command in late if command.moves]
    body = drive.bus.frames(BODY_CMD, since_ns=tripped_ns)
    bench.note(f"after the trip {len(late)} DRIVE_CMD came out, {len(moving)} of them old; {len(body)} BODY_CMD")
    expect(len(moving) <= 1, f"{len(moving)} old frames after the trip: {[str(command) for command in moving[:4]]}")
    expect(late and not late[-1].moves, f"the last frame is {late[-1:]}")
    mark = drive.bus.mark()
    bench.clear_qdisc("can0")
    drive.stays_safe(mark, 3)
    drive.drive_off()


@test(mode="sja1000", deadline_s=180)
def row_55_late_echo_within_the_limit(bench):
    """Echoes 30 ms late are slow, not lost: it drives on, slower, with one frame in flight."""
    drive = drive_on_wire(bench)
    drive.drive_off()
    bench.netem("can0", "delay 30ms")
    time.sleep(1)
    mark = drive.bus.mark()
    time.sleep(1.5)
    row = drive.commands(mark)
    expect(drive.state() == "ARMED", f"tripped: {drive.gateway_data()}")
    expect(row and all(command.enable for command in row), "not driving")
    bench.note(f"{len(row)} frames in 1.5 s with an echo after 30 ms")
    drive.check_row()


FLOOD_ID = 0x7F0
# A frame of 8 bytes with an 11-bit id has 111 bits, up to 135 with stuffing: four each millisecond are 89 to 108 % of
# 500 kbit/s. The emulated controller has no bit rate of its own, so the sender's pace is the bus's.
FLOOD = ("cangen", "can1", "-g", "1", "-c", "4", "-I", f"{FLOOD_ID:X}", "-L", "8", "-i")
FLOOD_FPS = 4000
FLOOD_COUNTED = 2000


@test(mode="sja1000", deadline_s=180)
def row_56_bus_full_of_lower_priority(bench):
    """A flood of frames of lower priority from the other end: it drives on, and it stops as fast. The flood is counted before
    the fault. An emulated bus knows no bit time: how many frames it carries is the machine's speed, and is printed; what is
    asked for is four of the flood for each frame of ours, without a gap."""
    drive = drive_on_wire(bench)
    drive.drive_off()
    mark, log = drive.bus.mark(), drive.gateway.mark()
    flood = bench.start("cangen", *FLOOD)

    def flooded():
        return [frame for frame in drive.bus.after(mark) if frame.id == FLOOD_ID and not frame.error]
    look_for(lambda: len(flooded()) >= FLOOD_COUNTED, 30, f"{FLOOD_COUNTED} frames of the flood")
    counted = flooded()
    took_s = (counted[-1].time_ns - counted[0].time_ns) / 1e9
    row = [command for command in drive.commands(mark) if command.frame.time_ns >= counted[0].time_ns]
    bench.note(f"before the fault {len(counted)} frames of the flood in {took_s:.2f} s: {len(counted) / took_s:.0f}/s of "
               f"{FLOOD_FPS}/s; {len(row)} DRIVE_CMD among them")
    expect(len(counted) > 4 * len(row), "there was no flood")
    left = [text for _, _, text in drive.gateway.lines[log:] if text.startswith("ARMED ->")]
    expect(drive.state() == "ARMED" and not left, f"tripped: {left} {drive.gateway_data()}")
    expect(len(row) > took_s * 1000 / PERIOD_MS / 2 and all(command.enable for command in row),
           f"not driving: {len(row)} frames in {took_s:.2f} s")
    mark, asked_ns = drive.bus.mark(), now_ns()
    drive.server.say("inject fault")
    first = drive.wait_safe(mark)
    drive.bus.wait(lambda frame: frame.id == FLOOD_ID and frame.time_ns > first.frame.time_ns, 5, mark, "the flood goes on")
    meanwhile = len(drive.bus.frames(FLOOD_ID, asked_ns, first.frame.time_ns))
    bench.note(f"first safe frame {(first.frame.time_ns - asked_ns) / 1e6:.0f} ms after the fault was ordered, "
               f"{meanwhile} frames of the flood between")
    expect(meanwhile > 0, "no flood when it stopped")
    drive.stays_safe(mark, 2)
    expect(flood.running(), "the flood had ended")
    flood.close()
    drive.check_row()


@test(mode="sja1000", deadline_s=180)
def row_57_foreign_node_sends_our_frame(bench):
    """Another node of the bus, with a right checksum: LOCKOUT."""
    drive = drive_on_wire(bench)
    payload = bytes.fromhex("0000E803000001")
    payload += bytes([crc8_j1850(payload)])
    drive.foreign.append(payload)
    drive.trips(lambda: bench.cansend("can1", f"101#{payload.hex()}"), "foreign_writer")
    drive.wait_state("LOCKOUT", 10)
    drive.server.say("neutral")
    time.sleep(1.5)
    drive.server.say("press start")
    time.sleep(1.5)
    expect(drive.state() == "LOCKOUT", f"LOCKOUT left by the operator: {drive.gateway_data()}")


@test(mode="sja1000", deadline_s=180)
def row_67_long_transmit_queue(bench):
    """txqueuelen 1000 could hold many old commands: not ready until somebody sets it right."""
    bench.controllers()
    bench.run("ip", "link", "set", "can0", "txqueuelen", "1000")
    try:
        drive = Drive(bench, "can0", vehicle_on="can1", sniff_on="can1")
        drive.gateway.wait_line(r"txqueuelen", 10)
        drive.server.say("neutral")
        told = drive.wait_state("SAFE", 10)
        drive.bus.wait(DRIVE_CMD, within_s=5)
        time.sleep(2)
        told = drive.gateway_data()
        expect(told["state"] == "SAFE" and told["fault"] == "no_proof", f"told {told}")
        expect(all(command.is_final for command in drive.commands()), "a frame that is not safe")
    finally:
        bench.run("ip", "link", "set", "can0", "txqueuelen", "10")
    drive.drive_off()


@test(mode="sja1000", deadline_s=180)
def row_50_controller_down_while_driving(bench):
    drive = drive_on_wire(bench)
    drive.drive_off()
    bench.link_down("can0")
    told = drive.wait_state({"STOPPING", "SAFE"}, 2, "after the interface went down")
    expect(told["cause"] == "bus_down", f"told {told}")
    time.sleep(0.5)
    mark = drive.bus.mark()
    bench.link_up("can0")
    first = Command(drive.bus.wait(DRIVE_CMD, within_s=5, mark=mark))
    expect(not first.moves, f"the first frame after up is {first}")
    drive.stays_safe(mark, 3)
    drive.drive_off()


@test(mode="sja1000", deadline_s=180)
def row_73_wall_clock_jumps(bench):
    """A year forth and back, and 1970: nothing happens."""
    drive = drive_on_wire(bench)
    drive.drive_off()
    mark = drive.bus.mark()
    before, started = time.time(), time.monotonic()
    try:
        for clock_s in (before + 366 * 86400, before - 366 * 86400, 86400.0):
            time.clock_settime(time.CLOCK_REALTIME, clock_s)
            time.sleep(0.5)
    finally:
        time.clock_settime(time.CLOCK_REALTIME, before + time.monotonic() - started)
    expect(drive.state() == "ARMED", f"tripped: {drive.gateway_data()}")
    row = drive.commands(mark)
    expect(len(row) > 40 and all(command.enable for command in row), "not driving all the time")
    drive.check_row()


# A serial adapter: real bus-off, real hot unplug, and an echo that proves nothing.

@test(mode="sja1000", deadline_s=200)
def row_53_bus_off_on_a_serial_adapter(bench):
    """Bus-off trips; a restart is asked for; what brings it back is link down and up, and then the whole procedure."""
    adapter = bench.slcan()
    name = adapter.interface
    drive = Drive(bench, name, vehicle_on=name, echo="unproven")
    drive.gateway.wait_line(r"unproven", 10)
    drive.drive_off()
    wait_for(lambda: any(line.startswith(b"t1018") for line in adapter.received), 5, "the adapter gets DRIVE_CMD")
    adapter.bus_off()
    told = drive.wait_state({"STOPPING", "SAFE"}, 2, "after the bus-off")
    expect(told["cause"] in ("bus_off", "bus_down"), f"told {told}")
    bench.note(f"told cause {told['cause']}")
    asked = drive.runtime / f"restart-{name}"
    wait_for(asked.exists, 5, "the restart is asked for")
    time.sleep(1)
    expect(drive.state() in ("STOPPING", "SAFE"), f"state {drive.state()}")
    mark = drive.bus.mark()
    sent = len(adapter.received)
    bench.link_down(name)
    bench.link_up(name)
    first = Command(drive.bus.wait(DRIVE_CMD, within_s=5, mark=mark))
    expect(not first.moves, f"the first frame after the restart is {first}")
    drive.stays_safe(mark, 3)
    moved = [line for line in adapter.received[sent:] if line.startswith(b"t1018") and on_wire(line).moves]
    expect(not moved, f"moving frames reached the adapter after the restart: {moved[:2]}")
    drive.drive_off()


def on_wire(line):
    """DRIVE_CMD from what the kernel told the adapter: t1018 and 16 digits."""
    from lib import Frame  # pylint: disable=import-outside-toplevel
    return Command(Frame(id=DRIVE_CMD, data=bytes.fromhex(line[5:21].decode())))


@test(mode="sja1000", deadline_s=200)
def row_51_adapter_pulled_and_plugged_in(bench):
    # An adapter of the test before may still be on its way out, and its name with it.
    wait_for(lambda: not os.path.exists("/sys/class/net/can2"), 5, "no adapter is left")
    adapter = bench.slcan()
    name = adapter.interface
    drive = Drive(bench, name, vehicle_on=name, echo="unproven")
    drive.drive_off()
    adapter.unplug()
    told = drive.wait_state({"STOPPING", "SAFE"}, 2, "after the adapter was pulled")
    expect(told["cause"] == "bus_down", f"told {told}")
    wait_for(lambda: not os.path.exists(f"/sys/class/net/{name}"), 5, "the interface is gone")
    drive.vehicle.kill()
    again = bench.slcan()
    expect(again.interface == name, f"it came back as {again.interface}")
    drive.bus = bench.sniff(name)
    drive.vehicle = drive.start_vehicle(name)
    first = Command(drive.bus.wait(DRIVE_CMD, within_s=10))
    expect(not first.moves, f"the first frame is {first}")
    drive.stays_safe(0, 3)
    drive.drive_off()


@test(mode="sja1000", deadline_s=90)
def row_65_adapter_without_proof_is_refused(bench):
    """The same adapter where the configuration demands proof: safe frames, never ready, and it says why."""
    adapter = bench.slcan()
    drive = Drive(bench, adapter.interface, vehicle_on=adapter.interface)
    drive.server.say("neutral")
    told = drive.wait_state("SAFE", 10)
    look_for(lambda: drive.gateway_data().get("fault") == "no_proof", 10, "the fault no_proof")
    time.sleep(1.5)
    told = drive.gateway_data()
    expect(told["state"] == "SAFE" and told["fault"] == "no_proof", f"told {told}")
    expect(all(command.is_final for command in drive.commands()), "a frame that is not safe")
