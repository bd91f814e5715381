# SPDX-License-Identifier: GPL-2.0-or-later
"""A lease comes from a server that nobody vouches for: only sense gets through."""

import subprocess
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from controller import namespaces
from controller.platforms.dhcp_event import Lease, LeaseError, configure, lease, main
from controller.platforms.host_network import default_interfaces
from controller.platforms.netns import RESOLV
from rules.model import Family
from tests.controller.own_machine import own_machine

WHOLE = {
    "ip": "192.0.2.50",
    "subnet": "255.255.255.0",
    "router": "192.0.2.1 192.0.2.2",
    "dns": "192.0.2.53 192.0.2.54",
}


def test_a_whole_lease() -> None:
    assert lease(WHOLE) == Lease(
        IPv4Interface("192.0.2.50/24"),
        IPv4Address("192.0.2.1"),
        (IPv4Address("192.0.2.53"), IPv4Address("192.0.2.54")),
    )


def test_without_mask_router_and_resolvers_it_is_an_address() -> None:
    assert lease({"ip": "192.0.2.50"}) == Lease(
        IPv4Interface("192.0.2.50/32"), None, ()
    )


def test_of_the_other_addresses_those_that_make_sense_are_taken() -> None:
    odd = WHOLE | {"router": "x 1.2.3", "dns": "; rm -rf / ::1 192.0.2.9 999.1.1.1"}
    found = lease(odd)
    assert (found.router, found.resolvers) == (None, (IPv4Address("192.0.2.9"),))


def test_no_more_resolvers_than_a_libc_reads() -> None:
    many = WHOLE | {"dns": " ".join(f"192.0.2.{n}" for n in range(100))}
    assert len(lease(many).resolvers) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"ip": ""},
        {"ip": "192.0.2"},
        {"ip": "2001:db8::1"},
        {"ip": "127.0.0.1"},
        {"ip": "224.0.0.1"},
        {"ip": "0.0.0.0"},
        {"subnet": "255.0.255.0"},
        {"subnet": "99"},
    ],
    ids=lambda change: " ".join(change.values()) or "nothing",
)
def test_nonsense_is_no_lease(change: dict[str, str]) -> None:
    with pytest.raises(LeaseError):
        lease(WHOLE | change)


@pytest.mark.kernel
def test_a_lease_without_a_router_takes_the_way_out(tmp_path: Path) -> None:
    """That of the lease before would lead to whoever has that address now."""
    net = tmp_path / "net"
    namespaces.create(net)
    try:
        with namespaces.inside(net), own_machine():
            RESOLV.mkdir(parents=True)
            words = "ip link add card type veth peer name wire"
            subprocess.run(words.split(), check=True)
            configure("card", lease(WHOLE))
            assert default_interfaces(Family.IPV4) == {"card"}

            configure("card", lease({"ip": "198.51.100.50", "subnet": "24"}))

            assert default_interfaces(Family.IPV4) == set()
    finally:
        namespaces.remove(net)


def test_a_failed_request_changes_nothing() -> None:
    assert main(["leasefail"]) == main(["nak"]) == 0
