# SPDX-License-Identifier: GPL-2.0-or-later
"""A NetVM shares the host's connection; nobody else gains, and nothing is left.

::

    internet (203.0.113.80) -- out [host] lan -- other (10.50.0.2)
                                    [host] rv0-sys-net -- eth0 sys-net
"""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.ports import FirewallError
from controller import namespaces
from controller.platforms.host_uplink import NO_RESOLVER, HostUplink
from controller.platforms.netns import Netns
from controller.ports import PlatformError
from tests.controller.own_machine import own_machine
from tests.e2e.machine import until
from tests.lab.pinging import answered

pytestmark = pytest.mark.kernel

WEB, WEB6 = "203.0.113.80", "2001:db8:80::80"
HOST, HOST_LAN, OTHER = "198.51.100.2", "10.50.0.1", "10.50.0.2"
OURS, NETVM = "10.139.254.0", "10.139.254.1"
SETUP = f"""
link set lo up
link add out type veth peer name out netns INTERNET
link add lan type veth peer name lan netns OTHER
addr add {HOST}/24 dev out
addr add 2001:db8:100::2/64 dev out nodad
addr add {HOST_LAN}/24 dev lan
link set out up
link set lan up
route add default via 198.51.100.1
-6 route add default via 2001:db8:100::1
"""
SETUP_INTERNET = f"""
link set lo up
addr add 198.51.100.1/24 dev out
addr add 2001:db8:100::1/64 dev out nodad
addr add {WEB}/32 dev lo
addr add {WEB6}/128 dev lo nodad
link set out up
route add 10.0.0.0/8 via {HOST}
"""
SETUP_OTHER = f"""
link set lo up
addr add {OTHER}/24 dev lan
link set lan up
route add default via {HOST_LAN}
"""


def sh(*argv: str, stdin: str = "") -> str:
    return subprocess.run(
        argv, input=stdin, check=True, capture_output=True, text=True
    ).stdout


def load(script: str) -> None:
    sh("nft", "-f", "-", stdin=script)


def ip(lines: str, **names: str) -> None:
    for line in lines.strip().splitlines():
        sh("ip", *(names.get(word, word) for word in line.split()))


@dataclass
class World:
    """The outer machine; this process is in the namespace ``host`` of it."""

    platform: Netns
    runtime: Path
    host: Path
    internet: Path
    other: Path

    @property
    def uplink(self) -> HostUplink:
        return HostUplink(self.runtime, load)

    def netvm(self, name: str = "sys-net") -> Path:
        return self.platform.net(name)

    def reaches(self, net: Path, *words: str) -> bool:
        """Say whether an answer comes to any ping."""
        with namespaces.inside(net):
            return answered(*words)

    def is_cut_off(self, net: Path, *words: str) -> bool:
        with namespaces.inside(net):
            return not answered(*words, within=0)

    def state(self) -> tuple[str, ...]:
        """Everything of the host that sharing could have changed."""
        links = sorted(x.split("@")[0] for x in sh("ip", "-br", "addr").splitlines())
        sysctls = Path("/proc/sys/net/ipv4/conf").glob("*/*")
        values = sorted(f"{path} {path.read_text()}" for path in sysctls)
        forwarding6 = Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text()
        return (sh("nft", "list", "ruleset"), forwarding6, *links, *values)


@pytest.fixture
def world() -> Iterator[World]:
    directory = Path(tempfile.mkdtemp(prefix="rv"))
    nets = [directory / name for name in ("host", "internet", "other")]
    platform = Netns(directory / "run")
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        for net in nets:
            namespaces.create(net)
            stack.callback(namespaces.remove, net)
        stack.callback(platform.sweep)
        host, internet, other = nets
        stack.enter_context(namespaces.inside(host))
        stack.enter_context(own_machine())
        paths = {"INTERNET": str(internet), "OTHER": str(other)}
        for each, path in paths.items():
            # iproute2 knows namespaces by name below /run/netns or by pid alone.
            Path("/run/netns").mkdir(exist_ok=True)
            Path("/run/netns", each).symlink_to(path)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
        ip(SETUP)
        with namespaces.inside(internet):
            ip(SETUP_INTERNET)
        with namespaces.inside(other):
            ip(SETUP_OTHER)
        Path("/etc/resolv.conf").write_text("nameserver 198.51.100.53\n")
        platform.start("sys-net")
        yield World(platform, directory / "run", host, internet, other)
    assert str(directory) not in Path("/proc/self/mounts").read_text()


