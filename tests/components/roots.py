"""The images' root trees as directories, unpacked anew only when the image is newer."""

import shutil
import sys

from here import TOP

sys.path.insert(0, str(TOP / "tests" / "image"))
import unpack


def tree_of(role):
    """The unpacked root of the role's image."""
    image = TOP / "build" / "images" / f"postern-{role}.raw"
    if not image.exists():
        raise SystemExit(f"{image} is not there: build it by `make images`")
    tree = TOP / "build" / "components" / role
    stamp = tree.with_suffix(".stamp")
    mark = f"{image.stat().st_mtime_ns} {image.stat().st_size}"
    if stamp.exists() and stamp.read_text() == mark and tree.is_dir():
        return tree
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    unpack.extract_root(image, tree)
    stamp.write_text(mark)
    return tree
