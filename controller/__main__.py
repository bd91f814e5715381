# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``ravelin``, and what it starts of itself."""

import sys
from collections.abc import Callable
from pathlib import Path


def main(words: list[str]) -> int:
    """Do what the words say; each program imports no more than it needs."""
    match words:
        case ["serve", *rest]:
            from controller.service import serve  # noqa: PLC0415

            return serve(rest)
        case ["enter", *rest]:
            from controller.enter import main as enter  # noqa: PLC0415

            return enter(rest)
        case ["prove", *rest]:
            from controller.prove import main as prove  # noqa: PLC0415

            return prove(rest)
        case ["dhcp-event", *rest]:
            from controller.platforms.dhcp_event import main as event  # noqa: PLC0415

            return event(rest)
        case ["demo", *rest]:
            from controller.demo import main as demo  # noqa: PLC0415

            return demo(rest)
        case _:
            from controller.cli import main as cli  # noqa: PLC0415

            return cli(words, start=_start)


def _start(socket: Path, tell: Callable[[str], None]) -> None:
    # Only `up` needs the daemon, which takes 0.3 s to import.
    try:
        from controller.service import start  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise OSError(f"{error}: docs/how-to/install.md has what is needed") from error
    start(socket, tell)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
