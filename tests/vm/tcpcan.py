"""The tunnel on real vcan: both programs at both ends, interfaces that go down, away and come back, a slow bus, a dead
link, a stalled peer.

Relies on tests/peers/canload.c for the frames and the verdict (compiled here: one process sends and receives, so the age
of every frame is exact) and on Python's tcpcan 0.0.2. Never speed: the guest is emulated, and Python loses frames by
itself above about 1,000 a second. Figures of speed: benches/tunnel.rs on the host.
"""
import collections
import contextlib
import json
import os
import re
import signal
import socket
import sys
import time

from lib import ROOT, Failure, test, wait_for
from lib.drive import look_for

PYTHON, OURS = "Python", "ours"
PORT = 20010
VERSION = b"v\x04\0\0\0\x01"
AGE_LIMIT_MS = 250  # the default
# The emulated machine holds any process for tens of milliseconds; where age is not the matter it must not drop frames.
PATIENT = ("--max-age-ms", "5000")
AGREED = "connections agreed"
CLOSING_ID = 0x7FE  # those of canload on two buses end at 3FF


def expect(condition, why):
    if not condition:
        raise Failure(why)


def canload_program(bench):
    """canload, compiled into the test's own folder."""
    program = bench.folder / "canload"
    if not program.exists():
        bench.run("cc", "-O1", "-pthread", "-o", program, ROOT / "tests/peers/canload.c", within_s=120)
    return program


def on_cpu(index):
    """Words that keep a program on one CPU. A virtual bus hands a frame on through the CPU that sent it: a program that is
    moved to another CPU overtakes its own frames, and what arrives out of order would be nobody's fault."""
    cpus = sorted(os.sched_getaffinity(0))
    return "taskset", "-c", cpus[index % len(cpus)]


class Load:
    """canload on buses of this test."""

    def __init__(self, bench, *arguments):
        self.process = bench.start("canload", *on_cpu(0), canload_program(bench), "--hold", "--ready-s", 90, *arguments)
        self.process.wait_line("^listening$", within_s=30)

    def ready(self):
        self.process.wait_line("^ready$", within_s=100)

    def go(self):
        self.process.write("go")
        self.process.wait_line("^go$", within_s=20)

    def flows(self, within_s=150):
        """(from, to) -> what canload tells of that direction."""
        status = self.process.wait_output(within_s)
        expect(status == 0, f"canload: status {status}")
        told = [json.loads(line) for line in self.process.output("out").splitlines() if line.startswith("{")]
        return {(flow["from"], flow["to"]): flow for flow in told}


def end(bench, kind, *arguments):
    """One end of the tunnel."""
    if kind == PYTHON:
        # Without this folder in its path: this very file has the name of the package.
        run = "import sys; del sys.path[0]; import tcpcan; tcpcan.main()"
        return bench.start(f"Python {arguments[0]}", *on_cpu(1), sys.executable, "-c", run, *arguments)
    return bench.start(f"ocpcan tcpcan {arguments[0]}", *on_cpu(1), bench.ocpcan_program(), "tcpcan", *arguments)


def serve(bench, kind, bus, *arguments):
    server = end(bench, kind, bus, "--serve", "--host", "127.0.0.1", "--port", PORT, *arguments)
    # The state of the port is read instead of connecting: a Python server would count that as a client.
    listens = re.compile(rf"^ *\d+: [0-9A-F]+:{PORT:04X} [0-9A-F:]+ 0A ", re.MULTILINE)
    wait_for(lambda: listens.search(open("/proc/net/tcp", encoding="ascii").read()), 60, f"{kind} listens")
    return server


def call(bench, kind, bus, *arguments):
    return end(bench, kind, bus, "--host", "127.0.0.1", "--port", PORT, *arguments)


def ethernet(bench):
    """Makes loopback's segments as small as a network's: with its own MTU none would ever be full."""
    bench.run("ip", "link", "set", "lo", "mtu", 1500)


def counted(process, mark, last=None):
    """Reason -> number, as the program told since mark; no further than the reason `last`."""
    counters = collections.Counter()
    for _, _, line in process.lines[mark:]:
        if match := re.search(r"counted: (\d+) (.*)", line):
            counters[match[2]] = int(match[1])
            if match[2] == last:
                break
    return counters


