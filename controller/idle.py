# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules that never decide, since those before them leave them nothing."""

from collections.abc import Iterator

from controller.amend import rule_text
from controller.domains import Domain, Domains
from controller.nowhere import RESOLVERS
from controller.plan import Change, Sign
from proof.diagram import OverrunError
from proof.difference import shadowed
from rules.decide import Names
from rules.ground import ground
from rules.model import Family

_VERSIONS = {4: Family.IPV4, 6: Family.IPV6}


def idle(old: Domains, new: Domains, names: Names, now: int) -> Iterator[Change]:
    """Yield the rules of changed lists that decide about no packet at all.

    ``names`` and ``now`` are those of `controller.explain.explain`; a rule about a
    name without address, or that has expired, is not looked at.
    """
    for domain in new:
        before = old.by_name.get(domain.name)
        if before is None or before.policy != domain.policy:
            try:
                yield from _of(domain, names, now)
            except OverrunError:
                continue  # nobody is harmed if it is not said


def _of(domain: Domain, names: Names, now: int) -> Iterator[Change]:
    about: set[int] = set()
    deciding: set[int] = set()
    for version, family in _VERSIONS.items():
        known = ground(domain.policy, family, names, RESOLVERS, now)
        sources = {match.source for match in known.matches}
        about |= sources
        deciding |= sources.difference(shadowed(known, version))
    for number in sorted(about - deciding):
        rule = rule_text(domain.policy.rules[number])
        text = f"rule {number} never decides: {rule}"
        yield Change(Sign.CHANGE, domain.name, text)
