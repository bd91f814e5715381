# SPDX-License-Identifier: GPL-2.0-or-later
"""Which adapter stands behind which port of an agent."""

from agent.capacity import capacity
from agent.conntrack import CtNetlink
from agent.crowd import Crowd
from agent.cut import Cutter
from agent.database import Database
from agent.enforce import Enforcer
from agent.hardening import Role
from agent.leases import Leases
from agent.links import LinkTable
from agent.loop import Agent
from agent.names import Names
from agent.network import Network
from agent.personality import Personality
from agent.ports import Firewall
from agent.qubesdb import QubesDb
from agent.sysctl import harden
from agent.systemd import Notifier


def run(personality: Personality, firewall: Firewall) -> None:
    """Run the agent of this network namespace until it is told to stop."""
    # First: it gives up rights that nothing else needs.
    leases = Leases()
    for role in (Role.HOST, Role.NEW):
        harden(role)
    links, conntrack = LinkTable(), CtNetlink()
    Agent(
        personality=personality,
        database=Database(QubesDb()),
        links=links,
        enforcer=Enforcer(firewall, personality.kind, capacity()),
        network=Network(links, firewall, pin_gateway=personality.pin_gateway),
        cutter=Cutter(conntrack),
        crowd=Crowd(conntrack),
        names=Names(),
        leases=leases,
        notifier=Notifier(),
    ).run()
