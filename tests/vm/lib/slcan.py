"""A CAN adapter that a test plays itself: the kernel's slcan line discipline on a pseudo-terminal.

Owns both ends of the terminal. Relies on the slcan module (Linux 6.1: the interface is named canN). Never restarts the
bus after a bus-off: slcan has no restart, only link down and up help.
"""
import fcntl
import os
import struct
import termios
import threading
import tty

N_SLCAN = 17  # linux/tty.h
SIOCGIFNAME = 0x8910


class Slcan:
    """Use Bench.slcan(), which also brings the interface up and removes it."""

    def __init__(self):
        self._adapter, self._line = os.openpty()
        tty.setraw(self._line)
        tty.setraw(self._adapter)
        fcntl.ioctl(self._line, termios.TIOCSETD, struct.pack("i", N_SLCAN))
        name = fcntl.ioctl(self._line, SIOCGIFNAME, bytes(40))
        self.interface = name[:16].split(b"\0")[0].decode()
        self.received = []  # what the kernel sent to the adapter, e.g. b"t10181122334455667788"
        self._reading = threading.Event()
        self._reading.set()
        self._open = True
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        rest = b""
        while self._open:
            if not self._reading.wait(timeout=0.1):
                continue
            try:
                chunk = os.read(self._adapter, 4096)
            except OSError:
                return
            *whole, rest = (rest + chunk).split(b"\r")
            self.received.extend(whole)

    def write(self, line):
        """What an adapter would say: b"t1018..." for a frame, b"sb256256" for bus-off."""
        os.write(self._adapter, line + b"\r")

    def bus_off(self):
        """The kernel raises a real bus-off: error frame 0x20000040, carrier off."""
        self.write(b"sb256256")

    def stall(self):
        """Stops reading, so that the kernel's transmit queue fills. The terminal itself holds 4 KiB more."""
        self._reading.clear()

    def resume(self):
        self._reading.set()

    def unplug(self):
        """The interface disappears, as when a USB adapter is pulled."""
        self._open = False
        self._reading.set()
        for descriptor in (self._line, self._adapter):
            try:
                os.close(descriptor)
            except OSError:
                pass

    close = unplug