def count_now(process):
    """What a running program of ours has counted: every reason about frames. They come in a fixed order, those of
    connections last, and only the first of these is waited for."""
    mark = process.mark()
    process.signal(signal.SIGUSR1)
    process.wait_line(AGREED, within_s=20, mark=mark)
    return counted(process, mark, AGREED)


def last_count(process):
    """Ends a program of ours; what it has counted, read to the end of its output."""
    mark = process.mark()
    process.signal(signal.SIGTERM)
    status = process.wait_output(within_s=30)
    expect(status == 0, f"{process.name}: status {status} after SIGTERM")
    counters = counted(process, mark)
    expect(counters[AGREED] > 0, f"{process.name} told no counters: {dict(counters)}")
    return counters


def part(counters, start):
    return sum(number for reason, number in counters.items() if reason.startswith(start))


def tell(bench, name, flow):
    bench.note(f"{name}: {flow['from']}>{flow['to']} sent {flow['sent']} lost {flow['lost']} doubled {flow['doubled']} "
               f"late {flow['late']} corrupt {flow['corrupt']} p50 {flow['p50_us'] / 1000:.1f} p99 "
               f"{flow['p99_us'] / 1000:.1f} max {flow['max_us'] / 1000:.1f} ms, {flow['fps']:.0f} frames/s")


def expect_no_damage(flow):
    bad = {key: flow[key] for key in ("doubled", "late", "corrupt") if flow[key]}
    expect(not bad, f"{flow['from']}>{flow['to']}: {bad} {flow['bad']}")


def expect_whole(flow):
    expect_no_damage(flow)
    expect(flow["sent"] > 0 and flow["lost"] == 0, f"{flow['from']}>{flow['to']}: {flow['lost']} of {flow['sent']} lost")


def settled(process):
    """What a running program of ours has counted once nothing waits or is in flight in it."""
    counters = None

    def still():
        nonlocal counters
        counters = count_now(process)
        return not any(reason.endswith((" now", "waiting or in flight now")) for reason in counters)
    look_for(still, 30, f"nothing in flight in {process.name}")
    return counters


def backlog_drops():
    """Frames that the kernel dropped between two programs of one bus: nobody's but the machine's."""
    with open("/proc/net/softnet_stat", encoding="ascii") as lines:
        return sum(int(line.split()[1], 16) for line in lines)


class Account:
    """The counters of a server on vcan0 and a client on vcan1, both ours, around a load."""

    def __init__(self, server, client):
        self.server, self.client = server, client
        self.drops = backlog_drops()
        self.before = (settled(server), settled(client))

    def close(self, bench, flows, may_part=False):
        """Every frame of every direction is in exactly one reason, at both ends; returns both ends' differences. With
        may_part the connection may have ended and come back."""
        # The kernel tells how many frames it lost with the next frame that it did not lose. So one more is sent each way,
        # and it must arrive.
        for one, other in flows:
            sniffer = bench.sniff(other)
            bench.cansend(one, f"{CLOSING_ID:03X}#")
            sniffer.wait(CLOSING_ID, within_s=30)
        settled(self.server), settled(self.client)
        after = last_count(self.server), last_count(self.client)
        server, client = ({reason: new[reason] - old[reason] for reason in {**old, **new} if new[reason] != old[reason]}
                          for new, old in zip(after, self.before))
        bench.note(f"server {json.dumps(server)}")
        bench.note(f"client {json.dumps(client)}")
        again = server.get(AGREED, 0)
        expect(may_part or again == 0, f"connected {again} times more")
        for (bus, _), flow in flows.items():
            self._close_one(bench, flow, *((server, client) if bus == "vcan0" else (client, server)), again)
        return server, client

    def _close_one(self, bench, flow, reader, writer, again):
        """One direction: the end that read the bus it was sent on, and the end that wrote. Each with the closing frame."""
        way = f"{flow['from']}>{flow['to']}"
        sent, received = flow["sent"] + 1, flow["received"] + 1
        read = reader.get("frames read from the bus", 0)
        overflow = reader.get("frames lost in the kernel before they were read from the bus", 0)
        unheard = reader.get("frames of the bus while no peer was connected", 0)
        expect(read + overflow + unheard == sent,
               f"{way}: {sent} sent, {read} read, {overflow} lost in the kernel, {unheard} while no peer was connected; the "
               f"kernel dropped {backlog_drops() - self.drops} on their way between programs")
        expect(again or unheard == 0, f"{way}: {unheard} frames without a connection, which never ended")
        expect(read == part(reader, "to peers: "), f"{way}: {read} read, {part(reader, 'to peers: ')} accounted for")
        arrived = writer.get("frames read from peers", 0)
        expect(arrived == part(writer, "from peers: "),
               f"{way}: {arrived} arrived, {part(writer, 'from peers: ')} accounted for")
        sure = reader.get("to peers: frames acknowledged", 0)
        perhaps = reader.get("to peers: frames in flight when the connection ended (each may have arrived)", 0)
        # Where a connection ended, what the other kernel acknowledged and its program did not read went with it.
        least = 0 if again else sure
        expect(least <= arrived <= sure + perhaps, f"{way}: {arrived} arrived of {sure} and perhaps {perhaps}")
        written = writer.get("from peers: frames written to the bus", 0)
        expect(written == received, f"{way}: {written} written, {received} seen on the bus")
        bench.note(f"{way}, with the closing frame: {sent} sent = {received} received + {overflow} lost in the kernel + "
                   f"{unheard} while no peer was connected ({again} new connections) + {read - sure - perhaps} dropped before "
                   f"the network + {sure + perhaps - arrived} in flight at its end + {arrived - written} dropped before the bus")


