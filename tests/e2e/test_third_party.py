# SPDX-License-Identifier: GPL-2.0-or-later
"""A personality that somebody else brings: the worked example, installed and used.

Ravelin is installed into a scratch directory, the example beside it by pip.  Its
proxy is Debian's microsocks, in the lab's internet.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest

from controller import namespaces
from tests.agent.test_dhcp import REQUEST, question, read
from tests.e2e.machine import (
    ECHO,
    FORBIDDEN4,
    HTTP,
    ROOT,
    UDP,
    VIRTUAL4,
    WEB4,
    WEB6,
    Machine,
    becomes,
    command_line,
    end,
    machine,
    until,
)
from tests.lab.sniffer import TCP, Packet, Sniffer

pytestmark = pytest.mark.kernel

EXAMPLE = ROOT / "examples/personality-upstream-proxy"
PATIENCE = 60.0  # seconds; only a failing test waits that long
DATAGRAM = socket.SOCK_DGRAM
PROXY, PORT = "192.0.2.1", 1080
NETVM = "192.0.2.2"
# Of who is not the relay, whose ports the kernel chooses from above; each once.
OWN_PORTS = {"guarded": 20001, "control": 20002}
POLICY = """
[domains.sys-net]
personality = "netvm"
uplink = "lab"
[domains.sys-proxy]
personality = "upstream-proxy"
netvm = "sys-net"
config = "proxy.conf"
[domains.work]
netvm = "sys-proxy"
[domains.strict]
netvm = "sys-proxy"
firewall = [
  "accept dsthost=www.example.com proto=tcp dstports=80",
  "accept specialtarget=dns",
]
"""
CONFIG = 'proxy = "socks5://user:secret@192.0.2.1:1080"\nresolver = "192.0.2.53"\n'


@pytest.fixture(scope="module")
def command() -> Iterator[str]:
    """Return the command of a Ravelin that knows the example."""
    # Only root may enter it, as root's home in Debian; agents run from there as well.
    where = Path(tempfile.mkdtemp(prefix="rvt", dir="/var/tmp"))
    try:
        words = ["make", "--silent", "install", f"DESTDIR={where}"]
        subprocess.run(words, cwd=ROOT, check=True)
        source = shutil.copytree(EXAMPLE, where / "example")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        pip += ["--no-build-isolation", "--no-index", "--disable-pip-version-check"]
        target = where / "usr/lib/ravelin"
        subprocess.run([*pip, "--target", target, source], check=True)
        yield str(where / "usr/bin/ravelin")
    finally:
        shutil.rmtree(where)


@pytest.fixture(scope="module")
def whole(command: str) -> Iterator[Machine]:
    with machine(POLICY) as made:
        made.command = command
        file = made.policy.with_name("proxy.conf")
        file.touch(0o600)
        file.write_text(CONFIG)
        made.up()
        yield made
        made.does("down")


@pytest.fixture
def home(whole: Machine) -> Iterator[Machine]:
    """The machine, with a proxy that answers."""
    with proxy(whole):
        becomes(lambda: state(whole), "up", PATIENCE)
        yield whole


@contextmanager
def proxy(on: Machine) -> Iterator[subprocess.Popen[bytes]]:
    words = ["microsocks", "-i", PROXY, "-p", str(PORT), "-u", "user"]
    with namespaces.inside(on.internet.net):
        process = subprocess.Popen([*words, "-P", "secret"], stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def state(on: Machine) -> object:
    return on.status()["sys-proxy"]["state"]


def test_the_program_is_known_by_its_entry_point(command: str) -> None:
    lib = Path(command).resolve().parents[1]
    words = ["/usr/bin/python3", "-I", str(lib), "nothing"]
    said = subprocess.run(words, check=False, capture_output=True, text=True)

    assert "|upstream_proxy" in said.stderr


def test_pages_come_through_the_proxy(home: Machine) -> None:
    """The peer that the server saw is the proxy; the NetVM would be another."""
    for address in (WEB4, f"[{WEB6}]", "www.example.com"):
        page = home.curl_plain("work", f"http://{address}/")

        assert page.status == 0, page
        assert f"peer {NETVM} " not in page.out
        assert "peer 2001:db8:1::2 " not in page.out


def well(row: dict[str, object]) -> dict[str, object] | None:
    return None if row["problem"] else row


def test_status_says_which_proxy(home: Machine) -> None:
    # Somebody may have ended its relay again and again until just now.
    row = until(lambda: well(home.status()["sys-proxy"]), PATIENCE)

    assert "socks5 192.0.2.1 1080" in str(row["report"])
    assert "secret" not in str(row)


def test_names_are_asked_through_the_proxy(home: Machine) -> None:
    assert home.answers("work", "www.example.com") == {WEB4}


def test_what_is_no_tcp_is_refused(home: Machine) -> None:
    assert home.reaches("work", WEB4)
    assert not home.reaches("work", WEB4, UDP, "udp")
    assert not home.reaches("work", WEB4, proto="icmp")


def test_rules_are_asked_before_the_proxy(home: Machine) -> None:
    """Also by name, which the agent asks through the proxy too."""
    until(lambda: home.reaches("strict", WEB4, HTTP), PATIENCE)

    assert not home.reaches("strict", WEB4, ECHO)
    assert not home.reaches("strict", FORBIDDEN4, HTTP)
    assert home.reaches("work", FORBIDDEN4, HTTP)


def test_a_client_of_it_may_ask_for_its_address(home: Machine) -> None:
    """What every agent answers is answered here too, past the rules of ``strict``."""
    own = IPv4Address(str(home.status()["strict"]["ip"]))
    with namespaces.inside(home.net("strict")), socket.socket(type=DATAGRAM) as asker:
        asker.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        asker.bind(("", 68))
        asker.settimeout(PATIENCE)
        asker.sendto(question(REQUEST, has=own), ("255.255.255.255", 67))
        said = asker.recv(2048)

    assert read(said)[53] == b"\5"  # DHCPACK
    assert said[16:20] == own.packed


def carried(packet: Packet) -> bool:
    """Whether it is between the domain's relay and the proxy."""
    ends = {packet.source, packet.destination}
    ports = {packet.source_port, packet.port}
    return packet.protocol == TCP and ip_address(PROXY) in ends and PORT in ports


