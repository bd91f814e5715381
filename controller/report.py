# SPDX-License-Identifier: GPL-2.0-or-later
"""The data of the daemon's answers, as ``--json`` prints it.

``docs/reference/command.md`` lists the keys for users.
"""

from collections.abc import Iterable, Iterator, Mapping

from controller.admin import Json
from controller.amend import rule_text
from controller.domains import Domain, Domains
from controller.explain import Route
from controller.hop import Verdict
from controller.judge import Verdicts
from controller.plan import Change
from controller.traffic import Traffic
from rules.decide import alive
from rules.emit import api_line
from rules.model import Anywhere, Name, Network, Rule


def status(
    domains: Domains,
    states: Mapping[str, str],
    problems: Mapping[str, str],
    reports: Mapping[str, Mapping[str, str]],
    traffic: Mapping[str, Traffic],
) -> Mapping[str, Json]:
    """Return every domain in the order of a tree, NetVMs first.

    ``states``, ``problems`` and ``reports`` have what the agents say, by domain;
    bytes and bytes per second are None where nothing is linked or known.
    """
    return {
        "domains": [
            {
                "name": domain.name,
                "depth": depth,
                "label": domain.label.value,
                "personality": _word(domain),
                "netvm": domain.netvm,
                "ip": str(domain.ip4),
                "ip6": str(domain.ip6) if domains.has_ipv6(domain.name) else None,
                "rules": len(domain.policy.rules),
                "disposable": domain.disposable,
                "state": states.get(domain.name, "unknown"),
                **_traffic(traffic.get(domain.name)),
                "report": dict(reports.get(domain.name, {})),
                "problem": problems.get(domain.name),
            }
            for depth, domain in tree(domains)
        ]
    }


def links(domains: Domains) -> Json:
    """Return who every domain is linked to."""
    return [
        {
            "name": domain.name,
            "label": domain.label.value,
            "personality": _word(domain),
            "netvm": domain.netvm,
        }
        for _, domain in tree(domains)
    ]


def _traffic(found: Traffic | None) -> Mapping[str, Json]:
    if found is None:
        return dict.fromkeys(("received", "sent", "receiving", "sending"))
    rates = (found.receiving, found.sending)
    receiving, sending = (None if rate is None else round(rate) for rate in rates)
    return {
        "received": found.received,
        "sent": found.sent,
        "receiving": receiving,
        "sending": sending,
    }


def tree(domains: Domains) -> Iterator[tuple[int, Domain]]:
    """Yield each domain after its netvm, with the length of its path."""
    roots = [domain for domain in domains if domain.netvm is None]
    roots.sort(key=lambda domain: (not domain.provides_network, domain.qid))
    todo = [(0, root) for root in reversed(roots)]
    while todo:
        depth, domain = todo.pop()
        yield depth, domain
        todo += [(depth + 1, c) for c in reversed(domains.clients(domain.name))]


def prefs(domain: Domain) -> Json:
    """Return the settings of one domain."""
    return {
        "name": domain.name,
        "label": domain.label.value,
        "personality": _word(domain),
        "netvm": domain.netvm,
        "ipv6": domain.ipv6,
        "ip": str(domain.ip4),
    }


def rules(domain: Domain, *, now: int) -> Json:
    """Return the rules of one domain, expired ones included.

    ``now`` is in seconds since the Unix epoch.
    """
    return {
        "domain": domain.name,
        "rules": [
            _rule(number, rule, now) for number, rule in enumerate(domain.policy.rules)
        ],
        "default": domain.policy.default.value,
    }


def plan(changes: Iterable[Change]) -> Mapping[str, Json]:
    """Return what changes or has changed, line by line."""
    return {"changes": _changes(changes)}


def meaning(
    found: Mapping[str, Iterable[Change]], verdicts: Verdicts, file: str
) -> Mapping[str, Json]:
    """Return what was found out, by key, and the assertions that are not kept."""
    return {
        **{key: _changes(changes) for key, changes in found.items()},
        "failing": [f"{file}:{line}" for line in verdicts.failing],
        "unjudged": [f"{file}:{line}" for line in verdicts.unknown],
    }


def _changes(changes: Iterable[Change]) -> Json:
    return [
        {"sign": change.sign.value, "domain": change.domain, "text": change.text}
        for change in changes
    ]


def explanation(
    routes: Iterable[Route], asked: Mapping[str, Json] | None = None
) -> Mapping[str, Json]:
    """Return the hops of each route, and the verdict of all of them together.

    ``asked`` is which domain was asked for which host, if any was.
    """
    routes = tuple(routes)
    verdicts = {route.verdict for route in routes}
    passes = verdicts == {Verdict.ACCEPT}
    return {
        "accepted": passes,
        "asked": asked,
        "routes": [
            {
                "destination": route.destination,
                "verdict": route.verdict.value,
                "hops": [
                    {
                        "domain": hop.domain,
                        "verdict": hop.verdict.value,
                        "rule": hop.rule,
                        "reason": hop.reason,
                    }
                    for hop in route.hops
                ],
            }
            for route in routes
        ],
    }


def _word(domain: Domain) -> str | None:
    return None if domain.personality is None else domain.personality.value


def _rule(number: int, rule: Rule, now: int) -> Json:
    ports = rule.ports
    return {
        "number": number,
        "action": rule.action.value,
        "host": _host(rule),
        "proto": None if rule.proto is None else rule.proto.value,
        "ports": None if ports is None else _range(ports.first, ports.last),
        "target": None if rule.special is None else rule.special.value,
        "icmptype": rule.icmp_type,
        "expires": None if rule.expire is None else _left(rule, rule.expire, now),
        "comment": rule.comment,
        "text": rule_text(rule),
        "raw": api_line(rule),
    }


def _host(rule: Rule) -> str | None:
    match rule.destination:
        case Anywhere():
            return None
        case Network(prefix):
            host = str(prefix.network_address)
            return host if prefix.prefixlen == prefix.max_prefixlen else str(prefix)
        case Name(host):
            return host


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _left(rule: Rule, expire: int, now: int) -> str:
    return f"+{expire - now}s" if alive(rule, now) else "expired"
