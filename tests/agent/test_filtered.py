# SPDX-License-Identifier: GPL-2.0-or-later
"""Filters of system calls; what each one does is seen with its daemon."""

import sys

import pytest

from agent.filtered import NoFilterError, install
from torvm import transport_exec
from vpn import wireguard_exec

ALL = {
    f"{module.__name__} {machine}": code
    for module in (transport_exec, wireguard_exec)
    for machine, code in module.FILTERS.items()
}


def test_a_machine_whose_calls_are_not_known_is_refused() -> None:
    with pytest.raises(NoFilterError, match="pdp11"):
        install(transport_exec.FILTERS, "pdp11")


@pytest.mark.parametrize("name", ALL)
def test_every_jump_of_a_filter_stays_within_it(name: str) -> None:
    code = ALL[name]
    whole = [code[at : at + 8] for at in range(0, len(code), 8)]

    for at, each in enumerate(whole, 1):
        assert at + max(each[2], each[3]) < len(whole) or each[:1] == b"\x06"
    assert whole[-1] == b"\x06\0\0\0" + (0x7FFF0000).to_bytes(4, sys.byteorder)
