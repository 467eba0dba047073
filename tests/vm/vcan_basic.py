"""Proves the bench itself: that frames are seen, and that each way of breaking a bus breaks it as the kernel would.

Relies on nothing of the gateway. If one of these fails, no other guest test means anything.
"""
import errno
import signal
import time

from lib import Failure, now_ns, percentiles, test, wait_for


def expect(condition, why):
    if not condition:
        raise Failure(why)


@test()
def frame_is_seen_with_kernel_time(bench):
    bus = bench.sniff(bench.vcan())
    before_ns = now_ns()
    bench.cansend("vcan0", "101#1122334455667788")
    frame = bus.wait(0x101, within_s=5)
    expect(frame.data == bytes.fromhex("1122334455667788") and not frame.extended and not frame.fd, f"got {frame}")
    expect(before_ns <= frame.time_ns <= now_ns(), f"stamped {frame.time_ns}, sent after {before_ns}")


@test()
def can_utils_frame_is_seen(bench):
    bus = bench.sniff(bench.vcan())
    bench.run("cansend", "vcan0", "1F334455#DEADBEEF")
    frame = bus.wait(0x1F334455, within_s=5)
    expect(frame.extended and frame.data == bytes.fromhex("DEADBEEF"), f"got {frame}")


@test()
def fd_frame_is_seen(bench):
    bus = bench.sniff(bench.vcan())
    bench.cansend("vcan0", "123##1" + "AB" * 64)
    frame = bus.wait(0x123, within_s=5)
    expect(frame.fd and frame.bit_rate_switch and frame.data == b"\xAB" * 64, f"got {frame}")


@test()
def own_frame_comes_back_confirmed_and_a_foreign_one_does_not(bench):
    bus = bench.sniff(bench.vcan(), own=True)
    bus.send("101#01")
    expect(bus.wait(0x101, within_s=5).confirmed, "the echo has no MSG_CONFIRM")
    bench.cansend("vcan0", "102#02")
    foreign = bus.wait(0x102, within_s=5)
    expect(foreign.local and not foreign.confirmed, f"got {foreign}")


@test()
def forged_bus_off_is_recognised(bench):
    bus = bench.sniff(bench.vcan())
    bench.cansend("vcan0", "20000040#0000000000000000")
    expect(bus.wait(lambda frame: frame.error, within_s=5).bus_off, "error class lost")


@test()
def interface_down_and_up(bench):
    bus = bench.sniff(bench.vcan())
    bench.link_down("vcan0")
    error = wait_for(lambda: bus.died, 5, "the sniffer's socket notices")
    expect(error.errno == errno.ENETDOWN, f"got {error}")
    bench.link_up("vcan0")
    bench.cansend("vcan0", "101#07")
    bus.wait(0x101, within_s=5)


@test()
def program_is_started_watched_stalled_and_killed(bench):
    bench.vcan()
    dump = bench.start("candump", "stdbuf", "-oL", "candump", "-L", "vcan0")
    def seen():
        bench.cansend("vcan0", "101#11")
        return "101#11" in dump.output("out")
    wait_for(seen, 10, "candump prints a frame")
    dump.stall()
    wait_for(lambda: state_of(dump.pid) == "T", 5, "SIGSTOP")
    dump.resume()
    wait_for(lambda: state_of(dump.pid) != "T", 5, "SIGCONT")
    expect(dump.kill() == -signal.SIGKILL, "another exit status")


