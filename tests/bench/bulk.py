# SPDX-License-Identifier: GPL-2.0-or-later
"""What a chain of two gateways costs one fast TCP flow (iperf3)."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from controller import namespaces
from tests.bench.figures import Figure, at_least, mean_ratio
from tests.bench.scene import CLIENT_MAC, VIF_MAC, Scene, keys_of_list
from tests.bench.traffic import (
    COUNT,
    INNER,
    OUTER,
    RULE,
    SINK,
    Way,
    firewall,
    forwarding,
    ip,
    masquerade,
    nft,
    router,
    run,
    uplink,
)

BULK = "One TCP flow"
FLOOR = "what conntrack and NAT alone leave of it"
TRACK = """
table ip bench {
    chain forward {
        type filter hook forward priority filter
        ct state established,new accept
    }
}
"""
ROUTERS = {
    "plain routers": "",
    "routers that track connections": TRACK,
    "routers that masquerade": masquerade("eth0"),
}
FLOWS = {  # by iperf3's options
    "one TCP flow out": "",
    "one TCP flow in": "-R",
    "eight TCP flows out": "-P 8",
    "eight TCP flows in": "-P 8 -R",
}


def ways(scene: Scene) -> dict[str, tuple[Path, Path]]:
    """Return both ends of AppVM, FirewallVM, NetVM, server and of the same of routers.

    Those of agents and those without a rule are what is wanted to be alike; the
    others say where the difference comes from.
    """
    routers = {
        name: with_routers(scene, f"r{number}-", rules)
        for number, (name, rules) in enumerate(ROUTERS.items())
    }
    return {"agents": with_agents(scene), **routers}


def bulk(scene: Scene, seconds: int, rounds: int) -> Iterator[Figure]:
    """Compare the ways by one fast TCP flow."""
    ends = ways(scene)
    taken: dict[str, list[float]] = {name: [] for name in ends}
    for _ in range(rounds):
        for name, (far, server) in ends.items():
            taken[name].append(transfer(far, server, seconds))

    def share(name: str, of: str) -> float:
        pairs = zip(taken[name], taken[of], strict=True)
        return 100 * median(ours / theirs for ours, theirs in pairs)

    plain, masquerading = "plain routers", "routers that masquerade"
    what = "AppVM, FirewallVM, NetVM, server: of the same with plain routers"
    note = "which track no connection and translate no address"
    yield at_least(BULK, what, share("agents", plain), "%", 95, note)
    what = "of the same with routers whose only rule is to masquerade"
    yield Figure(BULK, what, share("agents", masquerading), "%")
    what = "routers whose only rule is to masquerade, of plain routers"
    yield Figure(BULK, what, share(masquerading, plain), "%", note=FLOOR)
    for name, rates in taken.items():
        yield Figure(BULK, f"with {name}", median(rates) / 1e9, "Gbit/s")


def packets(scene: Scene, count: int, rounds: int) -> Iterator[Figure]:
    """Compare the ways by what the two gateways cost a small packet of a known flow.

    A packet of a fast TCP flow holds up to 64 KB on such cables and costs the same.
    It is the best of the rounds, which other work can only make longer.
    """
    found: dict[str, Way] = {}
    for name, (far, server) in ways(scene).items():
        nft(server, COUNT)
        found[name] = Way(far, server, server, flows=1)
    for turn in range(rounds + 1):
        for way in found.values():
            taken = way.round(count)
            if turn:
                way.taken.append(taken)
    plain = min(found["plain routers"].taken)
    for name, way in found.items():
        more = min(way.taken) - plain
        note = f"{more:+,.0f}" if more else "through two gateways"
        what = f"a packet of a known flow, with {name}"
        yield Figure(BULK, what, min(way.taken), "ns", note=note)


def tunnel(
    part: str, clients: tuple[Path, Path], server: Path, seconds: int, rounds: int
) -> Iterator[Figure]:
    """Compare a client of ours with one of the same daemon and routes without us.

    Four busy processes on few cores are not alike twice, so who begins takes turns,
    the first turn does not count, and what is given is the mean of many ratios and how
    sure that is.
    """
    taken: dict[str, list[tuple[float, ...]]] = {name: [] for name in FLOWS}
    for turn in range(rounds + 1):
        order = (1, -1)[turn % 2]
        for name, options in FLOWS.items():
            pair = [transfer(at, server, seconds, options) for at in clients[::order]]
            if turn:
                taken[name].append(tuple(pair[::order]))
    for name, rates in taken.items():
        share, least, most = mean_ratio(rates)
        ours, plain = (f"{median(x) / 1e6:.0f}" for x in zip(*rates, strict=True))
        what = f"{name}: of the same daemon and routes without us"
        note = f"{least:.1f} to {most:.1f}; {ours} of {plain} Mbit/s"
        yield at_least(part, what, share, "%", 95, note)


def with_agents(scene: Scene) -> tuple[Path, Path]:
    """Return the two ends of a chain of a FirewallVM and a NetVM."""
    first = firewall(scene, "fw", 1)
    who = f"mac={CLIENT_MAC} ip={INNER}".encode()
    keys = {"/qubes-netvm-gateway": OUTER.encode(), "/ravelin/vif/vif1.0": who}
    second = scene.gateway("net", "netvm", keys | keys_of_list(INNER, RULE))
    scene.uplink(second.net, "vif1.0", first.net, "eth0", CLIENT_MAC, VIF_MAC)
    server = outside(scene, second.net)
    for gateway in (second, first):
        gateway.dom0.spawn()
        gateway.dom0.enforced(1)
    return first.far, server


def with_routers(scene: Scene, name: str, rules: str = "") -> tuple[Path, Path]:
    """Return the two ends of a chain of two routers."""
    net, far = router(scene, f"{name}1")
    second = scene.net(f"{name}2")
    for each in (net, second):
        nft(each, rules)
    scene.uplink(second, "vif1.0", net, "eth0", CLIENT_MAC, VIF_MAC)
    uplink(net)
    ip(second, f"address add {OUTER}/30 dev vif1.0", "link set vif1.0 up")
    ip(second, f"route add 10.137.0.0/16 via {INNER}")
    forwarding(second)
    server = outside(scene, second)
    ip(server, "route add default via 192.0.2.2")
    return far, server


def outside(scene: Scene, net: Path) -> Path:
    """Return a server behind a NetVM, whose uplink it configures too."""
    server = scene.net(f"{net.name}-server")
    scene.uplink(net, "eth0", server, "eth0", "02:00:00:00:00:01")
    ip(server, "address add 192.0.2.1/24 dev eth0", "link set eth0 up")
    ip(server, f"address add {SINK}/32 dev lo")
    ip(net, "address add 192.0.2.2/24 dev eth0", "link set eth0 up")
    ip(net, "route add default via 192.0.2.1 dev eth0")
    return server


def transfer(far: Path, server: Path, seconds: int, options: str = "") -> float:
    """Return the bits a second of one TCP flow, or of what ``options`` say."""
    with namespaces.inside(server):
        argv = ["iperf3", "--forceflush", "-s", "-1", "-B", SINK]
        serving = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    with serving:
        assert serving.stdout is not None
        while "listening" not in serving.stdout.readline():
            if serving.poll() is not None:
                raise RuntimeError("iperf3 does not serve")
        said = json.loads(
            run(
                far,
                f"iperf3 -J -c {SINK} -t {seconds} --connect-timeout 30000 {options}",
            )
        )
        serving.stdout.read()
    return float(said["end"]["sum_received"]["bits_per_second"])
