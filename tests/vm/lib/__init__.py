"""What guest tests import: `from lib import test`, plus the classes for reading and breaking CAN buses.

Owns nothing itself. See registry.py for how a test is found and run, bench.py for what a test may do. Never imports
anything that needs CAN: the host lists the tests too.

A test is a function in any module of tests/vm/:

    @test(mode="icount", deadline_s=120)       # "default" (vcan), "sja1000" (can0, can1, slcan), "icount" (reactions)
    def drive_command_comes_every_20_ms(bench):
        bus = bench.sniff(bench.vcan("vcan0"))
        gateway = bench.ocpcan("run", "--config", ROOT / "deploy/ocpcan.example.toml")
        gateway.wait_line("READY", within_s=5)
        first = bus.wait(0x101, within_s=1)
        ...                                    # raise Failure("what was expected and what came"), or return: passed
        bench.note(f"period {percentiles(periods_ms)}")

    tests/run vcan drive_command               # by part of its name, or by mode
    OCPCAN=target/debug/ocpcan tests/run vcan drive_command    # without the release build

All tests of a mode run in one boot, one after another, in the folder tests/vm (give other paths from ROOT). What a test
starts is killed, and what it makes is removed, when it ends. A failed test shows the last lines of its programs.
Under icount an idle guest's clock jumps, so reading a program from the host's file system takes seconds of guest time:
start programs before what is measured, and use frame times (kernel stamps) for the figures.
"""
from .bench import ROOT, Bench, Failure, Relay, percentiles, wait_for
from .can import Decoder, Frame, Sniffer, now_ns, parse_frame
from .registry import test
from .slcan import Slcan

__all__ = ["ROOT", "Bench", "Decoder", "Failure", "Frame", "Relay", "Slcan", "Sniffer", "now_ns", "parse_frame",
           "percentiles", "test", "wait_for"]
