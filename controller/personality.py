# SPDX-License-Identifier: GPL-2.0-or-later
"""What a domain that provides network does, as values; others may bring more.

A distribution of a third party names its own in the entry point group
``ravelin.personalities``: each a `Personality`, whose program is a module with
an agent's start (docs/how-to/write-a-personality.md).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Protocol

from torvm import proxy

GROUP = "ravelin.personalities"

# What a module raises that has a mistake, or was made for another Ravelin.
BROKEN = (
    *(ImportError, SyntaxError, NameError, AttributeError),
    *(TypeError, ValueError, LookupError, OSError),
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Text:
    """A key whose value is text; ``read`` raises ValueError with what was expected.

    Never a secret: it is in the policy file, and in the QubesDB of the domain.
    """

    key: str
    read: Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Personality:
    """One kind.  ``value`` is its word in a policy file.

    ``program`` is the module that is run as agent, ``daemons`` are the names of
    those that run beside it, each as a user of its own.  ``needs`` and ``takes``
    are keys of a policy file that name files, ``switches`` keys that are true
    or false, ``texts`` keys with a value of another form.
    ``only_tcp``: clients reach nothing else through it; ``by_udp``: so it cannot
    work behind one of those.
    ``tunnels`` are the interfaces by which clients leave as the domain's own: none
    if that is a daemon's work, None if they leave in the clear.
    """

    value: str
    program: str
    daemons: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()
    texts: tuple[Text, ...] = ()
    only_tcp: bool = False
    by_udp: bool = False
    tunnels: tuple[str, ...] | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of a policy file that are for it."""
        texts = (text.key for text in self.texts)
        return (*self.needs, *self.takes, *self.switches, *texts)

    NETVM: ClassVar["Personality"]
    FIREWALL: ClassVar["Personality"]
    TOR: ClassVar["Personality"]
    WIREGUARD: ClassVar["Personality"]
    OPENVPN: ClassVar["Personality"]


Personality.NETVM = Personality("netvm", "netvm")
Personality.FIREWALL = Personality("firewall", "firewallvm")
Personality.TOR = Personality(
    "tor",
    "torvm",
    daemons=("tor", "transport", "snowflake"),
    takes=("bridges", "network", "auth"),
    switches=("relays-only", "forget", "socks", "control"),
    texts=(Text("proxy", proxy.parse),),
    only_tcp=True,
    tunnels=(),
)
Personality.WIREGUARD = Personality(
    "wireguard",
    "vpn",
    daemons=("wireguard",),
    needs=("config",),
    by_udp=True,
    tunnels=("wg0",),
)
Personality.OPENVPN = Personality(
    "openvpn",
    "vpn",
    daemons=("openvpn",),
    needs=("config",),
    takes=("auth",),
    tunnels=("ovpn0",),
)
BUILT_IN = (
    Personality.NETVM,
    Personality.FIREWALL,
    Personality.TOR,
    Personality.WIREGUARD,
    Personality.OPENVPN,
)


class Entry(Protocol):
    """An `importlib.metadata.EntryPoint`, of which no more is asked."""

    @property
    def name(self) -> str:
        """Its name."""

    def load(self) -> object:
        """Return what it names."""


@cache
def known() -> Mapping[str, Personality]:
    """Return every personality by its word; nobody replaces one of ours."""
    # Only now: most of the command asks for none, and it takes a sixth of its start.
    from importlib.metadata import entry_points  # noqa: PLC0415

    ours = {personality.value: personality for personality in BUILT_IN}
    others = (_loaded(entry) for entry in entry_points(group=GROUP))
    return ours | {p.value: p for p in others if p and p.value not in ours}


def _loaded(entry: Entry) -> Personality | None:
    """Return what an entry point names; one that is broken is none, and is told."""
    try:
        found = entry.load()
    except BROKEN as error:
        log.warning("personality %s: %s: %s", entry.name, type(error).__name__, error)
        return None
    if not isinstance(found, Personality):
        log.warning("personality %s: not a Personality", entry.name)
        return None
    return found


def keys() -> tuple[str, ...]:
    """Return the keys of a policy file that belong to some personality."""
    found = (key for p in known().values() for key in p.keys)
    return tuple(dict.fromkeys(found))
