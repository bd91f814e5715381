# SPDX-License-Identifier: GPL-2.0-or-later
"""One packet through chains: the rules it matches, and how it leaves."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from proof.bytecode import Place
from proof.explore import Point, possible_at, value_at
from proof.machine import TOO_MANY, Machine, Seen
from proof.outcome import UNTOUCHED, Call, End, Env, Onwards, Outcome
from proof.statements import WITHIN
from proof.values import Atom, FieldByte, ImageByte, Opaque, Value


@dataclass(slots=True)
class Trace:
    """Follows a packet; a field that it has no number for is not known.

    ``outcome`` is how the last chain was left.  Where a doubt decides, the way
    goes on as if it did not hold, and ``doubts`` has its name.  A limit is no doubt:
    a packet that comes alone keeps within it.  ``by_policy``: no rule of the base
    chain decided.
    """

    machine: Machine
    point: Point
    outcome: Outcome = field(default_factory=lambda: Outcome(End.RETURN))
    doubts: list[str] = field(default_factory=list)
    by_policy: bool = False

    def hooked(self, place: Place, env: Env = UNTOUCHED) -> Iterator[Seen]:
        """Yield the rules matched in a base chain, whose end is its policy."""
        yield from self.chain(place, env)
        hook = self.machine.code.chains[place].hook
        if self.outcome.end is End.RETURN and hook is not None:
            end = End.ACCEPT if hook.policy else End.DROP
            self.outcome = replace(self.outcome, end=end)
            self.by_policy = True

    def chain(self, place: Place, env: Env = UNTOUCHED) -> Iterator[Seen]:
        """Yield the rules matched in a chain."""
        for index, rule in enumerate(self.machine.code.chains[place].rules):
            step = self._step(place, index, env)
            if step is None:
                continue
            yield Seen(place, rule.handle, rule.comment)
            match step:
                case Onwards(left):
                    env = self.fixed(left)
                case Outcome(end, left):
                    self.outcome = Outcome(end, self.fixed(left))
                    return
                case Call(chain, goto, left):
                    yield from self.chain(chain, self.fixed(left))
                    if goto or self.outcome.end is not End.RETURN:
                        return
                    env = self.outcome.env
                case _:
                    raise TypeError(f"not a step: {step}")
        self.outcome = Outcome(End.RETURN, env)

    def _step(self, place: Place, index: int, env: Env) -> object:
        machine = self.machine
        step = machine.step(place, index, env)
        kept = [n for n, why in machine.doubts.items() if why.endswith(f": {WITHIN}")]
        within = dict.fromkeys((machine.space.names[n] for n in kept), 1)
        found = possible_at(machine.space, step, {**self.point, **within})
        for levels in list(found.values())[1:]:
            for level in levels:
                name = machine.space.names[level]
                reason = machine.doubts.get(level, name)
                self.doubts += [] if reason.endswith(TOO_MANY) else [reason]
        return next(iter(found))

    def fixed(self, env: Env) -> Env:
        """Return what was left on the packet with all values as they are for it."""
        nat = tuple(
            replace(one, address=self._value(one.address), port=self._value(one.port))
            for one in env.nat
        )
        mark, ct_mark = self._value(env.mark), self._value(env.ct_mark)
        return replace(env, nat=nat, mark=mark, ct_mark=ct_mark)

    def _value(self, value: Value | None) -> Value | None:
        if value is None or all(isinstance(atom, int) for atom in value):
            return value
        return tuple(map(self._atom, value))

    def _atom(self, atom: Atom) -> Atom:
        space = self.machine.space
        match atom:
            case FieldByte(level, shift, mask, flip):
                number = self.point.get(space.names[level])
                unknown = Opaque(f"{space.names[level]} is not known")
                return unknown if number is None else number >> shift & mask ^ flip
            case ImageByte(image, at):
                data = value_at(space, image, self.point)
                return data[at] if isinstance(data, bytes) else Opaque("no value")
            case int() | Opaque():
                return atom
