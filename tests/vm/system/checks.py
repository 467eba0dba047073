"""What must hold on the aarch64 machine, in the order in which a machine lives: installed, started, hurt, its power cut, its
kernel hung, upgraded, removed.

Relies on `machine.Machine`, on lib/drive.py for the drive and its oracle, and on inside.pl for what the running service may do.
Each check leaves the service running, or the next one starts it. Row numbers are those of SAFETY.md. Times are the
machine's own, without any allowance for the emulation unless a check says so.
"""
import collections
import json
import re
import time

from lib.drive import look_for
from .machine import PLAIN
from .rig import (HARDWARE_WATCHDOG_S, SAFE_STOP_MS, SERVICE, START_LIMIT_S, STOP_MS, WATCHDOG_MS, check, every_file,
                  expect)

# DESIGN.md section 9: resident memory of the service and size of the program on aarch64.
MEMORY_TARGET_MIB, PROGRAM_TARGET_MIB = 6.0, 3.0
# What systemd may be told to wait is 40 s (TimeoutStopSec), and a whole stop profile of the example takes 3.
STOP_LIMIT_S = 60
SECURITY_LIMIT = 1.5

# The operator who is there before the gateway is, with everything pressed that arms and moves.
EAGER_OPERATOR = """user {"headlights": false, "horn": false, "steering_mode": "manual"}
defaults last
trigger right 0.7
axis left_x 0.5
press start
"""


# Installed and started.

@check
def installs_and_waits_for_a_configuration(system):
    """A fresh card: the package is installed, its service enabled, and not started before there is a configuration."""
    machine = system.machine
    system.ask("tar xf /dev/vdb -C / && systemctl daemon-reload && "
               "systemctl enable --now bench-bus bench-frames bench-journal")
    system.before_install = every_file(system)
    log = system.gateway.mark()
    said = system.ask("DEBIAN_FRONTEND=noninteractive dpkg -i /bench/package.deb 2>&1", 300)
    system.note("dpkg says: " + next((line for line in said.splitlines() if line.startswith("ocpcan:")), "nothing of ours"))
    expect(machine.run(f"systemctl is-enabled {SERVICE}")[1] == "enabled", "not enabled")
    expect(machine.run(f"systemctl is-active {SERVICE}")[1] == "inactive", f"is {system.show('ActiveState')}")
    started = machine.run(f"systemctl start {SERVICE}", START_LIMIT_S)
    expect(machine.run(f"systemctl is-active {SERVICE}")[1] == "inactive", f"started unconfigured: {started}")
    expect(system.show("Result") in ("success", "exec-condition"), f"not configured is a failure: {system.show('Result')}")
    system.gateway.wait_line(r"not configured yet", 20, log)


@check
def starts_as_on_the_pi(system):
    """can0 by the package's own bring-up unit, the gateway by systemd: unprivileged, with real-time priority and locked memory."""
    system.ask("cp /bench/ocpcan.toml /bench/example.dbc /etc/ocpcan/ && echo BITRATE=500000 > /etc/ocpcan/can0.env && "
               "ocpcan check --quiet && cp /usr/bin/ocpcan /usr/local/bin/vehicle")
    system.ask("systemctl enable --now ocpcan-can@can0.service && systemctl enable --now bench-vehicle bench-operator")
    log, mark = system.gateway.mark(), system.bus.mark()
    system.ask(f"systemctl start {SERVICE}", START_LIMIT_S)
    system.first_frame(log, mark)
    pid = system.pid()
    status = dict(re.findall(r"^(\w+):\s*(.*)$", system.ask(f"cat /proc/{pid}/status"), re.M))
    expect(status["Uid"].split()[1] == system.ask("id -u ocpcan"), f"runs as {status['Uid']}")
    expect(int(status["CapEff"], 16) == 0 and int(status["CapBnd"], 16) == 0, f"has capabilities {status['CapEff']}")
    expect(int(status["VmLck"].split()[0]) > 0, "memory is not locked")
    # Fields 40 and 41 of proc(5) stat: priority and policy (1 is SCHED_FIFO); names hold no blank here.
    threads = system.ask(f"cd /proc/{pid}/task && for t in *; do cut -d' ' -f2,40,41 $t/stat; done").splitlines()
    fifo = {name.strip("()"): int(priority) for name, priority, policy in map(str.split, threads) if policy == "1"}
    wanted = {"ocp": 40, "can": 40, "watchdog": 45}
    found = {name: next((p for thread, p in fifo.items() if thread.startswith(name)), None) for name in wanted}
    expect(found == wanted, f"SCHED_FIFO priorities {found}, not {wanted}: {threads}")
    system.note(f"unprivileged, no capability, SCHED_FIFO {fifo}")


