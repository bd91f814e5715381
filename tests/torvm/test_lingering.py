# SPDX-License-Identifier: GPL-2.0-or-later
"""Which DNSPorts stay, and for how long; what happens otherwise is tor's to show.

`tests/torvm/test_control_and_tor.py` has it of a real one.
"""

from ipaddress import ip_address

from torvm.lingering import KEPT, Lingering
from torvm.listeners import Kind, Listener

NOW = 1000.0
HERE = ip_address("10.137.0.2")
A, B = (Listener(Kind.DNS, HERE, port) for port in (10000, 10002))
WEB = Listener(Kind.TRANS, HERE, 10000)


def test_a_port_that_is_given_up_stays_for_a_while() -> None:
    found = Lingering().follow({A, B, WEB}, NOW).follow({B}, NOW + 1)

    assert found.places == {A, B}
    assert found.follow({B}, NOW + KEPT).places == {A, B}
    assert found.follow({B}, NOW + 1 + KEPT).places == {B}


def test_one_that_is_wanted_again_stays() -> None:
    found = Lingering().follow({A}, NOW).follow({B}, NOW).follow({A, B}, NOW)

    assert found.follow({A, B}, NOW + KEPT).places == {A, B}
    assert found.left == {}


def test_one_that_is_closed_before_its_time_is_lost() -> None:
    found = Lingering().follow({A, WEB}, NOW).follow({B}, NOW)

    assert found.lost({A, B, WEB}, {B})
    assert not found.lost({A, WEB}, {A}), "its TCP may be closed, B is to come"
    assert not found.follow({B}, NOW + KEPT).lost({A, B}, {B})
