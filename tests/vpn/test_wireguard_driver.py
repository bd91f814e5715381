# SPDX-License-Identifier: GPL-2.0-or-later
"""The driver keeps a tunnel, and never has more than one way out carried."""

import math
from base64 import b64encode
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network

import pytest

from agent.names import Names
from rules.facts import Carried, Facts, Gateway, Uid, Uplink
from tests.vpn.fake_device import DAEMON, FakeDevice
from vpn.endpoints import UDP
from vpn.lookup import Lookup
from vpn.probe import Probe
from vpn.states import VPN, Progress, Seen, Tunnel, observe
from vpn.wireguard_driver import LOOK_IN_HURRY, WireguardDriver
from vpn.wireguard_health import SILENCE
from vpn.wireguard_profile import parse

PRIVATE, PUBLIC, OTHER = (b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))
PROFILE = f"""[Interface]
PrivateKey = {PRIVATE}
Address = 10.64.0.2/32
[Peer]
PublicKey = {PUBLIC}
AllowedIPs = 0.0.0.0/0
Endpoint = 203.0.113.1:51820
[Peer]
PublicKey = {OTHER}
AllowedIPs = 0.0.0.0/0
Endpoint = 203.0.113.2:443
"""
WITH_DNS = PROFILE.replace("[Peer]", "DNS = 10.64.0.1\n[Peer]", 1)
ONE = PROFILE.partition("[Peer]\nPublicKey = " + OTHER)[0]
NAMED = ONE.replace("203.0.113.1", "vpn.example")
FIRST, SECOND = ip_address("203.0.113.1"), ip_address("203.0.113.2")
RESOLVER, VIRTUAL = ip_address("10.139.1.1"), ip_address("10.139.1.1")
ETH0 = Uplink(
    "eth0",
    2,
    frozenset({ip_address("10.137.0.5")}),
    gateways=(ip_address("10.138.0.1"),),
)
FACTS = Facts(
    uplinks=(ETH0,),
    dns={VIRTUAL: RESOLVER},
    resolvers=frozenset({RESOLVER}),
    configured=True,
    kind=Gateway.TUNNEL,
)


class FakeNames(Names):
    """Names that are known or not; ``asked`` are those that were wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, frozenset[object]] = {}
        self.wanted: frozenset[str] = frozenset()
        self.asked: list[str] = []

    def want(self, names: frozenset[str]) -> None:
        self.asked += sorted(names - self.wanted)
        self.wanted = names

    def handle(self) -> bool:
        return False

    def next_deadline(self) -> float:
        return math.inf

    def waiting(self) -> int:
        return len(self.wanted - self.known.keys())

    def answers(self) -> dict[str, frozenset[object]]:  # type: ignore[override]
        return {name: self.known.get(name, frozenset()) for name in self.wanted}

    def problems(self) -> dict[str, str]:
        return dict.fromkeys(self.wanted & self.known.keys(), "no such name")


class FakeProbe(Probe):
    """A probe that is answered when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asking: tuple[object, ...] = ()
        self.answered = False

    def begin(self, resolvers: tuple[object, ...]) -> None:  # type: ignore[override]
        self.asking = resolvers

    def stop(self) -> None:
        self.asking = ()

    def next_deadline(self) -> float:
        return math.inf

    def handle(self) -> bool:
        answered, self.answered = self.answered, False
        return answered


@dataclass
class Loop:
    """What the agent's loop does with a driver, and a clock for both."""

    profile: str = ONE
    now: float = 1000.0
    facts_: Facts = FACTS
    state: Tunnel = Tunnel.DOWN
    device: FakeDevice = field(default_factory=FakeDevice)
    names: FakeNames = field(default_factory=FakeNames)
    probe: FakeProbe = field(default_factory=FakeProbe)
    seen: Facts = field(default_factory=Facts)
    turns: int = 0

    def __post_init__(self) -> None:
        profile = parse(self.profile.encode(), "config")
        lookup = Lookup(self.names, self.clock)
        self.driver = WireguardDriver(
            profile, self.device, self.clock, lookup, self.probe
        )

    def clock(self) -> float:
        return self.now

    def turn(self) -> None:
        """See, decide, enforce and follow, until nothing more is due now."""
        again = True
        for _ in range(20):
            if not again:
                return
            self.turns += 1
            self.seen = self.driver.facts(self.facts_)
            self.state = VPN.step(self.state, observe(self.seen, self.driver.progress))
            self.driver.follow(self.state.value, self.seen)
            again = self.driver.handle()
            if self.driver.progress is Progress.PROVEN and self.state is Tunnel.UP:
                again = False
        assert not again, "it never comes to rest"

    def run(self, seconds: float) -> None:
        """Let time pass; the driver is called when it wants to be."""
        until = self.now + seconds
        while (due := self.driver.next_deadline()) <= until:
            self.now = max(self.now, due)
            if self.driver.handle():
                self.turn()
            assert self.driver.next_deadline() > self.now or self.turn() is None
        self.now = until
        if self.driver.handle():
            self.turn()

    def comes_up(self) -> None:
        self.turn()
        self.run(LOOK_IN_HURRY)
        self.device.says(handshake=1, received=92, sent=180)
        self.run(LOOK_IN_HURRY)
        assert self.state is Tunnel.UP


