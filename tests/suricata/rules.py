"""Every rule of firewall/suricata/ fires on the traffic it is for, and not on its neighbour, nor on ordinary mail.

usage: rules.py --postern PATH --suricata 'COMMAND...'

The captures are made here; the real Suricata reads them with the image's own suricata.yaml, the real rules, and what
`postern site render` makes of the example site. A rule without a scenario is a failure.
"""

import argparse
import json
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

from captures import Capture
from scenarios import SCENARIOS, ordinary

TOP = pathlib.Path(__file__).resolve().parents[2]
RULES = TOP / "firewall" / "suricata" / "postern.rules"
SHARED = TOP / "images" / "root" / "extra-gateway" / "usr" / "share" / "postern" / "suricata"
# Alerts into a file rather than the journal, and packets from one; nothing else differs from the image's suricata.yaml.
FROM_A_FILE = ["--set", "outputs.0.eve-log.filetype=regular", "--set", "outputs.0.eve-log.filename=eve.json",
               "--set", "runmode=single"]


def configuration(postern, directory):
    """The image's own configuration, its paths turned to the directory, with what the renderer makes of the example site."""
    subprocess.run([postern, "site", "render", str(TOP / "docs" / "site.example.toml"), "--node", "gateway",
                    "--out", str(directory)], check=True, stdout=subprocess.DEVNULL)
    for file in [*SHARED.iterdir(), RULES]:
        text = file.read_text().replace("/usr/share/postern/suricata", str(directory))
        (directory / file.name).write_text(text.replace("/run/postern/", f"{directory}/"))


class Suricata:
    def __init__(self, command, directory):
        self.command, self.directory, self.runs = shlex.split(command), directory, 0

    def run(self, *arguments):
        return subprocess.run([*self.command, "-c", str(self.directory / "suricata.yaml"), *FROM_A_FILE, *arguments],
                              capture_output=True, text=True)

    def check(self):
        """Loads the rules; returns what Suricata says against them."""
        done = self.run("-T", "-l", str(self.directory), "-v")
        said = done.stdout + done.stderr
        faults = [line for line in said.splitlines() if re.search(r"error|warning.*(rule|signature|sid)", line, re.IGNORECASE)
                  and "0 rules failed" not in line]
        return faults + ([f"exit {done.returncode}: {said[-500:]}"] if done.returncode else [])

    def alerts(self, play):
        """The sids that the traffic sets off."""
        self.runs += 1
        logs = self.directory / f"run-{self.runs}"
        logs.mkdir()
        capture = Capture()
        play(capture)
        capture.write(logs / "capture.pcap")
        done = self.run("-r", str(logs / "capture.pcap"), "-l", str(logs), "-k", "all")
        eve = logs / "eve.json"
        if done.returncode != 0 or not eve.exists():
            raise SystemExit(f"suricata: exit {done.returncode}: {(done.stdout + done.stderr)[-1000:]}")
        events = [json.loads(line) for line in eve.read_text().splitlines()]
        return {event["alert"]["signature_id"] for event in events if event["event_type"] == "alert"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--postern", required=True, help="the `postern` program that renders the address groups")
    parser.add_argument("--suricata", required=True, help="the command that starts Suricata")
    options = parser.parse_args()
    count = {True: 0, False: 0}

    def check(what, faults):
        count[not faults] += 1
        print(f"{'FAIL ' if faults else 'ok   '} {what}" + "".join(f"\n        {fault}" for fault in faults), flush=True)

    with tempfile.TemporaryDirectory(prefix="postern-suricata-") as name:
        directory = pathlib.Path(name)
        configuration(options.postern, directory)
        suricata = Suricata(options.suricata, directory)
        check("Suricata takes every rule without a word", suricata.check())
        for sid, what, play, beside, neighbour in SCENARIOS:
            seen = suricata.alerts(play)
            check(f"{sid} fires: {what}", [] if sid in seen else [f"it fired {sorted(seen) or 'nothing'}"])
            seen = suricata.alerts(neighbour)
            check(f"{sid} is silent: {beside}", [] if sid not in seen else ["it fired"])
        seen = suricata.alerts(ordinary)
        check("ordinary mail sets off nothing", [] if not seen else [f"it fired {sorted(seen)}"])
    ours = {int(sid) for line in RULES.read_text().splitlines() if line.startswith("alert") and "flowbits:noalert" not in line
            for sid in re.findall(r"sid:(\d+);", line)}
    untested = ours - {sid for sid, *_ in SCENARIOS}
    check(f"each of {len(ours)} rules has a scenario", [f"{sid} has none" for sid in sorted(untested)])
    print(f"{count[True]} passed, {count[False]} failed")
    return 1 if count[False] else 0


if __name__ == "__main__":
    sys.exit(main())
