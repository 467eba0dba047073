"""Runs the checks on the aarch64 machine: `python3 -m system --package FILE.deb [WORD...]`, as root, from tests/vm.

Owns the order, the folder of a run under target/system, and the lines that tests/run counts: `ok NAME`, `FAIL NAME: why`,
with what was measured before each. Relies on image.py, machine.py, rig.py and checks.py. Never counts a check that did not run: with
WORDs only the first two and those whose name contains one of them are run, the others are not named.
"""
import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from . import checks, image  # pylint: disable=unused-import # fills the list
from .machine import Machine, kept
from .rig import CHECKS, System, payload

# What every other check stands on.
FIRST = 2


def newer(package, folder):
    """The same package under the next version, as an upgrade is."""
    unpacked, made = folder / "newer", folder / "newer.deb"
    subprocess.run(["dpkg-deb", "-R", package, unpacked], check=True)
    control = unpacked / "DEBIAN" / "control"
    lines = [line + "+newer" if line.startswith("Version:") else line for line in control.read_text().splitlines()]
    control.write_text("\n".join(lines) + "\n")
    subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "--root-owner-group", "-b", unpacked, made], check=True,
                   stdout=subprocess.DEVNULL)
    shutil.rmtree(unpacked)
    return made


def run_one(function, system):
    """Whether it passed; prints what it noted, then the verdict."""
    started = time.monotonic()
    system.bench.told.clear()
    system.bench.early_trips.clear()
    why = None
    try:
        function(system)
    except KeyboardInterrupt:
        raise
    except Exception as error:  # pylint: disable=broad-except
        # Whatever it is, it is this check's failure.
        place = traceback.extract_tb(error.__traceback__)
        inside = next((entry for entry in reversed(place) if entry.filename.endswith("checks.py")), place[-1])
        why = f"{type(error).__name__}: {error} ({Path(inside.filename).name}:{inside.lineno})"
    for note in system.bench.told:
        print(f"# {note}", flush=True)
    took = f"{time.monotonic() - started:.0f} s of the host's time"
    again = sum(system.bench.early_trips.values())
    again = f", drive prepared {again} times more: {dict(system.bench.early_trips)}" if again else ""
    if why is None:
        print(f"ok {function.__name__} ({took}{again})", flush=True)
    else:
        first, *rest = why.splitlines()
        print(f"FAIL {function.__name__}: {first}", *rest, sep="\n  ", flush=True)
        print("\n".join(f"  | {time_s:.3f} {who}: {text}" for time_s, who, text in system.gateway.after(0)[-40:]), flush=True)
        system.recover()
    return why is None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--package", type=Path, metavar="FILE.deb")
    parser.add_argument("--list", action="store_true", help="print the names, and stop")
    parser.add_argument("--image", action="store_true", help="make the image if it is missing, and stop")
    options = parser.parse_args()
    chosen = CHECKS if not options.words else [
        function for at, function in enumerate(CHECKS)
        if at < FIRST or any(word in function.__name__ for word in options.words)]
    if options.list:
        print("\n".join(function.__name__ for function in chosen))
        return 0
    os.umask(0o022)
    made = image.ready()
    if options.image:
        return 0
    if not options.package:
        parser.error("a package is needed")
    kept(image.STORE, 5)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=image.STORE))
    started = time.monotonic()
    packages = {"package": options.package.resolve(), "newer": newer(options.package, folder)}
    machine = Machine(made, folder, payload(folder, packages))
    # As Ctrl-C, so that the machine is switched off.
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    system = System(machine, packages, folder)
    try:
        machine.power_on()
        print(f"system: booted after {time.monotonic() - started:.0f} s, kernel {machine.ask('uname -rm')}, "
              f"systemd {machine.ask('systemctl --version').split()[1]}", flush=True)
        results = [run_one(function, system) for function in chosen]
    finally:
        machine.power_cut()
        for name in ("disk.img", "payload.tar", "newer.deb"):
            (folder / name).unlink(missing_ok=True)
    print(f"system: {results.count(True)} passed, {results.count(False)} failed "
          f"({time.monotonic() - started:.0f} s, {machine.boots} boots by power)", flush=True)
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
