# SPDX-License-Identifier: GPL-2.0-or-later
"""A provider's profile is read to what it asks for, or refused by line."""

from contextlib import suppress
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vpn.profiles import (
    BLOCKS,
    CERTIFICATE,
    EVIL,
    FIRST_AFTER,
    GOOD,
    KEY,
    LINES,
    STATIC,
)
from vpn.endpoints import TCP, UDP, Endpoint
from vpn.openvpn_config import written
from vpn.openvpn_login import Login, read_login
from vpn.openvpn_options import BLOCKS as ALLOWED_BLOCKS
from vpn.openvpn_options import OURS, REFUSED, SERVERS, USED
from vpn.openvpn_profile import Profile, parse
from vpn.openvpn_words import ProfileError

SPECIAL = {"auth-user-pass", "dev", "dev-type", "dhcp-option", "setenv"}


def with_lines(*more: str) -> Profile:
    return parse((LINES + "\n".join(more) + "\n" + BLOCKS).encode())


def config(*more: str) -> list[str]:
    """The lines that the daemon gets."""
    return written(with_lines(*more), "tun7", "/run/x").decode().splitlines()


def test_the_corpus_of_tricks_is_large() -> None:
    assert len(EVIL) >= 40


@pytest.mark.parametrize("trick", EVIL)
def test_a_trick_is_refused_by_file_and_line(trick: str) -> None:
    """What a daemon would run, read or reach is named, and nothing of it is used."""
    line, answer = EVIL[trick]
    with pytest.raises(ProfileError) as refusal:
        parse((LINES + line + "\n" + BLOCKS).encode())

    assert answer in str(refusal.value)
    file, number, _ = str(refusal.value).split(":", 2)
    assert file == "config"
    assert FIRST_AFTER <= int(number) <= FIRST_AFTER + line.count("\n") + 7
    assert str(refusal.value).isprintable()


def test_without_the_trick_the_profile_is_good() -> None:
    """The positive control of the tricks: it is they that are refused."""
    assert parse(GOOD.encode()).endpoints == (Endpoint("vpn.example.com", 1194, UDP),)


def test_a_line_of_windows_and_a_byte_order_mark_are_read() -> None:
    text = "\ufeff" + GOOD.replace("\n", "\r\n")
    assert parse(text.encode()) == parse(GOOD.encode())


def test_no_option_is_in_two_tables() -> None:
    tables = [
        SPECIAL - {*USED},
        {*USED},
        {*SERVERS},
        {*ALLOWED_BLOCKS},
        OURS,
        {*REFUSED},
    ]
    assert sum(map(len, tables)) == len(set().union(*tables))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_the_table_refuses_is_refused(name: str) -> None:
    for line in (name, f"{name} x", f"--{name} x y", f"setenv opt {name} x"):
        with pytest.raises(ProfileError, match=f"^config:{FIRST_AFTER}: {name} "):
            with_lines(line)


@pytest.mark.parametrize("name", sorted(OURS))
def test_what_is_decided_here_is_read_over(name: str) -> None:
    """The daemon's configuration is the same with and without it."""
    assert config(f"{name} 7 /tmp/x") == config()


def test_what_is_used_comes_out_quoted_and_before_what_is_forced() -> None:
    lines = config(
        "cipher AES-256-GCM",
        "verify-x509-name 'C=US, CN=\"a\\b\"' subject",
        "tls-version-min 1.0",
        "reneg-sec 0",
        "dhcp-option DNS 10.0.0.1",
        "dhcp-option DOMAIN example.com",
        "compress",
        "comp-lzo no",
        "mssfix",
    )
    assert lines[:9] == [
        'cipher "AES-256-GCM"',
        'verify-x509-name "C=US, CN=\\"a\\\\b\\"" "subject"',
        'tls-version-min "1.0"',
        'reneg-sec "0"',
        'dhcp-option "DNS" "10.0.0.1"',
        "compress",
        'comp-lzo "no"',
        "mssfix",
        "remote 127.0.0.1 1 udp",
    ]
    assert "tls-version-min 1.2" in lines[9:]


def test_the_daemon_is_tied_to_us() -> None:
    """It runs nothing, routes nothing, and asks before each step."""
    assert {
        "client",
        "dev tun7",
        "dev-type tun",
        'management "/run/x" unix',
        "management-client",
        "management-hold",
        "management-query-passwords",
        "management-query-remote",
        "management-up-down",
        "script-security 0",
        "route-noexec",
        "ifconfig-noexec",
        "persist-tun",
        "auth-nocache",
        "resolv-retry 0",
    } <= set(config())


@pytest.mark.parametrize(
    ("line", "forced"),
    [
        ("verb 1", True),
        ("remote-cert-tls server", False),
        ("verify-x509-name vpn.example.com name", False),
        (f"peer-fingerprint {':'.join(['AB'] * 32)}", False),
        ("remote-cert-ku a0 88", False),
    ],
)
def test_another_client_is_never_taken_for_the_server(line: str, forced: bool) -> None:  # noqa: FBT001
    """Every client has a certificate of the same authority."""
    assert ("remote-cert-tls server" in config(line)) is forced


def test_the_newest_tls_is_kept_if_asked_for() -> None:
    lines = config("tls-version-min 1.3")
    assert 'tls-version-min "1.3"' in lines
    assert "tls-version-min 1.2" not in lines


