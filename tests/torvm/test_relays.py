# SPDX-License-Identifier: GPL-2.0-or-later
"""Where relays are, read from tor's lists; what cannot be read is left out."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torvm.relays import of_consensus, of_directories

HEX = "0123456789ABCDEF0123456789ABCDEF01234567"
STATUSES = """\
r guard AAAA BBBB 2026-11-29 09:00:00 203.0.113.11 5000 0
a [2001:db8:113::11]:5000
s Fast Guard Running Stable V2Dir Valid
w Bandwidth=1
r middle AAAA BBBB 2026-11-29 09:00:00 203.0.113.12 5000 0
s Fast Running Stable V2Dir Valid
r gone AAAA BBBB 2026-11-29 09:00:00 203.0.113.13 5000 0
a [2001:db8:113::13]:5000
s Guard Valid
"""


def test_the_first_hops_are_relays_that_are_guards() -> None:
    assert of_consensus(STATUSES) == {
        (ip_address("203.0.113.11"), 5000),
        (ip_address("2001:db8:113::11"), 5000),
    }


def test_directories_that_are_built_in_are_read_with_both_addresses() -> None:
    lines = [
        f'DirAuthority "moria1 orport=9201 v3ident={HEX} 128.31.0.39:9231 {HEX}"',
        f'FallbackDir "192.0.2.7:80 orport=443 id={HEX} ipv6=[2001:db8::7]:4430"',
        "SocksPort 9050",
    ]

    assert of_directories(lines) == {
        (ip_address("128.31.0.39"), 9201),
        (ip_address("192.0.2.7"), 443),
        (ip_address("2001:db8::7"), 4430),
    }


@pytest.mark.parametrize(
    "line",
    [
        "r",
        "r x y z",
        "r g A B 2026-11-29 09:00:00 203.0.113.999 5000 0",
        "r g A B 2026-11-29 09:00:00 203.0.113.1 0 0",
        "r g A B 2026-11-29 09:00:00 203.0.113.1 70000 0",
        "r g A B 2026-11-29 09:00:00 example.com 443 0",
    ],
)
def test_what_is_no_relay_is_left_out(line: str) -> None:
    assert of_consensus(f"{line}\ns Guard Running Valid\n") == frozenset()


@given(st.text(max_size=300))
def test_whatever_tor_says_it_is_read(text: str) -> None:
    for address, port in of_consensus(text) | of_directories(text.splitlines()):
        assert 0 < port <= 65535
        assert str(address)
