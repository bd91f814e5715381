# SPDX-License-Identifier: GPL-2.0-or-later
"""The program of a transport cannot share a port with tor."""

import errno
import signal
import socket
import subprocess
from collections.abc import Sequence

import pytest

from torvm.transports import FILTERED

PATIENCE = 20.0  # seconds; only a failing test waits that long
# Binds the port of somebody else, of whom it asks for nothing, and says how that went.
SHARE = """
import errno, socket, sys
option = getattr(socket, sys.argv[2])
sharer = socket.socket(type=socket.SOCK_DGRAM)
sharer.setsockopt(socket.SOL_SOCKET, option, 1)
try:
    sharer.bind(("127.0.0.1", int(sys.argv[1])))
except OSError as error:
    print(errno.errorcode[error.errno])
    sys.exit()
print("shared", flush=True)
sharer.settimeout(20)
print(sharer.recv(10).decode())
"""
CALL = """
import ctypes
print(ctypes.CDLL(None, use_errno=True).syscall({}, 0, 0), ctypes.get_errno())
"""
PLAIN = ("/usr/bin/python3", "-I", "-c")


def shares(words: Sequence[str], option: str) -> str:
    """Return what becomes of a question to a port that is shared, as tor's are."""
    with (
        socket.socket(type=socket.SOCK_DGRAM) as tor,
        socket.socket(type=socket.SOCK_DGRAM) as client,
    ):
        tor.setsockopt(socket.SOL_SOCKET, getattr(socket, option), 1)
        tor.bind(("127.0.0.1", 0))
        place = tor.getsockname()
        argv = [*words, SHARE, str(place[1]), option]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            said = other.stdout.readline().strip()
            client.sendto(b"question", place)
            return said + " " + other.stdout.read().strip()


@pytest.mark.parametrize("option", ["SO_REUSEADDR", "SO_REUSEPORT"])
def test_what_is_for_tor_does_not_come_to_it(option: str) -> None:
    """The control for tor's own option is the same program without the filter."""
    assert shares([*FILTERED, *PLAIN], option).split() == ["EADDRINUSE"]
    if option == "SO_REUSEADDR":
        assert shares(PLAIN, option) == "shared question"


@pytest.mark.parametrize(
    ("call", "end"),
    [(425, (f"-1 {errno.ENOSYS}\n", 0)), (0x40000000 + 541, ("", -signal.SIGSYS))],
    ids=["io_uring", "x32"],
)
def test_it_has_no_other_way_to_ask_for_that(call: int, end: tuple[str, int]) -> None:
    words = [*FILTERED, *PLAIN, CALL.format(call)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)

    assert (done.stdout, done.returncode) == end


def test_everything_else_is_as_ever() -> None:
    """Another option of a socket is set, and a port of its own listened at."""
    code = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); "
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1); "
        "print(s.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), "
        "s.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR))"
    )
    said = subprocess.check_output(
        [*FILTERED, *PLAIN, code], text=True, timeout=PATIENCE
    )

    assert said == "1 0\n"


def test_a_program_that_is_not_there_is_an_error() -> None:
    words = [*FILTERED, "/nowhere"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "No such file" in done.stderr
