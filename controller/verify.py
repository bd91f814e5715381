# SPDX-License-Identifier: GPL-2.0-or-later
"""``verify`` and ``explain``: what the kernels do, next to what is wanted of them."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from controller import explain, report, said
from controller.addresses import MAC
from controller.admin import Answer, Exit, Failure, Json, Request
from controller.domain import Domain
from controller.enforce import Enforcer
from controller.findings import PASSED, SENT, UNSURE
from controller.hop import Verdict
from controller.output import Row, cell, rows
from controller.prover import LIMIT, Proving, Ticket
from controller.question import Question, question
from controller.scene import Scene
from controller.steps import Until, Work
from controller.tasks import Verify, Walk
from controller.told import addresses
from proof.world import Packet
from rules.decide import Names

ATTEMPTS = 3  # what changes meanwhile is proved again
SOURCE_PORT = 40000  # of a packet that stands for all others
_TYPE = 8  # bits of the first word of ICMP below its type


@dataclass(slots=True)
class Verifier:
    """Asks the prover what people want to know."""

    enforcer: Enforcer
    prover: Proving

    def scene(self) -> Scene | None:
        """Return what is wanted of the kernels now, None before ``up``."""
        filed, deployment = self.enforcer.filed, self.enforcer.deployment
        if filed is None:
            return None
        return Scene(
            deployment.domains,
            dict(deployment.serials),
            said.names(deployment.databases),
            int(time.time()),
            filed.asserted,
            said.closed(deployment),
            deployment.launches.users(deployment.domains),
        )

    def verify(self, request: Request) -> Work:
        """Answer with what can be proved of every kernel, and what not."""
        self.enforcer.in_force()
        replay, ticket = not request.flag("no_replay"), None
        for _ in range(ATTEMPTS):
            yield Until("what changes to be in force", self.enforcer.is_still, LIMIT)
            scene = self.scene()
            if scene is None:
                break
            yield "proving what the kernels do"
            ticket = self.prover.ask(Verify(scene, replay, afresh=True))
            yield Until("the prover", ticket.done, LIMIT + LIMIT)
            after = self.scene()
            if after is not None and replace(after, now=scene.now) == scene:
                break
        if ticket is None or ticket.answer is None:
            why = "nothing is up any more" if ticket is None else ticket.failed
            return Failure(Exit.NOT_ENFORCED, f"not proved: {why}")
        known = ticket.answer if isinstance(ticket.answer, Mapping) else {}
        return Answer({**known, "domains": report.links(ticket.task.scene.domains)})

    def explain(self, request: Request) -> Work:
        """Answer with what the policy says of a flow, and what the kernels do."""
        source = request.text("domain")
        asked = _question(request)
        domains, names = self.enforcer.domains, self._names()
        now = int(time.time())
        routes = explain.explain(domains, source, asked, names=names, now=now)
        told = asked.told is not None
        whom = {"domain": source, "host": asked.host} if told else None
        data = report.explanation(routes, whom)
        scene, packets = self.scene(), tuple(_packets(domains.named(source), routes))
        if scene is None or not packets:
            return Answer(data)
        yield "asking the kernels"
        ticket = self.prover.ask(Walk(scene, source, packets))
        yield Until("the prover", ticket.done, LIMIT + LIMIT)
        return Answer(beside(data, ticket, domains.path(source)))

    def _names(self) -> Names:
        return said.names(self.enforcer.deployment.databases)


def _question(request: Request) -> Question:
    """Return what is asked, with what the domain was told if it was asked."""
    asked = question(request.maybe_text("proto"), request.text("destination"))
    untrusted_words = request.maybe_words("told")
    if untrusted_words is None:
        return asked
    return replace(asked, told=addresses(untrusted_words))


def _packets(domain: Domain, routes: Iterable[explain.Route]) -> Iterator[Packet]:
    """Yield a packet for each destination that kernels decide about."""
    for route in routes:
        sent = route.packet
        if sent is not None and domain.netvm is not None:
            own = domain.ip4 if isinstance(sent.dst, IPv4Address) else domain.ip6
            kind = sent.icmp_type
            first = SOURCE_PORT if kind is None else kind << _TYPE
            yield Packet(own, sent.dst, sent.proto, first, sent.port or 0, MAC)


def beside(
    data: Mapping[str, Json], ticket: Ticket, path: Sequence[Domain]
) -> Mapping[str, Json]:
    """Return what the policy says with what the kernels do beside it."""
    ways = {cell(way, "destination"): way for way in rows(ticket.answer, "ways")}
    missing = ticket.failed or _missing(ticket.answer)
    routes: list[Row] = []
    for route in rows(data, "routes"):
        way = ways.get(cell(route, "destination"))
        routes.append({**route, **_compared(route, way, path, missing)})
    return {**data, "routes": routes, "differs": any(r["differs"] for r in routes)}


def _missing(answer: Json) -> str:
    found = answer.get("missing") if isinstance(answer, Mapping) else None
    reasons = found.items() if isinstance(found, Mapping) else ()
    return "; ".join(f"{name}: {why}" for name, why in reasons)


def _compared(route: Row, way: Row | None, path: Sequence[Domain], missing: str) -> Row:
    """Return what the kernels do with the packet of a route, if they were asked."""
    if way is None and not missing:
        return {"kernels": [], "kernel_verdict": None, "differs": False}
    hops = [] if way is None else rows(way, "hops")
    verdict = _verdict(hops, path, missing)
    found: dict[str, Json] = {
        "kernels": hops,
        "kernel_verdict": verdict.value,
        "differs": verdict.value not in (Verdict.UNKNOWN.value, route.get("verdict")),
        "missing": missing or None,
    }
    return found


def _verdict(hops: Sequence[Row], path: Sequence[Domain], missing: str) -> Verdict:
    """Return the last word of the kernels on a packet."""
    last = hops[-1] if hops else None
    if last is None:
        return Verdict.UNKNOWN if missing else Verdict.DENY
    verdict, domain = cell(last, "verdict"), cell(last, "domain")
    kinds = (hop.personality for hop in path if hop.name == domain)
    tunnels = [name for kind in kinds if kind for name in kind.tunnels or ()]
    left = domain == path[-1].name or cell(last, "out") in tunnels
    if verdict == UNSURE or (verdict == SENT and not left):
        return Verdict.UNKNOWN
    return Verdict.ACCEPT if verdict in PASSED else Verdict.DENY
