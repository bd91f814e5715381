# SPDX-License-Identifier: GPL-2.0-or-later
"""tor's whole configuration as text (``tor(1)``).

It is given to tor as a file in memory, so bridges are on no disk.  tor starts
with DisableNetwork, under which it opens nothing but the control socket, until
the rules stand; listeners and the release come over that socket.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from rules.model import Family
from torvm.bridges import Bridge
from torvm.listeners import Kind, Listener
from torvm.proxy import Proxy

# What .onion names are given for addresses.  Neither is routed anywhere, and
# neither overlaps what Qubes gives to domains (10.137.0.0/16, 10.139.0.0/16).
VIRTUAL4 = "10.192.0.0/10"
VIRTUAL6 = "[fd6f:6e69:6f6e::]/48"

# Of a private network: what its clients must know besides its authorities.
PRIVATE = (
    "TestingTorNetwork",
    "PathsNeededToBuildCircuits",
    "VanguardsLiteEnabled",
    "ClientRejectInternalAddresses",
    "ClientDNSRejectInternalAddresses",
)
_NUMBER = re.compile(r"[0-9.]{1,8}|auto")
_AUTHORITY = re.compile(r"DirAuthority( [A-Za-z0-9=.:\[\]-]{1,60}){3,24}")

# More isolation than tor's default is the application's to ask for, by what it
# authenticates with (IsolateSOCKSAuth); such circuits are kept for as long as
# the application keeps using them.
FLAGS = {
    Kind.TRANS: "",
    Kind.DNS: "",
    Kind.SOCKS: " IsolateSOCKSAuth KeepAliveIsolateSOCKSAuth",
}


def cookie_of(socket: str) -> str:
    """Return where the secret is that opens a control socket."""
    return f"{socket}.cookie"


class NetworkError(ValueError):
    """A line of a private network that is not understood."""


@dataclass(frozen=True, slots=True)
class Torrc:
    """What differs between one TorVM and another.

    ``run`` is the directory of the control socket, ``state`` the one tor keeps
    its guards and its list of relays in; ``network`` are options of a private
    Tor network, ``proxy`` is what tor itself goes through.
    """

    run: str
    state: str
    bridges: tuple[Bridge, ...] = ()
    network: tuple[str, ...] = ()
    countries: bool = True
    proxy: Proxy | None = None

    @property
    def socket(self) -> str:
        """Where the control socket is.

        A tor that another configuration started listens somewhere else, so an
        agent that comes back knows whether the one that runs is its own.
        """
        text = "\n".join(self._lines())
        return f"{self.run}/{sha256(text.encode()).hexdigest()[:16]}.control"

    @property
    def cookie(self) -> str:
        """Where the secret is that opens the control socket."""
        return cookie_of(self.socket)

    def text(self) -> str:
        """Return the configuration."""
        lines = (
            # The directory keeps others out; tor wants to own it otherwise.
            f"ControlSocket unix:{self.socket} WorldWritable",
            "CookieAuthentication 1",
            f"CookieAuthFile {self.cookie}",
            "CookieAuthFileGroupReadable 1",
            *self._lines(),
        )
        return "".join(f"{line}\n" for line in lines)

    def _lines(self) -> Iterable[str]:
        yield "DisableNetwork 1"
        # Neither exec nor most calls of the kernel, whoever takes tor over.
        yield "Sandbox 1"
        yield "NoExec 1"
        yield "DisableDebuggerAttachment 1"
        yield "ClientOnly 1"
        yield f"DataDirectory {self.state}"
        yield "SocksPort 0"
        yield "AutomapHostsOnResolve 1"
        yield f"VirtualAddrNetworkIPv4 {VIRTUAL4}"
        yield f"VirtualAddrNetworkIPv6 {VIRTUAL6}"
        # Asleep, tor looks like an outage to its clients.
        yield "DormantTimeoutEnabled 0"
        yield "DormantCanceledByStartup 1"
        # Otherwise a share of the machine's memory, and more than it may have in all.
        yield "MaxMemInQueues 256 MB"
        yield "SafeLogging 1"
        yield "Log warn stderr"
        if not self.countries:
            yield "GeoIPFile /dev/null"
            yield "GeoIPv6File /dev/null"
        if self.bridges:
            yield "UseBridges 1"
        for bridge in self.bridges:
            yield f"Bridge {bridge.line}"
        if self.proxy is not None:
            yield from self.proxy.options()
        yield from self.network


def listening(places: Iterable[Listener]) -> str:
    """Return the command that makes these the only listeners (control-spec 3.1).

    SETCONF replaces the whole list of an option, so all are sent each time; one
    whose address and port stay is kept open, with its circuits.
    """
    words = [
        f'{place.kind.value}="{place}{FLAGS[place.kind]}"'
        for place in sorted(places, key=lambda p: (p.kind.value, str(p)))
    ]
    absent = {kind.value for kind in Kind} - {word.partition("=")[0] for word in words}
    return " ".join(["SETCONF", *words, *(f"{kind}=0" for kind in sorted(absent))])


def released(families: frozenset[Family]) -> str:
    """Return the command that lets tor out by uplinks of these IP versions."""
    v4, v6 = (int(version in families) for version in (Family.IPV4, Family.IPV6))
    return f"SETCONF ClientUseIPv4={v4} ClientUseIPv6={v6} DisableNetwork=0"


def speaking(ports: Mapping[str, int]) -> str:
    """Return the command that says who speaks which transport of a bridge.

    It is a program of its own, not a child of tor, which may start none.
    """
    words = [
        f'ClientTransportPlugin="{name} socks5 127.0.0.1:{port}"'
        for name, port in sorted(ports.items())
    ]
    return " ".join(["SETCONF", *(words or ["ClientTransportPlugin"])])


HELD = "SETCONF DisableNetwork=1"


def private_network(untrusted_text: bytes) -> tuple[str, ...]:
    """Read the options of a private Tor network, one a line.

    Known are DirAuthority and what is in `PRIVATE`, each with a number.  Raise
    `NetworkError`, also if no authority is among them.
    """
    found: list[str] = []
    lines = untrusted_text.decode("ascii", "replace").splitlines()
    for number, untrusted_line in enumerate(lines, 1):
        line = " ".join(untrusted_line.split())
        if not line or line.startswith("#"):
            continue
        option, _, value = line.partition(" ")
        plain = option in PRIVATE and _NUMBER.fullmatch(value)
        if not plain and not _AUTHORITY.fullmatch(line):
            known = ", ".join(PRIVATE)
            raise NetworkError(f"network:{number}: expected DirAuthority, or {known}")
        found.append(line)
    if not any(line.startswith("DirAuthority ") for line in found):
        raise NetworkError("network: no DirAuthority in the file")
    return tuple(found)
