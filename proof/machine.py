# SPDX-License-Identifier: GPL-2.0-or-later
"""The nf_tables bytecode of a namespace, run for all packets at once.

A chain comes to a diagram: for every packet of one IP version, how it leaves
the chain and with what.  What is not modelled is a field of its own, a doubt
with a name, so that a result can be asked in two ways: what may happen, for
some value of the doubts, and what must happen, for all of them.
"""

from collections.abc import Collection, Hashable
from dataclasses import dataclass, field, replace

from proof.bytecode import Bytecode, Place
from proof.comparisons import Comparisons
from proof.diagram import BOTTOM, Budget, Node, OverrunError
from proof.explore import leaves
from proof.fields import FRAGMENTS, layout
from proof.lookups import Contents, Lookups, contents
from proof.outcome import UNTOUCHED, Call, End, Env, Onwards, Outcome
from proof.relabel import continued, relabel
from proof.routes import Routing
from proof.rule import WORD, Tools, run
from proof.space import Space
from proof.statements import STEPS

DOUBTS = 400
TOO_MANY = "a limit is exceeded"
_DEPTH = 64  # chains within chains; the kernel allows 16


@dataclass(frozen=True, slots=True)
class Seen:
    """A rule that a packet matched, on its way through the chains."""

    chain: Place
    handle: int
    comment: str | None


@dataclass(frozen=True, slots=True)
class Common:
    """What the machines of several domains share; ``name`` is that of one of them."""

    space: Space
    doubts: dict[int, str] = field(default_factory=dict)
    name: str = ""


