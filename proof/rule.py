# SPDX-License-Identifier: GPL-2.0-or-later
"""One rule of the bytecode, run for all packets at once.

As nft_do_chain() (``net/netfilter/nf_tables_core.c``): the expressions in order
until one does not hold or gives a verdict.  An expression that is not modelled
becomes a doubt, a set of packets that nothing is known of, and what guards it
stays.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from proof.bytecode import Code, Expression, Place, Verdict
from proof.comparisons import Comparisons
from proof.diagram import Node
from proof.fields import Fields
from proof.loads import UnmodelledError
from proof.lookups import Contents, Lookups
from proof.netlink import Attributes, SnapshotError, need, number
from proof.outcome import Call, End, Env, Onwards, Outcome, Step
from proof.space import Space
from proof.values import Atom, Opaque, Value

REGISTERS = 64  # bytes
WORD = 4  # bytes
_FIRST32 = 8  # NFT_REG32_00
_UNSET = Opaque("a register that was not set")
# These hold or not, and touch no register.
_CONDITIONS = {"limit", "quota", "connlimit", "dynset", "match"}
# These hold or not, and may fill a register; they give no verdict.
_MATCHES = {
    *("meta", "ct", "payload", "fib", "exthdr", "rt", "socket", "hash", "numgen"),
    *("osf", "xfrm", "tunnel", "inner", "cmp", "range", "bitwise", "byteorder"),
}


@dataclass(frozen=True, slots=True)
class Tools:
    """What all rules of a machine share; ``sets`` are made ready on demand."""

    fields: Fields
    comparisons: Comparisons
    lookups: Lookups
    sets: Callable[[Place], Contents]
    too_many: Callable[[Place], Node]
    steps: "Mapping[str, Callable[[RuleRun, Attributes], None]]"


@dataclass(slots=True)
class RuleRun:
    """The run of a rule of the chain ``place``.

    ``holds`` are the packets that have come this far; ``result`` says what the
    rule does with those it has left with a verdict.
    """

    tools: Tools
    place: Place
    env: Env
    holds: Node
    result: Node
    registers: list[Atom] = field(default_factory=lambda: [_UNSET] * REGISTERS)
    ended: bool = False

    @property
    def space(self) -> Space:
        """The space of all diagrams here."""
        return self.tools.fields.space

    def keep(self, where: Node) -> None:
        """Go on with the packets of a set only."""
        self.holds = self.space.both(self.holds, where)

    def doubt(self, reason: str) -> Node:
        """Return a set that nothing is known of."""
        return self.tools.comparisons.doubt(reason)

    def too_many(self) -> Node:
        """Return the packets that are too many for a limit (`TOO_MANY`)."""
        return self.tools.too_many(self.place)

    def emit(self, step: Step, where: Node) -> None:
        """Say what the rule does with those in a set that have come this far."""
        whole = self.space.both(self.holds, where)
        here = self.space.only(whole, self.space.leaf(step))
        self.result = self.space.over(self.result, here)

    def end(self, step: Step) -> None:
        """Say what the rule does with all that have come this far."""
        self.emit(step, self.space.true)
        self.ended = True

    def decide(self, verdict: Verdict, where: Node) -> None:
        """Give a verdict to those in a set that have come this far."""
        step = self.step_of(verdict)
        if step is None:
            self.either_way(f"verdict {verdict.code}", where)
        else:
            self.emit(step, where)

    def step_of(self, verdict: Verdict) -> Step | None:
        """Return what a verdict does; None for one that is not modelled."""
        match verdict:
            case Verdict(Code.ACCEPT):
                return Outcome(End.ACCEPT, self.env)
            case Verdict(Code.DROP):
                return Outcome(End.DROP, self.env)
            case Verdict(Code.RETURN):
                return Outcome(End.RETURN, self.env)
            case Verdict(Code.JUMP | Code.GOTO as code, str(chain)):
                target = self.place._replace(name=chain)
                return Call(target, code == Code.GOTO, self.env)
            case _:
                return None

    def either_way(self, reason: str, where: Node) -> None:
        """Accept or drop those in a set, nobody knows which."""
        accepts = self.doubt(reason)
        unknown = (Opaque(reason),) * WORD
        env = replace(self.env, mark=unknown, ct_mark=unknown, rewritten=True)
        self.emit(Outcome(End.ACCEPT, env), self.space.both(where, accepts))
        self.emit(Outcome(End.DROP, env), self.space.minus(where, accepts))

    def unknown(self, name: str, reason: str) -> None:
        """Do all that an expression of this name may do."""
        self.keep(self.doubt(reason))
        if name in _CONDITIONS:
            return
        self.registers = [Opaque(reason)] * REGISTERS
        if name in _MATCHES:
            return
        some = self.doubt(f"{reason}: a verdict")
        self.either_way(f"{reason}: its verdict", some)
        self.keep(self.space.minus(self.space.true, some))
        unknown = (Opaque(reason),) * WORD
        self.env = replace(self.env, mark=unknown, ct_mark=unknown, rewritten=True)

    def _offset(self, values: Attributes, kind: int) -> int:
        register = number(need(values, kind, "register"), "register")
        start = (
            (register - _FIRST32) * WORD
            if register >= _FIRST32
            else (register - 1) * WORD * WORD
        )
        if not 0 <= start < REGISTERS:
            raise UnmodelledError(f"register {register}")
        return start

    def read(self, values: Attributes, kind: int, length: int) -> Value:
        """Return what is in the register that an attribute names."""
        start = self._offset(values, kind)
        if start + length > REGISTERS:
            raise UnmodelledError("beyond the registers")
        return tuple(self.registers[start : start + length])

    def write(self, values: Attributes, kind: int, value: Value) -> None:
        """Fill the register that an attribute names."""
        start = self._offset(values, kind)
        padded = [*value, *(0,) * (-len(value) % WORD)]
        if start + len(padded) > REGISTERS:
            raise UnmodelledError("beyond the registers")
        self.registers[start : start + len(padded)] = padded


def run(tools: Tools, place: Place, rule: tuple[Expression, ...], env: Env) -> Node:
    """Return the diagram of a rule's steps; nothing where it does not match."""
    space = tools.fields.space
    this = RuleRun(tools, place, env, space.true, space.nothing)
    for expression in rule:
        if this.ended or this.holds is space.false:
            break
        name = expression.name
        try:
            if name in tools.steps:
                tools.steps[name](this, expression.values)
            else:
                this.unknown(name, name)
        except (UnmodelledError, SnapshotError) as error:
            this.unknown(name, f"{name}: {error}")
    if not this.ended and this.env != env:
        this.end(Onwards(this.env))
    return this.result