@pytest.fixture
def shared(world: World) -> World:
    world.uplink.attach("sys-net", world.netvm())
    return world


def test_the_netvm_reaches_the_internet_as_the_host(shared: World) -> None:
    with namespaces.inside(shared.internet):
        icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with icmp:
        assert shared.reaches(shared.netvm(), WEB)
        icmp.settimeout(20)
        _, (source, _) = icmp.recvfrom(2048)
    assert source == HOST


def test_the_way_out_names_the_resolvers_of_the_host(world: World) -> None:
    way = world.uplink.attach("sys-net", world.netvm())
    assert (way.interface, way.resolvers, way.notes) == (
        "eth0",
        ("198.51.100.53",),
        (),
    )


def test_a_host_with_a_stub_alone_is_told(world: World) -> None:
    Path("/etc/resolv.conf").write_text("nameserver 127.0.0.53\n")
    way = world.uplink.attach("sys-net", world.netvm())
    assert (way.resolvers, way.notes) == ((), (NO_RESOLVER,))


def test_behind_the_stub_of_systemd_resolved_stand_the_real_ones(
    world: World,
) -> None:
    Path("/etc/resolv.conf").write_text("nameserver 127.0.0.53\n")
    real = Path("/run/systemd/resolve/resolv.conf")
    real.parent.mkdir(parents=True)
    real.write_text("nameserver 192.0.2.7\nnameserver fe80::1%out\n")
    way = world.uplink.attach("sys-net", world.netvm())
    assert way.resolvers == ("192.0.2.7",)


@pytest.mark.parametrize("address", [HOST, HOST_LAN, OURS])
def test_the_netvm_cannot_reach_the_host_itself(shared: World, address: str) -> None:
    assert shared.reaches(shared.netvm(), WEB)
    assert shared.is_cut_off(shared.netvm(), address)
    sh("nft", "flush", "chain", "inet", "ravelin-host", "input")
    sh("nft", "flush", "chain", "inet", "ravelin-host", "output")
    assert shared.reaches(shared.netvm(), address)


def test_the_host_cannot_reach_the_netvm(shared: World) -> None:
    assert shared.is_cut_off(shared.host, NETVM)
    sh("nft", "flush", "ruleset")
    assert shared.reaches(shared.host, NETVM)


def test_the_netvm_reaches_no_other_network_of_the_host(shared: World) -> None:
    Path("/proc/sys/net/ipv4/conf/lan/forwarding").write_text("1")  # the way back
    assert shared.is_cut_off(shared.netvm(), OTHER)
    sh("nft", "flush", "ruleset")
    assert shared.reaches(shared.netvm(), OTHER)


def test_a_neighbour_cannot_use_that_the_host_forwards_now(shared: World) -> None:
    """Its packets get through neither to other networks nor to the NetVM."""
    with namespaces.inside(shared.netvm()):
        arrived = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    with arrived:
        arrived.settimeout(0)
        assert shared.is_cut_off(shared.internet, OTHER)
        assert shared.is_cut_off(shared.internet, NETVM)
        with pytest.raises(BlockingIOError):
            arrived.recv(2048)
        Path("/proc/sys/net/ipv4/conf/lan/forwarding").write_text("1")  # the way back
        sh("nft", "flush", "ruleset")
        assert shared.reaches(shared.internet, OTHER)
        assert shared.reaches(shared.internet, NETVM)
        assert arrived.recv(2048)


