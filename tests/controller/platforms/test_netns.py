# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain is a namespace: linked as on Qubes, found again, and gone without trace."""

import gc
import os
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from controller import cables, namespaces
from controller.confine import ConfineError
from controller.platforms import netns
from controller.platforms.netns import Netns
from controller.platforms.processes import LOG_LIMIT, Agent
from controller.ports import AgentStart, Command, Link, Pair, Platform
from controller.supervise import Phase, Supervisor
from tests.controller.test_datagrams import IPV4, UDP_SEGMENT
from tests.lab.pinging import PATIENCE, answered

pytestmark = pytest.mark.kernel

MAC = "00:16:3e:5e:6c:00"
V4 = Pair(IPv4Address("10.137.0.5"), IPv4Address("10.137.0.2"))
V6 = Pair(IPv6Address("fd09:24ef:4179::a89:5"), IPv6Address("fd09:24ef:4179::a89:2"))
UID = 62007
LINK = Link("work", "sys-net", "vif1.0", MAC, (V4, V6))


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user can read."""
    path = Path(tempfile.mkdtemp(prefix="rv"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def runtime(public: Path) -> Path:
    """A short path, for that of a unix socket is at most 107 bytes long."""
    path = public / "run"
    path.mkdir()
    return path


@pytest.fixture
def platform(runtime: Path) -> Iterator[Netns]:
    platform = Netns(runtime)
    yield platform
    platform.sweep()
    assert platform.names() == ()
    assert str(runtime) not in Path("/proc/self/mounts").read_text()


@pytest.fixture
def linked(platform: Netns) -> Netns:
    for name in ("sys-net", "work"):
        platform.start(name)
    platform.attach(LINK)
    return platform


def ip(platform: Netns, domain: str, *words: str) -> list[str]:
    with namespaces.inside(platform.net(domain)):
        text = subprocess.run(
            ["ip", *words], check=True, capture_output=True, text=True
        ).stdout
    return [" ".join(line.split()) for line in text.splitlines()]


def accept(platform: Netns, link: Link = LINK) -> None:
    """Do what the provider's agent does for a client, as far as links go."""
    with namespaces.inside(platform.net(link.provider)):
        cables.up(link.vif, group=2)
        ends = (Pair(pair.gateway, pair.own) for pair in link.pairs)
        cables.connect(link.vif, ends, link.mac, by_default=False)


def answers(platform: Netns, address: str, within: float = PATIENCE) -> bool:
    with namespaces.inside(platform.net("work")):
        return answered(address, within=within)


def test_it_is_a_platform(platform: Netns) -> None:
    port: Platform = platform
    assert not port.exists("work")


def test_a_new_domain_has_a_loopback_and_forwards_nothing(platform: Netns) -> None:
    platform.start("work")
    assert platform.exists("work")
    (lo,) = ip(platform, "work", "-br", "link")
    assert lo.split()[:2] == ["lo", "UNKNOWN"]
    with namespaces.inside(platform.net("work")):
        assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "0\n"


def test_starting_again_changes_nothing(linked: Netns) -> None:
    before = linked.net("work").stat().st_ino
    linked.start("work")
    assert linked.net("work").stat().st_ino == before
    assert len(ip(linked, "work", "-br", "link")) == 2


def test_a_start_that_crashed_half_way_is_repeated(
    platform: Netns, runtime: Path
) -> None:
    platform.start("other")
    (runtime / "ns" / "work").touch()
    platform.detach("work")
    platform.start("work")
    assert len(ip(platform, "work", "-br", "link")) == 1


