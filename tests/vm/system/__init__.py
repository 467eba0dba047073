"""The aarch64 machine: a whole Debian with systemd in QEMU, on which the shipped package is installed, started and hurt.

Owns its image under target/system and the one QEMU process. Relies on qemu-system-aarch64, debootstrap, mke2fs and apt of
a Debian host, and on the package that deploy/build-aarch64 makes. Never builds anything of ocpcan itself.
"""