class Machine:
    """Runs the chains of one snapshot for one IP version (4 or 6).

    Every method that builds may raise `OverrunError`: then nothing is known.
    """

    def __init__(
        self,
        code: Bytecode,
        routing: Routing,
        version: int,
        common: "Budget | Common | None" = None,
    ) -> None:
        """Start with no chain run; alone, or with what several machines share."""
        if not isinstance(common, Common):
            common = Common(Space((), common))
        self.space, self.doubts = common.space, common.doubts
        self.fields = layout(version, routing.links, self.space)
        self.doubts[self.space.levels[FRAGMENTS]] = "later fragments"
        self._name = f"{common.name}: " if common.name else ""
        comparisons = Comparisons(self.space, self._doubt)
        self._code = code
        self._ready: dict[Place, Contents] = {}
        self._tools = Tools(
            self.fields,
            comparisons,
            Lookups(self.space, comparisons),
            self._contents,
            self._too_many,
            STEPS,
        )
        self._steps: dict[tuple[Place, int, Env], Node] = {}
        self._traced: dict[tuple[Place, int, Env], Node] = {}
        self._results: dict[tuple[Place, int, Env], Node] = {}
        self._hooked: dict[tuple[Place, Env], Node] = {}
        self._plain: dict[Node, bool] = {}
        self._here = ""
        self._depth = 0

    def _contents(self, place: Place) -> Contents:
        if place not in self._ready:
            self._ready[place] = contents(self._code.sets[place])
        return self._ready[place]

    def _doubt(self, reason: str, name: str = "") -> Node:
        if len(self.doubts) >= DOUBTS:
            raise OverrunError(f"more than {DOUBTS} doubts, the last: {reason}")
        level = self.space.field(name or f"doubt {len(self.space.names)}", 1)
        self.doubts[level] = f"{self._here}: {reason}"
        return self.space.within(level, (1, 1))

    def _too_many(self, place: Place) -> Node:
        """Return a doubt; of a base chain, which a packet passes once, the same."""
        once = self._code.chains[place].hook is not None
        return self._doubt(TOO_MANY, f"{self._here}: {TOO_MANY}" if once else "")

    def adopt(self, old: "Machine", same: Collection[Place]) -> None:
        """Take over what another machine of the same space found about chains.

        ``same`` are those that are no others, with all that they lead to.
        """
        for mine, theirs in (
            (self._steps, old._steps),  # noqa: SLF001 - of the same class
            (self._results, old._results),  # noqa: SLF001
        ):
            mine.update((key, node) for key, node in theirs.items() if key[0] in same)
        known = old._hooked.items()  # noqa: SLF001
        self._hooked.update((key, node) for key, node in known if key[0] in same)

    def chain(self, place: Place, env: Env = UNTOUCHED) -> Node:
        """Return an `Outcome` for each packet; RETURN at the end of the chain."""
        if self._depth >= _DEPTH:
            raise OverrunError(f"{place}: more than {_DEPTH} chains deep")
        self._depth += 1
        try:
            return self._rest(place, 0, env)
        finally:
            self._depth -= 1

    def hooked(self, place: Place, env: Env = UNTOUCHED) -> Node:
        """Return the same for a base chain, whose end is its policy.

        A packet passes it once, so its doubts are the same at each call.
        """
        key = (place, env)
        if key not in self._hooked:
            self._hooked[key] = self._ended(place, env)
        return self._hooked[key]

    def _ended(self, place: Place, env: Env) -> Node:
        hook = self._code.chains[place].hook
        accepts = hook is None or hook.policy != 0
        end = End.ACCEPT if accepts else End.DROP

        def closed(value: Hashable) -> Hashable:
            match value:
                case Outcome(End.RETURN, left):
                    return Outcome(end, left)
                case _:
                    return value

        return relabel(self.space, self.chain(place, env), closed)

    def _rest(self, place: Place, first: int, env: Env) -> Node:
        """Return what the rules from the place ``first`` on come to."""
        key = (place, first, env)
        if key in self._results:
            return self._results[key]
        doubts = len(self.doubts)
        parts: list[Node] = []
        for index in range(first, len(self._code.chains[place].rules)):
            part = self._rule(place, index, env)
            parts.append(part)
            if part.level == BOTTOM and part is not self.space.nothing:
                break
        parts.append(self.space.leaf(Outcome(End.RETURN, env)))
        found = self.space.fold(self.space.over, parts, self.space.nothing)
        if len(self.doubts) == doubts:  # else each visit has doubts of its own
            self._results[key] = found
        return found

    def _rule(self, place: Place, index: int, env: Env) -> Node:
        """Return outcomes; nothing where the next rule goes on with the same."""

        def follow(value: Hashable) -> Hashable | Node:
            match value:
                case Onwards(left):
                    return self._rest(place, index + 1, left)
                case Call(chain, True, left):
                    return self.chain(chain, left)
                case Call(chain, False, left):
                    return self._back(self.chain(chain, left), place, index, env)
                case _:
                    return value

        return continued(self.space, self._step(place, index, env), follow)

    def _back(self, found: Node, place: Place, index: int, env: Env) -> Node:
        def follow(value: Hashable) -> Hashable | Node:
            match value:
                case Outcome(End.RETURN, left):
                    if left == env:
                        return None
                    return self._rest(place, index + 1, left)
                case _:
                    return value

        return relabel(self.space, found, follow)

    def _step(self, place: Place, index: int, env: Env) -> Node:
        key = (place, index, env)
        if key in self._steps:
            return self._steps[key]
        doubts = len(self.doubts)
        rule = self._code.chains[place].rules[index]
        self._here = f"{self._name}{place} handle {rule.handle}"
        found = run(self._tools, place, rule.expressions, env)
        if len(self.doubts) == doubts:
            self._steps[key] = found
        return found

    def is_plain(self, node: Node) -> bool:
        """Return whether packets leave as they came, but for a translation."""
        if node not in self._plain:
            self._plain[node] = all(
                isinstance(value, Outcome)
                and replace(value.env, nat=()) == Env(mark=(0,) * WORD)
                for value in leaves(node)
            )
        return self._plain[node]

    def step(self, place: Place, index: int, env: Env) -> Node:
        """Return what one rule does, the same at each call: to look at, not to prove.

        It says nothing for the packets that the rule does not match.
        """
        key = (place, index, env)
        if key not in self._traced:
            self._traced[key] = self._step(place, index, env)
        return self._traced[key]

    @property
    def code(self) -> Bytecode:
        """The bytecode that is run."""
        return self._code
