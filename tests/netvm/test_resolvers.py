# SPDX-License-Identifier: GPL-2.0-or-later
"""The clients' DNS goes to the servers of the best source that has any."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from netvm.resolvers import (
    VIRTUAL4,
    VIRTUAL6,
    Nameservers,
    Resolvers,
    choose,
    gathered,
    virtual_map,
)

NOTHING = Nameservers()


def said(*servers: str) -> Nameservers:
    return Nameservers(tuple(ip_address(server) for server in servers))


@pytest.mark.parametrize(
    ("resolved", "network_manager", "resolv_conf", "source", "servers"),
    [
        pytest.param(
            said("192.0.2.1"),
            said("192.0.2.2"),
            said("192.0.2.3"),
            "systemd-resolved",
            ["192.0.2.1"],
            id="resolved goes before everything",
        ),
        pytest.param(
            None,
            said("192.0.2.2"),
            said("192.0.2.3"),
            "NetworkManager",
            ["192.0.2.2"],
            id="without resolved, NetworkManager",
        ),
        pytest.param(
            NOTHING,
            NOTHING,
            said("192.0.2.3"),
            "resolv.conf",
            ["192.0.2.3"],
            id="a source without servers counts as absent",
        ),
        pytest.param(
            said("127.0.0.53"),
            None,
            said("192.0.2.3"),
            "resolv.conf",
            ["192.0.2.3"],
            id="a source with unusable servers counts as absent",
        ),
        pytest.param(
            said("2001:db8::1", "192.0.2.1", "192.0.2.9"),
            said("192.0.2.2"),
            NOTHING,
            "systemd-resolved",
            ["192.0.2.1", "192.0.2.9", "2001:db8::1"],
            id="both families are from one source, each in its order",
        ),
        pytest.param(None, None, NOTHING, "none", [], id="nobody knows any"),
    ],
)
def test_the_first_source_with_a_usable_server_is_chosen(
    resolved: Nameservers | None,
    network_manager: Nameservers | None,
    resolv_conf: Nameservers,
    source: str,
    servers: list[str],
) -> None:
    chosen = choose(resolved, network_manager, resolv_conf)

    assert chosen.source == source
    assert [str(server) for server in (*chosen.v4, *chosen.v6)] == servers


@pytest.mark.parametrize(
    "server",
    [
        "127.0.0.53",
        "127.1.2.3",
        "::1",
        "0.0.0.0",
        "::",
        "224.0.0.251",
        "ff02::fb",
        "255.255.255.255",
        "240.0.0.1",
        "fe80::1",
        "::ffff:192.0.2.1",
        *map(str, VIRTUAL4),
        *map(str, VIRTUAL6),
    ],
)
def test_a_server_that_no_packet_can_be_rewritten_to_is_left_out(server: str) -> None:
    chosen = choose(None, None, said(server, "192.0.2.1"))

    assert chosen.v4 == (IPv4Address("192.0.2.1"),)
    assert chosen.v6 == ()
    assert [
        problem for problem in chosen.problems if f" {ip_address(server)}:" in problem
    ]


@pytest.mark.parametrize(
    "server",
    ["10.139.1.3", "169.254.1.1", "192.168.1.1", "fd00::1", "64:ff9b::c000:201"],
)
def test_a_private_server_is_as_good_as_any(server: str) -> None:
    chosen = choose(None, None, said(server))

    assert [str(address) for address in (*chosen.v4, *chosen.v6)] == [server]
    assert chosen.problems == ()


def test_the_problems_of_every_source_that_was_asked_are_kept() -> None:
    chosen = choose(
        Nameservers(problems=("no list",)),
        Nameservers((IPv4Address("192.0.2.1"),), ("half a list",)),
        Nameservers(problems=("never read",)),
    )

    assert chosen.problems == (
        "systemd-resolved: no list",
        "NetworkManager: half a list",
    )


@pytest.mark.parametrize(
    ("v4", "v6", "expected"),
    [
        pytest.param([], [], {}, id="no server, no pair"),
        pytest.param(
            ["192.0.2.1"],
            [],
            {"10.139.1.1": "192.0.2.1", "10.139.1.2": "192.0.2.1"},
            id="one server serves both",
        ),
        pytest.param(
            ["192.0.2.1", "192.0.2.2", "192.0.2.3"],
            ["2001:db8::1"],
            {
                "10.139.1.1": "192.0.2.1",
                "10.139.1.2": "192.0.2.2",
                "fd09:24ef:4179::a8b:1": "2001:db8::1",
                "fd09:24ef:4179::a8b:2": "2001:db8::1",
            },
            id="each family by itself, the third is spare",
        ),
    ],
)
def test_virtual_servers_are_paired_with_real_ones_in_order(
    v4: list[str], v6: list[str], expected: dict[str, str]
) -> None:
    resolvers = Resolvers(
        tuple(map(IPv4Address, v4)), tuple(map(IPv6Address, v6)), "test"
    )

    pairs = {str(k): str(v) for k, v in virtual_map(resolvers).items()}

    assert pairs == expected


def test_what_is_gathered_is_in_order_and_once() -> None:
    one, two = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")

    assert gathered([two, "odd", one, two, "odd"]) == Nameservers((two, one), ("odd",))