def test_a_client_is_configured_as_by_setup_ip_of_qubes(linked: Netns) -> None:
    accept(linked)
    assert answers(linked, str(V4.gateway))  # the link carries, and its routes know
    addresses = ip(linked, "work", "-br", "addr", "show", "eth0")
    assert addresses[0].split()[2:] == [f"{V4.own}/32", f"{V6.own}/128"]
    (link,) = ip(linked, "work", "-o", "link", "show", "eth0")
    assert f"link/ether {MAC}" in link
    assert "group 1" in link
    assert ip(linked, "work", "route") == [
        f"default via {V4.gateway} dev eth0 proto static onlink",
        f"{V4.gateway} dev eth0 proto static scope link",
    ]
    routes = ip(linked, "work", "-6", "route")
    assert any(line.startswith(f"default via {V6.gateway} dev eth0") for line in routes)
    assert sorted(ip(linked, "work", "neigh", "show", "nud", "permanent")) == [
        f"{V4.gateway} dev eth0 lladdr fe:ff:ff:ff:ff:ff PERMANENT",
        f"{V6.gateway} dev eth0 lladdr fe:ff:ff:ff:ff:ff PERMANENT",
    ]


def test_the_vif_stays_down_until_the_agent_accepts_it(linked: Netns) -> None:
    (vif,) = ip(linked, "sys-net", "-o", "link", "show", "vif1.0")
    assert "fe:ff:ff:ff:ff:ff" in vif
    assert "state DOWN" in vif
    assert "group default" in vif
    assert not answers(linked, str(V4.gateway), within=0)
    accept(linked)
    assert answers(linked, str(V4.gateway))
    assert answers(linked, str(V6.gateway))


def test_a_client_says_nothing_by_itself(linked: Netns) -> None:
    """No router solicitation, no duplicate address detection, no ARP."""
    with namespaces.inside(linked.net("sys-net")):
        everything = socket.htons(3)
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, everything) as capture:
            accept(linked)
            assert answers(linked, str(V6.gateway))  # it would have been first
            capture.settimeout(0)
            seen = []
            try:
                while True:
                    packet, (vif, _, kind, *_) = capture.recvfrom(2048)
                    if vif == "vif1.0" and kind != socket.PACKET_OUTGOING:
                        seen.append(packet)
            except BlockingIOError:
                pass
    icmp6_types = [packet[40] for packet in seen if packet[6] == 58]
    assert 128 in icmp6_types  # the echo request, so the capture works
    assert not {133, 134, 135, 136} & set(icmp6_types)


def test_a_client_sends_each_datagram_alone(linked: Netns) -> None:
    """No rule of its gateway would see that there are many (UDP_SEGMENT)."""
    accept(linked)
    assert answers(linked, str(V4.gateway))
    with namespaces.inside(linked.net("sys-net")):
        capture = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
        capture.bind(("vif1.0", IPV4))
    with namespaces.inside(linked.net("work")):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with capture, sender:
        capture.settimeout(PATIENCE)
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1)
        sender.sendto(b"xyz", (str(V4.gateway), 9))
        packets = iter(lambda: capture.recv(2048), b"")
        assert next(p for p in packets if p[9] == socket.IPPROTO_UDP).endswith(b"x")


def test_an_ipv4_client_has_no_ipv6(platform: Netns) -> None:
    for name in ("sys-net", "work"):
        platform.start(name)
    platform.attach(replace(LINK, pairs=(V4,)))
    assert ip(platform, "work", "-6", "addr", "show", "eth0") == []


def test_a_proxyvm_configures_its_own_uplink(platform: Netns) -> None:
    for name in ("sys-net", "sys-firewall"):
        platform.start(name)
    platform.attach(Link("sys-firewall", "sys-net", "vif1.0", MAC))
    (link,) = ip(platform, "sys-firewall", "-o", "link", "show", "eth0")
    assert "state DOWN" in link
    assert MAC in link
    assert ip(platform, "sys-firewall", "addr", "show", "eth0", "up") == []


def test_the_bytes_of_each_interface_are_counted(linked: Netns) -> None:
    accept(linked)
    before = linked.counters("sys-net")
    assert answers(linked, str(V4.gateway))
    after = linked.counters("sys-net")

    assert after.keys() == before.keys() >= {"lo", "vif1.0"}
    assert all(a > b for a, b in zip(after["vif1.0"], before["vif1.0"], strict=True))
    assert linked.counters("nowhere") == {}


