# SPDX-License-Identifier: GPL-2.0-or-later
"""What dom0 tells a TorVM, below ``/ravelin/personality/``.

Options are there or not; a request is a path with a number that grows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from rules.model import Address

IDENTITY = "new-identity/"


@dataclass(frozen=True, slots=True)
class Options:
    """``relays_only``: tor may connect to relays and to nobody else.

    ``forget``: it enters the network elsewhere each time it starts.  ``socks``:
    clients may speak SOCKS to it, ``control``: and ask its agent for another
    identity.  ``proxy`` is what tor goes through, empty for none, as it was written.
    """

    relays_only: bool = False
    forget: bool = False
    socks: bool = False
    control: bool = False
    proxy: str = ""


def options(words: Mapping[str, str]) -> Options:
    """Read the options; others say nothing."""
    return Options(
        relays_only=words.get("relays-only") == "1",
        forget=words.get("forget") == "1",
        socks=words.get("socks") == "1",
        control=words.get("control") == "1",
        proxy=words.get("proxy", ""),
    )


def identities(words: Mapping[str, str]) -> Mapping[Address, str]:
    """Return the latest request for another identity, by the client's address."""
    found: dict[Address, str] = {}
    for path, serial in words.items():
        if path.startswith(IDENTITY):
            try:
                found[ip_address(path.removeprefix(IDENTITY))] = serial
            except ValueError:
                continue
    return found
