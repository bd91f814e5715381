# SPDX-License-Identifier: GPL-2.0-or-later
"""An assertion that a policy does not keep is found, with a packet and its rule."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from controller.judge import Judge, Verdicts
from controller.policy import asserted, read
from rules.decide import Names

HOME = (Path(__file__).parents[2] / "examples" / "home.toml").read_text()
LINE = HOME.count("\n") + 2
NAMES = {
    "intranet.example.com": frozenset({ip_address("10.200.0.10")}),
    "www.example.com": frozenset(map(ip_address, ("198.51.100.80", "2001:db8:80::80"))),
}


def judged(*keys: str, names: Names = NAMES, home: str = HOME) -> Verdicts:
    text = "\n".join((home, "[[assert]]", *keys, ""))
    domains = read(text, file="home.toml", qids={}, now=0)
    return sum(Judge(domains, names, 0).verdicts(asserted(text)), start=Verdicts())


KEPT = {
    "no LAN": ('from = "personal"', 'to = "10.0.0.0/8"', 'expect = "blocked"'),
    "a vault": ('from = "vault"', 'expect = "blocked"'),
    "no other domain": (
        *('from = ["work", "personal", "untrusted"]', 'to = ["vault", "work"]'),
        'expect = "blocked"',
    ),
    "what it works with": (
        *('from = "work"', 'to = ["intranet.example.com", "www.example.com"]'),
        *('proto = "tcp"', "ports = 443", 'expect = "reach"'),
    ),
    "everything": ('from = "untrusted"', 'expect = "reach"'),
    "its own path": ('from = "untrusted"', 'expect = "only-through sys-firewall2"'),
    "a path, for one that is nowhere": (
        *('from = "vault"', 'expect = "only-through sys-firewall"'),
    ),
    "ping of its netvm": (
        *('from = "work"', 'to = "sys-firewall"', 'proto = "icmp"'),
        'expect = "reach"',
    ),
    "no mail": ('from = "work"', 'proto = "tcp"', "ports = 25", 'expect = "blocked"'),
}


@pytest.mark.parametrize("keys", KEPT.values(), ids=KEPT)
def test_what_a_policy_means_is_kept(keys: tuple[str, ...]) -> None:
    assert judged(*keys) == Verdicts((), ())


BROKEN = {
    "a network it reaches": (
        ('from = "personal"', 'to = "203.0.113.0/24"', 'expect = "blocked"'),
        (
            "personal to 203.0.113.0/24: blocked, but personal reaches "
            "203.0.113.0 tcp/443 (at sys-firewall, rule 6 of personal: accept)"
        ),
    ),
    "names are a way out": (
        ('from = "work"', 'proto = "udp"', 'expect = "blocked"'),
        (
            "work to anywhere udp: blocked, but work reaches 10.139.1.1 udp/53 "
            "(at sys-firewall, rule 0 of work: accept specialtarget=dns)"
        ),
    ),
    "a rule that drops": (
        (
            *('from = ["work", "personal"]', 'to = "intranet.example.com"'),
            *('proto = "tcp"', "ports = 443", 'expect = "reach"'),
        ),
        (
            "work, personal to intranet.example.com tcp 443: reach, but personal "
            "does not reach 10.200.0.10 tcp/443 "
            "(at sys-firewall, rule 1 of personal: drop dst4=10.0.0.0/8)"
        ),
    ),
    "no rule that accepts": (
        ('from = "work"', 'to = "2001:db8:80::80"', 'expect = "reach"'),
        (
            "work to 2001:db8:80::80: reach, but work does not reach "
            "2001:db8:80::80 tcp/80 (at sys-firewall, no rule of work matches)"
        ),
    ),
    "another path": (
        ('from = "untrusted"', 'expect = "only-through sys-firewall"'),
        (
            "untrusted to anywhere: only-through sys-firewall, but untrusted reaches "
            "192.0.2.1 tcp/443 (at sys-firewall2, rule 0 of untrusted: accept)"
        ),
    ),
    "no netvm": (
        ('from = "vault"', 'to = "192.0.2.1"', 'expect = "reach"'),
        (
            "vault to 192.0.2.1: reach, but vault does not reach 192.0.2.1 tcp/443 "
            "(at vault, it has no netvm: it never gets an interface)"
        ),
    ),
    "domains never reach each other": (
        ('from = "untrusted"', 'to = "work"', 'expect = "reach"'),
        (
            "untrusted to work: reach, but untrusted does not reach 10.137.0.4 tcp/443 "
            "(at sys-firewall2, 10.137.0.4 is an address of domains (work): "
            "they do not reach one another)"
        ),
    ),
}


@pytest.mark.parametrize(("keys", "why"), BROKEN.values(), ids=BROKEN)
def test_a_broken_assertion_names_a_packet_and_its_rule(
    keys: tuple[str, ...], why: str
) -> None:
    assert judged(*keys) == Verdicts((f"{LINE}: {why}",), ())


def test_a_name_without_address_is_not_judged_and_never_kept_in_silence() -> None:
    keys = ('from = "work"', 'to = "intranet.example.com"', 'expect = "reach"')

    assert judged(*keys, names={}) == Verdicts(
        (),
        (
            (
                f"{LINE}: work to intranet.example.com: reach: "
                "intranet.example.com has no known address"
            ),
        ),
    )


def test_a_domain_without_ipv6_reaches_what_it_can_in_ipv4() -> None:
    home = HOME.replace('"sys-firewall2"\n', '"sys-firewall2"\nipv6 = false\n')
    everything = ('from = "untrusted"', 'expect = "reach"')

    assert judged(*everything, home=home) == Verdicts((), ())
    (why,) = judged(*everything, 'to = "2001:db8::1"', home=home).failing
    assert "it has no IPv6" in why
