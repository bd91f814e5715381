# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference page of the rule language tells the truth about the code."""

import re
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from rules.decide import Packet, decide
from rules.model import Action, Family, Policy, Refused, RuleError
from rules.parse import parse_api, parse_list, parse_value, parse_words

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "rule-language.md"
RESOLVERS = frozenset({ip_address("10.139.1.1"), ip_address("10.139.1.2")})
PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "icmp6": 58}


def rows(heading: str) -> Iterator[list[str]]:
    """Yield the cells of the table under a heading, without its two title lines."""
    section = re.split(r"^#+ ", PAGE.read_text("ascii"), flags=re.MULTILINE)
    (wanted,) = [text for text in section if text.startswith(f"{heading}\n")]
    lines = [line for line in wanted.splitlines() if line.startswith("|")]
    for line in lines[2:]:
        yield [cell.strip().strip("`") for cell in line.strip("|").split("|")]


def written_out(cell: str) -> bytes:
    r"""Return what a cell stands for: ``a{3}`` is aaa and ``\x20`` is that byte."""
    longer = re.sub(r"(\w)\{(\d+)\}", lambda m: m[1] * int(m[2]), cell)
    return longer.encode().decode("unicode_escape").encode("latin-1")


def read_words(cell: str) -> None:
    parse_words([written_out(word).decode() for word in cell.split(" ")], now=0)


def read_keys(cell: str) -> None:
    values = dict.fromkeys(cell.split(" "), b"action=accept") | {"policy": b"drop"}
    match parse_list(values, Family.IPV4):
        case Policy(found):
            assert len(found) == len(values) - 1
        case Refused(reason):
            raise RuleError(reason)


READERS: dict[str, Callable[[str], object]] = {
    "Admin API line": lambda cell: parse_api(written_out(cell).decode()),
    "QubesDB value, IPv4": lambda cell: parse_value(written_out(cell), Family.IPV4),
    "QubesDB value, IPv6": lambda cell: parse_value(written_out(cell), Family.IPV6),
    "QubesDB keys of a list": read_keys,
    "Words": read_words,
}
DIFFERENCES = [
    pytest.param(read, *row[:3], id=f"{heading}: {row[0]}")
    for heading, read in READERS.items()
    for row in rows(heading)
]
MEANINGS = [
    pytest.param(*row[:4], id=f"{row[0]} for {row[1]}")
    for row in rows("Meant differently than in Qubes")
]


@pytest.mark.parametrize(("read", "untrusted", "qubes", "ravelin"), DIFFERENCES)
def test_each_row_reads_as_the_page_says(
    read: Callable[[str], object], untrusted: str, qubes: str, ravelin: str
) -> None:
    """A row of "Read differently" is accepted or refused as it says."""
    assert qubes in {"accepted", "refused", "crash"}
    assert qubes != ravelin
    if ravelin == "accepted":
        read(untrusted)
    else:
        assert ravelin == "refused"
        with pytest.raises(RuleError):
            read(untrusted)


@pytest.mark.parametrize(("text", "packet", "qubes", "ravelin"), MEANINGS)
def test_each_row_means_what_the_page_says(
    text: str, packet: str, qubes: str, ravelin: str
) -> None:
    """A row of "Meant differently" matches its packet, or not, as it says."""
    dst, proto, number = packet.split(" ")
    icmp = proto.startswith("icmp")
    numbers = (None, int(number)) if icmp else (int(number), None)
    sent = Packet(ip_address(dst), PROTOCOLS[proto], *numbers)
    version = Family.IPV4 if "." in dst else Family.IPV6
    rule = parse_value(text.encode(), version)
    decision = decide(Policy((rule,)), sent, {}, RESOLVERS, now=0)
    assert {qubes, ravelin} <= {"match", "no match", "blocks all"}
    assert ravelin == ("no match" if decision.rule is None else "match")
    assert decision.action is (rule.action if decision.rule == 0 else Action.DROP)


def test_the_page_has_its_tables() -> None:
    """No table was lost by a change of layout: this checks the test above."""
    assert len(DIFFERENCES) > 50
    assert len(MEANINGS) > 5


@pytest.mark.parametrize(
    ("number", "types4", "types6"),
    [
        pytest.param(*row, id=f"icmptype {row[0]}")
        for row in rows("A rule")
        if row[0].isdigit()
    ],
)
def test_icmp_types_are_those_of_the_page(
    number: str, types4: str, types6: str
) -> None:
    """The table of ICMP types is what `decide` does, type by type."""
    rule = parse_api(f"action=accept proto=icmp icmptype={number}")
    for dst, proto, types in (("192.0.2.7", 1, types4), ("2001:db8::7", 58, types6)):
        accepted = {
            kind
            for kind in range(256)
            if decide(
                Policy((rule,)),
                Packet(ip_address(dst), proto, None, kind),
                {},
                RESOLVERS,
                now=0,
            ).action
            is Action.ACCEPT
        }
        assert accepted == {int(found) for found in re.findall(r"\d+", types)}
