"""Chooses QEMU's accelerator: KVM only where a trial boot shows that it runs a kernel.

/dev/kvm may exist and still not run an ordinary kernel (nested virtualisation without the
instructions it needs), so its presence proves nothing.
"""

import pathlib
import time

import vm

TCG = "tcg,thread=multi,tb-size=512"
TRIAL_SECONDS = 25


def choose(image, directory, report=print):
    """`image` is booted for a trial, without network and without a site."""
    if not pathlib.Path("/dev/kvm").exists():
        report("no /dev/kvm: QEMU translates instructions (TCG)")
        return TCG
    directory.mkdir()
    trial = vm.Node("trial", image, directory, {}, [], "kvm")
    trial.prepare()
    trial.start()
    started = time.monotonic()
    try:
        while time.monotonic() - started < TRIAL_SECONDS and trial.running():
            if "systemd" in trial.text():
                report(f"KVM boots the image's kernel ({time.monotonic() - started:.0f} s)")
                return "kvm"
            time.sleep(0.2)
    finally:
        trial.kill()
    report("/dev/kvm is there but does not boot the image's kernel: QEMU translates (TCG)")
    return TCG