def transmitted(bus):
    """Frames that went over a bus since it was made."""
    with open(f"/sys/class/net/{bus}/statistics/tx_packets", encoding="ascii") as number:
        return int(number.read())


def wait_frames(bus, count, within_s=30):
    """Waits until so many more frames went over a bus."""
    until = transmitted(bus) + count
    wait_for(lambda: transmitted(bus) >= until, within_s, f"{count} frames on {bus}")


def matrix(bench, server_kind, client_kind, rate, count, burst=1):
    ethernet(bench)
    bench.vcan("vcan0")
    bench.vcan("vcan1")
    load = Load(bench, "--kind", "mixed", "--both", "--rate", rate, "--count", count, "--burst", burst, "--idle-ms", 4000,
                "vcan0", "vcan1")
    # Python leaves its CAN socket as it is, and emulated it is slower than this bus: frames must wait, not get lost.
    bench.setting("net.core.rmem_default", 16 << 20)
    def extra(kind):
        return PATIENT if kind == OURS else ()
    server = serve(bench, server_kind, "vcan0", *extra(server_kind))
    client = call(bench, client_kind, "vcan1", *extra(client_kind))
    load.ready()
    load.go()
    flows = load.flows()
    for flow in flows.values():
        tell(bench, f"{server_kind} serves, {client_kind} calls", flow)
    expect(server.running() and client.running(), "an end of the tunnel has ended")
    for flow in flows.values():
        expect_whole(flow)
    expect(len(flows) == 2, f"{len(flows)} directions")
    for kind, process in ((server_kind, server), (client_kind, client)):
        if kind == OURS:
            counters = last_count(process)
            expect(counters[AGREED] == 1, f"{counters[AGREED]} connections: {dict(counters)}")


@test(deadline_s=240)
def matrix_ours_both_ends(bench):
    """Classic, FD, RTR, 29-bit and zero-length frames, both ways at once: 8,000 a second together. In bursts: one by
    one, the emulated machine does not get to it."""
    matrix(bench, OURS, OURS, 4000, 16000, burst=16)


