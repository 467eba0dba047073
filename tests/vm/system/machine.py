"""The emulated machine: starts, cuts the power, and talks to it by lines.

Owns one QEMU process, a copy of the image's disk, and four wires to the machine: commands and answers, its journal, the
frames on can1, and the simulated operator. Relies on image.py and on the units that `payload` puts into the machine. Never
compares the host's clock with the machine's: times are the machine's own, in journal lines and in frames.
"""
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import threading
import time
from dataclasses import replace

from lib.bench import Failure
from lib.can import parse_frame
from .image import FAST

# 16 s of processor time to a login, and the host may give a tenth of one.
BOOT_LIMIT_S = 240
COMMAND_LIMIT_S = 60

# Exec of a program is stamped by the kernel itself: systemd's own stamp is that of the fork before it, with the whole
# sandbox still to be made. "tai" is CLOCK_TAI, which is CLOCK_REALTIME where nobody has set the leap seconds: the frames' clock.
KERNEL_LINE = (f"{FAST} console=ttyAMA0 quiet systemd.show_status=0 audit=0 panic=0 "
               "trace_event=sched:sched_process_exec trace_clock=tai trace_buf_size=256K")

# One processor whose clock counts instructions, 2 ns each, and jumps over what is idle (see tests/vm/boot): the machine's time
# does not feel the host's load, so its times need no allowance. A Pi 4 is about three times as fast.
COUNTING = ["-smp", "1", "-icount", "shift=1,sleep=off"]
# Two processors and the host's clock: for a kernel that hangs, whose busy loop would be counted instruction by instruction.
PLAIN = ["-smp", "2"]

# What plays the world outside is on other machines in truth: a busy one here must not hold it up, hence Nice.
UNITS = {
    "bench-bus.service": """[Unit]
Description=The other controller on the bus
BindsTo=sys-subsystem-net-devices-can1.device
After=sys-subsystem-net-devices-can1.device
Before=ocpcan.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'ip link set can1 type can bitrate 500000 && ip link set can1 up'
[Install]
WantedBy=multi-user.target
""",
    "bench-frames.service": """[Unit]
Description=Every frame on can1, to the host
BindsTo=bench-bus.service dev-virtio\\x2dports-frames.device
After=bench-bus.service dev-virtio\\x2dports-frames.device
Before=ocpcan.service
[Service]
Type=exec
ExecStart=/bin/sh -c 'exec candump -L can1 >/dev/virtio-ports/frames'
OOMScoreAdjust=-1000
[Install]
WantedBy=multi-user.target
""",
    "bench-journal.service": """[Unit]
Description=The journal of this boot, to the host
BindsTo=dev-virtio\\x2dports-journal.device
After=dev-virtio\\x2dports-journal.device
[Service]
Type=exec
ExecStart=/bin/sh -c 'exec journalctl -b -n all -f -o short-unix >/dev/virtio-ports/journal'
[Install]
WantedBy=multi-user.target
""",
    "bench-vehicle.service": """[Unit]
Description=The simulated vehicle on can1
After=bench-bus.service
[Service]
Nice=-15
ExecStart=/usr/local/bin/vehicle sim vehicle --bus can1 --on-real-bus --quiet
[Install]
WantedBy=multi-user.target
""",
    # Its hands are the host's; a script from the machine's own disk is what it does before the host is there.
    "bench-operator.service": """[Unit]
Description=The simulated operator and Streamer
BindsTo=dev-virtio\\x2dports-operator.device
After=dev-virtio\\x2dports-operator.device
[Service]
Nice=-15
ExecStart=/bin/sh -c 'exec /usr/local/bin/vehicle sim ocp --player none --listen 127.0.0.1:4000 --stdin \
--script /etc/bench-operator <>/dev/virtio-ports/operator >&0'
[Install]
WantedBy=multi-user.target
""",
}


class Lines:
    """Lines that come from a wire, kept, and waited for. What `lib.bench.Process` is for a program."""

    def __init__(self, name, wire, take=lambda line: line):
        self.name = name
        self.lines = []
        self._take = take
        self._changed = threading.Condition()
        self._open = True
        threading.Thread(target=self._read, args=(wire,), daemon=True).start()

    def _read(self, wire):
        with wire, wire.makefile("rb") as reader:
            try:
                for raw in reader:
                    taken = self._take(raw.decode(errors="replace").rstrip("\r\n"))
                    if taken is not None:
                        with self._changed:
                            self.lines.append(taken)
                            self._changed.notify_all()
            except OSError:
                pass
        with self._changed:
            self._open = False
            self._changed.notify_all()

    def mark(self):
        """A place in the stream, for wait() and after()."""
        with self._changed:
            return len(self.lines)

    def after(self, mark=0):
        with self._changed:
            return self.lines[mark:]

    def place(self, entry):
        """The mark at an entry that wait() gave."""
        with self._changed:
            return self.lines.index(entry)

    def wait(self, condition, within_s, mark=0, what="a line"):
        """The first entry since mark for which condition(entry) is true."""
        deadline = time.monotonic() + within_s
        at = mark
        with self._changed:
            while True:
                while at < len(self.lines):
                    if condition(self.lines[at]):
                        return self.lines[at]
                    at += 1
                left = deadline - time.monotonic()
                if left <= 0 or not self._open:
                    last = "\n    ".join(str(entry) for entry in self.lines[-8:])
                    raise Failure(f"{self.name}: no {what} within {within_s} s; {len(self.lines) - mark} came since, last:"
                                  f"\n    {last}")
                self._changed.wait(left)


