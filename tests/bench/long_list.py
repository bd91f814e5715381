# SPDX-License-Identifier: GPL-2.0-or-later
"""One client with a list of 10,000 rules."""

from collections.abc import Iterator
from ipaddress import IPv4Address, ip_network
from random import Random
from statistics import median

from tests.bench.changes import prepared
from tests.bench.dom0 import HANDLED
from tests.bench.figures import Figure, at_most, spread
from tests.bench.scene import Scene, address, keys_of_list

LONG = "A long list"
HERE, THERE = int(IPv4Address("11.0.0.0")), int(IPv4Address("100.0.0.0"))
SEED = 7


def mixed(dice: Random) -> str:
    """Return a rule: mostly hosts, some prefixes, few for every destination."""
    act = "accept" if dice.random() < 0.8 else "drop"
    kind, port = dice.random(), dice.randrange(1, 60_000)
    place = dice.randrange(HERE, THERE)
    net = ip_network((place, dice.choice((16, 20, 24, 24, 28))), strict=False)
    if kind < 0.6:
        proto = dice.choice(("tcp", "udp"))
        host = f"dst4={IPv4Address(place)}/32"
        return f"action={act} {host} proto={proto} dstports={port}-{port}"
    if kind < 0.8:
        return f"action={act} dst4={net} proto=tcp dstports={port}-{port + 5000}"
    if kind < 0.98:
        return f"action={act} dst4={net}"
    return f"action={act} proto=udp dstports={port}-{port}"


def hosts(dice: Random) -> str:
    """Return a rule for one port of one host."""
    host = f"dst4={IPv4Address(dice.randrange(HERE, THERE))}/32"
    return f"action=accept {host} proto=tcp dstports=443-443"


KINDS = {"mixed": mixed, "hosts only": hosts}


def long_list(scene: Scene, rules: int, rounds: int) -> Iterator[Figure]:
    """Commit the list, and then change one rule of it at a time."""
    for name, kind in KINDS.items():
        dice = Random(SEED)
        gateway = prepared(scene, f"long-{name.split()[0]}", 2)
        gateway.dom0.spawn()
        gateway.dom0.enforced(2)
        who = address(1)
        keys = keys_of_list(who, {f"{n:04}": kind(dice) for n in range(rules)})
        commit = keys.popitem()
        gateway.dom0.write(keys.items())
        first = gateway.dom0.timed([commit], f"{HANDLED}{who}")
        what = f"{rules} rules, {name}: from commit to acknowledged"
        yield at_most(LONG, what, first, "s", 1)
        taken = []
        for _ in range(rounds):
            place = f"{dice.randrange(rules):04}"
            taken.append(1000 * gateway.dom0.commit(who, {place: kind(dice)}))
        what = f"one rule of {rules} changed, {name}"
        yield at_most(LONG, what, median(taken), "ms", 50, spread(taken))
        yield Figure(LONG, f"agent's RSS, {name}", gateway.memory()[0], "MB")
        gateway.dom0.close()