def cpu_s(process):
    """CPU seconds that a running process has used, all threads."""
    with open(f"/proc/{process.pid}/stat", encoding="ascii") as told:
        user, system = told.read().rsplit(") ", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@test(deadline_s=240)
def matrix_ours_both_ends_8000_each_way(bench):
    """8,000 frames a second each way are asked for. What the emulated machine carries is a figure, not a verdict: it is
    printed with the CPU time of load generator and tunnel, so that one sees which of them was the limit. The verdict is
    that every frame that does not arrive is counted, and none is damaged."""
    rate, count = 8000, 32000
    ethernet(bench)
    bench.setting("net.core.netdev_max_backlog", 100_000)  # or the machine loses frames between two programs
    bench.vcan("vcan0")
    bench.vcan("vcan1")
    # A frame without data has the low bits of its number alone: not enough where many in a row may be lost.
    load = Load(bench, "--kind", "classic", "--both", "--rate", rate, "--count", count, "--burst", 32, "--idle-ms", 4000,
                "vcan0", "vcan1")
    server, client = (end_(bench, OURS, bus, *PATIENT) for end_, bus in ((serve, "vcan0"), (call, "vcan1")))
    load.ready()
    account = Account(server, client)
    parts = {"load generator": load.process, "server": server, "client": client}
    before = {name: cpu_s(process) for name, process in parts.items()}
    load.go()
    started = time.monotonic()
    used = dict(before)
    lasted = 0.0

    def over():
        # The last figures of a process are read while it is there.
        nonlocal lasted
        if not load.process.running():
            return True
        with contextlib.suppress(OSError, IndexError):
            now = {name: cpu_s(process) for name, process in parts.items()}
            if now != used:
                used.update(now)
                lasted = time.monotonic() - started
        return False
    look_for(over, 150, "the end of the load")
    flows = load.flows()
    for flow in flows.values():
        tell(bench, f"{rate} asked for", flow)
    carried = " and ".join(f"{flow['fps']:.0f}" for flow in flows.values())
    bench.note(f"carried {carried} frames/s of {rate} each way; CPU seconds in {lasted:.1f} s on {os.cpu_count()} CPUs: "
               + ", ".join(f"{name} {used[name] - before[name]:.1f}" for name in parts))
    expect(len(flows) == 2 and all(flow["sent"] == count for flow in flows.values()), "the load was not sent")
    account.close(bench, flows, may_part=True)
    for flow in flows.values():
        expect_no_damage(flow)
        expect(flow["received"] > 0, "nothing arrived")


@test(deadline_s=240)
def matrix_python_serves(bench):
    matrix(bench, PYTHON, OURS, 1000, 4000)


@test(deadline_s=240)
def matrix_python_calls(bench):
    matrix(bench, OURS, PYTHON, 1000, 4000)


def raw_client(within_s=60):
    """An agreed connection of the test's own."""
    def connect():
        try:
            return socket.create_connection(("127.0.0.1", PORT), timeout=within_s)
        except OSError:
            return None
    stream = wait_for(connect, within_s, "a listener")
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.sendall(VERSION)
    expect(stream.recv(6) == VERSION, "no agreement")
    return stream


def passes(bench, bus, sniffer, within_s=30):
    """Frames sent on one bus come out of the other."""
    mark = sniffer.mark()
    deadline = time.monotonic() + within_s
    while not any(frame.id == 0x321 for frame in sniffer.after(mark)):
        expect(time.monotonic() < deadline, f"nothing from {bus} on {sniffer.interface} within {within_s} s")
        bench.cansend(bus, "321#0102")
        time.sleep(0.05)


@test(deadline_s=240)
def interfaces_go_down_away_and_come_back(bench):
    """Both ends go on, and frames pass again, whichever bus it was."""
    bench.vcan("vcan0")
    bench.vcan("vcan1")
    server, client = serve(bench, OURS, "vcan0"), call(bench, OURS, "vcan1")
    passes(bench, "vcan0", bench.sniff("vcan1"))
    for bus, other, process in (("vcan0", "vcan1", server), ("vcan1", "vcan0", client)):
        mark = process.mark()
        bench.link_down(bus)
        process.wait_line("went down", within_s=20, mark=mark)
        bench.link_up(bus)
        passes(bench, bus, bench.sniff(other))
        passes(bench, other, bench.sniff(bus))
        bench.run("ip", "link", "del", bus)
        time.sleep(1)  # gone for a while
        expect(server.running() and client.running(), f"an end has ended without {bus}")
        bench.vcan(bus)
        passes(bench, bus, bench.sniff(other))
        passes(bench, other, bench.sniff(bus))
        bench.note(f"{bus}: down, up, removed, back; frames pass both ways")
    for process in (server, client):
        counters = last_count(process)
        bench.note(f"{process.name}: {dict(counters)}")


@test(deadline_s=240)
def a_removed_interface_ends_a_python_server_and_ours_takes_the_next_peer(bench):
    for kind in (PYTHON, OURS):
        bench.vcan("vcan0")
        server = serve(bench, kind, "vcan0")
        first = raw_client()
        bench.run("ip", "link", "del", "vcan0")
        if kind == PYTHON:
            expect(first.recv(64) == b"", "Python used to close")
            try:
                with raw_client(within_s=20) as second:
                    second.recv(64)
            except (Failure, OSError):
                pass  # it dies while it is asked
            expect(server.wait(30) != 0, "Python used to end")
            continue
        with raw_client() as second:
            bench.vcan("vcan0")
            sniffer = bench.sniff("vcan0")
            message = b"d\x10\x21\x03\0\0\x01\0\0\0\x55\0\0\0\0\0\0\0"
            deadline = time.monotonic() + 30
            while not any(frame.id == 0x321 for frame in sniffer.frames()):
                expect(time.monotonic() < deadline, "no frame on the new interface")
                second.sendall(message)
                time.sleep(0.05)
        expect(server.running(), "ours has ended")
        server.terminate()


@test(deadline_s=240)
def an_interface_that_is_absent_or_down_at_first(bench):
    """The client comes before its bus is there; Python's ends."""
    bench.vcan("vcan0")
    serve(bench, OURS, "vcan0")
    python = call(bench, PYTHON, "vcan1")
    expect(python.wait(60) != 0, "Python used to end without its interface")
    client = call(bench, OURS, "vcan1")
    client.wait_line("trying again", within_s=30)
    bench.vcan("vcan1")
    bench.link_down("vcan1")
    time.sleep(1)  # there, and down
    bench.link_up("vcan1")
    passes(bench, "vcan0", bench.sniff("vcan1"))
    passes(bench, "vcan1", bench.sniff("vcan0"))


@test(deadline_s=180)
def fd_frames_on_a_classic_bus_are_counted_and_the_rest_passes(bench):
    bench.vcan("vcan0")
    bench.vcan("vcan1", mtu=16)
    serve(bench, OURS, "vcan0")
    client = call(bench, OURS, "vcan1")
    sniffer = bench.sniff("vcan1")
    passes(bench, "vcan0", sniffer)
    for _ in range(5):
        bench.cansend("vcan0", "123##1AABB")
    passes(bench, "vcan0", sniffer)
    counters = count_now(client)
    refused = counters["from peers: frames dropped, the bus takes no such frame (CAN FD on a classic bus)"]
    expect(refused == 5, f"{refused} of 5 counted: {dict(counters)}")
    expect(not [frame for frame in sniffer.frames() if frame.fd], "an FD frame on a classic bus")
    # The interface is set up anew while the client holds its socket.
    bench.link_down("vcan1")
    client.wait_line("went down", within_s=20)
    bench.run("ip", "link", "set", "vcan1", "mtu", "72")
    bench.link_up("vcan1")
    sniffer = bench.sniff("vcan1")
    passes(bench, "vcan0", sniffer)
    bench.cansend("vcan0", "123##1AABB")
    sniffer.wait(lambda frame: frame.fd, within_s=20, what="an FD frame on what is an FD bus now")


@test(deadline_s=60)
def a_queue_that_drops_frames_is_told_at_start(bench):
    bench.vcan("vcan0")
    plain = serve(bench, OURS, "vcan0")
    plain.terminate()
    expect("warning" not in plain.output(), f"a plain queue: {plain.output()}")
    bench.run("tc", "qdisc", "replace", "dev", "vcan0", "root", "fq_codel")
    serve(bench, OURS, "vcan0").wait_line("queue discipline `fq_codel`", within_s=30)


@test(deadline_s=180)
def the_kernel_filters_for_each_end(bench):
    """One filter that passes is enough; ID~MASK passes what does not match."""
    bench.vcan("vcan0")
    bench.vcan("vcan1")
    serve(bench, OURS, "vcan0", "--filter", "100:700,321:7FF")
    call(bench, OURS, "vcan1", "--filter", "200~700")
    for bus, other, wanted in (("vcan0", "vcan1", {0x101, 0x321}), ("vcan1", "vcan0", {0x101, 0x301, 0x321})):
        sniffer = bench.sniff(other)
        passes(bench, bus, sniffer)
        mark = sniffer.mark()
        for can_id in (0x101, 0x201, 0x301, 0x321):
            bench.cansend(bus, f"{can_id:03X}#55")
        # The last one passes both ways, and frames keep their order.
        last = lambda frame: frame.id == 0x321 and frame.data == b"\x55"
        sniffer.wait(last, within_s=20, mark=mark, what="the last frame")
        passed = {frame.id for frame in sniffer.after(mark) if frame.data == b"\x55"}
        expect(passed == wanted, f"{bus} to {other}: {sorted(map(hex, passed))} passed")


def slow_bus(bench, kind, feed, seconds):
    """vcan1 as fast as a bus of 125 kbit/s (1,125 frames/s of 8 bytes), fed with more."""
    bench.vcan("vcan0")
    bench.vcan("vcan1")
    # A classic frame counts as 16 bytes here. The limit is a queue of ten frames, as a controller's.
    bench.tbf("vcan1", rate="144kbit", burst="64", limit="160")
    load = Load(bench, "--rate", feed, "--seconds", seconds, "--age-limit-ms", AGE_LIMIT_MS, "--idle-ms", 3000, "vcan0", "vcan1")
    server, client = serve(bench, kind, "vcan0"), call(bench, kind, "vcan1")
    load.ready()
    account = Account(server, client) if kind == OURS else None
    load.go()
    flow = load.flows()["vcan0", "vcan1"]
    tell(bench, f"{kind}: bus of 1,125 frames/s fed with {feed}", flow)
    bench.note(f"{kind}: {flow['old']} frames older than {AGE_LIMIT_MS} ms, ENOBUFS lines "
               f"{client.output('err').count('No buffer space')}")
    expect_no_damage(flow)
    return flow, account, client


@test(deadline_s=240)
def a_bus_of_125_kbit_fed_with_8000_frames_a_second(bench):
    flow, account, client = slow_bus(bench, OURS, 8000, 5)
    account.close(bench, {("vcan0", "vcan1"): flow})
    expect("No buffer space" not in client.output("err"), "ENOBUFS")
    expect(flow["old"] == 0, f"{flow['old']} frames older than {AGE_LIMIT_MS} ms")
    expect(flow["received"] > 3000, f"only {flow['received']} frames of about 5,600 that the bus could have taken")


@test(deadline_s=240)
def python_loses_frames_on_a_slow_bus_one_error_each(bench):
    flow, _, client = slow_bus(bench, PYTHON, 1500, 4)
    expect(flow["lost"] > 0 and "No buffer space" in client.output("err"), "Python used to lose frames here")


def interrupted(bench, what, rate, seconds, begin, lasts_s, end_it):
    """A load one way with the default age limit, and in the middle something that lasts so long: afterwards frames pass
    again, none was older than the limit, and each one is accounted for."""
    bench.vcan("vcan0")
    bench.vcan("vcan1")
    load = Load(bench, "--rate", rate, "--seconds", seconds, "--age-limit-ms", AGE_LIMIT_MS, "--idle-ms", 4000, "vcan0",
                "vcan1")
    server, client = serve(bench, OURS, "vcan0"), call(bench, OURS, "vcan1")
    load.ready()
    account = Account(server, client)
    load.go()
    wait_frames("vcan1", rate)
    begin(server, client)
    time.sleep(lasts_s)  # nothing is waited for: this is what the test does to them
    end_it(server, client)
    wait_frames("vcan1", rate)
    flow = load.flows()["vcan0", "vcan1"]
    tell(bench, what, flow)
    account.close(bench, {("vcan0", "vcan1"): flow}, may_part=True)
    expect_no_damage(flow)
    expect(flow["old"] == 0, f"{flow['old']} frames older than {AGE_LIMIT_MS} ms; the oldest {flow['max_us'] / 1e6:.3f} s")
    # What was sent while nothing could pass, less the last that were still young enough when it was over.
    gone = rate * (lasts_s - AGE_LIMIT_MS / 1000)
    expect(flow["lost"] > 0.9 * gone, f"{flow['lost']} lost where at least {gone:.0f} must be: was anything interrupted?")


@test(deadline_s=300)
def an_outage_of_15_s_leaves_no_old_frame_and_no_gap_in_the_books(bench):
    ethernet(bench)
    interrupted(bench, "15 s outage", 500, 24, lambda server, client: bench.netem("lo", "loss 100%"), 15,
                lambda server, client: bench.clear_qdisc("lo"))


@test(deadline_s=300)
def a_reader_stopped_for_10_s_hands_on_nothing_old(bench):
    interrupted(bench, "reader stopped for 10 s", 500, 18, lambda server, client: client.stall(), 10,
                lambda server, client: client.resume())


@test(deadline_s=300)
def a_reader_stopped_for_2_s_hands_on_nothing_old(bench):
    """Shorter than any time after which a connection is given up: what waited in the sockets must not come out."""
    interrupted(bench, "reader stopped for 2 s", 500, 10, lambda server, client: client.stall(), 2,
                lambda server, client: client.resume())


@test(deadline_s=300)
def a_sender_stopped_for_2_s_hands_on_nothing_old(bench):
    """The end whose bus is loaded: what waited in its CAN socket must not go out."""
    interrupted(bench, "sender stopped for 2 s", 500, 10, lambda server, client: server.stall(), 2,
                lambda server, client: server.resume())


def lossy_link(bench, rtt_ms):
    """1 % of the packets of either direction is lost. The loss costs time alone: with a limit far above it every frame
    arrives; with the default one those that became too old are dropped, and the counters have each of them."""
    ethernet(bench)
    for what, limit in (("age limit 5 s", PATIENT), (f"age limit {AGE_LIMIT_MS} ms, the default", ())):
        bench.vcan("vcan0")
        bench.vcan("vcan1")
        # A frame without data has the low bits of its number alone: not enough where many in a row may be lost.
        kind = "mixed" if limit else "classic"
        load = Load(bench, "--kind", kind, "--both", "--rate", 500, "--count", 4000, "--idle-ms", 6000, "vcan0", "vcan1")
        bench.netem("lo", f"delay {rtt_ms / 2}ms loss 1%")
        server, client = serve(bench, OURS, "vcan0", *limit), call(bench, OURS, "vcan1", *limit)
        load.ready()
        account = Account(server, client)
        load.go()
        flows = load.flows()
        lost_packets = re.search(r"dropped (\d+)", bench.run("tc", "-s", "qdisc", "show", "dev", "lo"))
        bench.clear_qdisc("lo")
        bench.note(f"RTT {rtt_ms} ms, {what}: the link lost {lost_packets[1]} packets")
        expect(len(flows) == 2, f"{len(flows)} directions")
        expect(int(lost_packets[1]) > 0, "the link lost nothing")
        for flow in flows.values():
            tell(bench, f"RTT {rtt_ms} ms, 1 % loss, {what}", flow)
        account.close(bench, flows, may_part=not limit)
        for flow in flows.values():
            if limit:
                expect_whole(flow)
            else:
                expect_no_damage(flow)
                expect(flow["received"] > flow["sent"] / 2, f"{flow['received']} of {flow['sent']} received")


@test(deadline_s=300)
def a_link_of_1_ms_that_loses_1_percent(bench):
    lossy_link(bench, 1)


@test(deadline_s=300)
def a_link_of_40_ms_that_loses_1_percent(bench):
    lossy_link(bench, 40)


@test(deadline_s=300)
def one_stalled_peer_of_eight_harms_itself_alone(bench):
    buses = [bench.vcan(f"vcan{number}") for number in range(9)]
    load = Load(bench, "--rate", 200, "--seconds", 14, "--age-limit-ms", AGE_LIMIT_MS, "--idle-ms", 4000, *buses)
    server = serve(bench, OURS, "vcan0", *PATIENT)
    # The limit is the stalled one's: what it missed must not come.
    clients = [call(bench, OURS, bus, *(PATIENT if bus != "vcan8" else ())) for bus in buses[1:]]
    load.ready()
    load.go()
    wait_frames("vcan8", 200)
    clients[-1].stall()
    time.sleep(10)  # this is what the test does to it
    clients[-1].resume()
    flows = load.flows()
    for bus in buses[1:]:
        tell(bench, "stalled" if bus == "vcan8" else "one of seven", flows["vcan0", bus])
    for bus in buses[1:8]:
        expect_whole(flows["vcan0", bus])
    stalled = flows["vcan0", "vcan8"]
    expect_no_damage(stalled)
    expect(stalled["old"] == 0, f"{stalled['old']} frames older than {AGE_LIMIT_MS} ms reached the stalled peer's bus")
    expect(stalled["lost"] > 0, "a peer that did not read for 10 s lost nothing?")
    counters = last_count(server)
    expect(counters["frames read from the bus"] == part(counters, "to peers: "), f"{dict(counters)}")
