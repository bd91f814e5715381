# SPDX-License-Identifier: GPL-2.0-or-later
"""What a rule does, what a chain comes to, and what is left of it on the packet."""

from dataclasses import dataclass
from enum import Enum

from proof.bytecode import Place
from proof.values import Value


class End(Enum):
    """How a packet leaves a chain; RETURN is its end, without a verdict."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    RETURN = "return"


class Translation(Enum):
    """What network address translation a rule asks for."""

    SOURCE = "snat"
    DESTINATION = "dnat"
    MASQUERADE = "masquerade"
    REDIRECT = "redirect"


@dataclass(frozen=True, slots=True)
class Nat:
    """A translation; an address or port that is None stays, or is chosen."""

    kind: Translation
    address: Value | None = None
    port: Value | None = None


@dataclass(frozen=True, slots=True)
class Env:
    """What rules have left on the packet; None is what it came with.

    ``rewritten``: its bytes may be others than those it came with.  ``options``:
    those of its TCP options and its checksum may be.
    """

    mark: Value | None = None
    ct_mark: Value | None = None
    nat: tuple[Nat, ...] = ()
    untracked: bool = False
    rewritten: bool = False
    options: bool = False


UNTOUCHED = Env()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a packet leaves a chain, and with what."""

    end: End
    env: Env = UNTOUCHED


@dataclass(frozen=True, slots=True)
class Call:
    """On to a chain: ``goto`` does not come back to the next rule."""

    chain: Place
    goto: bool
    env: Env


@dataclass(frozen=True, slots=True)
class Onwards:
    """On to the next rule, with something left on the packet."""

    env: Env


Step = Outcome | Call | Onwards
"""What a rule does with a packet that it matches."""
