# SPDX-License-Identifier: GPL-2.0-or-later
"""What a gateway costs the first packets of flows.

Ways of equal length take turns, and every round checks that all of it arrived.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import monotonic

from controller import namespaces
from rules.pace import pace
from tests.bench import burst
from tests.bench.figures import Figure, at_least
from tests.bench.scene import (
    GATEWAY,
    VIF_MAC,
    Gateway,
    Scene,
    address,
    contents,
    lay,
    vif,
)

FLOWS = "New flows through a FirewallVM"
SINK = "198.51.100.1"
OUTER, INNER = "10.138.0.1", "10.138.0.2"
BURST = Path(burst.__file__)
RULE = {"0000": "action=accept"}
PATIENCE = 20.0  # seconds, for what is under way when the last was sent
FAR = 1 << 31  # flows of a table: a client's pace costs the same and is not reached
# Everything that arrives is counted, and answered by nobody.
COUNT = """
table ip bench {
    counter arrived { }
    chain in {
        type filter hook prerouting priority -400
        policy accept
        udp dport 1024-65535 counter name arrived drop
    }
}
"""
NAMES = {
    "one": "1 client",
    "many": "many clients",
    "empty": "an empty forward chain",
    "rules": "many clients, two iif rules for each",
    "plain": "no rule, no conntrack",
}
EMPTY = """
flush chain ip qubes forward
add chain ip qubes forward { policy accept; }
"""


@dataclass(slots=True)
class Way:
    """From a client's namespace through a router to a sink."""

    client: Path
    sink: Path
    router: Path
    flows: int | None = None
    first: int = 0
    taken: list[float] = field(default_factory=list)

    def round(self, packets: int) -> float:
        """Send that many packets; return the nanoseconds each took.

        Each is a flow of its own unless ``flows`` says of how many they are.
        """
        run(self.sink, "nft reset counter ip bench arrived")
        argv = [sys.executable, str(BURST), str(packets), str(self.first)]
        seconds = float(run(self.client, *argv, str(self.flows or packets)))
        self.first += packets if self.flows is None else 0
        deadline = monotonic() + PATIENCE
        while (arrived := self._arrived()) < packets:
            if monotonic() > deadline:
                raise RuntimeError(f"{arrived} of {packets} packets arrived")
        for net in (self.router, self.client, self.sink):
            run(net, "conntrack -F")
        return 1e9 * seconds / packets

    def _arrived(self) -> int:
        answer = run(self.sink, "nft -j list counter ip bench arrived")
        found = (entry.get("counter") for entry in json.loads(answer)["nftables"])
        return next(int(counter["packets"]) for counter in found if counter)


def run(net: Path, *argv: str) -> str:
    """Run a command in a namespace; one with spaces is cut there."""
    words = argv[0].split() if len(argv) == 1 else list(argv)
    with namespaces.inside(net):
        done = subprocess.run(words, check=True, capture_output=True, text=True)
    return done.stdout


def nft(net: Path, script: str) -> None:
    """Load rules in a namespace."""
    with namespaces.inside(net):
        subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)


def masquerade(interface: str) -> str:
    """Return rules that do nothing but masquerade what leaves by an interface."""
    return f"""
table ip bench {{
    chain out {{
        type nat hook postrouting priority srcnat
        oifname "{interface}" masquerade
    }}
}}
"""


def ip(net: Path, *lines: str) -> None:
    """Run lines of ip(8) in a namespace."""
    batch = "".join(f"{line}\n" for line in lines)
    with namespaces.inside(net):
        subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)


def behind(scene: Scene, router: Path, name: str) -> Path:
    """Make what is behind the uplink eth0 of a router, with the server's address."""
    net = scene.net(name)
    scene.uplink(router, "eth0", net, "gw0", VIF_MAC)
    ip(net, "link set gw0 up", f"address add {OUTER}/30 dev gw0")
    ip(net, f"address add {SINK}/32 dev lo", "route add 198.51.100.0/24 dev lo")
    ip(net, f"route add 10.137.0.0/16 via {INNER} dev gw0 onlink")
    return net


