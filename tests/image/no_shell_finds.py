#!/usr/bin/env python3
"""Claim: no_shell.py finds each kind of thing that it says is not there, when it is put into a tree, and is content
with the same tree without it.   Ends with "N passed, M failed".
"""

import os
import pathlib
import sys
import tempfile

import no_shell

ELF = b"\x7fELF" + bytes(60)
REBOOTS = "[Service]\nSuccessAction=reboot-force\n"


def write(root, name, content, mode=0o755):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return path


def clean(root):
    """The smallest tree that no_shell.py is content with."""
    write(root, "usr/lib/systemd/systemd", ELF)
    for unit in ("emergency", "rescue"):
        write(root, f"usr/lib/systemd/system/{unit}.service", REBOOTS.encode(), 0o644)
    for number in range(250):
        write(root, f"usr/share/filler/{number}", b"", 0o644)


def link(root, name, target):
    write(root, name, b"").unlink()
    (root / name).symlink_to(target)


def capability(root):
    path = write(root, "usr/bin/ping", ELF)
    # VFS_CAP_REVISION_2, effective, CAP_NET_RAW (capabilities(7), include/uapi/linux/capability.h).
    os.setxattr(path, "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))


PLANTED = {
    "nothing": None,
    "bash": lambda root: write(root, "usr/bin/bash", ELF),
    "a link called sh": lambda root: link(root, "usr/bin/sh", "anything"),
    "busybox": lambda root: write(root, "usr/lib/klibc/bin/busybox", ELF),
    "agetty": lambda root: write(root, "usr/sbin/agetty", ELF),
    "login": lambda root: write(root, "usr/bin/login", ELF),
    "sshd": lambda root: write(root, "usr/sbin/sshd", ELF),
    "apt-get": lambda root: write(root, "usr/bin/apt-get", ELF),
    "dpkg": lambda root: write(root, "usr/bin/dpkg", ELF),
    "python3.13": lambda root: write(root, "usr/bin/python3.13", ELF),
    "perl": lambda root: write(root, "usr/bin/perl5.40", ELF),
    "an executable script of any name": lambda root: write(root, "usr/lib/x/helper", b"#!/bin/anything\n"),
    "an executable that is no ELF": lambda root: write(root, "usr/lib/x/helper", b"echo\n"),
    "a setuid file": lambda root: write(root, "usr/bin/mount", ELF, 0o4755),
    "a setgid file": lambda root: write(root, "usr/bin/mount", ELF, 0o2755),
    "a file capability": capability,
    "a getty unit": lambda root: write(root, "usr/lib/systemd/system/getty@.service", b"[Service]\n", 0o644),
    "an emergency shell": lambda root: write(root, "usr/lib/systemd/system/emergency.service",
                                             b"[Service]\nExecStart=sulogin\n", 0o644),
}


def main():
    failed = 0
    for name, plant in PLANTED.items():
        with tempfile.TemporaryDirectory() as directory:
            root = pathlib.Path(directory)
            clean(root)
            if plant:
                plant(root)
            report = no_shell.Report(quiet=True)
            no_shell.examine(report, name, root, perl_allowed=False)
            good = report.failed > 0 if plant else report.failed == 0
            failed += not good
            print(f"{'ok  ' if good else 'FAIL'} no_shell.py, given a tree with {name} planted: "
                  f"{report.failed} claim(s) refused")
    print(f"{len(PLANTED) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
