# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the agents have done what the domains call for."""

from dataclasses import dataclass

from controller.databases import Databases
from controller.domains import Domains
from controller.supervise import Condition, Phase, Supervisor

HOPELESS = 3  # failures in a row of an agent that is not waited for


@dataclass(frozen=True, slots=True)
class Settled:
    """What keeps each agent from being done, by all that is known of it.

    ``linked`` is how many clients it has that are linked.
    """

    databases: Databases
    supervisor: Supervisor

    def behind(self, name: str, linked: int) -> str:
        """Return what an agent has still to do by itself, or nothing."""
        condition = self._condition(name)
        if condition.phase is not Phase.READY:
            return condition.reason or "starting"
        said = self.databases.status(name)
        if said is None or said.clients != linked:
            return "putting clients into use"
        return "" if self.databases.heard(name) else "loading rules"

    def waits_for(self, name: str, linked: int) -> str:
        """Return what an agent has still to do, names in rules included."""
        said = self.databases.status(name)
        names = "resolving names" if said is not None and said.waiting else ""
        return self.behind(name, linked) or names

    def hopeless(self, name: str) -> bool:
        """Whether the agent ends again and again."""
        condition = self._condition(name)
        return condition.phase is not Phase.READY and condition.failures >= HOPELESS

    def _condition(self, name: str) -> Condition:
        return self.supervisor.conditions().get(name, Condition(Phase.STARTING))


def concerned(old: Domains, new: Domains, anew: set[str]) -> frozenset[str]:
    """Return the domains that provide network and have something to do now.

    That are those on the way of all that changes, ``anew`` included; all of
    them if nothing does.
    """
    names = old.by_name.keys() | new.by_name.keys()
    changed = {n for n in names if old.by_name.get(n) != new.by_name.get(n)} | anew
    providers = frozenset(domain.name for domain in new if domain.provides_network)
    if not changed:
        return providers
    ways = [{domain.name, *(d.name for d in new.path(domain.name))} for domain in new]
    hops = {hop for way in ways if way & changed for hop in way}
    left = {old.by_name[name].netvm for name in changed & old.by_name.keys()}
    return providers & (hops | left)
