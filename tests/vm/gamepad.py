"""A gamepad of the kernel, read by the simulator's own reader: held, flooded, unplugged, plugged in again.

The reader is one test of the library's test program (`sim::live::gamepad`), which says what it reads line by line.
Relies on the drivers uinput and evdev. Never runs outside a guest, hence the mode: a virtual gamepad would show on the
machine of whoever runs this.
"""
import re

from lib import Failure, test
from lib.uinput import has_dropped
from vcan_ports import test_program

READER = "sim::live::gamepad::tests::a_gamepad_of_the_kernel_is_read_through_unplugging"
REST = "left_x=0.000 left_y=0.000 right_x=0.000 right_y=0.000 left_trigger=-1.000 right_trigger=-1.000 []"
WITHIN_S = 60


def reader(bench, which):
    return bench.start("reader", test_program(), READER, "--exact", "--ignored", "--nocapture",
                       OCPCAN_TEST_GAMEPAD=str(which))


def held(process, state, mark, name="Test Pad"):
    """Waits until the reader says that the gamepad is held like this."""
    process.wait_line(re.escape(f'held by "{name}": {state}') + "$", WITHIN_S, mark)


def finish(process, pad):
    """The reader ends by itself on the guide button, and its test has passed."""
    pad.report(mode=1)
    if process.wait_output(WITHIN_S) != 0 or "1 passed; 0 failed" not in process.output("out"):
        raise Failure(process.output())


@test(mode="sja1000", deadline_s=240)
def sticks_triggers_and_buttons_arrive(bench):
    pad, device = bench.gamepad()
    pad.report(y=-32768)  # held before anybody looks
    process = reader(bench, device)
    held(process, REST.replace("left_y=0.000", "left_y=-1.000"), 0)
    for report, at_rest, now in (
            ({"y": 0}, None, None),
            ({"x": 32767}, "left_x=0.000", "left_x=1.000"),
            ({"x": 0, "ry": -32768}, "right_y=0.000", "right_y=-1.000"),
            ({"ry": 0, "z": 255}, "left_trigger=-1.000", "left_trigger=1.000"),
            ({"z": 0, "rz": 51}, "right_trigger=-1.000", "right_trigger=-0.600"),
            ({"rz": 0, "south": 1}, "[]", "[a]"),
            ({"south": 0, "north": 1}, "[]", "[x]"),
            ({"north": 0, "west": 1}, "[]", "[y]"),
            ({"west": 0, "hat_x": -1, "hat_y": 1}, "[]", "[dpad_down dpad_left]"),
            ({"hat_x": 0, "hat_y": 0, "tl": 1, "thumbr": 1}, "[]", "[left_bumper right_thumb]"),
            ({"tl": 0, "thumbr": 0}, None, None)):
        mark = process.mark()
        pad.report(**report)
        held(process, REST.replace(at_rest, now) if now else REST, mark)
    finish(process, pad)


@test(mode="sja1000", deadline_s=240)
def a_button_released_among_lost_events_is_released(bench):
    pad, device = bench.gamepad()
    process = reader(bench, device)
    held(process, REST, 0)
    mark = process.mark()
    pad.report(south=1)
    held(process, REST.replace("[]", "[a]"), mark)
    beside = bench.watch_device(device)
    process.stall()
    mark = process.mark()
    pad.report(south=0)
    for position in range(2000):
        pad.report(x=position + 1, ry=-position)
    pad.report(x=-32768, ry=0)
    process.resume()
    if not has_dropped(beside):
        raise Failure("4,000 events did not overflow the kernel's buffer: this test proves nothing")
    held(process, REST.replace("left_x=0.000", "left_x=-1.000"), mark)
    finish(process, pad)


@test(mode="sja1000", deadline_s=240)
def unplugged_is_told_and_plugged_in_again_is_found(bench):
    process = reader(bench, "auto")
    said = process.wait_line("none: (.*)", WITHIN_S)[1]
    bench.note(f"without a gamepad: {said}")
    pad, _ = bench.gamepad("First Pad")
    held(process, REST, 0, "First Pad")
    mark = process.mark()
    pad.report(x=32767, south=1)
    held(process, REST.replace("left_x=0.000", "left_x=1.000").replace("[]", "[a]"), mark, "First Pad")
    mark = process.mark()
    pad.unplug()
    process.wait_line('lost: the gamepad "First Pad" was unplugged$', WITHIN_S, mark)
    # Another one, another number perhaps; nothing of the first is held any more.
    pad, _ = bench.gamepad("Second Pad")
    held(process, REST, mark, "Second Pad")
    finish(process, pad)


@test(mode="sja1000", deadline_s=240)
def two_gamepads_are_named_and_none_is_chosen(bench):
    first, first_device = bench.gamepad("First Pad")
    second, second_device = bench.gamepad("Second Pad")
    process = reader(bench, "auto")
    line = process.wait_line("none: several gamepads, name one: (.*)", WITHIN_S)[1]
    if line != f"{first_device} (First Pad), {second_device} (Second Pad)":
        raise Failure(f"said {line!r}")
    first.unplug()
    held(process, REST, 0, "Second Pad")
    finish(process, second)


@test(mode="sja1000", deadline_s=240)
def the_simulated_operator_drives_with_it(bench):
    pad, _ = bench.gamepad()
    sim = bench.ocpcan("sim", "ocp", "--listen", "127.0.0.1:0", "--player", "127.0.0.1:0", "--gamepad", "auto")
    port = sim.wait_line(r"player on 127\.0\.0\.1:(\d+)", WITHIN_S)[1]
    sim.wait_line('gamepad "Test Pad" at /dev/input/', WITHIN_S)
    desk = bench.ocpcan("player", "--connect", f"127.0.0.1:{port}", "--json")
    desk.wait_line('"last_remote_input":.*"left_x":0.0', WITHIN_S)
    pad.report(x=32767, south=1)
    desk.wait_line('"last_remote_input":.*"left_x":1.0.*"a":true', WITHIN_S)
    pad.unplug()
    sim.wait_line('the gamepad "Test Pad" was unplugged', WITHIN_S)
    mark = desk.mark()
    desk.wait_line('"sender_fault":.*Input ?Lost', WITHIN_S, mark)
    again, _ = bench.gamepad("Second Pad")
    sim.wait_line('gamepad "Second Pad" at', WITHIN_S)
    mark = desk.mark()
    desk.wait_line('"sender_fault":\\[\\]', WITHIN_S, mark)
    again.unplug()
