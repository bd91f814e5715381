# SPDX-License-Identifier: GPL-2.0-or-later
"""Live flows are found by who opened them, and cut one by one, of any protocol."""

import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from agent.conntrack import SOME, CtNetlink
from agent.ports import LiveFlow
from rules.decide import Packet
from rules.model import Address

Shell = Callable[[str], str]

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("tracked")]

CLIENT4, OTHER4, SERVER4 = (IPv4Address(f"10.137.0.{n}") for n in (5, 6, 7))
CLIENT6, OTHER6, SERVER6 = (IPv6Address(f"fd09::{n}") for n in (5, 6, 7))
VIRTUAL = IPv4Address("10.139.1.1")
ADDRESSES6 = (CLIENT6, OTHER6, SERVER6)
PATIENCE = 20.0  # seconds
BOTH = pytest.mark.parametrize(
    ("client", "other", "server"),
    [(CLIENT4, OTHER4, SERVER4), (CLIENT6, OTHER6, SERVER6)],
    ids=["IPv4", "IPv6"],
)
TRACKING = """
table inet t {
    chain output {
        type filter hook output priority 0
        ct state new counter
    }
    chain dstnat {
        type nat hook output priority -100
        ip daddr 10.139.1.1 udp dport 53 dnat ip to 10.137.0.7
    }
}
"""


@pytest.fixture
def tracked(net: Path, sh: Shell) -> None:
    sh("ip link set lo up")
    for address in (CLIENT4, OTHER4, SERVER4):
        sh(f"ip address add {address}/32 dev lo")
    for address6 in ADDRESSES6:
        sh(f"ip address add {address6}/128 dev lo nodad")
    # The kernel adds the routes on a queue (addrconf_wq) that all namespaces
    # share; what is sent before leaves no flow.
    deadline = time.monotonic() + PATIENCE
    while sh("ip -6 route show table local").count("fd09::") < len(ADDRESSES6):
        assert time.monotonic() < deadline, "no routes to the IPv6 addresses"
    script = net.with_suffix(".nft")
    script.write_text(TRACKING)
    sh(f"nft -f {script}")


@dataclass(frozen=True)
class Sort:
    """A kind of flow: how its first packet is sent, and how it is told."""

    proto: int
    payload: bytes
    port: int | None = None
    icmp_type: int | None = None
    kind: socket.SocketKind = socket.SOCK_RAW


UDPLITE = struct.pack(">HHHH", 4000, 443, 8, 0xFFFF)
SCTP_INIT = struct.pack(">HHII", 4000, 443, 0, 0) + struct.pack(
    ">BBHIIHHI", 1, 0, 20, 1, 65536, 1, 1, 1
)
SORTS = {
    "UDP": Sort(socket.IPPROTO_UDP, b"x", 443, kind=socket.SOCK_DGRAM),
    "TCP": Sort(socket.IPPROTO_TCP, b"", 443, kind=socket.SOCK_STREAM),
    "UDP-Lite": Sort(136, UDPLITE, 443),
    "SCTP": Sort(socket.IPPROTO_SCTP, SCTP_INIT, 443),
    "GRE": Sort(socket.IPPROTO_GRE, b"\0\0\x08\0" + bytes(20)),
    "a protocol nobody knows": Sort(253, bytes(8)),
}
ECHOES = {
    "ping": Sort(socket.IPPROTO_ICMP, b"\x08\0\xf7\xfb\0\x04\0\0", icmp_type=8),
    "ping6": Sort(socket.IPPROTO_ICMPV6, b"\x80\0\0\0\0\x04\0\0", icmp_type=128),
}
CASES = [
    *(
        pytest.param(each, CLIENT4, SERVER4, id=f"{n} IPv4")
        for n, each in SORTS.items()
    ),
    *(
        pytest.param(each, CLIENT6, SERVER6, id=f"{n} IPv6")
        for n, each in SORTS.items()
    ),
    pytest.param(ECHOES["ping"], CLIENT4, SERVER4, id="ping"),
    pytest.param(ECHOES["ping6"], CLIENT6, SERVER6, id="ping6"),
]


def send(sort: Sort, source: Address, target: Address) -> None:
    """Send the first packet of a flow; nobody need answer it."""
    version = socket.AF_INET if source.version == 4 else socket.AF_INET6
    port = 0 if sort.kind is socket.SOCK_RAW else 443
    with socket.socket(version, sort.kind, sort.proto) as sender:
        sender.bind((str(source), 0))
        if sort.kind is socket.SOCK_STREAM:
            with socket.create_server((str(target), port), family=version):
                sender.connect((str(target), port))
        else:
            sender.sendto(sort.payload, (str(target), port))


