# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the relays listen that a client of Tor connects to.

Only relays with the flag Guard are ever a first hop, besides the directories
that are built into tor and serve the first start.  What cannot be read is left
out: the list only narrows what tor's uid may do.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from rules.model import MAX_PORT, Address

Place = tuple[Address, int]

NEEDED = frozenset({"Guard", "Running", "Valid"})

_V6 = re.compile(r"\[([0-9A-Fa-f:.]+)\]:([0-9]+)")
_V4 = re.compile(r"([0-9.]{7,15}):[0-9]+")
_ORPORT = re.compile(r"orport=([0-9]+)")
_DIRECTORY = re.compile(r'(?:DirAuthority|FallbackDir)\s+"?(.*?)"?\s*')


@dataclass(frozen=True, slots=True)
class Relays:
    """Where tor may connect to, as it says itself.

    ``directories`` are those of a private network, which has no others.
    """

    directories: frozenset[Place] = frozenset()
    built_in: frozenset[Place] = frozenset()
    listed: frozenset[Place] = frozenset()
    before: frozenset[Place] = frozenset()

    def learned(self, built_in: frozenset[Place], listed: frozenset[Place]) -> "Relays":
        """Take a list; a relay that leaves it does not cost what still runs over it."""
        before = self.before if listed == self.listed else self.listed
        return Relays(self.directories, built_in, listed, before)

    @property
    def places(self) -> frozenset[Place]:
        """All of them: also what the list before this one named."""
        return (self.directories or self.built_in) | self.listed | self.before


def of_consensus(untrusted_statuses: str) -> frozenset[Place]:
    """Read router statuses (dir-spec, 3.4.1) as ``GETINFO ns/all`` has them."""
    found: set[Place] = set()
    places: list[Place] = []
    for line in untrusted_statuses.splitlines():
        letter, _, rest = line.partition(" ")
        match letter:
            case "r":
                # r nickname identity digest date time IP ORPort DirPort
                words = ["", "", "", *rest.split()]
                places = list(_place(words[-3], words[-2]))
            case "a":
                v6 = _V6.fullmatch(rest)
                places += _place(v6[1], v6[2]) if v6 else ()
            case "s" if rest.split() and frozenset(rest.split()) >= NEEDED:
                found.update(places)
            case _:
                pass
    return frozenset(found)


def of_directories(untrusted_options: Iterable[str]) -> frozenset[Place]:
    """Read options DirAuthority and FallbackDir (``tor(1)``); others say nothing."""
    found: set[Place] = set()
    for line in untrusted_options:
        option = _DIRECTORY.fullmatch(line.strip())
        if option is None:
            continue
        words = option[1].replace('\\"', "").split()
        orport = next((m[1] for w in words if (m := _ORPORT.fullmatch(w))), "")
        for word in words:
            v4 = _V4.fullmatch(word)
            v6 = _V6.fullmatch(word.removeprefix("ipv6="))
            if v4:
                found.update(_place(v4[1], orport))
            elif v6:
                found.update(_place(v6[1], v6[2]))
    return frozenset(found)


def _place(untrusted_address: str, untrusted_port: str) -> Iterator[Place]:
    try:
        address, port = ip_address(untrusted_address), int(untrusted_port)
    except ValueError:
        return
    if 0 < port <= MAX_PORT:
        yield address, port
