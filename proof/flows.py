# SPDX-License-Identifier: GPL-2.0-or-later
"""The flows that run: what conntrack would let answer (ctnetlink).

Layout: linux/netfilter/nfnetlink_conntrack.h.  Only who opened a flow, to whom,
is read; that is what a list decides.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from proof.netlink import Kernel, Request, SnapshotError, attributes, need, number
from rules.ground import Ground, Match
from rules.model import Action, Address

_GET, _NEW = 0x101, 0x100  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_…
_HEADER = struct.Struct("=BBH")  # struct nfgenmsg: family, version, resource
_FAMILIES: Mapping[int, type[IPv4Address] | type[IPv6Address]] = {
    2: IPv4Address,
    10: IPv6Address,
}
_ORIGINAL, _IP, _PROTO = 1, 1, 2  # CTA_TUPLE_…
_SOURCE = {2: 1, 10: 3}  # CTA_IP_V4_SRC, CTA_IP_V6_SRC
_TARGET = {2: 2, 10: 4}
_NUMBER, _PORT = 1, 3  # CTA_PROTO_…
_TYPES = (5, 8)  # CTA_PROTO_ICMP_TYPE, CTA_PROTO_ICMPV6_TYPE


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow by its first packet.  ``port`` and ``icmp_type`` where there are."""

    source: Address
    target: Address
    protocol: int
    port: int | None
    icmp_type: int | None


def read(kernel: Kernel) -> tuple[Flow, ...]:
    """Return every flow of the namespace; `SnapshotError` if one cannot be read."""
    return tuple(flow for family in _FAMILIES for flow in _of(kernel, family))


def _of(kernel: Kernel, family: int) -> Iterator[Flow]:
    header = _HEADER.pack(family, 0, 0)
    for message in kernel.dump(Request("flows", _GET, header)):
        if message.kind != _NEW or len(message.body) < _HEADER.size:
            raise SnapshotError(f"flows: not one: {message}")
        original = attributes(
            need(attributes(message.body, _HEADER.size), _ORIGINAL, "a flow")
        )
        yield _flow(
            family,
            attributes(need(original, _IP, "addresses of a flow")),
            attributes(need(original, _PROTO, "protocol of a flow")),
        )


def _flow(family: int, ends: Mapping[int, bytes], proto: Mapping[int, bytes]) -> Flow:
    address = _FAMILIES[family]
    kinds = [proto[kind] for kind in _TYPES if kind in proto]
    try:
        source = address(need(ends, _SOURCE[family], "source of a flow"))
        target = address(need(ends, _TARGET[family], "target of a flow"))
    except ValueError as error:
        raise SnapshotError(f"flows: {error}") from error
    return Flow(
        source,
        target,
        number(need(proto, _NUMBER, "protocol of a flow"), "protocol of a flow"),
        number(proto[_PORT], "port of a flow") if _PORT in proto else None,
        number(kinds[0], "type of a flow") if kinds else None,
    )


def accepts(ground: Ground, flow: Flow) -> bool:
    """Return whether a list accepts the flow: its first match, or its default."""
    found = (match.action for match in ground.matches if _matches(match, flow))
    return next(found, ground.default) is Action.ACCEPT


def _matches(match: Match, flow: Flow) -> bool:
    networks, ports, types = match.networks, match.ports, match.icmp_types
    return (
        (networks is None or any(flow.target in each for each in networks))
        and (match.protocols is None or flow.protocol in match.protocols)
        and (
            ports is None
            or (flow.port is not None and ports.first <= flow.port <= ports.last)
        )
        and (types is None or flow.icmp_type in types)
    )