def udp(source: Address, target: Address, port: int = 443) -> None:
    version = socket.AF_INET if source.version == 4 else socket.AF_INET6
    with socket.socket(version, socket.SOCK_DGRAM) as sender:
        sender.bind((str(source), 0))
        sender.sendto(b"x", (str(target), port))


@pytest.fixture
def conntrack() -> Iterator[CtNetlink]:
    made = CtNetlink()
    yield made
    made.close()


@pytest.mark.parametrize(("sort", "client", "server"), CASES)
def test_a_flow_of_any_protocol_is_told_and_cut_alone(
    conntrack: CtNetlink, sort: Sort, client: Address, server: Address
) -> None:
    send(sort, client, server)
    udp(client, server, port=9)

    [flow] = [flow for flow in conntrack.flows(client) if flow.port != 9]
    assert (flow.src, flow.dst, flow.answered_by) == (client, server, server)
    assert (flow.proto, flow.port, flow.icmp_type) == (
        sort.proto,
        sort.port,
        sort.icmp_type,
    )

    conntrack.delete(flow)

    assert ports(conntrack.flows(client)) == [9]


@BOTH
def test_only_the_flows_that_an_address_opened_are_told(
    conntrack: CtNetlink, client: Address, other: Address, server: Address
) -> None:
    udp(client, server, 1)
    udp(other, server, 2)
    udp(server, client, 3)

    assert ports(conntrack.flows(client)) == [1]
    assert ports(conntrack.flows(ip_address("192.0.2.1"))) == []


def test_many_addresses_of_both_families_are_asked_for_at_once(
    conntrack: CtNetlink,
) -> None:
    udp(CLIENT4, SERVER4, 1)
    udp(OTHER4, SERVER4, 2)
    udp(SERVER4, CLIENT4, 3)
    udp(CLIENT6, SERVER6, 4)
    udp(OTHER6, SERVER6, 5)

    assert ports(conntrack.flows(CLIENT4, OTHER4, CLIENT6)) == [1, 2, 4]
    assert ports(conntrack.flows()) == []

    conntrack.flush(CLIENT4, CLIENT6, OTHER6)

    assert ports(conntrack.flows(CLIENT4, OTHER4, SERVER4)) == [2]
    assert ports(conntrack.flows(CLIENT6, OTHER6)) == []


@BOTH
def test_what_an_address_opened_is_counted(
    conntrack: CtNetlink, client: Address, other: Address, server: Address
) -> None:
    for port in (1, 2, 3):
        udp(client, server, port)
    udp(other, server, 1)
    udp(server, client, 4)

    to = server.packed
    assert conntrack.count(client, other) == {client: {to: 3}, other: {to: 1}}
    assert conntrack.count(ip_address("192.0.2.1")) == {ip_address("192.0.2.1"): {}}


def test_flows_of_any_protocol_count(conntrack: CtNetlink) -> None:
    for sort, client, server in (case.values for case in CASES):
        send(sort, client, server)  # type: ignore[arg-type]

    found = conntrack.count(CLIENT4, CLIENT6)
    counted = {source: sum(to.values()) for source, to in found.items()}
    assert counted == {CLIENT4: 7, CLIENT6: 7}


def test_all_that_there_are_count_against_what_there_may_be(
    conntrack: CtNetlink,
) -> None:
    before, most = conntrack.full()
    udp(CLIENT4, SERVER4)

    assert conntrack.full() == (before + 1, most)
    assert most > before + 1


@BOTH
def test_flush_cuts_what_an_address_opened_and_what_it_answers(
    conntrack: CtNetlink, client: Address, other: Address, server: Address
) -> None:
    udp(client, server, 1)
    udp(other, server, 2)
    udp(server, client, 3)
    udp(server, other, 4)

    conntrack.flush(client)

    left = [flow for each in (client, other, server) for flow in conntrack.flows(each)]
    assert ports(left) == [2, 4]


@pytest.mark.parametrize("count", [1, SOME, SOME + 1])
def test_flush_cuts_the_same_whether_the_kernel_can_find_flows_or_not(
    conntrack: CtNetlink, count: int
) -> None:
    """Before Linux 6.11 it cannot; of more than some addresses it is not asked to."""
    addresses = [CLIENT4, *(IPv4Address(f"10.137.9.{n}") for n in range(1, count))]
    older = CtNetlink(deletes_by_address=False)
    for each in (conntrack, older):
        udp(CLIENT4, SERVER4, 1)
        udp(OTHER4, SERVER4, 2)
        udp(SERVER4, CLIENT4, 3)

        each.flush(*addresses)

        assert set(ports(conntrack.flows(CLIENT4, OTHER4, SERVER4))) == {2}
    older.close()


