# SPDX-License-Identifier: GPL-2.0-or-later
"""What could move or change packets and is not modelled: named, not ignored.

Not seen from here, and so an assumption of every proof: packet sockets, BPF
programs on control groups and on netfilter hooks, and what a compromised domain
says about itself.
"""

import struct
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path

from proof.bytecode import DORMANT, OWNED, Bytecode, Chain, Expression, Family
from proof.netlink import Kernel, Request, attributes, text
from proof.routes import Routing

_IP_HOOKS = frozenset(range(5))  # NF_INET_PRE_ROUTING to NF_INET_POST_ROUTING
_MODELLED: dict[int, frozenset[int]] = {
    Family.IP: _IP_HOOKS,
    Family.IP6: _IP_HOOKS,
    Family.INET: _IP_HOOKS,
    Family.ARP: frozenset({0}),  # NF_ARP_IN
    Family.NETDEV: frozenset({1}),  # NF_NETDEV_EGRESS
}
_QDISCS, _POLICIES = 38, 0x15  # RTM_GETQDISC, XFRM_MSG_GETPOLICY
_TCMSG = struct.Struct("=BxxxiIII")
_LEGACY = ("ip_tables_names", "ip6_tables_names", "arp_tables_names")
_VIRTUAL_SERVERS = "ip_vs"
_VIRTUAL_HEADER = 3  # lines
# They send copies, or send otherwise than routing says; xtables may do anything.
_SENDING = frozenset(
    {"dup", "fwd", "flow_offload", "queue", "tproxy", "synproxy", "target"}
)
# The attribute with the register of what is written, 0: it always writes.
_WRITING = {"meta": 3, "ct": 4, "payload": 5, "notrack": 0, "nat": 0, "masq": 0}
_WRITING |= {"redir": 0}
_FORWARDING = frozenset({"bc_forwarding", "mc_forwarding"})
_SWITCHES = {"bridge", "openvswitch", "team", "bond"}


def gaps_of_bytecode(found: Bytecode) -> Iterator[str]:
    """Yield what of nf_tables is not modelled."""
    for place, flags in found.tables.items():
        if flags & DORMANT:
            yield f"table {_table(place.family)} {place.name} is dormant"
        if flags & OWNED:
            yield f"table {_table(place.family)} {place.name} belongs to a process"
    for chain in found.chains.values():
        yield from _gaps_of_chain(chain)
    for place in found.flowtables:
        yield f"flowtable {place} bypasses forward"


def _gaps_of_chain(chain: Chain) -> Iterator[str]:
    family, hook = chain.place.family, chain.hook
    if hook is not None and hook.number not in _MODELLED.get(family, frozenset()):
        yield f"base chain {chain.place} at hook {hook.number} is not modelled"
    for rule in chain.rules:
        for expression in rule.expressions:
            if expression.name in _SENDING:
                what = f"{chain.place} handle {rule.handle}"
                yield f"{what} takes packets elsewhere ({expression.name})"
            if expression.name == "payload" and _writes(expression):
                # Within a domain that is a doubt; the next one would not know.
                yield f"{chain.place} handle {rule.handle} writes into packets"


def gaps_of_order(found: Bytecode) -> Iterator[str]:
    """Yield base chains of which nobody knows which comes first, if it matters."""
    writing = {
        chain.place[:2]
        for chain in found.chains.values()
        if any(_writes(e) for rule in chain.rules for e in rule.expressions)
    }
    base = [c for c in found.chains.values() if c.hook is not None and c.rules]
    for one, other in combinations(base, 2):
        if (
            one.hook is not None
            and other.hook is not None
            and one.hook.number == other.hook.number
            and one.hook.priority == other.hook.priority
            and (one.hook.kind == "nat") is (other.hook.kind == "nat")
            and _meet(one, other)
            and {one.place[:2], other.place[:2]} & writing
        ):
            yield f"{one.place} and {other.place} have one priority, and change packets"


def _meet(one: Chain, other: Chain) -> bool:
    """Return whether a packet can pass both."""
    families = {one.place.family, other.place.family}
    if Family.NETDEV in families and one.hook is not None and other.hook is not None:
        return bool({*one.hook.devices} & {*other.hook.devices})
    return len(families) == 1 or Family.INET in families


def _writes(expression: Expression) -> bool:
    written = _WRITING.get(expression.name)
    return written is not None and (not written or written in expression.values)


def gaps_of_settings(settings: Mapping[str, str]) -> Iterator[str]:
    """Yield what sysctl lets the kernel forward in other ways than by routes."""
    for name, value in settings.items():
        _, _, key = name.rpartition("/")
        if key in _FORWARDING and value not in {"0", "-1"}:
            yield f"{name} is {value}"
    source = "accept_source_route"
    if settings.get(f"ipv4/conf/all/{source}", "0") != "0":
        yield "source routes of IPv4 are honoured"


def _table(family: int) -> str:
    known = {item.value: item.name.lower() for item in Family}
    return known.get(family, str(family))


def gaps_of_links(found: Routing, kernel: Kernel) -> Iterator[str]:
    """Yield what is attached to interfaces."""
    names = {link.index: link.name for link in found.links}
    for link in found.links:
        if link.xdp:
            yield f"an XDP program on {link.name}"
        if link.kind in _SWITCHES:
            yield f"{link.name} is a {link.kind}"
    for route in found.routes:
        if route.encapsulated:
            yield f"route {route.prefix} encapsulates"
    for message in kernel.dump(Request("queues", _QDISCS, bytes(_TCMSG.size))):
        kind = text(attributes(message.body, _TCMSG.size).get(1, b""))
        if kind in {"clsact", "ingress"}:
            index = _TCMSG.unpack_from(message.body)[1]
            yield f"traffic control ({kind}) on {names.get(index, index)}"


def gaps_of_xfrm(kernel: Kernel) -> Iterator[str]:
    """Yield how many policies there are, if any."""
    if found := kernel.dump(Request("xfrm policies", _POLICIES, bytes(64))):
        yield f"{len(found)} xfrm policies"


def gaps_of_files(folder: Path) -> Iterator[str]:
    """Yield what the files of ``/proc/…/net`` tell: legacy tables, IPVS."""
    for name in _LEGACY:
        path = folder / name
        for table in path.read_text().split() if path.exists() else ():
            yield f"legacy table {table} ({name})"
    path = folder / _VIRTUAL_SERVERS
    if path.exists() and len(path.read_text().splitlines()) > _VIRTUAL_HEADER:
        yield "virtual servers (IPVS)"
