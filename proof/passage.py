# SPDX-License-Identifier: GPL-2.0-or-later
"""All ways through one place, and which of them a change of its rules left alone."""

from collections.abc import Hashable
from dataclasses import dataclass, field, replace

from proof.arrival import UNMARKED, Arrival, Entry
from proof.bytecode import Chain, Family
from proof.diagram import Branch, Node, child_at
from proof.fields import CT, ESTABLISHED, IIF, IPV4, RELATED
from proof.hooks import EGRESS, OUTPUT, Hooks
from proof.outcome import Env
from proof.substitute import substitute


@dataclass(slots=True)
class Passage:
    """One place for one IP version."""

    hooks: Hooks
    memo: dict[Entry, Node] = field(default_factory=dict)
    older: "Passage | None" = None
    seen: dict[int, Hashable] = field(default_factory=dict)
    alike: bool | None = None

    def __post_init__(self) -> None:
        """Remember one earlier passage, and not those before it."""
        if self.older is not None:
            self.older.older = None

    def arrive(self, entry: Entry) -> Node:
        """Return `Sent` or `Stop` for each packet that comes in."""
        old = self.older
        if (
            old is not None
            and entry not in self.memo
            and entry in old.memo
            and old.sees(entry.iif) == self.sees(entry.iif)
        ):
            self.memo[entry] = old.memo[entry]
        if entry.ct == RELATED and entry not in self.memo and self._alike():
            self.memo[entry] = self.arrive(replace(entry, ct=ESTABLISHED))
        if entry not in self.memo:
            link = self.hooks.links[entry.iif]
            everything = self.hooks.common.space.true
            self.memo[entry] = Arrival(self.hooks, entry, link, everything).run()
        return self.memo[entry]

    def sees(self, iif: int) -> Hashable:
        """Return all that decides about packets of an interface; None is unlike all.

        Where no chain marks packets, it is what each base chain does with them, and
        when.
        """
        if iif not in self.seen:
            own = Family.IP if self.hooks.version == IPV4 else Family.IP6
            families = {Family.INET, Family.NETDEV, own}
            found = [
                (chain.place, chain.hook, self._of(chain, iif))
                for chain in self.hooks.net.bytecode.chains.values()
                if chain.hook is not None and chain.place.family in families
            ]
            marks = any(node is None for *_, node in found)
            self.seen[iif] = object() if marks else tuple(found)
        return self.seen[iif]

    def _alike(self) -> bool:
        """Return whether no chain tells an established flow from a related one.

        It is not asked where only few ways are to be found out again.
        """
        if self.alike is None:
            chains = [c for h in range(EGRESS) for c in self.hooks.chains(h)]
            chains = [c for c in chains if c.hook and c.hook.number != OUTPUT]
            chains += [c for n in self._names() for c in self.hooks.chains(EGRESS, n)]
            self.alike = self.older is None and all(map(self._of_both, chains))
        return self.alike

    def _names(self) -> list[str]:
        return [link.name for link in self.hooks.links.values()]

    def _of_both(self, chain: Chain) -> bool:
        machine = self.hooks.machine
        space, level = machine.space, machine.space.levels[CT]
        node = machine.hooked(chain.place, Env(mark=UNMARKED))
        one, other = (
            substitute(space, node, {level: ct}.get) for ct in (ESTABLISHED, RELATED)
        )
        return one is other and machine.is_plain(node)

    def _of(self, chain: Chain, iif: int) -> Node | None:
        machine = self.hooks.machine
        node = machine.hooked(chain.place, Env(mark=UNMARKED))
        if not machine.is_plain(node):
            return None
        egress = chain.place.family == Family.NETDEV
        level = machine.space.levels[IIF]
        if isinstance(node, Branch) and node.level == level and not egress:
            return child_at(node, iif)
        return node