@pytest.mark.parametrize("fault", ["proxy", "relay", "agent"])
def test_nothing_leaves_but_to_the_proxy(home: Machine, fault: str) -> None:
    """What dies does not open anything; the control is that it worked before."""
    with Sniffer(home.net("sys-proxy"), "eth0") as seen:
        assert home.reaches("work", WEB4)
        fail(home, fault)
        for _ in range(3):
            home.tries("work", "tcp", WEB4, HTTP)
            home.tries("work", "udp", WEB4, UDP)
            home.tries("work", "dns", VIRTUAL4, 53)
    leaks = [p for p in seen.packets if not (carried(p) or p.neighbourly)]

    assert any(map(carried, seen.packets))
    assert leaks == []


def knock(home: Machine, port: int) -> None:
    """Call the proxy from the domain itself, as root."""
    with namespaces.inside(home.net("sys-proxy")), socket.socket() as own:
        own.settimeout(1)
        own.bind(("", port))
        with suppress(OSError):
            own.connect((PROXY, PORT))


@pytest.mark.parametrize("kind", OWN_PORTS)
def test_nobody_else_in_the_domain_uses_the_way(home: Machine, kind: str) -> None:
    """Root of the domain is not the relay; without our rules it would leave."""
    agent = running(home, b"upstream_proxy")
    os.kill(agent, signal.SIGSTOP)  # or it puts the rules back
    try:
        if kind == "control":
            home.tool("sys-proxy", "nft", "flush", "ruleset")
        with Sniffer(home.net("sys-proxy"), "eth0") as seen:
            knock(home, OWN_PORTS[kind])
    finally:
        os.kill(agent, signal.SIGCONT)
    left = [p for p in seen.packets if p.source_port == OWN_PORTS[kind]]

    assert bool(left) is (kind == "control")
    until(lambda: home.reaches("work", WEB4), PATIENCE)


def fail(home: Machine, fault: str) -> None:
    match fault:
        case "proxy":
            with namespaces.inside(home.internet.net):
                found = namespaces.processes(home.internet.net)
            for pid in found:
                if command_line(pid)[:1] == [b"microsocks"]:
                    end(pid)
            becomes(lambda: state(home), "lost", PATIENCE)
        case "relay":
            end(running(home, b"relay.py"))
        case _:
            end(running(home, b"upstream_proxy"))


def running(home: Machine, word: str | bytes) -> int:
    return until(
        lambda: [
            pid
            for pid in namespaces.processes(home.net("sys-proxy"))
            if any(x.endswith(word) for x in command_line(pid)[-1:])
        ],
        PATIENCE,
    )[0]


@pytest.mark.parametrize("word", [b"relay.py", b"upstream_proxy"])
def test_it_comes_back_by_itself(home: Machine, word: bytes) -> None:
    before = running(home, word)
    end(before)

    assert running(home, word) != before
    until(lambda: home.reaches("work", WEB4), PATIENCE)


def test_a_wrong_password_is_named(whole: Machine) -> None:
    """A proxy that refuses is no reason to let anybody out."""
    words = ["microsocks", "-i", PROXY, "-p", str(PORT), "-u", "a", "-P", "b"]
    with namespaces.inside(whole.internet.net):
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        problem = "proxy: it refuses the login"
        becomes(lambda: whole.status()["sys-proxy"]["problem"], problem, PATIENCE)

        assert not whole.reaches("work", WEB4)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_configuration_that_is_refused_is_named(whole: Machine) -> None:
    file = whole.policy.with_name("proxy.conf")
    file.write_text('proxy = "socks5://proxy.example.com:1080"\n')
    try:
        whole.ravelin("up", str(whole.policy))
        becomes(lambda: state(whole), "error", PATIENCE)

        assert "proxy.conf: expected proxy" in str(whole.status()["sys-proxy"])
    finally:
        file.write_text(CONFIG)
        whole.ravelin("up", str(whole.policy))
