# SPDX-License-Identifier: GPL-2.0-or-later
"""What a proof costs: the whole of a large gateway, a chain, one change, one answer.

Processor time, so that other programs do not count; the kernels are real, and so are
the rules in them.
"""

import gc
import resource
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_network
from itertools import count
from pathlib import Path
from random import Random
from statistics import median
from time import process_time

from controller import namespaces
from proof import snapshot
from proof.claims import (
    Asserted,
    Claim,
    Expect,
    NoLessThanList,
    NoMoreThanList,
    Status,
    implied,
)
from proof.verify import Prover
from proof.walk import Walker
from proof.world import Client, Packet, Place, World
from rules import routing
from rules.compile import compile_client
from rules.facts import Client as Vif
from rules.facts import Facts, Uplink
from rules.flows import BY_RULES, CLIENT_DNS
from rules.ground import Ground, ground
from rules.guard import GUARD_TEXT, uplink_guard
from rules.model import Action, Family, Network, Policy, Ports, Proto, Rule
from rules.objects import Key, Object
from rules.pace import USUAL, pace
from rules.ruleset import ruleset
from rules.skeleton import SKELETON_TEXT
from rules.transaction import difference
from tests.bench.figures import Figure, at_most
from tests.bench.scene import CLIENT_MAC, VIF_MAC, Scene, address, lay, vif
from tests.bench.traffic import ip, nft

PROOF = "Proofs"
OWN, BEHIND = IPv4Address("192.0.2.2"), IPv4Address("192.0.2.1")
V4 = (4,)
_numbers = count(1)


def random_list(dice: Random, rules: int) -> Ground:
    """Return a list of hosts and networks, most of them accepted."""
    found = []
    for _ in range(rules):
        number = dice.getrandbits(29) + (1 << 30)
        network = ip_network((number, dice.choice([32, 32, 24, 16])), strict=False)
        port = dice.choice([22, 53, 80, 443, 8000])
        ports = Ports(port, port + dice.choice([0, 0, 100]))
        action = dice.choice([*[Action.ACCEPT] * 4, Action.DROP])
        proto = dice.choice([Proto.TCP, Proto.UDP])
        found.append(Rule(action, Network(network), proto, ports=ports))
    return ground(Policy(tuple(found)), Family.IPV4, {}, frozenset(), 0)


EVERYTHING = ground(Policy((), Action.ACCEPT), Family.IPV4, {}, frozenset(), 0)


@dataclass(slots=True)
class Loaded:
    """A gateway whose kernel has the rules of its clients, without an agent."""

    net: Path
    clients: Mapping[str, Client]
    uplinks: Mapping[str, str | None]

    def place(self) -> Place:
        """Read the kernel."""
        with namespaces.inside(self.net):
            return Place(snapshot.here(), self.clients, self.uplinks)


def gateway(
    scene: Scene, lists: Sequence[Ground], behind: str | None, first: str = ""
) -> Loaded:
    """Load a gateway; its only client is ``first``, or they are numbered.

    Each gateway that is loaded is a client of the next one.
    """
    number = next(_numbers)
    name, here = f"p{number}", OWN + number
    net, far = scene.net(name), scene.net(f"{name}far")
    numbers = range(1, len(lists) + 1)
    lay(net, far, list(numbers))
    scene.uplink(net, "eth0", far, "gw0", CLIENT_MAC, VIF_MAC)
    ip(far, "link set gw0 up")
    ip(net, *(f"link set {vif(n)} group 2 up" for n in numbers), "link set eth0 up")
    ip(net, f"address add {here}/24 dev eth0")
    for interface in ("all", "eth0", *map(vif, numbers)):
        key = f"/proc/sys/net/ipv4/conf/{interface}/forwarding"
        with namespaces.inside(net):
            Path(key).write_text("1")
    with namespaces.inside(net):
        index = {link.name: link.index for link in snapshot.here().routing.links}
    own = {n: here - 1 if first else IPv4Address(address(n)) for n in numbers}
    vifs = tuple(Vif(vif(n), index[vif(n)], CLIENT_MAC, own[n]) for n in numbers)
    uplink = Uplink("eth0", index["eth0"], frozenset({here}), gateways=(BEHIND,))
    facts = Facts(vifs, (uplink,), connected=frozenset(own.values()))
    load(net, index, facts, dict(zip(vifs, lists, strict=True)))
    clients = {
        client.vif: Client(first or client.vif, (client.ip,), CLIENT_MAC)
        for client in vifs
    }
    return Loaded(net, clients, {"eth0": behind})