def client(net: Path, device: str) -> None:
    """Configure the end of the first client."""
    ip(net, f"address add {address(1)}/32 dev {device}", f"link set {device} up")
    ip(net, f"route add default via {GATEWAY} dev {device} onlink")


def firewall(scene: Scene, name: str, clients: int) -> Gateway:
    """Return a FirewallVM with that many clients; its uplink is the caller's."""
    keys = contents(range(1, clients + 1), lambda _: RULE)
    gateway = scene.gateway(name, "firewallvm", keys)
    gateway.lay(range(1, clients + 1))
    client(gateway.far, "c1")
    return gateway


def router(scene: Scene, name: str) -> tuple[Path, Path]:
    """Return a router without a rule and its client; the uplink is the caller's."""
    net, far = scene.net(name), scene.net(f"{name}-far")
    lay(net, far, [1])
    client(far, "c1")
    ip(net, f"address add {GATEWAY}/32 dev vif1.0", "link set vif1.0 up")
    ip(net, f"route add {address(1)} dev vif1.0")
    forwarding(net)
    return net, far


def forwarding(net: Path) -> None:
    """Make a namespace a router."""
    with namespaces.inside(net):
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def uplink(net: Path) -> None:
    """Configure the uplink of a plain router."""
    ip(net, f"address add {INNER}/30 dev eth0", "link set eth0 up")
    ip(net, f"route add default via {OUTER} dev eth0")


def flows(scene: Scene, clients: int, packets: int, rounds: int) -> Iterator[Figure]:
    """Compare the ways of new flows."""
    ways: dict[str, Way] = {}
    for name, count in (
        ("one", 1),
        ("many", clients),
        ("empty", 1),
        ("rules", clients),
    ):
        gateway = firewall(scene, name, count)
        net = behind(scene, gateway.net, f"{name}-sink")
        nft(net, COUNT)
        gateway.dom0.spawn()
        gateway.dom0.enforced(count)
        gateway.dom0.close()  # what is in the kernel stays
        nft(gateway.net, pace(FAR))
        ways[name] = Way(gateway.far, net, gateway.net)
    nft(ways["empty"].router, EMPTY)
    two_rules_for_each_vif(ways["rules"].router, clients)
    plain, far = router(scene, "plain")
    ways["plain"] = Way(far, behind(scene, plain, "plain-sink"), plain)
    nft(ways["plain"].sink, COUNT)
    uplink(plain)
    for turn in range(rounds + 1):
        for way in ways.values():
            taken = way.round(packets)
            if turn:
                way.taken.append(taken)

    def rate(name: str, of: str) -> float:
        pairs = zip(ways[of].taken, ways[name].taken, strict=True)
        return 100 * median(base / taken for base, taken in pairs)

    what = f"rate with {clients} clients, of that with 1"
    yield at_least(FLOWS, what, rate("many", "one"), "%", 90)
    what = "rate with 1 client, of that with an empty forward chain"
    yield at_least(FLOWS, what, rate("one", "empty"), "%", 90)
    what = f"rate with {clients} clients, of that with an empty forward chain"
    yield at_least(FLOWS, what, rate("many", "empty"), "%", 90)
    what = "rate with 1 client, of that of a router without any rule or conntrack"
    yield Figure(FLOWS, what, rate("one", "plain"), "%")
    what = f"rate with {clients} clients and two iif rules for each, of that with 1"
    note = "why routing rules are per role (ADR 0008)"
    yield Figure(FLOWS, what, rate("rules", "one"), "%", note=note)
    for name, way in ways.items():
        yield Figure(FLOWS, NAMES[name], median(way.taken), "ns/flow")


def two_rules_for_each_vif(net: Path, clients: int) -> None:
    """Add what ADR 0008 decided against."""
    lines = []
    for number in range(clients, 0, -1):
        lines.append(f"rule add iif {vif(number)} priority 50 lookup 10139")
        lines.append(f"rule add iif {vif(number)} priority 51 unreachable")
    ip(net, *lines)