@check
def drives_and_a_fault_ends_it(system):
    """The whole way: operator, OCP, gateway, CAN, vehicle and back; a fault of the Streamer ends in safe frames on can1."""
    mark, log = system.drives()
    look_for(lambda: system.speed() > 1, 30, "the vehicle moves")
    since = system.machine.now_ns()
    mark = system.bus.mark()
    system.server.say("fault CameraLost on")
    system.note(f"safe frame {system.safe_after(since, mark):.0f} ms after the test's own action (times generous)")
    entry = system.gateway.wait_entry(r"because of (\w+)", 20, log)
    expect("ocp_fault" in entry[2], f"the cause that is told: {entry[2]}")
    system.server.say("fault CameraLost off")
    system.does_not_arm(mark, system.gateway.mark())
    system.check_row(mark)


# Hurt.

def killed(system, number, what, limit_ms):
    """A signal to the driving service, then what systemd makes of it: safe frames in time, and a new process that does not arm."""
    mark, log = system.drives()
    old = system.pid()
    since = int(system.ask(f"date +%s%N; kill -{number} {old}"))
    ms = system.safe_after(since, mark)
    system.gateway.wait_line(r"safe-stop: \d+ safe frames sent", 60, log)
    up = system.gateway.wait_entry(r"^ocpcan \d", START_LIMIT_S, log)
    log = system.gateway.place(up)
    system.wait_connected(log)
    new = system.pid()
    expect(new not in (0, old), f"not restarted: process {new}")
    begun = min((at for at in system.execs().values() if at > since), default=since)
    system.note(f"{what}: safe-stop begins {(begun - since) / 1e6:.0f} ms later, its first safe frame is there {ms:.0f} ms later, "
                f"the next process {up[0] * 1e3 - since / 1e6:.0f} ms later "
                f"(limit for the safe frame {limit_ms}, of this machine's time)")
    expect(ms <= limit_ms, f"the first safe frame came after {ms:.0f} ms")
    system.first_frame(log, mark)
    system.does_not_arm(mark, log)


@check
def kill_9(system):
    """Row 87: SIGKILL in a drive. Safe frames by ExecStopPost, a new process, and no arming while the operator goes on."""
    killed(system, "KILL", "SIGKILL", SAFE_STOP_MS)


@check
def sigstop(system):
    """Row 84: the process stands still. systemd's watchdog (1 s) kills it, then as with SIGKILL."""
    log = system.gateway.mark()
    killed(system, "STOP", "SIGSTOP, which the watchdog of 1 s ends", WATCHDOG_MS + SAFE_STOP_MS)
    system.gateway.wait_line(r"[Ww]atchdog timeout", 5, log)


@check
def systemctl_stop(system):
    """A stop in a drive: stop profile, safe frames, a clean end, and silence after it."""
    mark, log = system.drives()
    since = int(system.ask(f"date +%s%N; systemctl stop {SERVICE}", STOP_LIMIT_S).split()[0])
    took = (system.machine.now_ns() - since) / 1e6
    ms = system.safe_after(since, mark)
    said = {name: system.show(name) for name in ("Result", "ExecMainStatus", "ActiveState")}
    expect(said == {"Result": "success", "ExecMainStatus": "0", "ActiveState": "inactive"}, f"ended with {said}")
    row = system.commands(mark)
    first = next(at for at, one in enumerate(row) if one.frame.time_ns > since and not one.moves)
    expect(not any(one.moves for one in row[first:]), "a moving frame after the first safe one")
    expect(row[-1].is_final, f"the last frame is {row[-1]}")
    system.note(f"first safe frame {ms:.0f} ms after the command (limit {STOP_MS}), {len(row) - first} in all, "
                f"ended after {took:.0f} ms")
    expect(ms <= STOP_MS, f"the first safe frame came after {ms:.0f} ms")


