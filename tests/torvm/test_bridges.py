# SPDX-License-Identifier: GPL-2.0-or-later
"""Bridge lines are read to the last letter or not at all, and never repeated."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torvm.bridges import MAX_BRIDGES, Bridge, BridgeError, parse
from torvm.places import UDP, Place
from torvm.pluggable import Way

FINGERPRINT = "2B280B23E1107BB62ABFC40DDCC8824814F80A72"
CERT = "cert=ssH+9rP8dG2NLDN2XuFw63hIO/9MNNinLmxQDpVa+7kTOa9/m+tGWT1SmSYpQ9uTBGa6Hw"
MEEK = f"meek_lite 192.0.2.20:80 {FINGERPRINT} url=https://meek.example.net/ "
MEEK += "front=front.example.com"
SNOWFLAKE = f"snowflake 192.0.2.3:80 {FINGERPRINT} fingerprint={FINGERPRINT} "
SNOWFLAKE += "url=https://broker.example.net/ front=front.example.com "
SNOWFLAKE += "ice=stun:stun.example.org:3478,stun:192.0.2.9 "
SNOWFLAKE += "utls-imitate=hellorandomizedalpn"
OBFS4 = f"obfs4 192.95.36.142:443 {FINGERPRINT} {CERT} iat-mode=0"


def test_a_line_of_the_distributor_is_a_bridge() -> None:
    assert parse(OBFS4.encode()) == (
        Bridge(
            ip_address("192.95.36.142"),
            443,
            "obfs4",
            FINGERPRINT,
            (CERT, "iat-mode=0"),
        ),
    )


@pytest.mark.parametrize(
    "line",
    [
        OBFS4,
        "192.0.2.1:9001",
        f"192.0.2.1:9001 {FINGERPRINT}",
        f"obfs4 [2001:db8::1]:443 {FINGERPRINT} {CERT}",
        MEEK,
        SNOWFLAKE,
    ],
)
def test_tor_is_told_the_same_line(line: str) -> None:
    assert [bridge.line for bridge in parse(line.encode())] == [line]


def test_comments_empty_lines_and_the_word_itself_are_no_matter() -> None:
    text = f"# from a friend\n\n  Bridge   {OBFS4}\r\nbridge 192.0.2.1:9001\n"

    assert [bridge.line for bridge in parse(text.encode())] == [OBFS4, "192.0.2.1:9001"]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# nothing",
        "obfs4",
        "example.com:443",
        "192.0.2.1",
        "192.0.2.1:0",
        "192.0.2.1:65536",
        "192.0.2.300:443",
        "127.0.0.1:443",
        "0.0.0.0:443",
        "224.0.0.1:443",
        "[::1]:443",
        "[::ffff:192.0.2.1]:443",
        "[fe80::1%eth0]:443",
        "snowflake 192.0.2.1:443",
        "snowflake 192.0.2.1:443 url=https://broker.example.net/",
        "snowflake 192.0.2.1:443 url=https://broker.example.net/ ice=turn:a.example",
        "snowflake 192.0.2.1:443 url=https://broker.example.net/ ice=stun:a b",
        "snowflake 192.0.2.1:443 url=https://broker.example.net/ ice=stun:127.0.0.1",
        "snowflake 192.0.2.1:443 url=https://broker.example.net/ ice=stun:a:99999",
        "snowflake 192.0.2.1:443 url=https://broker.example.net/ max=0",
        "snowflake 192.0.2.1:443 url=https://broker.example.net/ sqsqueue=x",
        "snowflake 192.0.2.1:443 url=https://broker.example.net/ log=/etc/passwd",
        "snowflake 192.0.2.1:443 url=https://a.example/ ampcache=https://b.example/",
        f"snowflake 192.0.2.1:443 url=https://a.example/ ice=stun:a{30 * ',stun:a'}",
        "meek_lite 192.0.2.20:80",
        "meek_lite 192.0.2.20:80 front=front.example.com",
        "meek_lite 192.0.2.20:80 url=ftp://meek.example.net/",
        "meek_lite 192.0.2.20:80 url=https://me@meek.example.net/",
        "meek_lite 192.0.2.20:80 url=https://127.0.0.1/",
        "meek_lite 192.0.2.20:80 url=https://meek.example.net:0/",
        "meek_lite 192.0.2.20:80 url=https://-/ front=front.example.com:8443",
        "meek_lite 192.0.2.20:80 url=https://a.example/ url=https://b.example/",
        "meek_lite 192.0.2.20:80 url=https://a.example/ disableHPKP=true",
        "webtunnel [2001:db8::1]:443 url=https://a.example/ ver=0.0.1",
        "meek 0.0.2.0:2 url=https://a.example/",
        f"obfs4 192.0.2.1:443 {FINGERPRINT} {CERT} iat-mode=9",
        f"obfs4 192.0.2.1:443 {FINGERPRINT} {CERT} front=front.example.com",
        "exec /bin/sh",
        f"192.0.2.1:443 {FINGERPRINT}0",
        f"192.0.2.1:443 {FINGERPRINT} {CERT}",
        "192.0.2.1:443 cert=abc",
        f"obfs4 192.0.2.1:443 {FINGERPRINT} cert",
        f"obfs4 192.0.2.1:443 {FINGERPRINT} cert=a;b=c",
        f'obfs4 192.0.2.1:443 {FINGERPRINT} cert=a"b',
        f"obfs4 192.0.2.1:443 {FINGERPRINT} cert=a\x00b",
        f"obfs4 192.0.2.1:443 {FINGERPRINT} cert={'a' * 1100}",
        "UseBridges 0",
        "192.0.2.1:443\\\nControlPort 9051",
        "obfs4 192.0.2.1:443 cért=a",
    ],
)
def test_whatever_else_is_refused(line: str) -> None:
    with pytest.raises(BridgeError):
        parse(line.encode())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("webtunnel 192.0.2.1:443", "webtunnel: Debian packages no program"),
        ("meek 192.0.2.1:443", "meek: expected meek_lite"),
        ("obfs3 192.0.2.1:443", "obfs3: is broken, ask for obfs4"),
        ("vanilla 192.0.2.1:443", "expected ADDRESS:PORT, or one of obfs4, meek_lite"),
    ],
)
def test_what_has_no_program_is_refused_with_the_reason(line: str, said: str) -> None:
    with pytest.raises(BridgeError, match=f"^bridges:2: {said}"):
        parse(f"{OBFS4}\n{line}\n".encode())


def way(line: str) -> Way:
    return parse(line.encode())[0].way


def test_a_bridge_that_is_reached_itself_is_all_that_is_reached() -> None:
    place = Place(ip_address("192.95.36.142"), 443)

    assert way(OBFS4) == Way((place,))
    assert way("192.95.36.142:443") == Way((place,))


def test_a_front_is_reached_in_place_of_the_bridge() -> None:
    """The address in the line is of no network; the port is the scheme's."""
    without = "meek_lite 192.0.2.20:80 url=https://meek.example.net:8443/x"

    assert way(MEEK) == Way((Place("front.example.com", 443),))
    assert way(without) == Way((Place("meek.example.net", 8443),))
    assert way("meek_lite 192.0.2.20:80 url=http://198.51.100.7/") == Way(
        (Place(ip_address("198.51.100.7"), 80),)
    )


