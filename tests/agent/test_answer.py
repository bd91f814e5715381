# SPDX-License-Identifier: GPL-2.0-or-later
"""A DNS message is believed only as the reply to the question that was asked."""

import struct
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import dns.ttl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import answer
from agent.answer import Failed, Found, Truncated, Unrelated
from rules.model import Family

ID = 0x1234
HUGE = dns.ttl.MAX_TTL
ASKED = answer.question("Host.example", Family.IPV4, ID)
ASKED6 = answer.question("host.example", Family.IPV6, ID)


def reply(*records: str, asked: bytes = ASKED, rcode: int = 0, soa: str = "") -> bytes:
    """Make a reply; a record is `owner ttl type value`."""
    message = dns.message.make_response(dns.message.from_wire(asked))
    message.set_rcode(rcode)
    for record in records:
        owner, ttl, kind, value = record.split(maxsplit=3)
        message.answer.append(dns.rrset.from_text(owner, int(ttl), "IN", kind, value))
    if soa:
        value = f"ns.example. root.example. 1 2 3 4 {soa}"
        message.authority.append(
            dns.rrset.from_text("example.", 900, "IN", "SOA", value)
        )
    return message.to_wire()


def found(ttl: int, *addresses: str) -> Found:
    return Found(frozenset(map(ip_address, addresses)), ttl)


GOOD = reply("host.example. 300 A 192.0.2.1")


@pytest.mark.parametrize(
    ("message", "meaning"),
    [
        pytest.param(
            reply("host.example. 300 A 192.0.2.1", "host.example. 300 A 192.0.2.2"),
            found(300, "192.0.2.1", "192.0.2.2"),
            id="addresses",
        ),
        pytest.param(
            reply(
                "host.example. 300 CNAME a.cdn.",
                "a.cdn. 20 CNAME b.cdn.",
                "b.cdn. 60 A 192.0.2.1",
            ),
            found(20, "192.0.2.1"),
            id="a chain holds as long as its weakest link",
        ),
        pytest.param(
            reply("host.example. 300 CNAME a.cdn."), found(300), id="chain to nowhere"
        ),
        pytest.param(
            reply("host.example. 5 CNAME a.cdn.", "a.cdn. 5 CNAME host.example."),
            Failed,
            id="chain in a circle",
        ),
        pytest.param(
            reply("other.example. 300 A 192.0.2.66"), found(HUGE), id="of another name"
        ),
        pytest.param(reply(), found(HUGE), id="empty"),
        pytest.param(reply(soa="45"), found(45), id="no such record, for so long"),
        pytest.param(
            reply(rcode=dns.rcode.NXDOMAIN, soa="45"), found(45), id="no such name"
        ),
        pytest.param(
            reply("host.example. 5 A 192.0.2.1", rcode=dns.rcode.NXDOMAIN),
            Failed,
            id="no such name, but an address",
        ),
        pytest.param(reply(rcode=dns.rcode.SERVFAIL), Failed("SERVFAIL"), id="failure"),
        pytest.param(reply(rcode=dns.rcode.REFUSED), Failed("REFUSED"), id="refusal"),
        pytest.param(
            reply(
                "host.example. 9 A 0.0.0.0",
                "host.example. 9 A 224.0.0.1",
                "host.example. 9 A 10.0.0.1",
            ),
            found(9, "10.0.0.1"),
            id="no address of nobody or many, but private ones",
        ),
        pytest.param(
            GOOD[:6] + struct.pack("!3H", 1000, 1000, 49) + GOOD[12:],
            Failed("more than 2048 records"),
            id="more than anybody reads",
        ),
        pytest.param(GOOD[:-3], Failed, id="cut in the middle"),
        pytest.param(reply() + b"junk", Failed, id="more than a message"),
    ],
)
def test_a_reply_means(message: bytes, meaning: answer.Reply | type[Failed]) -> None:
    result = answer.read(message, ASKED)

    assert result == meaning or result.__class__ is meaning


def test_ipv6_addresses_are_asked_for_by_themselves() -> None:
    message = reply(
        "host.example. 9 AAAA 2001:db8::1",
        "host.example. 9 AAAA ::",
        "host.example. 9 AAAA ff02::1",
        asked=ASKED6,
    )

    assert answer.read(message, ASKED6) == found(9, "2001:db8::1")


def flags(message: bytes, third_byte: int) -> bytes:
    return message[:2] + bytes([third_byte]) + message[3:]


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(GOOD[:11], id="half a header"),
        pytest.param(b"\x43\x21" + GOOD[2:], id="another id"),
        pytest.param(ASKED, id="the question itself"),
        pytest.param(flags(GOOD, 0xA8), id="another kind of message"),
        pytest.param(GOOD[:4] + b"\0\0" + GOOD[6:], id="no question"),
        pytest.param(reply(asked=ASKED6), id="another type"),
        pytest.param(
            reply(asked=answer.question("hosts.example", Family.IPV4, ID)),
            id="another name",
        ),
    ],
)
def test_what_is_no_reply_to_the_question_is_unrelated(message: bytes) -> None:
    assert answer.read(message, ASKED) == Unrelated()


def test_letters_may_change_case_on_the_way() -> None:
    asked = answer.question("HOST.EXAMPLE", Family.IPV4, ID)

    assert answer.read(GOOD.replace(b"Host", b"hOST"), asked) == found(300, "192.0.2.1")


def test_a_cut_reply_is_recognised_however_it_ends() -> None:
    cut = flags(GOOD, 0x82)

    assert answer.read(cut, ASKED) == answer.read(cut[:-3], ASKED) == Truncated()


@given(st.binary(max_size=600))
def test_no_bytes_make_the_reading_raise(junk: bytes) -> None:
    """Also behind a header and question that are right."""
    answer.read(junk, ASKED)
    answer.read(flags(ASKED, 0x80) + junk, ASKED)
    counts = b"\0\1" + junk[:6].ljust(6, b"\1")
    answer.read(flags(ASKED, 0x80)[:4] + counts + ASKED[12:] + junk[6:], ASKED)


@given(st.data())
def test_no_damage_to_a_reply_makes_the_reading_raise(data: st.DataObject) -> None:
    message = bytearray(reply("host.example. 5 CNAME a.b.", "a.b. 7 A 192.0.2.1"))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(len(ASKED), len(message) - 1))
        message[place] = data.draw(st.integers(0, 255))

    answer.read(bytes(message), ASKED)


@pytest.mark.parametrize("name", ["a" * 64, "a..b", ".".join(["abcdefgh"] * 40)])
def test_what_can_be_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not a host name"):
        answer.question(name, Family.IPV4, ID)


def test_dnspython_is_loaded_by_the_first_question_only() -> None:
    program = """if True:
        import sys
        from agent import answer, names
        from rules.model import Family
        names.Names().handle()
        assert "dns" not in sys.modules
        answer.question("a", Family.IPV4, 1)
        assert "dns" in sys.modules
    """

    subprocess.run(
        [sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2]
    )