@check
def a_bus_restarts_when_the_gateway_asks(system):
    """The unprivileged gateway asks by a file; a unit with the right takes the link down and up, four times a minute at most.
    The drive ends in safe frames. (The emulated controller has no bus-off, so this test writes the gateway's request.)"""
    mark, log = system.drives()
    ask = "setpriv --reuid=ocpcan --regid=ocpcan --clear-groups touch /run/ocpcan/restart-can0"
    since = int(system.ask(f"date +%s%N; {ask}"))
    done = system.gateway.wait_entry(r"can0: restarted, as the gateway asked", 60, log)
    system.note(f"link down and up {done[0] * 1e3 - since / 1e6:.0f} ms after the request")
    system.does_not_arm(mark, system.gateway.place(done))
    for _ in range(3):
        log = system.gateway.mark()
        system.ask(ask)
        system.gateway.wait_line(r"can0: restarted, as the gateway asked", 60, log)
    log = system.gateway.mark()
    system.ask(ask)
    system.gateway.wait_line(r"can0: restarted four times within a minute: not again", 60, log)
    left = system.machine.run("ls /run/ocpcan/restart-* 2>/dev/null")[1]
    expect(not left, f"a request is left, which would start the unit without end: {left}")
    # Nothing but a CAN interface's name does anything.
    log = system.gateway.mark()
    system.ask(ask.replace("restart-can0", "restart-lo"))
    system.gateway.wait_line(r"no CAN interface's: ignored", 60, log)


@check
def a_second_gateway_is_refused_and_the_first_goes_on(system):
    """Somebody starts another one by hand and by systemd: neither takes the bus from the one that drives."""
    mark, log = system.drives()
    system.ask("cp /usr/lib/systemd/system/ocpcan.service /run/systemd/system/second.service && systemctl daemon-reload")
    said = system.machine.run("systemctl start second.service", START_LIMIT_S)[1]
    system.gateway.wait_line(r"can0: a gateway drives it: left alone", 60, log)
    system.gateway.wait_line(r"a gateway drives this bus already", 60, log)
    system.ask("systemctl stop second.service && rm /run/systemd/system/second.service && systemctl daemon-reload")
    expect(system.state() == "ARMED", f"the first gateway: {system.gateway_data()}; {said}")
    row = system.commands(mark)
    expect(all(one.moves for one in row), f"{sum(not one.moves for one in row)} of {len(row)} frames are safe ones")


@check
def a_configuration_that_is_lost_is_a_failure(system):
    """Row 105: an emptied file is neither driven with nor passed over in silence."""
    system.start()
    system.ask("cp /etc/ocpcan/ocpcan.toml /bench/good.toml && : > /etc/ocpcan/ocpcan.toml")
    try:
        status = system.machine.run(f"systemctl restart {SERVICE}", START_LIMIT_S)[0]
        said = {name: system.show(name) for name in ("ActiveState", "Result", "ExecMainStatus")}
        expect(status != 0 and said == {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "78"},
               f"status {status}, {said}")
        told = system.machine.run("ocpcan doctor")
        expect(told[0] == 69 and "ocpcan.service has failed" in " ".join(told[1].split()), f"the doctor: {told}")
    finally:
        system.ask(f"cp /bench/good.toml /etc/ocpcan/ocpcan.toml && systemctl reset-failed {SERVICE}")


