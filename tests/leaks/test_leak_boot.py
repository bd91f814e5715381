# SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing leaves before the rules, without the rules, or by a link that came anew.

Classes: L1 L2 L7 L8 L11 L13 P15 R1 (leaks.md, 2).  Two clients flood at all times:
what ``shut`` sends must never arrive, and what ``open`` sends is the positive
control, for it does arrive before and after.

Limits: the boot of a VM's own services is not seen here, only that of our agents;
the NetVM's card belongs to somebody else, who may set it up before us, so of its
own frames only those that could carry a client's are judged.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from controller import namespaces
from controller.lab.addresses import FORBIDDEN, WEB
from tests.lab import attacks
from tests.lab.prober import Flood
from tests.lab.routed import CLIENT4, CLIENT6, GATEWAY4, GATEWAY6, Routed, routed
from tests.lab.scene import Scene
from tests.lab.sniffer import Packet, Sniffer
from tests.leaks.chain import GATEWAYS, PATIENCE, ROOT, Chain, appvm, running
from tests.leaks.judge import NETVM_OWN, Wires

pytestmark = pytest.mark.kernel

# The second NetVM keeps the internet there while the first one restarts.
SECOND = '[domains.sys-net2]\npersonality = "netvm"\nuplink = "lab"\n'
SECOND_OWN = frozenset(
    map(ip_address, ("192.0.2.3", "2001:db8:1::3", "fe80::3", "fe80::ff:fe00:3"))
)
PORTS = {4: 9004, 6: 9006}
PROGRAMS = ("agent", "rules", "netvm", "firewallvm", "__main__.py")


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with running(
        appvm("shut", "drop"), appvm("open"), gateways=GATEWAYS + SECOND
    ) as made:
        yield made


@contextmanager
def floods(chain: Chain) -> Iterator[list[tuple[str, Flood]]]:
    """Flood from both clients, both families, 2500 packets a second each."""
    found: list[tuple[str, Flood]] = []
    with ExitStack() as stack:
        for client, targets in (("shut", FORBIDDEN), ("open", WEB)):
            for to in targets:
                port = PORTS[to.version]
                flood = Flood(
                    chain.net(client), chain.internet.net, to, port, rate=2500
                )
                found.append((client, stack.enter_context(flood)))
            with Sniffer(chain.net(client), "eth0", drain=0.1) as wire:
                for port in PORTS.values():
                    wire.wait(of_port(port))
        yield found


def of_port(port: int) -> Callable[[Packet], bool]:
    return lambda packet: packet.port == port


def judged(found: list[tuple[str, Flood]]) -> None:
    for client, flood in found:
        assert flood.result.sent > 0
        if client == "shut":
            assert flood.result.received == 0
        else:
            assert flood.result.received > 0


@pytest.mark.parametrize("domain", ["sys-firewall", "sys-net"])
def test_nothing_passes_while_a_gateway_boots(chain: Chain, domain: str) -> None:
    """L1 P15 R1: three times a new namespace, new links and a new agent."""
    with Wires(chain) as wires, floods(chain) as found:
        for _ in range(3):
            chain.cli("restart", domain)
    judged(found)
    assert [p for p in wires.outer if p.source not in (*NETVM_OWN, *SECOND_OWN)] == []
    if domain == "sys-firewall":
        own = chain.ip("sys-firewall")
        assert [p for p in wires.middle if p.source not in own] == []
        assert wires.middle  # among them, what ``open`` sent


def test_nothing_passes_while_the_uplink_goes_and_comes(chain: Chain) -> None:
    """L11 L13 (E26, E1): another cable, another NetVM, and back, ten times."""
    with Wires(chain) as wires, floods(chain) as found:
        for netvm in ("sys-net2", "sys-net") * 5:
            chain.ask("prefs", domain="sys-firewall", property="netvm", value=netvm)
    judged(found)
    own = chain.ip("sys-firewall")
    assert [p for p in wires.middle if p.source not in own] == []
    assert [p for p in wires.outer if p.source not in (*NETVM_OWN, *SECOND_OWN)] == []


def test_an_uplink_that_somebody_deletes_is_not_replaced_by_anything(
    chain: Chain,
) -> None:
    """L11 (E26): until the controller lays a new cable there is no way out."""
    with Wires(chain) as wires, floods(chain) as found:
        chain.run("sys-firewall", "ip", "link", "del", "eth0")
        attack = attacks.fuzz(chain.scene("open", "shut"))
        attacks.send(chain.net("open"), "eth0", attack)
        for netvm in ("sys-net2", "sys-net"):
            chain.ask("prefs", domain="sys-firewall", property="netvm", value=netvm)
    judged(found)
    own = chain.ip("sys-firewall")
    assert [p for p in wires.middle if p.source not in own] == []


SCENE = Scene(
    client=str(CLIENT4),
    client6=str(CLIENT6),
    gateway=str(GATEWAY4),
    gateway6=str(GATEWAY6),
    server=str(WEB[0]),
    server6=str(WEB[1]),
)


@pytest.fixture
def row(tmp_path: Path) -> Iterator[Routed]:
    """A client, links that are up, and a gateway that is about to start its agent."""
    with routed(tmp_path / "row") as made:
        forwarding(made, "0")
        yield made


def forwarding(row: Routed, text: str) -> None:
    with namespaces.inside(row.router):
        for family in ("ipv4", "ipv6"):
            Path(f"/proc/sys/net/{family}/conf/all/forwarding").write_text(text)


def passed(row: Routed) -> bool:
    with Sniffer(row.internet.net, row.port) as wire:
        attacks.send(row.client, "eth0", attacks.fuzz(SCENE))
    return any(packet.marked and not packet.outgoing for packet in wire.packets)


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        ("rules/guard.py", 'drop comment "transit"', 'drpo comment "transit"'),
        ("rules/skeleton.py", "policy drop;", "policy drpo;"),
        ("agent/wiring.py", "import harden", "import hadren"),
        ("agent/loop.py", "def", "fed"),
        ("rules/guard.py", "", ""),
    ],
    ids=["guard", "skeleton", "import", "syntax", "no-right-to-load-rules"],
)
def test_an_agent_that_cannot_start_leaves_all_shut(
    row: Routed, tmp_path: Path, file: str, right: str, wrong: str
) -> None:
    """L2 L7 L8 (E16b): one wrong character, or no CAP_NET_ADMIN."""
    root = tmp_path / "program"
    root.mkdir()
    for each in PROGRAMS:
        copy = shutil.copytree if (ROOT / each).is_dir() else shutil.copy
        copy(ROOT / each, root / each)
    text = (root / file).read_text()
    assert right in text
    (root / file).write_text(text.replace(right, wrong) if right else text)
    rights = [] if right else ["setpriv", "--bounding-set=-net_admin"]
    with namespaces.inside(row.router):
        agent = subprocess.run(
            [*rights, "/usr/bin/python3", "-I", str(root), "firewallvm"],
            check=False,
            capture_output=True,
            timeout=PATIENCE,
        )
    assert agent.returncode != 0, agent.stderr
    assert not passed(row)
    if file == "agent/wiring.py":
        forwarding(row, "1")  # the guard and the closed rules stand alone
        assert not passed(row)


def test_without_an_agent_only_forwarding_is_missing(row: Routed) -> None:
    """The positive control of the test before."""
    assert not passed(row)
    forwarding(row, "1")
    assert passed(row)
