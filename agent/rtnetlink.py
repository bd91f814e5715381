# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests about links, addresses, routes, routing rules and neighbours.

Each function returns a `Request` for a `Netlink` of subsystem `ROUTE`; nothing
happens before `Netlink.do`, so many go in one system call.
"""

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from errno import EADDRNOTAVAIL, EEXIST, ENODEV, ENOENT, ESRCH
from ipaddress import IPv4Interface, IPv6Interface

from agent.netlink import (
    CREATE,
    EXCLUSIVE,
    REPLACE,
    Attributes,
    Request,
    address_body,
    link_body,
    neighbour_body,
    route_body,
    rule_body,
)
from rules.model import Address, Family, family
from rules.routing import Route, Rule

Interface = IPv4Interface | IPv6Interface

NEW_LINK, DEL_LINK, GET_LINK = 16, 17, 18  # linux/rtnetlink.h: RTM_…
NEW_ADDRESS, DEL_ADDRESS, GET_ADDRESS = 20, 21, 22
NEW_ROUTE, DEL_ROUTE, GET_ROUTE = 24, 25, 26
NEW_NEIGHBOUR, DEL_NEIGHBOUR = 28, 29
NEW_RULE, DEL_RULE, GET_RULE = 32, 33, 34

LINK = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
UP = 1  # IFF_UP
_NODAD = 0x02  # IFA_F_NODAD
_PERMANENT = 0x80  # NUD_PERMANENT
_PROXY = 0x08  # NTF_PROXY
_ONLINK = 4  # RTNH_F_ONLINK
_STATIC = 4  # RTPROT_STATIC
_UNIVERSE, _LINK, _NOWHERE = 0, 253, 255  # RT_SCOPE_…
_UNICAST, _UNREACHABLE_ROUTE = 1, 7  # RTN_…
_TO_TABLE, _UNREACHABLE = 1, 7  # FR_ACT_…
_COMPAT = 252  # RT_TABLE_COMPAT: the number is in an attribute
_BYTE = 255

NUMBERS = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class End:
    """One end of a veth pair; ``namespace`` is an open file of its namespace."""

    name: str
    namespace: int
    mac: str | None = None
    group: int = 0


def set_link(  # noqa: PLR0913 - one word for each thing that can be set
    index: int,
    *,
    up: bool | None = None,
    group: int | None = None,
    mac: str | None = None,
    mtu: int | None = None,
    name: str | None = None,
    namespace: int | None = None,
) -> Request:
    """Change what is given of a link; ``namespace`` is the file to move it to.

    ``mtu`` is in bytes.  A link is renamed only while it is down.
    """
    given = {
        "IFLA_GROUP": group,
        "IFLA_ADDRESS": mac,
        "IFLA_MTU": mtu,
        "IFLA_IFNAME": name,
        "IFLA_NET_NS_FD": namespace,
    }
    attributes = [(key, value) for key, value in given.items() if value is not None]
    words = [f"{key[5:].lower()} {value}" for key, value in attributes]
    fields = {"index": index}
    if up is not None:
        fields |= {"flags": UP if up else 0, "change": UP}
        words.append("up" if up else "down")
    what = f"set link {index} {' '.join(words)}"
    return Request(what, NEW_LINK, link_body(fields, attributes))


def add_veth(end: End, other: End) -> Request:
    """Make a pair of links, each in its namespace from the first moment on."""
    peer = {"attrs": _end(other)}
    info = [
        ("IFLA_INFO_KIND", "veth"),
        ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]}),
    ]
    attributes = [*_end(end), ("IFLA_LINKINFO", {"attrs": info})]
    what = f"add veth {end.name} to {other.name}"
    return Request(what, NEW_LINK, link_body({}, attributes), CREATE | EXCLUSIVE)


def delete_link(index: int) -> Request:
    """Remove a link (and the other end of a pair), if it is there."""
    body = link_body({"index": index}, ())
    return Request(f"delete link {index}", DEL_LINK, body, fine=frozenset({ENODEV}))


def add_address(index: int, address: Interface) -> Request:
    """Give a link an address, at once usable (no RFC 4862 detection)."""
    body = _address(index, address)
    what = f"add {address} to link {index}"
    return Request(
        what, NEW_ADDRESS, body, CREATE | EXCLUSIVE, fine=frozenset({EEXIST})
    )


def delete_address(index: int, address: Interface) -> Request:
    """Take an address from a link."""
    body = _address(index, address)
    gone = frozenset({EADDRNOTAVAIL, ENODEV})
    return Request(f"delete {address} of link {index}", DEL_ADDRESS, body, fine=gone)


def replace_route(route: Route) -> Request:
    """Add a route, or replace that of the same table, prefix and metric.

    ``index`` 0 means unreachable.  A gateway need not be reachable by another
    route: it is behind the link, by RTNH_F_ONLINK.
    """
    direct = route.index and route.gateway is None
    how = {
        "proto": _STATIC,
        "scope": _LINK if direct else _UNIVERSE,
        "type": _UNICAST if route.index else _UNREACHABLE_ROUTE,
        "flags": _ONLINK if route.gateway else 0,
    }
    what = f"add {_say(route)}"
    return Request(what, NEW_ROUTE, _route(route, how), CREATE | REPLACE)


def delete_route(route: Route) -> Request:
    """Remove a route, whoever made it."""
    gone = frozenset({ESRCH, ENODEV})
    body = _route(route, {"scope": _NOWHERE})
    return Request(f"delete {_say(route)}", DEL_ROUTE, body, fine=gone)


def add_rule(rule: Rule) -> Request:
    """Add a routing rule."""
    body = _rule(rule)
    fine = frozenset({EEXIST})
    return Request(f"add {rule}", NEW_RULE, body, CREATE | EXCLUSIVE, fine)


def replace_neighbour(index: int, address: Address, mac: str) -> Request:
    """Fix the MAC address of a neighbour; it is never asked for."""
    fields = {"ifindex": index, "state": _PERMANENT}
    attributes = [("NDA_DST", str(address)), ("NDA_LLADDR", mac)]
    return _neighbour(address, fields, attributes, f"{mac} on link {index}")


def replace_proxy(index: int, address: Address) -> Request:
    """Answer neighbour solicitations for ``address`` on a link (proxy_ndp)."""
    fields = {"ifindex": index, "flags": _PROXY}
    return _neighbour(
        address, fields, [("NDA_DST", str(address))], f"proxy on link {index}"
    )


def delete_neighbour(index: int, address: Address, *, proxy: bool = False) -> Request:
    """Forget a neighbour, or no longer answer for it."""
    fields = {"family": NUMBERS[family(address)], "ifindex": index}
    fields["flags"] = _PROXY if proxy else 0
    body = neighbour_body(fields, [("NDA_DST", str(address))])
    what = f"delete neighbour {address} on link {index}"
    return Request(what, DEL_NEIGHBOUR, body, fine=frozenset({ENOENT, ENODEV}))


def _neighbour(
    address: Address, fields: Mapping[str, int], attributes: Attributes, how: str
) -> Request:
    fields = {"family": NUMBERS[family(address)], **fields}
    what = f"set neighbour {address} {how}"
    body = neighbour_body(fields, attributes)
    return Request(what, NEW_NEIGHBOUR, body, CREATE | REPLACE)


def _end(end: End) -> list[tuple[str, object]]:
    mac = [] if end.mac is None else [("IFLA_ADDRESS", end.mac)]
    return [
        ("IFLA_IFNAME", end.name),
        ("IFLA_NET_NS_FD", end.namespace),
        ("IFLA_GROUP", end.group),
        *mac,
    ]


def _address(index: int, address: Interface) -> bytes:
    fields = {
        "family": NUMBERS[family(address.ip)],
        "prefixlen": address.network.prefixlen,
        "flags": _NODAD if family(address.ip) is Family.IPV6 else 0,
        "index": index,
    }
    ip = str(address.ip)
    return address_body(fields, [("IFA_LOCAL", ip), ("IFA_ADDRESS", ip)])


def _route(route: Route, how: Mapping[str, int]) -> bytes:
    fields = {
        "family": NUMBERS[family(route.prefix)],
        "dst_len": route.prefix.prefixlen,
        "table": route.table if route.table <= _BYTE else _COMPAT,
        **how,
    }
    given = {
        "RTA_TABLE": route.table,
        "RTA_DST": str(route.prefix.network_address) if route.prefix.prefixlen else "",
        "RTA_OIF": route.index,
        "RTA_GATEWAY": str(route.gateway or ""),
        "RTA_PRIORITY": route.metric,
    }
    return route_body(fields, [(key, value) for key, value in given.items() if value])


def _say(route: Route) -> str:
    return f"route to {route.prefix} by link {route.index} in table {route.table}"


def _rule(rule: Rule) -> bytes:
    table = rule.table or 0
    fields = {
        "family": NUMBERS[rule.family],
        "table": table if table <= _BYTE else _COMPAT,
        "action": _UNREACHABLE if rule.table is None else _TO_TABLE,
    }
    given = {
        "FRA_PRIORITY": rule.priority,
        "FRA_TABLE": table,
        "FRA_IIFNAME": rule.iif,
    }
    attributes = [(key, value) for key, value in given.items() if value]
    return rule_body(fields, attributes)