@check
def systemctl_reload(system):
    """As root tells it: a good file is taken, a bad one changes nothing and says why; the process stays."""
    system.start()
    old = system.pid()
    system.ask("cp /etc/ocpcan/ocpcan.toml /bench/good.toml")
    try:
        for change, said in (
                ("sed -i 's/^# level = \"info\"/level = \"notice\"/' /etc/ocpcan/ocpcan.toml", r"log.level: .info. -> .notice."),
                ("echo 'no_such_key = 1' >> /etc/ocpcan/ocpcan.toml", r"1 problem in .*: nothing changes"),
                ("cp /bench/good.toml /etc/ocpcan/ocpcan.toml", r"log.level: .notice. -> .info.")):
            log = system.gateway.mark()
            system.ask(f"{change} && systemctl reload {SERVICE}")
            system.note("reload: " + system.gateway.wait_line(rf"SIGHUP: .*{said}.*", 30, log)[0])
    finally:
        system.ask(f"cp /bench/good.toml /etc/ocpcan/ocpcan.toml && systemctl reload {SERVICE}")
    expect(system.pid() == old, f"process {system.pid()}, not {old}")


@check
def a_lockout_survives(system):
    """Row 57, then SIGKILL: somebody else writes the gateway's id. LOCKOUT, and the next process has it too."""
    system.start()
    system.make_ready()
    mark, log = system.bus.mark(), system.gateway.mark()
    forged = "0000F40100000100"  # half throttle, enabled
    system.foreign.append(bytes.fromhex(forged))
    system.ask(f"cansend can1 101#{forged}")
    system.gateway.wait_line(r"-> LOCKOUT because of foreign_writer", 20, log)
    log = system.gateway.mark()
    system.ask(f"kill -KILL {system.pid()}")
    system.gateway.wait_line(r"LOCKOUT of the last run still holds", START_LIMIT_S, log)
    system.wait_connected(log)
    look_for(lambda: system.state() == "LOCKOUT", 20, f"the operator is told LOCKOUT, not {system.gateway_data()}")
    system.server.say("neutral", "press start")
    system.does_not_arm(mark, log)
    system.server.say("release start")
    # A person at the vehicle acknowledges it so.
    system.ask(f"systemctl stop {SERVICE} && systemctl start {SERVICE}", STOP_LIMIT_S + START_LIMIT_S)
    look_for(lambda: system.state() not in (None, "LOCKOUT"), 30, f"a restart by a person ends it: {system.gateway_data()}")


# What it may do.

