"""Runs a service out of an unpacked root tree the way its unit says: command line, user, groups.

Only what a daemon needs to run is taken from the unit; its sandboxing is systemd's work and is seen in
the machine tier.
"""

import os
import pathlib
import shlex
import subprocess


def settings(root, unit):
    """{key: [values]} of the unit's [Service] section, with its drop-ins, in `root`."""
    directory = root / "usr/lib/systemd/system"
    found = {}
    for path in [directory / unit, *sorted((directory / f"{unit}.d").glob("*.conf"))]:
        section = None
        for line in path.read_text().replace("\\\n", " ").splitlines():
            if line.startswith("["):
                section = line
            elif section == "[Service]" and "=" in line and not line.startswith("#"):
                key, _, value = line.partition("=")
                found.setdefault(key, []).append(value)
    return found


def table(root, name, entry):
    """Numeric id of an entry in the root tree's passwd or group."""
    for line in (root / "etc" / name).read_text().splitlines():
        words = line.split(":")
        if words[0] == entry:
            return int(words[2])
    raise KeyError(f"{entry} is not in {root}/etc/{name}")


def start(root, unit, log):
    """Starts the unit's ExecStart in a chroot; returns the process."""
    service = settings(root, unit)

    def last(key, default=""):
        return service.get(key, [default])[-1]

    uid = table(root, "passwd", last("User", "root"))
    gid = table(root, "group", last("Group")) if last("Group") else uid
    groups = [table(root, "group", name)
              for name in " ".join(service.get("SupplementaryGroups", [])).split()]
    for name in last("RuntimeDirectory").split():
        directory = pathlib.Path("/run", name)     # /run is one for all trees
        directory.mkdir(mode=int(last("RuntimeDirectoryMode", "0755"), 8), exist_ok=True)
        os.chown(directory, uid, gid)
    credentials = pathlib.Path("/run/credentials", unit)
    for name, _, source in (value.partition(":") for value in service.get("LoadCredential", [])):
        credentials.mkdir(parents=True, exist_ok=True)
        (credentials / name).write_bytes((root / source.lstrip("/")).read_bytes())

    def become():
        os.chroot(root)
        os.chdir("/")
        os.setgroups(groups)
        os.setgid(gid)
        os.setuid(uid)
        os.umask(int(last("UMask", "0022"), 8))

    with open(log, "wb") as out:
        return subprocess.Popen(
            shlex.split(last("ExecStart").lstrip("-+!:@")), preexec_fn=become, stdout=out,
            stderr=out, env={"PATH": "/usr/sbin:/usr/bin", "CREDENTIALS_DIRECTORY": str(credentials)})
