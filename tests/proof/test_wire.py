# SPDX-License-Identifier: GPL-2.0-or-later
"""A packet's bytes are those that scapy knows, and its fields those of its bytes."""

from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6

from proof import fields
from proof.wire import frame, point, raw
from proof.world import Packet

ENDS = {
    4: (ip_address("10.137.0.5"), ip_address("198.51.100.80")),
    6: (ip_address("fd09:24ef:4179::a89:5"), ip_address("2001:db8:80::80")),
}
KINDS = [(6, 4000, 443), (17, 4000, 53), (1, 8 << 8, 0), (58, 128 << 8, 0)]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("proto", "first", "second"), KINDS)
def test_checksums_are_right_unless_it_is_to_be_invalid(
    version: int, proto: int, first: int, second: int
) -> None:
    if (version, proto) in {(6, 1), (4, 58)}:
        return
    packet = Packet(*ENDS[version], proto, first, second)
    invalid = Packet(*ENDS[version], proto, first, second, state=fields.INVALID)
    layer = IP if version == 4 else IPv6

    found = layer(raw(packet, b"payload"))
    again = layer(raw(packet, b"payload"))
    upper = {6: TCP, 17: UDP, 1: ICMP, 58: ICMPv6EchoRequest}[proto]
    name = "cksum" if proto == 58 else "chksum"
    delattr(again[upper], name)
    if version == 4:
        del again.chksum

    assert bytes(again) == bytes(found)
    assert raw(invalid, b"payload") != raw(packet, b"payload")


def test_a_frame_has_both_hardware_addresses() -> None:
    packet = Packet(*ENDS[4], 17, 1, 2, mac="00:16:3e:5e:6c:00")

    found = frame(packet, "fe:ff:ff:ff:ff:ff")

    assert found[:14].hex() == "feffffffffff00163e5e6c000800"


def test_the_fields_are_those_of_the_bytes() -> None:
    packet = Packet(*ENDS[4], 6, 4000, 443, fields={"network header byte 8": 3})

    found = point(packet)

    assert found[fields.SRC] == int(ENDS[4][0])
    assert (found[fields.SPORT], found[fields.DPORT]) == (4000, 443)
    assert found["network header byte 8"] == 3
    assert found["transport header byte 13"] == 2
    assert found["length"] == 40