@check
def sandbox(system):
    """Tried in the running service itself: files outside its paths, programs, socket families; and the same calls where
    nothing forbids them, to show that they would work."""
    system.start()
    pid = system.pid()
    to_open = ["/etc/ocpcan/ocpcan.toml", "/etc/passwd", "/etc/shadow", "/var/lib/dpkg/status", "/root", "/home", "/boot",
               "/proc/1/status", "/sys/kernel/tracing/trace", "/dev/vda"]
    to_create = ["/etc/ocpcan/new", "/usr/bin/new", "/var/tmp/new", "/run/new", "/run/ocpcan/new"]
    # The last two lie where the unit lets it execute: there the program's own filter refuses.
    to_execute = ["/bin/true", "/usr/bin/perl", "/usr/bin/ocpcan", "/usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1"]
    tries = [*(("open", path) for path in to_open), *(("create", path) for path in to_create),
             *(("exec", path) for path in to_execute), *(("socket", str(family)) for family in range(1, 46))]
    words = " ".join(f"{what} {word}" for what, word in tries)
    told = dict(line.split(": ", 1) for line in system.ask(f"perl /bench/inside.pl {pid} {words}", 120).splitlines())
    expect(system.pid() == pid, "the service did not survive being asked")
    allowed = {name for name, result in told.items() if result == "allowed"}
    # Reading what everybody may read in /etc and /usr is left to it. 1 unix, 2 inet, 10 inet6, 16 netlink, 29 can.
    wanted = {"open /etc/ocpcan/ocpcan.toml", "open /etc/passwd", "create /run/ocpcan/new",
              *(f"socket {family}" for family in (1, 2, 10, 16, 29))}
    system.note("the service may: " + ", ".join(sorted(allowed)))
    system.note("it may not: " + ", ".join(f"{name} {result.split()[0]}" for name, result in told.items()
                                           if name not in allowed and not name.startswith("socket")))
    refused = collections.Counter(result.split()[0] for name, result in told.items()
                                  if name.startswith("socket") and name not in allowed)
    system.note(f"of socket families 1 to 45 it may not: {dict(refused)}")
    expect(len(told) == len(tries), f"{len(told)} of {len(tries)} answers")
    expect(allowed == wanted, f"more than it needs: {sorted(allowed - wanted)}; less: {sorted(wanted - allowed)}")
    # By the program's own filter, which is asked first.
    expect(set(refused) == {"EPERM"}, f"socket families: {refused}")
    # What a thread that reads what others sent keeps of it: sockets of its own families.
    threads = dict(map(str.split, system.ask(
        f"for task in /proc/{pid}/task/*; do echo $(cat $task/comm) ${{task##*/}}; done").splitlines()))
    families = {"ocp": {2, 10}, "rcsp": {1, 2, 10, 16}, next(name for name in threads if name.startswith("can-")): {1, 16, 29}}
    for name, kept in families.items():
        told = dict(line.split(": ", 1) for line in system.ask(
            f"perl /bench/inside.pl {threads[name]} open /etc/ocpcan/ocpcan.toml create /run/ocpcan/new exec /usr/bin/ocpcan "
            "socket 1 socket 2 socket 10 socket 16 socket 29", 120).splitlines())
        allowed = {what for what, result in told.items() if result == "allowed"}
        expect(len(told) == 8 and allowed == {f"socket {family}" for family in kept}, f"thread {name}: {told}")
        system.note(f"its thread {name} may: {', '.join(sorted(allowed))}; no file, no program")
    expect(system.pid() == pid, "the service did not survive being asked")
    # The same in a process of the same user without the unit around it: there the files open, the program runs, and the
    # kernel has other families than those five.
    said = system.ask(
        "setpriv --reuid=ocpcan --regid=ocpcan --clear-groups sleep 300 & p=$!; sleep 1; perl /bench/inside.pl $p open "
        "/var/lib/dpkg/status create /var/tmp/new socket 17 socket 38 exec /bin/true; kill $p 2>/dev/null; true")
    outside = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    open_there = {name for name, result in outside.items() if result == "allowed"}
    expect({"open /var/lib/dpkg/status", "create /var/tmp/new", "exec /bin/true"} <= open_there
           and not outside["socket 17"].startswith("EAFNOSUPPORT"),
           f"the tries prove nothing: outside the unit they say {said}")


@check
def the_doctor_finds_nothing_wrong(system):
    """As a technician calls it while the service runs: no problem, and the warnings are those of this machine alone."""
    system.start()
    status, said = system.machine.run("ocpcan doctor --json", 60)
    report = json.loads(said)
    for one in report["checks"]:
        if one["level"] != "ok":
            system.note(f"{one['level']}: {one['area']}: {one['text']} -> {one['remedy']}")
    expect(status == 0 and report["problems"] == 0, f"status {status}: {said}")
    # Nobody sets this machine's clock; its hardware's watchdog is a check of its own.
    odd = [one["text"] for one in report["checks"] if one["level"] == "warning" and one["area"] not in ("Clock", "Hardware")]
    expect(not odd, f"warnings that no technician could mend: {odd}")


@check
def security_score(system):
    """systemd's own judgement of the unit as it is installed."""
    said = system.ask(f"systemd-analyze security --no-pager {SERVICE} | tail -1", 120)
    score = float(re.search(r"(\d+\.\d+)", said)[1])
    system.note(f"systemd-analyze security: {score} (limit {SECURITY_LIMIT})")
    expect(score <= SECURITY_LIMIT, said)


