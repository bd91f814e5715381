# SPDX-License-Identifier: GPL-2.0-or-later
"""What is asked of a TorVM: another identity for a client, who uses which circuit.

The question goes to the agent as a key of its QubesDB with a number, and the
answer comes back in its report with the same number.
"""

from collections.abc import Iterator
from itertools import pairwise

from controller.admin import Answer, Exit, Failure, Json, Request
from controller.deploy import Deployment
from controller.domains import Domain
from controller.personality import Personality
from controller.steps import Until, Work

UP = "up"  # the state in which a TorVM has circuits
IDENTITY = "new-identity/"
CIRCUITS, ANSWERED, OF_CLIENT = "circuits", "circuits-serial", "circuits/"
ADDRESSES = " addresses"
MISSED = "streams-missed"  # reported once a client kept the agent from knowing
# Of all that a TorVM may have open, as many as anybody looks at.
SHOWN = 1000


def tor(deployment: Deployment, request: Request) -> Work:
    """Carry out ``ravelin tor``."""
    name = request.maybe_text("domain")
    match request.text("action"):
        case "new-identity":
            if name is None:
                return Failure(Exit.USAGE, "tor new-identity: expected a DOMAIN")
            return (yield from _new_identity(deployment, name))
        case "circuits":
            addresses = request.flag("addresses")
            return (yield from _circuits(deployment, name, addresses=addresses))
        case word:
            return Failure(Exit.USAGE, f"tor {word}: expected circuits or new-identity")


def _new_identity(deployment: Deployment, name: str) -> Work:
    domain = deployment.domains.named(name)
    found = _through(deployment, domain)
    if isinstance(found, Failure):
        return found
    client, gateway = found
    path = f"{IDENTITY}{client.ip4}"
    yield f"asking {gateway.name}"
    serial = _ask(deployment, gateway.name, path, "")
    yield Until(
        f"{gateway.name} to give {client.name} other circuits",
        lambda: deployment.databases.report(gateway.name).get(path) == serial,
    )
    return Answer({"domain": name, "client": client.name, "gateway": gateway.name})


def _circuits(deployment: Deployment, name: str | None, *, addresses: bool) -> Work:
    domains = deployment.domains
    if name is None:
        gateways = [d for d in domains if d.personality == Personality.TOR]
        wanted = {c.name for g in gateways for c in domains.clients(g.name)}
    else:
        found = _through(deployment, domains.named(name))
        if isinstance(found, Failure):
            return found
        wanted, gateways = {found[0].name}, [found[1]]
    rows: list[Json] = []
    incomplete: list[Json] = []
    for gateway in gateways:
        if why := _not_up(deployment, gateway):
            return why
        more = ADDRESSES if addresses else ""
        yield f"asking {gateway.name}"
        serial = _ask(deployment, gateway.name, CIRCUITS, more)
        yield Until(
            f"{gateway.name} to name its circuits",
            lambda name=gateway.name, serial=serial: (  # type: ignore[misc]
                deployment.databases.report(name).get(ANSWERED) == serial
            ),
        )
        rows += [row for row in _rows(deployment, gateway) if row["domain"] in wanted]
        if MISSED in deployment.databases.report(gateway.name):
            incomplete.append(gateway.name)
    return Answer({"circuits": rows[:SHOWN], "incomplete": incomplete})


def _through(deployment: Deployment, domain: Domain) -> tuple[Domain, Domain] | Failure:
    """Return the TorVM on the way of a domain, and who is its client there."""
    way = (domain, *deployment.domains.path(domain.name))
    for client, gateway in pairwise(way):
        if gateway.personality == Personality.TOR:
            return _not_up(deployment, gateway) or (client, gateway)
    text = f'{domain.name}: no domain on its way has personality = "tor"'
    return Failure(Exit.USAGE, text)


def _not_up(deployment: Deployment, gateway: Domain) -> Failure | None:
    said = deployment.databases.status(gateway.name)
    if said is not None and said.state == UP:
        return None
    why = deployment.databases.trouble(gateway.name) or "it has no circuits yet"
    return Failure(Exit.NOT_ENFORCED, f"{gateway.name}: {why}")


def _ask(deployment: Deployment, gateway: str, path: str, more: str) -> str:
    """Ask a TorVM something, and return the number of the question."""
    asks = deployment.asks.setdefault(gateway, {})
    before = asks.get(path, "0").partition(" ")[0]
    serial = str(int(before) + 1)
    asks[path] = f"{serial}{more}"
    deployment.refill()
    return serial


def _rows(deployment: Deployment, gateway: Domain) -> Iterator[dict[str, Json]]:
    """Yield what the agent says of each circuit; its words are untrusted."""
    names = {str(c.ip4): c.name for c in deployment.domains.clients(gateway.name)}
    report = deployment.databases.report(gateway.name)
    for key, untrusted_text in sorted(report.items()):
        if key.startswith(OF_CLIENT):
            address, _, number = key.removeprefix(OF_CLIENT).partition("/")
            yield {
                "domain": names.get(address, address),
                "gateway": gateway.name,
                "circuit": number,
                "relays": untrusted_text,
            }
