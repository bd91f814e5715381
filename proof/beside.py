# SPDX-License-Identifier: GPL-2.0-or-later
"""What beside nf_tables could move or change packets, and is not modelled: named.

Not seen from here, and so an assumption of every proof: packet sockets, BPF
programs on control groups and on netfilter hooks, and what a compromised domain
says about itself.
"""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from proof.netlink import Kernel, Request, SnapshotError, attributes, text
from proof.routes import Routing

_QDISCS, _FILTERS = 38, 46  # RTM_GETQDISC, RTM_GETTFILTER
_POLICIES, _DEFAULT = 0x15, 0x28  # XFRM_MSG_GETPOLICY, XFRM_MSG_GETDEFAULT
_ACCEPTED = bytes([2, 2, 2])  # XFRM_USERPOLICY_ACCEPT: in, on, out
_SENDS, _LAST_KIND = 1, 9  # RTN_UNICAST, RTN_THROW
_TCMSG = struct.Struct("=BxxxiIII")
_LEGACY = ("ip_tables_names", "ip6_tables_names", "arp_tables_names")
_VIRTUAL_SERVERS = "ip_vs"
_VIRTUAL_HEADER = 3  # lines
# By these, packets go on otherwise than by routes, or are judged by other ones.
_SETTINGS = frozenset(
    {"bc_forwarding", "mc_forwarding", "src_valid_mark", "seg6_enabled"}
) | {"rpl_seg_enabled", "input"}
# What takes frames from another link before IP sees them.
_SWITCHES = {"bridge", "openvswitch", "team", "bond", "vrf", "hsr"}
_SWITCHES |= {"macvlan", "macvtap", "ipvlan", "ipvtap", "macsec"}
_PLAIN_QUEUES = frozenset(
    {"noqueue", "noop", "mq", "pfifo", "pfifo_fast", "bfifo", "fq", "fq_codel"}
)
_SORTING = "fq_codel"  # the one of them that takes filters


def gaps_of_settings(settings: Mapping[str, str]) -> Iterator[str]:
    """Yield what sysctl lets the kernel forward in other ways than by routes."""
    for name, value in settings.items():
        _, _, key = name.rpartition("/")
        if key in _SETTINGS and value not in {"0", "-1"}:
            yield f"{name} is {value}"
    source = "accept_source_route"
    if settings.get(f"ipv4/conf/all/{source}", "0") != "0":
        yield "source routes of IPv4 are honoured"


def gaps_of_links(found: Routing, kernel: Kernel) -> Iterator[str]:
    """Yield what is attached to interfaces."""
    names = {link.index: link.name for link in found.links}
    for link in found.links:
        if link.xdp:
            yield f"an XDP program on {link.name}"
        if link.kind in _SWITCHES:
            yield f"{link.name} is a {link.kind}"
        if link.controller is not None:
            part_of = names.get(link.controller, link.controller)
            yield f"{link.name} is a part of {part_of}"
    for route in found.routes:
        if route.encapsulated:
            yield f"route {route.prefix} encapsulates"
        if route.kind > _LAST_KIND or (route.kind == _SENDS and not route.interfaces):
            yield f"route {route.prefix} leads nobody knows where"
    yield from _gaps_of_queues(names, kernel)


def _gaps_of_queues(names: Mapping[int, str], kernel: Kernel) -> Iterator[str]:
    for message in kernel.dump(Request("queues", _QDISCS, bytes(_TCMSG.size))):
        if len(message.body) < _TCMSG.size:
            raise SnapshotError(f"queues: not one: {message}")
        kind = text(attributes(message.body, _TCMSG.size).get(1, b""))
        _, index, handle, _, _ = _TCMSG.unpack_from(message.body)
        if kind not in _PLAIN_QUEUES:
            yield f"traffic control ({kind}) on {names.get(index, index)}"
        asked = _TCMSG.pack(0, index, 0, handle, 0)
        if kind == _SORTING and kernel.dump(Request("filters", _FILTERS, asked)):
            yield f"traffic control (filters) on {names.get(index, index)}"


def gaps_of_xfrm(kernel: Kernel) -> Iterator[str]:
    """Yield how many policies there are, if any, and whether they are missed."""
    if found := kernel.dump(Request("xfrm policies", _POLICIES, bytes(64))):
        yield f"{len(found)} xfrm policies"
    answer = kernel.ask(Request("xfrm default", _DEFAULT, bytes(len(_ACCEPTED))))
    if answer.body[: len(_ACCEPTED)] != _ACCEPTED:
        yield "xfrm refuses what no policy is about"


def gaps_of_files(folder: Path) -> Iterator[str]:
    """Yield what the files of ``/proc/…/net`` tell: legacy tables, IPVS."""
    for name in _LEGACY:
        path = folder / name
        for table in path.read_text().split() if path.exists() else ():
            yield f"legacy table {table} ({name})"
    path = folder / _VIRTUAL_SERVERS
    if path.exists() and len(path.read_text().splitlines()) > _VIRTUAL_HEADER:
        yield "virtual servers (IPVS)"
