# SPDX-License-Identifier: GPL-2.0-or-later
"""Flows are read whole or not at all, and judged as the list judges their packet."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

import pytest

from proof.flows import Flow, accepts, read
from proof.netlink import Message, Request, SnapshotError, attribute
from rules.ground import Ground, Match
from rules.model import Action, Ports

A, B = ip_address("10.137.0.5"), ip_address("198.51.100.80")
NEW = 0x100


@dataclass
class Conntrack:
    """A kernel that has these flows of IPv4, and none of IPv6."""

    found: Sequence[Message]

    def ask(self, request: Request) -> Message:
        raise AssertionError(request)

    def dump(self, request: Request) -> Sequence[Message]:
        return self.found if request.body[0] == 2 else ()


def message(source: bytes, proto: bytes, kind: int = NEW) -> Message:
    ends = attribute(1, source) + attribute(2, B.packed)
    both = attribute(1, ends) + attribute(2, proto)
    return Message(kind, struct.pack("=BBH", 2, 0, 0) + attribute(1, both))


def ports(number: int, to: int) -> bytes:
    return attribute(1, bytes([number])) + attribute(3, to.to_bytes(2, "big"))


def test_a_flow_is_its_first_packet() -> None:
    ping = attribute(1, b"\1") + attribute(5, b"\x08")
    found = read(Conntrack([message(A.packed, ports(6, 443)), message(A.packed, ping)]))

    assert found == (Flow(A, B, 6, 443, None), Flow(A, B, 1, None, 8))


@pytest.mark.parametrize(
    "wrong",
    [
        message(b"abc", ports(6, 443)),
        message(A.packed, b""),
        message(A.packed, ports(6, 443), kind=7),
        Message(NEW, b""),
        Message(NEW, struct.pack("=BBH", 2, 0, 0)),
    ],
    ids=["address", "no protocol", "another message", "empty", "no tuple"],
)
def test_what_is_no_flow_is_an_error(wrong: Message) -> None:
    with pytest.raises(SnapshotError):
        read(Conntrack([wrong]))


WEB = Match(
    Action.ACCEPT,
    (ip_network("198.51.100.0/24"),),
    frozenset({6}),
    Ports(443, 443),
    None,
    0,
)
PING = Match(Action.ACCEPT, None, frozenset({1}), None, frozenset({8}), 1)
LIST = Ground((WEB, PING), Action.DROP)


@pytest.mark.parametrize(
    ("flow", "accepted"),
    [
        (Flow(A, B, 6, 443, None), True),
        (Flow(A, B, 6, 80, None), False),
        (Flow(A, B, 17, 443, None), False),
        (Flow(A, ip_address("192.0.2.1"), 6, 443, None), False),
        (Flow(A, B, 1, None, 8), True),
        (Flow(A, B, 1, None, 13), False),
        (Flow(A, B, 47, None, None), False),
    ],
    ids=str,
)
def test_the_first_match_decides(flow: Flow, *, accepted: bool) -> None:
    assert accepts(LIST, flow) is accepted
