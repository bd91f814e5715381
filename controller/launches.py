# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs in a domain that provides network: its agent, and what that drives."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from controller.domain import Domain
from controller.ports import AgentStart, DaemonStart, Platform
from controller.supervise import Supervisor

# Nobody's: above 16 bits, so that neither adduser(8) nor systemd's transient users
# (61184 to 65519) come there, and below what useradd(8) and systemd-nspawn(1) give
# to containers (from 100000 and from 524288 on); systemd calls it unused
# ("Users, Groups, UIDs and GIDs on systemd Systems").
UIDS = range(66_000, 100_000)
FORGET = "forget"


def daemon_of(domain: str, name: str) -> str:
    """Return what a daemon is called among all that is supervised."""
    return f"{domain}/{name}"


@dataclass(slots=True)
class Launches:
    """The users of all that was started, and what it was started with."""

    platform: Platform
    supervisor: Supervisor
    _uids: dict[str, int] = field(default_factory=dict)
    _given: dict[str, bytes] = field(default_factory=dict)

    def uid(self, name: str) -> int:
        """Return the user of an agent, or of a daemon, that nobody else is."""
        if name not in self._uids:
            taken = set(self._uids.values())
            free = (uid for uid in UIDS if uid not in taken)
            self._uids[name] = self.platform.unused(free)
        return self._uids[name]

    def users(self, domains: Iterable[Domain]) -> Mapping[str, frozenset[int]]:
        """Return whom the uplinks of each domain with daemons carry.

        The agent is among them: it asks for the names of servers.
        """
        return {
            domain.name: frozenset(self._uids[name] for name in _names(domain))
            for domain in domains
            if len(_names(domain)) > 1 and self._uids.keys() >= set(_names(domain))
        }

    def start(self, domain: Domain, qubesdb: Path, resolvers: tuple[str, ...]) -> None:
        """Start the agent, then the launchers that wait for its word.

        What the files hold is read by the agent; if it is not the same any more,
        the domain is `outdated`.
        """
        personality = domain.personality
        if personality is None:
            raise ValueError(f"{domain.name} provides no network")
        self._given[domain.name] = _content(domain)
        names = {name: daemon_of(domain.name, name) for name in personality.daemons}
        agent = AgentStart(
            domain=domain.name,
            personality=personality.program,
            uid=self.uid(domain.name),
            qubesdb=qubesdb,
            resolvers=resolvers,
            word=personality.value,
            daemons={name: self.uid(key) for name, key in names.items()},
            secrets=dict(domain.files),
        )
        self.supervisor.add(domain.name, partial(self.platform.spawn_agent, agent))
        for name, key in names.items():
            keeps = FORGET not in domain.switches
            daemon = DaemonStart(domain.name, name, self.uid(key), agent.uid, keeps)
            self.supervisor.add(key, partial(self.platform.spawn_daemon, daemon))

    def end(self, domain: Domain) -> None:
        """Stop the agent before what it drives: the rules it leaves are closed."""
        for name in _names(domain):
            self.supervisor.remove(name)
            self._uids.pop(name, None)
        self._given.pop(domain.name, None)

    def is_outdated(self, domain: Domain) -> bool:
        """Whether a file of a domain that was started holds something else now."""
        given = self._given.get(domain.name)
        return given is not None and given != _content(domain)


def _names(domain: Domain) -> list[str]:
    """Return what its agent and its daemons are called."""
    daemons = domain.personality.daemons if domain.personality else ()
    return [domain.name, *(daemon_of(domain.name, name) for name in daemons)]


def _content(domain: Domain) -> bytes:
    """Return a hash of what the files of a domain hold, as far as they are there."""
    found = hashlib.sha256()
    for key, path in domain.files:
        text = path.read_bytes() if path.is_file() else b""
        found.update(f"{key} {len(text)}\n".encode() + text)
    return found.digest()
