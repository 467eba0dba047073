"""A gamepad that the test holds: the guest's kernel makes a real `/dev/input/eventN` of it.

Owns one virtual device, from plugging in to unplugging. Relies on root, `/dev/uinput` (driver `uinput`) and the driver
`evdev`. Never waits: an event is in the kernel when the call returns.
"""
import fcntl
import os
import struct
from pathlib import Path

# linux/input-event-codes.h
EV_SYN, EV_KEY, EV_ABS = 0, 1, 3
SYN_REPORT, SYN_DROPPED = 0, 3
ABS = {"x": 0, "y": 1, "z": 2, "rx": 3, "ry": 4, "rz": 5, "hat_x": 0x10, "hat_y": 0x11}
BTN = {"south": 0x130, "east": 0x131, "north": 0x133, "west": 0x134, "tl": 0x136, "tr": 0x137, "select": 0x13A,
       "start": 0x13B, "mode": 0x13C, "thumbl": 0x13D, "thumbr": 0x13E}
EVENT = struct.Struct("llHHi")

# linux/uinput.h
UI_DEV_CREATE, UI_DEV_DESTROY = 0x5501, 0x5502
UI_DEV_SETUP, UI_ABS_SETUP = 0x405C5503, 0x401C5504
UI_SET_EVBIT, UI_SET_KEYBIT, UI_SET_ABSBIT = 0x40045564, 0x40045565, 0x40045567
UI_GET_SYSNAME_64 = 0x8040552C
BUS_USB = 3

STICK = (-32768, 32767)
AXES = {"x": STICK, "y": STICK, "rx": STICK, "ry": STICK, "z": (0, 255), "rz": (0, 255), "hat_x": (-1, 1),
        "hat_y": (-1, 1)}


class Gamepad:
    """Use Bench.gamepad(). An Xbox pad as the kernel's own driver shows it."""

    def __init__(self, name, maker=0x045E):
        self._file = os.open("/dev/uinput", os.O_WRONLY)
        for kind in (EV_KEY, EV_ABS):
            fcntl.ioctl(self._file, UI_SET_EVBIT, kind)
        for code in BTN.values():
            fcntl.ioctl(self._file, UI_SET_KEYBIT, code)
        for axis, (least, most) in AXES.items():
            fcntl.ioctl(self._file, UI_SET_ABSBIT, ABS[axis])
            fcntl.ioctl(self._file, UI_ABS_SETUP, struct.pack("HxxiiiiiI", ABS[axis], 0, least, most, 0, 0, 0))
        fcntl.ioctl(self._file, UI_DEV_SETUP, struct.pack("HHHH80sI", BUS_USB, maker, 0x028E, 1, name.encode(), 0))
        fcntl.ioctl(self._file, UI_DEV_CREATE)
        answer = bytearray(64)
        fcntl.ioctl(self._file, UI_GET_SYSNAME_64, answer)
        device = Path("/sys/devices/virtual/input", answer.split(b"\0")[0].decode())
        self._events = device

    def path(self):
        """Its `/dev/input/eventN`; None while the kernel has not made it yet."""
        found = [Path("/dev/input", folder.name) for folder in self._events.glob("event*")]
        return found[0] if found and found[0].exists() else None

    def report(self, **values):
        """One report: axes by their name in AXES, buttons by their name in BTN."""
        data = b""
        for name, value in values.items():
            kind, code = (EV_ABS, ABS[name]) if name in ABS else (EV_KEY, BTN[name])
            data += EVENT.pack(0, 0, kind, code, value)
        os.write(self._file, data + EVENT.pack(0, 0, EV_SYN, SYN_REPORT, 0))

    def unplug(self):
        """Gone, as when the cable is pulled. May be called twice."""
        if self._file is not None:
            fcntl.ioctl(self._file, UI_DEV_DESTROY)
            os.close(self._file)
            self._file = None


def has_dropped(events):
    """Whether the kernel told this reader of a device that events were lost. `events` is from Bench.watch_device()."""
    dropped = False
    while True:
        try:
            data = os.read(events, 64 * EVENT.size)
        except BlockingIOError:
            return dropped
        dropped |= any(kind == EV_SYN and code == SYN_DROPPED for _, _, kind, code, _ in EVENT.iter_unpack(data))
