# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything of a network namespace that decides where packets go, at one time."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from proof import flows, nftables, routing
from proof.beside import gaps_of_files, gaps_of_links, gaps_of_settings, gaps_of_xfrm
from proof.bytecode import Bytecode
from proof.coverage import gaps_of_bytecode, gaps_of_order
from proof.flows import Flow
from proof.netlink import (
    NETFILTER,
    ROUTE,
    XFRM,
    AbsentError,
    Kernel,
    Netlink,
    SnapshotError,
)
from proof.routes import Routing

_ATTEMPTS = 5
# /proc/net is that of the process; a namespace is entered by one thread.
FILES = Path("/proc/thread-self/net")
SETTINGS = Path("/proc/sys/net")
_PATTERNS = (
    "ipv4/ip_forward",
    "ipv4/conf/*/forwarding",
    "ipv4/conf/*/rp_filter",
    "ipv4/conf/*/route_localnet",
    "ipv4/conf/*/accept_local",
    "ipv4/conf/*/accept_source_route",
    "ipv4/conf/*/bc_forwarding",
    "ipv4/conf/*/mc_forwarding",
    "ipv4/conf/*/src_valid_mark",
    "ipv6/conf/*/seg6_enabled",
    "ipv6/conf/*/rpl_seg_enabled",
    "mpls/conf/*/input",
    "ipv6/conf/*/mc_forwarding",
    "ipv6/conf/*/forwarding",
    "ipv6/conf/*/force_forwarding",
    "ipv6/conf/*/disable_ipv6",
    "ipv6/conf/*/accept_source_route",
    "netfilter/nf_conntrack_tcp_loose",
    "netfilter/nf_conntrack_checksum",
    "bridge/bridge-nf-call-*",
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One namespace.  ``gaps`` name what no proof about it covers.

    ``settings`` are sysctls below ``net``, by path.  ``flows`` are those that ran
    when the rules had been read; they come and go all the time.
    """

    bytecode: Bytecode
    routing: Routing
    settings: Mapping[str, str]
    gaps: tuple[str, ...]
    flows: tuple[Flow, ...] = ()


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to read: three subsystems of one kernel, and two folders of files."""

    netfilter: Kernel
    route: Kernel
    xfrm: Kernel | None
    files: Path = FILES
    settings: Path = SETTINGS


def here() -> Snapshot:
    """Return a snapshot of the namespace this thread is in.

    Needs CAP_NET_ADMIN there.  `SnapshotError`: it is not whole; no part of it
    is returned.
    """
    with ExitStack() as stack:
        netfilter = stack.enter_context(Netlink(NETFILTER))
        route = stack.enter_context(Netlink(ROUTE))
        try:
            xfrm = stack.enter_context(Netlink(XFRM))
        except AbsentError:
            xfrm = None
        return take(Sources(netfilter, route, xfrm))


def take(sources: Sources) -> Snapshot:
    """Return a snapshot; one that changes while it is read is read again."""
    failed = SnapshotError("no attempt")
    for _ in range(_ATTEMPTS):
        try:
            return _once(sources)
        except SnapshotError as error:
            failed = error
    raise failed


def _once(sources: Sources) -> Snapshot:
    before = routing.read(sources.route)
    try:
        settings = dict(_settings(sources.settings))
        files = tuple(gaps_of_files(sources.files))
    except OSError as error:
        raise SnapshotError(f"{error.filename}: {error.strerror}") from error
    bytecode = nftables.read(sources.netfilter)
    gaps = (
        *gaps_of_bytecode(bytecode),
        *gaps_of_order(bytecode),
        *gaps_of_settings(settings),
        *gaps_of_links(before, sources.route),
        *(gaps_of_xfrm(sources.xfrm) if sources.xfrm is not None else ()),
        *files,
    )
    if routing.read(sources.route) != before:
        raise SnapshotError("links and routes: they changed while they were read")
    return Snapshot(bytecode, before, settings, gaps, flows.read(sources.netfilter))


def _settings(folder: Path) -> Iterator[tuple[str, str]]:
    for pattern in _PATTERNS:
        for path in sorted(folder.glob(pattern)):
            yield str(path.relative_to(folder)), path.read_text().strip()
