# SPDX-License-Identifier: GPL-2.0-or-later
"""Only a resolver that another machine could ask is one for a NetVM."""

import pytest

from controller.platforms.host_network import remote


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("", [], id="empty"),
        pytest.param("nameserver 192.0.2.1\n", ["192.0.2.1"], id="one"),
        pytest.param("nameserver 2001:db8::1", ["2001:db8::1"], id="IPv6"),
        pytest.param("nameserver 127.0.0.53\nnameserver ::1\n", [], id="local"),
        pytest.param("nameserver fe80::1%eth0\nnameserver fe80::1", [], id="link"),
        pytest.param("# nameserver 192.0.2.1\nnameserver\n", [], id="none said"),
        pytest.param("nameserver dns.example\n", [], id="a name"),
        pytest.param(
            "search x\n  nameserver\t192.0.2.1 # x\n", ["192.0.2.1"], id="odd"
        ),
    ],
)
def test_remote_resolvers(text: str, found: list[str]) -> None:
    assert [str(address) for address in remote(text)] == found
