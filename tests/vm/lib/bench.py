"""What one guest test may do: make interfaces, start programs, break links, and wait for what must happen.

Owns everything a test made, and removes it when the test ends, however it ends. Relies on root in a guest (or, for
vcan alone, on a host whose kernel has it). Never waits without a deadline.
"""
import contextlib
import fcntl
import math
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

from .can import CAN_RAW_FD_FRAMES, SOL_CAN_RAW, Sniffer, parse_frame, to_bytes
from .slcan import Slcan
from .uinput import Gamepad

ROOT = Path(__file__).resolve().parent.parent.parent.parent
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1


class Failure(AssertionError):
    """A test's own verdict: raise it with what was expected and what came instead."""


def wait_for(condition, within_s, what):
    """The first true value of condition(), asked every 2 ms. Only for what cannot be waited on otherwise."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise Failure(f"not within {within_s} s: {what}")
        time.sleep(0.002)


def percentiles(samples, unit="ms"):
    """`n=200 p50=0.1 p99=0.4 max=1.2 ms`, nearest rank."""
    ordered = sorted(samples)
    def rank(part):
        return ordered[max(0, math.ceil(part * len(ordered)) - 1)]
    return f"n={len(ordered)} p50={rank(0.5):.3f} p99={rank(0.99):.3f} max={ordered[-1]:.3f} {unit}"


class Process:
    """A started program whose lines are kept; made by Bench.start()."""

    def __init__(self, name, command, environment):
        self.name = name
        self.lines = []  # (monotonic seconds, "out" | "err", text)
        self._changed = threading.Condition()
        self._open_streams = 2
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.PIPE, env=environment, start_new_session=True)
        self.pid = self._process.pid
        for stream, pipe in (("out", self._process.stdout), ("err", self._process.stderr)):
            threading.Thread(target=self._read, args=(stream, pipe), daemon=True).start()

    def _read(self, stream, pipe):
        for line in pipe:
            text = line.decode(errors="replace").rstrip("\r\n")
            with self._changed:
                self.lines.append((time.monotonic(), stream, text))
                self._changed.notify_all()
        with self._changed:
            self._open_streams -= 1
            self._changed.notify_all()

    def output(self, stream=None):
        """All lines so far, joined; of "out" or "err" alone if asked."""
        with self._changed:
            return "\n".join(text for _, from_stream, text in self.lines if stream in (None, from_stream))

    def mark(self):
        """A place in the output, for wait_line."""
        with self._changed:
            return len(self.lines)

    def wait_line(self, pattern, within_s, mark=0):
        """The first re.Match of pattern in a line since mark. Fails after within_s, or when the output ends."""
        wanted = re.compile(pattern)
        deadline = time.monotonic() + within_s
        at = mark
        with self._changed:
            while True:
                while at < len(self.lines):
                    match = wanted.search(self.lines[at][2])
                    if match:
                        return match
                    at += 1
                left = deadline - time.monotonic()
                if left <= 0 or self._open_streams == 0:
                    why = f"within {within_s} s" if left <= 0 else "before its output ended"
                    raise Failure(f"{self.name}: no line /{pattern}/ {why}; last: "
                                  f"{self.lines[-1][2] if self.lines else '(nothing)'!r}")
                self._changed.wait(left)

    def write(self, text):
        """One line to its standard input."""
        self._process.stdin.write(text.encode() + b"\n")
        self._process.stdin.flush()

    def signal(self, number):
        self._process.send_signal(number)

    def stall(self):
        """SIGSTOP: alive, connected, silent."""
        self.signal(signal.SIGSTOP)

    def resume(self):
        self.signal(signal.SIGCONT)

    def kill(self):
        """SIGKILL, as a crash would; waits until it is gone."""
        self.signal(signal.SIGKILL)
        return self._process.wait(timeout=10)

    def terminate(self, within_s=10.0):
        """SIGTERM; returns the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(within_s)

    def wait(self, within_s):
        """The exit status (-N after signal N)."""
        try:
            return self._process.wait(timeout=within_s)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name}: still running after {within_s} s") from None

    def wait_output(self, within_s):
        """Waits for the exit and for the end of both streams; returns the status. From here on `lines` is complete."""
        deadline = time.monotonic() + within_s
        status = self.wait(within_s)
        with self._changed:
            while self._open_streams > 0:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Failure(f"{self.name}: ended with {status}, its output did not within {within_s} s")
                self._changed.wait(left)
        return status

    def running(self):
        return self._process.poll() is None

    def close(self):
        if self.running():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(timeout=10)
        with contextlib.suppress(OSError):
            self._process.stdin.close()