@check
def memory_and_size(system):
    """Printed beside the targets, not judged by them; the service after its drives."""
    system.start()
    memory = dict(re.findall(r"^(VmRSS|VmHWM|RssAnon|RssFile):\s+(\d+) kB$", system.ask(f"cat /proc/{system.pid()}/status"),
                             re.M))
    size = int(system.ask("stat -c %s /usr/bin/ocpcan"))
    system.note(f"resident {int(memory['VmRSS']) / 1024:.2f} MiB (target {MEMORY_TARGET_MIB:g}; anonymous "
                f"{int(memory['RssAnon']) / 1024:.2f}, files {int(memory['RssFile']) / 1024:.2f}), program "
                f"{size / 2**20:.2f} MiB (target {PROGRAM_TARGET_MIB:g})")


# Power and kernel.

@check
def row_79_kernel_hang(system):
    """The kernel stops in a drive: the hardware's watchdog resets the machine, which comes back safe and does not arm."""
    machine = system.machine
    system.ask("mkdir -p /etc/systemd/system.conf.d && cp /usr/share/doc/ocpcan/examples/10-ocpcan-watchdog.conf "
               "/etc/systemd/system.conf.d/ && sync")
    machine.power_cut()
    machine.power_on(PLAIN)
    system.wait_connected(0)
    armed = system.ask("cat /sys/class/watchdog/watchdog0/identity /sys/class/watchdog/watchdog0/state "
                       "/sys/class/watchdog/watchdog0/timeout").split("\n")
    expect(armed[1:] == ["active", str(HARDWARE_WATCHDOG_S)], f"the hardware's watchdog: {armed}")
    told = system.machine.run("ocpcan doctor | grep -A1 ^Hardware")[1]
    expect("fed" in told, f"the doctor says: {told}")
    system.drives()
    system.ask("sync")
    events = machine.events.mark()
    started = time.monotonic()
    machine.post("echo c > /proc/sysrq-trigger")
    machine.events.wait(lambda event: event == "WATCHDOG", 180, events, "WATCHDOG event of the emulated hardware")
    took = time.monotonic() - started
    last = system.commands()[-1].frame.time_ns
    # QEMU's own reset leaves what the receive buffers of its CAN controllers held, and old frames would be read again: the moment
    # of the reset is the emulated hardware's, and a new machine with the same disk is what is reset.
    machine.power_cut()
    machine.power_on(PLAIN)
    system.first_frame(0, 0, limit_ms=None)
    silent_s = (system.commands()[0].frame.time_ns - last) / 1e9
    system.note(f"{armed[0]} reset the machine {took:.0f} s of the host's time after the hang; {silent_s:.0f} s without a frame "
                f"on the bus, in which the actuators' own timeout must act")
    system.does_not_arm(0, 0, seconds=5.0)


@check
def row_80_power_cut(system):
    """The power goes in a drive and comes back: safe frames in time, and no arming by an operator who presses everything."""
    system.start()
    lines = " ".join(f"'{line}'" for line in EAGER_OPERATOR.splitlines())
    system.ask(f"rm -rf /etc/systemd/system.conf.d && printf '%s\\n' {lines} > /etc/bench-operator && sync", 120)
    system.drives()
    system.machine.power_cut()
    last = system.commands()[-1]
    expect(last.moves, f"the power was cut when the vehicle did not move: {last}")
    system.machine.power_on()
    system.first_frame(0, 0)
    system.does_not_arm(0, 0, seconds=5.0)


# Upgraded and removed.

def upgrade(system, package):
    """Installs another version; returns what dpkg said."""
    return system.ask(f"DEBIAN_FRONTEND=noninteractive dpkg -i --force-confold /bench/{package}.deb 2>&1", 300)


