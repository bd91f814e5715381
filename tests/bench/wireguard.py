# SPDX-License-Identifier: GPL-2.0-or-later
"""What a tunnel of WireGuard costs more with us than the same daemon without.

Both gateways are behind the same NetVM and have the same server, on a machine that
the real command brought up; the daemon is wireguard-go.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.syscalls import MS_BIND, mount, unmount
from tests.bench.bulk import tunnel
from tests.bench.figures import Figure
from tests.bench.recovery import recovery
from tests.bench.scene import Scene
from tests.bench.traffic import SINK, forwarding, ip, masquerade, nft, run
from tests.e2e.machine import becomes
from tests.e2e.vpn_room import OUTSIDE, PROVIDER
from tests.e2e.wireguard_room import Room, room
from tests.lab.wireguard import TRIXIE, Keys, server
from vpn.wireguard_go import PROGRAM

PART = "A tunnel of WireGuard"
LONG = 120.0  # seconds for a proof on a machine that is busy
POLICY = f"""{OUTSIDE}
[domains.sys-vpn]
personality = "wireguard"
netvm = "sys-net"
config = "provider.conf"
[domains.work]
netvm = "sys-vpn"
[domains.plain]
netvm = "sys-net"
"""
OTHER = "10.64.0.3"  # the plain gateway in its tunnel
FAR, NEAR = "10.99.0.2", "10.99.0.1"  # its client, and itself towards it


def of_trixie(scene: Scene, seconds: int, rounds: int) -> Iterator[Figure]:
    """Compare with the wireguard-go of Debian 13; the caller has mounts of its own."""
    mount(str(TRIXIE), str(PROGRAM), None, MS_BIND)
    try:
        yield from wireguard(scene, seconds, rounds, f"{PART}, with Debian 13's daemon")
    finally:
        unmount(str(PROGRAM))


def wireguard(
    scene: Scene, seconds: int, rounds: int, part: str = PART
) -> Iterator[Figure]:
    """Compare client, gateway, tunnel, server with and without an agent."""
    with room(POLICY) as place:
        internet = place.machine.internet.net
        ip(internet, f"address add {SINK}/32 dev lo")
        place.give_good()
        place.machine.up()
        place.comes_up()
        # The proof that `up` has started would slow down who comes first.
        becomes(place.machine.proof, "proved", LONG)
        with without(scene, place) as far:
            clients = place.machine.net("work"), far
            yield from tunnel(part, clients, internet, seconds, rounds)
        yield recovery(part, min(rounds, 5), place.daemon, place.flows)
        place.machine.does("down")


@contextmanager
def without(scene: Scene, place: Room) -> Iterator[Path]:
    """Give the client of a plain gateway, with the daemon as its manual has it."""
    keys, provider = Keys(), place.provider
    net, far = place.machine.net("plain"), scene.net("far")
    own = (f"public_key={keys.public.hex()}", f"allowed_ip={OTHER}/32")
    provider.tell("set=1", *own)
    with server(net, 0, f"{OTHER}/32", name="wgp0", listen=False) as daemon:
        daemon.tell(
            "set=1",
            f"private_key={keys.private.hex()}",
            f"public_key={provider.keys.public.hex()}",
            f"endpoint={PROVIDER}:{provider.port}",
            "allowed_ip=0.0.0.0/0",
        )
        scene.uplink(net, "behind", far, "eth0", "02:00:00:00:00:04")
        ip(net, f"address add {NEAR}/30 dev behind", "link set behind up")
        ip(net, f"route add {SINK} dev wgp0")
        ip(far, f"address add {FAR}/30 dev eth0", "link set eth0 up")
        ip(far, f"route add default via {NEAR}")
        forwarding(net)
        # To us it is an AppVM, which sends datagrams alone (controller/datagrams.py).
        run(net, "ethtool -K eth0 tx-udp-segmentation on")
        nft(net, masquerade("wgp0"))
        yield far
