# SPDX-License-Identifier: GPL-2.0-or-later
"""A change of rules cuts exactly the live flows that it forbids.

Classes: L12 and, of E1f and E18b, the rules' side (leaks.md, 2).  Six flows of the
client and six of its neighbour live all the time; each sends a message every 10 ms
and counts the echoes.  The positive control is that they count all of them until
and unless they are forbidden, and that they live again when they are allowed.

Limits: ICMP errors about a flow that was cut reach its client, who must learn of it.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count

import pytest

from controller.lab.addresses import WEB
from tests.lab.ends import Kind
from tests.lab.prober import Flow, Result
from tests.lab.sniffer import ICMP, ICMP6, TCP, UDP, Packet, Sniffer, together
from tests.leaks.chain import Chain, appvm, running
from tests.leaks.judge import Wires

pytestmark = pytest.mark.kernel

Ends = tuple[Kind, int]
KINDS: tuple[Kind, ...] = ("tcp", "udp", "ping")
FLOWS = [(kind, version) for kind in KINDS for version in (4, 6)]
PROTOCOLS = {
    ("tcp", 4): TCP,
    ("tcp", 6): TCP,
    ("udp", 4): UDP,
    ("udp", 6): UDP,
    ("ping", 4): ICMP,
    ("ping", 6): ICMP6,
}
WORDS: dict[Kind, str] = {
    "tcp": "proto=tcp dstports=7",
    "udp": "proto=udp dstports=7",
    "ping": "proto=icmp",
}
ECHO = (8, 0, 128, 129)
SHORT = 0.2  # seconds: the flows go on while a capture ends
RULES = [f"accept dsthost={WEB[v == 6]} {WORDS[kind]}" for kind, v in FLOWS]


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with running(appvm("work", *RULES), appvm("other", *RULES)) as made:
        yield made


@contextmanager
def alive(chain: Chain, *clients: str) -> Iterator[dict[str, dict[Ends, Flow]]]:
    """Keep six flows of each client alive; they start and end at the same time."""
    found = {
        client: {
            (kind, version): Flow(chain.net(client), kind, WEB[version == 6])
            for kind, version in FLOWS
        }
        for client in clients
    }
    every = [flow for flows in found.values() for flow in flows.values()]
    with ThreadPoolExecutor(len(every)) as pool:
        try:
            list(pool.map(Flow.__enter__, every))
            yield found
        finally:
            list(pool.map(Flow.__exit__, every))


def belongs(packet: Packet, flow: Ends) -> bool:
    """Whether a packet carries a message of the flow, or an echo of one."""
    kind, version = flow
    return (
        packet.source is not None
        and packet.source.version == version
        and packet.marked
        and packet.protocol == PROTOCOLS[flow]
        and (kind != "ping" or packet.icmp_type in ECHO)
    )


def heard(wire: Sniffer, flow: Ends, times: int) -> None:
    """Wait until a flow's client has heard that many echoes."""
    heard = count()
    wire.wait(
        lambda p: not p.outgoing and belongs(p, flow) and next(heard) >= times - 1
    )


@contextmanager
def forbidding(chain: Chain, where: str, flow: Ends) -> Iterator[None]:
    """Forbid a flow at sys-firewall, or at sys-net for all of sys-firewall."""
    rule = RULES[FLOWS.index(flow)]
    if where == "work":
        number = FLOWS.index(flow)
        chain.firewall("work", "del", number=number)
        yield
        chain.firewall("work", "add", *rule.split(), number=number)
    else:
        denied = rule.replace("accept", "drop")
        chain.firewall("sys-firewall", "add", *denied.split(), number=0)
        yield
        chain.firewall("sys-firewall", "del", number=0)


@pytest.mark.parametrize("where", ["work", "sys-firewall"])
@pytest.mark.parametrize("flow", FLOWS, ids=lambda f: f"{f[0]}{f[1]}")
def test_a_change_cuts_what_it_forbids_and_nothing_else(
    chain: Chain, flow: Ends, where: str
) -> None:
    with (
        alive(chain, "work", "other") as flows,
        Sniffer(chain.net("work"), "eth0", drain=SHORT) as before,
    ):
        heard(before, flow, 5)
        with forbidding(chain, where, flow):
            wires = Wires(chain, drain=SHORT)
            after = Sniffer(chain.net("work"), "eth0", drain=SHORT)
            beside = Sniffer(chain.net("other"), "eth0", drain=SHORT)
            with together(wires, after, beside):
                for each in FLOWS:
                    if each != flow:
                        heard(after, each, 20)
                    if each != flow or where == "work":
                        heard(beside, each, 20)
            late = [p for p in after.packets if not p.outgoing and belongs(p, flow)]
            assert late == []
            if where == "sys-firewall":
                assert [p for p in wires.outer if belongs(p, flow)] == []
    cut: dict[tuple[str, Kind, int], Result] = {}
    kept: dict[tuple[str, Kind, int], Result] = {}
    for client, probes in flows.items():
        for ends, probe in probes.items():
            gone = ends == flow and (client == "work" or where == "sys-firewall")
            (cut if gone else kept)[client, *ends] = probe.result
    assert all(result.lost > 0 or result.broken for result in cut.values())
    assert {each: result.lost for each, result in kept.items()} == dict.fromkeys(
        kept, 0
    )


def test_what_is_allowed_again_lives_again(chain: Chain) -> None:
    with (
        alive(chain, "work") as found,
        Sniffer(chain.net("work"), "eth0", drain=SHORT) as wire,
    ):
        for flow in FLOWS:
            heard(wire, flow, 3)
    assert [flow.result.lost for flow in found["work"].values()] == [0] * len(FLOWS)


def test_denying_everything_cuts_everything(chain: Chain) -> None:
    """L12 (E1f): of a client that had it all, not of the other."""
    with (
        alive(chain, "work", "other") as flows,
        Sniffer(chain.net("work"), "eth0", drain=SHORT) as before,
    ):
        for flow in FLOWS:
            heard(before, flow, 1)
        chain.firewall("work", "add", "drop", number=0)
        after = Sniffer(chain.net("work"), "eth0", drain=SHORT)
        beside = Sniffer(chain.net("other"), "eth0", drain=SHORT)
        with together(after, beside):
            heard(beside, FLOWS[0], 20)
        late = [p for p in after.packets if not p.outgoing and p.source in WEB]
        assert late == []
        address, address6 = chain.ip("work")
        for source in (address, address6):
            version = ["-f", f"ipv{source.version}"]
            listed = chain.run(
                "sys-firewall", "conntrack", "-L", *version, "-s", str(source)
            )
            assert listed == ""
        chain.firewall("work", "del", number=0)
    cut, kept = ([f.result for f in each.values()] for each in flows.values())
    assert all(result.lost > 0 or result.broken for result in cut)
    assert [result.lost for result in kept] == [0] * len(FLOWS)
