"""The gateway, the simulated Streamer and the simulated vehicle as three processes on a real vcan0: they drive, and every
fault that can be made here ends in safe frames, with nothing that moves after them and nothing that arms by itself.

Relies on lib/drive.py for the drive and its oracle. Row numbers are those of the fault catalogue in SAFETY.md.
"""
import re
import signal
import socket
import statistics
import time
from pathlib import Path

from lib import Decoder, Failure, now_ns, test, wait_for
from lib.drive import BODY_CMD, DRIVE_CMD, Command, Drive, OcpControl, look_for, write_config

ROOT = Path(__file__).resolve().parent.parent.parent


def expect(condition, why):
    if not condition:
        raise Failure(why)


# The drive itself.

@test(deadline_s=200)
def drive_is_cyclic_with_counter_and_crc(bench):
    """DRIVE_CMD every 20 ms, decoded by cantools, checksum by Python; the vehicle obeys and the operator sees it."""
    bench.vcan()
    decoder = Decoder(ROOT / "deploy" / "example.dbc")
    dump = bench.start("candump", "stdbuf", "-oL", "candump", "-L", "vcan0")
    drive = Drive(bench)
    monitor = bench.ocpcan("monitor", "vcan0", "--dbc", ROOT / "deploy" / "example.dbc")
    drive.drive_off()
    mark, log, started = drive.bus.mark(), drive.gateway.mark(), time.monotonic()
    expect(drive.state() == "ARMED", f"at the beginning of the drive: {drive.gateway_data()}")
    look_for(lambda: drive.speed() > 1, 20, "the vehicle moves")
    drive.server.say('user {"headlights": true, "steering_mode": "crab"}')
    drive.bus.wait(lambda frame: frame.id == BODY_CMD and not frame.error and frame.data[0] & 1, 20, mark,
                   "BODY_CMD with headlights")
    time.sleep(3)  # nothing is waited for: these are the seconds that are looked at
    row, stretch_ms = drive.commands(mark), (time.monotonic() - started) * 1000
    # The answer after the last frame of the stretch says since when the state has been what it is.
    answers = drive.server.status()["responses"]
    data = look_for(lambda: (told := drive.server.status())["responses"] > answers + 1 and told, 5, "another answer")
    held = data["user_data"]["gateway"]
    expect(held["state"] == "ARMED" and held["armed"] is True and held["since_ms"] >= stretch_ms,
           f"not ARMED for all of the {stretch_ms:.0f} ms: {held}")
    left = [text for _, _, text in drive.gateway.lines[log:] if text.startswith("ARMED ->")]
    expect(not left, f"the gateway left ARMED: {left}")
    speed = data["user_data"]["speed_kph"]
    frames = [command.frame for command in row]
    expect(len(row) > 100, f"only {len(row)} DRIVE_CMD in more than 3 s")
    expect(all(command.enable and command.throttle > 0 for command in row), "not every frame of the drive drives")

    gaps_ms = [(two.time_ns - one.time_ns) / 1e6 for one, two in zip(frames, frames[1:])]
    mean = statistics.mean(gaps_ms)
    bench.note(f"DRIVE_CMD every {mean:.2f} ms (median {statistics.median(gaps_ms):.2f}, longest {max(gaps_ms):.1f}), "
               f"{len(row)} frames; speed {speed} km/h; ARMED for {held['since_ms']} ms at the end of {stretch_ms:.0f} ms")
    expect(19 <= statistics.median(gaps_ms) <= 21, f"median period {statistics.median(gaps_ms)} ms")

    counters = []
    for frame in frames:
        values = decoder.decode(frame)
        counters.append(int(values["DRIVE_CMD_COUNTER"]))
        command = Command(frame)
        expect(values["DRIVE_ENABLE"] == "on" and abs(values["THROTTLE_CMD"] - command.throttle) < 1e-6
               and abs(values["STEER_ANGLE_CMD"] - command.steer) < 1e-6 and values["DRIVE_CMD_CRC"] == command.crc,
               f"cantools reads {values} from {command}")
        expect(0 < values["THROTTLE_CMD"] <= 60 and 0 < values["STEER_ANGLE_CMD"] <= 450, f"out of range: {values}")
    expect(all(two == (one + 1) % 16 for one, two in zip(counters, counters[1:])), "the counter jumps")
    drive.check_row()

    # Decoding took its time, and the drive may have ended meanwhile: no frame and no answer from after the stretch.
    body = [decoder.decode(f) for f in drive.bus.frames(BODY_CMD, frames[0].time_ns, frames[-1].time_ns)]
    expect(body[-1]["HEADLIGHTS"] == "on", f"headlights: {body[-1]}")
    expect(all(one["STEERING_MODE"] == "manual" for one in body), "the steering mode changed while driving")
    expect(data["user_data"]["gear"] is not None, f"told {data}")
    expect(data["pos"] and abs(data["pos"]["lat"]) > 0, f"no position: {data['pos']}")
    expect(abs(data["user_data"]["steer_angle"]) > 1, f"the vehicle does not steer: {data['user_data']}")

    lines = re.findall(r"vcan0 101#([0-9A-F]{16})", dump.output("out"))
    expect(len(lines) > 100, f"candump shows {len(lines)} DRIVE_CMD")
    shown = monitor.output("out")
    expect(re.search(r"DRIVE_CMD", shown) and re.search(r"THROTTLE_CMD\D+\d", shown),
           f"monitor shows {shown.splitlines()[-3:]}")