def test_the_netvm_cannot_send_from_another_address(shared: World) -> None:
    with namespaces.inside(shared.internet):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x800))
        wire.settimeout(0)
    with namespaces.inside(shared.netvm()):
        sh("ip", "addr", "add", "10.137.0.9/32", "dev", "lo")
    with wire:
        assert shared.is_cut_off(shared.netvm(), "-I", "10.137.0.9", WEB)
        with pytest.raises(BlockingIOError):
            wire.recv(2048)
        assert shared.reaches(shared.netvm(), WEB)
        assert wire.recv(2048)


def test_our_addresses_cannot_come_from_elsewhere(shared: World) -> None:
    """Even where the host forwards already, a neighbour is not masqueraded."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    Path("/proc/sys/net/ipv4/conf/all/rp_filter").write_text("0")
    Path("/proc/sys/net/ipv4/conf/lan/rp_filter").write_text("0")
    shared.uplink.refresh()
    with namespaces.inside(shared.internet):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x800))
        wire.settimeout(0)
    with namespaces.inside(shared.other):
        sh("ip", "addr", "add", f"{NETVM}/32", "dev", "lo")
    with wire:
        shared.is_cut_off(shared.other, "-I", NETVM, WEB)
        with pytest.raises(BlockingIOError):
            wire.recv(2048)
        sh("nft", "flush", "chain", "inet", "ravelin-host", "forward")

        def arrives() -> bool:
            shared.is_cut_off(shared.other, "-I", NETVM, WEB)
            with suppress(BlockingIOError):
                return bool(wire.recv(2048))
            return False

        assert until(arrives)


def test_detaching_leaves_everything_as_it_was(world: World) -> None:
    before = world.state()
    world.uplink.attach("sys-net", world.netvm())
    assert world.state() != before
    world.uplink.detach("sys-net")
    assert world.state() == before
    assert not any(path.is_file() for path in (world.runtime / "uplink").iterdir())
    world.uplink.detach("sys-net")


def test_after_a_crash_a_later_controller_sweeps_everything(world: World) -> None:
    before = world.state()
    world.uplink.attach("sys-net", world.netvm())
    world.platform.stop("sys-net")
    HostUplink(world.runtime, load).sweep()
    assert world.state() == before


@pytest.mark.parametrize("step", ["uplink", "forwarding"])
def test_a_crash_half_way_is_repaired_by_attaching_again(
    world: World, step: str
) -> None:
    before = world.state()

    def crash(_: str) -> None:
        raise KeyboardInterrupt

    broken = HostUplink(world.runtime, crash)
    with pytest.raises(KeyboardInterrupt):
        broken.attach("sys-net", world.netvm())
    if step == "forwarding":
        assert world.is_cut_off(world.netvm(), WEB)
        world.uplink.attach("sys-net", world.netvm())
        assert world.reaches(world.netvm(), WEB)
    world.uplink.detach("sys-net")
    assert world.state() == before


def test_rules_that_are_refused_are_an_error_and_nothing_forwards(
    world: World,
) -> None:
    def refuse(_: str) -> None:
        raise FirewallError("no nat")

    with pytest.raises(PlatformError, match="nftables: no nat"):
        HostUplink(world.runtime, refuse).attach("sys-net", world.netvm())
    assert Path("/proc/sys/net/ipv4/conf/out/forwarding").read_text() == "0\n"


def test_nothing_forwards_before_the_rules_stand(world: World) -> None:
    def look(script: str) -> None:
        forwards = Path("/proc/sys/net/ipv4/conf/out/forwarding").read_text()
        seen.append(forwards)
        load(script)

    seen: list[str] = []
    HostUplink(world.runtime, look).attach("sys-net", world.netvm())
    assert seen == ["0\n"]


def test_attaching_again_changes_nothing(shared: World) -> None:
    before = shared.state()
    shared.uplink.attach("sys-net", shared.netvm())
    assert shared.state() == before
    assert shared.reaches(shared.netvm(), WEB)


def test_a_netvm_that_was_stopped_gets_its_uplink_again(shared: World) -> None:
    shared.platform.stop("sys-net")
    shared.platform.start("sys-net")
    shared.uplink.attach("sys-net", shared.netvm())
    assert shared.reaches(shared.netvm(), WEB)


def test_two_netvms_share_and_do_not_meet(shared: World) -> None:
    shared.platform.start("sys-wifi")
    shared.uplink.attach("sys-wifi", shared.netvm("sys-wifi"))
    for name in ("sys-net", "sys-wifi"):
        assert shared.reaches(shared.netvm(name), WEB)
    assert shared.is_cut_off(shared.netvm(), "10.139.254.3")
    shared.uplink.detach("sys-net")
    assert shared.reaches(shared.netvm("sys-wifi"), WEB)


def test_long_names_give_interfaces_of_their_own(shared: World) -> None:
    for name in ("sys-net-of-the-office", "sys-net-of-the-home"):
        shared.platform.start(name)
        shared.uplink.attach(name, shared.netvm(name))
        assert shared.reaches(shared.netvm(name), WEB)


def test_a_default_route_that_moves_is_followed(shared: World) -> None:
    sh("ip", "route", "del", "default")
    sh("ip", "route", "add", "default", "via", OTHER)
    with namespaces.inside(shared.other):
        sh("ip", "addr", "add", f"{WEB}/32", "dev", "lo")
    assert shared.is_cut_off(shared.netvm(), WEB)
    shared.uplink.refresh()
    assert shared.reaches(shared.netvm(), WEB)
    forwarding = Path("/proc/sys/net/ipv4/conf/out/forwarding")
    assert forwarding.read_text() == "0\n"


def test_a_host_without_a_default_route_shares_nothing(world: World) -> None:
    sh("ip", "route", "del", "default")
    world.uplink.attach("sys-net", world.netvm())
    assert world.is_cut_off(world.netvm(), HOST)
    sh("ip", "route", "add", "default", "via", "198.51.100.1")
    world.uplink.refresh()
    assert world.reaches(world.netvm(), WEB)


def test_a_host_that_forwards_by_its_own_will_goes_on_doing_so(world: World) -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    before = world.state()
    world.uplink.attach("sys-net", world.netvm())
    assert world.reaches(world.internet, OTHER)
    assert world.reaches(world.netvm(), WEB)
    assert world.is_cut_off(world.netvm(), OTHER)
    assert world.is_cut_off(world.internet, NETVM)
    world.uplink.detach("sys-net")
    assert world.state() == before


def test_a_host_that_begins_to_forward_meanwhile_is_not_hindered(
    shared: World,
) -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    shared.uplink.refresh()
    assert shared.reaches(shared.internet, OTHER)
    shared.uplink.detach("sys-net")
    assert Path("/proc/sys/net/ipv4/conf/out/forwarding").read_text() == "1\n"
    assert shared.reaches(shared.internet, OTHER)


@pytest.mark.parametrize("forwards", [False, True], ids=["does not", "does"])
def test_the_netvm_has_ipv6_only_where_the_host_forwards_it(
    world: World, *, forwards: bool
) -> None:
    Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text(str(int(forwards)))
    world.uplink.attach("sys-net", world.netvm())
    judge = world.reaches if forwards else world.is_cut_off
    assert judge(world.netvm(), WEB6)
    assert world.is_cut_off(world.netvm(), "2001:db8:100::2")
    assert world.reaches(world.internet, "2001:db8:100::2")


def test_all_numbers_taken_is_an_error(world: World) -> None:
    taken = world.runtime / "uplink"
    taken.mkdir()
    for number in range(128):
        (taken / f"{number}-d{number}").touch()
    with pytest.raises(PlatformError, match="128"):
        world.uplink.attach("sys-net", world.netvm())


def test_no_child_is_left_behind() -> None:
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
