# SPDX-License-Identifier: GPL-2.0-or-later
"""The pluggable transports whose program Debian packages, and where each goes.

What a line tells its transport is read to an allow-list: each transport knows
few names, and what a value may be.  From those follows whom it talks to, which
is all that its user may reach.  Pure.

meek_lite and snowflake go to a front, a host among many sites, by HTTP; where
the bridge itself is no one but they know, so its address in the line says
nothing.  snowflake goes on from there by UDP to whoever lends its browser, at
any address: these cannot be known before.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from rules.model import Address
from torvm.places import UDP, Place, PlaceError, host, port

MAX_ARGUMENTS = 510  # bytes, with a semicolon between: two fields of RFC 1929
WEB = {"http": 80, "https": 443}
STUN = 3478  # RFC 8489, 8.1
MOST_STUN = 20

# What a transport is told goes through SOCKS authentication as K=V;K=V
# (pt-spec 3.5), so neither may hold a semicolon, a quote or a space.
_ARGUMENT = re.compile(r"([A-Za-z0-9_-]{1,32})=([A-Za-z0-9+/=_.,:~-]{0,400})")
_URL = re.compile(r"(https?)://([A-Za-z0-9.-]{1,253})(?::([0-9]{1,5}))?(?:/.*)?")
_STUN = re.compile(r"stun:([A-Za-z0-9.-]{1,253})(?::([0-9]{1,5}))?")


class Program(Enum):
    """A program that speaks transports; the value names its daemon and its user."""

    OBFS4PROXY = "transport"
    SNOWFLAKE = "snowflake"


@dataclass(frozen=True, slots=True, repr=False)
class Way:
    """How a transport gets to a bridge: the places it must reach, and may.

    ``anyone``: by UDP to hosts that nobody knows before.
    """

    places: tuple[Place, ...]
    helpers: tuple[Place, ...] = ()
    anyone: bool = False

    def __repr__(self) -> str:
        return "Way(…)"


Arguments = Mapping[str, str]
Endpoint = tuple[Address, int]


@dataclass(frozen=True, slots=True)
class Transport:
    """One kind.  ``takes`` are the values of its arguments, as patterns.

    ``way`` may raise `PlaceError`.
    """

    program: Program
    takes: Mapping[str, re.Pattern[str]]
    way: Callable[[Endpoint, Arguments], Way]

    def read(self, untrusted_words: Iterable[str]) -> Arguments:
        """Read NAME=VALUE words, or raise `PlaceError`; names are lower case."""
        found: dict[str, str] = {}
        for untrusted_word in untrusted_words:
            word = _ARGUMENT.fullmatch(untrusted_word)
            if not word:
                raise PlaceError("expected NAME=VALUE after the fingerprint")
            name, value = word[1], word[2]
            if name not in self.takes:
                known = ", ".join(self.takes)
                raise PlaceError(f"unknown argument, expected one of {known}")
            if name in found or not self.takes[name].fullmatch(value):
                raise PlaceError(f"{name}: expected once, and a value of its form")
            found[name] = value
        return found


def _there(endpoint: Endpoint, _: Arguments) -> Way:
    return Way((Place(*endpoint),))


def _by_web(_: Endpoint, told: Arguments) -> Way:
    return Way((_front(told),))


def _by_browsers(_: Endpoint, told: Arguments) -> Way:
    if told.get("ampcache") and not told.get("front"):
        # The name it would ask for is made of the broker's, by the program.
        raise PlaceError("ampcache: expected front=HOST with it")
    if "ice" not in told:
        # The packaged program falls over without, once tor has come to it.
        raise PlaceError("snowflake: expected ice=stun:HOST:PORT")
    return Way((_front(told),), tuple(_stun(told["ice"])), anyone=True)


def _front(told: Arguments) -> Place:
    url = _URL.fullmatch(told.get("url", ""))
    if not url:
        raise PlaceError("expected url=https://HOST/")
    given = port(url[3]) if url[3] else WEB[url[1]]
    if front := told.get("front"):
        # A front takes the place of host and port, and comes with none.
        return Place(host(front), WEB[url[1]])
    return Place(host(url[2]), given)


def _stun(untrusted_value: str) -> Iterator[Place]:
    servers = untrusted_value.split(",")
    if len(servers) > MOST_STUN:
        raise PlaceError(f"ice: expected at most {MOST_STUN}")
    for server in servers:
        found = _STUN.fullmatch(server)
        if not found:
            raise PlaceError("ice: expected stun:HOST:PORT")
        yield Place(host(found[1]), port(found[2]) if found[2] else STUN, UDP)


_WORD = re.compile(r"[A-Za-z0-9_-]{1,40}")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}")
_HEX = re.compile(r"[0-9A-Fa-f]{40}")

TRANSPORTS: Mapping[str, Transport] = {
    "obfs4": Transport(
        Program.OBFS4PROXY,
        {
            "cert": re.compile(r"[A-Za-z0-9+/=]{1,120}"),
            "iat-mode": re.compile(r"[012]"),
        },
        _there,
    ),
    "meek_lite": Transport(
        Program.OBFS4PROXY, {"url": _URL, "front": _HOST, "utls": _WORD}, _by_web
    ),
    "snowflake": Transport(
        Program.SNOWFLAKE,
        {
            "url": _URL,
            "front": _HOST,
            "ampcache": _URL,
            "ice": re.compile(r"[a-z0-9A-Z.,:-]{1,400}"),
            "fingerprint": _HEX,
            "max": re.compile(r"[1-9]"),
            "utls-imitate": _WORD,
            "utls-nosni": re.compile(r"true|yes|false|no"),
        },
        _by_browsers,
    ),
}
"""By the word in a bridge line.  What is not here has no package, or no name."""

ELSEWHERE = {
    "webtunnel": "Debian packages no program that speaks webtunnel",
    "conjure": "Debian packages no program that speaks conjure",
    "meek": "expected meek_lite, which speaks the same",
    "obfs2": "is broken, ask for obfs4",
    "obfs3": "is broken, ask for obfs4",
    "scramblesuit": "is broken, ask for obfs4",
}
"""What people are handed and cannot use here, and why."""


def one_front(untrusted_words: Iterable[str]) -> Iterator[str]:
    """Yield the words of a line with one front in place of several to choose from.

    The packaged snowflake knows ``front`` alone, and would take no front at all.
    """
    for word in untrusted_words:
        name, _, value = word.partition("=")
        yield f"front={value.partition(',')[0]}" if name == "fronts" else word