def test_attaching_again_keeps_the_link(linked: Netns) -> None:
    accept(linked)
    assert answers(linked, str(V4.gateway))  # or its state changes by itself
    before = ip(linked, "work", "-o", "link", "show", "eth0")
    linked.attach(LINK)
    assert ip(linked, "work", "-o", "link", "show", "eth0") == before
    assert answers(linked, str(V4.gateway))


def test_an_attach_that_crashed_half_way_is_completed(linked: Netns) -> None:
    ip(linked, "work", "addr", "flush", "dev", "eth0")
    linked.attach(LINK)
    accept(linked)
    assert answers(linked, str(V4.gateway))


def test_a_new_cable_takes_the_place_of_the_old(linked: Netns) -> None:
    linked.start("sys-vpn")
    linked.attach(replace(LINK, provider="sys-vpn", vif="vif2.0"))
    assert len(ip(linked, "sys-net", "-br", "link")) == 1
    assert len(ip(linked, "sys-vpn", "-br", "link")) == 2


def test_a_detached_client_has_nothing_and_may_be_detached_again(
    linked: Netns,
) -> None:
    for _ in range(2):
        linked.detach("work")
        assert len(ip(linked, "work", "-br", "link")) == 1
    linked.detach("never-there")


def test_a_stopped_provider_takes_the_link_and_a_new_one_gives_it_back(
    linked: Netns,
) -> None:
    linked.stop("sys-net")
    linked.stop("sys-net")
    assert not linked.exists("sys-net")
    linked.start("sys-net")
    again = replace(LINK, vif="vif2.0")
    linked.attach(again)
    accept(linked, again)
    assert answers(linked, str(V4.gateway))


def test_stopping_ends_every_process_inside(platform: Netns) -> None:
    platform.start("work")
    process = namespaces.spawn(["sleep", "600"], net=platform.net("work"))
    platform.stop("work")
    assert process.wait(20) == -signal.SIGKILL


def test_a_later_controller_finds_and_sweeps_all_but_the_other_ones(
    platform: Netns, runtime: Path
) -> None:
    other = Netns(runtime / "other")
    for each in (platform, other):
        each.start("work")
    later = Netns(runtime)
    assert later.names() == ("work",)
    later.sweep()
    assert later.names() == ()
    assert other.exists("work")
    other.sweep()


def run(platform: Netns, *argv: str, **words: object) -> int:
    platform.start("work")
    return platform.run("work", Command(argv, **words))  # type: ignore[arg-type]


