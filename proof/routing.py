# SPDX-License-Identifier: GPL-2.0-or-later
"""Links, addresses, routes and routing rules, read from the kernel."""

import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from proof.netlink import (
    Attributes,
    Kernel,
    Message,
    Request,
    SnapshotError,
    attributes,
    host_number,
    need,
    text,
)
from proof.routes import (
    Address,
    Link,
    LocalAddress,
    Prefix,
    Route,
    Routing,
    RoutingRule,
)

_LINKS, _ADDRESSES, _ROUTES, _RULES = 18, 22, 26, 34  # RTM_GET…
_IFINFO, _IFADDR, _RTMSG, _RULE = (
    struct.Struct("=BxHiII"),
    struct.Struct("=BBBBI"),
    struct.Struct("=BBBBBBBBI"),
    struct.Struct("=BBBBBxxBI"),
)
_HOP = struct.Struct("=HBBi")  # struct rtnexthop
_BITS = {socket.AF_INET: 32, socket.AF_INET6: 128}
_CLONED = 0x200  # RTM_F_CLONED: a cached exception, not a route
_INVERT = 0x2  # FIB_RULE_INVERT
# What a routing rule may select by and is read here (FRA_…).
_IIF, _TARGET, _OIF = 3, 4, 17
_READ = frozenset({1, 2, _IIF, _TARGET, 6, 10, 15, 16, _OIF})
# What is in every rule, or does not decide where a packet goes.
_NEUTRAL = frozenset({11, 14, 18, 21})
_SUPPRESS_PREFIX, _NO_SUPPRESS = 14, 0xFFFFFFFF
_LINK_CONTROLLER = 10  # IFLA_MASTER
_LOCAL = 2  # IFA_LOCAL
_ROUTE_OIF, _GATEWAY, _ENCAPSULATION = 4, 5, 22  # RTA_…
_NO_CARRIER = 0x1 | 0x10  # RTNH_F_DEAD, RTNH_F_LINKDOWN
_ANY_TYPE_OF_SERVICE = 0


def read(kernel: Kernel) -> Routing:
    """Return them; `SnapshotError` for anything that does not fit."""
    found = Routing(
        tuple(_link(head, more) for head, more in _all(kernel, _LINKS, _IFINFO)),
        tuple(_address(head, more) for head, more in _all(kernel, _ADDRESSES, _IFADDR)),
        tuple(
            _route(head, more)
            for head, more in _all(kernel, _ROUTES, _RTMSG)
            if head[0] in _BITS and not head[8] & _CLONED
        ),
        tuple(
            _rule(head, more)
            for head, more in _all(kernel, _RULES, _RULE)
            if head[0] in _BITS
        ),
    )
    known = {link.index for link in found.links}
    for route in found.routes:
        if not route.interfaces <= known:
            raise SnapshotError(f"route {route.prefix}: no such interface")
    return found


_WORDS = {
    _LINKS: "links",
    _ADDRESSES: "addresses",
    _ROUTES: "routes",
    _RULES: "routing rules",
}


def _all(
    kernel: Kernel, kind: int, header: struct.Struct
) -> Iterator[tuple[tuple[int, ...], Attributes]]:
    what = _WORDS[kind]
    for message in kernel.dump(Request(what, kind, bytes(header.size))):
        yield _parts(message, what, kind, header)


def _parts(
    message: Message, what: str, kind: int, header: struct.Struct
) -> tuple[tuple[int, ...], Attributes]:
    if message.kind != kind - 2 or len(message.body) < header.size:
        raise SnapshotError(f"{what}: not one: {message}")
    head = header.unpack_from(message.body)
    return head, attributes(message.body, header.size)


