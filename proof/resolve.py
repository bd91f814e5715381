# SPDX-License-Identifier: GPL-2.0-or-later
"""What rules left on a packet, as numbers: one case for each."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

from proof.diagram import Node
from proof.outcome import Env, Nat
from proof.relabel import relabel
from proof.values import Constant, Hidden, Number, Opaque, Part, Picture, Value, split
from proof.view import View, Viewer


def number_of(value: Value | None) -> int | None:
    """Return a value in network byte order as a number, None if not known."""
    known = [atom for atom in value or () if isinstance(atom, int)]
    if value is None or len(known) != len(value):
        return None
    return int.from_bytes(bytes(known), "big")


def is_known(value: Value | None) -> bool:
    """Return whether nothing is to be found out about it."""
    return value is None or all(isinstance(atom, int | Opaque) for atom in value)


@dataclass(slots=True)
class Resolver:
    """Finds out what values are, for the packet as it came in."""

    viewer: Viewer

    def fixed(self, env: Env, view: View, then: Callable[[Env], Node]) -> Node:
        """Return what ``then`` says, for each case of the values in ``env``."""

        def with_mark(mark: Value | None) -> Node:
            return self._case(
                env.ct_mark,
                view,
                lambda ct: self._nats(
                    replace(env, mark=mark, ct_mark=ct), 0, view, then
                ),
            )

        return self._case(env.mark, view, with_mark)

    def _nats(
        self, env: Env, place: int, view: View, then: Callable[[Env], Node]
    ) -> Node:
        if place == len(env.nat):
            return then(env)
        nat = env.nat[place]

        def go_on(address: Value | None, port: Value | None) -> Node:
            done = Nat(nat.kind, address, port)
            nats = (*env.nat[:place], done, *env.nat[place + 1 :])
            return self._nats(replace(env, nat=nats), place + 1, view, then)

        return self._case(
            nat.address,
            view,
            lambda address: self._case(
                nat.port, view, lambda port: go_on(address, port)
            ),
        )

    def _case(
        self,
        value: Value | None,
        view: View,
        then: Callable[[Value | None], Node],
    ) -> Node:
        if value is None or is_known(value):
            return then(value)
        space = self.viewer.common.space

        def collect(parts: tuple[Part, ...], found: Value) -> Node:
            if not parts:
                return then(found)
            match parts[0]:
                case Constant(data):
                    return collect(parts[1:], (*found, *data))
                case Picture(image, first, size):
                    cut = slice(first, first + size)

                    def chosen(data: Hashable) -> Node:
                        if not isinstance(data, bytes):
                            return space.nothing  # the rule did not match there
                        return collect(parts[1:], (*found, *data[cut]))

                    return relabel(space, self.viewer.seen(image, view), chosen)
                case Number(size=size) | Hidden(size=size):
                    unknown = (Opaque("a value that is not known"),) * size
                    return collect(parts[1:], (*found, *unknown))

        return collect(split(value), ())