class Journal(Lines):
    """The machine's journal: (seconds, "name[pid]", text)."""

    SHORT_UNIX = re.compile(r"(\d+\.\d+) \S+ ([^:]+): (.*)")

    def __init__(self, wire):
        super().__init__("journal", wire, self._entry)

    def _entry(self, line):
        match = self.SHORT_UNIX.fullmatch(line)
        return (float(match[1]), match[2], match[3]) if match else None

    def wait_line(self, pattern, within_s, mark=0):
        """The re.Match of the first text since mark, as `lib.bench.Process` gives it."""
        wanted = re.compile(pattern)
        return wanted.search(self.wait_entry(pattern, within_s, mark)[2])

    def wait_entry(self, pattern, within_s, mark=0):
        wanted = re.compile(pattern)
        return self.wait(lambda entry: wanted.search(entry[2]), within_s, mark, f"line /{pattern}/")


class Frames(Lines):
    """The frames on can1, stamped by the kernel that received them; what `lib.can.Sniffer` is in the other guests."""

    CANDUMP = re.compile(r"\((\d+)\.(\d{6})\) (\S+) (\S+?)(?: [TR])?")

    def __init__(self, wire):
        self.lost = 0
        self.unread = []
        super().__init__("can1", wire, self._frame)

    def _frame(self, line):
        match = self.CANDUMP.fullmatch(line)
        try:
            frame = parse_frame(match[4])
        except (TypeError, ValueError):
            # A power cut ends in the middle of a line.
            self.unread.append(line)
            return None
        return replace(frame, time_ns=int(match[1]) * 10**9 + int(match[2]) * 1000, interface=match[3])


class Operator:
    """The simulated operator in the machine, as `lib.drive.OcpControl` is in the other guests."""

    def __init__(self, wire):
        self._wire = wire
        self._answers = Lines("operator", wire.dup())
        self._at = 0

    def _answer(self, wanted, what):
        found = self._answers.wait(lambda line: wanted.match(line), 30, self._at, what)
        self._at = self._answers.lines.index(found, self._at) + 1
        return found

    def say(self, *lines):
        for line in lines:
            self._at = self._answers.mark()
            self._wire.sendall(line.encode() + b"\n")
            # Between them it says by itself what faults come and go.
            answer = self._answer(re.compile(r"ok$|error: "), f"answer to {line!r}")
            if answer != "ok":
                raise Failure(f"sim ocp, {line!r}: {answer}")

    def status(self):
        self._at = self._answers.mark()
        self._wire.sendall(b"status\n")
        return json.loads(self._answer(re.compile(r"\{"), "status"))