@test(deadline_s=90)
def listen_sends_nothing(bench):
    """`run --listen` does everything but send: it connects, answers, and reads the vehicle."""
    bench.vcan()
    drive = Drive(bench, run_options=["--listen"])
    look_for(lambda: drive.server.status()["user_data"], 20, "an answer of the gateway")
    look_for(lambda: (drive.server.status()["user_data"] or {}).get("gear"), 20, "the vehicle's gear in the answer")
    mark = drive.bus.mark()
    time.sleep(2)
    own = [str(f) for f in drive.bus.frames() if f.id in (DRIVE_CMD, BODY_CMD)]
    expect(not own, f"{len(own)} frames sent while listening: {own[:2]}")
    expect(len(drive.bus.after(mark)) > 20, "the vehicle was not there")


# The network and OCP.

@test(deadline_s=200)
def row_02_server_killed(bench):
    """The server dies; a new one comes with the stick and the arm button held from its first message (rows 2, 46, 1)."""
    bench.vcan()
    drive = Drive(bench)

    def mend():
        drive.restart_server("defaults last", 'user {"headlights":false,"horn":false,"steering_mode":"manual"}',
                             "trigger right 0.7", "axis left_x 0.5", "press start")
        look_for(lambda: drive.server.status()["responses"] > 50, 20, "the gateway is back")
    drive.trips(drive.server.process.kill, "ocp_down", mend)
    # Stick released, button still down: still not. Button up and down again: the full procedure works.
    drive.server.say("trigger right 0", "axis left_x 0")
    until = time.monotonic() + 3
    while time.monotonic() < until:
        expect(drive.state() != "ARMED", "armed by a button that was down at connect")
        time.sleep(0.05)
    drive.server.say("release start")
    drive.drive_off()
    drive.check_row()


@test(deadline_s=180)
def row_25_fault_flag(bench):
    bench.vcan()
    drive = Drive(bench)
    drive.trips(lambda: drive.server.say("fault CameraLost on"), "ocp_fault",
                lambda: drive.server.say("fault CameraLost off"))


@test(deadline_s=180)
def row_26_fault_flag_in_one_message(bench):
    bench.vcan()
    drive = Drive(bench)
    drive.trips(lambda: drive.server.say("inject fault"), "ocp_fault")


@test(deadline_s=180)
def row_04_silent_server(bench):
    """The process stops, the connection stays (SIGSTOP), and after a second all goes on as if nothing had been."""
    bench.vcan()
    drive = Drive(bench)

    def mend():
        time.sleep(1)
        drive.server.process.resume()
    # The first message after it may be old by its ack_time or not; the first cause stays the silence.
    drive.trips(drive.server.process.stall, "ocp_silence", mend)


@test(deadline_s=180)
def row_07_stalled_network_then_old_messages(bench):
    """Two seconds of nothing, then a hundred old messages at once: none of them moves anything."""
    bench.vcan()
    drive = Drive(bench, relay=True)

    def mend():
        time.sleep(2)
        drive.relay.resume()
    drive.trips(drive.relay.stall, "ocp_silence", mend)


@test(deadline_s=180)
def row_19_ack_time_frozen(bench):
    bench.vcan()
    drive = Drive(bench)
    drive.trips(lambda: drive.server.say("ack freeze"), "ack_frozen", lambda: drive.server.say("ack run"))


