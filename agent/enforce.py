# SPDX-License-Identifier: GPL-2.0-or-later
"""Make the rules in the kernel equal to what is wanted, whatever they were.

A ruleset that the kernel refuses is narrowed down: every client whose program
is new goes without one, which denies it, and is then tried alone.  So one list
that cannot be loaded concerns its own client.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from agent import stepwise
from agent.parts import Parts, batches, changed, growth, joined
from agent.ports import Firewall, FirewallError
from agent.programs import Programs
from rules.compile import compile_client
from rules.constant import constant
from rules.facts import Facts, Gateway
from rules.flows import Allowed
from rules.ground import Ground
from rules.model import Action, Address
from rules.objects import IP, IP6, Ruleset
from rules.pace import USUAL
from rules.ruleset import closed, ruleset
from rules.transaction import difference

log = logging.getLogger(__name__)

# Clients in one transaction at the start.  libnftables keeps some kilobytes
# for each rule of a transaction until it is through.
BATCH = 50
LARGE = 20
"""Objects that come or go; after more at once, memory is given back."""
DENIED = Ground((), Action.DROP)
OF_CLIENTS = "q_"


class CannotEnforceError(RuntimeError):
    """The kernel refuses even the closed ruleset."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A program that the kernel refused, and its words."""

    program: Ruleset
    reason: str


@dataclass(slots=True)
class Enforcer:
    """The rules as they were loaded last; ``generation`` counts the loads.

    ``table`` is how many flows the connection table holds.
    """

    firewall: Firewall
    kind: Gateway = Gateway.ROUTER
    table: int = USUAL
    generation: int = 0
    _broken: dict[Address, Broken] = field(default_factory=dict)
    _refusal: str = ""
    _loaded: Parts | None = None
    _frame: tuple[Allowed, Facts, Ruleset] | None = None
    _sum: int = 0

    def enforce(self, allowed: Allowed, facts: Facts, programs: Programs) -> bool:
        """Load the ruleset of a state; return whether anything changed.

        Raises `FirewallError` when all is closed because the kernel refuses the
        ruleset even with every client denied, and `CannotEnforceError` when it
        refuses the closed one too.
        """
        before = self.generation
        # Also those of clients that are not there yet, so that one that comes or
        # goes changes elements alone, for which there is a quick way.
        wanted: Parts = {None: self._frame_of(allowed, facts), **programs.parts}
        if self._loaded is None:
            self._start(wanted)
        self._change(wanted)
        return self.generation != before

    def restore(self) -> bool:
        """Begin anew if somebody else changed the rules; return whether.

        The guard and the skeleton are there again at once, the rest with the
        next `enforce`.  What the users' own chains hold is not looked at.
        """
        if not self.firewall.touched():
            return False
        # First: it is told only once that they were changed.
        self._loaded = None
        self.firewall.load(constant(self.kind, self.table))
        return True

    def errors(self) -> Mapping[Address, str]:
        """Return who is denied because the kernel refused the program, and why."""
        return {address: broken.reason for address, broken in self._broken.items()}

    def digest(self) -> str:
        """Return a hash of all that is loaded, 16 hex digits.

        Equal rulesets have equal hashes, however they came about.
        """
        return f"{self._sum % (1 << 64):016x}"

    def _frame_of(self, allowed: Allowed, facts: Facts) -> Ruleset:
        if self._frame is None or self._frame[:2] != (allowed, facts):
            self._frame = (allowed, facts, ruleset(allowed, facts))
        return self._frame[2]

    def _start(self, wanted: Parts) -> None:
        """Replace whatever there is, clients first, and sweep what is left over.

        Until the last transaction the sets that an earlier agent left are in
        force, so flows that are still allowed keep flowing.  A client whose
        program is refused is denied for now.
        """
        log.info("loading everything anew")
        sober: dict[Address | None, Ruleset] = {None: wanted[None]}
        try:
            for batch in batches(wanted, BATCH):
                sober |= self._batch(batch)
            self.firewall.load(difference(None, wanted[None]))
            self._sweep(joined(sober.values()))
        except FirewallError as error:
            self._close(str(error))
        self._anew(sober)
        self.firewall.release()

    def _batch(self, wanted: Parts) -> Parts:
        """Load programs over unknown ones; return what each client has now."""
        try:
            self.firewall.load(difference(None, joined(wanted.values())))
        except FirewallError:
            if len(wanted) > 1:
                alone = ({address: wanted[address]} for address in wanted)
                return {a: p for one in alone for a, p in self._batch(one).items()}
            denied = _denied(wanted)
            self.firewall.load(difference(None, joined(denied.values())))
            return denied
        return wanted

    def _sweep(self, known: Ruleset) -> None:
        """Delete what belongs to clients and is not known."""
        stale = {
            key: content
            for table in (IP, IP6)
            for key, content in self.firewall.names(table).items()
            if key.name.startswith(OF_CLIENTS) and key not in known
        }
        if stale:
            self.firewall.load(difference(stale, {}))

    def _close(self, reason: str) -> NoReturn:
        """Let nothing pass, and tell; what is in the kernel is known again."""
        log.error("closed: %s", reason)
        shut = closed(self.kind)
        self._loaded = None
        try:
            self.firewall.load(difference(None, shut))
            self._sweep(shut)
        except FirewallError as error:
            raise CannotEnforceError(str(error)) from error
        self._anew({None: shut})
        raise FirewallError(f"closed: {reason}")

    def _change(self, wanted: Parts) -> None:
        self._broken = {
            address: broken
            for address, broken in self._broken.items()
            if wanted.get(address) is broken.program
        }
        sober = {**wanted, **_denied(self._broken)} if self._broken else wanted
        if not self._load(sober):
            self._narrow(sober)

    def _narrow(self, wanted: Parts) -> None:
        """Deny every client that changed, then give each its program alone."""
        loaded = self._loaded or {}
        suspects = [a for a in wanted if a and loaded.get(a) is not wanted[a]]
        sober = {**wanted, **_denied(suspects)}
        if not self._load(sober):
            self._close(self._refusal)
        for address in suspects:
            program = wanted[address]
            if self._load({**sober, address: program}):
                sober[address] = program
            else:
                self._broken[address] = Broken(program, self._refusal)

    def _load(self, wanted: Parts) -> bool:
        old, new = changed(self._loaded or {}, wanted)
        try:
            if stepwise.load(self.firewall, old, new):
                self._note(wanted, old, new)
                if len(old.keys() ^ new.keys()) > LARGE:
                    self.firewall.release()
        except (FirewallError, ValueError) as error:
            self._refusal = str(error)
            log.error("nftables refuses: %s", error)  # noqa: TRY400
            return False
        self._loaded = wanted
        return True

    def _anew(self, loaded: Parts) -> None:
        """Remember that this is in the kernel, whatever was."""
        self._sum = 0
        self._note(loaded, {}, joined(loaded.values()))

    def _note(self, loaded: Parts, old: Ruleset, new: Ruleset) -> None:
        """Remember what a transaction made of the kernel's rules."""
        self._sum += growth(old, new)
        self._loaded = loaded
        self.generation += 1


def _denied(addresses: Iterable[Address | None]) -> dict[Address | None, Ruleset]:
    return {a: compile_client(a, DENIED) for a in addresses if a}
