# SPDX-License-Identifier: GPL-2.0-or-later
"""What a chain of two gateways costs one fast TCP flow (iperf3)."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from controller import namespaces
from tests.bench.figures import Figure, at_least
from tests.bench.scene import CLIENT_MAC, VIF_MAC, Scene, keys_of_list
from tests.bench.traffic import (
    INNER,
    OUTER,
    RULE,
    SINK,
    firewall,
    forwarding,
    ip,
    nft,
    router,
    run,
    uplink,
)

BULK = "One TCP flow"
MASQUERADE = """
table ip bench {
    chain out {
        type nat hook postrouting priority srcnat
        oifname "eth0" masquerade
    }
}
"""


def bulk(scene: Scene, seconds: int, rounds: int) -> Iterator[Figure]:
    """Compare AppVM, FirewallVM, NetVM, server with the same of plain routers."""
    ends = {
        "agents": with_agents(scene),
        "plain routers": with_routers(scene, "r"),
        "routers that masquerade": with_routers(scene, "m", MASQUERADE),
    }
    taken: dict[str, list[float]] = {name: [] for name in ends}
    for _ in range(rounds):
        for name, (far, server) in ends.items():
            taken[name].append(transfer(far, server, seconds))

    def share(of: str) -> float:
        pairs = zip(taken["agents"], taken[of], strict=True)
        return 100 * median(ours / theirs for ours, theirs in pairs)

    what = "AppVM, FirewallVM, NetVM, server: of the same with plain routers"
    note = "which track no connection and translate no address"
    yield at_least(BULK, what, share("plain routers"), "%", 95, note)
    what = "of the same with routers whose only rule is to masquerade"
    yield Figure(BULK, what, share("routers that masquerade"), "%")
    for name, rates in taken.items():
        yield Figure(BULK, f"with {name}", median(rates) / 1e9, "Gbit/s")


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


def transfer(far: Path, server: Path, seconds: int) -> float:
    """Return the bits a second of one TCP flow."""
    with namespaces.inside(server):
        argv = ["iperf3", "--forceflush", "-s", "-1", "-B", SINK]
        serving = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    with serving:
        assert serving.stdout is not None
        while "listening" not in serving.stdout.readline():
            if serving.poll() is not None:
                raise RuntimeError("iperf3 does not serve")
        said = json.loads(
            run(far, f"iperf3 -J -c {SINK} -t {seconds} --connect-timeout 5000")
        )
        serving.stdout.read()
    return float(said["end"]["sum_received"]["bits_per_second"])
