# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agents say, in words for people."""

from collections.abc import Mapping
from ipaddress import ip_address

from controller.databases import Databases
from controller.deploy import Deployment
from controller.settled import HOPELESS
from controller.supervise import Phase
from rules.model import Address

BLOCKED = "blocked"  # `agent.machine.Way`
MISSING = "its uplink has no address, or no next hop"
# Those of `netvm.states`, `torvm.states` and `vpn.states`, and of an agent that
# says nothing.  What another personality calls its own is none of them.
CLOSED = frozenset(
    {BLOCKED, "down", "connecting", "lost", "error"}
    | {Phase.STARTING.value, Phase.FAILED.value}
)


def states(deployment: Deployment) -> Mapping[str, str]:
    """Return a word for how each domain is."""
    return {
        domain.name: _state(deployment, domain.name) for domain in deployment.domains
    }


def closed(deployment: Deployment) -> Mapping[str, str]:
    """Return the domains that say that they let nobody out, and in which state."""
    providers = (d.name for d in deployment.domains if d.provides_network)
    found = ((name, _state(deployment, name)) for name in providers)
    return {name: state for name, state in found if state in CLOSED}


def problems(deployment: Deployment) -> Mapping[str, str]:
    """Return what is wrong, by domain: with its agent, its uplink or its rules."""
    notes = {
        name: "; ".join(notes) for name, notes in deployment.notes.items() if notes
    }
    return {
        **{name: MISSING for name, x in states(deployment).items() if x == BLOCKED},
        **notes,
        **deployment.waiting(),
        **_failing(deployment),
        **troubles(deployment),
        **refusals(deployment),
    }


def troubles(deployment: Deployment) -> Mapping[str, str]:
    """Return what the agents say keeps their personalities from working.

    An agent knows a file by its key in the policy, and a client by its address;
    people know them by their names.
    """
    databases, known = deployment.databases, deployment.domains.by_name
    found = {name: databases.trouble(name) for name in databases.names()}
    clients = {str(domain.ip4): domain.name for domain in deployment.domains}

    def names(name: str) -> Mapping[str, str]:
        files = known[name].files if name in known else ()
        return clients | {key: path.name for key, path in files}

    return {
        name: _named(names(name), untrusted_trouble)
        for name, untrusted_trouble in found.items()
        if untrusted_trouble
    }


def _named(names: Mapping[str, str], untrusted_trouble: str) -> str:
    keys, colon, rest = untrusted_trouble.partition(":")
    return f"{', '.join(names.get(key, key) for key in keys.split(', '))}{colon}{rest}"


def reports(deployment: Deployment) -> Mapping[str, Mapping[str, str]]:
    """Return what the personalities report, by domain."""
    databases = deployment.databases
    return {name: databases.report(name) for name in databases.names()}


def _failing(deployment: Deployment) -> Mapping[str, str]:
    """Return the daemons that end again and again, by domain."""
    conditions = deployment.supervisor.conditions().items()
    return {
        name.partition("/")[0]: f"{name.partition('/')[2]} ends: {condition.reason}"
        for name, condition in conditions
        if "/" in name and condition.failures >= HOPELESS
    }


def refusals(deployment: Deployment) -> Mapping[str, str]:
    """Return the clients that an agent denies everything, and why."""
    databases = deployment.databases
    found = [x for name in databases.names() for x in databases.errors(name).items()]
    if not found:  # as nearly always, and this is asked all the time
        return {}
    owners = {
        str(address): domain.name
        for domain in deployment.domains
        for address in (domain.ip4, domain.ip6)
    }
    return {
        owners[untrusted_address]: f"denied everything: {why}"
        for untrusted_address, why in found
        if untrusted_address in owners
    }


def names(databases: Databases) -> Mapping[str, frozenset[Address]]:
    """Return what the agents take each name in a rule for."""
    found: dict[str, frozenset[Address]] = {}
    for host, untrusted_text in databases.resolved():
        try:
            addresses = frozenset(map(ip_address, untrusted_text.split()))
        except ValueError:
            continue  # an agent that writes nonsense knows nothing
        found[host] = found.get(host, frozenset()) | addresses
    return found


def _state(deployment: Deployment, name: str) -> str:
    if not deployment.domains.by_name[name].provides_network:
        return "linked" if name in deployment.serials else "no network"
    condition = deployment.supervisor.conditions().get(name)
    if condition is None or condition.phase is not Phase.READY:
        return condition.phase.value if condition else Phase.STARTING.value
    said = deployment.databases.status(name)
    return said.state if said else Phase.STARTING.value
