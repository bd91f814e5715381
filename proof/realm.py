# SPDX-License-Identifier: GPL-2.0-or-later
"""All domains for one IP version, and where packets end up among them.

What a domain sends through its uplink comes to the next one.  What that one does
is said in terms of the packet as it came to the first: the diagrams of all domains
are of one space.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from proof.arrival import Entry
from proof.diagram import Node, OverrunError
from proof.fields import DST, NEW, layout
from proof.hooks import Hooks, Stop
from proof.machine import TOO_MANY, Common, Machine
from proof.memory import steady, unchanged
from proof.passage import Passage
from proof.policy import accepted
from proof.relabel import relabel
from proof.space import Space
from proof.substitute import substitute
from proof.view import FIRST_BYTE, FRAME_SOURCE, TIME
from proof.way_out import Sent
from proof.world import World
from rules.ground import Ground

_HOPS = 16


class Where(Enum):
    """Where packets end up."""

    GONE = "gone"
    HERE = "delivered to the domain itself"
    CARRIED = "carried by the domain"
    CLIENT = "at another client"
    OUT = "out of the machine"


@dataclass(frozen=True, slots=True)
class Fate:
    """Where a packet ends up: at which domain, which way.

    ``name`` is the client's of `Where.CLIENT`.  ``passed`` are the domains that
    have forwarded it.
    """

    where: Where
    domain: str = ""
    interface: str = ""
    name: str = ""
    passed: frozenset[str] = frozenset()


GONE = Fate(Where.GONE)


@dataclass(frozen=True, slots=True)
class Door:
    """Where packets come in, and how: see `proof.passage.Entry`."""

    domain: str
    interface: str
    ct: int = NEW
    any_route: bool = False


@dataclass(slots=True)
class Realm:
    """The domains of a world for one IP version."""

    world: World
    version: int
    space: Space
    doubts: dict[int, str] = field(default_factory=dict)
    passages: dict[str, Passage] = field(default_factory=dict)
    memo: dict[Door, Node] = field(default_factory=dict)
    sending: dict[Node, Node] = field(default_factory=dict)
    astray: dict[tuple[str, Node], Node] = field(default_factory=dict)
    accepting: dict[int, tuple[Ground, Node]] = field(default_factory=dict)
    looked: dict[tuple[bool, Door], Node] = field(default_factory=dict)
    steady: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Put the fields of packets in their order."""
        layout(self.version, (), self.space)
        for name, width in ((FIRST_BYTE, 8), (TIME[self.version], 8)):
            self.space.field(name, width)
        self.space.field(FRAME_SOURCE, 48)

    def after(self, world: World) -> "Realm":
        """Return the realm of a later world, which knows what still holds."""
        new = Realm(world, self.version, self.space, self.doubts)
        new.accepting, new.sending = self.accepting, self.sending
        for name, old in self.passages.items():
            if name in world.places and steady(
                self.world.places[name], world.places[name]
            ):
                new.passages[name] = new.passage_after(name, old)
                new.steady |= {name}
        return new

    def passage_after(self, domain: str, old: Passage) -> Passage:
        """Return the way through a domain of which only nf_tables is another."""
        net, before = self.world.places[domain].net, old.hooks.net
        machine = self._machine(domain)
        machine.adopt(old.hooks.machine, unchanged(before.bytecode, net.bytecode))
        hooks = Hooks(net, self.version, old.hooks.common, machine, old.hooks)
        return Passage(hooks, older=old)

    def _machine(self, domain: str) -> Machine:
        net = self.world.places[domain].net
        common = Common(self.space, self.doubts, domain)
        return Machine(net.bytecode, net.routing, self.version, common)

    def passage(self, domain: str) -> Passage:
        """Return the way through one domain."""
        if domain not in self.passages:
            net = self.world.places[domain].net
            common = Common(self.space, self.doubts, domain)
            hooks = Hooks(net, self.version, common, self._machine(domain))
            self.passages[domain] = Passage(hooks)
        return self.passages[domain]

    def accepts(self, ground: Ground) -> Node:
        """Return the packets that a list accepts."""
        key = id(ground)
        if key not in self.accepting:
            self.accepting[key] = ground, accepted(self.space, ground, DST)
        return self.accepting[key][1]

    def index(self, domain: str, interface: str) -> int | None:
        """Return the index of an interface of a domain, None if it has none such."""
        for link in self.world.places[domain].net.routing.links:
            if link.name == interface:
                return link.index
        return None

    def arrive(self, door: Door) -> Node:
        """Return `Sent` or `Stop` for each packet at one domain.

        Through an interface that is not there nothing comes.
        """
        index = self.index(door.domain, door.interface)
        if index is None:
            return self.space.leaf(Stop.DROPPED)
        entry = Entry(index, door.ct, door.any_route)
        found = self.passage(door.domain).arrive(entry)
        self.looked[False, door] = found
        return found

    def sent(self, door: Door) -> Node:
        """Return the packets that one domain sends on."""
        node = self.arrive(door)
        if node not in self.sending:
            self.sending[node] = relabel(
                self.space, node, lambda value: isinstance(value, Sent)
            )
        return self.sending[node]

    def aside(self, door: Door) -> Node:
        """Return those that it sends by an interface of which nobody has told."""
        place, node = self.world.places[door.domain], self.arrive(door)
        known = {*place.uplinks, *place.clients, *(place.carriers or ()), "lo"}
        if all(link.name in known for link in place.net.routing.links):
            return self.space.false

        def lost(value: Hashable) -> bool:
            names = self.passage(door.domain).hooks.links
            return isinstance(value, Sent) and names[value.oif].name not in known

        key = (door.domain, node)
        if key not in self.astray:
            self.astray[key] = relabel(self.space, node, lost)
        return self.astray[key]

    def fate(self, door: Door, hops: int = 0) -> Node:
        """Return a `Fate` for each packet, through all domains on its way."""
        if hops > _HOPS:
            raise OverrunError(f"more than {_HOPS} domains in a row")
        if door not in self.memo:
            self.memo[door] = self._fate(door, hops)
        self.looked[True, door] = self.memo[door]
        return self.memo[door]

    def _fate(self, door: Door, hops: int) -> Node:
        carried = self.world.places[door.domain].carriers is not None

        def end(value: Hashable) -> Hashable | Node:
            match value:
                case Stop.HERE:
                    return Fate(Where.HERE, door.domain)
                case Stop.HANDED_OVER:
                    whose = Where.CARRIED if carried else Where.HERE
                    return Fate(whose, door.domain)
                case Sent() as sent:
                    return self._beyond(door, sent, hops)
                case _:
                    return GONE

        return relabel(self.space, self.arrive(door), end)

    def still(self, looked: Mapping[tuple[bool, Door], Node]) -> bool:
        """Return whether these doors lead to the same as before."""
        looks = {True: self.fate, False: self.arrive}
        return all(looks[far](door) is node for (far, door), node in looked.items())

    def within_limits(self, node: Node) -> Node:
        """Return what becomes of packets that no limit finds to be too many."""
        limits = [n for n, text in self.doubts.items() if text.endswith(TOO_MANY)]
        return substitute(self.space, node, dict.fromkeys(limits, 0).get)

    def name(self, domain: str, index: int) -> str:
        """Return the name of an interface."""
        return self.passage(domain).hooks.links[index].name

    def _beyond(self, door: Door, sent: Sent, hops: int) -> Hashable | Node:
        place = self.world.places[door.domain]
        name = self.name(door.domain, sent.oif)
        passed = frozenset({door.domain})
        if name in (place.carriers or ()):
            return Fate(Where.CARRIED, door.domain, name, passed=passed)
        if name in place.clients:
            other = place.clients[name].name
            return Fate(Where.CLIENT, door.domain, name, other, passed)
        onward = next(
            (
                replace(door, domain=domain, interface=vif)
                for domain, vif in self.world.doors(door.domain)
                if domain == place.uplinks.get(name)
            ),
            None,
        )
        if onward is None:
            return Fate(Where.OUT, door.domain, name, passed=passed)

        def further(value: Hashable) -> Hashable:
            match value:
                case Fate(Where.GONE):
                    return GONE  # wherever that was, or it would not be equal
                case Fate(passed=before) as fate:
                    return replace(fate, passed=before | passed)
                case _:
                    return value

        # The next domain sees the packet as this one sends it.
        there = relabel(self.space, self.fate(onward, hops + 1), further)
        return self.passage(door.domain).hooks.viewer.seen(there, sent.view)
