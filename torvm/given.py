# SPDX-License-Identifier: GPL-2.0-or-later
"""What a TorVM is given besides its QubesDB: files that may hold secrets.

They are in the directory that ``CREDENTIALS_DIRECTORY`` names (systemd.exec(5)).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torvm import bridges, proxy
from torvm.bridges import Bridge, BridgeError
from torvm.pluggable import Program
from torvm.proxy import Login, Proxy, ProxyError
from torvm.said import NO_ENTRY
from torvm.torrc import NetworkError, private_network

DIRECTORY = "CREDENTIALS_DIRECTORY"


@dataclass(frozen=True, slots=True)
class Given:
    """Bridges, the options of a private network, or why these are no use.

    ``login`` is for the proxy, which dom0 names later (`through`).
    """

    bridges: tuple[Bridge, ...] = ()
    network: tuple[str, ...] = ()
    refused: str = ""
    login: Login | None = None
    proxy: Proxy | None = None

    @property
    def transports(self) -> Mapping[Program, frozenset[str]]:
        """The transports that the bridges are spoken to by, by their program."""
        found: dict[Program, frozenset[str]] = {}
        for bridge in self.bridges:
            if (program := bridge.program) is not None:
                names = found.get(program, frozenset())
                found[program] = names | {bridge.transport}
        return found

    @property
    def names(self) -> frozenset[str]:
        """The host names that must be asked for; the proxy asks for those behind it."""
        if self.proxy is not None:
            return frozenset()
        ways = (bridge.way for bridge in self.bridges)
        places = (place for way in ways for place in (*way.places, *way.helpers))
        return frozenset(p.host for p in places if isinstance(p.host, str))

    def through(self, untrusted_proxy: str) -> "Given":
        """Take the proxy that dom0 names, or none for an empty word."""
        if self.refused:
            return self
        if not untrusted_proxy:
            why = "auth: a password for no proxy, expected proxy = …"
            return replace(self, refused=why) if self.login else self
        try:
            found = proxy.parse(untrusted_proxy).known_by(self.login)
        except ProxyError as error:
            return replace(self, refused=f"proxy: {error}")
        if any(bridge.way.anyone for bridge in self.bridges):
            why = "snowflake cannot go through a proxy, for it needs UDP"
            return replace(self, refused=f"proxy: {why}")
        if len({bridge.program is None for bridge in self.bridges}) > 1:
            # tor takes no proxy of its own beside a program that speaks for it.
            why = "expected bridges that all have a transport, or none that has"
            return replace(self, refused=f"proxy: {why}")
        return replace(self, proxy=found)

    @property
    def of_tor(self) -> Proxy | None:
        """The proxy that tor itself must know; not one behind a transport's program."""
        return None if self.transports else self.proxy

    def trouble(self, why: str) -> str:
        """Return what the proxy does in the words for people; ``why`` is tor's word."""
        if self.proxy is None or not why:
            return ""
        refuses = why == NO_ENTRY and self.proxy.login is not None
        return "refuses the user and the password" if refuses else why


def given() -> Given:
    """Read the files there are; one that is refused takes all with it."""
    try:
        untrusted_bridges, untrusted_network = _text("bridges"), _text("network")
        untrusted_login = _text("auth")
        return Given(
            () if untrusted_bridges is None else bridges.parse(untrusted_bridges),
            () if untrusted_network is None else private_network(untrusted_network),
            login=None if untrusted_login is None else proxy.login(untrusted_login),
        )
    except (BridgeError, NetworkError, ProxyError) as error:
        return Given(refused=str(error))
    except OSError as error:
        return Given(refused=f"a file of the policy: {error.strerror}")


def _text(name: str) -> bytes | None:
    directory = os.environ.get(DIRECTORY)
    if directory is None:
        return None
    try:
        return (Path(directory) / name).read_bytes()
    except FileNotFoundError:
        return None
