"""Takes an image file apart without mounting it: partitions, the erofs root, the UKI's initrd.

Enters: a raw disk image. Leaves: directories under a place of the caller's choosing. Needs erofs-utils (fsck.erofs),
mtools (mcopy), cpio and zstd; the images' own tools tree (build/cache/tools) has them all and is used where the host
has none, or one too old for the image.
"""

import dataclasses
import pathlib
import struct
import subprocess
import uuid

TOP = pathlib.Path(__file__).resolve().parents[2]
TOOLS = TOP / "build/cache/tools"
SECTOR = 512
# Discoverable Partitions Specification: x86-64 root and its verity data; UEFI: ESP.
ROOT = uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")
ROOT_VERITY = uuid.UUID("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5")
ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")


@dataclasses.dataclass
class Partition:
    type: uuid.UUID
    id: uuid.UUID
    label: str
    offset: int    # octets from the start of the image
    size: int      # octets


def partitions(image):
    """The partitions of the image's primary GPT, in order."""
    with open(image, "rb") as file:
        file.seek(SECTOR)
        header = file.read(92)
        if header[:8] != b"EFI PART":
            raise ValueError(f"{image}: has no GPT; is it a raw image of images/build?")
        first, count, size = struct.unpack_from("<QII", header, 72)
        file.seek(first * SECTOR)
        entries = [file.read(size) for _ in range(count)]
    found = []
    for entry in entries:
        start, end = struct.unpack_from("<QQ", entry, 32)
        if start:
            found.append(Partition(uuid.UUID(bytes_le=entry[:16]), uuid.UUID(bytes_le=entry[16:32]),
                                   entry[56:128].decode("utf-16-le").rstrip("\0"),
                                   start * SECTOR, (end - start + 1) * SECTOR))
    return found


def partition(image, kind, filled=True):
    """The first partition of a type; `filled` passes over the empty slot."""
    for found in partitions(image):
        if found.type == kind and not (filled and found.label == "_empty"):
            return found
    raise ValueError(f"{image}: has no partition of type {kind}")


def tool(name):
    """The command for a tool: out of the build's own Debian 13 tree where there is one."""
    inside = next((f"/{where}/{name}" for where in ("usr/bin", "usr/sbin") if (TOOLS / where / name).exists()), None)
    if inside is None:
        return [name]
    loader = TOOLS / "usr/lib64/ld-linux-x86-64.so.2"
    libraries = TOOLS / "usr/lib/x86_64-linux-gnu"
    return [str(loader), "--library-path", str(libraries), f"{TOOLS}{inside}"]


def extract_root(image, directory):
    """Unpacks the erofs root of slot A with owners and modes."""
    root = partition(image, ROOT)
    subprocess.run([*tool("fsck.erofs"), f"--offset={root.offset}", f"--extract={directory}", "--overwrite",
                    "--preserve", str(image)], check=True, stdout=subprocess.DEVNULL)


def copy_uki(image, directory):
    """Copies EFI/Linux out of the ESP; returns the one UKI."""
    copy_file(image, "EFI", directory)
    ukis = sorted((pathlib.Path(directory) / "EFI/Linux").glob("*.efi"))
    if len(ukis) != 1:
        raise ValueError(f"{image}: the ESP should hold one UKI and holds {[path.name for path in ukis]}")
    return ukis[0]


def copy_file(image, name, to):
    """Copies a file or folder out of the ESP."""
    esp = partition(image, ESP)
    subprocess.run([*tool("mcopy"), "-n", "-s", "-i", f"{image}@@{esp.offset}", f"::/{name}", str(to)],
                   check=True, env={"MTOOLS_SKIP_CHECK": "1", "PATH": "/usr/bin:/bin"})


def section(uki, name):
    """One section of a PE file (PE/COFF specification, section table)."""
    data = pathlib.Path(uki).read_bytes()
    pe = struct.unpack_from("<I", data, 0x3C)[0]
    count, optional = struct.unpack_from("<H", data, pe + 6)[0], struct.unpack_from("<H", data, pe + 20)[0]
    for index in range(count):
        at = pe + 24 + optional + 40 * index
        if data[at:at + 8].rstrip(b"\0").decode() == name:
            virtual, _, size, start = struct.unpack_from("<IIII", data, at + 8)
            return data[start:start + min(virtual, size)]
    raise ValueError(f"{uki}: has no section {name}")


def extract_initrd(uki, directory):
    """Unpacks all the archives, compressed or not, that stand in a row in the UKI's initrd. Returns their count."""
    data, archives = section(uki, ".initrd"), 0
    while data := data.lstrip(b"\0"):
        if data.startswith(b"070701"):
            plain, data = archive_end(data)
        elif data.startswith(b"\x28\xb5\x2f\xfd"):
            plain, data = zstd_frame(data)
        else:
            raise ValueError(f"{uki}: the initrd holds an archive of unknown kind, {data[:6]!r}")
        subprocess.run([*tool("cpio"), "--extract", "--make-directories", "--no-absolute-filenames",
                        "--preserve-modification-time", "--unconditional", "--quiet"],
                       input=plain, cwd=directory, check=True)
        archives += 1
    return archives


def archive_end(data):
    """(first cpio archive, rest) of uncompressed data (cpio(5), newc)."""
    at = 0
    while True:
        if data[at:at + 6] != b"070701":
            raise ValueError("cpio archive broken off")
        size, name = int(data[at + 54:at + 62], 16), int(data[at + 94:at + 102], 16)
        title = data[at + 110:at + 110 + name - 1]
        at = (at + 110 + name + 3) // 4 * 4
        at = (at + size + 3) // 4 * 4
        if title == b"TRAILER!!!":
            return data[:at], data[at:]


def zstd_frame(data):
    """(plain text, rest): walks the block headers to find the frame's end (RFC 8878, section 3.1.1)."""
    descriptor = data[4]
    single, checksum = descriptor >> 5 & 1, descriptor >> 2 & 1
    content = (0, 2, 4, 8)[descriptor >> 6] or single
    at = 5 + (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3] + content
    while True:
        header = int.from_bytes(data[at:at + 3], "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        at += 3 + (1 if kind == 1 else size)
        if last:
            break
    at += 4 * checksum
    plain = subprocess.run([*tool("zstd"), "-dcq"], input=data[:at], stdout=subprocess.PIPE, check=True).stdout
    return plain, data[at:]
