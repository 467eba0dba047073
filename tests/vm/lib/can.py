"""CAN frames as a guest test sees them: a sniffer with kernel timestamps, sending, and decoding by DBC.

Owns its own AF_CAN sockets. Relies on Python's socket module and, for decoding alone, on cantools. Never uses the
gateway's code: the tests hold the gateway against it.

    struct can_frame    id u32 | len u8 | pad | res | len8_dlc | data[8]      16 bytes, host order
    struct canfd_frame  id u32 | len u8 | flags u8 | res | res | data[64]     72 bytes
"""
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass

EXTENDED_FLAG, REMOTE_FLAG, ERROR_FLAG = 0x8000_0000, 0x4000_0000, 0x2000_0000  # linux/can.h
EXTENDED_MASK = 0x1FFF_FFFF
FD_BIT_RATE_SWITCH = 0x01  # CANFD_BRS
ERROR_BUS_OFF, ERROR_RESTARTED = 0x040, 0x100  # linux/can/error.h: classes in the id of an error frame
CLASSIC = struct.Struct("=IB3x8s")
FD = struct.Struct("=IBB2x64s")
# linux/can.h, linux/can/raw.h, linux/socket.h; not every build of Python names them.
SOL_CAN_RAW, CAN_RAW_ERR_FILTER, CAN_RAW_RECV_OWN_MSGS, CAN_RAW_FD_FRAMES = 101, 2, 4, 5
MSG_CONFIRM, MSG_DONTROUTE, MSG_TRUNC = 0x800, 0x4, 0x20
SO_RCVBUFFORCE, SO_TIMESTAMPNS, SO_RXQ_OVFL = 33, 35, 40
RECEIVE_BUFFER = 16 << 20  # holds about 20,000 frames, should Python be late
TIMESPEC = struct.Struct("=qq")


def now_ns():
    """The clock of frame times: CLOCK_REALTIME in ns, as the kernel stamps them."""
    return time.time_ns()


@dataclass(frozen=True)
class Frame:
    """One frame, and what the kernel said about it."""
    id: int                  # without flag bits; of an error frame: its error classes
    data: bytes
    extended: bool = False
    remote: bool = False
    error: bool = False
    fd: bool = False
    bit_rate_switch: bool = False
    time_ns: int = 0         # see now_ns
    confirmed: bool = False  # MSG_CONFIRM: the echo of a frame that this very socket sent
    local: bool = False      # MSG_DONTROUTE: sent by this machine
    interface: str = ""

    @property
    def bus_off(self):
        return self.error and bool(self.id & ERROR_BUS_OFF)

    def __str__(self):
        width = 8 if self.extended or self.error else 3
        mark = "##" if self.fd else "#R" if self.remote else "#"
        flags = "".join(name for name, on in (
            (" ERROR", self.error), (" CONFIRMED", self.confirmed), (" local", self.local)) if on)
        fd_flags = int(self.bit_rate_switch) if self.fd else ""
        return (f"({self.time_ns // 10**9}.{self.time_ns // 1000 % 10**6:06}) {self.interface} "
                f"{self.id:0{width}X}{mark}{fd_flags}{self.data.hex().upper()}{flags}")


def parse_frame(text):
    """A frame from cansend's notation: 101#1122, 1F334455#R, 101##1AABB (FD), 20000040#... (error)."""
    match = re.fullmatch(r"([0-9A-Fa-f]{3}|[0-9A-Fa-f]{8})#(?:(R)|(?:#([0-9A-Fa-f]))?((?:[0-9A-Fa-f]{2})*))", text)
    if not match:
        raise ValueError(f"not a frame: {text!r}")
    number, remote, fd_flags, data = match.groups()
    raw_id = int(number, 16)
    error = len(number) == 8 and bool(raw_id & ERROR_FLAG)
    return Frame(id=raw_id & EXTENDED_MASK, data=bytes.fromhex(data or ""), error=error, remote=bool(remote),
                 extended=len(number) == 8 and not error, fd=fd_flags is not None,
                 bit_rate_switch=bool(int(fd_flags or "0", 16) & FD_BIT_RATE_SWITCH))


def to_bytes(frame):
    raw_id = frame.id | (EXTENDED_FLAG if frame.extended else 0) | (REMOTE_FLAG if frame.remote else 0)
    raw_id |= ERROR_FLAG if frame.error else 0
    if frame.fd:
        return FD.pack(raw_id, len(frame.data), FD_BIT_RATE_SWITCH if frame.bit_rate_switch else 0, frame.data)
    return CLASSIC.pack(raw_id, len(frame.data), frame.data)


def from_bytes(raw, **said_by_kernel):
    fd = len(raw) == FD.size
    if fd:
        raw_id, length, flags, data = FD.unpack(raw)
    else:
        raw_id, length, data = CLASSIC.unpack(raw)
        flags = 0
    return Frame(id=raw_id & EXTENDED_MASK, data=data[:length], extended=bool(raw_id & EXTENDED_FLAG),
                 remote=bool(raw_id & REMOTE_FLAG), error=bool(raw_id & ERROR_FLAG), fd=fd,
                 bit_rate_switch=bool(flags & FD_BIT_RATE_SWITCH), **said_by_kernel)


