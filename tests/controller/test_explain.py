# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a packet passes or not, in the words a user gets."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from controller.domains import Domain, Domains
from controller.explain import Route, explain
from controller.hop import Verdict
from controller.policy import read
from controller.question import Question, QuestionError, question

EXAMPLE = Path(__file__).parents[2] / "examples" / "home.toml"
HOME = read(EXAMPLE.read_text(), file="home.toml", qids={}, now=1000)
OWN = "its own traffic: no rules stand before a NetVM"
NAMES = {
    "www.example.com": frozenset({ip_address("203.0.113.80")}),
    "both.example.com": frozenset(map(ip_address, ("192.168.1.1", "2001:db8::80"))),
}


def asked(source: str, *words: str, domains: Domains = HOME) -> tuple[Route, ...]:
    proto, destination = words if len(words) == 2 else (None, words[0])
    names = NAMES
    return explain(domains, source, question(proto, destination), names=names, now=1000)


def sentences(routes: tuple[Route, ...]) -> list[str]:
    return [
        f"{hop.domain}: {hop.verdict.value}, {hop.rule or 'no rule'}, {hop.reason}"
        for route in routes
        for hop in route.hops
    ]


UNRESOLVED = "no known address: intranet.example.com"


@pytest.mark.parametrize(
    ("source", "words", "says"),
    [
        pytest.param(
            "work",
            ["www.example.com:443"],
            [
                (
                    "sys-firewall: accept, accept dsthost=www.example.com proto=tcp "
                    "dstports=443-443 comment=the public site, "
                    f"rule 2 of work; {UNRESOLVED}"
                ),
                "sys-net: accept, accept, rule 0 of sys-firewall",
                "sys-net: accept, no rule, leaves into the embedded internet",
            ],
            id="a rule accepts, and the firewall's own netvm does too",
        ),
        pytest.param(
            "work",
            ["www.example.com:80"],
            [
                f"sys-firewall: deny, no rule, no rule of work matches; {UNRESOLVED}",
            ],
            id="no rule matches",
        ),
        pytest.param(
            "personal",
            ["udp", "192.168.1.1:53"],
            [
                "sys-firewall: deny, drop dst4=192.168.0.0/16, rule 3 of personal",
            ],
            id="a rule denies",
        ),
        pytest.param(
            "work",
            ["udp", "10.139.1.1:53"],
            [
                "sys-firewall: accept, accept specialtarget=dns, rule 0 of work",
                "sys-net: accept, accept, rule 0 of sys-firewall",
                "sys-net: accept, no rule, answered by the resolver of sys-net",
            ],
            id="names",
        ),
        pytest.param(
            "vault",
            ["www.example.com"],
            ["vault: deny, no rule, it has no netvm: it never gets an interface"],
            id="no netvm",
        ),
        pytest.param(
            "untrusted",
            ["10.137.0.4:22"],
            [
                (
                    "sys-firewall2: deny, no rule, 10.137.0.4 is an address of domains "
                    "(work): they do not reach one another"
                ),
            ],
            id="another domain",
        ),
        pytest.param(
            "untrusted",
            ["10.137.0.3"],
            ["sys-firewall2: accept, no rule, ping of this domain"],
            id="ping of the netvm",
        ),
        pytest.param(
            "untrusted",
            ["10.137.0.3:22"],
            [
                (
                    "sys-firewall2: deny, no rule, a netvm serves its clients "
                    "names and ping only"
                ),
            ],
            id="a service of the netvm",
        ),
        pytest.param(
            "untrusted",
            ["tcp", "[ff02::1]:80"],
            ["sys-firewall2: deny, no rule, ff02::1 is never forwarded"],
            id="multicast",
        ),
        pytest.param(
            "work",
            ["intranet.example.com:443"],
            [
                (
                    "sys-firewall: unknown, accept dsthost=intranet.example.com "
                    "proto=tcp dstports=443-443, intranet.example.com: no known "
                    "address, and rule 1 of work depends on it; "
                    "--resolve has work ask for it"
                ),
            ],
            id="an unknown name",
        ),
        pytest.param(
            "sys-net",
            ["192.0.2.1"],
            [f"sys-net: accept, no rule, {OWN}"],
            id="the NetVM itself",
        ),
    ],
)
def test_each_hop_says_what_it_decides_and_why(
    source: str, words: list[str], says: list[str]
) -> None:
    assert sentences(asked(source, *words)) == says