def state_of(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        return stat.read().rsplit(") ", 1)[1][0]


@test()
def relay_passes_stalls_and_cuts(bench):
    import socket
    with socket.create_server(("127.0.0.1", 0)) as server:
        relay = bench.relay(server.getsockname()[1])
        with socket.create_connection(("127.0.0.1", relay.port)) as client:
            far, _ = server.accept()
            far.settimeout(5)
            client.sendall(b"one")
            expect(far.recv(3) == b"one", "not passed on")
            relay.stall()
            client.sendall(b"two")
            far.settimeout(0.3)
            try:
                raise Failure(f"passed {far.recv(3)} while stalled")
            except TimeoutError:
                pass
            relay.resume()
            far.settimeout(5)
            expect(far.recv(3) == b"two", "not passed on after the stall")
            relay.cut()
            expect(far.recv(1) == b"", "not cut")
            far.close()


@test()
def signals_are_decoded_by_cantools(bench):
    from lib import Decoder
    dbc = bench.folder / "bench.dbc"
    dbc.write_text('VERSION ""\nBU_: A\nBO_ 257 M: 8 A\n SG_ S : 7|16@0- (0.5,1) [0|0] "" A\n'
                   ' SG_ G : 16|2@1+ (1,0) [0|3] "" A\nVAL_ 257 G 2 "reverse" ;\n', encoding="ascii")
    bus = bench.sniff(bench.vcan())
    started = time.monotonic()
    decoder = Decoder(dbc)
    bench.note(f"importing cantools took {time.monotonic() - started:.1f} s")
    bench.cansend("vcan0", "101#FFFE020000000000")
    values = decoder.decode(bus.wait(0x101, within_s=5))
    expect(values == {"S": 0.0, "G": "reverse"}, f"got {values}")


@test(mode="sja1000")
def controllers_carry_frames_both_ways(bench):
    zero, one = bench.controllers()
    left, right = bench.sniff(zero, own=True), bench.sniff(one, own=True)
    left.send("101#0102")
    expect(not right.wait(0x101, within_s=5).confirmed, "a received frame has MSG_CONFIRM")
    expect(left.wait(0x101, within_s=5).confirmed, "no echo on can0")
    right.send("201#03")
    left.wait(0x201, within_s=5)


@test(mode="sja1000")
def netem_loss_lets_writes_succeed_and_nothing_leave(bench):
    zero, one = bench.controllers()
    left, right = bench.sniff(zero, own=True), bench.sniff(one)
    left.send("101#01")
    right.wait(0x101, within_s=5)
    bench.netem(zero, "loss 100%")
    for _ in range(20):
        left.send("102#02")
    bench.clear_qdisc(zero)
    left.send("103#03")  # what comes after it proves that the lost ones are not just late
    right.wait(0x103, within_s=5)
    left.wait(0x103, within_s=5)
    expect(not left.frames(0x102) and not right.frames(0x102), "a frame got through netem loss 100%")


@test(mode="sja1000")
def netem_delay_stores_frames_and_releases_them_later(bench):
    zero, one = bench.controllers()
    left, right = bench.sniff(zero, own=True), bench.sniff(one)
    bench.netem(zero, "delay 1s")
    sent_ns = now_ns()
    left.send("101#01")
    late_ns = right.wait(0x101, within_s=10).time_ns - sent_ns
    expect(late_ns >= 990_000_000, f"released after {late_ns / 1e6:.1f} ms")


@test(mode="sja1000")
def tbf_gives_back_pressure(bench):
    zero, _ = bench.controllers()
    left = bench.sniff(zero)
    bench.tbf(zero, rate="8kbit", burst="20", limit="64")
    refused = 0
    for _ in range(50):
        try:
            left.send("101#0102030405060708")
        except OSError as error:
            expect(error.errno == errno.ENOBUFS, f"got {error}")
            refused += 1
    expect(refused > 0, "50 frames at once all accepted by a queue of 4")


@test(mode="sja1000")
def slcan_bus_off_is_real(bench):
    adapter = bench.slcan()
    bus = bench.sniff(adapter.interface)
    bench.cansend(adapter.interface, "123#AA")
    wait_for(lambda: b"t1231AA" in adapter.received, 5, "the adapter gets the frame")
    adapter.write(b"t20121122")
    expect(bus.wait(0x201, within_s=5).data == b"\x11\x22", "frame from the adapter")
    adapter.bus_off()
    frame = bus.wait(lambda frame: frame.error, within_s=5, what="error frame")
    expect(frame.bus_off and not frame.local, f"got {frame}")
    wait_for(lambda: not bench.carrier(adapter.interface), 5, "carrier off")


@test(mode="sja1000")
def slcan_stall_fills_the_queue_and_unplug_removes_the_interface(bench):
    adapter = bench.slcan()
    adapter.stall()
    def refused():
        try:
            bench.cansend(adapter.interface, "123#0102030405060708")
        except OSError as error:
            return error.errno == errno.ENOBUFS
        return False
    wait_for(refused, 20, "ENOBUFS on a stalled adapter")
    bus = bench.sniff(adapter.interface)
    adapter.unplug()
    error = wait_for(lambda: bus.died, 5, "the sniffer's socket notices")
    expect(error.errno in (errno.ENODEV, errno.ENETDOWN), f"got {error}")


@test(mode="icount")
def guest_clock_counts_instructions(bench):
    """A timer of 20 ms fires on time and a frame reaches its reader soon, whatever the host does."""
    bus = bench.sniff(bench.vcan(), own=True)
    late_ms, echo_ms = [], []
    for number in range(50):
        due = time.monotonic() + 0.020
        time.sleep(0.020)
        late_ms.append((time.monotonic() - due) * 1e3)
        mark, sent_ns = bus.mark(), now_ns()
        bus.send(f"101#{number:02X}")
        bus.wait(0x101, within_s=5, mark=mark)
        echo_ms.append((now_ns() - sent_ns) / 1e6)
    bench.note(f"20 ms sleep late by {percentiles(late_ms)}")
    bench.note(f"send to echo seen in Python {percentiles(echo_ms)}")
    expect(max(late_ms) < 5, f"a 20 ms sleep was late by {max(late_ms):.3f} ms")
    expect(max(echo_ms) < 10, f"an echo took {max(echo_ms):.3f} ms")
