# SPDX-License-Identifier: GPL-2.0-or-later
"""Text to rules and back, in the three forms the rule language has."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.emit import api_line, qdb_value
from rules.model import (
    Action,
    Anywhere,
    Family,
    Name,
    Network,
    Policy,
    Ports,
    Proto,
    Refused,
    Rule,
    RuleError,
    SpecialTarget,
)
from rules.parse import parse_api, parse_list, parse_text, parse_value, parse_words
from tests.rules.rule_strategies import rules

ACCEPT = Rule(Action.ACCEPT)
WEB = Network(IPv4Network("192.0.2.1/32"))
EVERYTHING = (
    "action=accept expire=1463292452 dst6=2001:db8::/32 proto=tcp specialtarget=dns"
    " dstports=53-54 comment=x: [a], b"
)


@pytest.mark.parametrize(
    "line",
    [
        "action=accept",
        "action=drop dst4=0.0.0.0/0",
        "action=drop dst6=::/0",
        "action=accept dsthost=www.example.com",
        "action=accept dsthost=www.example.com.",
        "action=accept dsthost=_srv.1a.xn--bcher-kva.example",
        "action=accept dst4=192.0.2.0/24 proto=udp dstports=0-65535",
        "action=accept proto=icmp icmptype=255",
        "action=accept specialtarget=dns",
        EVERYTHING,
    ],
)
def test_a_line_of_qubes_comes_back_byte_for_byte(line: str) -> None:
    """What dom0 writes is read, and written again as it was."""
    assert api_line(parse_api(line)) == line


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("dstports=80 proto=tcp action=drop", "action=drop proto=tcp dstports=80-80"),
        ("action=drop dsthost=192.0.2.1", "action=drop dst4=192.0.2.1/32"),
        ("action=drop dstname=192.0.2.0/24", "action=drop dst4=192.0.2.0/24"),
        ("action=drop dstname=a.example", "action=drop dsthost=a.example"),
        ("action=drop dsthost=2001:DB8:0::1", "action=drop dst6=2001:db8::1/128"),
        ("action=drop dst6=::192.0.2.1", "action=drop dst6=::c000:201/128"),
        ("action=drop comment=", "action=drop"),
        ("comment= a  b ", None),
        ("comment=b action=drop", None),
    ],
)
def test_other_spellings_are_read_and_written_as_qubes_would(
    line: str, rule: str | None
) -> None:
    """Options come in any order; ``comment=`` swallows all that follows."""
    if rule is None:
        with pytest.raises(RuleError):
            parse_api(line)
    else:
        assert api_line(parse_api(line)) == rule


def test_a_comment_keeps_its_spaces() -> None:
    """Nothing is trimmed from a comment."""
    assert parse_api("action=drop comment= a  b ").comment == " a  b "


def test_every_option_has_its_field() -> None:
    """One line with everything that can stand together."""
    assert parse_api(EVERYTHING) == Rule(
        Action.ACCEPT,
        Network(IPv6Network("2001:db8::/32")),
        Proto.TCP,
        SpecialTarget.DNS,
        Ports(53, 54),
        expire=1463292452,
        comment="x: [a], b",
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "'': expected key=value"),
        ("accept", "'accept': expected key=value"),
        ("proto=tcp", "action: missing"),
        ("action=Accept", "action 'Accept': expected accept or drop"),
        ("action=accept=x", "action 'accept=x': expected accept or drop"),
        ("action=accept dpi=http", "option 'dpi': expected one of action, dsthost"),
        ("action=accept action=accept", "action 'accept': expected action only once"),
        (
            "action=accept dst4=192.0.2.1 dsthost=a.example",
            "dsthost 'a.example': expected dsthost only once",
        ),
        ("action=accept proto=sctp", "proto 'sctp': expected tcp or udp or icmp"),
        ("action=accept specialtarget=ntp", "specialtarget 'ntp': expected dns"),
        ("action=accept dsthost=Example.com", "dsthost 'Example.com': expected an"),
        ("action=accept dsthost=*.example.com", "dsthost '*.example.com'"),
        ("action=accept dsthost=fe80::1%eth0", "dsthost 'fe80::1%eth0'"),
        ("action=accept dsthost=10.0.0.0/255.0.0.0", "dsthost '10.0.0.0/255.0.0.0'"),
        ("action=accept dsthost=192.0.2.0/33", "dsthost '192.0.2.0/33'"),
        ("action=accept dsthost=::/129", "dsthost '::/129'"),
        ("action=accept dsthost=192.0.2.0/", "dsthost '192.0.2.0/'"),
        ("action=accept dsthost=192.0.2.0/24/24", "dsthost '192.0.2.0/24/24'"),
        ("action=accept dsthost=1:2", "dsthost '1:2'"),
        ("action=accept dst4=4.4.4.4/24", "4.4.4.4/24 has host bits set"),
        ("action=accept dst4=a.example", "'a.example': expected an IPv4 prefix"),
        ("action=accept dst6=192.0.2.1", "'192.0.2.1': expected an IPv6 prefix"),
        ("action=accept dst6=::ffff:0:0/96", "expected the IPv4 address itself"),
        ("action=accept dstports=80-80", "dstports: only with proto=tcp or proto=udp"),
        ("action=accept proto=icmp dstports=80", "dstports: not with proto=icmp"),
        (
            "action=accept proto=tcp dstports=65536",
            "dstports 65536-65536: expected",
        ),
        (
            "action=accept proto=tcp dstports=90-80",
            "expected a rising range within 0",
        ),
        ("action=accept proto=tcp dstports=80-", "dstports '80-': expected 80 or"),
        ("action=accept proto=tcp dstports=1-2-3", "dstports '1-2-3'"),
        ("action=accept proto=tcp dstports=-1", "dstports '-1'"),
        ("action=accept proto=tcp dstports=\u0668\u0660", r"dstports '\u0668\u0660'"),
        ("action=accept icmptype=8", "icmptype: only with proto=icmp"),
        ("action=accept proto=icmp icmptype=256", "icmptype 256: not within 0-255"),
        ("action=accept expire=1.5", "expire '1.5': expected a decimal number"),
        ("action=accept expire=+300", "expire '+300': expected a decimal number"),
        ("action=accept expire=253402300800", "expire 253402300800: not within"),
        ("action=accept expire=" + "9" * 5000, "expected a decimal number"),
        ("action=accept comment=(x)", "comment '(x)': expected ASCII letters"),
        ("action=accept comment=a\nb", r"comment 'a\nb'"),
        ("action=accept\n", r"action 'accept\n'"),
        ("action=accept dsthost=a.example\x00", r"'a.example\x00'"),
    ],
)
def test_a_refusal_names_the_text_and_what_was_expected(
    line: str, message: str
) -> None:
    """Every error can be acted on without reading the source."""
    with pytest.raises(RuleError) as error:
        parse_api(line)
    assert message in str(error.value)


def test_an_error_is_short_and_printable_whatever_the_input() -> None:
    """A message goes to a log and to QubesDB: no control characters, no novel."""
    with pytest.raises(RuleError) as error:
        parse_api("action=accept dsthost=" + "\x1b[31m" * 1000)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300


@given(rules())
def test_every_rule_survives_the_admin_api(rule: Rule) -> None:
    """``parse_api`` undoes ``api_line``."""
    assert parse_api(api_line(rule)) == rule


@given(rules(ports_alone=True))
def test_every_rule_survives_qubesdb_but_for_expiry_and_comment(rule: Rule) -> None:
    """``parse_value`` undoes ``qdb_value`` in a family the rule can belong to."""
    sent = replace(rule, expire=None, comment=None)
    v6 = isinstance(rule.destination, Network) and rule.destination.prefix.version == 6
    version = Family.IPV6 if v6 else Family.IPV4
    assert parse_value(qdb_value(rule).encode(), version) == sent
    assert qdb_value(rule) == api_line(sent)


@given(rules())
def test_a_line_is_also_good_as_words(rule: Rule) -> None:
    """The text form of a policy file contains the Admin API line."""
    assert parse_text(api_line(rule), now=0) == rule


def test_a_prefix_of_length_zero_stays_one() -> None:
    """Qubes once made a single host of ``/0``."""
    rule = parse_api("action=accept dst4=0.0.0.0/0")
    assert rule.destination == Network(IPv4Network("0.0.0.0/0"))


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ("accept", ACCEPT),
        ("accept 192.0.2.1", Rule(Action.ACCEPT, WEB)),
        (
            "accept a.example tcp 80-90",
            Rule(Action.ACCEPT, Name("a.example"), Proto.TCP, ports=Ports(80, 90)),
        ),
        (
            "drop 192.0.2.1 icmp 8",
            Rule(Action.DROP, WEB, Proto.ICMP, icmp_type=8),
        ),
        (
            "accept dst4=192.0.2.1 udp 53",
            Rule(Action.ACCEPT, WEB, Proto.UDP, ports=Ports(53, 53)),
        ),
        (
            "specialtarget=dns accept proto=udp",
            Rule(Action.ACCEPT, proto=Proto.UDP, special=SpecialTarget.DNS),
        ),
        (
            "proto=tcp accept 192.0.2.1 443",
            Rule(Action.ACCEPT, WEB, Proto.TCP, ports=Ports(443, 443)),
        ),
        (
            "accept dstports=443 proto=tcp",
            Rule(Action.ACCEPT, proto=Proto.TCP, ports=Ports(443, 443)),
        ),
        ("accept expire=+300", Rule(Action.ACCEPT, expire=1300)),
        ("accept expire=300", Rule(Action.ACCEPT, expire=300)),
        ("accept comment=a b  c", Rule(Action.ACCEPT, comment="a b  c")),
    ],
)
def test_words_are_placed_in_order_and_mixed_with_options(
    words: str, rule: Rule
) -> None:
    """The grammar of the ``qvm-firewall`` command, one second past 999."""
    assert parse_text(words, now=1000) == rule


def test_a_shell_word_may_hold_spaces() -> None:
    """A command line has its words cut already, and a comment may be anywhere."""
    assert parse_words(["comment=a b", "accept"], now=0).comment == "a b"


@pytest.mark.parametrize(
    "words",
    [
        "",
        "accept  tcp",
        "accept dstname=a.example",
        "accept comment=a=b",
        "accept expire=+",
        "accept expire=+-5",
        "accept expire=+999999999999",
        "accept a.example icmp 8 80",
        "accept a.example tcp dstports=80 443",
        "accept a.example dst4=192.0.2.1",
        "accept dsthost= tcp",
    ],
)
def test_words_that_fit_nowhere_are_refused(words: str) -> None:
    """No word is dropped, guessed or overridden."""
    with pytest.raises(RuleError):
        parse_text(words, now=0)


def listed(*numbers: str, policy: bytes = b"drop") -> dict[str, bytes]:
    """Return a list whose rule at each number accepts a host of that name."""
    values = {n: f"action=accept dsthost=r{n}.example".encode() for n in numbers}
    return {"policy": policy, **values}


def test_rules_apply_in_the_order_of_their_numbers_not_of_their_text() -> None:
    """Five digits come last, gaps are nothing, the mapping's order is nothing."""
    found = parse_list(listed("10000", "0007", "9999", "0000"), Family.IPV4)
    assert isinstance(found, Policy)
    assert found.default is Action.DROP
    order = [api_line(rule).split("=r")[1] for rule in found.rules]
    assert order == [f"{n}.example" for n in ("0000", "0007", "9999", "10000")]


