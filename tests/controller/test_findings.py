# SPDX-License-Identifier: GPL-2.0-or-later
"""An answer becomes data in which nothing of it is lost."""

from ipaddress import ip_address

import pytest

from controller.findings import finding, packet_text, summary, unclaimed
from proof.bytecode import Place as Chain
from proof.claims import Alone, NoSpoof, NoTransit, Result, Status
from proof.fields import ESTABLISHED, INVALID
from proof.machine import Seen
from proof.world import Hop, Packet

WORK, WEB = ip_address("10.137.0.4"), ip_address("198.51.100.80")
SYN = Packet(WORK, WEB, 6, 40000, 443)
FORWARD = Chain(2, "qubes", "forward")
HOPS = (
    Hop("fw", SYN, "vif2.0", "sent", Seen(FORWARD, 9, "by rules"), out="eth0"),
    Hop("net", SYN, "vif1.0", "sent", Seen(FORWARD, 7, None), out="eth0"),
    Hop("x", SYN, "vif1.0", "dropped", chain=FORWARD, reason="no rule"),
    Hop("y", SYN, "vif1.0", "unroutable"),
)


def test_a_refutation_has_its_packet_its_way_and_the_rules() -> None:
    result = Result(
        NoSpoof("work"),
        4,
        Status.REFUTED,
        SYN,
        "fw",
        "vif2.0",
        HOPS,
        ("note",),
        {"fw": 41},
    )

    found = finding(result, None, "replayed")

    assert found["claim"] == str(NoSpoof("work"))
    assert (found["version"], found["status"]) == (4, "refuted")
    assert found["packet"] == "tcp 10.137.0.4 port 40000 > 198.51.100.80 port 443"
    assert found["enters"] == "fw by vif2.0"
    assert (found["notes"], found["generations"]) == (["note"], {"fw": 41})
    assert (found["replay"], found["domains"]) == ("replayed", ["work"])
    hops = found["hops"]
    assert isinstance(hops, list)
    assert [hop["rule"] for hop in hops] == [
        'ip qubes forward handle 9 "by rules"',
        "ip qubes forward handle 7",
        "policy of ip qubes forward",
        None,
    ]
    assert [hop["reason"] for hop in hops] == [None, None, "no rule", None]


def test_the_words_of_who_asserted_it_come_first() -> None:
    result = Result(NoTransit("fw"), 6, Status.PROVED)

    found = finding(result, "as line 7 asserts", None)

    assert (found["claim"], found["packet"]) == ("as line 7 asserts", None)
    assert (found["enters"], found["domains"]) == (None, ["fw"])


def test_what_could_not_be_asked_is_unknown() -> None:
    found = unclaimed("work is as it should be", "it is gone")

    assert (found["status"], found["notes"]) == ("unknown", ["it is gone"])
    result = Result(Alone("vault"), 4, Status.PROVED)
    assert found.keys() == finding(result, None, None).keys()


@pytest.mark.parametrize(
    ("packet", "text"),
    [
        (
            Packet(WORK, WEB, 17, 1, 53, state=ESTABLISHED),
            "udp 10.137.0.4 port 1 > 198.51.100.80 port 53 (established)",
        ),
        (Packet(WORK, WEB, 1, 8 << 8), "icmp type 8 10.137.0.4 > 198.51.100.80"),
        (
            Packet(WORK, WEB, 47, state=INVALID),
            "protocol 47 10.137.0.4 > 198.51.100.80 (invalid)",
        ),
        (
            Packet(ip_address("fd00::1"), ip_address("2001:db8::1"), 58, 128 << 8),
            "icmp type 128 fd00::1 > 2001:db8::1",
        ),
    ],
)
def test_a_packet_is_one_line(packet: Packet, text: str) -> None:
    assert packet_text(packet) == text


def test_answers_are_counted_by_kind() -> None:
    rows = [unclaimed("a", "b"), unclaimed("c", "d")]

    assert summary(rows) == {"proved": 0, "refuted": 0, "possible": 0, "unknown": 2}