def load(
    net: Path, index: Mapping[str, int], facts: Facts, lists: Mapping[Vif, Ground]
) -> None:
    """Put rules and routes into a kernel as an agent would."""
    allowed = frozenset({BY_RULES, CLIENT_DNS})
    objects: dict[Key, Object] = dict(ruleset(allowed, facts))
    for client, wanted in lists.items():
        objects.update(compile_client(client.ip, wanted))
    nft(net, SKELETON_TEXT + GUARD_TEXT + pace(USUAL) + uplink_guard("eth0"))
    nft(net, difference(None, objects))
    names = {number: name for name, number in index.items()}
    wanted_routes = routing.routing(allowed, facts)
    lines = []
    for rule in wanted_routes.rules:
        if rule.family is Family.IPV4:
            iif = f"iif {rule.iif} " if rule.iif else ""
            does = "unreachable" if rule.table is None else f"lookup {rule.table}"
            lines.append(f"rule add pref {rule.priority} {iif}{does}")
    for route in (r for each in wanted_routes.routes.values() for r in each):
        via = f"via {route.gateway} " if route.gateway else ""
        to = f"{route.prefix} {via}dev {names[route.index]}"
        lines.append(f"route add {to} table {route.table} metric {route.metric}")
    ip(net, *lines)


def proved(prover: Prover, world: World, claims: Sequence[Claim]) -> float:
    """Return the seconds a proof takes; RuntimeError if it is none."""
    begin = process_time()
    for result in prover.prove(world, claims, V4):
        if result.status is not Status.PROVED or result.packet is None:
            raise RuntimeError(f"{result.claim}: {result.status} {result.notes}")
    return process_time() - begin


def large(scene: Scene, clients: int, rules: int) -> Iterator[Figure]:
    """Prove that the lists of a large gateway are what its kernel does."""
    dice = Random(1)
    lists = [random_list(dice, rules) for _ in range(clients)]
    loaded = gateway(scene, lists, None)
    begin = process_time()
    place = loaded.place()
    read = process_time() - begin
    wanted = {vif(n): {4: each} for n, each in enumerate(lists, 1)}
    claims = claims_of(World({"gateway": place}), wanted)
    what = f"{clients} clients with {rules} rules each: "
    prover = Prover()
    whole = proved(prover, World({"gateway": place}), claims)
    note = f"{len(claims)} claims; reading the kernel took {read:.2f} s"
    yield at_most(
        PROOF, what + "every list is what the kernel does", whole, "s", 4, note
    )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000 * 1.024
    yield at_most(PROOF, what + "memory at most", memory, "MB", 300)
    entry = "q_" + address(1).replace(".", "-")
    rule = "ip daddr 203.0.113.9 udp dport 53 drop"
    nft(loaded.net, f"insert rule ip qubes {entry} {rule}")
    changed = World({"gateway": loaded.place()})
    first = lists[0].matches
    drop = ground(
        Policy(
            (
                Rule(
                    Action.DROP,
                    Network(ip_network("203.0.113.9/32")),
                    Proto.UDP,
                    ports=Ports(53, 53),
                ),
            )
        ),
        Family.IPV4,
        {},
        frozenset(),
        0,
    )
    wanted[vif(1)] = {4: Ground((*drop.matches, *first), lists[0].default)}
    gc.collect()  # what the first proof left behind
    again = proved(prover, changed, claims_of(changed, wanted))
    yield at_most(PROOF, what + "after a change of one", again, "s", 0.3)


def claims_of(world: World, lists: Mapping[str, Mapping[int, Ground]]) -> list[Claim]:
    """Return what says that policy and kernel are the same."""
    kinds = NoMoreThanList, NoLessThanList
    return [claim for claim in implied(world, lists) if isinstance(claim, kinds)]


def chain(scene: Scene, clients: int, rules: int, hops: int) -> Iterator[Figure]:
    """Prove every claim about a chain of gateways, and follow packets through it."""
    dice = Random(2)
    lists = [random_list(dice, rules) for _ in range(clients)]
    names = [f"hop{n}" for n in range(1, hops + 1)]
    loaded = {names[0]: gateway(scene, lists, names[1])}
    for before, name, after in zip(names, names[1:], [*names[2:], None], strict=False):
        loaded[name] = gateway(scene, [EVERYTHING], after, before)
    world = World({name: each.place() for name, each in loaded.items()})
    wanted = {vif(n): {4: each} for n, each in enumerate(lists, 1)}
    wanted |= {name: {4: EVERYTHING} for name in names[:-1]}
    claims = list(implied(world, wanted, (ip_network(f"{OWN}/24", strict=False),)))
    claims += [Asserted(vif(n), expect=names[-1]) for n in range(1, clients + 1)]
    claims += [
        Asserted(
            vif(n),
            (ip_network("203.0.113.0/24"),),
            expect=Expect.BLOCKED,
        )
        for n in range(1, clients + 1)
    ]
    what = f"{clients} clients with {rules} rules each through {hops} domains: "
    seconds = proved(Prover(), world, claims)
    note = f"{len(claims)} claims"
    yield at_most(PROOF, what + "everything", seconds, "s", 1, note)
    walker, taken = Walker(world), []
    for n in range(1, clients + 1):
        source = IPv4Address(address(n))
        for port in range(10):
            packet = Packet(source, OWN + 900, 6, 40000 + port, 443, CLIENT_MAC)
            begin = process_time()
            walker.walk(vif(n), packet)
            taken.append(process_time() - begin)
    warm = 1000 * median(taken[len(taken) // 2 :])
    yield at_most(PROOF, what + "explain one packet", warm, "ms", 50)
