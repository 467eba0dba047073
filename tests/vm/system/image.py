"""Makes the image of the aarch64 machine: Debian 12 with systemd and SocketCAN, its kernel, and a small initramfs.

Owns target/system: one image, kernel and initramfs for each text of this file, made once. Relies on debootstrap for the first
half (on the host), on the emulated machine itself for the second (the packages' own scripts are arm64 programs), and on
apt for the kernel. Never changes the host's own apt or dpkg: the kernel is fetched with a state of its own.
"""
import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent.parent
STORE = ROOT / "target" / "system"
SUITE, MIRROR = "bookworm", "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# What a Raspberry Pi has anyway. can-utils is the other end of the bus, busybox is for the initramfs.
PACKAGES = ["systemd", "systemd-sysv", "udev", "dbus", "iproute2", "kmod", "can-utils", "busybox-static"]
SIZE_MIB = 1024  # sparse; about 350 are used

# Of the kernel's 290 MiB of modules the machine needs these folders and files (below kernel/).
MODULES = ["net/can", "drivers/net/can", "drivers/virtio", "drivers/block/virtio_blk.ko", "drivers/char/virtio_console.ko",
           "drivers/watchdog/i6300esb.ko", "fs/ext4", "fs/jbd2", "fs/mbcache.ko", "fs/autofs", "lib", "crypto"]
# What must be loaded before the root can be mounted, and the way to the host.
EARLY = ["virtio_mmio", "virtio_blk", "crc32c_generic", "ext4", "virtio_console"]

# Without these the kernel has page tables of its own for each system call, and the emulation throws its translations away at
# every one; a Pi 4 does not need them.
FAST = "nokaslr kpti=off mitigations=off"

# A unit that no test needs and that costs seconds of emulated time.
MASKED = ["getty@tty1.service", "serial-getty@ttyAMA0.service", "apt-daily.timer", "apt-daily-upgrade.timer",
          "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "systemd-logind.service",
          "motd.timer", "systemd-pstore.service", "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service",
          "systemd-random-seed.service", "console-getty.service", "systemd-firstboot.service", "ldconfig.service"]

