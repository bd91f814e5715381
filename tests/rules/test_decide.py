# SPDX-License-Identifier: GPL-2.0-or-later
"""What a list of rules means for a packet."""

from ipaddress import ip_address

import pytest

from rules.decide import Decision, Names, Packet, decide
from rules.model import Action, Family, Policy, Refused, Rule
from rules.parse import parse_text, parse_value

TCP, UDP, ICMP, ICMPV6, GRE = 6, 17, 1, 58, 47
VIRTUAL, REAL = ip_address("10.139.1.1"), ip_address("198.51.100.53")
VIRTUAL6 = ip_address("fd09:24ef:4179::a8b:1")
RESOLVERS = frozenset({VIRTUAL, REAL, VIRTUAL6})
NAMES: Names = {
    "both.example": frozenset({ip_address("192.0.2.80"), ip_address("2001:db8::80")}),
    "only4.example": frozenset({ip_address("192.0.2.4")}),
    "empty.example": frozenset(),
}


def packet(text: str) -> Packet:
    """Read ``DST PROTO [PORT or ICMP type]``."""
    dst, proto, *number = text.split(" ")
    numbers = {"tcp": TCP, "udp": UDP, "icmp": ICMP, "icmp6": ICMPV6, "gre": GRE}
    found = int(number[0]) if number else None
    if proto in {"tcp", "udp"}:
        return Packet(ip_address(dst), numbers[proto], port=found)
    return Packet(ip_address(dst), numbers[proto], icmp_type=found)


def matches(rule: Rule, sent: str, now: int = 0) -> bool:
    """Tell whether a rule decides a packet, under the default that it is not."""
    default = Action.DROP if rule.action is Action.ACCEPT else Action.ACCEPT
    policy = Policy((rule,), default)
    decision = decide(policy, packet(sent), NAMES, RESOLVERS, now)
    assert (decision.rule == 0) == (decision.action is rule.action)
    return decision.rule == 0


MEANING = {
    "accept": (
        ["192.0.2.1 tcp 1", "2001:db8::1 udp 1", "192.0.2.1 gre", "192.0.2.1 icmp 8"],
        [],
    ),
    "accept dst4=192.0.2.128/31": (
        ["192.0.2.128 tcp 1", "192.0.2.129 gre"],
        ["192.0.2.127 tcp 1", "192.0.2.130 tcp 1", "2001:db8::1 tcp 1"],
    ),
    "accept dst4=0.0.0.0/0": (
        ["0.0.0.0 tcp 1", "255.255.255.255 udp 1"],
        ["::1 tcp 1"],
    ),
    "accept dst6=::/0": (["2001:db8::1 tcp 1"], ["192.0.2.1 tcp 1"]),
    "accept both.example": (
        ["192.0.2.80 tcp 1", "2001:db8::80 gre"],
        ["192.0.2.81 tcp 1", "2001:db8::81 tcp 1"],
    ),
    "accept only4.example": (["192.0.2.4 udp 1"], ["2001:db8::4 udp 1"]),
    "drop empty.example": ([], ["192.0.2.4 udp 1", "2001:db8::4 udp 1"]),
    "drop never-asked.example": ([], ["192.0.2.4 udp 1"]),
    "accept proto=tcp": (
        ["192.0.2.1 tcp 1", "192.0.2.1 tcp"],
        ["192.0.2.1 udp 1", "192.0.2.1 icmp 8", "192.0.2.1 gre"],
    ),
    "drop proto=tcp dstports=80-443": (
        ["192.0.2.1 tcp 80", "192.0.2.1 tcp 90", "2001:db8::1 tcp 443"],
        ["192.0.2.1 tcp 79", "192.0.2.1 tcp 444", "192.0.2.1 udp 80"],
    ),
    "accept proto=icmp": (
        ["192.0.2.1 icmp 8", "192.0.2.1 icmp", "2001:db8::1 icmp6 128"],
        ["192.0.2.1 icmp6 8", "2001:db8::1 icmp 128", "192.0.2.1 tcp 8"],
    ),
    "accept proto=icmp icmptype=8": (
        ["192.0.2.1 icmp 8", "2001:db8::1 icmp6 128"],
        ["192.0.2.1 icmp 0", "192.0.2.1 icmp", "2001:db8::1 icmp6 8"],
    ),
    "accept proto=icmp icmptype=5": (["192.0.2.1 icmp 5"], ["2001:db8::1 icmp6 5"]),
    "accept proto=icmp icmptype=127": (
        ["192.0.2.1 icmp 127"],
        ["2001:db8::1 icmp6 127"],
    ),
    "accept proto=icmp icmptype=128": (["2001:db8::1 icmp6 128"], []),
    "accept proto=icmp icmptype=135": (
        ["192.0.2.1 icmp 135", "2001:db8::1 icmp6 135"],
        ["2001:db8::1 icmp6 136"],
    ),
    "accept specialtarget=dns": (
        [f"{VIRTUAL} udp 53", f"{REAL} tcp 53", f"{VIRTUAL6} udp 53"],
        ["10.139.1.2 udp 53", f"{VIRTUAL} udp 54", f"{VIRTUAL} icmp 8"],
    ),
    "accept specialtarget=dns proto=udp": (
        [f"{VIRTUAL} udp 53"],
        [f"{VIRTUAL} tcp 53"],
    ),
    "drop specialtarget=dns proto=udp dstports=50-60": (
        [f"{VIRTUAL} udp 53"],
        [f"{VIRTUAL} udp 54", f"{VIRTUAL} tcp 53"],
    ),
    "drop specialtarget=dns proto=udp dstports=54-60": ([], [f"{VIRTUAL} udp 54"]),
    f"accept {REAL} specialtarget=dns": (
        [f"{REAL} udp 53"],
        [f"{REAL} udp 80", f"{VIRTUAL} udp 53", "192.0.2.1 udp 53"],
    ),
    "accept both.example specialtarget=dns": ([], ["192.0.2.80 udp 53"]),
}


