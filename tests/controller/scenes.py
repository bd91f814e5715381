# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wanted of a small home, and kernels that hold nothing."""

from controller.policy import asserted, read
from controller.scene import Scene
from proof.bytecode import Bytecode
from proof.routes import Routing
from proof.snapshot import Snapshot
from rules.decide import Names

HOME = """\
[domains.net]
personality = "netvm"
uplink = "lab"
[domains.fw]
personality = "firewall"
netvm = "net"
[domains.work]
netvm = "fw"
firewall = ["accept dsthost=www.example.com proto=tcp"]
[domains.four]
netvm = "fw"
ipv6 = false
[domains.vault]
"""
SERIALS = {"fw": 1, "work": 2, "four": 3}


def scene(more: str = "", names: Names | None = None) -> Scene:
    """Return the home with more text in its policy file."""
    text = HOME + more
    domains = read(text, file="home.toml", qids={}, now=0)
    return Scene(domains, SERIALS, names or {}, 1000, asserted(text))


def nothing(generation: int = 1) -> Snapshot:
    """Return a network that has nothing."""
    return Snapshot(Bytecode(generation), Routing((), (), (), ()), {}, ())