@test(deadline_s=180)
def row_20_streamer_restarts(bench):
    bench.vcan()
    drive = Drive(bench)
    drive.trips(lambda: drive.server.say("restart 300"), "ocp_down")


@test(deadline_s=180)
def row_20_ack_time_jumps_back(bench):
    bench.vcan()
    drive = Drive(bench)
    drive.trips(lambda: drive.server.say("ack back 500"), "ack_backwards")


@test(deadline_s=180)
def row_29_controller_gone(bench):
    bench.vcan()
    drive = Drive(bench)
    drive.trips(lambda: drive.server.say("controller none"), "controller_missing",
                lambda: drive.server.say("controller on"))


@test(deadline_s=180)
def row_30_operator_counter_frozen(bench):
    """OCP goes on repeating the operator's last command; the counter tells."""
    bench.vcan()
    drive = Drive(bench)
    drive.trips(lambda: drive.server.say("counter freeze"), "operator_frozen", lambda: drive.server.say("counter run"))


@test(deadline_s=180)
def row_30_operator_link_cut(bench):
    """The radio between operator and vehicle, with the counter on the way: noticed before OCP's own second is over."""
    bench.vcan()
    drive = Drive(bench)
    drive.trips(lambda: drive.server.say("link cut"), "operator_frozen", lambda: drive.server.say("link restore"))


@test(deadline_s=180)
def row_35_axis_of_1e39(bench):
    bench.vcan()
    drive = Drive(bench)
    drive.trips(lambda: drive.server.say("inject axis right_trigger 1e39 x1"), "invalid_message")
    full = [str(command) for command in drive.commands() if command.throttle > 60 or abs(command.steer) > 450]
    expect(not full, f"out of range on the bus: {full[:3]}")


@test(deadline_s=180)
def row_43_unknown_members_do_no_harm(bench):
    """What the protocol may grow is ignored, ARMED stays."""
    bench.vcan()
    drive = Drive(bench)
    drive.drive_off()
    mark = drive.bus.mark()
    drive.server.say("inject unknown x20", "inject coalesce 3", "inject split 2 1", "inject integers x3")
    time.sleep(2)
    expect(drive.state() == "ARMED", f"tripped: {drive.gateway_data()}")
    row = drive.commands(mark)
    expect(row and all(command.enable for command in row), "not driving all the time")
    drive.check_row()


# The bus.

@test(deadline_s=180)
def row_49_interface_missing_at_start(bench):
    """The gateway starts without its interface and without a server, says so, and uses both once they are there."""
    folder = bench.folder
    port = socket.create_server(("127.0.0.1", 0))
    number = port.getsockname()[1]
    port.close()
    config = write_config(folder, "vcan7", number)
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700)
    gateway = bench.ocpcan("run", "--config", config, RUNTIME_DIRECTORY=str(runtime))
    gateway.wait_line(r"vcan7", 10)
    time.sleep(0.5)
    expect(gateway.running(), "ended because its interface is missing")
    bench.vcan("vcan7")
    bus = bench.sniff("vcan7")
    first = Command(bus.wait(DRIVE_CMD, within_s=10))
    expect(first.is_final, f"the first frame is {first}")
    server = OcpControl(bench, number)
    data = look_for(lambda: server.status()["user_data"], 20, "connects once the server is there")
    expect(data["gateway"]["state"] == "SAFE", f"state {data['gateway']['state']} without a vehicle")
    expect(all(Command(f).is_final for f in bus.frames(DRIVE_CMD)), "a frame that is not safe")


@test(deadline_s=180)
def row_50_interface_down(bench):
    """Down: the operator sees it at once. Up: the first frame is safe."""
    bench.vcan()
    drive = Drive(bench)
    drive.drive_off()
    down_ns, down = now_ns(), time.monotonic()
    bench.link_down("vcan0")
    told = drive.wait_state({"STOPPING", "SAFE"}, 2, "after the interface went down")
    bench.note(f"user_data left ARMED {(time.monotonic() - down) * 1e3:.0f} ms after the command (asked every few ms)")
    expect(told["cause"] == "bus_down", f"told {told}")
    time.sleep(0.5)
    mark = drive.bus.mark()
    expect(not drive.bus.frames(DRIVE_CMD, since_ns=down_ns + 20_000_000), "frames on an interface that is down")
    bench.link_up("vcan0")
    first = Command(drive.bus.wait(DRIVE_CMD, within_s=5, mark=mark))
    expect(not first.moves, f"the first frame after up is {first}")
    drive.stays_safe(mark, 3)
    expect(drive.gateway_data()["cause"] == "bus_down", f"told {drive.gateway_data()}")
    drive.check_row(breaks=1)
    drive.drive_off()