def test_the_default_is_what_policy_says() -> None:
    """Dom0 writes ``drop``; the format knows ``accept`` too."""
    assert parse_list(listed(policy=b"accept"), Family.IPV6) == Policy(
        (), Action.ACCEPT
    )


def test_no_keys_at_all_is_an_empty_list_without_alarm() -> None:
    """A domain whose keys were removed is closed, and that is no error."""
    assert parse_list({}, Family.IPV4) == Policy((), Action.DROP)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"0000": b"action=accept"}, "policy: missing"),
        (listed(policy=b"reject"), "policy 'reject': expected accept or drop"),
        (listed(policy=b"\xff\n"), r"policy '\xff\n': expected accept or drop"),
        (
            listed("0000") | {"0003": b"action=accept proto=sctp"},
            "rule 0003: proto 'sctp': expected tcp or udp or icmp",
        ),
        (
            listed() | {"0003": b"action=accept\xc3\xa9"},
            r"rule 0003: 'action=accept\xc3\xa9': expected ASCII",
        ),
        (
            listed() | {"0000": b"action=accept dst6=2001:db8::/32"},
            "rule 0000: 2001:db8::/32: expected a destination of IPV4",
        ),
        (listed() | {"0000": b""}, "rule 0000: '': expected key=value"),
        (listed("000"), "key '000': expected policy or 0000-9999"),
        (listed("00010"), "key '00010': expected policy or 0000-9999"),
        (listed("0x10"), "key '0x10': expected policy or 0000-9999"),
        (
            listed("\u0660\u0660\u0660\u0661"),
            r"key '\u0660\u0660\u0660\u0661': expected policy or 0000-9999",
        ),
        (listed("9" * 5000), f"key '{'9' * 60}'...: expected policy or 0000-9999"),
    ],
)
def test_what_cannot_be_read_refuses_the_list_and_says_where(
    values: dict[str, bytes], reason: str
) -> None:
    """The reason names the key, the text and what was expected."""
    assert parse_list(values, Family.IPV4) == Refused(reason)


