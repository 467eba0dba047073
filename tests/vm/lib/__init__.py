"""What guest tests import: `from lib import test`, plus the classes for reading and breaking CAN buses.

Owns nothing itself. See registry.py for how a test is found and run, bench.py for what a test may do.
"""
from .bench import Bench, Failure, Relay, percentiles, wait_for
from .can import Decoder, Frame, Sniffer, now_ns, parse_frame
from .registry import test
from .slcan import Slcan

__all__ = ["Bench", "Decoder", "Failure", "Frame", "Relay", "Slcan", "Sniffer", "now_ns", "parse_frame",
           "percentiles", "test", "wait_for"]
