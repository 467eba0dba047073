"""Finds the guest tests, runs those of one mode one after another, and says how it went.

Owns the output format that tests/run counts: `ok NAME`, `FAIL NAME: why`, both with the
number of times that the drive had to be prepared again, and a totals line. Relies on every module in
tests/vm/ being importable without CAN (the host lists the tests). Never counts a test that did not run as passed.
"""
import importlib
import signal
import sys
import time
import traceback
from pathlib import Path

MODES = ("default", "sja1000", "icount")
TESTS = []  # (mode, name, deadline_s, function)


def test(mode="default", deadline_s=60.0):
    """Registers a test. It gets a Bench, and passes if it returns; deadline_s is in the guest's own time."""
    assert mode in MODES, mode

    def register(function):
        name = f"{function.__module__}.{function.__name__}"
        TESTS.append((mode, name, deadline_s, function))
        return function
    return register


class DeadlinePassed(BaseException):
    """Not an Exception, so that no test swallows it."""


def _on_alarm(*_):
    raise DeadlinePassed


def load():
    """Imports every module of tests/vm/. A module that cannot be imported is a failed test, not a missing one."""
    folder = Path(__file__).resolve().parent.parent
    sys.path.insert(0, str(folder))
    for path in sorted(folder.glob("*.py")):
        try:
            importlib.import_module(path.stem)
        except Exception as error:  # whatever it is, it is this module's failure
            why = f"{type(error).__name__}: {error}"

            def broken(_bench, why=why):
                raise AssertionError(f"cannot be imported: {why}")
            TESTS.append(("default", f"{path.stem}.import", 10.0, broken))


def chosen(mode, words):
    """The tests of a mode whose name contains one of the words; all without words, or with the mode as word."""
    return [entry for entry in TESTS
            if entry[0] == mode and (not words or any(word in entry[1] or word == mode for word in words))]


def run_one(name, deadline_s, function):
    from .bench import Bench  # pylint: disable=import-outside-toplevel
    started = time.monotonic()
    bench = Bench(name)
    why = None
    signal.setitimer(signal.ITIMER_REAL, deadline_s)
    try:
        function(bench)
    except DeadlinePassed:
        why = f"not finished after {deadline_s:g} s"
    except BaseException as error:  # pylint: disable=broad-except
        if isinstance(error, KeyboardInterrupt):
            raise
        place = traceback.extract_tb(error.__traceback__)
        inside = next((entry for entry in reversed(place) if "/lib/" not in entry.filename), place[-1])
        why = f"{type(error).__name__}: {error} ({Path(inside.filename).name}:{inside.lineno})"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    for note in bench.notes:
        print(f"# {note}", flush=True)
    if why is not None:
        bench.print_processes()
    try:
        # Cleaning up may hang as well, on a process that does not die.
        # In mode icount a program is read from the host, and meanwhile the guest's clock runs ahead.
        signal.setitimer(signal.ITIMER_REAL, 1200 if bench.mode == "icount" else 20)
        bench.close()
    except BaseException as error:  # pylint: disable=broad-except
        why = why or f"cleaning up: {type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    took = time.monotonic() - started
    early = ""
    if bench.early_trips is not None:
        causes = ", ".join(f"{cause} {times}" for cause, times in sorted(bench.early_trips.items()))
        early = f"; trips before the test began: {bench.early_trips.total()}{causes and f' ({causes})'}"
    if why is None:
        print(f"ok {name} ({took:.1f} s{early})", flush=True)
    else:
        print(f"FAIL {name}: {why}{early}", flush=True)
    return why is None


def main(arguments):
    if not arguments or (arguments[0] not in MODES and arguments[0] != "--list"):
        print(f"usage: python3 -m lib --list | {' | '.join(MODES)} [WORD...]", file=sys.stderr)
        return 64
    load()
    if arguments[0] == "--list":
        for mode in MODES:
            for _, name, _, _ in chosen(mode, arguments[1:]):
                print(mode, name)
        return 0
    mode, words = arguments[0], arguments[1:]
    signal.signal(signal.SIGALRM, _on_alarm)
    results = [run_one(name, deadline_s, function) for _, name, deadline_s, function in chosen(mode, words)]
    passed = sum(results)
    print(f"totals {mode}: {passed} passed, {len(results) - passed} failed", flush=True)
    return 0 if results and all(results) else 1
