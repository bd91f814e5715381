# SPDX-License-Identifier: GPL-2.0-or-later
"""A plan says what changes, line by line."""

from pathlib import Path

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


def test_what_a_personality_is_given_is_compared_key_by_key(tmp_path: Path) -> None:
    for name in ("one.conf", "two.conf", "lines"):
        (tmp_path / name).touch(mode=0o600)
    old = f"""
[domains.net]
personality = "netvm"
uplink = "lab"
[domains.vpn]
personality = "wireguard"
netvm = "net"
config = "{tmp_path}/one.conf"
[domains.tor]
personality = "tor"
netvm = "net"
socks = true
proxy = "socks5://192.0.2.1:1080"
"""
    new = old.replace("one.conf", "two.conf").replace("socks = true", "forget = true")
    new = new.replace("192.0.2.1:", "192.0.2.2:") + f'bridges = "{tmp_path}/lines"\n'

    assert lines(old, new) == [
        f"~ vpn: config {tmp_path}/one.conf -> {tmp_path}/two.conf",
        f"~ tor: bridges none -> {tmp_path}/lines",
        "~ tor: forget false -> true",
        "~ tor: proxy socks5://192.0.2.1:1080 -> socks5://192.0.2.2:1080",
        "~ tor: socks true -> false",
    ]