def test_what_opened_them_ends_all_flows_and_no_other(
    conntrack: CtNetlink, sh: Shell
) -> None:
    for source, target, port in (
        (CLIENT4, SERVER4, 443),
        (CLIENT4, SERVER4, 443),
        (CLIENT4, SERVER4, 80),
        (CLIENT4, OTHER4, 443),
        (OTHER4, SERVER4, 443),
        (SERVER4, CLIENT4, 443),
    ):
        udp(source, target, port)
    send(SORTS["TCP"], CLIENT4, SERVER4)
    sh("ip route add 10.139.1.1/32 dev lo")
    udp(CLIENT4, VIRTUAL, 53)

    ended = (Packet(SERVER4, 17, 443), Packet(VIRTUAL, 17, 53))
    assert conntrack.end(CLIENT4, ended)

    left = [
        (flow.src, flow.dst, flow.proto, flow.port)
        for flow in conntrack.flows(CLIENT4, OTHER4, SERVER4)
    ]
    assert sorted(left, key=str) == [
        (CLIENT4, OTHER4, socket.IPPROTO_UDP, 443),
        (CLIENT4, SERVER4, socket.IPPROTO_UDP, 80),
        (CLIENT4, SERVER4, socket.IPPROTO_TCP, 443),
        (OTHER4, SERVER4, socket.IPPROTO_UDP, 443),
        (SERVER4, CLIENT4, socket.IPPROTO_UDP, 443),
    ]


def test_where_there_is_no_flow_nothing_is_judged(conntrack: CtNetlink) -> None:
    packets = iter([Packet(SERVER4, 17, 443)])

    assert conntrack.end(CLIENT4, packets)
    assert len(list(packets)) == 1


def test_what_the_kernel_cannot_find_it_ends_not(conntrack: CtNetlink) -> None:
    """Neither IPv6 nor, before Linux 6.11, anything."""
    web, web6 = (Packet(each, socket.IPPROTO_UDP, 443) for each in (SERVER4, SERVER6))
    udp(CLIENT4, SERVER4)
    udp(CLIENT6, SERVER6)

    assert not conntrack.end(CLIENT6, [web6])
    with closing(CtNetlink(deletes_by_address=False)) as older:
        assert not older.end(CLIENT4, [web])
        assert older.end(CLIENT4, [])

    assert len(list(conntrack.flows(CLIENT4, CLIENT6))) == 2


def test_flush_cuts_more_flows_than_fit_into_one_system_call(
    conntrack: CtNetlink,
) -> None:
    for port in range(1, 1501):
        udp(CLIENT4, SERVER4, port)
    assert len(list(conntrack.flows(CLIENT4))) == 1500

    conntrack.flush(CLIENT4)

    assert list(conntrack.flows(CLIENT4)) == []


@BOTH
def test_deleting_twice_is_deleting_once(
    conntrack: CtNetlink, client: Address, other: Address, server: Address
) -> None:
    udp(client, server)
    udp(other, server)
    [flow] = conntrack.flows(client)

    conntrack.delete(flow)
    conntrack.delete(flow)

    assert list(conntrack.flows(client)) == []
    assert ports(conntrack.flows(other)) == [443]


def test_a_translated_flow_says_what_was_asked_and_who_answers(
    conntrack: CtNetlink, sh: Shell
) -> None:
    sh("ip route add 10.139.1.1/32 dev lo")
    udp(CLIENT4, VIRTUAL, 53)

    [flow] = conntrack.flows(CLIENT4)

    assert (flow.dst, flow.port) == (VIRTUAL, 53)
    assert flow.answered_by == SERVER4


def test_no_root_is_needed(conntrack: CtNetlink, unprivileged: Shell) -> None:
    udp(CLIENT4, SERVER4)

    unprivileged(
        "from ipaddress import ip_address\n"
        "from agent.conntrack import CtNetlink\n"
        f"CtNetlink().flush(ip_address('{CLIENT4}'))"
    )

    assert list(conntrack.flows(CLIENT4)) == []


def ports(flows: Iterable[LiveFlow]) -> list[int]:
    return sorted(flow.port or 0 for flow in flows)
