# SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing of a client leaves a TorVM but through tor: proved from the live kernels."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller import namespaces
from controller.addresses import MAC
from proof import snapshot
from proof.claims import Asserted, Claim, Expect, OnlyThrough, OwnOf, Result, Status
from proof.snapshot import Snapshot
from proof.verify import Prover
from proof.world import Client, Place, World
from tests.tor.chain import TorChain

pytestmark = pytest.mark.kernel


def taken(tor: TorChain, domain: str) -> Snapshot:
    with namespaces.inside(tor.net(domain)):
        return snapshot.here()


def world(tor: TorChain) -> World:
    net = taken(tor, "sys-tor")
    names = {link.index: link.name for link in net.routing.links}
    clients = {
        names[index]: Client(name, tor.ip(name), MAC)
        for name in ("anon", "anon2", "picky")
        for route in net.routing.routes
        if str(tor.ip(name)[0]) == str(route.prefix.network_address)
        for index in route.interfaces
    }
    return World({"sys-tor": Place(net, clients, {"eth0": None}, frozenset())})


def user(tor: TorChain) -> int:
    """Return the uid of the tor that runs."""
    return Path(f"/proc/{tor.process('/usr/bin/tor')}").stat().st_uid


@contextmanager
def changed(tor: TorChain, rule: str) -> Iterator[World]:
    """Give the world with one more rule, which is gone afterwards."""
    before = tor.run("sys-tor", "nft", "list", "ruleset")
    agent = tor.agent("sys-tor")
    os.kill(agent, signal.SIGSTOP)  # or it would put it back
    try:
        tor.run("sys-tor", "nft", "-f", "-", feed=rule)
        found = world(tor)
        tor.run("sys-tor", "nft", "-f", "-", feed=f"flush ruleset\n{before}")
    finally:
        os.kill(agent, signal.SIGCONT)
    yield found


def answered(where: World, *claims: Claim) -> list[Result]:
    return list(Prover().prove(where, claims))


def test_nothing_leaves_but_through_tor_for_any_routing_table(tor: TorChain) -> None:
    through = OnlyThrough("anon", "sys-tor")
    own = OwnOf("sys-tor", frozenset({user(tor)}))

    results = answered(world(tor), through, own)

    assert [result.status for result in results] == [Status.PROVED] * 4
    assert all(result.packet is not None for result in results)


def test_tcp_and_names_are_taken_in_and_nothing_else(tor: TorChain) -> None:
    tcp, icmp = frozenset({6}), frozenset({1, 47, 132})
    claims = (
        Asserted("anon", (), icmp, None, Expect.BLOCKED),
        Asserted("anon", (), tcp, None, Expect.BLOCKED),
    )

    blocked, refuted = list(Prover().prove(world(tor), claims, (4,)))

    assert blocked.status in {Status.PROVED, Status.POSSIBLE}  # but a ping of the gate
    assert refuted.status is Status.REFUTED
    assert [hop.verdict for hop in refuted.hops] == ["delivered"]


def test_a_user_that_may_also_send_is_found(tor: TorChain) -> None:
    rules = (
        "insert rule ip qubes output meta skuid 4242 accept\n"
        "insert rule netdev ravelin-guard egress-eth0 meta skuid 4242 accept"
    )
    with changed(tor, rules) as where:
        four = answered(where, OwnOf("sys-tor", frozenset({user(tor)})))[0]

    assert four.status is Status.REFUTED
    assert four.packet is not None
    assert four.packet.fields["uid"] == 4242
