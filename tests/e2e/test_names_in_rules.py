# SPDX-License-Identifier: GPL-2.0-or-later
"""Names in rules: they follow the world, and hold up nothing else."""

from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path

import pytest

from controller import namespaces
from tests.e2e.machine import (
    FORBIDDEN4,
    FORBIDDEN6,
    HTTPS,
    WEB4,
    WEB6,
    Machine,
    stilled,
    until,
)

pytestmark = pytest.mark.kernel

CHANGING = ("accept", "dsthost=changing.example.com", "proto=tcp", "dstports=443")


def set_names(machine: Machine, **names: tuple[str, ...]) -> None:
    """Change what NAME.example.com means."""
    machine.internet.set_names(
        {f"{n}.example.com": [ip_address(a) for a in to] for n, to in names.items()}
    )


def dns_server(machine: Machine) -> int:
    return int((machine.runtime / "lab" / "dnsmasq.pid").read_text())


def test_a_name_that_changes_is_followed(home: Machine) -> None:
    set_names(home, changing=(WEB4, WEB6))
    home.does("firewall", "work", "add", *CHANGING)
    assert home.reaches("work", WEB4, HTTPS)
    assert not home.reaches("work", FORBIDDEN4, HTTPS)
    set_names(home, changing=(FORBIDDEN4, FORBIDDEN6))
    assert until(lambda: home.reaches("work", FORBIDDEN4, HTTPS))
    assert until(lambda: home.reaches("work", FORBIDDEN6, HTTPS))


def test_what_was_good_stays_when_the_names_server_dies(home: Machine) -> None:
    """And a rule that has nothing to do with names can be changed meanwhile."""
    home.does("firewall", "work", "add", *CHANGING)
    with ThreadPoolExecutor(1) as beside, stilled(dns_server(home)):
        asked = beside.submit(home.answers, "work", "www.example.com")
        home.does("firewall", "work", "add", "accept", f"dst4={FORBIDDEN4}", "tcp")
        assert home.reaches("work", FORBIDDEN4)
        assert home.reaches("work", WEB4, HTTPS)
        # Another name that cannot be asked for concerns its own rule alone.
        rule = ("accept", "dsthost=never.example.com", "proto=tcp", "dstports=80")
        home.does("firewall", "work", "add", *rule)
        assert home.reaches("work", WEB6, HTTPS)
        assert not home.reaches("work", WEB4)
        assert asked.result() == set()
    assert until(lambda: home.answers("work", "www.example.com") == {WEB4})


def test_a_name_that_does_not_exist_concerns_its_own_rule_alone(
    home: Machine,
) -> None:
    rule = ("accept", "dsthost=nobody.example.com", "proto=tcp", "dstports=80")
    home.does("firewall", "work", "add", "--before", "0", *rule)
    assert home.reaches("work", WEB4, HTTPS)
    assert not home.reaches("work", WEB4)
    set_names(home, nobody=(WEB4,))
    # The negative answer of the lab lives for no more than a minute.
    home.does("firewall", "work", "reset")
    home.does("firewall", "work", "add", "--before", "0", "drop", "proto=tcp")
    home.does("firewall", "work", "add", "--before", "0", *rule)
    assert home.reaches("work", WEB4)
    assert not home.reaches("work", WEB4, HTTPS)


def test_a_name_without_ipv6_does_not_block_ipv6(home: Machine) -> None:
    only4 = ("accept", "dsthost=v4only.example.com", "proto=tcp", "dstports=80")
    home.does("firewall", "work", "add", "--before", "0", *only4)
    assert home.reaches("work", WEB4)
    assert not home.reaches("work", WEB6)
    assert home.reaches("work", WEB6, HTTPS)
    only6 = ("accept", "dsthost=v6only.example.com", "proto=tcp", "dstports=80")
    home.does("firewall", "work", "add", "--before", "0", *only6)
    assert home.reaches("work", WEB6)
    assert home.reaches("work", WEB4)


LONG = "an-unusually-long-label-of-the-kind-that-clouds-hand-out.example.com"


def test_names_that_are_long_or_have_many_addresses_are_known_to_dom0(
    home: Machine,
) -> None:
    """Else a proof would call the kernel's rules for them a leak."""
    many = tuple(f"203.0.113.{n}" for n in range(1, 255))
    set_names(home, many=many, **{LONG.removesuffix(".example.com"): (WEB4,)})
    for name in (LONG, "many.example.com"):
        home.does("firewall", "work", "add", "accept", name, "tcp", "80")

    home.does("explain", "work", f"{LONG}:80")
    found = home.does("explain", "work", "many.example.com:80")
    assert all(address in found for address in many)
    home.does("verify")


def test_the_lab_names_server_is_the_only_one_asked(home: Machine) -> None:
    """What a domain asks is asked by the NetVM, and by nobody else."""
    assert home.answers("work", "www.example.com") == {WEB4}
    asked = Path(home.internet.questions).read_text().splitlines()
    lines = [x for x in asked if "query[A] www.example.com from" in x]
    assert {line.rsplit(" ", 1)[1] for line in lines} == {"192.0.2.2"}
    assert namespaces.processes(home.internet.net)