def test_a_program_runs_in_its_domain_as_who_called_sudo(
    platform: Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", "1")
    script = 'test "$(id -u) $(hostname) $(cat /sys/class/net/*/ifindex)" = "1 work 1"'
    assert run(platform, "/bin/sh", "-c", script) == 0
    assert run(platform, "/bin/sh", "-c", script, user="root") == 1


def test_a_program_cannot_see_the_runtime_directory(
    platform: Netns, runtime: Path
) -> None:
    assert run(platform, "/usr/bin/test", "-e", str(runtime / "ns")) == 1
    assert run(platform, "/usr/bin/test", "-d", str(runtime)) == 0


def test_a_person_has_a_session_directory_without_a_bus(platform: Netns) -> None:
    script = 'test -O "$XDG_RUNTIME_DIR" && test -z "$DBUS_SESSION_BUS_ADDRESS"'
    assert run(platform, "/bin/sh", "-c", script, user="daemon") == 0


def test_ping_needs_no_capability(platform: Netns, public: Path) -> None:
    bare = public / "ping"
    shutil.copy("/bin/ping", bare)  # without its file capability
    assert run(platform, str(bare), "-c1", "127.0.0.1", user="daemon") == 0


AGENT = """
import os, socket, sys
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.connect(os.environ["NOTIFY_SOCKET"])
qubesdb = socket.socket(socket.AF_UNIX)
qubesdb.connect("/var/run/qubes/qubesdb.sock")
names = [line for line in open("/etc/resolv.conf")]
print(os.getuid(), os.getcwd(), sorted(os.environ), names, sys.argv[1:], flush=True)
notify.send(b"READY=1\\nSTATUS=" + qubesdb.recv(99))
print("enough", file=sys.stderr, flush=True)
sys.exit(4 if qubesdb.recv(99) == b"end" else 0)
"""


@pytest.fixture
def program(public: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = public / "program"
    root.mkdir()
    (root / "__main__.py").write_text(AGENT)
    monkeypatch.setattr(netns, "ROOT", root)
    return root


@pytest.fixture
def qubesdb(runtime: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(runtime / "qubesdb"))
        os.chown(runtime / "qubesdb", UID, UID)
        server.listen()
        server.settimeout(20)
        yield server


def start(runtime: Path) -> AgentStart:
    resolvers = ("192.0.2.53",)
    qubesdb = runtime / "qubesdb"
    return AgentStart("sys-net", "netvm", UID, qubesdb, resolvers)


def until(
    supervisor: Supervisor,
    selector: selectors.BaseSelector,
    true: Callable[[], bool],
) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, supervisor.conditions()
        for key, mask in selector.select(0.2):
            key.data(mask)
        supervisor.tick()


@pytest.mark.usefixtures("program")
def test_an_agent_is_ready_fails_and_is_started_again(
    platform: Netns, runtime: Path, qubesdb: socket.socket
) -> None:
    platform.start("sys-net")
    agents: list[Agent] = []

    def launch() -> Agent:
        agents.append(platform.spawn_agent(start(runtime)))
        return agents[-1]

    with selectors.DefaultSelector() as selector, ExitStack() as stack:
        supervisor = Supervisor(selector, time.monotonic)
        stack.callback(supervisor.close)
        supervisor.add("sys-net", launch)
        with qubesdb.accept()[0] as connection:
            connection.send(b"it works")
            until(supervisor, selector, lambda: phase(supervisor) is Phase.READY)
            assert supervisor.conditions()["sys-net"].untrusted_status == "it works"
            connection.send(b"end")
            until(supervisor, selector, lambda: phase(supervisor) is Phase.FAILED)
        assert supervisor.conditions()["sys-net"].reason == "exit code 4: enough"
        before = (runtime / "log" / "sys-net.log").read_text()
        until(supervisor, selector, lambda: phase(supervisor) is Phase.STARTING)
        assert (runtime / "log" / "sys-net.log.1").read_text() == before
        assert namespaces.processes(platform.net("sys-net")) == (agents[-1].pid,)
    assert namespaces.processes(platform.net("sys-net")) == ()
    environment = "['LANG', 'NOTIFY_SOCKET', 'PATH', 'WATCHDOG_USEC']"
    resolvers = r"['nameserver 192.0.2.53\n']"
    said = f"62007 / {environment} {resolvers} ['netvm']"
    assert before.splitlines() == [said, "enough"]


def phase(supervisor: Supervisor) -> Phase:
    return supervisor.conditions()["sys-net"].phase


def test_an_agent_without_a_qubesdb_does_not_start_and_leaves_nothing(
    platform: Netns, runtime: Path
) -> None:
    platform.start("sys-net")
    before = descriptors()
    with pytest.raises(ConfineError, match="qubesdb"):
        platform.spawn_agent(start(runtime))
    assert descriptors() == before


def descriptors() -> int:
    gc.collect()  # of what tests before this one left
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_log_that_grew_too_long_starts_anew(tmp_path: Path) -> None:
    log = tmp_path / "sys-net.log"
    log.write_bytes(b"x" * LOG_LIMIT)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        agent = Agent(os.getpid(), -1, notify, log)
        agent.trim_log()
        assert log.stat().st_size == LOG_LIMIT
        with log.open("ab") as output:
            output.write(b"last")
            output.flush()
            agent.trim_log()
            assert log.stat().st_size == 0
            output.write(b"first")
    assert log.read_bytes() == b"first"
    before = (tmp_path / "sys-net.log.1").read_bytes()
    assert len(before) == LOG_LIMIT
    assert before.endswith(b"last")
