# SPDX-License-Identifier: GPL-2.0-or-later
"""Any bytes are a resolv.conf; what cannot be used is left out and named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netvm.resolv_conf import parse


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        pytest.param(b"", [], id="empty"),
        pytest.param(b"nameserver 192.0.2.1", ["192.0.2.1"], id="no end of line"),
        pytest.param(b"nameserver\t192.0.2.1\n", ["192.0.2.1"], id="tab"),
        pytest.param(b"  nameserver  \t 192.0.2.1 \n", ["192.0.2.1"], id="many spaces"),
        pytest.param(b"nameserver 192.0.2.1\r\n", ["192.0.2.1"], id="CRLF"),
        pytest.param(
            b"nameserver 192.0.2.1 # mine\n", ["192.0.2.1"], id="trailing junk"
        ),
        pytest.param(
            b"# nameserver 192.0.2.1\n;nameserver 192.0.2.2\n#nameserver 192.0.2.3\n",
            [],
            id="comments",
        ),
        pytest.param(
            b"nameserver 192.0.2.2\nsearch lan\nnameserver 2001:db8::1\n"
            b"options edns0\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n",
            ["192.0.2.2", "2001:db8::1", "192.0.2.1"],
            id="both families, in order, once",
        ),
        pytest.param(
            b"nameservers 192.0.2.1\nNAMESERVER 192.0.2.1", [], id="other word"
        ),
        pytest.param(
            b"nameserver 127.0.0.53\n", ["127.0.0.53"], id="the choice is later"
        ),
    ],
)
def test_servers_are_read_in_order(text: bytes, servers: list[str]) -> None:
    found = parse(text)

    assert [str(server) for server in found.servers] == servers
    assert found.problems == ()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        pytest.param(b"nameserver", "without an address", id="no address"),
        pytest.param(b"nameserver fe80::1%eth0", "bound to an interface", id="scoped"),
        pytest.param(b"nameserver 192.0.2.256", "is not an address", id="not an octet"),
        pytest.param(b"nameserver 192.0.2.010", "is not an address", id="octal?"),
        pytest.param(b"nameserver [2001:db8::1]:53", "is not an address", id="port"),
        pytest.param(
            b"nameserver 192.0.2.1#53", "is not an address", id="resolved's #"
        ),
        pytest.param(b"nameserver \xff\x00\xfe", r"\\xff\x00", id="bytes"),
        pytest.param("nameserver \uff11.0.2.1".encode(), "not an", id="wide digits"),
        pytest.param(b"nameserver " + b"9" * 5000, "99", id="endless"),
    ],
)
def test_a_bad_line_is_a_problem_and_the_next_line_counts(
    line: bytes, problem: str
) -> None:
    found = parse(line + b"\nnameserver 192.0.2.1\n")

    assert [str(server) for server in found.servers] == ["192.0.2.1"]
    assert len(found.problems) == 1
    assert problem in found.problems[0]
    assert len(found.problems[0]) < 200


@given(st.binary() | st.binary().map(lambda junk: b"nameserver " + junk))
def test_no_bytes_make_it_raise(text: bytes) -> None:
    parse(text)