@pytest.mark.parametrize(
    "value", [b"action=accept expire=1", b"action=accept comment=x"]
)
def test_expiry_and_comment_never_travel_in_qubesdb(value: bytes) -> None:
    """Dom0 keeps both: who sends them is not dom0."""
    with pytest.raises(RuleError, match="expected one of"):
        parse_value(value, Family.IPV4)


def test_ports_without_protocol_are_for_qubesdb_alone() -> None:
    """The format allows them there: they mean TCP and UDP."""
    found = parse_value(b"action=drop dstports=1-2", Family.IPV4)
    assert found == Rule(Action.DROP, Anywhere(), ports=Ports(1, 2))


WORDS = (
    *("action=accept", "action=drop", "proto=tcp", "proto=icmp", "dstports=1-2"),
    *("icmptype=8", "dst4=", "192.0.2.1/32", "specialtarget=dns", "comment="),
    *("accept", "policy", "=", " ", "\xff", ""),
)
garbage = st.binary(max_size=40) | st.lists(st.sampled_from(WORDS), max_size=6).map(
    lambda words: " ".join(words).encode("latin-1")
)


@given(
    st.dictionaries(
        st.sampled_from(["policy", "0000", "10000", "1"]) | st.text(max_size=6),
        garbage | st.just(b"drop"),
    ),
    st.sampled_from(Family),
)
def test_no_bytes_raise_anything(values: dict[str, bytes], version: Family) -> None:
    """A list is read or refused; a refusal is printable."""
    match parse_list(values, version):
        case Policy(found):
            assert len(found) == len(values.keys() - {"policy"})
        case Refused(reason):
            assert reason.isprintable()


@given(st.text() | garbage.map(lambda value: value.decode("latin-1")))
def test_no_text_raises_anything_but_a_rule_error(text: str) -> None:
    """Lines and words that cannot be read end in `RuleError`."""
    for read in (parse_api, lambda line: parse_text(line, now=0)):
        with suppress(RuleError):
            assert isinstance(read(text), Rule)


@pytest.mark.parametrize(
    "make",
    [
        lambda: replace(ACCEPT, expire=-1),
        lambda: replace(ACCEPT, comment=""),
        lambda: replace(ACCEPT, comment="\xe9"),
        lambda: replace(ACCEPT, icmp_type=8),
        lambda: replace(ACCEPT, proto=Proto.ICMP, icmp_type=-1),
        lambda: replace(ACCEPT, proto=Proto.ICMP, special=SpecialTarget.DNS),
        lambda: Name("A.example"),
        lambda: Network(IPv6Network("::ffff:192.0.2.0/120")),
        lambda: Ports(2, 1),
    ],
)
def test_an_impossible_rule_cannot_be_made(make: Callable[[], object]) -> None:
    """The types refuse it too, not only the parser."""
    with pytest.raises(RuleError):
        make()
