# SPDX-License-Identifier: GPL-2.0-or-later
"""Links are configured once, after what guards them, and again when they differ."""

from dataclasses import replace
from errno import ENODEV
from ipaddress import IPv4Address, ip_address

import pytest

from agent.network import Network
from agent.ports import FirewallError, NetlinkError
from rules.facts import (
    CLIENT_GROUP,
    UPLINK_GROUP,
    Client,
    Facts,
    Gateway,
    Tunnel,
    Uplink,
)
from rules.flows import BY_RULES, PING
from rules.routing import routing
from tests.agent.fakes import FakeFirewall, FakeLinks

OPEN, BLOCKED = frozenset({PING, BY_RULES}), frozenset({PING})
MAC = "00:16:3e:5e:6c:00"
A, B = (
    Client(f"vif{n}.0", 10 + n, MAC, ip_address(f"10.137.0.{n}"))  # type: ignore[arg-type]
    for n in (1, 2)
)
ETH0 = Uplink("eth0", 2, frozenset({ip_address("10.137.0.9")}))
GATEWAYS = (ip_address("10.137.0.9"),)
FACTS = Facts((A, B), (ETH0,), configured=True)


@pytest.fixture
def effects() -> list[str]:
    return []


@pytest.fixture
def links(effects: list[str]) -> FakeLinks:
    made = FakeLinks(effects)
    for name, index in (("eth0", 2), ("vif1.0", 11), ("vif2.0", 12)):
        made.appear(name, index)
    return made


@pytest.fixture
def firewall(effects: list[str]) -> FakeFirewall:
    return FakeFirewall(effects)


@pytest.fixture
def network(links: FakeLinks, firewall: FakeFirewall) -> Network:
    return Network(links, firewall)


def test_routing_comes_before_links_are_up(
    network: Network, links: FakeLinks, effects: list[str]
) -> None:
    network.apply(OPEN, FACTS, GATEWAYS)

    assert effects == ["route", "up eth0", "route", "up vif1.0", "up vif2.0"]
    assert links.routing == routing(OPEN, FACTS)
    assert links.attached == [(A, GATEWAYS), (B, GATEWAYS)]


@pytest.mark.parametrize("pinned", [True, False])
def test_an_uplink_that_dom0_configures_is_configured(
    links: FakeLinks, firewall: FakeFirewall, *, pinned: bool
) -> None:
    Network(links, firewall, pin_gateway=pinned).apply(OPEN, FACTS, GATEWAYS)

    assert links.connected == [(ETH0, pinned)]
    assert links.adopted == []


def test_an_uplink_that_somebody_else_configures_is_left_to_them(
    network: Network, links: FakeLinks
) -> None:
    network.apply(OPEN, replace(FACTS, configured=False), GATEWAYS)

    assert links.adopted == [ETH0]
    assert links.connected == []


def test_the_same_again_does_nothing(network: Network, effects: list[str]) -> None:
    network.apply(OPEN, FACTS, GATEWAYS)
    effects.clear()

    network.apply(OPEN, FACTS, GATEWAYS)

    assert effects == []


def test_a_new_look_makes_the_routing_right_again(
    network: Network, effects: list[str]
) -> None:
    """Somebody else may have changed it."""
    network.apply(OPEN, FACTS, GATEWAYS)
    effects.clear()

    network.apply(OPEN, replace(FACTS), GATEWAYS)

    assert effects == ["route"]


CHANGES = {
    "a client that is new": (
        replace(FACTS, clients=(A, B, replace(A, vif="vif3.0", index=13))),
        ["route", "up vif3.0"],
    ),
    "a vif created anew": (
        replace(FACTS, clients=(replace(A, index=21), B)),
        ["route", "up vif1.0"],
    ),
    "a client with another address": (
        replace(FACTS, clients=(replace(A, ip=IPv4Address("10.137.0.7")), B)),
        ["route", "up vif1.0"],
    ),
    "a client that is gone": (replace(FACTS, clients=(B,)), ["route"]),
    "an uplink created anew": (
        replace(FACTS, uplinks=(replace(ETH0, index=3),)),
        ["route", "up eth0", "route"],
    ),
    "an uplink with another address": (
        replace(FACTS, uplinks=(replace(ETH0, own=frozenset()),)),
        ["route", "up eth0", "route"],
    ),
    "an uplink that is gone": (replace(FACTS, uplinks=()), ["route"]),
}


@pytest.mark.parametrize(("after", "wanted"), CHANGES.values(), ids=CHANGES)
def test_only_what_differs_is_configured(
    network: Network,
    links: FakeLinks,
    effects: list[str],
    after: Facts,
    wanted: list[str],
) -> None:
    links.appear("vif3.0", 13)
    network.apply(OPEN, FACTS, GATEWAYS)
    effects.clear()

    network.apply(OPEN, after, GATEWAYS)

    assert effects == wanted
    assert links.routing == routing(OPEN, after)


def test_a_client_that_comes_back_is_configured_again(
    network: Network, effects: list[str]
) -> None:
    for facts in (FACTS, replace(FACTS, clients=(B,))):
        network.apply(OPEN, facts, GATEWAYS)
    effects.clear()

    network.apply(OPEN, replace(FACTS), GATEWAYS)

    assert effects == ["route", "up vif1.0"]