def carried(loop: Loop) -> set[object]:
    return {x.endpoint for x in loop.seen.carried}


def test_the_one_way_out_is_the_server_by_the_daemons_user() -> None:
    loop = Loop()

    loop.turn()

    way = Carried(Uid(DAEMON), UDP, (FIRST, 51820))
    assert loop.seen.carried == {way}
    assert loop.state is Tunnel.CONNECTING


def test_the_device_is_told_only_after_the_kernel_was() -> None:
    """Facts first: nothing is sent to an address that is not carried yet."""
    loop = Loop()
    loop.driver.facts(loop.facts_)
    loop.driver.handle()

    assert loop.device.told == []
    loop.turn()
    assert loop.device.told[0].target is not None


def test_clients_have_the_tunnel_its_address_and_its_resolver() -> None:
    loop = Loop(WITH_DNS)
    loop.turn()

    tunnel = loop.seen.tunnel
    assert tunnel is not None
    assert (tunnel.name, tunnel.index) == loop.device.link
    assert tunnel.own == {ip_address("10.64.0.2")}
    assert tunnel.networks == {ip_network("0.0.0.0/0")}
    assert loop.seen.dns[VIRTUAL] == ip_address("10.64.0.1")
    assert loop.seen.resolvers == {ip_address("10.64.0.1")}


def test_without_resolvers_of_the_provider_clients_have_none() -> None:
    """D10: those of the uplink are never a second choice."""
    loop = Loop()
    loop.turn()

    assert loop.seen.dns == {}
    assert loop.seen.resolvers == frozenset()


def test_a_handshake_alone_does_not_open_the_tunnel_if_somebody_can_be_asked() -> None:
    loop = Loop(WITH_DNS)
    loop.turn()
    loop.device.says(handshake=1, received=92, sent=180)
    loop.run(LOOK_IN_HURRY)
    assert loop.state is Tunnel.CONNECTING
    assert loop.probe.asking == (ip_address("10.64.0.1"),)

    loop.probe.answered = True
    loop.run(LOOK_IN_HURRY)

    assert loop.state is Tunnel.UP
    assert loop.probe.asking == ()


def test_a_handshake_without_data_is_given_up_and_named() -> None:
    loop = Loop(WITH_DNS)
    loop.turn()
    loop.device.says(handshake=1, received=92, sent=180)
    loop.run(LOOK_IN_HURRY)

    loop.run(6)

    assert "a handshake, but nothing comes back" in loop.driver.trouble()
    assert loop.state is Tunnel.CONNECTING


def test_a_server_without_an_answer_is_named_and_the_next_one_tried() -> None:
    loop = Loop(PROFILE)
    loop.turn()

    loop.run(5.5)

    assert loop.driver.trouble().startswith("203.0.113.1:51820: no handshake")
    assert carried(loop) == {(SECOND, 443)}
    assert loop.device.told[-1].target is not None
    assert loop.device.told[-1].target.address == SECOND


def test_a_server_that_the_network_does_not_reach_is_told_from_a_silent_one() -> None:
    """What was said before this attempt was about another."""
    loop = Loop()
    loop.device.said = 3
    loop.turn()
    loop.run(5.1)
    silent = loop.driver.trouble()
    loop.run(1.0)
    loop.device.said += 1

    loop.run(10.5)

    assert silent.endswith("not reachable, or a key is wrong on one side")
    assert loop.driver.trouble() == (
        "203.0.113.1:51820: no handshake: the network says that it cannot be reached"
    )


def test_while_it_pauses_nothing_is_carried_and_the_device_has_no_peer() -> None:
    loop = Loop()
    loop.turn()

    loop.run(5.1)

    assert loop.seen.carried == frozenset()
    assert loop.device.told[-1].peer is None
    loop.run(1.0)
    assert carried(loop) == {(FIRST, 51820)}