INITRAMFS_INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /dev /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module; done
init=/sbin/init
for word in $(/bin/busybox cat /proc/cmdline); do
    case $word in init=*) init=${word#init=} ;; esac
done
until [ -b /dev/vda ]; do /bin/busybox usleep 10000; done
/bin/busybox mount -t ext4 -o noatime /dev/vda /root || exec /bin/busybox poweroff -f
/bin/busybox umount /dev
exec /bin/busybox switch_root /root $init
"""

SECOND_STAGE = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs run /run
if /debootstrap/debootstrap --second-stage && systemctl enable agent.service; then
    rm -rf /var/cache/apt/archives/*.deb /second-stage
    echo "second stage: done"
else
    tail -20 /debootstrap/debootstrap.log
    echo "second stage: FAILED"
fi
sync
# debootstrap takes it away at its end.
mount -t proc proc /proc
echo u > /proc/sysrq-trigger
echo o > /proc/sysrq-trigger
while :; do sleep 1; done
"""

# The host's hands in the machine: one line in, a status and the output back. It holds no terminal, so nothing is echoed.
AGENT = """#!/bin/sh
exec <>/dev/virtio-ports/agent >&0
echo "@ready $(cat /proc/sys/kernel/random/boot_id)"
while IFS= read -r line; do
    sh -c "$line" </dev/null >/run/agent.out 2>&1
    status=$?
    echo "@done $status $(stat -c %s /run/agent.out)"
    cat /run/agent.out
done
"""
AGENT_UNIT = """[Unit]
Description=The host's hands in this machine
DefaultDependencies=no
After=dev-virtio\\x2dports-agent.device systemd-tmpfiles-setup.service
BindsTo=dev-virtio\\x2dports-agent.device
Conflicts=shutdown.target
[Service]
ExecStart=/usr/local/sbin/agent
Restart=always
OOMScoreAdjust=-1000
[Install]
WantedBy=dev-virtio\\x2dports-agent.device
"""


class Broken(Exception):
    """The image could not be made; the text says where it stopped."""


def key():
    """Names the image by what it is made from."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]


class Image:
    """The files that QEMU needs."""

    def __init__(self, folder):
        self.disk, self.kernel, self.initrd = folder / "disk.img", folder / "vmlinuz", folder / "initrd"

    def exists(self):
        return all(path.exists() for path in (self.disk, self.kernel, self.initrd))


def ready():
    """The image, made first if this text of the recipe has none yet. Older ones are removed: each is 350 MiB."""
    folder = STORE / f"image-{key()}"
    image = Image(folder)
    if image.exists():
        return image
    started = time.monotonic()
    STORE.mkdir(parents=True, exist_ok=True)
    for old in STORE.glob("image-*"):
        shutil.rmtree(old)
    work = STORE / "making"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    done = Image(work)
    first_stage(work)
    version = fetch_kernel(work)
    furnish(work / "root", work / "kernel", version)
    initramfs(work, version)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", work / "root", done.disk, f"{SIZE_MIB}M"],
                   check=True)
    print(f"image: first half after {time.monotonic() - started:.0f} s, kernel {version}", flush=True)
    second_stage(done, work / "second-stage.log")
    # 1: something was put right, as after any power cut.
    if subprocess.run(["e2fsck", "-fy", done.disk], check=False, stdout=subprocess.DEVNULL).returncode > 1:
        raise Broken("the file system that the second half left is broken")
    subprocess.run(["tune2fs", "-j", done.disk], check=True, stdout=subprocess.DEVNULL)
    for part in ("root", "kernel", "apt"):
        shutil.rmtree(work / part)
    work.rename(folder)
    print(f"image: made in {time.monotonic() - started:.0f} s", flush=True)
    return image


def logged(command, log, **options):
    """Runs a command; what it says goes to a file, whose end is told if it fails."""
    with open(log, "ab") as sink:
        done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=sink,
                              stderr=subprocess.STDOUT, check=False, **options)
    if done.returncode != 0:
        tail = log.read_text(errors="replace").splitlines()[-15:]
        raise Broken(f"{command[0]} ended with {done.returncode}:\n  " + "\n  ".join(tail))


def first_stage(work):
    logged(["debootstrap", "--foreign", "--arch=arm64", "--variant=minbase", f"--keyring={KEYRING}",
            f"--include={','.join(PACKAGES)}", SUITE, work / "root", MIRROR], work / "first-stage.log")


def fetch_kernel(work):
    """Debian's kernel for arm64, unpacked into work/kernel; returns its version."""
    apt, kernel = work / "apt", work / "kernel"
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True)
    kernel.mkdir()
    (apt / "status").touch()
    (apt / "sources").write_text(f"deb [signed-by={KEYRING}] {MIRROR} {SUITE} main\n")
    options = {"Dir::State": apt / "state", "Dir::State::status": apt / "status", "Dir::Cache": apt / "cache",
               "Dir::Etc::sourcelist": apt / "sources", "Dir::Etc::sourceparts": "/dev/null",
               "APT::Architecture": "arm64", "APT::Architectures": "arm64", "APT::Sandbox::User": "root"}
    flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    log = work / "kernel.log"
    logged(["apt-get", *flags, "update"], log)
    listed = subprocess.run(["apt-cache", *flags, "depends", "linux-image-arm64"], capture_output=True, text=True, check=True)
    package = next(line.split()[-1] for line in listed.stdout.splitlines() if "Depends: linux-image" in line)
    logged(["apt-get", *flags, "download", package], log, cwd=apt)
    logged(["dpkg-deb", "-x", next(apt.glob("linux-image-*.deb")), kernel], log)
    version = package.removeprefix("linux-image-")
    shutil.copy(kernel / "boot" / f"vmlinuz-{version}", work / "vmlinuz")
    return version