@test(deadline_s=180)
def row_51_interface_deleted_and_made_again(bench):
    bench.vcan()
    drive = Drive(bench)
    drive.drive_off()
    # The kernel starts this for root's question after an interface that is not there, and lets the one who asks wait.
    with bench.slow_modprobe():
        bench.run("ip", "link", "del", "vcan0")
        told = drive.wait_state({"STOPPING", "SAFE"}, 2, "after the interface went away")
        expect(told["cause"] == "bus_down", f"told {told}")
        drive.vehicle.kill()
    bench.vcan()
    drive.bus = bench.sniff("vcan0")
    drive.vehicle = drive.start_vehicle("vcan0")
    first = Command(drive.bus.wait(DRIVE_CMD, within_s=10))
    expect(not first.moves, f"the first frame on the new interface is {first}")
    drive.stays_safe(0, 3)
    drive.drive_off()
    drive.check_row()


@test(deadline_s=180)
def row_58_foreign_program_sends_our_frame(bench):
    """One `cansend` of 0x101: LOCKOUT, and nothing the operator does helps; a restart by a person does."""
    bench.vcan()
    drive = Drive(bench)
    payload = "0000E80300000100"
    drive.foreign.append(bytes.fromhex(payload))
    drive.trips(lambda: bench.run("cansend", "vcan0", f"101#{payload}"), "foreign_writer")
    drive.wait_state("LOCKOUT", 10)
    drive.server.say("neutral")
    time.sleep(1.5)
    drive.server.say("press start")
    time.sleep(1.5)
    drive.server.say("release start")
    expect(drive.state() == "LOCKOUT", f"LOCKOUT left by the operator: {drive.gateway_data()}")
    expect(drive.gateway.terminate() == 0, "SIGTERM in LOCKOUT does not end in 0")
    drive.gateway = drive.start_gateway()
    drive.drive_off()
    drive.check_row(breaks=1)


@test(deadline_s=180)
def row_60_vehicle_silent(bench):
    bench.vcan()
    drive = Drive(bench)
    drive.trips(drive.vehicle.kill, "feedback_lost",
                lambda: setattr(drive, "vehicle", drive.start_vehicle("vcan0")))


@test(deadline_s=180)
def row_63_and_66_what_a_program_may_not_fake(bench):
    """Forged error frames, remote requests and another id encoding change nothing while driving."""
    bench.vcan()
    drive = Drive(bench)
    drive.drive_off()
    mark = drive.bus.mark()
    for text in ("20000040#0000000000000000", "20000004#0000000000000000", "101#R", "00000101#0000E80300000100"):
        bench.cansend("vcan0", text)
    time.sleep(1.5)
    expect(drive.state() == "ARMED", f"tripped: {drive.gateway_data()}")
    row = drive.commands(mark)
    expect(row and all(command.enable for command in row), "not driving all the time")
    drive.check_row()


# The process.

@test(deadline_s=180)
def row_75_sigstop_for_a_second(bench):
    """Stopped for a second and continued: the first frame is safe, and it is a trip."""
    bench.vcan()
    drive = Drive(bench)
    drive.drive_off()
    drive.gateway.stall()
    wait_for(lambda: Path(f"/proc/{drive.gateway.pid}/stat").read_text(encoding="ascii").rsplit(") ", 1)[1][0] == "T",
             5, "SIGSTOP")
    time.sleep(1)
    mark = drive.bus.mark()
    drive.gateway.resume()
    first = Command(drive.bus.wait(DRIVE_CMD, within_s=5, mark=mark))
    expect(not first.moves, f"the first frame after the pause is {first}")
    drive.stays_safe(mark, 3)
    told = drive.gateway_data()
    # Whichever the threads see first: their own pause, what waited in the sockets, or OCP's own view of our silence.
    expect(told["cause"] in ("own_gap", "ocp_fault", "latency_high", "ocp_silence", "ocp_stalled", "can_stalled", "stale",
                             "ack_frozen", "echo_lost", "operator_frozen", "feedback_lost", "frame_assembly",
                             "reply_blocked"), f"told {told}")
    bench.note(f"told cause {told['cause']}")
    drive.check_row()


