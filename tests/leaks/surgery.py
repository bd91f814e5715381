# SPDX-License-Identifier: GPL-2.0-or-later
"""Take the layers of a gateway away, one by one, as a hostile root could.

For chains whose controller has crashed: a live agent heals its routing.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from tests.leaks.chain import Chain

OURS = range(1, 32766)  # priorities between those of the kernel's own rules
VERSIONS = ("-4", "-6")


class Layer(Enum):
    """The three layers of DESIGN.md, decision 3."""

    GUARD = "guard"
    ROUTING = "routing"
    RULES = "rules"


TABLES = {
    Layer.GUARD: ("inet ravelin-guard", "arp ravelin-guard", "netdev ravelin-guard"),
    Layer.RULES: ("ip qubes", "ip6 qubes"),
}


def remove(chain: Chain, domain: str, layer: Layer) -> None:
    """Take a layer away; without routing, table main knows the clients."""
    if layer is Layer.ROUTING:
        _remove_routing(chain, domain)
        return
    for table in TABLES[layer]:
        chain.run(domain, "nft", "delete", "table", *table.split())


@contextmanager
def restored(chain: Chain, *domains: str) -> Iterator[None]:
    """Put nftables, routing rules and table main back afterwards."""
    nft = {d: chain.run(d, "nft", "list", "ruleset") for d in domains}
    rules = {(d, v): _rules(chain, d, v) for d in domains for v in VERSIONS}
    routes = {(d, v): _main(chain, d, v) for d in domains for v in VERSIONS}
    yield
    for domain, before in nft.items():
        chain.run(domain, "nft", "-f", "-", feed=f"flush ruleset\n{before}")
    for (domain, version), wanted in rules.items():
        for words in set(wanted) - set(_rules(chain, domain, version)):
            chain.run(domain, "ip", version, "rule", "add", *words.split())
    for (domain, version), known in routes.items():
        now = _main(chain, domain, version)
        for words in now - known:
            chain.run(domain, "ip", version, "route", "del", *words.split())


def links(chain: Chain, domain: str) -> list[str]:
    """Return the names of the interfaces of a domain."""
    found = json.loads(chain.run(domain, "ip", "-j", "link"))
    return [str(link["ifname"]) for link in found]


def routing(chain: Chain, domain: str) -> str:
    """Return every routing rule and every route but those of the cache."""
    asked = ("rule", "route show table all")
    return "".join(
        chain.run(domain, "ip", version, *words.split())
        for words in asked
        for version in VERSIONS
    )


def _remove_routing(chain: Chain, domain: str) -> None:
    for version in VERSIONS:
        for rule in _rules(chain, domain, version):
            chain.run(domain, "ip", version, "rule", "del", *rule.split())
        shown = chain.run(domain, "ip", version, "route", "show", "table", "10137")
        for line in shown.splitlines():
            words = line.split()
            to, device = words[0], words[words.index("dev") + 1]
            chain.run(domain, "ip", version, "route", "add", to, "dev", device)


def _rules(chain: Chain, domain: str, version: str) -> list[str]:
    found = []
    for line in chain.run(domain, "ip", version, "rule").splitlines():
        priority, _, words = line.partition(":")
        if int(priority) in OURS:
            found.append(f"pref {priority} {' '.join(words.split())}")
    return found


def _main(chain: Chain, domain: str, version: str) -> set[str]:
    shown = chain.run(domain, "ip", version, "route", "show", "table", "main")
    return {" ".join(line.split()) for line in shown.splitlines()}
