"""Runs the port's own Rust tests on real interfaces: the same tests that `cargo test` runs on the built-in bus, and those
that only a kernel bus can have (interface down, removed, without FD, two controllers on a wire).

Relies on the test program that `cargo test` has built. Never passes when that program ran no test.
"""
import os
import re
import subprocess
from pathlib import Path

from lib import Failure, test

ROOT = Path(__file__).resolve().parent.parent.parent


def test_program():
    """The newest test program of the library under target/."""
    programs = [path for profile in ("debug", "release") for path in (ROOT / "target" / profile / "deps").glob("ocpcan-*")
                if path.suffix == "" and os.access(path, os.X_OK)]
    for path in sorted(programs, key=lambda path: path.stat().st_mtime, reverse=True):
        listed = subprocess.run([path, "--list"], capture_output=True, text=True, check=False)
        if "io::canbus::tests::" in listed.stdout:
            return path
    raise Failure("no test program with io::canbus::tests under target/: run `cargo test --lib --no-run`")


def run_tests(bench, words, **environment):
    """Runs the tests whose name contains a word, ignored ones too; at least one must run and none may fail."""
    done = subprocess.run([test_program(), *words, "--include-ignored", "--test-threads=2", "--show-output"], capture_output=True,
                          text=True, check=False, env=dict(os.environ, **environment), timeout=200)
    summary = re.search(r"test result: \w+\. (\d+) passed; (\d+) failed", done.stdout)
    if done.returncode != 0 or not summary or int(summary[1]) == 0:
        raise Failure(f"exit status {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-2000:]}")
    for line in re.findall(r"Facts \{.*\}", done.stdout):
        bench.note(line)
    bench.note(f"{summary[1]} Rust tests passed")


@test(deadline_s=240)
def rust_port_tests_pass_on_vcan(bench):
    bench.vcan()
    run_tests(bench, ["io::canbus::tests::the_", "io::canbus::tests::filters_", "io::canbus::tests::fd_",
                      "io::canbus::tests::two_", "io::canbus::tests::a_", "io::canbus::tests::facts_",
                      "io::canbus::tests::kernel_"], OCPCAN_TEST_BUS="vcan0")


@test(mode="sja1000", deadline_s=240)
def rust_port_tests_pass_on_two_controllers(bench):
    zero, one = bench.controllers()
    run_tests(bench, ["io::canbus::tests::wire_"], OCPCAN_TEST_WIRE=f"{zero},{one}")


@test(mode="sja1000", deadline_s=240)
def rust_port_test_passes_on_a_serial_adapter(bench):
    adapter = bench.slcan()
    run_tests(bench, ["io::canbus::tests::slcan_"], OCPCAN_TEST_SLCAN=adapter.interface)