class Machine:
    """One machine with its disk; it can be powered on and off many times."""

    def __init__(self, image, folder, payload):
        self.folder = folder
        self._image = image
        self._disk, self._payload = folder / "disk.img", folder / "payload.tar"
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", image.disk, self._disk], check=True)
        write_payload(self._payload, payload)
        self._qemu = None
        self.boots = 0
        self.bytes_in = b""

    # Power.

    def power_on(self, clock=COUNTING):
        """Starts the machine; what it says from here on is in new streams."""
        self.boots += 1
        ours, theirs = {}, {}
        for name in ("agent", "journal", "frames", "operator", "qmp"):
            ours[name], theirs[name] = socket.socketpair()
        command = ["qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a72", *clock, "-m", "768",
                   "-nodefaults", "-display", "none", "-kernel", self._image.kernel, "-initrd", self._image.initrd,
                   "-append", KERNEL_LINE, "-serial", f"file:{self.folder / f'console-{self.boots}.log'}",
                   # The one that comes last is /dev/vda: this machine's slots are found from the other end.
                   "-drive", f"file={self._payload},format=raw,if=none,id=payload,readonly=on",
                   "-device", "virtio-blk-device,drive=payload",
                   "-drive", f"file={self._disk},format=raw,if=none,id=disk,cache=writeback",
                   "-device", "virtio-blk-device,drive=disk",
                   "-object", "can-bus,id=bus", "-device", "kvaser_pci,canbus=bus", "-device", "kvaser_pci,canbus=bus",
                   "-device", "i6300esb", "-action", "watchdog=reset",
                   "-device", "virtio-serial-device,max_ports=8",
                   "-chardev", f"socket,id=qmp,fd={theirs['qmp'].fileno()}", "-mon", "chardev=qmp,mode=control"]
        for name in ("agent", "journal", "frames", "operator"):
            command += ["-chardev", f"socket,id={name},fd={theirs[name].fileno()}",
                        "-device", f"virtserialport,chardev={name},name={name}"]

        def steady():
            # What else runs on the host would make the machine's clock jump. Only root may ask for this.
            try:
                os.nice(-10)
            except PermissionError:
                pass
        with open(self.folder / "qemu.log", "ab") as log:
            self._qemu = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          pass_fds=[end.fileno() for end in theirs.values()], preexec_fn=steady,
                                          start_new_session=True)
        for end in theirs.values():
            end.close()
        self.bytes_in = b""
        self._agent = ours["agent"]
        self.journal, self.frames = Journal(ours["journal"]), Frames(ours["frames"])
        self.operator = Operator(ours["operator"])
        self.events = Lines("qmp", ours["qmp"].dup(), lambda line: json.loads(line).get("event"))
        ours["qmp"].sendall(b'{"execute": "qmp_capabilities"}\n')
        self._qmp = ours["qmp"]
        self.wait_agent()

    def wait_agent(self, within_s=BOOT_LIMIT_S):
        """Waits until the machine's own side of the wire is there: after power_on, and after it has reset itself."""
        deadline = time.monotonic() + within_s
        while not self._agent_line(deadline, "the machine's agent").startswith("@ready"):
            pass

    def power_cut(self):
        """What the machine had not yet written is lost."""
        if self._qemu and self._qemu.poll() is None:
            os.killpg(self._qemu.pid, signal.SIGKILL)
            self._qemu.wait()

    # Commands in the machine.

    def _agent_bytes(self, deadline, what):
        self._agent.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            chunk = self._agent.recv(65536)
        except TimeoutError:
            console = self.folder / f"console-{self.boots}.log"
            tail = console.read_text(errors="replace").splitlines()[-12:] if console.exists() else []
            raise Failure(f"the machine did not answer in time: {what}; its console:\n  " + "\n  ".join(tail)) from None
        if not chunk:
            raise Failure(f"the machine is off: {what}; {(self.folder / 'qemu.log').read_text(errors='replace')}")
        self.bytes_in += chunk

    def _agent_line(self, deadline, what):
        while b"\n" not in self.bytes_in:
            self._agent_bytes(deadline, what)
        line, self.bytes_in = self.bytes_in.split(b"\n", 1)
        return line.decode(errors="replace")

    def run(self, command, within_s=COMMAND_LIMIT_S):
        """Runs a line of shell as root; returns (status, output)."""
        deadline = time.monotonic() + within_s
        self._agent.sendall(command.replace("\n", " ").encode() + b"\n")
        answer = self._agent_line(deadline, command).split()
        if answer[0] != "@done":
            raise Failure(f"the machine restarted by itself while it was told: {command}")
        while len(self.bytes_in) < int(answer[2]):
            self._agent_bytes(deadline, command)
        text, self.bytes_in = self.bytes_in[:int(answer[2])], self.bytes_in[int(answer[2]):]
        return int(answer[1]), text.decode(errors="replace").rstrip("\n")

    def ask(self, command, within_s=COMMAND_LIMIT_S):
        """The same for what must succeed; returns its output."""
        status, text = self.run(command, within_s)
        if status != 0:
            raise Failure(f"status {status} in the machine: {command}\n  {text}")
        return text

    def post(self, command):
        """Sends a line whose answer cannot come: the machine is to hang."""
        self._agent.sendall(command.encode() + b"\n")

    def now_ns(self):
        """CLOCK_REALTIME of the machine."""
        return int(self.ask("date +%s%N"))


def write_payload(path, files):
    """A tar for the machine's second disk: name -> bytes, text or a path of the host; programs where the name says bin."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            data = data if isinstance(data, bytes) else data.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755 if "bin/" in name else 0o644
            tar.addfile(entry, io.BytesIO(data))


def kept(folder, count):
    """Leaves the logs of the newest runs; their disks are gone already."""
    for old in sorted(folder.glob("run-*"), key=lambda path: path.stat().st_mtime)[:-count]:
        shutil.rmtree(old, ignore_errors=True)
