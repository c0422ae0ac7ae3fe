"""Seeds for the fuzzers: what the clients of tests/protocol send, each dialogue a file. usage: seeds.py DIRECTORY"""

import pathlib
import re
import sys

STEP = re.compile(r'^(?:> (?P<line>.*)|send "(?P<octets>.*)"|>$)')


def unescaped(text):
    return text.encode("utf-8").decode("unicode_escape").encode("latin-1", "replace")


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    dialogues = pathlib.Path(__file__).resolve().parents[1] / "protocol"
    for path in sorted(dialogues.glob("*.smtp")):
        sent = b"\0"        # the first octet chooses the kind of session
        for line in path.read_text().splitlines():
            found = STEP.match(line)
            if found and found["octets"] is not None:
                sent += unescaped(found["octets"])
            elif found:
                sent += (found["line"] or "").encode() + b"\r\n"
        (out / path.stem).write_bytes(sent)
        if path.stem.startswith("proxied"):      # what begins with a header, for the target that reads those
            (out / f"{path.stem}-header").write_bytes(sent[1:])


if __name__ == "__main__":
    main()
