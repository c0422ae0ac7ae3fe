"""The images' root trees as directories: the erofs partition is cut out of the disk image and unpacked.

No loop device and no erofs in this host's kernel is needed (fsck.erofs unpacks).
"""

import json
import shutil
import subprocess

from here import TOP

# GPT type "root, x86-64" of the Discoverable Partitions Specification; slot A is the one with a label.
ROOT_X86_64 = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"


def unpack(role):
    """The root tree of the role's image, unpacked anew if the image is newer."""
    image = TOP / "build" / "images" / f"postern-{role}.raw"
    if not image.exists():
        raise SystemExit(f"{image} is not there: build it by `make images`")
    tree = TOP / "build" / "components" / role
    stamp = tree.with_suffix(".stamp")
    mark = f"{image.stat().st_mtime_ns} {image.stat().st_size}"
    if stamp.exists() and stamp.read_text() == mark and tree.is_dir():
        return tree
    shutil.rmtree(tree, ignore_errors=True)
    tree.parent.mkdir(parents=True, exist_ok=True)
    table = json.loads(subprocess.run(["sfdisk", "--json", image], capture_output=True, check=True,
                                      text=True).stdout)["partitiontable"]
    part = next(p for p in table["partitions"]
                if p["type"] == ROOT_X86_64 and p.get("name") != "_empty")
    sector = table.get("sectorsize", 512)
    erofs = tree.with_suffix(".erofs")
    subprocess.run(["dd", f"if={image}", f"of={erofs}", "bs=1M", "status=none", "conv=sparse",
                    "iflag=skip_bytes,count_bytes", f"skip={part['start'] * sector}",
                    f"count={part['size'] * sector}"], check=True)
    subprocess.run(["fsck.erofs", f"--extract={tree}", "--preserve", erofs], check=True,
                   stdout=subprocess.DEVNULL)
    erofs.unlink()
    stamp.write_text(mark)
    return tree
