# SPDX-License-Identifier: GPL-2.0-or-later
"""Gateways with real agents, clients and their cables, for the bench.

A gateway is a network namespace with the real program in it, started as the
controller starts it, and a `Dom0` that serves its QubesDB.
"""

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import count
from pathlib import Path

from agent.netlink import ROUTE, Netlink, Request
from agent.rtnetlink import End, add_veth, delete_link, set_link
from controller import namespaces
from controller.platforms.netns import Netns
from controller.ports import AgentStart
from tests.bench.dom0 import Dom0

FIRST_UID = 61184 + 128
VIF_MAC, CLIENT_MAC = "fe:ff:ff:ff:ff:ff", "00:16:3e:5e:6c:00"
FIRST_CLIENT = IPv4Address("10.137.0.5")
GATEWAY = "10.137.255.254"
ROOM = 200
"""So many addresses fit into a value of QubesDB."""
HERE = Path("/proc/thread-self/ns/net")
_uids = count(FIRST_UID)

OF_THE_GATEWAY = {
    "/qubes-ip": b"10.138.0.2",
    "/qubes-gateway": b"10.138.0.1",
    "/qubes-primary-dns": b"10.139.1.1",
    "/qubes-secondary-dns": b"10.139.1.2",
    "/qubes-netvm-gateway": GATEWAY.encode(),
}


def address(number: int) -> str:
    """Return the address of a client, which are numbered from 1."""
    return str(FIRST_CLIENT + number - 1)


def vif(number: int) -> str:
    """Return the name of a client's vif."""
    return f"vif{number}.0"


def policy(number: int, rules: int = 10) -> dict[str, str]:
    """Return a list as people have it: names' servers, ping, and some hosts."""
    lines = ["action=accept specialtarget=dns", "action=accept proto=icmp"]
    for host in range(rules - len(lines)):
        place = f"198.{18 + number % 2}.{number // 2 % 250}.{host + 1}/32"
        lines.append(f"action=accept dst4={place} proto=tcp dstports=443-443")
    return {f"{place:04}": line for place, line in enumerate(lines[:rules])}


def keys_of_list(client: str, rules: Mapping[str, str]) -> dict[str, bytes]:
    """Return the keys of a committed list that drops what it does not name."""
    base = f"/qubes-firewall/{client}"
    listed = {f"{base}/{key}": text.encode() for key, text in rules.items()}
    return {f"{base}/policy": b"drop", **listed, base: b""}


def keys_of_client(number: int) -> dict[str, bytes]:
    """Return the key that says who is behind a vif."""
    who = f"mac={CLIENT_MAC} ip={address(number)}"
    return {f"/ravelin/vif/{vif(number)}": who.encode()}


def contents(
    clients: Sequence[int],
    rules: Callable[[int], Mapping[str, str]] = policy,
    *,
    coming: Sequence[int] = (),
) -> dict[str, bytes]:
    """Return what the QubesDB of a gateway with these clients holds.

    Those who are ``coming`` are configured, and have no vif yet.
    """
    known = " ".join(map(address, [*coming, *clients][:ROOM]))
    keys = {**OF_THE_GATEWAY, "/connected-ips": known.encode()}
    for number in (*clients, *coming):
        keys |= keys_of_list(address(number), rules(number))
    for number in clients:
        keys |= keys_of_client(number)
    return keys


@dataclass(slots=True)
class Gateway:
    """A namespace with an agent; its clients' ends of the cables are in ``far``."""

    net: Path
    far: Path
    dom0: Dom0

    def lay(self, numbers: Iterable[int]) -> None:
        """Lay the cables of clients."""
        lay(self.net, self.far, list(numbers))

    def cut(self, numbers: Iterable[int]) -> None:
        """Take cables away."""
        with namespaces.inside(self.net):
            indexes = {name: index for index, name in socket.if_nameindex()}
            do(delete_link(indexes[vif(number)]) for number in numbers)

    def memory(self) -> tuple[float, float]:
        """Return what the agent has of memory now, and had at most, in MB."""
        lines = Path(f"/proc/{self.dom0.pid}/status").read_text().splitlines()
        found = dict(line.split(":", 1) for line in lines)
        kilobytes = (int(found[key].split()[0]) for key in ("VmRSS", "VmHWM"))
        now, most = (number / 1000 * 1.024 for number in kilobytes)
        return now, most


@dataclass(slots=True)
class Scene:
    """Namespaces below one directory, all removed at the end."""

    runtime: Path
    stack: ExitStack

    def net(self, name: str) -> Path:
        """Make a namespace, with loopback up, without IPv6."""
        platform = Netns(self.runtime)
        platform.start(name)
        self.stack.callback(platform.stop, name)
        with namespaces.inside(platform.net(name)):
            for scope in ("all", "default"):
                key = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
                key.write_text("1")
        return platform.net(name)

    def gateway(
        self, name: str, personality: str, keys: Mapping[str, bytes]
    ) -> Gateway:
        """Make a gateway without cables; its agent is not started yet."""
        net, far = self.net(name), self.net(f"{name}-far")
        uid = next(_uids)
        start = AgentStart(
            domain=name,
            personality=personality,
            uid=uid,
            qubesdb=self.runtime / f"{name}.sock",
            resolvers=("192.0.2.53",),
        )
        dom0 = Dom0(Netns(self.runtime), start, keys)
        self.stack.callback(dom0.close)
        return Gateway(net, far, dom0)

    def uplink(  # noqa: PLR0917
        self,
        near: Path,
        name: str,
        other: Path,
        far: str,
        mac: str,
        own: str | None = None,
    ) -> None:
        """Lay a cable; both ends are left down."""
        with namespaces.inside(near), HERE.open() as here, other.open() as there:
            one = End(name, here.fileno(), own)
            do([add_veth(one, End(far, there.fileno(), mac))])


@contextmanager
def scene(runtime: Path) -> Iterator[Scene]:
    """Give a place for namespaces, which are gone afterwards."""
    runtime.mkdir(parents=True, exist_ok=True)
    Netns(runtime).sweep()  # what a bench that was killed has left
    with ExitStack() as stack:
        yield Scene(runtime, stack)


def lay(net: Path, far: Path, numbers: list[int]) -> None:
    """Lay the cables of clients: the vif is down, the client's end is up."""
    with namespaces.inside(net), HERE.open() as here, far.open() as there:
        do(add_veth(*_ends(n, here.fileno(), there.fileno())) for n in numbers)
    with namespaces.inside(far):
        indexes = {name: index for index, name in socket.if_nameindex()}
        do(set_link(indexes[f"c{number}"], up=True) for number in numbers)


def do(requests: Iterable[Request]) -> None:
    """Ask the kernel of the namespace we are in."""
    with Netlink(ROUTE) as kernel:
        kernel.do(*requests)


def _ends(number: int, here: int, there: int) -> tuple[End, End]:
    return End(vif(number), here, VIF_MAC), End(f"c{number}", there, CLIENT_MAC)