def test_a_tunnel_that_is_no_way_out_any_more_is_set_down(
    network: Network, links: FakeLinks, effects: list[str]
) -> None:
    """And up again, configured anew, when it is one."""
    links.appear("tun9", 9)
    own = frozenset({ip_address("10.8.0.2")})
    tunnel = Tunnel("tun9", 9, own, frozenset(), 1400)
    for way in (tunnel, tunnel, None, None, tunnel):
        network.apply(OPEN, replace(FACTS, kind=Gateway.TUNNEL, tunnel=way), GATEWAYS)

    about = [effect for effect in effects if "tun9" in effect]
    assert about == ["tunnel tun9", "down tun9", "tunnel tun9"]


def test_another_state_changes_the_routing_alone(
    network: Network, links: FakeLinks, effects: list[str]
) -> None:
    network.apply(BLOCKED, FACTS, GATEWAYS)
    effects.clear()

    network.apply(OPEN, FACTS, GATEWAYS)

    assert effects == ["route"]
    assert links.routing == routing(OPEN, FACTS)


def test_gateways_that_come_later_reach_every_vif(
    network: Network, links: FakeLinks
) -> None:
    network.apply(OPEN, FACTS, ())
    network.apply(OPEN, FACTS, GATEWAYS)

    assert links.attached[2:] == [(A, GATEWAYS), (B, GATEWAYS)]


@pytest.mark.parametrize("name", ["route", "eth0", "vif1.0", "vif2.0"])
def test_what_fails_is_done_again(
    network: Network, links: FakeLinks, effects: list[str], name: str
) -> None:
    links.refuses[name] = NetlinkError(ENODEV, "gone")
    with pytest.raises(NetlinkError):
        network.apply(OPEN, FACTS, GATEWAYS)

    links.refuses.clear()
    network.apply(OPEN, FACTS, GATEWAYS)

    assert {"up eth0", "up vif1.0", "up vif2.0"} <= set(effects)
    assert links.routing == routing(OPEN, FACTS)


def test_a_vif_that_fails_holds_up_no_other(network: Network, links: FakeLinks) -> None:
    links.refuses["vif1.0"] = NetlinkError(ENODEV, "gone")

    with pytest.raises(NetlinkError):
        network.apply(OPEN, FACTS, GATEWAYS)

    assert links.attached == [(B, GATEWAYS)]


def test_newcomers_are_those_in_no_group_yet(
    network: Network, links: FakeLinks
) -> None:
    links.appear("vif2.0", 12, CLIENT_GROUP)
    links.appear("eth0", 2, UPLINK_GROUP)
    gone = replace(A, vif="vif7.0", index=17)

    assert network.newcomers(replace(FACTS, clients=(A, B, gone))) == (A,)


def test_every_uplink_gets_its_guard_once(
    network: Network, firewall: FakeFirewall
) -> None:
    both = replace(FACTS, uplinks=(replace(ETH0, name="eth1", index=3), ETH0))

    for facts in (both, both, replace(both)):
        network.guard(facts)

    assert ["egress-eth0" in s for s in firewall.loads] == [True, False]
    assert ["egress-eth1" in s for s in firewall.loads] == [False, True]


def test_a_device_created_anew_gets_its_guard_anew(
    network: Network, firewall: FakeFirewall
) -> None:
    """The kernel removes the chain together with the device."""
    for uplinks in ((ETH0,), (), (ETH0,), (replace(ETH0, index=3),)):
        network.guard(replace(FACTS, uplinks=uplinks))

    assert len(firewall.loads) == 3


def test_a_refused_guard_is_loaded_again(
    network: Network, firewall: FakeFirewall
) -> None:
    firewall.refuses = lambda _: True
    with pytest.raises(FirewallError):
        network.guard(FACTS)

    firewall.refuses = lambda _: False
    network.guard(FACTS)

    assert len(firewall.loads) == 1


def test_guards_that_are_not_taken_for_granted_are_loaded_again(
    network: Network, firewall: FakeFirewall
) -> None:
    network.guard(FACTS)
    network.unguard()
    network.guard(FACTS)

    assert len(firewall.loads) == 2


def test_an_uplink_that_fell_unseen_is_configured_anew(
    network: Network, links: FakeLinks
) -> None:
    """Down and up between two looks: the kernel forgot its addresses all the same."""
    network.apply(OPEN, FACTS, GATEWAYS)
    links.links["eth0"] = replace(links.links["eth0"], falls=1)

    network.apply(OPEN, replace(FACTS), GATEWAYS)
    network.apply(OPEN, replace(FACTS), GATEWAYS)

    assert links.connected == [(ETH0, False)] * 2


def test_an_uplink_is_left_down_and_a_tunnel_is_not(
    network: Network, links: FakeLinks
) -> None:
    """Who sets an uplink down means it; the tunnel is the agent's own."""
    links.appear("wg0", 7)
    tunnel = Tunnel("wg0", 7, ETH0.own, frozenset(), 1420)
    facts = replace(FACTS, kind=Gateway.TUNNEL, tunnel=tunnel)
    network.apply(OPEN, facts, GATEWAYS)
    for name in ("eth0", "wg0"):
        links.links[name] = replace(links.links[name], up=False, falls=1)

    network.apply(OPEN, replace(facts), GATEWAYS)

    assert links.connected == [(ETH0, False)]
    assert links.tunnels == [(tunnel, frozenset())] * 2
