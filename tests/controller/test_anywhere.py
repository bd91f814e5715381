# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said without knowing an address is what is said of every address."""

import random
from dataclasses import replace
from ipaddress import ip_address

import pytest

from controller.domains import Domains
from controller.explain import explain
from controller.hop import Hop, Verdict
from controller.nowhere import RESOLVERS
from controller.policy import read
from controller.question import Question
from rules.model import Address, Policy
from rules.parse import parse_text

HOME = """\
[domains.net]
personality = "netvm"
uplink = "lab"
[domains.fw]
personality = "firewall"
netvm = "net"
[domains.tor]
personality = "tor"
netvm = "fw"
[domains.work]
netvm = "fw"
[domains.bare]
netvm = "net"
ipv6 = false
[domains.anon]
netvm = "tor"
[domains.vault]
"""
NOW = 1000
DOMAINS = read(HOME, file="home.toml", qids={}, now=NOW)
KNOWN = ip_address("198.51.100.80")
NAMES = {"www.example.com": frozenset({KNOWN, ip_address("2001:db8:1::80")})}
PLACES: tuple[Address, ...] = (
    *sorted(RESOLVERS, key=str),
    *(each for d in DOMAINS for each in (d.ip4, d.ip6)),
    *(each for found in NAMES.values() for each in sorted(found, key=str)),
    *map(ip_address, ("192.0.2.1", "192.168.1.1", "10.1.2.3", "203.0.113.1")),
    *map(ip_address, ("127.0.0.1", "0.0.0.0", "169.254.1.1", "224.0.0.1")),
    *map(ip_address, ("2001:db8::1", "fd00::1", "fe80::1", "ff02::1", "::1")),
)
RULES = (
    *("accept", "drop", "accept proto=tcp", "drop proto=udp", "accept proto=icmp"),
    *("accept specialtarget=dns", "drop specialtarget=dns proto=tcp"),
    *("accept dst4=192.168.0.0/16", "drop dst4=192.0.2.0/24", "drop dst6=fc00::/7"),
    *("accept dst4=0.0.0.0/0", "drop dsthost=www.example.com"),
    *("accept dsthost=www.example.com proto=tcp dstports=443", "drop expire=999"),
    *("accept proto=tcp dstports=1-442", "drop proto=tcp dstports=443"),
    *(
        "accept proto=icmp icmptype=8",
        "drop proto=udp dstports=53",
        "accept expire=999",
    ),
)
QUESTIONS = [
    *(("tcp", 443), ("tcp", 80), ("tcp", 53), ("udp", 53), ("udp", 4433)),
    ("icmp", None),
]


def ruled(lists: dict[str, list[str]]) -> Domains:
    """Return the domains with these lists."""
    rules = {n: [parse_text(x, now=0) for x in each] for n, each in lists.items()}
    found = {n: Policy(tuple(each)) for n, each in rules.items()}
    policies = {d.name: found.get(d.name, d.policy) for d in DOMAINS}
    return Domains({d.name: replace(d, policy=policies[d.name]) for d in DOMAINS})


def said(
    domains: Domains, source: str, proto: str, port: int | None, at: Address | None
) -> Hop:
    host = "a.example" if at is None else str(at)
    asked = Question(host, proto, port)
    (route,) = explain(domains, source, asked, names=NAMES, now=NOW)
    return route.hops[-1]


def test_what_is_sure_is_so_of_every_address_there_is() -> None:
    draw = random.Random(2)
    sure = dict.fromkeys(Verdict, 0)
    for _ in range(50):
        lists = {n: draw.choices(RULES, k=draw.randrange(5)) for n in ("work", "fw")}
        lists |= {n: draw.choices(RULES, k=draw.randrange(3)) for n in ("anon", "bare")}
        domains = ruled(lists)
        for source in ("work", "bare", "anon", "fw", "vault", "net"):
            for proto, port in QUESTIONS:
                hop = said(domains, source, proto, port, None)
                sure[hop.verdict] += 1
                if hop.verdict is Verdict.UNKNOWN:
                    continue
                verdicts = {
                    said(domains, source, proto, port, at).verdict for at in PLACES
                }
                assert verdicts == {hop.verdict}, (lists, source, proto, port, hop)
    assert min(sure.values()) > 50


LIST = ["drop dst4=10.0.0.0/8", "accept proto=tcp dstports=443"]
SURE = "whatever its address"
HINT = "--resolve has work ask for it"


@pytest.mark.parametrize(
    ("rules", "port", "reason"),
    [
        (LIST, 80, f"no rule of work, {SURE}"),
        (["drop"], 80, f"rule 0 of work, {SURE}"),
        (
            ["drop dst4=10.0.0.0/8", "drop"],
            80,
            f"rule 1 or one before it of work, {SURE}",
        ),
        (
            ["accept dsthost=a.example proto=tcp dstports=443", "drop"],
            80,
            f"rule 1 of work, {SURE}",
        ),
        (["accept expire=999", "drop"], 80, f"rule 1 of work, {SURE}"),
        (
            LIST,
            443,
            f"a.example: no known address, and rule 0 of work depends on it; {HINT}",
        ),
        (
            ["accept"],
            80,
            f"a.example: no known address, and some are never forwarded; {HINT}",
        ),
    ],
)
def test_a_list_that_never_asks_for_the_address_decides_without_it(
    rules: list[str], port: int, reason: str
) -> None:
    hop = said(ruled({"work": rules}), "work", "tcp", port, None)

    sure = reason.endswith(SURE)
    assert hop.verdict is (Verdict.DENY if sure else Verdict.UNKNOWN)
    assert hop.reason == reason


def test_hops_that_accept_whatever_the_address_are_shown_up_to_the_doubt() -> None:
    asked = Question("a.example", "tcp", 443)
    (route,) = explain(DOMAINS, "work", asked, names={}, now=NOW)

    found = [(hop.domain, hop.verdict) for hop in route.hops]
    accept, unknown = Verdict.ACCEPT, Verdict.UNKNOWN
    assert found == [("fw", accept), ("net", accept), ("net", unknown)]
    assert route.packet is None


def test_what_tor_does_not_carry_is_denied_without_an_address() -> None:
    reason = "it carries nothing but TCP and questions for names"
    hop = said(DOMAINS, "anon", "udp", 4433, None)
    assert (hop.domain, hop.verdict, hop.reason) == ("tor", Verdict.DENY, reason)
    assert said(DOMAINS, "anon", "udp", 53, None).verdict is Verdict.UNKNOWN
    assert said(DOMAINS, "anon", "tcp", 443, None).verdict is Verdict.UNKNOWN


def test_a_name_for_which_a_domain_was_told_nothing_is_said_to_be_one() -> None:
    asked = Question("a.example", "tcp", 443, told=())
    (route,) = explain(ruled({"work": LIST}), "work", asked, names=NAMES, now=NOW)

    assert route.hops[-1].verdict is Verdict.UNKNOWN
    expected = "a.example: work was told no address, and rule 0 of work depends on it"
    assert route.hops[-1].reason == expected
