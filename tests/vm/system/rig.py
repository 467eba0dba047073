"""The rig of the checks on the aarch64 machine: what a check says and measures with, and what the machine is given.

Owns the list of checks and the drive on the machine. Relies on `machine.Machine` and on lib/drive.py for the drive and its
oracle. Never compares the host's clock with the machine's: times are the machine's own.
"""
import collections
import re
from pathlib import Path

from lib.bench import Failure
from lib.drive import DRIVE_CMD, USER_DATA, Command, Drive, look_for, write_config
from .machine import UNITS

HERE = Path(__file__).resolve().parent
SERVICE = "ocpcan.service"
# Row 80. From the exec of the program to its first safe frame on the other end of the bus.
FIRST_FRAME_MS = 200
# SAFETY.md 4.4 gives safe-stop 200 ms after a SIGKILL. Nearly all of it is systemd's own work for the new process, and this machine
# executes a third of what a Pi 4 does in the same time (2 ns an instruction): three times as long here.
SAFE_STOP_MS = 3 * 200
# What the unit's WatchdogSec gives a process that stands still, and systemd for its own timers.
WATCHDOG_MS = 1000 + 100
# A person's stop: no process has to be made first.
STOP_MS = 200
# A start: forks, namespaces and filters of several processes, all emulated.
START_LIMIT_S = 60
HARDWARE_WATCHDOG_S = 10
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def expect(condition, why):
    if not condition:
        raise Failure(why)


class Notes:
    """What `lib.drive.Drive` wants of a bench here."""

    def __init__(self):
        self.early_trips = collections.Counter()
        self.told = []

    def note(self, text):
        self.told.append(text)


class System(Drive):
    """The drive on the machine: its parts are units there, so nothing of `Drive.__init__` is done."""

    def __init__(self, machine, packages, folder):  # pylint: disable=super-init-not-called
        self.machine, self.packages, self.folder = machine, packages, folder
        self.bench = Notes()
        self.foreign, self.causes = [], []
        self.before_install = None

    @property
    def bus(self):
        return self.machine.frames

    @property
    def gateway(self):
        return self.machine.journal

    @property
    def server(self):
        return self.machine.operator

    def ask(self, command, within_s=60):
        return self.machine.ask(command, within_s)

    def note(self, text):
        self.bench.note(text)

    def show(self, name):
        return self.ask(f"systemctl show --timestamp=us+utc -p {name} --value {SERVICE}")

    def pid(self):
        return int(self.show("MainPID"))

    def start(self):
        """Starts the service if it does not run, and waits until it talks to the operator."""
        mark = self.gateway.mark()
        if self.machine.run(f"systemctl is-active {SERVICE}")[1] != "active":
            self.ask(f"systemctl start {SERVICE}", START_LIMIT_S)
            self.wait_connected(mark)
        self.server.say("neutral", "defaults zeroed", "release start")

    def recover(self):
        """After a failed check: a machine that does not answer is switched off and on, for the next one."""
        try:
            self.ask("true", 30)
        except Failure as failure:
            print(f"  the machine is switched off and on: {str(failure).splitlines()[0]}", flush=True)
            self.machine.power_cut()
            self.machine.power_on()

    def wait_connected(self, mark):
        self.gateway.wait_line(r"^OCP: connected", START_LIMIT_S, mark)

    def drives(self):
        """Armed and moving; returns the marks in frames and journal from which on the check's own doings count."""
        self.start()
        self.server.say(*("fault clear", "user " + str(USER_DATA).replace("'", '"').replace("False", "false")))
        self.drive_off()
        return self.bus.mark(), self.gateway.mark()

    def safe_after(self, since_ns, mark, within_s=30):
        """Milliseconds from a moment of the machine's clock to the first safe frame after it."""
        found = self.bus.wait(lambda f: f.id == DRIVE_CMD and not f.error and f.time_ns > since_ns and not Command(f).moves,
                              within_s, mark, "safe DRIVE_CMD")
        return (found.time_ns - since_ns) / 1e6

    def does_not_arm(self, mark, log, seconds=3.0):
        """After the first safe frame since mark only safe ones, and no ARMED in the journal; observed for some seconds of
        frames, 50 a second, whatever the host makes of them."""
        first = self.wait_safe(mark, 30)
        at = self.bus.mark()
        wanted = int(seconds * 50)
        look_for(lambda: len(self.commands(at)) >= wanted, seconds * 20, f"{wanted} more frames: silence is never the stop signal")
        after = [one for one in self.commands(mark) if one.frame.time_ns >= first.frame.time_ns]
        moving = [str(one) for one in after if one.moves]
        expect(not moving, f"{len(moving)} of {len(after)} frames after the first safe one are not safe: {moving[:3]}")
        armed = [text for _, _, text in self.gateway.after(log) if re.search(r"-> ARMED", text)]
        expect(not armed, f"armed by itself: {armed}")

    def execs(self):
        """When the kernel started the program of the service, newest last, in ns of the frames' clock."""
        text = self.ask("mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing; "
                        "grep 'filename=/usr/bin/ocpcan' /sys/kernel/tracing/trace || true")
        found = re.findall(r"-(\d+) +\[\d+\] \S+ +(\d+)\.(\d+): sched_process_exec: filename=/usr/bin/ocpcan", text)
        return {int(pid): int(s) * 10**9 + int(part.ljust(9, "0")) for pid, s, part in found}

    def first_frame(self, log, mark, limit_ms=FIRST_FRAME_MS):
        """Row 80: the first frame of the service that has just come up is safe, and comes in time (judged where the machine's
        clock does not feel the host)."""
        self.wait_connected(log)
        pid = self.pid()
        started = self.execs()
        expect(pid in started, f"no exec of process {pid} in the kernel's trace: {started}")
        self.bus.wait(lambda f: f.id == DRIVE_CMD and not f.error and f.time_ns > started[pid], 30, mark, "DRIVE_CMD")
        after = [one for one in self.commands(mark) if one.frame.time_ns > started[pid]]
        moving = [str(one) for one in after if one.moves]
        expect(not moving, f"frames that are not safe: {moving[:3]}")
        ms = (after[0].frame.time_ns - started[pid]) / 1e6
        self.note(f"first safe frame {ms:.0f} ms after the exec ({f'limit {limit_ms}' if limit_ms else 'the host decides'})")
        expect(limit_ms is None or ms <= limit_ms, f"first safe frame {ms:.0f} ms after the exec")


def payload(folder, packages):
    """Everything that the machine gets on its second disk."""
    write_config(folder, "can0", 4000)
    files = {f"etc/systemd/system/{name}": text for name, text in UNITS.items()}
    files["bench/ocpcan.toml"] = (folder / "ocpcan.toml").read_bytes()
    files["bench/example.dbc"] = (folder / "example.dbc").read_bytes()
    files["bench/inside.pl"] = HERE / "inside.pl"
    files["etc/bench-operator"] = "neutral\n"
    for name, path in packages.items():
        files[f"bench/{name}.deb"] = path
    return files


def every_file(system):
    """What is on the disk, without what dpkg, apt, systemd and this test keep for themselves."""
    text = system.ask("find / -xdev ( -path /var/lib/dpkg -o -path /var/cache -o -path /var/log -o -path /run -o -path /tmp "
                      "-o -path /var/tmp -o -path /bench -o -path /var/lib/systemd/timers -o -path /var/lib/apt ) -prune -o -print"
                      .replace("( ", "\\( ").replace(" )", " \\)"), 120)
    return set(text.splitlines())


