# SPDX-License-Identifier: GPL-2.0-or-later
"""The user name and the password of a VPN.

They are held in memory and said to the daemon alone, and no message holds them.
Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from vpn.openvpn_words import ProfileError

_ROWS = 2  # user name, password
_MOST = 127  # bytes of each (USER_PASS_LEN of OpenVPN is 128)


@dataclass(frozen=True, slots=True)
class Login:
    """A user name and a password, 1..127 bytes each, that a command can carry."""

    user: str = field(repr=False)
    password: str = field(repr=False)


def read_login(untrusted_file: bytes, name: str = "auth") -> Login:
    """Read a user name and a password, a line each, or raise `ProfileError`.

    The message does not hold what was read.
    """
    rows = untrusted_file.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")
    try:
        return login_of(tuple(row.decode() for row in rows))
    except ValueError:
        expected = "expected two lines, user name and password, of at most 127 bytes"
        raise ProfileError(f"{name}: {expected}") from None


def login_of(untrusted_lines: Sequence[str]) -> Login:
    """Read a user name and a password, or raise `ValueError` without them."""
    if len(untrusted_lines) != _ROWS or not all(
        line and line.isprintable() and len(line.encode()) <= _MOST
        for line in untrusted_lines
    ):
        raise ValueError("auth-user-pass: expected a user name and a password")
    return Login(*untrusted_lines)
