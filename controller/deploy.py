# SPDX-License-Identifier: GPL-2.0-or-later
"""Make the running domains what is wanted, in an order that never opens anything.

Links are cut before anything else changes and laid last, to agents that are
ready; rules stand in a QubesDB before the link they are for.  A step that must
wait is handed to the caller's loop, which also serves what it waits for.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from controller import keys
from controller.addresses import MAC
from controller.databases import Databases
from controller.domains import Domain, Domains, HostUplink, LabUplink, Nic
from controller.launches import Launches
from controller.ports import Link, Pair, Platform, PlatformError, Uplink
from controller.report import tree
from controller.settled import Settled, concerned
from controller.steps import Steps, Until
from controller.supervise import Supervisor

MAX_SERIAL = 32752  # vif-route-qubes


@dataclass(slots=True)
class Deployment:
    """The domains that are wanted, and what there is of them.

    ``serials`` has the vif of each domain that is linked or about to be,
    ``notes`` what people should know about an uplink, ``filled_at`` the second
    (since the Unix epoch) for which the rules in every QubesDB are right.
    """

    platform: Platform
    uplink: Callable[[HostUplink | LabUplink | Nic], Uplink]
    databases: Databases
    supervisor: Supervisor
    domains: Domains = field(default_factory=lambda: Domains({}))
    serials: dict[str, int] = field(default_factory=dict)
    next_serial: int = 1
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    filled_at: int = 0
    # What a failure leaves half done is in `_made` and `laid`, no more than that.
    _made: dict[str, Domain] = field(default_factory=dict)
    _complete: set[str] = field(default_factory=set)
    laid: dict[str, Link] = field(default_factory=dict)
    # What dom0 asks of the personality of a domain: words by path.
    asks: dict[str, dict[str, str]] = field(default_factory=dict)
    _resolvers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    launches: Launches = field(init=False)

    def __post_init__(self) -> None:
        """Begin with nothing started."""
        self.launches = Launches(self.platform, self.supervisor)

    def become(self, wanted: Domains, *, renew: frozenset[str] = frozenset()) -> Steps:
        """Yield after each step; ``renew`` are domains to make anew.

        Raises OSError where the platform fails, or if an agent that has to do
        something keeps failing; calling it again goes on from what is there.
        """
        outdated = {d.name for d in wanted if self.launches.is_outdated(d)}
        renew |= outdated
        stopped = {d.name for d in self._made.values() if _ends(d, wanted, renew)}
        anew = stopped | (wanted.by_name.keys() - self._complete)
        asked = concerned(self.domains, wanted, anew | self._unlinked(wanted))
        yield from self._unlink(self._cuts(wanted, stopped))
        for _, domain in reversed(list(tree(self.domains))):
            if domain.name in stopped:
                yield f"stopping {domain.name}"
                self._stop(self._made[domain.name])
        self.domains = wanted
        self.refill()
        started = [d for _, d in tree(wanted) if d.name not in self._complete]
        for domain in started:
            yield f"starting {domain.name}"
            self._start(domain)
        yield from self._agents([d for d in started if d.provides_network])
        yield from self._links()
        yield Until("the agents to enforce the rules", lambda: self._enforced(asked))
        failing = [f"{n}: {why}" for n, why in self.waiting().items() if n in asked]
        if failing:
            raise PlatformError(f"an agent keeps failing: {'; '.join(failing)}")

    def refill(self) -> None:
        """Write what the domains call for now; expired rules go."""
        self.filled_at = int(time.time())
        contents = keys.contents(self.domains, self.serials, now=self.filled_at)
        shared = {d.name: self._resolvers.get(d.name, ()) for d in self._shared()}
        self.databases.fill(
            {
                name: {
                    **c,
                    **keys.resolvers(shared.get(name, ())),
                    **keys.asked(self.asks.get(name, {})),
                }
                for name, c in contents.items()
            }
        )

    def follow(self) -> None:
        """Take over what this machine's connection is now (``uplink = "host"``)."""
        for domain in self._shared():
            if domain.uplink is not None and domain.name in self._complete:
                way_out = self.uplink(domain.uplink).attach(domain.name)
                self._resolvers[domain.name] = way_out.resolvers
                self.notes[domain.name] = way_out.notes
        self.refill()

    def _shared(self) -> list[Domain]:
        return [d for d in self.domains if isinstance(d.uplink, HostUplink)]

    def waiting(self) -> Mapping[str, str]:
        """Return the agents that are behind, and why."""
        settled = self._settled()
        names = [d.name for d in self.domains if d.provides_network]
        found = {name: settled.waits_for(name, self._linked(name)) for name in names}
        return {name: why for name, why in found.items() if why}

    def vanished(self) -> frozenset[str]:
        """Return the domains that somebody else has ended."""
        exists = self.platform.exists
        return frozenset(name for name in self._complete if not exists(name))

    def _settled(self) -> Settled:
        return Settled(self.databases, self.supervisor)

    def _linked(self, name: str) -> int:
        return sum(c.name in self.serials for c in self.domains.clients(name))

    def _ready(self, names: Iterable[str]) -> bool:
        settled = self._settled()
        return all(
            settled.hopeless(name) or not settled.behind(name, self._linked(name))
            for name in names
        )

    def _enforced(self, names: Iterable[str]) -> bool:
        waiting = self.waiting()
        return all(n not in waiting or self._settled().hopeless(n) for n in names)

    def _unlinked(self, wanted: Domains) -> set[str]:
        return {d.name for d in wanted if d.netvm and d.name not in self.serials}

    def _cuts(self, wanted: Domains, stopped: set[str]) -> list[str]:
        """Return the clients whose cable must go, and those where it hangs loose."""
        return [
            name
            for name, link in self.laid.items()
            if {name, link.provider} & stopped
            or name not in self.serials
            or name not in wanted.by_name
            or wanted.by_name[name].netvm != link.provider
            or wanted.has_ipv6(name) != self.domains.has_ipv6(name)
        ]

    def _unlink(self, names: list[str]) -> Steps:
        self.serials = {n: s for n, s in self.serials.items() if n not in names}
        self.refill()  # once, for it looks at every domain
        for name in names:
            yield f"unlinking {name}"
            self.platform.detach(name)
            del self.laid[name]

    def _stop(self, domain: Domain) -> None:
        self._complete.discard(domain.name)
        self.databases.close(domain.name)  # who waits for it hears no SIGTERM
        self.launches.end(domain)
        if domain.uplink is not None:
            self.uplink(domain.uplink).detach(domain.name)
        self.platform.stop(domain.name)
        for known in (self._resolvers, self.notes, self.asks, self._made):
            known.pop(domain.name, None)

    def _start(self, domain: Domain) -> None:
        self._made[domain.name] = domain
        self.platform.start(domain.name)
        if not domain.provides_network:
            self._complete.add(domain.name)
            return
        if domain.uplink is not None:
            way_out = self.uplink(domain.uplink).attach(domain.name)
            self._resolvers[domain.name] = way_out.resolvers
            self.notes[domain.name] = way_out.notes
        self.databases.open(domain.name, self.launches.uid(domain.name))

    def _agents(self, started: list[Domain]) -> Steps:
        self.refill()
        for domain in started:
            yield f"starting the agent of {domain.name}"
            resolvers = self._resolvers.get(domain.name, ())
            self.launches.start(domain, self.databases.path(domain.name), resolvers)
            self._complete.add(domain.name)
        # Names cannot be resolved yet: that takes the links.
        names = [domain.name for domain in started]
        if names:
            yield Until("the agents to be ready", lambda: self._ready(names))

    def _links(self) -> Steps:
        wanted = self._unlinked(self.domains)
        missing = [d for _, d in tree(self.domains) if d.name in wanted]
        for domain in missing:
            self.serials[domain.name] = self._serial()
        self.refill()
        try:
            while missing:
                yield f"linking {missing[0].name} to {missing[0].netvm}"
                self._lay(missing[0])
                del missing[0]
        except OSError:
            for domain in missing:
                del self.serials[domain.name]
            self.refill()
            raise

    def _serial(self) -> int:
        used = {f"vif{serial}.0" for serial in self.serials.values()}
        used |= {link.vif for link in self.laid.values()}
        while f"vif{self.next_serial}.0" in used:
            self.next_serial = self.next_serial % MAX_SERIAL + 1
        serial, self.next_serial = self.next_serial, self.next_serial % MAX_SERIAL + 1
        return serial

    def _lay(self, domain: Domain) -> None:
        gateway = self.domains.named(str(domain.netvm))
        pairs = [Pair(domain.ip4, gateway.ip4)]
        if self.domains.has_ipv6(domain.name):
            pairs.append(Pair(domain.ip6, gateway.ip6))
        link = self.laid[domain.name] = Link(
            client=domain.name,
            provider=gateway.name,
            vif=f"vif{self.serials[domain.name]}.0",
            mac=MAC,
            pairs=() if domain.provides_network else tuple(pairs),
        )
        self.databases.outdated(domain.name)
        self.platform.attach(link)


def _ends(domain: Domain, wanted: Domains, renew: frozenset[str]) -> bool:
    after = wanted.by_name.get(domain.name)
    return (
        after is None
        or domain.name in renew
        or (after.personality, after.uplink) != (domain.personality, domain.uplink)
        or (after.qid, after.disposable) != (domain.qid, domain.disposable)
        or after.given != domain.given
    )