def furnish(root, kernel, version):
    """Puts into the first half what the machine has beyond Debian: modules, the agent, and what is switched off."""
    # Inside a container debootstrap makes /proc a link; in the machine it is mounted.
    if (root / "proc").is_symlink():
        (root / "proc").unlink()
    (root / "proc").mkdir(exist_ok=True)
    source = kernel / "lib/modules" / version
    sink = root / "usr/lib/modules" / version
    for name in MODULES:
        found, to = source / "kernel" / name, sink / "kernel" / name
        to.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if found.is_dir() else shutil.copy)(found, to)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(source / name, sink / name)
    subprocess.run(["depmod", "-b", root / "usr", version], check=True, stderr=subprocess.DEVNULL)

    def put(path, text, mode=0o644):
        path = root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    put("second-stage", SECOND_STAGE, 0o755)
    put("usr/local/sbin/agent", AGENT, 0o755)
    put("etc/systemd/system/agent.service", AGENT_UNIT)
    put("etc/udev/rules.d/60-agent.rules", 'SUBSYSTEM=="virtio-ports", TAG+="systemd"\n')
    put("etc/fstab", "/dev/vda / ext4 noatime 0 1\n")
    put("etc/hostname", "pi\n")
    put("etc/hosts", "127.0.0.1 localhost pi\n")
    put("etc/modules-load.d/can.conf", "can-raw\n")
    # The disk is a file of this test: what a crash could lose there is nobody's.
    put("etc/dpkg/dpkg.cfg.d/unsafe", "force-unsafe-io\n")
    # No documents but the package's own: most of what dpkg writes.
    put("etc/dpkg/dpkg.cfg.d/slim", "path-exclude=/usr/share/man/*\npath-exclude=/usr/share/locale/*\n")
    put("etc/apt/sources.list", "")
    for unit in MASKED:
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")


def initramfs(work, version):
    """BusyBox, the modules that the root needs, and a script of 12 lines."""
    base = work / "root/usr"
    wanted = subprocess.run(["modprobe", "-S", version, "-d", base, "-a", "--show-depends", *EARLY], capture_output=True,
                            text=True, check=True).stdout
    modules = list(dict.fromkeys(line.split()[1] for line in wanted.splitlines() if line.startswith("insmod")))
    unpacked = work / "apt/busybox"
    archive = next((work / "root/var/cache/apt/archives").glob("busybox-static_*.deb"))
    subprocess.run(["dpkg-deb", "-x", archive, unpacked], check=True)
    files = [("bin", 0o040755, b"", 0), ("modules", 0o040755, b"", 0), ("dev", 0o040755, b"", 0),
             ("dev/console", 0o020600, b"", 0x501),  # device 5:1
             ("init", 0o100755, INITRAMFS_INIT.encode(), 0),
             ("bin/busybox", 0o100755, next(unpacked.rglob("bin/busybox")).read_bytes(), 0),
             ("modules/order", 0o100644, "\n".join(Path(path).name for path in modules).encode(), 0)]
    files += [(f"modules/{Path(path).name}", 0o100644, Path(path).read_bytes(), 0) for path in modules]
    (work / "initrd").write_bytes(cpio(files))


def cpio(files):
    """An archive in the kernel's own form ("newc"). A device number is 256 x major + minor."""
    out = bytearray()
    for number, (name, mode, data, device) in enumerate([*files, ("TRAILER!!!", 0, b"", 0)], start=1):
        fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, device >> 8, device & 0xFF, len(name) + 1, 0]
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)


def second_stage(image, log):
    """The packages' own scripts, in the machine itself: some minutes of emulation."""
    command = ["qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a72", "-smp", "2", "-m", "1024",
               "-kernel", image.kernel, "-initrd", image.initrd, "-append", f"{FAST} console=ttyAMA0 init=/second-stage panic=-1",
               "-drive", f"file={image.disk},format=raw,if=none,id=disk,cache=unsafe",
               "-device", "virtio-blk-device,drive=disk", "-nodefaults", "-no-reboot", "-display", "none",
               "-serial", f"file:{log}"]
    try:
        subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, check=True, timeout=3000)
    except subprocess.TimeoutExpired:
        pass
    said = log.read_text(errors="replace")
    if "second stage: done" not in said:
        raise Broken("the second half of debootstrap:\n  " + "\n  ".join(said.splitlines()[-25:]))


if __name__ == "__main__":
    made = ready()
    print(made.disk)
    sys.exit(0 if made.exists() else 1)
