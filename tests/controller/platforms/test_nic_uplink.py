# SPDX-License-Identifier: GPL-2.0-or-later
"""A card moves into the NetVM and back, unless the machine needs it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller import cables, namespaces
from controller.platforms.netns import Netns
from controller.platforms.nic_uplink import NicUplink
from controller.ports import PlatformError
from controller.syscalls import mount
from tests.controller.own_machine import own_machine

pytestmark = pytest.mark.kernel

SETUP = """
link add card type veth peer name wire
link add br0 type bridge
link add member type veth peer name other
link set member master br0
link add vif1.0 type veth peer name guest
addr add 192.0.2.2/24 dev card
link set card up
link set wire up
"""


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Netns]:
    """A platform whose host is a namespace of the test's own, and so is /sys."""
    platform = Netns(tmp_path / "run")
    host = tmp_path / "host"
    namespaces.create(host)
    try:
        with namespaces.inside(host), own_machine():
            mount("sysfs", "/sys", "sysfs", 0)
            for line in SETUP.strip().splitlines():
                subprocess.run(["ip", *line.split()], check=True)
            platform.start("sys-net")
            yield platform
    finally:
        platform.sweep()
        namespaces.remove(host)


@pytest.fixture
def uplink(tmp_path: Path) -> NicUplink:
    return NicUplink(tmp_path / "run")


def is_in(platform: Netns, name: str) -> bool:
    with namespaces.inside(platform.net("sys-net")):
        return cables.exists(name)


def test_a_card_moves_in_and_back_by_its_name(
    platform: Netns, uplink: NicUplink
) -> None:
    net = platform.net("sys-net")
    for _ in range(2):
        way = uplink.attach("sys-net", net, "card")
        assert way.interface == "card"
        assert "addresses are gone" in way.notes[0]
        assert (is_in(platform, "card"), cables.exists("card")) == (True, False)
    for _ in range(2):
        uplink.detach("sys-net", net)
        assert (is_in(platform, "card"), cables.exists("card")) == (False, True)


def test_a_card_of_a_netvm_that_is_no_more_is_forgotten(
    platform: Netns, uplink: NicUplink, tmp_path: Path
) -> None:
    net = platform.net("sys-net")
    uplink.attach("sys-net", net, "card")
    platform.stop("sys-net")
    uplink.detach("sys-net", net)
    assert list((tmp_path / "run" / "nic").iterdir()) == []


def test_a_sweep_brings_every_card_back_before_its_netvm_ends(
    platform: Netns, uplink: NicUplink, tmp_path: Path
) -> None:
    """With a namespace the kernel ends a device that it made itself, as this one."""
    uplink.attach("sys-net", platform.net("sys-net"), "card")
    (tmp_path / "run" / "nic" / "sys-gone").write_text("other")
    platform.net("sys-gone").touch()  # as a crash leaves it

    uplink.sweep(platform.net)
    platform.sweep()

    assert cables.exists("card")
    assert list((tmp_path / "run" / "nic").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("lo", "not a network card"),
        ("vif1.0", "not a network card"),
        ("br0", "a bridge"),
        ("member", "part of a bridge"),
        ("absent", "no such interface, expected host, lab, .*card"),
        ("car", r"no such interface, did you mean card\?"),
        ("labb", r"no such interface, did you mean lab\?"),
    ],
)
def test_what_is_no_card_stays(
    platform: Netns, uplink: NicUplink, name: str, why: str
) -> None:
    before = cables.exists(name)
    with pytest.raises(PlatformError, match=f"{name}: .*{why}"):
        uplink.attach("sys-net", platform.net("sys-net"), name)
    assert cables.exists(name) is before


def test_the_only_way_out_of_the_machine_moves_only_by_force(
    platform: Netns, uplink: NicUplink, tmp_path: Path
) -> None:
    net = platform.net("sys-net")
    route = ["ip", "route", "add", "default", "via", "192.0.2.1"]
    subprocess.run(route, check=True)
    with pytest.raises(PlatformError, match="card: this machine's only way out"):
        uplink.attach("sys-net", net, "card")
    assert cables.exists("card")
    NicUplink(tmp_path / "run", force=True).attach("sys-net", net, "card")
    assert is_in(platform, "card")