def test_a_dead_server_is_not_asked_in_a_hurry_for_ever() -> None:
    """Nothing busy-loops: an hour of failure is a few attempts each minute."""
    loop = Loop()
    loop.turn()

    loop.run(3600)

    attempts = [x for x in loop.device.told if x.peer is not None]
    assert 60 <= len(attempts) <= 200
    assert loop.turns < 1000


def test_a_daemon_that_ends_is_started_again_and_clients_wait() -> None:
    loop = Loop()
    loop.comes_up()

    loop.device.ends()
    assert loop.driver.handle()
    assert loop.driver.progress is Progress.TRYING
    loop.turn()

    assert loop.state is Tunnel.LOST
    assert "has ended" in loop.driver.trouble()
    loop.run(2)
    assert loop.device.started == 2
    loop.device.says(handshake=2, received=92, sent=180)
    loop.run(1)
    assert loop.state is Tunnel.UP
    assert loop.driver.trouble() == ""


def test_a_daemon_that_always_ends_is_started_ever_more_seldom() -> None:
    loop = Loop()
    loop.turn()

    for _ in range(600):
        if loop.device.ready:
            loop.device.ends()
        if loop.driver.handle():
            loop.turn()
        loop.run(1)

    assert 5 <= loop.device.started <= 20


def test_a_device_that_is_gone_is_made_again_and_told_again() -> None:
    loop = Loop()
    loop.comes_up()
    told = len(loop.device.told)

    loop.device.link = None
    loop.device.ends()
    loop.turn()
    assert loop.state is Tunnel.LOST
    assert loop.seen.tunnel is None
    loop.run(3)
    loop.turn()

    assert loop.device.made == 2
    assert loop.seen.tunnel is not None
    assert len(loop.device.told) > told


def test_a_device_that_is_there_again_at_once_is_told_again() -> None:
    """As the kernel's is, which has no daemon whose end is seen."""
    loop = Loop(device=FakeDevice(at_once=True))
    loop.comes_up()
    told = len(loop.device.told)

    loop.device.link = None
    loop.run(3)
    loop.turn()

    assert loop.device.made == 2
    assert len(loop.device.told) > told
    assert loop.device.told[-1].target is not None


def test_a_device_that_cannot_be_made_is_named_and_tried_again() -> None:
    refusing = FakeDevice(refuses=OSError(1, "not permitted"))
    loop = Loop(device=refusing)
    loop.turn()
    assert "not permitted" in loop.driver.trouble()
    assert loop.seen.tunnel is None

    refusing.refuses = None
    loop.run(3)
    loop.turn()

    assert loop.seen.tunnel is not None


def test_data_that_nobody_answers_means_the_tunnel_is_lost() -> None:
    loop = Loop()
    loop.comes_up()

    loop.device.says(handshake=1, received=92, sent=5000)
    loop.run(6)
    loop.device.says(handshake=1, received=92, sent=9000)
    loop.run(SILENCE + 5)

    assert loop.state is Tunnel.LOST
    assert "nothing comes any more" in loop.driver.trouble()


def test_an_idle_tunnel_whose_server_is_gone_is_lost_within_a_minute() -> None:
    """X2: it is asked after half a minute, and the question goes unanswered."""
    loop = Loop(WITH_DNS)
    loop.turn()
    loop.device.says(handshake=1, received=92, sent=180)
    loop.probe.answered = True
    loop.run(LOOK_IN_HURRY)
    assert loop.state is Tunnel.UP

    loop.run(31)
    assert loop.probe.asking == (ip_address("10.64.0.1"),)
    loop.device.says(handshake=1, received=92, sent=180 + 80)
    loop.run(5)
    loop.run(SILENCE)

    assert loop.state is Tunnel.LOST


def test_a_peer_that_is_heard_elsewhere_is_steered_back() -> None:
    """The set of what is carried does not grow by it."""
    loop = Loop()
    loop.comes_up()
    before = loop.seen.carried
    elsewhere = replace(loop.device.told[-1].target, address=SECOND)  # type: ignore[type-var]

    loop.device.says(handshake=1, received=500, sent=180, endpoint=elsewhere)
    loop.run(1)
    for _ in range(9):  # each answer of the device is one
        loop.turn()

    assert [target.address for target in loop.device.steered] == [FIRST]
    assert loop.seen.carried == before


def test_another_uplink_has_to_prove_the_tunnel_anew() -> None:
    loop = Loop()
    loop.comes_up()

    other = replace(ETH0, index=9)
    loop.facts_ = replace(FACTS, uplinks=(other,))
    loop.turn()

    assert loop.state is Tunnel.LOST
    loop.device.says(handshake=3, received=92, sent=180)
    loop.run(1)
    assert loop.state is Tunnel.UP