@test(deadline_s=180)
def row_86_sigterm_while_driving(bench):
    """SIGTERM: stop profile, safe frames, exit 0; the brake comes by its ramp, the throttle is gone at once."""
    bench.vcan()
    drive = Drive(bench)
    drive.drive_off()
    look_for(lambda: drive.speed() > 3, 20, "the vehicle moves")
    mark, started = drive.bus.mark(), time.monotonic()
    drive.gateway.signal(signal.SIGTERM)
    first = drive.wait_safe(mark)
    expect(drive.gateway.wait(10) == 0, "exit status")
    took = time.monotonic() - started
    after = [command for command in drive.commands(mark) if command.frame.time_ns >= first.frame.time_ns]
    expect(not any(command.moves for command in after), "moving after the first safe frame")
    expect(first.brake < 30, f"no ramp: the first frame brakes with {first.brake} %")
    expect(all(command.is_final for command in after[-3:]), f"the last frames are not the safe ones: {after[-1]}")
    brakes = [command.brake for command in after]
    expect(brakes == sorted(brakes), "the brake goes back")
    bench.note(f"stopped in {took * 1e3:.0f} ms with {len(after)} safe frames")
    drive.check_row()


@test(deadline_s=180)
def row_86_second_sigterm(bench):
    """The second one does not wait for the stop profile: safe frames, and gone."""
    bench.vcan()
    drive = Drive(bench)
    drive.drive_off()
    look_for(lambda: drive.speed() > 8, 20, "the vehicle moves")
    mark = drive.bus.mark()
    drive.gateway.signal(signal.SIGTERM)
    drive.wait_safe(mark)
    started = time.monotonic()
    drive.gateway.signal(signal.SIGTERM)
    expect(drive.gateway.wait(10) == 0, "exit status")
    took = time.monotonic() - started
    last = drive.commands(mark)[-3:]
    expect(all(command.is_final for command in last), f"the last frames are not the safe ones: {last[-1]}")
    bench.note(f"gone {took * 1e3:.0f} ms after the second signal")
    expect(took < 1, f"took {took:.1f} s")
    drive.check_row()


@test(deadline_s=200)
def row_87_killed_then_safe_stop_then_restart(bench):
    """SIGKILL: silence; `safe-stop` continues the counters with safe frames; a new process starts safe (rows 80, 87, 88)."""
    bench.vcan()
    drive = Drive(bench)
    drive.drive_off()
    refused = bench.ocpcan("safe-stop", "--config", drive.config, **drive.environment)
    expect(refused.wait(10) == 69, "safe-stop beside a living gateway")
    expect(drive.state() == "ARMED", "safe-stop disturbed a living gateway")
    drive.gateway.kill()
    mark = drive.bus.mark()
    stop = bench.ocpcan("safe-stop", "--config", drive.config, **drive.environment)
    expect(stop.wait(10) == 0, f"safe-stop: {stop.output()}")
    row = drive.commands(mark)
    expect(len(row) >= 15 and all(command.is_final for command in row), f"{len(row)} frames, last {row[-1:]}")
    drive.check_row()
    mark, started_ns = drive.bus.mark(), now_ns()
    drive.gateway = drive.start_gateway()
    first = Command(drive.bus.wait(DRIVE_CMD, within_s=10, mark=mark))
    expect(first.is_final, f"the first frame of the new process is {first}")
    bench.note(f"first safe frame {(first.frame.time_ns - started_ns) / 1e6:.0f} ms after the start of the process")
    drive.stays_safe(mark, 3)
    expect(drive.gateway_data().get("state") != "ARMED", "armed by itself after a restart")
    drive.drive_off()


@test(deadline_s=90)
def row_99_bad_configuration_sends_nothing(bench):
    bench.vcan()
    bus = bench.sniff("vcan0")
    config = write_config(bench.folder, "vcan0", 4000, edit=lambda text: text.replace("[operator]", "[operater]"))
    gateway = bench.ocpcan("run", "--config", config)
    expect(gateway.wait(10) == 78, "exit status")
    expect("operator" in gateway.output("err"), f"no hint: {gateway.output('err')}")
    expect(not bus.frames(), "sent something")
