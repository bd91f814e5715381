# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of the worked example: what it reads, what it allows, how it speaks.

The whole of it is in tests/e2e/test_third_party.py.
"""

import asyncio
import base64
import struct
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from upstream_proxy.config import Config, ConfigError, Speech, parse
from upstream_proxy.relay import RefusedError, Relay, _said
from upstream_proxy.states import UPSTREAM_PROXY, Progress, Proxy, Seen, observe

from rules.facts import Facts, Uplink
from rules.flows import CARRIED, INTO_DAEMON
from rules.internal import INTERNAL

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
RESOLVER = 'resolver = "192.0.2.53"\n'
UP = Facts(uplinks=(Uplink("eth0", 2, frozenset({ip_address("10.137.0.9")})),))


def config(url: str) -> Config:
    return parse(f'proxy = "{url}"\n{RESOLVER}'.encode())


def test_a_url_says_how_to_speak_and_to_whom() -> None:
    at = (ip_address("192.0.2.1"), 1080)

    assert config("socks5://192.0.2.1:1080") == Config(
        Speech.SOCKS5, at, ip_address("192.0.2.53")
    )
    assert config("http://me:p%40ss@[2001:db8::1]:3128") == Config(
        Speech.HTTP,
        (ip_address("2001:db8::1"), 3128),
        ip_address("192.0.2.53"),
        ("me", "p@ss"),
    )


@pytest.mark.parametrize(
    "untrusted",
    [
        b"",
        b"\xff",
        b"proxy =",
        RESOLVER.encode(),
        b'proxy = "socks5://192.0.2.1:1080"',
        f'proxy = "socks5://192.0.2.1:1"\nup = "/bin/sh"\n{RESOLVER}'.encode(),
        b'proxy = "socks5://192.0.2.1:1080"\nresolver = "dns.example.com"',
        *(
            f'proxy = "{url}"\n{RESOLVER}'.encode()
            for url in (
                "socks5://proxy.example.com:1080",
                "socks5://192.0.2.1",
                "socks4://192.0.2.1:1080",
                "socks5://192.0.2.1:99999",
                "http://192.0.2.1:80/path",
                "http://192.0.2.1:80?x",
                "socks5://me@192.0.2.1:1080",
                f"socks5://me:{'x' * 256}@192.0.2.1:1080",
            )
        ),
    ],
    ids=str,
)
def test_what_is_not_understood_is_refused(untrusted: bytes) -> None:
    with pytest.raises(ConfigError, match=r"config: .*(expected|not TOML)"):
        parse(untrusted)


@given(untrusted=st.binary(max_size=200) | st.text(max_size=80).map(str.encode))
def test_no_file_does_anything_but_to_be_refused(untrusted: bytes) -> None:
    with pytest.raises(ConfigError):
        parse(untrusted)


def test_only_a_proxy_that_answers_lets_clients_in() -> None:
    admits = {s for s, flows in UPSTREAM_PROXY.allowed.items() if INTO_DAEMON in flows}
    carries = {s for s, flows in UPSTREAM_PROXY.allowed.items() if CARRIED in flows}

    assert admits == {Proxy.UP}
    assert carries == {Proxy.CONNECTING, Proxy.UP, Proxy.LOST}


@pytest.mark.parametrize("state", Proxy)
def test_what_goes_wrong_closes_every_state(state: Proxy) -> None:
    assert UPSTREAM_PROXY.step(state, Seen.UPLINK_LOST) is Proxy.DOWN
    assert UPSTREAM_PROXY.step(state, Seen.HOPELESS) is Proxy.ERROR
    assert UPSTREAM_PROXY.step(Proxy.UP, Seen.TRYING) is Proxy.LOST


def test_an_uplink_without_a_next_hop_is_none() -> None:
    assert observe(UP, Progress.READY) is Seen.UPLINK_LOST
    assert observe(Facts(), Progress.HOPELESS) is Seen.HOPELESS


def dialled(serve: Serve, speech: str, login: list[str] | None = None) -> bytes:
    """Dial 198.51.100.80:80 by a proxy that does ``serve``; return what came."""

    async def run() -> bytes:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            at = server.sockets[0].getsockname()
            relay = Relay({"proxy": at, "speech": speech, "login": login})
            reader, writer = await relay.dial(("198.51.100.80", 80))
            came = await reader.read()
            writer.close()
            return came

    return asyncio.run(run())


async def socks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    assert await reader.readexactly(3) == b"\5\1\2"
    writer.write(b"\5\2")
    assert await reader.readexactly(8) == b"\1\2me\3pw!"
    writer.write(b"\1\0")
    asked = b"\5\1\0\1" + ip_address("198.51.100.80").packed + struct.pack("!H", 80)
    assert await reader.readexactly(10) == asked
    writer.write(b"\5\0\0\3\x04host\0\0" + b"hello")
    writer.close()


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"CONNECT 198.51.100.80:80 HTTP/1.1\r\n")
    login = base64.b64encode(b"me:pw!")
    good = b"Proxy-Authorization: Basic " + login in head
    said = b"200 Go on" if good else b"407 Who are you"
    writer.write(b"HTTP/1.1 " + said + b"\r\nX: y\r\n\r\nhello")
    writer.close()


async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def noise(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\0" * 4096)
    writer.close()


@pytest.mark.parametrize(("serve", "speech"), [(socks, "socks5"), (http, "http")])
def test_a_flow_is_opened_with_the_login(serve: Serve, speech: str) -> None:
    assert dialled(serve, speech, ["me", "pw!"]) == b"hello"


@pytest.mark.parametrize(
    ("serve", "speech"),
    [
        (http, "http"),
        (silent, "http"),
        (silent, "socks5"),
        (noise, "http"),
        (noise, "socks5"),
    ],
)
def test_a_proxy_that_does_not_do_it_is_an_error(serve: Serve, speech: str) -> None:
    with pytest.raises((RefusedError, ConnectionError)):
        dialled(serve, speech)


@pytest.mark.parametrize("asked", ["10.137.0.9", "fd09:24ef:4179::a89:9"])
def test_the_proxy_is_not_told_of_other_domains(asked: str) -> None:
    """Nor does anybody behind it that has such an address hear of a client.

    The control is a resolver, which the proxy is asked for by another address.
    """
    told = {"virtual": ["10.139.1.1"], "resolver": "192.0.2.53"}
    relay = Relay({**told, "internal": sorted(INTERNAL)})

    assert relay._meant(("10.139.1.1", 53)) == ("192.0.2.53", 53)
    assert relay._meant(("198.51.100.80", 80)) == ("198.51.100.80", 80)
    for target in ((asked, 80), ("10.139.1.1", 80)):
        with pytest.raises(RefusedError, match="another domain"):
            relay._meant(target)


def test_who_cannot_be_answered_is_told_so() -> None:
    """RFC 1035, 4.1.1: SERVFAIL, with the question."""
    question = b"\x12\x34\x01\x20" + b"\0\1" + bytes(6) + b"\1x\0\0\1\0\1"

    assert _said(question, 0, 2) == b"\x12\x34\x81\x22" + question[4:]
