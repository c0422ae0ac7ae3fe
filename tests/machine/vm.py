"""A node under QEMU: UEFI firmware, an overlay over the image, taps on the test's bridges.

The run directory receives NAME.journal (ttyS1, the node's journal over all its boots), NAME.console
(ttyS0, the screen) and NAME.qemu (QEMU's own words). A power cut is SIGKILL to QEMU: the guest's
memory, page cache included, is gone; what the guest had handed to its disk stays.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

FIRMWARE = [("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
            ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd")]
KERNEL_ARGUMENTS = ("io.systemd.stub.kernel-cmdline-extra="
                    "systemd.journald.forward_to_console=1")
MEMORY = "2048"       # MiB


class NodeError(Exception):
    """A node did not do what was waited for; the text says where to look."""


def firmware():
    """(code, variables) of the installed OVMF without Secure Boot."""
    for pair in FIRMWARE:
        if all(pathlib.Path(path).exists() for path in pair):
            return pair
    raise NodeError("no OVMF firmware under /usr/share/OVMF: install the package ovmf")


class Node:
    """One node: `image` is never written to."""

    def __init__(self, name, image, directory, links, smbios, accelerator, networks=None):
        self.name, self.image, self.directory = name, image, directory
        self.links = links            # {zone: MAC}
        self.smbios = smbios          # files with SMBIOS type 11 strings
        self.accelerator = accelerator
        self.networks = networks
        self.journal = directory / f"{name}.journal"
        self.console = directory / f"{name}.console"
        self.qemu = None
        self.boots = 0
        self.boot_offset = 0          # where in the journal this boot begins
        self.reboots = True           # False: a restart of the guest ends QEMU

    def prepare(self):
        """Makes overlay, firmware variables and taps."""
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw",
                        "-b", str(self.image.resolve()), str(self.directory / f"{self.name}.qcow2")],
                       check=True)
        shutil.copy(firmware()[1], self.directory / f"{self.name}.vars")
        for path in (self.journal, self.console):
            path.touch()
        if self.networks:
            for zone in self.links:
                self.networks.tap(f"{self.name[:3]}-{zone}", zone)

    def start(self):
        """Powers the node on."""
        self.boots += 1
        self.boot_offset = self.journal.stat().st_size
        log = open(self.directory / f"{self.name}.qemu", "ab")
        options = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log,
                   "cwd": self.directory, "start_new_session": True}
        if self.networks:
            self.qemu = self.networks["switch"].start(self._command(), **options)
        else:
            self.qemu = subprocess.Popen(self._command(), **options)

    def _command(self):
        code, _ = firmware()
        name = self.name
        command = [
            "qemu-system-x86_64", "-name", name, "-nodefaults", "-display", "none",
            "-machine", "q35,smm=off,smbios-entry-point-type=64",
            "-accel", self.accelerator, "-cpu", "host" if self.accelerator == "kvm" else "max",
            "-smp", "1", "-m", MEMORY,
            "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={code}",
            "-drive", f"if=pflash,unit=1,format=raw,file={name}.vars",
            "-drive", f"if=none,id=disk,format=qcow2,cache=writeback,discard=unmap,"
                      f"file={name}.qcow2",
            "-device", "virtio-blk-pci,drive=disk,bootindex=1",
            "-device", "virtio-rng-pci",
            "-chardev", f"socket,id=console,path={name}.tty,server=on,wait=off,"
                        f"logfile={name}.console,logappend=on",
            "-serial", "chardev:console",
            "-chardev", f"file,id=journal,path={name}.journal,append=on",
            "-serial", "chardev:journal",
            "-qmp", f"unix:{name}.qmp,server=on,wait=off",
            "-smbios", f"type=11,value={KERNEL_ARGUMENTS}",
        ]
        if not self.reboots:
            command.append("-no-reboot")
        for path in self.smbios:
            command += ["-smbios", f"type=11,path={path}"]
        for zone, mac in self.links.items():
            card = f"virtio-net-pci,mac={mac},romfile="
            if self.networks:       # otherwise the card has no cable
                command += ["-netdev", f"tap,id={zone},ifname={name[:3]}-{zone},"
                                       "script=no,downscript=no"]
                card += f",netdev={zone}"
            command += ["-device", card]
        return command

    def kill(self):
        """Cuts the power."""
        if self.qemu and self.qemu.poll() is None:
            self.qemu.send_signal(signal.SIGKILL)
        if self.qemu:
            self.qemu.wait()
            self.qemu = None

    def running(self):
        return self.qemu is not None and self.qemu.poll() is None

    def text(self, whole=False):
        """The journal since this boot began (or over all boots)."""
        with open(self.journal, "rb") as file:
            file.seek(0 if whole else self.boot_offset)
            return file.read().decode(errors="replace")

    def wait_for(self, pattern, timeout, what=None):
        """Waits until a line of this boot's journal matches; returns the match."""
        deadline = time.monotonic() + timeout
        while True:
            found = re.search(pattern, self.text(), re.MULTILINE)
            if found:
                return found
            if not self.running():
                raise NodeError(f"{self.name}: QEMU ended while waiting for {what or pattern}; "
                                f"see {self.directory}/{self.name}.qemu and {self.journal}")
            if time.monotonic() > deadline:
                raise NodeError(f"{self.name}: {what or pattern} was not seen within {timeout} s; "
                                f"see {self.journal}")
            time.sleep(0.3)

    def qmp(self, command, **arguments):
        """One QMP command, its answer."""
        with self._unix("qmp") as sock, sock.makefile("rw") as stream:
            stream.readline()
            for request in ({"execute": "qmp_capabilities"},
                            {"execute": command, "arguments": arguments}):
                stream.write(json.dumps(request) + "\n")
                stream.flush()
                answer = json.loads(stream.readline())
                while "event" in answer:
                    answer = json.loads(stream.readline())
            if "error" in answer:
                raise NodeError(f"{self.name}: QMP {command}: {answer['error']['desc']}")
            return answer["return"]

    def disk_flushes(self):
        """How many flushes the guest has asked of its disk since power-on."""
        return next(device["stats"]["flush_operations"]
                    for device in self.qmp("query-blockstats")
                    if "virtio" in device.get("qdev", "") or device.get("device") == "disk")

    def type(self, keys):
        """Sends keys to the serial console."""
        with self._unix("tty") as sock:
            sock.sendall(keys)
            time.sleep(0.5)

    def _unix(self, kind):
        # By way of the directory's descriptor, because a socket's path may have 107 octets at most.
        directory = os.open(self.directory, os.O_PATH)
        try:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(30)
            sock.connect(f"/proc/self/fd/{directory}/{self.name}.{kind}")
            return sock
        finally:
            os.close(directory)
