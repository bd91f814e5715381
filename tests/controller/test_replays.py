# SPDX-License-Identifier: GPL-2.0-or-later
"""What cannot be sent is said so; what is sent is seen in tests of the whole."""

from contextlib import AbstractContextManager, nullcontext
from ipaddress import IPv4Address

from controller.replays import replay
from proof.claims import NoSpoof, Result, Status
from proof.fields import INVALID
from proof.world import Client, Packet, Place, World
from tests.controller.scenes import nothing

WORK, WEB = IPv4Address("10.137.0.4"), IPv4Address("198.51.100.80")
KNOWN = World(
    {
        "fw": Place(nothing(), {"vif2.0": Client("work", (WORK,))}, {"eth0": "net"}),
        "end": Place(nothing(), {"vif3.0": Client("other", (WORK,))}),
    }
)


def outcome(packet: Packet | None, domain: str = "fw", came_by: str = "vif2.0") -> str:
    result = Result(NoSpoof("work"), 4, Status.REFUTED, packet, domain, came_by)
    return replay(result, KNOWN, nowhere)


def nowhere(name: str) -> AbstractContextManager[None]:
    if name == "fw":
        raise FileNotFoundError(2, "No such file or directory", name)
    return nullcontext()


SYN = Packet(WORK, WEB, 6, 40000, 443)


def test_what_comes_from_no_domain_is_not_sent() -> None:
    text = "not replayed: it does not come from a domain"

    assert outcome(SYN, came_by="eth0") == text
    assert outcome(SYN, domain="gone") == text
    assert outcome(None) == text


def test_what_belongs_to_a_flow_is_not_sent() -> None:
    invalid = Packet(WORK, WEB, 6, 40000, 443, state=INVALID)

    assert "no flow that could be opened" in outcome(invalid)


def test_without_a_way_on_there_is_nothing_to_watch() -> None:
    assert outcome(SYN, "end", "vif3.0") == "not replayed: end has no way on to watch"


def test_a_domain_that_died_meanwhile_is_named() -> None:
    assert outcome(SYN).startswith("not replayed: [Errno 2] No such file")