def test_what_a_domain_was_told_counts_and_not_what_the_agents_know() -> None:
    told = Question("www.example.com", "tcp", 443, told=(ip_address("192.0.2.9"),))
    found = explain(HOME, "work", told, names=NAMES, now=1000)

    assert [(r.destination, r.verdict) for r in found] == [("192.0.2.9", Verdict.DENY)]
    assert asked("work", "www.example.com:443")[0].verdict is Verdict.ACCEPT


def test_every_address_of_a_name_is_explained() -> None:
    routes = asked("personal", "both.example.com")

    assert [(r.destination, r.verdict) for r in routes] == [
        ("192.168.1.1", Verdict.DENY),
        ("2001:db8::80", Verdict.ACCEPT),
    ]


def test_a_firewall_is_a_client_of_its_netvm() -> None:
    strict = HOME.by_name["work"].policy
    domains = Domains(
        {
            **HOME.by_name,
            "sys-firewall2": Domain(
                "sys-firewall2",
                3,
                personality=HOME.by_name["sys-firewall2"].personality,
                netvm="sys-net",
                policy=strict,
            ),
        }
    )

    hops = asked("untrusted", "203.0.113.80:22", domains=domains)[0].hops

    assert [(hop.domain, hop.verdict) for hop in hops] == [
        ("sys-firewall2", Verdict.ACCEPT),
        ("sys-net", Verdict.DENY),
    ]
    assert hops[1].reason.startswith("no rule of sys-firewall2 matches")


def test_ipv6_that_is_off_is_said_to_be_off() -> None:
    text = EXAMPLE.read_text().replace('label = "green"', "ipv6 = false")
    domains = read(text, file="x", qids={}, now=1000)

    assert sentences(asked("work", "2001:db8::1", domains=domains)) == [
        "work: deny, no rule, it has no IPv6: ipv6 = false at sys-firewall"
    ]


@pytest.mark.parametrize(
    ("proto", "destination", "means"),
    [
        (None, "www.example.com", Question("www.example.com", "icmp", None)),
        (None, "192.0.2.1:443", Question("192.0.2.1", "tcp", 443)),
        (None, "WWW.Example.com:443", Question("www.example.com", "tcp", 443)),
        ("udp", "192.0.2.1:53", Question("192.0.2.1", "udp", 53)),
        (None, "2001:db8::1", Question("2001:db8::1", "icmp", None)),
        (None, "[2001:db8::1]", Question("2001:db8::1", "icmp", None)),
        ("tcp", "[2001:db8::1]:80", Question("2001:db8::1", "tcp", 80)),
        ("tcp", "a:0", Question("a", "tcp", 0)),
    ],
)
def test_a_destination_is_a_host_and_perhaps_a_port(
    proto: str | None, destination: str, means: Question
) -> None:
    assert question(proto, destination) == means


@pytest.mark.parametrize(
    ("proto", "destination", "says"),
    [
        ("tcp", "a", "tcp needs a port, expected a:PORT"),
        ("icmp", "a:80", "icmp has no ports, expected a"),
        ("sctp", "a:80", "expected tcp, udp or icmp"),
        (None, "a:65536", "tcp needs a port, expected a:PORT, 0 to 65535"),
        (None, "", "expected HOST, HOST:PORT"),
        (None, "a:http", "expected HOST, HOST:PORT"),
        (None, "10.0.0.256", "no address, and no name"),
        ("tcp", "www.example.com/index:80", "no address, and no name"),
    ],
)
def test_what_is_no_destination_is_refused(
    proto: str | None, destination: str, says: str
) -> None:
    with pytest.raises(QuestionError, match=says):
        question(proto, destination)
