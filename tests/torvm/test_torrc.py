# SPDX-License-Identifier: GPL-2.0-or-later
"""What tor is told: its file, and the commands that change it later."""

import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.model import Family
from torvm.bridges import parse
from torvm.listeners import Kind as Listens
from torvm.listeners import Listener
from torvm.proxy import Kind, Login, Proxy
from torvm.torrc import (
    PRIVATE,
    NetworkError,
    Torrc,
    cookie_of,
    listening,
    private_network,
    released,
    speaking,
)

BRIDGES = parse(b"obfs4 192.0.2.1:443 cert=abc iat-mode=0\n192.0.2.2:9001\n")
PLACE = (ip_address("192.0.2.9"), 1080)
PROXIES = (
    Proxy(Kind.SOCKS4, *PLACE),
    Proxy(Kind.SOCKS5, *PLACE),
    Proxy(Kind.SOCKS5, *PLACE, Login('m"e\\ #', '#p"a\\ ss"')),
    Proxy(Kind.HTTP, *PLACE),
    Proxy(Kind.HTTP, ip_address("2001:db8::9"), 1, Login('m"e', "a b#c:\\")),
)
AUTHORITY = (
    "DirAuthority a0 orport=5000 no-v2"
    " v3ident=0123456789012345678901234567890123456789 203.0.113.11:7000"
    " FFFF0123456789012345678901234567890123FF"
)


def torrc(folder: Path, **words: object) -> Torrc:
    return Torrc(f"{folder}/run", f"{folder}/state", **words)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"bridges": BRIDGES},
        {"network": (AUTHORITY, "TestingTorNetwork 1")},
        {"countries": False},
        *({"proxy": proxy} for proxy in PROXIES),
    ],
    ids=["plain", "bridges", "private", "no countries", *map(str, PROXIES)],
)
def test_tor_itself_accepts_it(tmp_path: Path, words: dict[str, object]) -> None:
    """The control is the test after this one."""
    (tmp_path / "run").mkdir(mode=0o700)
    assert verified(tmp_path, torrc(tmp_path, **words).text()) == 0


def test_tor_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    assert verified(tmp_path, "NoSuchOption 1\n") != 0


def verified(folder: Path, text: str) -> int:
    (folder / "torrc").write_text(text)
    argv = ["/usr/bin/tor", "--hush", "-f", str(folder / "torrc"), "--verify-config"]
    argv += ["--defaults-torrc", "/dev/null"]
    return subprocess.run(argv, check=False, capture_output=True).returncode


def test_it_begins_held_and_in_a_sandbox(tmp_path: Path) -> None:
    lines = torrc(tmp_path).text().splitlines()

    assert {"DisableNetwork 1", "Sandbox 1", "NoExec 1", "SafeLogging 1"} <= set(lines)
    assert not [x for x in lines if x.startswith(("TransPort", "DNSPort", "ORPort"))]


def test_no_program_is_ever_named_in_it(tmp_path: Path) -> None:
    """Transports are programs of their own, so a bridge starts nothing."""
    text = torrc(tmp_path, bridges=BRIDGES).text()

    assert "exec" not in text.replace("NoExec", "")
    assert "Bridge obfs4 192.0.2.1:443 cert=abc iat-mode=0" in text


def test_another_configuration_listens_somewhere_else(tmp_path: Path) -> None:
    """So an agent that comes back knows whether the tor that runs is its own."""
    plain, bridged = torrc(tmp_path), torrc(tmp_path, bridges=BRIDGES)

    assert plain.socket != bridged.socket
    assert plain.socket == torrc(tmp_path).socket
    assert bridged.cookie == cookie_of(bridged.socket)


def test_all_listeners_are_told_each_time() -> None:
    v4, v6 = ip_address("10.137.0.2"), ip_address("fd09::2")
    places = [
        Listener(Listens.TRANS, v4, 10000),
        Listener(Listens.DNS, v6, 10000),
        Listener(Listens.DNS, v4, 10000),
    ]

    assert listening(places) == (
        'SETCONF DNSPort="10.137.0.2:10000" DNSPort="[fd09::2]:10000"'
        ' TransPort="10.137.0.2:10000" SocksPort=0'
    )
    assert listening([]) == "SETCONF DNSPort=0 SocksPort=0 TransPort=0"


@pytest.mark.parametrize(
    ("families", "command"),
    [
        ({Family.IPV4}, "SETCONF ClientUseIPv4=1 ClientUseIPv6=0 DisableNetwork=0"),
        ({Family.IPV6}, "SETCONF ClientUseIPv4=0 ClientUseIPv6=1 DisableNetwork=0"),
        (set(Family), "SETCONF ClientUseIPv4=1 ClientUseIPv6=1 DisableNetwork=0"),
    ],
)
def test_tor_uses_the_ip_versions_that_there_are(
    families: set[Family], command: str
) -> None:
    assert released(frozenset(families)) == command


def test_transports_are_told_by_port() -> None:
    assert speaking({}) == "SETCONF ClientTransportPlugin"
    assert speaking({"obfs4": 4711}) == (
        'SETCONF ClientTransportPlugin="obfs4 socks5 127.0.0.1:4711"'
    )


def test_a_private_network_is_its_authorities() -> None:
    text = f"# the lab\n\nTestingTorNetwork 1\n{AUTHORITY}\n"

    assert private_network(text.encode()) == ("TestingTorNetwork 1", AUTHORITY)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "TestingTorNetwork 1",
        "DirAuthority x",
        f"{AUTHORITY}\nControlPort 9051",
        f"{AUTHORITY}\nClientTransportPlugin obfs4 exec /bin/sh",
        f"{AUTHORITY}\nTestingTorNetwork yes\\",
        f"{AUTHORITY}\n%include /etc/passwd",
        f"{AUTHORITY} \\",
        f'{AUTHORITY} "x"',
    ],
)
def test_a_private_network_says_nothing_else(line: str) -> None:
    with pytest.raises(NetworkError):
        private_network(line.encode())


@given(st.binary(max_size=300))
def test_whatever_a_file_holds_only_known_options_come_out(text: bytes) -> None:
    try:
        lines = private_network(AUTHORITY.encode() + b"\n" + text)
    except NetworkError:
        return
    assert {line.split()[0] for line in lines} <= {*PRIVATE, "DirAuthority"}