class Sniffer:
    """Collects every frame of one interface, errors included, from the moment it is made.

    With own=True it also sees what it sends itself (`send`), marked `confirmed` once the frame has left.
    """

    def __init__(self, interface, own=False):
        self.interface = interface
        self.lost = 0  # frames the socket buffer could not hold, as counted by the kernel
        self.died = None  # the OSError that ended reading: interface down or gone
        self._frames = []
        self._changed = threading.Condition()
        self._socket = socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
        options = self._socket.setsockopt
        options(SOL_CAN_RAW, CAN_RAW_ERR_FILTER, struct.pack("=I", EXTENDED_MASK))
        options(SOL_CAN_RAW, CAN_RAW_FD_FRAMES, 1)
        options(SOL_CAN_RAW, CAN_RAW_RECV_OWN_MSGS, int(own))
        options(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        options(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        options(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
        self._socket.bind((interface,))
        self._socket.settimeout(0.1)
        self._open = True
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        while self._open:
            try:
                raw, ancillary, flags, _ = self._socket.recvmsg(FD.size, 256)
            except TimeoutError:
                continue
            except OSError as error:
                # ENETDOWN comes once, and the socket works again after "up"; ENODEV is for ever.
                with self._changed:
                    self.died = error
                    self._changed.notify_all()
                if error.errno == 100 and self._open:  # ENETDOWN
                    continue
                return
            time_ns = 0
            for level, kind, value in ancillary:
                if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                    seconds, nanoseconds = TIMESPEC.unpack(value)
                    time_ns = seconds * 10**9 + nanoseconds
                elif level == socket.SOL_SOCKET and kind == SO_RXQ_OVFL:
                    self.lost = struct.unpack("=I", value)[0]
            frame = from_bytes(raw, time_ns=time_ns, interface=self.interface,
                               confirmed=bool(flags & MSG_CONFIRM), local=bool(flags & MSG_DONTROUTE))
            with self._changed:
                self._frames.append(frame)
                self._changed.notify_all()

    def send(self, frame):
        """Sends from the sniffer's own socket. Takes a Frame or cansend's notation; raises OSError."""
        self._socket.send(to_bytes(parse_frame(frame) if isinstance(frame, str) else frame))

    def frames(self, can_id=None, since_ns=0, until_ns=None):
        """What was seen so far, in order; optionally of one id, and stamped within [since_ns, until_ns)."""
        with self._changed:
            seen = list(self._frames)
        return [frame for frame in seen if (can_id is None or (frame.id == can_id and not frame.error))
                and frame.time_ns >= since_ns and (until_ns is None or frame.time_ns < until_ns)]

    def mark(self):
        """A place in the stream: give it to wait() or after() to see only what came later."""
        with self._changed:
            return len(self._frames)

    def after(self, mark):
        with self._changed:
            return self._frames[mark:]

    def wait(self, condition, within_s, mark=0, what="a frame"):
        """The first frame since mark for which condition(frame) holds; condition may be an id. Fails after within_s."""
        if isinstance(condition, int):
            can_id = condition
            what = f"id {can_id:#x}"
            condition = lambda frame: frame.id == can_id and not frame.error
        deadline = time.monotonic() + within_s
        at = mark
        with self._changed:
            while True:
                while at < len(self._frames):
                    if condition(self._frames[at]):
                        return self._frames[at]
                    at += 1
                left = deadline - time.monotonic()
                if left <= 0:
                    last = "\n    ".join(str(frame) for frame in self._frames[-8:])
                    raise AssertionError(f"{self.interface}: no {what} within {within_s} s; "
                                         f"{len(self._frames) - mark} frames seen since, last:\n    {last}")
                self._changed.wait(left)

    def write_candump(self, path):
        """Keeps everything seen as a candump log (for BENCH_OUT)."""
        with open(path, "w", encoding="ascii") as log:
            log.writelines(f"{frame}\n" for frame in self.frames())

    def close(self):
        self._open = False
        self._thread.join(timeout=2)
        self._socket.close()


class Decoder:
    """A DBC file through cantools, which knows nothing of our codec. Importing it takes seconds in the guest."""

    def __init__(self, dbc):
        import cantools  # pylint: disable=import-outside-toplevel
        self.database = cantools.database.load_file(str(dbc))

    def decode(self, frame):
        """Signal name -> physical value, or the value's name where the DBC has one (as str)."""
        values = self.database.get_message_by_frame_id(frame.id).decode(frame.data, decode_choices=True)
        return {name: value if isinstance(value, (int, float)) else str(value) for name, value in values.items()}

    def encode(self, message, **signals):
        """A Frame of the named message; every signal must be given."""
        found = self.database.get_message_by_name(message)
        return Frame(id=found.frame_id, data=bytes(found.encode(signals)), extended=found.is_extended_frame,
                     fd=found.is_fd)
