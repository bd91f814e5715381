# SPDX-License-Identifier: GPL-2.0-or-later
"""The probe of ``make demo`` says what really happened to a packet."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

import pytest

from agent.nft import Nft
from controller import namespaces
from controller.lab import probe
from controller.platforms.client_side import prepare

pytestmark = pytest.mark.kernel

OPEN, SILENT, ECHO, CLOSED, DENIED, LATE = 80, 81, 82, 83, 84, 85
HOSTS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
RULES = f"""
table inet test {{
    chain out {{
        type filter hook output priority 0;
        th dport {DENIED} reject with icmpx admin-prohibited
    }}
    chain in {{
        type filter hook input priority 0;
        meta nfproto ipv4 udp dport {LATE} limit rate 1/hour burst 1 packets drop
        meta nfproto ipv6 udp dport {LATE} limit rate 1/hour burst 1 packets drop
    }}
}}
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A namespace with servers on its loopback, and no way out."""
    path = tmp_path_factory.mktemp("probe") / "net"
    namespaces.create(path)
    try:
        prepare(path)
        with namespaces.inside(path), ExitStack() as servers:
            Nft().load(RULES)
            echoes = [_serve(servers, version) for version in HOSTS]
            yield path
            for echo, address in echoes:
                echo.sendto(b"", address)
    finally:
        namespaces.remove(path)


def _serve(servers: ExitStack, version: int) -> tuple[socket.socket, tuple[str, int]]:
    def bound(kind: int, port: int) -> socket.socket:
        made = servers.enter_context(socket.socket(version, kind))
        made.bind((HOSTS[socket.AddressFamily(version)], port))
        return made

    bound(socket.SOCK_STREAM, OPEN).listen()
    for port in (OPEN, SILENT, DENIED, 53):
        bound(socket.SOCK_DGRAM, port)
    echo = bound(socket.SOCK_DGRAM, ECHO)

    def answer() -> None:
        while data := echo.recvfrom(2048):
            if not data[0]:
                return
            echo.sendto(*data)

    thread = Thread(target=answer)
    thread.start()
    servers.callback(thread.join)
    stop = socket.socket(version, socket.SOCK_DGRAM)
    servers.enter_context(stop)
    return stop, (HOSTS[socket.AddressFamily(version)], ECHO)


OUTCOMES = {
    "tcp, somebody listens": ("tcp", OPEN, "reached"),
    "tcp, nobody listens": ("tcp", CLOSED, "refused"),
    "tcp, a rule refuses": ("tcp", DENIED, "refused"),
    "udp, somebody answers": ("udp", ECHO, "reached"),
    "udp, nobody listens": ("udp", CLOSED, "refused"),
    "udp, a rule refuses": ("udp", DENIED, "refused"),
    "udp, the first refusal is lost": ("udp", LATE, "refused"),
    "udp, nobody answers": ("udp", SILENT, "nothing"),
    "dns, nobody answers": ("dns", 53, "nothing"),
    "ping": ("icmp", None, "reached"),
    "what is not known": ("sctp", OPEN, "unknown protocol"),
}


@pytest.mark.parametrize("host", HOSTS.values())
@pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES)
def test_an_attempt_is_told_by_what_came_back(
    net: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    outcome: tuple[str, int | None, str],
) -> None:
    proto, port, word = outcome
    if word == "nothing":
        monkeypatch.setattr(probe, "PATIENCE", 0.2)
    with namespaces.inside(net):
        assert probe.attempt(proto, host, port) == word


@pytest.mark.parametrize("proto", ["tcp", "udp", "dns", "icmp"])
@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_without_a_route_there_is_no_network(
    net: Path, proto: str, address: str
) -> None:
    with namespaces.inside(net):
        assert probe.attempt(proto, address, 80) == "no network"


def test_a_ping_that_nobody_may_send_was_not_refused(
    net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError

    with namespaces.inside(net):
        assert probe.attempt("icmp", "127.0.0.1", None) == "reached"
        monkeypatch.setattr(probe.socket, "socket", forbidden)
        assert probe.attempt("icmp", "127.0.0.1", None) == "not allowed"


def test_the_program_tries_all_and_prints_a_word_for_each(net: Path) -> None:
    wanted = [["tcp", "::1", OPEN], ["udp", "::1", CLOSED], ["icmp", "192.0.2.1", None]]
    argv = [sys.executable, "-I", probe.__file__]
    with namespaces.inside(net):
        done = subprocess.run(
            [*argv, json.dumps(wanted)], capture_output=True, check=True, timeout=60
        )
        none = subprocess.run(
            [*argv, "[]"], capture_output=True, check=True, timeout=60
        )

    assert json.loads(done.stdout) == ["reached", "refused", "no network"]
    assert json.loads(none.stdout) == []


def test_the_question_is_for_the_address_of_a_name() -> None:
    assert b"\3www\7example\3com\0\0\1\0\1" in probe.QUERY
