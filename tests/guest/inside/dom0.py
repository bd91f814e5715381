# SPDX-License-Identifier: GPL-2.0-or-later
"""dom0 of this machine: serves a QubesDB where Qubes has it.

``python -m tests.guest.inside.dom0``; keys come on standard input, one on a line and
its value behind a space.  What the agent writes is printed in the same form.
"""

import os
import sys
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector

from agent.qubesdb import SOCKET
from controller.qubesdb_server import QubesDbServer
from controller.qubesdb_store import Store


def main() -> None:
    """Serve until the input ends."""
    place = Path(SOCKET)
    place.parent.mkdir(exist_ok=True)
    selector = DefaultSelector()

    def written(path: str, untrusted_value: bytes | None) -> None:
        told = "" if untrusted_value is None else untrusted_value.decode("latin-1")
        sys.stdout.write(f"{path} {told}\n")
        sys.stdout.flush()

    server = QubesDbServer(selector, place, Store(), written)
    place.chmod(0o666)
    written("serves", b"")
    selector.register(sys.stdin, EVENT_READ, None)
    rest = b""
    while True:
        for key, mask in selector.select():
            if key.data is not None:
                key.data(mask)
                continue
            if not (read := os.read(sys.stdin.fileno(), 65536)):
                return
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                path, _, value = line.partition(b" ")
                server.write(path.decode(), value)


if __name__ == "__main__":
    main()
