# SPDX-License-Identifier: GPL-2.0-or-later
"""A proxy is read to the last letter or not at all; its login is never shown."""

import re
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torvm.proxy import Kind, Login, Proxy, ProxyError, login, parse

ADDRESS = ip_address("192.0.2.9")
LETTERS = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1)


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("socks5://192.0.2.9:1080", Proxy(Kind.SOCKS5, ADDRESS, 1080)),
        ("socks4://192.0.2.9:1080", Proxy(Kind.SOCKS4, ADDRESS, 1080)),
        ("http://192.0.2.9:8080/", Proxy(Kind.HTTP, ADDRESS, 8080)),
        ("http://[2001:db8::9]:1", Proxy(Kind.HTTP, ip_address("2001:db8::9"), 1)),
    ],
)
def test_a_kind_and_an_address_are_a_proxy(text: str, proxy: Proxy) -> None:
    assert parse(text) == proxy


@pytest.mark.parametrize(
    "text",
    [
        "",
        "192.0.2.9:1080",
        "socks5:192.0.2.9:1080",
        "SOCKS5://192.0.2.9:1080",
        "https://192.0.2.9:443",
        "socks5h://192.0.2.9:1080",
        "socks5://proxy.example.com:1080",
        "socks5://192.0.2.9",
        "socks5://192.0.2.9:0",
        "socks5://192.0.2.9:70000",
        "socks5://127.0.0.1:1080",
        "socks5://[::1]:1080",
        "socks5://224.0.0.1:1080",
        "socks5://0.0.0.0:1080",
        "socks5://192.0.2.9:1080/path",
        "socks5://192.0.2.9:1080#x",
        "socks5://192.0.2.9:1080\nControlPort 9051",
        "socks5://192.0.2.9:1080 SocksPort 0.0.0.0:9050",
    ],
)
def test_whatever_else_is_refused(text: str) -> None:
    with pytest.raises(ProxyError, match=r"^expected socks4://"):
        parse(text)


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ProxyError, match=r"^expected no password here") as refused:
        parse("socks5://me:SECRET@192.0.2.9:1080")
    assert "SECRET" not in str(refused.value)


def test_a_login_is_two_lines() -> None:
    assert login(b"me\nsecret\n") == login(b"me\r\nsecret\r\n") == Login("me", "secret")


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"SECRET",
        b"SECRET\n",
        b"\nSECRET\n",
        b"me\n\n",
        b"me\nSECRET\nmore\n",
        b"me\nSECRET\x00\n",
        b"me\nSECRET\t\n",
        "mé\nSECRET\n".encode(),
        b"me\n" + 256 * b"S",
    ],
)
def test_what_is_no_login_is_refused_and_not_repeated(file: bytes) -> None:
    with pytest.raises(ProxyError, match=r"^auth: expected two lines") as refused:
        login(file)
    assert "SECRET" not in str(refused.value)


def test_a_login_is_shown_nowhere() -> None:
    assert "SECRET" not in repr(
        parse("http://192.0.2.9:1").known_by(Login("SECRET", "SECRET"))
    )


@pytest.mark.parametrize(
    ("url", "user"), [("socks4://192.0.2.9:1", "me"), ("http://192.0.2.9:1", "m:e")]
)
def test_a_login_that_a_kind_cannot_say_is_refused(url: str, user: str) -> None:
    with pytest.raises(ProxyError):
        parse(url).known_by(Login(user, "x"))


@given(LETTERS, LETTERS)
def test_any_login_is_one_value_of_a_torrc_and_one_of_a_url(
    user: str, password: str
) -> None:
    """Neither ends early: a quote and a backslash are escaped, the rest is quoted."""
    proxy = Proxy(Kind.SOCKS5, ADDRESS, 1080, Login(user, password))
    _, first, second = proxy.options()

    for line, text in ((first, user), (second, password)):
        value = line.partition(" ")[2]
        assert value[0] == value[-1] == '"'
        assert re.sub(r"\\(.)", r"\1", value[1:-1]) == text
        assert not re.search(r'(?<!\\)(?:\\\\)*"', value[1:-1])
    url = urlsplit(proxy.url)
    assert (url.hostname, url.port) == ("192.0.2.9", 1080)
    assert (unquote(url.username or ""), unquote(url.password or "")) == (
        user,
        password,
    )


@given(st.text(max_size=40))
def test_anything_at_all_is_read_or_refused(untrusted_text: str) -> None:
    for text in (untrusted_text, f"socks5://{untrusted_text}"):
        try:
            found = parse(text)
        except ProxyError:
            continue
        assert all("\n" not in line for line in found.options())
