# SPDX-License-Identifier: GPL-2.0-or-later
"""The servers of an OpenVPN profile.

``remote``, ``proto``, ``port``, ``remote-random`` and ``<connection>`` of
openvpn(8).  Pure.
"""

import re
from dataclasses import dataclass, replace
from ipaddress import ip_address

from rules.model import MAX_PORT, Address, shown
from vpn.endpoints import TCP, UDP, Endpoint, EndpointError, why_refused
from vpn.openvpn_options import OURS, unknown
from vpn.openvpn_words import Line, ProfileError, lines

PORT = 1194  # of OpenVPN, by IANA
MOST = 64  # servers (CONNECTION_LIST_SIZE)
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_PROTOCOLS = {
    **dict.fromkeys(("udp", "udp4", "udp6"), UDP),
    **dict.fromkeys(("tcp", "tcp4", "tcp6"), TCP),
    **dict.fromkeys(("tcp-client", "tcp4-client", "tcp6-client"), TCP),
}
_REMOTE = 3  # arguments at most: host, port, protocol
_IN_CONNECTION = {"remote", "proto", "port", "rport"}
_PASSED_OVER = {*OURS, "explicit-exit-notify", "mssfix", "tun-mtu"}


@dataclass(frozen=True, slots=True)
class _Remote:
    host: str
    port: int | None = None
    proto: int | None = None


@dataclass(frozen=True, slots=True)
class Servers:
    """Servers as far as they were read; ``port`` and ``proto`` hold for the rest.

    ``shuffled``: the profile wants them in a random order (``remote-random``).
    """

    remotes: tuple[_Remote, ...] = ()
    port: int | None = None
    proto: int | None = None
    shuffled: bool = False

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The servers, in the order of the profile, each once."""
        return tuple(
            dict.fromkeys(
                Endpoint(
                    _host(r.host),
                    r.port or self.port or PORT,
                    r.proto or self.proto or UDP,
                )
                for r in self.remotes
            )
        )

    def taken(self, line: Line) -> "Servers":
        """Return these with one more option of `SERVERS`, or raise `ValueError`."""
        if line.name == "connection":
            return self._with_connection(line)
        if line.block is not None:
            raise ValueError(f"<{line.name}>: expected no block")
        if line.name == "remote-random":
            return replace(self, shuffled=True)
        if line.name == "remote":
            remote = _remote(line.arguments)
            if len(self.remotes) >= MOST:
                raise ValueError(f"remote: expected at most {MOST}")
            return replace(self, remotes=(*self.remotes, remote))
        if len(line.arguments) != 1:
            raise ValueError(f"{line.name}: expected one argument")
        if line.name == "proto":
            return replace(self, proto=_protocol(line.arguments[0]))
        return replace(self, port=_port(line.arguments[0]))

    def _with_connection(self, line: Line) -> "Servers":
        inside = Servers()
        for each in lines("\n".join(line.block or ()).encode()):
            try:
                inside = _inside(inside, each)
            except ValueError as error:
                number = line.number + each.number
                raise ProfileError(f"{number}: {error}") from None
        if len(inside.remotes) != 1:
            raise ValueError("<connection>: expected one remote")
        remote = replace(
            inside.remotes[0],
            port=inside.remotes[0].port or inside.port,
            proto=inside.remotes[0].proto or inside.proto,
        )
        return replace(self, remotes=(*self.remotes, remote))


def _inside(connection: Servers, line: Line) -> Servers:
    if line.name in _IN_CONNECTION:
        return connection.taken(line)
    if line.name not in _PASSED_OVER or line.block is not None:
        raise ValueError(unknown(line.name))
    return connection


def _remote(untrusted_arguments: tuple[str, ...]) -> _Remote:
    if not 1 <= len(untrusted_arguments) <= _REMOTE:
        raise ValueError("remote: expected a host, a port and a protocol")
    host, port, proto = (*untrusted_arguments, None, None)[:_REMOTE]
    remote = _Remote(
        str(host).lower(),
        None if port is None else _port(port),
        None if proto is None else _protocol(proto),
    )
    try:
        server = Endpoint(_host(remote.host), remote.port or PORT)
    except EndpointError as error:
        raise ValueError(f"remote {shown(remote.host)}: {error}") from None
    if not isinstance(server.host, str):
        if "%" in remote.host:
            raise ValueError(f"remote {shown(remote.host)}: expected no interface")
        if why := why_refused(server.host, written=True):
            raise ValueError(f"remote {server.host}: {why}")
    return remote


def _host(untrusted_host: str) -> Address | str:
    try:
        return ip_address(untrusted_host)
    except ValueError:
        return untrusted_host


def _port(untrusted_port: str) -> int:
    if not _PORT.fullmatch(untrusted_port) or int(untrusted_port) > MAX_PORT:
        raise ValueError(f"port {shown(untrusted_port)}: expected a number, 1-65535")
    return int(untrusted_port)


def _protocol(untrusted_word: str) -> int:
    if untrusted_word.lower() not in _PROTOCOLS:
        raise ValueError(f"proto {shown(untrusted_word)}: expected udp or tcp")
    return _PROTOCOLS[untrusted_word.lower()]
