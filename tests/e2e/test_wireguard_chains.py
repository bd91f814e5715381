# SPDX-License-Identifier: GPL-2.0-or-later
"""A tunnel in a tunnel, and firewalls before and after, each simply by ``netvm``.

::

    work -- sys-behind -- sys-inner -- sys-before -- sys-vpn -- sys-net -- internet

The inner provider (10.66.0.1, UDP 51821) is reached through the outer one alone.
"""

from collections.abc import Iterator

import pytest

from tests.e2e.machine import until
from tests.e2e.test_wireguard_ways import echoed
from tests.e2e.vpn_room import PATIENCE, PROVIDER, kill, sent
from tests.e2e.wireguard_room import IN_TUNNEL, POLICY, Room, leaked, room, tunnelled
from tests.lab.wireguard import Keys, Server, server

pytestmark = pytest.mark.kernel

INNER = "10.66.0.2"
INNER_PORT = 51821
CHAIN = """
[domains.sys-before]
personality = "firewall"
netvm = "sys-vpn"

[domains.sys-inner]
personality = "wireguard"
netvm = "sys-before"
config = "inner.conf"

[domains.sys-behind]
personality = "firewall"
netvm = "sys-inner"

[domains.work]
netvm = "sys-behind"
"""
OUTER = POLICY.partition("[domains.work]")[0]


@pytest.fixture(scope="module")
def _running() -> Iterator[tuple[Room, Server]]:
    with room(OUTER + CHAIN) as made:
        net = made.machine.internet.net
        with server(net, INNER_PORT, "10.66.0.1/24", name="wgs1") as inner:
            made.give_good()
            keys = Keys()
            inner.accept(keys.public, f"{INNER}/32")
            put(made, inner, keys)
            made.answers_from_where_it_is_asked()
            made.machine.up()
            yield made, inner
            made.machine.does("down")


@pytest.fixture
def chain(_running: tuple[Room, Server]) -> Room:
    """The chain, through which a client gets to the web."""
    made, _ = _running
    until(lambda: flows(made), PATIENCE * 4)
    return made


@pytest.fixture
def inner(_running: tuple[Room, Server]) -> Server:
    return _running[1]


def put(made: Room, inner: Server, keys: Keys) -> None:
    path = made.machine.policy.parent / "inner.conf"
    path.touch(mode=0o600)
    # Without a resolver in the tunnel, which is its provider's business.
    words = {"Address": f"{INNER}/32", "DNS": ""}
    path.write_text(inner.profile(keys, "198.51.100.80", **words))


def flows(made: Room) -> bool:
    return made.seen_from("work") == INNER


def test_clients_leave_by_the_inner_tunnel_and_bulk_fits_into_both(
    chain: Room,
) -> None:
    """The outer tunnel is what the inner one is sent by, so its packets are smaller."""
    with chain.sniffer() as seen:
        assert echoed(chain, 300_000) == 300_000

    assert leaked(seen) == []
    ends = {(str(p.destination), p.port) for p in tunnelled(seen)}
    assert ends == {(PROVIDER, chain.provider.port)}


def test_the_inner_provider_sees_the_outer_one(chain: Room, inner: Server) -> None:
    assert flows(chain)
    assert inner.peer()["endpoint"].startswith(f"{IN_TUNNEL}:")


def test_without_the_outer_tunnel_the_inner_one_sends_nothing(chain: Room) -> None:
    """And both come again with no hand."""
    with chain.sniffer() as seen:
        kill(chain.daemon())
        until(lambda: flows(chain), PATIENCE * 4)

    assert leaked(seen) == []
    assert INNER_PORT not in {p.port for p in sent(seen)}
