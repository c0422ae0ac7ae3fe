#!/usr/bin/env python3
"""Finds where on the disk a file of an image's root lies, and flips one bit there: dm-verity must refuse the block.

usage: flip_byte.py [--print] IMAGE PATH
    IMAGE  raw disk image of images/build (work on a copy)
    PATH   file in the root, such as usr/bin/postern-console
    --print  only print the octet's offset in the image, change nothing (for those who write through an overlay:
             qemu-io -c 'write -P VALUE OFFSET 1')

The octet is in the middle of the file's longest stored extent. Prints "OFFSET OLD NEW" (decimal, hex, hex).
"""

import os
import re
import subprocess
import sys

import unpack

EXTENT = re.compile(r"^\s*\d+:\s+(\d+)\.\.\s*(\d+)\s*\|\s*(\d+)\s*:\s+(\d+)\.\.\s*(\d+)\s*\|\s*(\d+)", re.MULTILINE)


def offset(image, path):
    """Where, in octets from the image's start, the middle of the file's longest extent is stored."""
    root = unpack.partition(image, unpack.ROOT)
    shown = subprocess.run([*unpack.tool("dump.erofs"), f"--offset={root.offset}", f"--path=/{path.lstrip('/')}", "-e",
                            str(image)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    extents = [tuple(map(int, found)) for found in EXTENT.findall(shown.stdout)]
    if shown.returncode or not extents:
        raise SystemExit(f"flip_byte.py: {path} has no data in the root of {image}; dump.erofs said:\n{shown.stdout}")
    *_, start, _, length = max(extents, key=lambda extent: extent[5])
    return root.offset + start + length // 2


def main():
    only_print = "--print" in sys.argv[1:]
    arguments = [argument for argument in sys.argv[1:] if argument != "--print"]
    if len(arguments) != 2:
        sys.exit("usage: flip_byte.py [--print] IMAGE PATH")
    image, path = arguments
    at = offset(image, path)
    with open(image, "rb" if only_print else "r+b") as file:
        old = os.pread(file.fileno(), 1, at)[0]
        if not only_print:
            os.pwrite(file.fileno(), bytes([old ^ 0x01]), at)
    print(f"{at} {old:02x} {old ^ 0x01:02x}")


if __name__ == "__main__":
    main()
