# SPDX-License-Identifier: GPL-2.0-or-later
"""What a tunnel of OpenVPN costs more with us than the same daemon without."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from agent.berth import CARRIERS
from controller import namespaces
from tests.bench.bulk import tunnel
from tests.bench.figures import Figure
from tests.bench.scene import Scene
from tests.bench.traffic import SINK, ip, masquerade, nft, router
from tests.vpn.openvpn_room import DAEMON, SERVER, Room, room
from tests.vpn.openvpn_server import OPENVPN, READY, Pki, Server, profile, running

PART = "A tunnel of OpenVPN"
PLAIN = "203.0.113.4"  # the plain gateway
DNS = ('push "dhcp-option DNS 10.8.0.1"',)


def openvpn(scene: Scene, seconds: int, rounds: int) -> Iterator[Figure]:
    """Compare client, gateway, tunnel, server with and without an agent."""
    os.environ[CARRIERS] = f"openvpn={DAEMON}"
    with tempfile.TemporaryDirectory(prefix="rvb") as name:
        folder = Path(name)
        folder.chmod(0o755)
        pki = Pki(folder / "pki")
        pki.issue("server", "server")
        pki.issue("client", "client")
        pki.issue("plain", "client")
        with room(folder) as place:
            server = Server(pki, place.net("outside"), SERVER, more=DNS)
            place.ip(f"ip -n outside addr add {SINK}/32 dev lo")
            with running(server), without(scene, place, pki) as far:
                place.begin(profile(pki, f"{SERVER} 1194"))
                place.until_state("up")
                clients = place.net("client"), far
                yield from tunnel(PART, clients, place.net("outside"), seconds, rounds)
                times = [_recovery(place) for _ in range(min(rounds, 5))]
    what = "the daemon is killed: until a client's packet comes back"
    yield Figure(PART, what, median(times), "s")


def _recovery(place: Room) -> float:
    """Return the seconds until a client flows again without a hand."""
    (pid,) = place.daemons()
    begin = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    place.until_state("lost")
    place.until(lambda: place.course.state == "up" and place.reaches(SINK))
    return time.monotonic() - begin


@contextmanager
def without(scene: Scene, place: Room, pki: Pki) -> Iterator[Path]:
    """Give the client of a plain gateway, with the daemon as its manual has it."""
    net, far = router(scene, "plain")
    outside = place.net("outside")
    scene.uplink(outside, "wan2", net, "eth0", "02:00:00:00:00:04")
    ip(outside, "link set wan2 up", f"route add {PLAIN} dev wan2")
    ip(net, f"address add {PLAIN}/32 dev eth0", "link set eth0 up")
    ip(net, f"route add {SERVER} dev eth0")
    nft(net, masquerade("tun0"))
    config = pki.place / "plain.conf"
    more = f"nobind\nroute {SINK}\nremote-cert-tls server\ndisable-dco\nverb 3"
    config.write_text(profile(pki, f"{SERVER} 1194", cert="plain", more=more))
    argv = [OPENVPN, "--config", str(config)]
    process = namespaces.spawn(argv, net=net, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        while READY.encode() not in process.stdout.readline():
            assert process.poll() is None
        yield far
    finally:
        process.kill()
        process.communicate()
