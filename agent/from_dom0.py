# SPDX-License-Identifier: GPL-2.0-or-later
"""The resolvers of a domain with a netvm: those that it offers."""

from collections.abc import Callable, Mapping

from agent.personality import Dns
from rules.model import Address, family
from rules.virtual_dns import VIRTUAL4, VIRTUAL6, paired


class FromDom0:
    """The resolvers that QubesDB names."""

    def dns(self, from_dom0: tuple[Address, ...]) -> Dns:
        """Return the resolvers now."""
        pairs: dict[Address, Address] = {}
        for virtual in (VIRTUAL4, VIRTUAL6):
            version = family(virtual[0])
            real = [a for a in from_dom0 if family(a) is version]
            pairs.update(paired(virtual, real or virtual))
        return Dns(pairs, from_dom0)

    def watched(self) -> Mapping[int, Callable[[], None]]:
        """Return nothing: QubesDB is watched already."""
        return {}
