# SPDX-License-Identifier: GPL-2.0-or-later
"""Who of a domain's own processes can send in the clear is proved, by user.

A socket of this process, which is root, is the judge.
"""

import socket
from collections.abc import Iterator

import pytest

from proof.claims import Claim, OwnOf, Result, Status
from proof.verify import Prover
from tests.kernel.proof_lab import OWN, SERVERS, Lab, domain, read_all

pytestmark = pytest.mark.kernel

ROOT, DAEMON = 0, 1234
TO_ALL = "insert rule ip qubes output oifname eth0 {what} accept"
MARK = b"sent by a process"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with domain() as found:
        yield found


def answered(lab: Lab, *users: int) -> Result:
    claims: list[Claim] = [OwnOf("fw", frozenset(users))]
    (result,) = Prover().prove(lab.world(), claims, (4,))
    return result


def can_send(lab: Lab) -> bool:
    """Return whether a datagram of ours leaves by eth0."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        sender.bind((str(OWN["eth0"][0]), 0))
        try:
            sender.sendto(MARK, (str(SERVERS[4][0]), 53))
        except PermissionError:
            return False
    return any(data.endswith(MARK) for data in read_all(lab.devices["eth0"]))


def test_in_a_state_without_own_traffic_nobody_sends(lab: Lab) -> None:
    assert answered(lab).status is Status.PROVED
    assert not can_send(lab)


def test_a_user_that_may_send_is_the_only_one(lab: Lab) -> None:
    lab.apply(TO_ALL.format(what=f"meta skuid {ROOT}"))

    found = answered(lab)

    assert found.status is Status.REFUTED
    assert found.packet is not None
    assert found.packet.fields["uid"] == ROOT
    assert answered(lab, ROOT).status is Status.PROVED
    assert answered(lab, DAEMON).status is Status.REFUTED
    assert can_send(lab)


def test_another_user_that_may_send_is_not_us(lab: Lab) -> None:
    lab.apply(TO_ALL.format(what=f"meta skuid {DAEMON}"))

    assert answered(lab, DAEMON).status is Status.PROVED
    assert answered(lab, ROOT).status is Status.REFUTED
    assert not can_send(lab)


def test_a_mark_that_a_user_is_given_is_followed(lab: Lab) -> None:
    """A hook before decides by user, a later one by its mark."""
    lab.apply(
        "add chain ip qubes early { type filter hook output priority -150; }\n"
        f"add rule ip qubes early meta skuid {ROOT} meta mark set 7"
    )
    lab.apply(TO_ALL.format(what="meta mark 7"))

    assert answered(lab, ROOT).status is Status.PROVED
    assert answered(lab).status is Status.REFUTED
    assert can_send(lab)
