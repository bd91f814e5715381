# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain with two clients and two uplinks, all of them TUN devices.

What is written to one device and forwarded is in another's queue when the write
returns, so nothing is waited for.
"""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

import nftables

from proof import snapshot
from proof.wire import raw
from proof.world import Client, Packet, Place, World
from rules import routing
from rules.compile import compile_client
from rules.facts import Client as Vif
from rules.facts import Facts, Uplink
from rules.flows import BY_RULES, CLIENT_DNS
from rules.ground import Ground, ground
from rules.guard import GUARD_TEXT, uplink_guard
from rules.model import Action, Family, Network, Policy, Ports, Proto, Rule
from rules.objects import Key, Object, Ruleset
from rules.pace import USUAL, pace
from rules.ruleset import ruleset
from rules.skeleton import SKELETON_TEXT
from rules.transaction import difference
from tests.kernel.raw_packets import MAGIC, number_of
from tests.kernel.tunnels import _CLONE_NEWNET, _device

VIFS, UPLINKS = ("vif5.0", "vif6.0"), ("eth0", "eth1")
NAMES = {"vif5.0": "work", "vif6.0": "play"}
CLIENTS = {
    "vif5.0": (ip_address("10.137.0.5"), ip_address("fd09:24ef:4179::a89:5")),
    "vif6.0": (ip_address("10.137.0.6"), ip_address("fd09:24ef:4179::a89:6")),
}
OWN = {
    "eth0": (ip_address("192.0.2.1"), ip_address("2001:db8::1")),
    "eth1": (ip_address("192.0.2.65"), ip_address("2001:db8:0:1::1")),
}
SERVERS = {
    4: (IPv4Address("198.51.100.7"), IPv4Address("203.0.113.9")),
    6: (IPv6Address("2001:db8:1::7"), IPv6Address("2001:db8:2::9")),
}
APART = (ip_network("10.137.0.0/16"), ip_network("fd09:24ef:4179::/48"))
SETTINGS = {
    "ipv4/ip_forward": "1",
    "ipv4/conf/all/rp_filter": "0",
    **{f"ipv4/conf/{name}/rp_filter": "0" for name in (*VIFS, *UPLINKS)},
    "ipv6/conf/all/forwarding": "1",
}
# TUN frames have no Ethernet header, so the guard's tables cannot know senders.
KNOWN = "\n".join(
    f"insert rule inet ravelin-guard from-vif iifname {vif}"
    f" {'ip' if address.version == 4 else 'ip6'} saddr {address} return"
    for vif, addresses in CLIENTS.items()
    for address in addresses
)


def _accepting(place: str, proto: Proto, first: int, last: int) -> Rule:
    network = Network(ip_network(place))
    return Rule(Action.ACCEPT, network, proto, ports=Ports(first, last))


POLICIES = {
    "work": Policy(
        (
            Rule(Action.DROP, proto=Proto.UDP, ports=Ports(80, 80)),
            _accepting("198.51.100.0/24", Proto.UDP, 53, 443),
            _accepting("198.51.100.0/24", Proto.TCP, 443, 443),
            _accepting("2001:db8:1::/48", Proto.UDP, 53, 443),
            _accepting("2001:db8:1::/48", Proto.TCP, 443, 443),
            Rule(Action.ACCEPT, proto=Proto.ICMP, icmp_type=8),
        )
    ),
    "play": Policy(
        (Rule(Action.DROP, proto=Proto.TCP, ports=Ports(22, 25)),), Action.ACCEPT
    ),
}


def lists() -> dict[str, dict[int, Ground]]:
    """Return the list of each client for both IP versions."""
    versions = {4: Family.IPV4, 6: Family.IPV6}
    return {
        name: {n: ground(policy, of, {}, frozenset(), 0) for n, of in versions.items()}
        for name, policy in POLICIES.items()
    }


@dataclass(slots=True)
class Lab:
    """The devices by name, and libnftables in their namespace."""

    devices: dict[str, int]
    nft: nftables.Nftables
    sent: int = 0
    index: dict[str, int] = field(default_factory=dict)

    def apply(self, script: str) -> None:
        code, _, error = self.nft.cmd(script)
        assert code == 0, (script, error)

    def through(self, into: str, packet: Packet) -> str | None:
        """Send a packet; return the device it came out of."""
        self.sent += 1
        mark = MAGIC + self.sent.to_bytes(4, "big")
        os.write(self.devices[into], raw(packet, mark))
        found = None
        for name, device in self.devices.items():
            for data in read_all(device):
                # What is refused comes back in part in an answer of ICMP.
                if number_of(data) == self.sent and not _answers(data):
                    found = name
        return found

    def world(self) -> World:
        """Return what the kernel has now."""
        clients = {vif: Client(NAMES[vif], CLIENTS[vif]) for vif in VIFS}
        place = Place(snapshot.here(), clients, dict.fromkeys(UPLINKS))
        return World({"fw": place})


def _answers(data: bytes) -> bool:
    """Return whether it is an error message of ICMP, which quotes what was sent."""
    if data[0] >> 4 == 4:
        return data[9] == 1 and data[(data[0] & 15) * 4] in {3, 4, 5, 11, 12}
    return data[6] == 58 and (data[40] < 128 or data[40] == 137)


def read_all(device: int) -> Iterator[bytes]:
    with suppress(BlockingIOError):
        while True:
            yield os.read(device, 4096)


def facts(index: dict[str, int]) -> Facts:
    clients = [
        Vif(vif, index[vif], "00:16:3e:5e:6c:00", v4, v6)
        for vif, (v4, v6) in CLIENTS.items()
        if isinstance(v4, IPv4Address) and isinstance(v6, IPv6Address)
    ]
    uplinks = [
        Uplink(
            name,
            index[name],
            frozenset(own),
            gateways=tuple(own) if name == "eth0" else (),
        )
        for name, own in OWN.items()
    ]
    connected = frozenset(a for both in CLIENTS.values() for a in both)
    return Facts(tuple(clients), tuple(uplinks), connected=connected)


def whole(index: dict[str, int]) -> Ruleset:
    """Return all our objects."""
    found: dict[Key, Object] = dict(
        ruleset(frozenset({BY_RULES, CLIENT_DNS}), facts(index))
    )
    for vif, both in CLIENTS.items():
        for address in both:
            wanted = lists()[NAMES[vif]][address.version]
            found.update(compile_client(address, wanted))
    return found


def _routing(index: dict[str, int]) -> Iterator[str]:
    names = {number: name for name, number in index.items()}
    wanted = routing.routing(frozenset({BY_RULES}), facts(index))
    for rule in wanted.rules:
        iif = f"iif {rule.iif} " if rule.iif else ""
        what = "unreachable" if rule.table is None else f"lookup {rule.table}"
        yield f"rule add pref {rule.priority} {iif}{what}", rule.family
    for route in (route for each in wanted.routes.values() for route in each):
        metric = f" metric {route.metric}" if route.metric else ""
        to = f"{route.prefix} dev {names[route.index]} table {route.table}{metric}"
        yield f"route add {to}", None


def ip(*lines: str, version: int = 4) -> None:
    """Have the tool do these lines."""
    tool = ["ip", f"-{version}", "-batch", "-"]
    subprocess.run(
        tool, input="\n".join(lines), text=True, check=True, capture_output=True
    )


@contextmanager
def lab() -> Iterator[Lab]:
    """Enter the domain's namespace, which ends with the context; no rules yet."""
    libc = ctypes.CDLL(None, use_errno=True)
    with ExitStack() as stack:
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        stack.callback(os.close, home)
        assert libc.unshare(_CLONE_NEWNET) == 0
        stack.callback(libc.setns, home, _CLONE_NEWNET)
        devices = {name: _device(name) for name in (*VIFS, *UPLINKS)}
        for device in devices.values():
            stack.callback(os.close, device)
        for setting, value in SETTINGS.items():
            Path("/proc/sys/net", setting).write_text(value)
        found = Lab(devices, nftables.Nftables())
        ip("link set lo up", *(f"link set {name} group 2 up" for name in VIFS))
        ip(*(f"link set {name} group 1 up" for name in UPLINKS))
        for name, (v4, v6) in OWN.items():
            ip(f"address add {v4}/32 dev {name}")
            ip(f"address add {v6}/128 dev {name} nodad", version=6)
        links = snapshot.here().routing.links
        found.index = {link.name: link.index for link in links}
        yield found


@contextmanager
def domain() -> Iterator[Lab]:
    """Enter the namespace with all our rules and routes in it."""
    with lab() as found:
        found.apply(SKELETON_TEXT + GUARD_TEXT + pace(USUAL) + KNOWN)
        found.apply("".join(map(uplink_guard, UPLINKS)))
        found.apply(difference(None, whole(found.index)))
        for line, family in _routing(found.index):
            versions = {Family.IPV4: [4], Family.IPV6: [6], None: [4]}[family]
            for version in versions:
                ip(line, version=6 if ":" in line.split()[2] else version)
        yield found
