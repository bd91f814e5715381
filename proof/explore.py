# SPDX-License-Identifier: GPL-2.0-or-later
"""Questions to a diagram: what it says of a packet, who is left, how many."""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from math import prod

from proof.diagram import Branch, Leaf, Node, cells, child_at
from proof.space import Space

MEMBER: Hashable = True
"""What a set says of the packets in it."""

Point = Mapping[str, int]
"""A packet: field name to number."""


def value_at(space: Space, node: Node, point: Point) -> Hashable:
    """Return what the diagram says of one packet; fields not named are 0."""
    while isinstance(node, Branch):
        node = child_at(node, point.get(space.names[node.level], 0))
    return node.value


def possible_at(
    space: Space, node: Node, point: Point
) -> dict[Hashable, frozenset[int]]:
    """Return every value that one packet may get; fields not named are not known.

    With each come the levels of the fields that have to be something other than
    0 for it; the first needs none.
    """
    found: dict[Hashable, frozenset[int]] = {}
    waiting: list[tuple[Node, frozenset[int]]] = [(node, frozenset())]
    while waiting:
        item, needed = waiting.pop()
        if isinstance(item, Leaf):
            found.setdefault(item.value, needed)
            continue
        name = space.names[item.level]
        if name in point:
            waiting.append((child_at(item, point[name]), needed))
            continue
        first, *others = item.children
        waiting += ((child, needed | {item.level}) for child in others)
        waiting.append((first, needed))
    return found


def leaves(node: Node) -> frozenset[Hashable]:
    """Return every value that some packet gets."""
    return frozenset(n.value for n in _all(node) if isinstance(n, Leaf))


def fields_of(node: Node) -> frozenset[int]:
    """Return the levels of the fields that matter."""
    return frozenset(n.level for n in _all(node) if isinstance(n, Branch))


def _all(node: Node) -> set[Node]:
    found = {node}
    waiting = [node]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Branch):
            fresh = set(item.children) - found
            found |= fresh
            waiting += fresh
    return found


def project(
    space: Space,
    node: Node,
    levels: Collection[int],
    join: Callable[[Node, Node], Node],
) -> Node:
    """Return a set without some fields.

    `Space.either` as ``join``: packets for which some number in these fields is
    in the set; `Space.both`: those for which every number is.
    """
    memo: dict[Node, Node] = {}

    def visit(item: Node) -> Node:
        if isinstance(item, Leaf):
            return item
        if item not in memo:
            children = [*map(visit, item.children)]
            memo[item] = (
                space.fold(join, dict.fromkeys(children), space.false)
                if item.level in levels
                else space.branch(item.level, item.bounds, children)
            )
        return memo[item]

    return visit(node)


def pick(
    space: Space,
    node: Node,
    wanted: Hashable = MEMBER,
    liked: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, int] | None:
    """Return a packet that gets this value, or None if there is none.

    ``liked`` has numbers to prefer for a field, the best first.
    """
    dead: set[Node] = set()
    chosen: dict[str, int] = {}

    def visit(item: Node) -> bool:
        if isinstance(item, Leaf):
            return item.value == wanted and type(item.value) is type(wanted)
        if item in dead:
            return False
        name = space.names[item.level]
        order = [
            *(liked or {}).get(name, ()),
            *(first for (first, _), _ in cells(item)),
        ]
        for number in order:
            if visit(child_at(item, number)):
                chosen[name] = number
                return True
        dead.add(item)
        return False

    if not visit(node):
        return None
    rest = {name: numbers[0] for name, numbers in (liked or {}).items() if numbers}
    return {name: chosen.get(name, rest.get(name, 0)) for name in space.names}


def count(space: Space, node: Node, wanted: Hashable = MEMBER) -> int:
    """Return how many packets get this value."""
    memo: dict[Node, int] = {}
    end = len(space.names)

    def below(item: Node, level: int) -> int:
        upto = end if isinstance(item, Leaf) else item.level
        return visit(item) * prod(top + 1 for top in space.tops[level:upto])

    def visit(item: Node) -> int:
        if isinstance(item, Leaf):
            same = item.value == wanted and type(item.value) is type(wanted)
            return int(same)
        if item not in memo:
            memo[item] = sum(
                (last - first + 1) * below(child, item.level + 1)
                for (first, last), child in cells(item)
            )
        return memo[item]

    return below(node, 0)


def unreachable(space: Space, rules: Iterable[Node]) -> tuple[int, ...]:
    """Return the places of the sets that are covered by those before them."""
    named = [space.only(rule, space.leaf(place)) for place, rule in enumerate(rules)]
    deciding = leaves(space.fold(space.over, named, space.nothing))
    return tuple(place for place in range(len(named)) if place not in deciding)
