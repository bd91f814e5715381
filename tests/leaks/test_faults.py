# SPDX-License-Identifier: GPL-2.0-or-later
"""More than 300 faults and changes: nothing forbidden passes, nothing allowed is lost.

One client floods what it may not reach (10000 packets a second, both families)
and keeps six flows alive that it may (TCP, UDP and ping, both families).  Classes:
L3 L4 L5 L6 L7 L10 (leaks.md, 2).  No event here cuts a flow by design; those that do
(a domain's restart, another netvm) are in `test_leak_boot`.

The judges: who counts at the flood's target, and nftables on the far end of both
uplinks, in tables of the tests' own, before any other hook.  Limits: the ends have
two processors between them, so the rate is what the machine gives.
"""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import cycle, islice

import pytest

from controller.lab.addresses import FORBIDDEN, WEB
from tests.lab.ends import Kind
from tests.lab.prober import Flood, Flow
from tests.lab.sniffer import Sniffer
from tests.leaks.chain import Chain, Voice, appvm, running
from tests.leaks.surgery import links

pytestmark = pytest.mark.kernel

KINDS: tuple[Kind, ...] = ("tcp", "udp", "ping")
WORDS = ("proto=tcp dstports=7", "proto=udp dstports=7", "proto=icmp")
RULES = [f"accept dsthost={web} {words}" for web in WEB for words in WORDS]
GATEWAYS = ("sys-firewall", "sys-net")
PORTS = {4: 9004, 6: 9006}
RATE = 5000  # packets a second of each family
JUDGE = """
table netdev judge {{
    chain seen {{
        type filter hook ingress device "{device}" priority -500;
        udp dport {{ {ports} }} counter comment "forbidden"
        ip saddr {client4} counter comment "foreign"
        ip6 saddr {client6} counter comment "foreign"
        {own} counter comment "own"
    }}
}}
"""


@dataclass(slots=True)
class Campaign:
    """The chain under load, and how many events it has gone through."""

    chain: Chain
    events: dict[str, int] = field(default_factory=dict)

    def happened(self, what: str) -> None:
        self.events[what] = self.events.get(what, 0) + 1


@pytest.fixture
def chain() -> Iterator[Chain]:
    named = "accept dsthost=changing.example.com proto=tcp dstports=443"
    clients = appvm("work", *RULES), appvm("toggled", "drop"), appvm("named", named)
    with running(*clients, log_size="1m") as made:
        for domain, own in (
            ("sys-net", "ip saddr 10.137.0.2"),
            ("", "ip saddr 192.0.2.2"),
        ):
            judge(made, domain, own)
        yield made


def judge(chain: Chain, domain: str, own: str) -> None:
    """Count at the far end of an uplink what came out of it."""
    client4, client6 = chain.ip("work")
    if domain:
        device = next(name for name in links(chain, domain) if name[:3] == "vif")
    else:
        device = "netvm2"
    text = JUDGE.format(
        device=device,
        ports=", ".join(map(str, PORTS.values())),
        client4=client4,
        client6=client6,
        own=own,
    )
    chain.run(domain or "../lab/internet", "nft", "-f", "-", feed=text)


def verdict(chain: Chain) -> list[dict[str, int]]:
    """Return what both judges have counted."""
    return [chain.counted(where) for where in ("sys-net", "../lab/internet")]


@contextmanager
def load(chain: Chain) -> Iterator[tuple[list[Flood], list[Flow]]]:
    """Six allowed flows and two forbidden floods of one client."""
    net = chain.net("work")
    flows = [Flow(net, kind, web) for web in WEB for kind in KINDS]
    floods = [
        Flood(net, chain.internet.net, to, PORTS[to.version], rate=RATE)
        for to in FORBIDDEN
    ]
    probes = [*flows, *floods]
    with ThreadPoolExecutor(len(probes)) as pool:
        try:
            list(pool.map(lambda probe: probe.__enter__(), probes))
            yield floods, flows
        finally:
            list(pool.map(lambda probe: probe.__exit__(), probes))


def reload(campaign: Campaign, times: int) -> None:
    """SIGHUP: the agent leaves QubesDB, comes back and reads everything anew."""
    for domain in islice(cycle(GATEWAYS), times):
        with Voice(campaign.chain, domain) as voice:
            campaign.chain.kill(domain, signal.SIGHUP)
            voice.wait()
        campaign.happened("SIGHUP and QubesDB anew")


