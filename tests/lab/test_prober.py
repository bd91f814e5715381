# SPDX-License-Identifier: GPL-2.0-or-later
"""The prober counts every packet, and sees a hole of a few milliseconds."""

from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from time import monotonic

import pytest

from controller.lab.addresses import WEB
from tests.lab.ends import Kind, number
from tests.lab.prober import Flood, Flow
from tests.lab.routed import Routed, ip, routed
from tests.lab.sniffer import Packet, Sniffer

pytestmark = pytest.mark.kernel

ENOUGH = 2000
FAMILIES = pytest.mark.parametrize("server", WEB, ids=["ipv4", "ipv6"])
KINDS = pytest.mark.parametrize("kind", ["tcp", "udp", "ping"])


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routed]:
    with routed(tmp_path_factory.mktemp("row")) as made:
        yield made


def cut(row: Routed) -> None:
    ip(row.internet.net, f"link set {row.port} nomaster")


def mend(row: Routed) -> None:
    ip(row.internet.net, f"link set {row.port} master lan")


def reaches(at_least: int) -> Callable[[Packet], bool]:
    return lambda packet: number(packet.raw) >= at_least


@FAMILIES
def test_a_flood_over_a_plain_router_arrives_whole(
    row: Routed, server: IPv4Address | IPv6Address
) -> None:
    with (
        Sniffer(row.internet.net, row.port) as wire,
        Flood(row.client, row.internet.net, server, 9000) as flood,
    ):
        wire.wait(reaches(ENOUGH))
    assert flood.result.sent > ENOUGH
    assert (flood.result.lost, flood.result.duplicates) == (0, 0)
    assert len(wire.marked) == flood.result.sent


def test_the_rate_of_a_flood_is_what_was_asked(row: Routed) -> None:
    with (
        Sniffer(row.internet.net, row.port) as wire,
        Flood(row.client, row.internet.net, WEB[0], 9000, rate=5000) as flood,
    ):
        wire.wait(reaches(5000))
    assert flood.result.rate > 4500


def test_what_a_router_drops_is_lost_and_leaves_a_gap(row: Routed) -> None:
    with (
        Sniffer(row.client, "eth0") as near,
        Sniffer(row.internet.net, row.port) as wire,
        Flood(row.client, row.internet.net, WEB[0], 9000) as flood,
    ):
        wire.wait(reaches(500))
        cut(row)
        begin, last = monotonic(), max(number(packet.raw) for packet in near.packets)
        # What was seen last may not be what was sent last.
        near.wait(reaches(last + 1000))
        hole = monotonic() - begin
        mend(row)
        wire.wait(reaches(last + 1500))
    assert flood.result.lost >= 500
    assert flood.result.longest_gap > hole / 2


def test_a_flood_that_never_arrives_is_one_long_gap(row: Routed) -> None:
    nowhere = IPv4Address("198.51.100.99")
    with (
        Sniffer(row.client, "eth0") as near,
        Flood(row.client, row.internet.net, nowhere, 9000, listen=WEB[0]) as flood,
    ):
        near.wait(reaches(100))
    assert flood.result.received == 0
    assert flood.result.longest_gap == flood.result.seconds


@KINDS
@FAMILIES
def test_a_flow_over_a_plain_router_has_no_gap(
    row: Routed, kind: Kind, server: IPv4Address | IPv6Address
) -> None:
    with (
        Sniffer(row.internet.net, row.port) as wire,
        Flow(row.client, kind, server) as flow,
    ):
        wire.wait(reaches(20))
    assert flow.result.sent >= 20
    assert (flow.result.lost, flow.result.broken) == (0, "")


def test_a_tcp_flow_survives_a_cut_and_shows_the_stall(row: Routed) -> None:
    with (
        Sniffer(row.client, "eth0") as near,
        Sniffer(row.internet.net, row.port) as wire,
        Flow(row.client, "tcp", WEB[0]) as flow,
    ):
        wire.wait(reaches(20))
        cut(row)
        begin, last = monotonic(), max(number(packet.raw) for packet in near.packets)
        near.wait(reaches(last + 5))
        hole = monotonic() - begin
        mend(row)
        wire.wait(reaches(last + 10))
    assert flow.result.longest_gap > hole / 2
    assert (flow.result.lost, flow.result.broken) == (0, "")


def test_a_tcp_flow_without_a_server_is_broken(row: Routed) -> None:
    with Flow(row.client, "tcp", WEB[0], 9) as flow:
        pass
    assert (flow.result.broken, flow.result.sent) == ("ECONNREFUSED", 0)


def test_an_end_that_cannot_start_says_so(row: Routed) -> None:
    elsewhere = IPv4Address("203.0.113.1")
    flood = Flood(row.client, row.internet.net, WEB[0], 9000, listen=elsewhere)
    with pytest.raises(RuntimeError, match="count"), flood:
        raise AssertionError
