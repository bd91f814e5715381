# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of ``ravelin run`` that becomes the command: on the user's terminal."""

import socket
import sys
from argparse import ArgumentParser
from contextlib import ExitStack
from pathlib import Path

from controller.admin import Request, encode
from controller.platforms.netns import Netns
from controller.ports import Command
from controller.syscalls import die_with_parent


def main(words: list[str]) -> int:
    """Run a command in a domain; return its exit status, 3 if it cannot start.

    For a disposable the connection to the daemon is what keeps it alive, so it
    ends with this process however this process ends, and so does this process
    with the command line that began it.
    """
    parser = ArgumentParser(prog="ravelin run")
    parser.add_argument("--runtime", type=Path, required=True)
    parser.add_argument("--disposable", action="store_true")
    parser.add_argument("domain")
    # argparse treats "--" differently from version to version.
    end = words.index("--") if "--" in words else len(words)
    asked = parser.parse_args(words[:end])
    argv = words[end + 1 :]
    if not argv:
        parser.error("no command, expected -- COMMAND")
    with ExitStack() as stack:
        command = Command(argv, disposable=asked.disposable)
        try:
            if asked.disposable:
                die_with_parent()
                daemon = stack.enter_context(socket.socket(socket.AF_UNIX))
                daemon.connect(str(asked.runtime / "admin.sock"))
                daemon.sendall(encode(Request("hold", {"domain": asked.domain})))
            return Netns(asked.runtime).run(asked.domain, command)
        except (OSError, LookupError) as error:
            sys.stderr.write(f"ravelin: {asked.domain}: {error}\n")
            return 3
