# SPDX-License-Identifier: GPL-2.0-or-later
"""A plan says what changes, line by line."""

from controller.plan import plan
from controller.policy import read

OLD = """
[domains.sys-net]
personality = "netvm"
uplink = "lab"
[domains.fw]
personality = "firewall"
netvm = "sys-net"
[domains.work]
label = "blue"
netvm = "sys-net"
firewall = ["accept specialtarget=dns", "accept proto=icmp", "drop"]
[domains.gone]
"""
QIDS = {"sys-net": 1, "fw": 2, "work": 3, "gone": 4}


def lines(old: str | None, new: str) -> list[str]:
    running = None if old is None else read(old, file="o", qids=QIDS, now=0)
    wanted = read(new, file="n", qids=QIDS, now=0)
    return [f"{c.sign.value} {c.domain}: {c.text}" for c in plan(running, wanted)]


def test_the_same_file_changes_nothing() -> None:
    assert lines(OLD, OLD) == []


def test_at_first_everything_is_added() -> None:
    assert lines(None, OLD) == [
        "+ sys-net: netvm red, uplink lab",
        "+ fw: firewall red, netvm sys-net",
        "+ work: AppVM blue, netvm sys-net",
        "- work: rule 0: accept",
        "+ work: rule 0: accept specialtarget=dns",
        "+ work: rule 1: accept proto=icmp",
        "+ work: rule 2: drop",
        "+ gone: AppVM red, netvm none",
    ]


def test_settings_and_rules_are_compared_one_by_one() -> None:
    new = (
        OLD.replace('label = "blue"\nnetvm = "sys-net"', 'netvm = "fw"\nipv6 = false')
        .replace('"accept proto=icmp"', '"accept proto=udp"')
        .replace("[domains.gone]\n", "")
        .replace('"lab"', '"host"')
    )

    assert lines(OLD, new) == [
        "- gone: AppVM red, netvm none",
        "~ sys-net: uplink lab -> host",
        "~ work: label blue -> red",
        "~ work: netvm sys-net -> fw",
        "~ work: ipv6 true -> false",
        "- work: rule 1: accept proto=icmp",
        "+ work: rule 1: accept proto=udp",
    ]


def test_a_list_that_opens_or_closes_everything_is_said_to() -> None:
    rules = 'firewall = ["accept specialtarget=dns", "accept proto=icmp", "drop"]\n'

    opened = lines(OLD, OLD.replace(rules, ""))
    closed = lines(OLD, OLD.replace(rules, "firewall = []\n"))

    assert opened[0] == "~ work: rules: accepts everything"
    assert closed[0] == "~ work: rules: denies everything"
