# SPDX-License-Identifier: GPL-2.0-or-later
"""What services say on the bus is read with suspicion: wrong types are problems."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netvm import network_manager, resolved
from netvm.resolvers import Nameservers

V4, V6 = 2, 10


def texts(found: Nameservers | None) -> list[str]:
    assert found is not None
    return [str(server) for server in found.servers]


def link(index: int, server: bytes, port: int = 0) -> tuple[object, ...]:
    return (index, V4 if len(server) == 4 else V6, server, port, "")


A, B = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])
SIX = bytes.fromhex("20010db8000000000000000000000001")


@pytest.mark.parametrize(
    ("entries", "servers"),
    [
        pytest.param([], [], id="none"),
        pytest.param(
            [link(3, B), link(2, A)], ["192.0.2.1", "192.0.2.2"], id="by link"
        ),
        pytest.param([link(2, SIX), link(2, A)], ["2001:db8::1", "192.0.2.1"], id="v6"),
        pytest.param([link(2, A), link(0, B)], ["192.0.2.2"], id="global ones alone"),
        pytest.param(
            [link(2, A), link(0, bytes([127, 0, 0, 1]))],
            ["127.0.0.1", "192.0.2.1"],
            id="an unusable global one shuts nothing out",
        ),
        pytest.param(
            [link(2, A, 53), link(2, B, 0)], ["192.0.2.1", "192.0.2.2"], id="53"
        ),
    ],
)
def test_resolved_servers_are_global_ones_or_those_of_links(
    entries: list[object], servers: list[str]
) -> None:
    assert texts(resolved.parse(entries)) == servers


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        pytest.param(7, "not a list", id="a number"),
        pytest.param("text", "not a list", id="text"),
        pytest.param([7], "not a server", id="list of numbers"),
        pytest.param([("0", V4, A, 0, "")], "not a server", id="wrong field"),
        pytest.param([(0, V4, A)], "not a server", id="too short"),
        pytest.param([(0, V4, b"\x01\x02", 0, "")], "2 bytes", id="too few bytes"),
        pytest.param([link(0, A, 853)], "port 853", id="a port clients do not use"),
    ],
)
def test_a_wrong_answer_of_resolved_is_a_problem(value: object, problem: str) -> None:
    found = resolved.parse(value)

    assert found is not None
    assert found.servers == ()
    assert problem in found.problems[0]


def connection(priority: int, *servers: object) -> dict[str, object]:
    return {"priority": priority, "nameservers": list(servers), "interface": "wlan0"}


@pytest.mark.parametrize(
    ("entries", "servers"),
    [
        pytest.param([], [], id="none"),
        pytest.param(
            [connection(100, "192.0.2.1"), connection(50, "192.0.2.2", "2001:db8::1")],
            ["192.0.2.2", "2001:db8::1", "192.0.2.1"],
            id="the VPN first",
        ),
        pytest.param(
            [
                connection(-10, "192.0.2.3"),
                connection(-50, "192.0.2.1"),
                connection(-50, "192.0.2.2"),
                connection(50, "192.0.2.4"),
            ],
            ["192.0.2.1", "192.0.2.2"],
            id="a negative priority shuts out the higher ones",
        ),
    ],
)
def test_servers_of_networkmanager_are_by_priority(
    entries: list[object], servers: list[str]
) -> None:
    assert texts(network_manager.parse(entries)) == servers


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        pytest.param({}, "not a list", id="a dictionary"),
        pytest.param(["eth0"], "not a connection", id="list of text"),
        pytest.param([{"priority": 1}], "not a connection", id="no servers"),
        pytest.param([connection(1, 7)], "not text", id="server is a number"),
        pytest.param([connection(1, "dns+tls://9.9.9.9")], "not an address", id="URI"),
        pytest.param([connection(1, "fe80::1%eth0")], "interface", id="scoped"),
    ],
)
def test_a_wrong_answer_of_networkmanager_is_a_problem(
    value: object, problem: str
) -> None:
    found = network_manager.parse(value)

    assert found is not None
    assert found.servers == ()
    assert problem in found.problems[0]


JSON = st.recursive(
    st.none() | st.integers() | st.text() | st.binary(max_size=20) | st.floats(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner, inner, inner, inner)
        | st.dictionaries(st.sampled_from(["nameservers", "priority", "x"]), inner)
    ),
)


@given(st.lists(JSON) | JSON)
def test_no_answer_makes_a_parser_raise(value: object) -> None:
    for parse in (resolved.parse, network_manager.parse):
        assert (parse(value) is None) == (value is None)