@check
def an_upgrade_that_refuses_the_configuration_changes_nothing(system):
    """The new program does not accept the file: the old process goes on, and the installer says so."""
    system.start()
    old = system.pid()
    system.ask("cp /etc/ocpcan/ocpcan.toml /bench/good.toml && echo 'no_such_key = 1' >> /etc/ocpcan/ocpcan.toml")
    try:
        said = upgrade(system, "newer")
        ours = [line for line in said.splitlines() if re.match(r"ocpcan|error|/etc/ocpcan", line)]
        expect(system.pid() == old, f"the old process {old} is gone: {system.pid()}; {said}")
        expect(re.search(r"NOT restarted.*\n?.*refuses", said), f"it does not say so: {said}")
        expect("no_such_key" in said, f"it does not say why: {said}")
        system.note("the installer says: " + " | ".join(ours[:4]))
        # What root may read and the service may not.
        system.ask("cp /bench/good.toml /etc/ocpcan/ocpcan.toml && chmod 640 /etc/ocpcan/example.dbc")
        said = upgrade(system, "package")
        told = system.machine.run("ocpcan doctor")
        expect(system.pid() == old, f"the old process {old} is gone: {system.pid()}; {said}")
        expect("NOT restarted" in said and "ermission denied" in said, f"it does not say so: {said}")
        expect(told[0] == 69 and "may not read it" in " ".join(told[1].split()), f"the doctor: {told}")
        # A good file that is not the sealed one: the service would not start with it.
        system.ask("chmod 644 /etc/ocpcan/example.dbc && umask 077 && ocpcan check --quiet --seal && echo '# changed' >> "
                   "/etc/ocpcan/ocpcan.toml")
        said = upgrade(system, "newer")
        expect(system.pid() == old, f"the old process {old} is gone: {system.pid()}; {said}")
        expect("NOT restarted" in said and "not sealed again" in said, f"it does not say so: {said}")
    finally:
        system.ask("cp /bench/good.toml /etc/ocpcan/ocpcan.toml && chmod 644 /etc/ocpcan/example.dbc && "
                   "rm -f /etc/ocpcan/ocpcan.toml.seal")


@check
def an_upgrade_in_a_drive_waits(system):
    """While ARMED nothing is restarted; afterwards an upgrade restarts the gateway by itself."""
    mark, log = system.drives()
    old = system.pid()
    said = upgrade(system, "package")
    expect(system.pid() == old, f"restarted while ARMED: {said}")
    expect("NOT restarted" in said, f"it does not say so: {said}")
    fell = [text for _, _, text in system.gateway.after(log) if re.match(r"ARMED -> ", text)]
    system.note("the installer says: " + next(line for line in said.splitlines() if "NOT restarted" in line)
                + (f" (meanwhile {fell[0]})" if fell else ""))
    system.server.say("neutral", "fault CameraLost on")
    system.wait_state({"SAFE", "STANDBY"}, 30)
    log = system.gateway.mark()
    said = upgrade(system, "newer")
    expect(system.pid() not in (0, old), f"not restarted although it stands: {said}")
    system.wait_connected(log)
    system.server.say("fault CameraLost off")


@check
def removal_and_purge_leave_nothing(system):
    """Removed: only the configuration stays. Purged: the disk is as before the installation."""
    expect(system.before_install, "the list of files before the installation is missing: that check failed")
    mark = system.bus.mark()
    system.ask("dpkg --remove ocpcan 2>&1", 300)
    row = system.commands(mark)
    expect(not row or row[-1].is_final, f"the last frame of the removed gateway is {row[-1:]}")
    after = every_file(system)
    left = sorted(after - system.before_install)
    ours = [path for path in left if not path.startswith("/etc/ocpcan") and not re.search(r"bench-|/usr/local/bin", path)]
    expect(not ours, f"left after removal: {ours}")
    expect("/etc/ocpcan/ocpcan.toml" in left, f"the configuration is gone: {left}")
    system.ask("dpkg --purge ocpcan 2>&1", 300)
    left = sorted(path for path in every_file(system) - system.before_install
                  if not re.search(r"bench-|/usr/local/bin", path))
    expect(not left, f"left after purge: {left}")
    missing = sorted(system.before_install - every_file(system))
    user = system.machine.run("id ocpcan; ls -d /run/ocpcan* 2>/dev/null")[1]
    system.note(f"after removal {len(ours)} files but the configuration, after purge none; of the user: {user}")
    expect(not missing, f"gone that was there before: {missing}")
