#!/usr/bin/env python3
"""The crates' arrows: which crate may depend on which, and where `unsafe` may stand.

The design (docs/code-structure.md) lets a crate exist only where it is a wall. This check reads cargo's
own metadata and the sources, and fails on an arrow that the table below does not allow.
"""

import json
import pathlib
import re
import subprocess
import sys

LEAVES = {"postern-site", "postern-smtp", "postern-sandbox", "postern-control"}
ALLOWED = {
    **{leaf: set() for leaf in LEAVES},
    "postern-relay": {"postern-smtp", "postern-sandbox", "postern-control"},
    "postern-console": {"postern-control", "postern-sandbox"},
    "postern-cli": {"postern-site", "postern-smtp", "postern-control"},
    "postern-fuzz": {"postern-relay", "postern-smtp"},
}
PURE = {"postern-site", "postern-smtp", "postern-control"}
IO_CRATES = {"tokio", "nix", "libc", "mio", "rustls"}
FORBIDDEN_NAMES = {"common", "core", "types", "utils", "util"}


def metadata():
    out = subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--no-deps"], check=True, capture_output=True
    )
    return json.loads(out.stdout)["packages"]


def check_arrows(packages):
    for package in packages:
        name = package["name"]
        if name not in ALLOWED:
            yield f"{name}: not in the design's table; add it there with its reason (docs/code-structure.md)"
            continue
        if name.removeprefix("postern-") in FORBIDDEN_NAMES:
            yield f"{name}: a crate must be named for what it is"
        normal = {d["name"] for d in package["dependencies"] if d["kind"] is None}
        for wrong in sorted({d for d in normal if d.startswith("postern-")} - ALLOWED[name]):
            yield f"{name} depends on {wrong}: that arrow is not in the design"
        if name in PURE:
            for wrong in sorted(normal & IO_CRATES):
                yield f"{name} depends on {wrong}: this crate does no I/O"


def check_unsafe(root):
    for path in sorted((root / "crates").rglob("*.rs")):
        if "sandbox" in path.parts:
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            code = line.split("//")[0]
            if re.search(r"\bunsafe\s*(\{|fn|impl|extern)", code):
                yield f"{path.relative_to(root)}:{number}: unsafe outside crates/sandbox"
    for entry in sorted((root / "crates").glob("*/src")):
        if entry.parent.name == "sandbox":
            continue
        roots = [p for p in (entry / "lib.rs", entry / "main.rs") if p.exists()]
        for source in roots:
            if "#![forbid(unsafe_code)]" not in source.read_text():
                yield f"{source.relative_to(root)}: lacks #![forbid(unsafe_code)]"


def check_top_level(root):
    fixed = {"flake.nix", "Cargo.toml", "crates", "nixos-modules", "images", "firewall", "tests", "README.md"}
    tracked = subprocess.run(["git", "ls-files"], cwd=root, check=True, capture_output=True, text=True).stdout
    present = {line.split("/")[0] for line in tracked.splitlines()}
    for missing in sorted(fixed - present):
        yield f"{missing}: missing from the top level"


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    checks = {
        "arrows": list(check_arrows(metadata())),
        "unsafe": list(check_unsafe(root)),
        "top level": list(check_top_level(root)),
    }
    failed = 0
    for name, problems in checks.items():
        failed += bool(problems)
        print(f"{'FAIL' if problems else 'ok'}  {name}")
        for problem in problems:
            print(f"      {problem}")
    print(f"{len(checks) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