@pytest.mark.parametrize(
    ("text", "sent", "expected"),
    [
        pytest.param(text, sent, expected, id=f"{text}: {sent} {expected}")
        for text, (yes, no) in MEANING.items()
        for sent, expected in [*((s, True) for s in yes), *((s, False) for s in no)]
    ],
)
def test_a_rule_matches(text: str, sent: str, expected: bool) -> None:  # noqa: FBT001
    """Each kind of rule, with packets just inside and just outside."""
    assert matches(parse_text(text, now=0), sent) is expected


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_ports_without_protocol_mean_tcp_and_udp(proto: str) -> None:
    """QubesDB may leave the protocol out."""
    rule = parse_value(b"action=drop dstports=80-90", Family.IPV4)
    assert matches(rule, f"192.0.2.1 {proto} 90")
    assert not matches(rule, f"192.0.2.1 {proto} 91")
    assert not matches(rule, "192.0.2.1 gre")


@pytest.mark.parametrize(("now", "exists"), [(999, True), (1000, False), (1001, False)])
def test_a_rule_ends_with_the_second_before_its_expiry(
    now: int,
    exists: bool,  # noqa: FBT001
) -> None:
    """``expire`` is the first second without the rule."""
    rule = parse_text("accept expire=1000", now=0)
    assert matches(rule, "192.0.2.1 tcp 1", now=now) is exists


def test_the_first_match_decides_and_is_named() -> None:
    """Later rules do not matter, expired ones do not exist; indices count both."""
    policy = Policy(
        tuple(
            parse_text(text, now=0)
            for text in (
                "drop expire=5",
                "drop 192.0.2.9",
                "accept 192.0.2.0/24 tcp 80",
                "drop",
            )
        )
    )
    sent = packet("192.0.2.1 tcp 80")
    assert decide(policy, sent, NAMES, RESOLVERS, now=5) == Decision(
        Action.ACCEPT,
        2,
        "action=accept dst4=192.0.2.0/24 proto=tcp dstports=80-80",
    )
    assert decide(policy, sent, NAMES, RESOLVERS, now=4).rule == 0


def test_without_a_match_the_default_decides() -> None:
    """No rule has an index then."""
    sent = packet("192.0.2.1 tcp 80")
    for default in Action:
        decision = decide(Policy((), default), sent, NAMES, RESOLVERS, now=0)
        assert decision == Decision(default, None, "no rule matches")


def test_a_list_that_could_not_be_read_drops_with_its_reason() -> None:
    """Refused is deny, for everything, and says why."""
    decision = decide(
        Refused("rule 0003: junk"), packet("192.0.2.1 tcp 80"), NAMES, RESOLVERS, now=0
    )
    assert decision == Decision(Action.DROP, None, "rule 0003: junk")
