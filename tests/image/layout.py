#!/usr/bin/env python3
"""Claim: an image has the partitions that were promised for ten years, and its UKI is tied to its root by hash.

usage: layout.py IMAGE...   Ends with "N passed, M failed".
"""

import pathlib
import re
import sys
import tempfile
import uuid

import unpack
from no_shell import Report

MIB = 1 << 20
GIB = 1 << 30


def expected(image_id, version):
    """(type, label, size) of each partition, in order; state is made at the first boot, behind them."""
    return [(unpack.ESP, "esp", GIB),
            (unpack.ROOT, f"{image_id}_{version}", 2 * GIB),
            (unpack.ROOT_VERITY, f"{image_id}_{version}_verity", 64 * MIB),
            (unpack.ROOT, "_empty", 2 * GIB),
            (unpack.ROOT_VERITY, "_empty", 64 * MIB)]


def release(uki):
    text = unpack.section(uki, ".osrel").decode()
    return dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', text, re.MULTILINE))


def main():
    report = Report()
    for image in map(pathlib.Path, sys.argv[1:]):
        with tempfile.TemporaryDirectory(dir=image.parent) as directory:
            uki = unpack.copy_uki(image, directory)
            system = release(uki)
            image_id, version = system["IMAGE_ID"], system["IMAGE_VERSION"]
            report.claim(f"{image.name}: UKI named for boot counting",
                         [] if uki.name == f"{image_id}_{version}+3.efi" else [uki.name])
            found = [(part.type, part.label, part.size) for part in unpack.partitions(image)]
            report.claim(f"{image.name}: ESP 1 GiB, two slots of 2 GiB + 64 MiB, the second empty",
                         [] if found == expected(image_id, version) else [str(part) for part in found])
            command_line = unpack.section(uki, ".cmdline").decode().rstrip("\0\n")
            hashes = re.findall(r"\broothash=([0-9a-f]{64})\b", command_line)
            ids = [str(uuid.UUID(hex=digest)) for root in hashes for digest in (root[:32], root[32:])]
            slot = [str(unpack.partition(image, kind).id) for kind in (unpack.ROOT, unpack.ROOT_VERITY)]
            report.claim(f"{image.name}: the UKI's root hash names slot A's root and verity data",
                         [] if ids == slot else [f"from the hash {ids}", f"on the disk {slot}"])
            report.claim(f"{image.name}: corruption panics, panic restarts",
                         [word for word in ("systemd.verity_root_options=panic-on-corruption", "panic=10")
                          if word not in command_line.split()])
            report.claim(f"{image.name}: the command line names no shell and no other init",
                         re.findall(r"\b(?:init|rdinit|systemd\.debug_shell)\b\S*", command_line))
            loader = pathlib.Path(directory, "loader.conf")
            unpack.copy_file(image, "loader/loader.conf", loader)
            report.claim(f"{image.name}: systemd-boot's editor is off",
                         [] if "editor no" in loader.read_text().splitlines() else [loader.read_text()])
            room = image.stat().st_size - max(part.offset + part.size for part in unpack.partitions(image))
            report.claim(f"{image.name}: sparse, with room for the state partition",
                         [] if room >= 512 * MIB and image.stat().st_blocks * 512 < 2 * GIB
                         else [f"{room} octets of room, {image.stat().st_blocks * 512} on disk"])
    print(f"{report.passed} passed, {report.failed} failed")
    sys.exit(1 if report.failed or not report.passed else 0)


main()