def toggle(campaign: Campaign, times: int) -> None:
    """Let another client out, and not, and change its rules in between."""
    rules = ["accept", "drop proto=udp dstports=9000-9999", "accept specialtarget=dns"]
    rules += ("accept dst4=198.51.100.81", "accept dsthost=www.example.com proto=tcp")
    for rule in islice(cycle(rules), times // 2):
        for action in ("add", "del"):
            campaign.chain.firewall("toggled", action, *rule.split(), number=0)
            campaign.happened("rules of another client")


def relink(campaign: Campaign, times: int) -> None:
    """Take another client off its vif, and give it a new one."""
    for netvm in islice(cycle(("none", "sys-firewall")), times):
        campaign.chain.ask("prefs", domain="toggled", property="netvm", value=netvm)
        campaign.happened("link of another client")


@contextmanager
def renamed(campaign: Campaign, number: int) -> Iterator[None]:
    """Let a name of a client's rules mean something else, and see it enforced.

    The agent asks again when the answer is 5 seconds old; other things happen
    meanwhile.
    """
    meaning = IPv4Address("203.0.113.1") + number
    campaign.chain.internet.set_names({"changing.example.com": (meaning,)})
    yield
    with Voice(campaign.chain, "sys-firewall") as voice:
        ruleset = ("nft", "list", "ruleset")
        while str(meaning) not in campaign.chain.run("sys-firewall", *ruleset):
            voice.wait()
    campaign.happened("meaning of a name")


def stop(campaign: Campaign, times: int) -> None:
    """SIGSTOP an agent while its client's rules are written; go on later."""
    for domain in islice(cycle(GATEWAYS), times):
        campaign.chain.kill(domain, signal.SIGSTOP)
        with Sniffer(campaign.chain.net("work"), "eth0", drain=0.1) as wire:
            wire.wait(lambda packet: not packet.outgoing and packet.source in WEB)
        with Voice(campaign.chain, domain) as voice:
            campaign.chain.kill(domain, signal.SIGHUP)
            campaign.chain.kill(domain, signal.SIGCONT)
            voice.wait()
        campaign.happened("SIGSTOP")


def kill(campaign: Campaign, times: int) -> None:
    """End both agents, most often by SIGKILL; the controller starts them again."""
    for number in islice(
        cycle((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)), times
    ):
        with ExitStack() as voices:
            heard = {
                domain: voices.enter_context(Voice(campaign.chain, domain))
                for domain in GATEWAYS
            }
            for domain, voice in heard.items():
                before = campaign.chain.agent(domain)
                campaign.chain.kill(domain, number)
                while not restarted(campaign.chain, domain, before, voice.wait()):
                    pass
                campaign.happened(number.name)


def restarted(chain: Chain, domain: str, before: int, status: str) -> bool:
    """Whether a status, which may be an old one, is that of a new agent at work."""
    with suppress(LookupError):
        return chain.agent(domain) != before and "clients=0" not in status
    return False


def crowd(campaign: Campaign, times: int) -> None:
    """Fill the disk that the logs are on, and do all of it again."""
    file = campaign.chain.runtime / "log" / "filler"
    with file.open("wb", buffering=0) as filler:
        while os.fstatvfs(filler.fileno()).f_bfree:
            filler.write(bytes(4096))
        campaign.happened("full disk")
        for _ in range(times // 4):
            toggle(campaign, 2)
            reload(campaign, 2)
        kill(campaign, 1)
    file.unlink()


def test_300_events_leak_nothing_and_lose_nothing(chain: Chain) -> None:
    campaign = Campaign(chain)
    with load(chain) as (floods, flows):
        reload(campaign, 100)
        with renamed(campaign, 1):
            toggle(campaign, 100)
        with renamed(campaign, 2):
            toggle(campaign, 100)
        with renamed(campaign, 3):
            relink(campaign, 60)
        stop(campaign, 10)
        kill(campaign, 3)
        crowd(campaign, 16)
        chain.crash()
        campaign.happened("the controller, and so both agents, by SIGKILL")
        with Sniffer(chain.net("work"), "eth0", drain=0.1) as wire:
            for _ in range(2):
                wire.wait(lambda p: not p.outgoing and p.source in WEB)
        seen = verdict(chain)
    total = sum(campaign.events.values())
    assert total >= 300
    assert [flood.result.received for flood in floods] == [0, 0]
    assert all(count["forbidden"] == count["foreign"] == 0 for count in seen)
    assert all(count["own"] > 0 for count in seen)
    assert [flow.result.lost for flow in flows] == [0] * len(flows)
    assert [flow.result.broken for flow in flows] == [""] * len(flows)


def test_the_judges_count_what_is_not_forbidden(chain: Chain) -> None:
    """The positive control: the same flood, allowed, and then not translated."""
    chain.firewall("work", "add", "accept", number=0)
    (target, _) = FORBIDDEN
    flood = Flood(chain.net("work"), chain.internet.net, target, PORTS[4], rate=RATE)
    with flood, Sniffer(chain.net("work"), "eth0", drain=0.1) as wire:
        wire.wait(lambda packet: packet.port == PORTS[4])
    assert flood.result.received == flood.result.sent > 0
    assert all(count["forbidden"] > 0 for count in verdict(chain))
    chain.crash()
    for domain in GATEWAYS:
        chain.run(domain, "nft", "flush", "table", "ip", "qubes")
        chain.run(domain, "nft", "delete", "table", "ip", "qubes")
        chain.run(domain, "nft", "delete", "table", "inet", "ravelin-guard")
        chain.run(domain, "nft", "delete", "table", "netdev", "ravelin-guard")
    flood = Flood(chain.net("work"), chain.internet.net, target, PORTS[4], rate=RATE)
    with flood, Sniffer(chain.net("work"), "eth0", drain=0.1) as wire:
        wire.wait(lambda packet: packet.port == PORTS[4])
    assert all(count["foreign"] > 0 for count in verdict(chain))
