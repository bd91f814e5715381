# SPDX-License-Identifier: GPL-2.0-or-later
"""Every domain has the address that Qubes would give it."""

from ipaddress import ip_address

import pytest

from controller.addresses import (
    DNS4,
    DNS6,
    INTERNAL4,
    INTERNAL6,
    MAX_ID,
    first_free,
    ip4,
    ip6,
    number_names,
)
from rules.internal import INTERNAL

# qubes/vm/mix/net.py, results of the real functions.
PLAN = [
    (1, "0.1", "1"),
    (2, "0.2", "2"),
    (254, "0.254", "fe"),
    (255, "1.1", "ff"),
    (256, "1.2", "100"),
    (508, "1.254", "1fc"),
    (509, "2.1", "1fd"),
    (9999, "39.93", "270f"),
]


@pytest.mark.parametrize(("number", "tail", "hexadecimal"), PLAN)
def test_a_number_gives_the_addresses_of_qubes(
    number: int, tail: str, hexadecimal: str
) -> None:
    assert str(ip4(number)) == f"10.137.{tail}"
    assert str(ip4(number, disposable=True)) == f"10.138.{tail}"
    assert str(ip6(number)) == f"fd09:24ef:4179::a89:{hexadecimal}"
    assert str(ip6(number, disposable=True)) == f"fd09:24ef:4179::a8a:{hexadecimal}"


@pytest.mark.parametrize("number", [0, -1, 10000])
def test_other_numbers_have_no_address(number: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 9999"):
        ip4(number)
    with pytest.raises(ValueError, match="expected 1 to 9999"):
        ip6(number, disposable=True)


def test_no_two_domains_share_an_address_and_all_are_internal() -> None:
    numbers = range(1, MAX_ID + 1)
    v4 = {ip4(n, disposable=d) for n in numbers for d in (False, True)}
    v6 = {ip6(n, disposable=d) for n in numbers for d in (False, True)}

    assert len(v4) == len(v6) == 2 * MAX_ID
    assert all(any(a in network for network in INTERNAL4) for a in v4)
    assert all(any(a in network for network in INTERNAL6) for a in v6)


def test_the_virtual_resolvers_are_no_domains() -> None:
    assert (ip_address("10.139.1.1"), ip_address("10.139.1.2")) == DNS4
    numbers = range(1, MAX_ID + 1)
    v4 = {ip4(n, disposable=d) for n in numbers for d in (False, True)}
    v6 = {ip6(n, disposable=d) for n in numbers for d in (False, True)}
    assert not {*DNS4, *DNS6} & (v4 | v6)


def test_what_is_internal_is_what_a_netvm_sends_nowhere() -> None:
    assert {*map(str, (*INTERNAL4, *INTERNAL6))} == {*INTERNAL}


def test_known_names_keep_their_numbers_and_new_ones_take_the_first_free() -> None:
    known = {"work": 2, "gone": 1}

    assert number_names(["new", "work", "newer"], known) == {
        "work": 2,
        "gone": 1,
        "new": 3,
        "newer": 4,
    }


def test_there_are_9999_numbers() -> None:
    with pytest.raises(LookupError, match="9999"):
        first_free(range(1, 10000))
