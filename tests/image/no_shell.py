#!/usr/bin/env python3
"""Claim: no shell, login, package manager, SSH, interpreter, script, setuid, setgid or capability file is in an
image, neither in its root nor in its UKI's initrd; the one exception is Perl, in the gateway's root, for spamd's
group alone.

usage: no_shell.py IMAGE...   Ends with "N passed, M failed".
"""

import os
import pathlib
import re
import stat
import sys
import tempfile

import unpack

# Names under which these things go in any distribution; matched against whole file names of executables and links.
FORBIDDEN = re.compile(r"""
    (ba|da|z|k|mk|c|tc|fi|r|a|po|ya)?sh | busybox | toybox | sulogin | (a|min|m)?getty | login | su | sudo | runuser |
    doas | pkexec | chsh | ssh.* | sshd.* | dropbear.* | telnetd? |
    apt.* | dpkg.* | debconf.* | rpm | snap | flatpak | update-alternatives |
    python.* | pypy.* | perl.* | ruby.* | lua(jit)?[\d.]* | node(js)? | php.* | tclsh.* | wish.* | guile.* | expect |
    [gmn]?awk | original-awk | sed | ed | vim?.* | nano | emacs.* | gdb.* | bc | dc | m4 | make | gcc.* | cc | tcc |
    xargs | find | env | nsenter | unshare | chroot | screen | tmux | nc(at)? | socat | curl | wget
    """, re.VERBOSE)
PERL = {"usr/bin/perl"}
SPAMD = 3102


class Report:
    def __init__(self, quiet=False):
        self.passed = self.failed = 0
        self.quiet = quiet

    def claim(self, text, wrong):
        if wrong:
            self.failed += 1
            self.say("\n     ".join([f"FAIL {text}:", *wrong[:20]]))
        else:
            self.passed += 1
            self.say(f"ok   {text}")

    def say(self, line):
        if not self.quiet:
            print(line)


def files(root):
    for directory, folders, names in os.walk(root):
        for name in names + [folder for folder in folders if os.path.islink(os.path.join(directory, folder))]:
            path = pathlib.Path(directory, name)
            yield str(path.relative_to(root)), path


def executable(path):
    mode = path.lstat().st_mode
    return stat.S_ISREG(mode) and bool(mode & 0o111)


def examine(report, title, root, perl_allowed):
    """All claims about one unpacked tree."""
    allowed = PERL if perl_allowed else set()
    tree = list(files(root))
    programs = [(name, path) for name, path in tree if executable(path)]
    report.claim(f"{title}: is a tree with systemd in it ({len(tree)} files, {len(programs)} executables)",
                 [] if (root / "usr/lib/systemd/systemd").is_file() and len(tree) > 200
                 else ["the tree is not what was to be examined"])
    report.claim(f"{title}: nothing forbidden by name",
                 [name for name, path in tree
                  if (path.is_symlink() or executable(path)) and name not in allowed
                  and FORBIDDEN.fullmatch(path.name) and not name.startswith(("usr/share/", "etc/ssl"))])
    report.claim(f"{title}: no executable script but spamd",
                 [f"{name}: {path.open('rb').readline(80)!r}" for name, path in programs
                  if path.open("rb").read(2) == b"#!" and not (perl_allowed and name == "usr/sbin/spamd")])
    report.claim(f"{title}: every executable is ELF or spamd",
                 [name for name, path in programs if path.open("rb").read(4) != b"\x7fELF"
                  and not (perl_allowed and name == "usr/sbin/spamd")])
    report.claim(f"{title}: no setuid or setgid file",
                 [name for name, path in tree if stat.S_ISREG(path.lstat().st_mode)
                  and path.lstat().st_mode & (stat.S_ISUID | stat.S_ISGID)])
    report.claim(f"{title}: no file capability",
                 [name for name, path in tree if not path.is_symlink()
                  and "security.capability" in os.listxattr(path)])
    report.claim(f"{title}: no unit of a getty, a login or a debug shell",
                 [name for name, path in tree
                  if re.search(r"systemd/system/.*(getty|debug-shell|logind|ssh)", name)])
    report.claim(f"{title}: emergency and rescue reboot, without a shell",
                 [name for name in ("emergency", "rescue")
                  if "reboot-force" not in (root / f"usr/lib/systemd/system/{name}.service").read_text()
                  or "sulogin" in (root / f"usr/lib/systemd/system/{name}.service").read_text()])
    if perl_allowed:
        mode = (root / "usr/bin/perl").stat()
        report.claim(f"{title}: only root and spamd's group may execute Perl",
                     [] if stat.S_IMODE(mode.st_mode) == 0o750 and (mode.st_uid, mode.st_gid) == (0, SPAMD)
                     else [f"mode {stat.S_IMODE(mode.st_mode):o}, owner {mode.st_uid}:{mode.st_gid}"])


def main():
    if len(sys.argv) < 2:
        sys.exit("usage: no_shell.py IMAGE...  (build/images/postern-*.raw)")
    if os.geteuid() != 0:
        sys.exit("no_shell.py: needs root, to unpack the images with their owners")
    report = Report()
    for image in map(pathlib.Path, sys.argv[1:]):
        with tempfile.TemporaryDirectory(dir=image.parent) as directory:
            place = pathlib.Path(directory)
            (place / "root").mkdir()
            (place / "initrd").mkdir()
            unpack.extract_root(image, place / "root")
            examine(report, f"{image.name} root", place / "root", perl_allowed="gateway" in image.name)
            uki = unpack.copy_uki(image, place)
            archives = unpack.extract_initrd(uki, place / "initrd")
            report.claim(f"{image.name} initrd: system and kernel modules unpacked",
                         [] if archives >= 2 else [f"{archives} archive(s)"])
            examine(report, f"{image.name} initrd", place / "initrd", perl_allowed=False)
    print(f"{report.passed} passed, {report.failed} failed")
    sys.exit(1 if report.failed else 0)


if __name__ == "__main__":
    main()