def test_servers_take_what_they_do_not_say_from_the_rest_of_the_file() -> None:
    """Wherever ``port`` and ``proto`` stand, as in OpenVPN."""
    text = """\
remote A.Example.com
remote 203.0.113.5 443 tcp
proto tcp-client
remote 2001:db8::1 53 udp6
<connection>
  remote b.example.com
  proto udp
  explicit-exit-notify 2
</connection>
port 4443
remote a.example.com
remote-random
"""
    profile = parse((text + BLOCKS).encode())

    assert profile.endpoints == (
        Endpoint("a.example.com", 4443, TCP),
        Endpoint(ip_address("203.0.113.5"), 443, TCP),
        Endpoint(ip_address("2001:db8::1"), 53, UDP),
        Endpoint("b.example.com", 4443, UDP),
    )
    assert profile.servers.shuffled
    lines = written(profile, "t", "s").decode().splitlines()
    assert [line for line in lines if line.startswith("remote ")] == [
        "remote 127.0.0.1 1 tcp-client",
        "remote 127.0.0.1 1 udp",
    ]


def test_keys_are_written_in_lines_of_our_own() -> None:
    """What openssl and openvpn write around them is left out."""
    ca = f"Certificate:\n  Data: up /tmp/x\n{CERTIFICATE}\n{CERTIFICATE}"
    crypt = f"# 2048 bit OpenVPN static key\n#\n{STATIC}"
    text = f"<ca>\n{ca}</ca>\n<tls-crypt>\n{crypt}</tls-crypt>\nauth-user-pass\n"
    profile = parse((LINES + text).encode())

    assert profile.blocks == {"ca": CERTIFICATE * 2, "tls-crypt": STATIC}


def test_the_old_way_to_say_inline_is_read() -> None:
    lines = config(
        "ca [inline]", "tls-auth [inline] 1", f"<tls-auth>\n{STATIC}</tls-auth>"
    )
    assert 'key-direction "1"' in lines


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BLOCKS, "config: no server; expected remote HOST PORT"),
        (LINES, "config: nothing to know the server by; expected <ca>"),
        (
            LINES + f"<ca>\n{CERTIFICATE}</ca>\n",
            "config: expected <cert> and <key>, or auth-user-pass",
        ),
        (
            LINES + f"<ca>\n{CERTIFICATE}</ca>\n<key>\n{KEY}</key>\n",
            "config: expected both <cert> and <key>, or neither",
        ),
        ("remote \xff", "config:1: expected text in UTF-8"),
    ],
)
def test_what_is_missing_is_said(text: str, message: str) -> None:
    with pytest.raises(ProfileError) as refusal:
        parse(text.encode("latin-1"))
    assert str(refusal.value) == message


def test_no_secret_is_in_what_a_profile_shows_of_itself() -> None:
    block = "<auth-user-pass>\nalice\nhunter2\n</auth-user-pass>"
    profile = with_lines(block)

    assert profile.login == Login("alice", "hunter2")
    assert "SECRET" in profile.blocks["key"]
    for secret in ("SECRET", "alice", "hunter2"):
        assert secret not in repr(profile)


@pytest.mark.parametrize("text", [b"alice\nhunter 2\n", b"alice\r\nhunter 2"])
def test_a_login_is_two_lines(text: bytes) -> None:
    login = read_login(text)
    assert (login.user, login.password) == ("alice", "hunter 2")


@pytest.mark.parametrize(
    "text",
    [b"", b"alice", b"alice\n", b"a\nhunter2\nc", b"a\n" + b"hunter2" * 30, b"\xff\nx"],
)
def test_another_file_is_no_login_and_is_not_shown(text: bytes) -> None:
    with pytest.raises(ProfileError, match="auth: expected two lines") as refusal:
        read_login(text)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("pull-filter ignore a\u200bb", "printable characters"),
        ("verify-x509-name \u2028x name", "printable characters"),
        (f"verify-x509-name '{chr(92) * 220}' name", "at most 255 bytes"),
        (f"remote-cert-eku {'x' * 239}", "at most 255 bytes"),
    ],
    ids=["unseen", "a line of Unicode", "longer with escapes", "longer with quotes"],
)
def test_what_cannot_be_written_for_the_daemon_is_refused_by_its_line(
    line: str, answer: str
) -> None:
    """Else it would be found when the daemon is started, again and again."""
    with pytest.raises(ProfileError, match=answer) as refusal:
        with_lines(line)

    assert str(refusal.value).startswith(
        f"config:{FIRST_AFTER}: {line.split(maxsplit=1)[0]}"
    )


WORDS = st.sampled_from(
    (
        *("up", "--up", "remote", "ca", "<ca>", "</ca>", "[inline]", "setenv", "opt"),
        *("dev", "tun", "a.example", "443", "udp", '"', "'", "\\", "\n", " ", "#"),
        *("pull-filter", "ignore", "verify-x509-name", "\u200b", "\u2028"),
        *("key", "\r\n", "<connection>", "</connection>", "cipher", "AES-256-GCM"),
        *(CERTIFICATE, KEY),
    )
)
FORCED = {line.split(" ")[0] for line in config()}


@settings(deadline=None)
@given(st.lists(WORDS, max_size=30).map(" ".join) | st.text(max_size=200))
def test_any_text_is_a_profile_or_refused_in_one_line(text: str) -> None:
    """And whatever comes out holds no option that no table names."""
    try:
        profile = parse((text + "\n" + GOOD).encode(errors="surrogatepass"))
    except ProfileError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    names = {
        line.split(" ")[0] for line in written(profile, "t", "s").decode().split("\n")
    }
    assert not names & (REFUSED.keys() - FORCED)


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_a_profile_or_a_profile_error(data: bytes) -> None:
    with suppress(ProfileError):
        parse(data)