def test_without_an_uplink_the_device_has_no_peer() -> None:
    loop = Loop()
    loop.comes_up()

    loop.facts_ = replace(FACTS, uplinks=())
    loop.turn()

    assert loop.state is Tunnel.DOWN
    assert loop.device.told[-1].peer is None
    assert loop.seen.carried == frozenset()


def test_a_name_is_asked_over_the_uplink_and_then_no_more() -> None:
    """D5: the agent alone asks, and its question is carried only meanwhile."""
    loop = Loop(NAMED)
    loop.turn()
    assert carried(loop) == {(RESOLVER, 53)}
    assert loop.names.asked == ["vpn.example"]

    loop.names.known["vpn.example"] = frozenset({SECOND})
    assert loop.driver.handle()
    loop.turn()

    assert carried(loop) == {(SECOND, 51820)}
    assert loop.names.wanted == frozenset()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("10.0.0.1", "10.0.0.1 is private, which an answer from outside cannot be"),
        ("10.137.0.5", "10.137.0.5 is an address of this domain"),
        ("2001:db8::1", "2001:db8::1 cannot be reached, the uplink has no IPv6"),
    ],
)
def test_an_answer_that_cannot_be_a_server_is_named_and_not_used(
    answer: str, reason: str
) -> None:
    loop = Loop(NAMED)
    loop.turn()

    loop.names.known["vpn.example"] = frozenset({ip_address(answer)})
    loop.driver.handle()
    loop.turn()

    assert loop.driver.trouble() == f"vpn.example: {reason}"
    assert loop.seen.carried == frozenset()


def test_a_name_that_nobody_knows_is_named() -> None:
    loop = Loop(NAMED)
    loop.turn()

    loop.names.known["vpn.example"] = frozenset()
    loop.driver.handle()

    assert loop.driver.trouble() == "vpn.example: no such name"


def test_a_name_that_nobody_answers_does_not_hang() -> None:
    loop = Loop(NAMED)
    loop.turn()

    loop.run(20)

    assert loop.driver.trouble() == "vpn.example: no answer in time"


def test_a_failed_server_is_not_asked_for_again_at_once() -> None:
    loop = Loop(NAMED)
    loop.names.known["vpn.example"] = frozenset({SECOND})
    loop.turn()

    loop.run(8)

    assert loop.names.asked == ["vpn.example"]
    loop.run(120)
    assert len(loop.names.asked) > 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Address = 10.137.0.5", "Address 10.137.0.5 is an address of this domain"),
        ("DNS = 10.137.0.5", "DNS 10.137.0.5 is an address of this domain"),
        ("DNS = 10.138.0.9", "DNS 10.138.0.9 is in the network of the clients"),
    ],
)
def test_addresses_that_are_taken_here_are_an_error(line: str, reason: str) -> None:
    loop = Loop(ONE.replace("[Peer]", f"{line}\n[Peer]", 1))
    loop.facts_ = replace(FACTS, internal=frozenset({"10.138.0.0/16"}))
    loop.turn()

    assert loop.state is Tunnel.ERROR
    assert loop.driver.trouble() == reason
    assert loop.seen.carried == frozenset()


@pytest.mark.parametrize("line", ["Address = 203.0.113.1", "DNS = 203.0.113.1"])
def test_a_server_that_the_profile_puts_into_its_own_tunnel_is_named(line: str) -> None:
    """What goes to it would be routed into the tunnel, and only be silence."""
    loop = Loop(ONE.replace("[Peer]", f"{line}\n[Peer]", 1))
    loop.turn()

    assert "203.0.113.1 is an Address or DNS of the profile" in loop.driver.trouble()
    assert loop.seen.carried == frozenset()
    assert loop.device.told == []


def test_a_profile_without_keepalive_gets_one() -> None:
    """Without, nothing would make the first handshake, nor keep the way open."""
    loop = Loop()
    loop.turn()

    peer = loop.device.told[-1].peer
    assert peer is not None
    assert peer.keepalive == 25


def test_the_report_names_the_server_and_holds_no_secret() -> None:
    loop = Loop()
    loop.comes_up()

    report = loop.driver.report()

    assert report["server"] == "203.0.113.1:51820"
    assert (report["rx"], report["tx"]) == ("92", "180")
    for form in (str(report), repr(loop.driver), loop.driver.trouble()):
        assert PRIVATE not in form
        assert (b"\1" * 32).hex() not in form


def test_seen_is_what_the_table_knows() -> None:
    loop = Loop()

    assert observe(loop.driver.facts(FACTS), loop.driver.progress) is Seen.TRYING
