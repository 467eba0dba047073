"""What a former process left in the transmit queue of a controller.

Relies on lib/drive.py and on the two emulated controllers: can0 is the gateway's, can1 the vehicle's.
"""
import time

from lib import Failure, test
from lib.drive import DRIVE_CMD, Command, Drive, crc8_j1850


def expect(condition, why):
    if not condition:
        raise Failure(why)


def moving_frame(counter):
    """A DRIVE_CMD as a former process may have left it: enabled, 50 % throttle, right checksum."""
    data = bytes([0, 0, 0xF4, 1, 0, 0, 1 | counter << 4])
    return f"101#{(data + bytes([crc8_j1850(data)])).hex()}"


@test(mode="sja1000", deadline_s=120)
def row_68_frames_of_a_former_process_are_purged(bench):
    """Frames that wait in the queue come out after their process is gone; link down and up, as the bring-up does before
    the service starts, drops them, and the first DRIVE_CMD of the service is safe."""
    bench.controllers()
    bus = bench.sniff("can1")
    bench.netem("can0", "delay 2s")
    bench.cansend("can0", moving_frame(1))
    bus.wait(DRIVE_CMD, within_s=10, what="a stored frame, to show that there is something to purge")

    mark = bus.mark()
    for counter in range(5):
        bench.cansend("can0", moving_frame(counter))
    bench.link_down("can0")
    bench.link_up("can0")
    bench.clear_qdisc("can0")
    drive = Drive(bench, interface="can0", vehicle_on="can1", sniff_on="can1")
    first = Command(bus.wait(DRIVE_CMD, within_s=20, mark=mark))
    expect(not first.moves, f"the first frame is {first}")
    time.sleep(4)
    moving = [str(command) for command in drive.commands() if command.moves]
    expect(not moving, f"frames of the former process: {moving}")
