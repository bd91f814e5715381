# SPDX-License-Identifier: GPL-2.0-or-later
"""Every change of rules, links, addresses and routes is heard, wherever it happens."""

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from selectors import DefaultSelector

import pytest

from controller import namespaces
from controller.kernel_events import KernelEvents

pytestmark = pytest.mark.kernel

DEADLINE = 20.0  # seconds


@dataclass
class Post:
    """Who listens, and how often something was heard."""

    directory: Path
    heard: int = 0
    selector: DefaultSelector = field(default_factory=DefaultSelector)
    events: KernelEvents = field(init=False)

    def __post_init__(self) -> None:
        self.events = KernelEvents(self.selector, self.net, self.hear)

    def net(self, name: str) -> Path:
        return self.directory / name

    def hear(self) -> None:
        self.heard += 1

    def run(self, name: str, command: str) -> None:
        with namespaces.inside(self.net(name)):
            subprocess.run(command.split(), check=True)

    def settle(self) -> None:
        """Take what has been said so far."""
        for key, mask in self.selector.select(0):
            key.data(mask)
        self.heard = 0

    def wait(self) -> None:
        deadline = time.monotonic() + DEADLINE
        while not self.heard:
            assert time.monotonic() < deadline
            for key, mask in self.selector.select(deadline - time.monotonic()):
                key.data(mask)


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    made = Post(tmp_path)
    for name in ("a", "b"):
        namespaces.create(made.net(name))
    made.events.follow(["a", "b", "not there yet"])
    assert made.heard == 2  # whatever happened before, nobody has looked at it
    made.settle()
    yield made
    made.events.close()
    assert not made.selector.get_map()
    made.selector.close()
    for name in ("a", "b"):
        namespaces.remove(made.net(name))


CHANGES = (
    *("nft add table ip x", "ip link set lo up", "ip addr add 192.0.2.1/32 dev lo"),
    *("ip rule add pref 9 table 9", "ip -6 rule add pref 9 table 9"),
    *(f"sysctl -qw net.ipv4.conf.lo.{name}=1" for name in ("rp_filter", "forwarding")),
    "sysctl -qw net.ipv6.conf.all.forwarding=1",
    *("ip route add unreachable 192.0.2.9", "ip -6 route add unreachable 2001:db8::9"),
)


@pytest.mark.parametrize("command", CHANGES)
def test_a_change_is_heard(post: Post, command: str) -> None:
    post.run("b", command)
    post.wait()


def test_nothing_is_heard_when_nothing_happens(post: Post) -> None:
    post.run("a", "ip link show lo")
    post.run("a", "nft list ruleset")

    assert post.selector.select(0) == []


def test_who_is_forgotten_is_heard_no_more_and_free_to_end(post: Post) -> None:
    post.events.forget("a")
    post.run("a", "nft add table ip x")
    assert post.selector.select(0) == []

    post.events.follow(["b"])
    post.run("b", "nft add table ip x")
    post.wait()
    post.events.follow(["a", "b"])
    post.settle()
    post.run("a", "nft add table ip y")
    post.wait()


def test_more_than_a_socket_holds_is_heard_all_the_same(post: Post) -> None:
    rules = "".join(f"add table ip t{n}\n" for n in range(4000))
    with namespaces.inside(post.net("a")):
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)

    post.wait()
    post.settle()
    post.run("a", "nft add table ip last")
    post.wait()
