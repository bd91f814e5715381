# SPDX-License-Identifier: GPL-2.0-or-later
"""Make the rules in the kernel equal to what is wanted, whatever they were.

A ruleset that the kernel refuses is narrowed down: every client whose program
is new goes without one, which denies it, and is then tried alone.  So one list
that cannot be loaded concerns its own client.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import NoReturn

from agent.ports import Firewall, FirewallError
from agent.programs import Programs
from rules.compile import compile_client
from rules.facts import Facts
from rules.flows import Allowed
from rules.ground import Ground
from rules.model import Action, Address
from rules.objects import IP, IP6, Chain, Key, Map, Object, Ruleset, Set
from rules.ruleset import closed, ruleset
from rules.transaction import difference

log = logging.getLogger(__name__)

# Clients in one transaction at the start.  libnftables keeps some kilobytes
# for each rule of a transaction until it is through.
BATCH = 50
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
    """The rules as they were loaded last; ``generation`` counts the loads."""

    firewall: Firewall
    generation: int = 0
    _broken: dict[Address, Broken] = field(default_factory=dict)
    _refusal: str = ""
    _loaded: Ruleset | None = None
    _frame: tuple[Allowed, Facts, Ruleset] | None = None
    _digests: dict[Key, tuple[Object, int]] = field(default_factory=dict)

    def enforce(self, allowed: Allowed, facts: Facts, programs: Programs) -> bool:
        """Load the ruleset of a state; return whether anything changed.

        Raises `FirewallError` when all is closed because the kernel refuses the
        ruleset even with every client denied, and `CannotEnforceError` when it
        refuses the closed one too.
        """
        before = self.generation
        frame = self._frame_of(allowed, facts)
        wanted = {
            address: programs[address].objects
            for client in facts.clients
            for address in client.addresses
        }
        if self._loaded is None:
            self._start(frame, wanted)
        self._change(frame, wanted)
        return self.generation != before

    def errors(self) -> Mapping[Address, str]:
        """Return who is denied because the kernel refused the program, and why."""
        return {address: broken.reason for address, broken in self._broken.items()}

    def digest(self) -> str:
        """Return a hash of all that is loaded, 16 hex digits.

        Equal rulesets have equal hashes, however they came about.
        """
        loaded = self._loaded or {}
        for key in self._digests.keys() - loaded.keys():
            del self._digests[key]
        for key, content in loaded.items():
            known = self._digests.get(key)
            if known is None or known[0] is not content:
                self._digests[key] = (content, _hash(key, content))
        total = sum(number for _, number in self._digests.values())
        return f"{total % (1 << 64):016x}"

    def _frame_of(self, allowed: Allowed, facts: Facts) -> Ruleset:
        if self._frame is None or self._frame[:2] != (allowed, facts):
            self._frame = (allowed, facts, ruleset(allowed, facts))
        return self._frame[2]

    def _start(self, frame: Ruleset, wanted: Mapping[Address, Ruleset]) -> None:
        """Replace whatever there is, clients first, and sweep what is left over.

        Until the last transaction the sets that an earlier agent left are in
        force, so flows that are still allowed keep flowing.  A client whose
        program is refused is denied for now.
        """
        log.info("loading everything anew")
        try:
            sober: dict[Address, Ruleset] = {}
            for batch in _batches(wanted):
                sober |= self._batch(batch)
            everything = _joined(frame, sober)
            self.firewall.load(difference(None, frame))
            self._sweep(everything)
        except FirewallError as error:
            self._close(str(error))
        self._loaded = everything
        self.generation += 1
        self.firewall.release()

    def _batch(self, wanted: Mapping[Address, Ruleset]) -> Mapping[Address, Ruleset]:
        """Load programs over unknown ones; return what each client has now."""
        try:
            self.firewall.load(difference(None, _joined({}, wanted)))
        except FirewallError:
            if len(wanted) > 1:
                alone = ({address: wanted[address]} for address in wanted)
                return {a: p for one in alone for a, p in self._batch(one).items()}
            denied = {a: compile_client(a, DENIED) for a in wanted}
            self.firewall.load(difference(None, _joined({}, denied)))
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
        shut = closed()
        self._loaded = None
        try:
            self.firewall.load(difference(None, shut))
            self._sweep(shut)
        except FirewallError as error:
            raise CannotEnforceError(str(error)) from error
        self._loaded = shut
        self.generation += 1
        raise FirewallError(f"closed: {reason}")

    def _change(self, frame: Ruleset, wanted: Mapping[Address, Ruleset]) -> None:
        self._broken = {a: b for a, b in self._broken.items() if a in wanted}
        sober = {a: self._sober(a, program) for a, program in wanted.items()}
        if not self._load(_joined(frame, sober)):
            self._narrow(frame, sober)

    def _sober(self, address: Address, program: Ruleset) -> Ruleset:
        known = self._broken.get(address)
        if known is None or known.program is not program:
            self._broken.pop(address, None)
            return program
        return compile_client(address, DENIED)

    def _narrow(self, frame: Ruleset, wanted: Mapping[Address, Ruleset]) -> None:
        """Deny every client that changed, then give each its program alone."""
        loaded = self._loaded or {}
        suspects = [
            address
            for address, program in wanted.items()
            if any(loaded.get(key) != content for key, content in program.items())
        ]
        sober = {**wanted, **{a: compile_client(a, DENIED) for a in suspects}}
        if not self._load(_joined(frame, sober)):
            self._close(self._refusal)
        for address in suspects:
            program = wanted[address]
            if self._load(_joined(frame, {**sober, address: program})):
                sober[address] = program
            else:
                self._broken[address] = Broken(program, self._refusal)

    def _load(self, content: Ruleset) -> bool:
        try:
            if script := difference(self._loaded, content):
                self.firewall.load(script)
                self.generation += 1
        except (FirewallError, ValueError) as error:
            self._refusal = str(error)
            log.error("nftables refuses: %s", error)  # noqa: TRY400
            return False
        self._loaded = content
        return True


def _joined(frame: Ruleset, programs: Mapping[Address, Ruleset]) -> Ruleset:
    joined = dict(frame)
    for program in programs.values():
        joined.update(program)
    return joined


def _batches(
    programs: Mapping[Address, Ruleset],
) -> Iterator[Mapping[Address, Ruleset]]:
    waiting = iter(programs.items())
    while batch := dict(islice(waiting, BATCH)):
        yield batch


def _hash(key: Key, content: Object) -> int:
    data = f"{key.table} {key.name}\n{_text(content)}".encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())


def _text(content: Object) -> str:
    match content:
        case Chain(rules):
            return "\n".join(rules)
        case Set(declaration, elements):
            return "\n".join([declaration, *sorted(elements)])
        case Map(declaration, pairs):
            return "\n".join([declaration, *map(str, sorted(pairs.items()))])