def test_snowflake_reaches_its_front_and_then_anyone_by_udp() -> None:
    helpers = (
        Place("stun.example.org", 3478, UDP),
        Place(ip_address("192.0.2.9"), 3478, UDP),
    )

    assert way(SNOWFLAKE) == Way(
        (Place("front.example.com", 443),), helpers, anyone=True
    )


def test_of_several_fronts_the_packaged_program_is_told_the_first() -> None:
    """It knows no other word, and would talk to the broker itself without one."""
    several = SNOWFLAKE.replace("front=", "fronts=").replace(
        "front.example.com", "front.example.com,other.example.com"
    )

    assert [bridge.line for bridge in parse(several.encode())] == [SNOWFLAKE]


def test_more_arguments_than_fit_into_socks_are_refused() -> None:
    names = ",".join(f"stun:stun{n}.example.org:3478" for n in range(14))
    line = SNOWFLAKE.replace("stun:stun.example.org:3478", names)

    with pytest.raises(BridgeError, match="at most 510 bytes"):
        parse(line.encode())


def test_one_bad_line_takes_the_file_with_it_and_is_named() -> None:
    with pytest.raises(BridgeError, match=r"^bridges:3: expected"):
        parse(f"{OBFS4}\n\nSECRET\n".encode())


def test_more_than_anybody_has_are_refused() -> None:
    with pytest.raises(BridgeError, match=f"at most {MAX_BRIDGES}"):
        parse(b"192.0.2.1:9001\n" * (MAX_BRIDGES + 1))


@given(st.text(max_size=40))
def test_no_message_repeats_what_a_line_says(text: str) -> None:
    """Who uses which bridge is what may harm them."""
    try:
        told = repr(parse(f"{OBFS4}\n192.0.2.77:9001 SECRET{text}".encode()))
    except BridgeError as error:
        told = str(error)
    assert "192.0.2" not in told
    assert "SECRET" not in told


def test_nor_does_a_bridge_that_was_read() -> None:
    assert repr(parse(OBFS4.encode())) == "(Bridge(…),)"


WORDS = st.sampled_from(
    [*f"{SNOWFLAKE} {MEEK} {OBFS4}".split(), "fronts=a,b", "ice=", "url=", "front=", ""]
)


@given(st.lists(WORDS | st.text('abc=:/.,;@[]%#-"\\', max_size=12), max_size=9))
def test_words_in_any_order_are_read_or_refused(words: list[str]) -> None:
    """What is read can be told to tor, and to SOCKS, and says where it goes."""
    try:
        found = parse(" ".join(words).encode())
    except BridgeError:
        return
    for bridge in found:
        assert len(";".join(bridge.arguments)) <= 510
        assert not set('";\\@') & set(bridge.line)
        assert bridge.way.places


@given(st.binary(max_size=200))
def test_anything_at_all_is_read_or_refused(untrusted_text: bytes) -> None:
    try:
        found = parse(untrusted_text)
    except BridgeError:
        return
    for bridge in found:
        assert "\n" not in bridge.line
        assert '"' not in bridge.line