def _link(head: tuple[int, ...], more: Attributes) -> Link:
    info = attributes(more.get(18, b""))
    xdp = attributes(more.get(43, b""))
    return Link(
        index=head[2],
        name=text(need(more, 3, "link")),
        group=host_number(more.get(27), "link group"),
        hardware=head[1],
        up=bool(head[3] & 1),
        kind=text(info.get(1, b"")),
        controller=host_number(more[_LINK_CONTROLLER], "link")
        if _LINK_CONTROLLER in more
        else None,
        xdp=bool(host_number(xdp.get(2), "link xdp")),
        mac=more.get(1, b""),
    )


def _address(head: tuple[int, ...], more: Attributes) -> LocalAddress:
    raw = more[_LOCAL] if _LOCAL in more else need(more, 1, "address")
    return LocalAddress(head[4], _ip(raw, "address"), head[1])


def _ip(raw: bytes, what: str) -> Address:
    if len(raw) * 8 not in _BITS.values():
        raise SnapshotError(f"{what}: an address of {len(raw)} bytes")
    return ip_address(raw)


def _prefix(family: int, length: int, raw: bytes | None, what: str) -> Prefix:
    whole = bytes(_BITS[socket.AddressFamily(family)] // 8) if raw is None else raw
    try:
        return ip_network((whole, length), strict=False)
    except ValueError as error:
        raise SnapshotError(f"{what}: {error}") from error


def _route(head: tuple[int, ...], more: Attributes) -> Route:
    family, bits, source_bits, service, table = head[:5]
    hops = list(_hops(more.get(9, b"")))
    interfaces = [index for index, _ in hops]
    if _ROUTE_OIF in more:
        interfaces.append(host_number(more[_ROUTE_OIF], "route"))
    source = _prefix(family, source_bits, more.get(2), "route") if source_bits else None
    return Route(
        table=host_number(more.get(15), "route table", table),
        prefix=_prefix(family, bits, more.get(1), "route"),
        kind=head[7],
        interfaces=frozenset(interfaces),
        gateway=_ip(more[_GATEWAY], "gateway") if _GATEWAY in more else None,
        source=source,
        metric=host_number(more.get(6), "route metric"),
        encapsulated=_ENCAPSULATION in more or any(e for _, e in hops),
        sometimes=service != _ANY_TYPE_OF_SERVICE or bool(head[8] & _NO_CARRIER),
    )


def _hops(raw: bytes) -> Iterator[tuple[int, bool]]:
    """Yield a route's several next hops (RTA_MULTIPATH).

    Each is an interface, and whether what goes there is encapsulated.
    """
    while raw:
        if len(raw) < _HOP.size:
            raise SnapshotError("route: a next hop that is cut off")
        length, _, _, index = _HOP.unpack_from(raw)
        if not _HOP.size <= length <= len(raw):
            raise SnapshotError("route: a next hop that does not fit")
        yield index, _ENCAPSULATION in attributes(raw[:length], _HOP.size)
        raw = raw[length + 3 & ~3 :]


def _rule(head: tuple[int, ...], more: Attributes) -> RoutingRule:
    family, to_bits, from_bits, tos, table, action, flags = head
    others = set(more) - _READ - _NEUTRAL
    if host_number(more.get(14), "routing rule", _NO_SUPPRESS) != _NO_SUPPRESS:
        others.add(_SUPPRESS_PREFIX)
    return RoutingRule(
        version=family,
        priority=host_number(more.get(6), "routing rule"),
        action=action,
        table=host_number(more.get(15), "routing rule", table),
        inverted=bool(flags & _INVERT),
        iif=text(more[_IIF]) if _IIF in more else None,
        oif=text(more[_OIF]) if _OIF in more else None,
        source=_prefix(family, from_bits, more.get(2), "rule") if from_bits else None,
        destination=_prefix(family, to_bits, more.get(1), "rule") if to_bits else None,
        mark=host_number(more.get(10), "routing rule"),
        mask=host_number(more.get(16), "routing rule"),
        target=host_number(more[_TARGET], "routing rule") if _TARGET in more else None,
        selectors=frozenset(others | ({0} if tos else set())),
    )