class Relay:
    """A TCP cable between a client and a server, to be cut or clogged; listens on a port of its own (`port`)."""

    def __init__(self, to_port, host="127.0.0.1"):
        self._to = (host, to_port)
        self._flows = threading.Event()
        self._flows.set()
        self._open = True
        self._pairs = []
        self._listener = socket.create_server((host, 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while self._open:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._to, timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            self._pairs.append((client, server))
            for source, sink in ((client, server), (server, client)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source, sink):
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                self._flows.wait()
                sink.sendall(chunk)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def stall(self):
        """Holds everything back, both ways, with the connections open. It all comes after resume()."""
        self._flows.clear()

    def resume(self):
        self._flows.set()

    def cut(self):
        """Closes the connections there are; new ones are accepted."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._open = False
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._flows.set()
        self.cut()


class Bench:
    """One test's tools. Whatever is made through it is taken down in reverse order when the test ends."""

    def __init__(self, name):
        self.name = name
        self.notes = []
        self.early_trips = None  # Drive: cause -> how often it ended the preparation of the drive
        self.processes = []
        self._end = contextlib.ExitStack()
        self.mode = os.environ.get("BENCH_MODE", "native")
        self.out = Path(os.environ.get("BENCH_OUT", "/tmp"))
        self._folder = None

    # Files and notes.

    @property
    def folder(self):
        """An empty folder of this test, on tmpfs in the guest."""
        if self._folder is None:
            base = Path("/run/bench") if Path("/run/bench").is_dir() else self.out
            self._folder = base / f"test-{self.name}-{os.getpid()}"
            self._folder.mkdir(parents=True)
            self._end.callback(shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder

    def note(self, text):
        """A line for the report (figures); printed with the test's verdict as `# text`."""
        self.notes.append(text)

    # Programs.

    def ocpcan_program(self):
        """The release binary: on tmpfs in the guest. Fails when it is not built."""
        path = os.environ.get("OCPCAN") or str(ROOT / "target" / "release" / "ocpcan")
        if not os.access(path, os.X_OK):
            raise Failure("target/release/ocpcan is not built; run `cargo build --release`")
        return path

    def ocpcan(self, *arguments, name=None, **environment):
        """Starts `ocpcan ARGUMENTS...`."""
        arguments = [str(argument) for argument in arguments]
        label = name or " ".join(["ocpcan", *[word for word in arguments[:2] if not word.startswith("-")]])
        return self.start(label, self.ocpcan_program(), *arguments, **environment)

    def start(self, name, *command, **environment):
        """Starts a program with its output kept; keyword arguments become environment variables."""
        process = Process(name, [str(word) for word in command], {**os.environ, **environment})
        self.processes.append(process)
        self._end.callback(process.close)
        return process

    def run(self, *command, within_s=20.0):
        """Runs a program to its end and returns its stdout; fails if it does not return 0."""
        if self.mode == "icount":
            within_s *= 60  # a program is read from the host, and meanwhile this clock runs ahead of the host's
        done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=within_s, check=False)
        if done.returncode != 0:
            raise Failure(f"{' '.join(map(str, command))}: status {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def setting(self, name, value):
        """A kernel setting, such as net.core.rmem_default, until the test ends."""
        path = Path("/proc/sys", *name.split("."))
        self._end.callback(path.write_text, path.read_text(encoding="ascii"), encoding="ascii")
        path.write_text(f"{value}\n", encoding="ascii")

    # Interfaces.

    def vcan(self, name="vcan0", mtu=72):
        """A fresh virtual CAN interface, up. mtu 16 makes it classic only."""
        if Path("/sys/class/net", name).exists():
            self.run("ip", "link", "del", name)
        self.run("ip", "link", "add", name, "mtu", mtu, "type", "vcan")
        self._end.callback(self._delete_link, name)
        self.link_up(name)
        return name

    def _delete_link(self, name):
        if Path("/sys/class/net", name).exists():
            self.run("ip", "link", "del", name)

    def controllers(self):
        """can0 and can1 of mode sja1000: up, error-active, without queueing rules; returns their names."""
        for name in ("can0", "can1"):
            self.clear_qdisc(name)
            self.link_down(name)
            self.link_up(name)
            self._end.callback(self.link_up, name)
        return "can0", "can1"

    def slcan(self):
        """A serial adapter played by the test; see Slcan. Its interface is up."""
        adapter = Slcan()
        self._end.callback(adapter.unplug)
        self.link_up(adapter.interface)
        return adapter

    @contextlib.contextmanager
    def slow_modprobe(self):
        """Whom the kernel lets wait for a module waits for 10 s, and gets none. In a guest only: it is the whole kernel's."""
        if self.mode == "native":
            self.note("modprobe is as it was: this kernel is not the test's own")
            yield
            return
        setting = Path("/proc/sys/kernel/modprobe")
        before = setting.read_text().strip()
        slow = self.folder / "slow-modprobe"
        asked = self.folder / "modprobe-was-asked"
        slow.write_text(f"#!/bin/sh\n: > {asked}\nsleep 10\nexit 1\n")
        slow.chmod(0o755)
        setting.write_text(str(slow))
        try:
            # The kernel does run it, for a question of root's.
            question = "import socket; socket.if_nametoindex('nosuchlink0')"
            with subprocess.Popen([sys.executable, "-c", question], stderr=subprocess.DEVNULL) as one:
                try:
                    wait_for(asked.exists, 5, "the kernel runs the slow modprobe")
                finally:
                    one.kill()
            yield
        finally:
            setting.write_text(before)

    def link_up(self, name):
        self._set_up(name, True)

    def link_down(self, name):
        self._set_up(name, False)

    @staticmethod
    def _set_up(name, up):
        """By ioctl: starting `ip` takes tens of milliseconds in the guest, this takes none."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            request = struct.pack("16sH14x", name.encode(), 0)
            flags = struct.unpack("16sH14x", fcntl.ioctl(control, SIOCGIFFLAGS, request))[1]
            flags = flags | IFF_UP if up else flags & ~IFF_UP
            fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", name.encode(), flags))

    def carrier(self, name):
        """False after a bus-off."""
        return Path("/sys/class/net", name, "carrier").read_text(encoding="ascii").strip() == "1"

    # Queueing rules: what goes out of an interface.

    def netem(self, name, *rule):
        """tc netem, e.g. netem("can0", "loss 100%"): writes succeed, nothing leaves. Works on lo for TCP as well."""
        self._qdisc(name, "netem", rule)

    def tbf(self, name, rate="500kbit", burst="100", limit="200"):
        """tc tbf: a bus of that speed, with back-pressure."""
        self._qdisc(name, "tbf", (f"rate {rate} burst {burst} limit {limit}",))

    def _qdisc(self, name, kind, rule):
        words = " ".join(rule).split()
        self.run("tc", "qdisc", "replace", "dev", name, "root", "handle", "1:", kind, *words)
        self._end.callback(self.clear_qdisc, name)

    def clear_qdisc(self, name):
        """Back to the interface's own rule; what a rule still held is dropped."""
        if Path("/sys/class/net", name).exists():
            subprocess.run(["tc", "qdisc", "del", "dev", name, "root"], check=False, timeout=20,
                           stdin=subprocess.DEVNULL, capture_output=True)

    # Frames and cables.

    def sniff(self, name, own=False):
        """A Sniffer on the interface, from now on."""
        sniffer = Sniffer(name, own=own)
        self._end.callback(sniffer.close)
        return sniffer

    def cansend(self, name, text):
        """Sends one frame as another program would (a socket of its own). Notation as for cansend, see parse_frame."""
        with socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW) as sender:
            sender.setsockopt(SOL_CAN_RAW, CAN_RAW_FD_FRAMES, 1)
            sender.bind((name,))
            sender.send(to_bytes(parse_frame(text)))

    def relay(self, to_port):
        """A TCP Relay in front of a local port."""
        relay = Relay(to_port)
        self._end.callback(relay.close)
        return relay

    def gamepad(self, name="Test Pad"):
        """A Gamepad, plugged in, and its device. For a guest: on a real machine others would see it too."""
        self.run("modprobe", "-a", "uinput", "evdev")
        pad = Gamepad(name)
        self._end.callback(pad.unplug)
        return pad, wait_for(pad.path, 60, f"the event device of {name}")

    def watch_device(self, path):
        """A descriptor of a device, to read what it says from now on."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._end.callback(os.close, descriptor)
        return descriptor

    # The end.

    def print_processes(self, last=25):
        """What a failed test's programs said last."""
        for process in self.processes:
            state = "running" if process.running() else f"ended with {process.wait(0)}"
            print(f"  {process.name} ({state}), last lines:", flush=True)
            for _, stream, text in process.lines[-last:]:
                print(f"    {stream}| {text}", flush=True)

    def close(self):
        self._end.close()
