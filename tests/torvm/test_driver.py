# SPDX-License-Identifier: GPL-2.0-or-later
"""The driver among fakes: what it adds to the facts, and when it lets tor out."""

import math
import os
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest

from rules.facts import Carried, Client, Facts, Gateway, Redirect, Uid, Uplink
from rules.virtual_dns import VIRTUAL4, VIRTUAL6
from tests.torvm.fakes import FakeBerth, FakeNames, FakeTor
from torvm.answering import PATIENCE, QUIET
from torvm.bridges import parse
from torvm.daemon import LOOK, Daemon
from torvm.desk import AT
from torvm.driver import PULSE, TorDriver
from torvm.fronts import Fronts
from torvm.given import Given
from torvm.listeners import FIRST
from torvm.outward import Outward
from torvm.port import GoneError, TorBackend
from torvm.reception import Reception
from torvm.said import (
    Bootstrap,
    ByProxy,
    Circuit,
    CircuitsSeen,
    Clock,
    Established,
    Reconfigured,
    RelaysSeen,
    Stream,
)
from torvm.states import Seen
from torvm.torrc import Torrc
from torvm.transports import Transports

TOR, TRANSPORT, TCP = 61000, 62000, 6
A = Client("vif1.0", 1, "00:16:3e:5e:6c:01", IPv4Address("127.0.0.5"))
B = Client("vif2.0", 2, "00:16:3e:5e:6c:02", IPv4Address("127.0.0.6"))
OUT = Facts(
    clients=(A, B),
    uplinks=(
        Uplink(
            "eth0",
            9,
            frozenset({ip_address("10.137.0.2")}),
            gateways=(ip_address("10.137.0.1"),),
        ),
    ),
    here=frozenset({ip_address("10.137.0.2")}),
    resolvers=frozenset({ip_address("10.139.1.1")}),
    kind=Gateway.PROXY,
)
OFFLINE = replace(OUT, uplinks=())
DEADLINE = 20.0  # seconds; only a failing test waits that long
RELAY = (ip_address("203.0.113.11"), 5000)
SILENT = "the bridges' transport runs, but does not answer"


@dataclass
class World:
    """A driver with a tor that runs, and what the loop would do with it."""

    folder: Path
    given: Given = field(default_factory=Given)
    words: dict[str, str] = field(default_factory=dict)
    now: float = 100.0
    taken: str = ""  # the vif of a client whose control port somebody else has

    def __post_init__(self) -> None:
        self.tor = FakeTor(uid=TOR)
        self.berth, self.berth2 = FakeBerth(uid=TOR), FakeBerth(uid=TRANSPORT)
        torrc = Torrc(str(self.folder), "/state")
        daemon = Daemon(torrc, self.berth, self.connect, self.clock)
        self.programs = tuple(
            Transports(program, names, self.berth2, "/state", self.clock)
            for program, names in self.given.transports.items()
        )
        fronts = Fronts(self.clock, FakeNames())
        outward = Outward(self.programs, fronts, self.folder)
        self.ports: dict[str, int] = {}
        reception = Reception(self.clock, self.listen)
        self.driver = TorDriver(self.given, daemon, outward, self.clock, reception)
        self.there = False

    def clock(self) -> float:
        return self.now

    def connect(self, _path: str, _cookie: str) -> TorBackend:
        if not self.there or self.tor.gone:
            raise ConnectionRefusedError
        return self.tor

    def listen(self, client: Client) -> socket.socket:
        """Listen on the loopback interface in the place of a vif."""
        if client.vif == self.taken:
            raise OSError(98, "Address already in use")
        made = socket.create_server(("127.0.0.1", 0))
        made.setblocking(False)  # noqa: FBT003
        self.ports[client.vif] = made.getsockname()[1]
        return made

    def begin(self) -> "World":
        """dom0 speaks, a launcher comes and becomes tor."""
        self.turn()
        self.berth.come()
        self.turn()
        self.there = True
        self.now += LOOK
        return self.settle()

    def starts(self, facts: Facts, state: str) -> None:
        """Another launcher comes, and becomes another tor."""
        self.berth.leave()
        self.tor = FakeTor(uid=TOR)
        self.berth.come()
        self.turn(facts, state)
        self.now += LOOK
        self.settle(facts, state)

    def turn(self, facts: Facts = OUT, state: str = "connecting") -> Facts:
        """One turn of the agent's loop."""
        self.driver.handle()
        self.driver.told(self.words)
        found = self.driver.facts(facts)
        self.driver.follow(state, found)
        return found

    def settle(self, facts: Facts = OUT, state: str = "connecting") -> "World":
        for _ in range(6):
            self.turn(facts, state)
        return self


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path).begin()


def test_tor_alone_is_carried_and_only_tcp(world: World) -> None:
    assert world.turn().carried == {Carried(Uid(TOR), TCP, None)}


def test_names_are_asked_of_tor_and_of_nobody_on_the_uplink(world: World) -> None:
    found = world.turn()

    assert found.resolvers == {ip_address("127.0.0.1")}
    assert found.dns == {address: address for address in (*VIRTUAL4, *VIRTUAL6)}


def test_each_client_has_a_port_of_its_own(world: World) -> None:
    assert world.turn().redirects == {
        1: Redirect(FIRST, FIRST),
        2: Redirect(FIRST + 2, FIRST + 2),
    }


def test_who_is_gone_has_none(world: World) -> None:
    found = world.driver.facts(replace(OUT, clients=(B,)))

    assert found.redirects.keys() == {2}


@pytest.mark.parametrize("state", ["down", "error"])
def test_tor_is_ended_where_nothing_carries_it(world: World, state: str) -> None:
    """And the next one is held."""
    assert not world.tor.held
    world.settle(OFFLINE, state)
    assert world.tor.orders[-1] == "halt"
    assert world.turn(OFFLINE, state).redirects == {}

    world.starts(OFFLINE, state)
    assert world.tor.orders[-1] == "hold"
    assert world.tor.held
    assert not world.settle().tor.held


def test_other_guards_are_chosen_once_for_each_agent(tmp_path: Path) -> None:
    """Not each time that a tor is ended because its uplink has gone."""
    world = World(tmp_path, words={"forget": "1"}).begin()
    assert world.tor.orders.count("new guards") == 1
    world.settle(OFFLINE, "down")
    world.starts(OUT, "connecting")

    assert world.tor.orders.count("new guards") == 0


def test_who_has_ended_since_it_spoke_is_told_nothing_more(world: World) -> None:
    """It says that it has closed its ports, and ends before it is asked about them."""
    world.tor.say(Reconfigured(frozenset({"dnsport"})))
    asked = world.tor.look_at_listeners

    def ends() -> None:
        world.tor.end()
        raise GoneError("ended")

    world.tor.look_at_listeners = ends  # type: ignore[method-assign]
    assert world.driver.handle()
    world.tor.look_at_listeners = asked  # type: ignore[method-assign]

    assert world.turn().redirects == {}


def test_it_is_not_let_out_before_the_rules_stand(tmp_path: Path) -> None:
    """`follow` is called after them; `handle` and `told` alone let nothing out."""
    world = World(tmp_path)
    world.berth.come()
    world.driver.told({})
    world.driver.handle()
    world.there = True
    for _ in range(5):
        world.now += LOOK
        world.driver.handle()
        world.driver.facts(OUT)
    assert world.tor.held

    assert not world.settle().tor.held


def test_the_table_is_told_what_tor_says(world: World) -> None:
    assert world.driver.observe(OUT) is Seen.TRYING
    world.tor.say(Established(circuits=True))
    assert world.driver.handle()
    assert world.driver.observe(OUT) is Seen.READY
    assert world.driver.observe(OFFLINE) is Seen.UPLINK_LOST
    world.tor.end()
    world.driver.handle()

    assert world.driver.observe(OUT) is Seen.TRYING


def test_a_tor_that_ended_leaves_no_port(world: World) -> None:
    world.tor.end()
    world.berth.leave()
    assert world.driver.handle()

    assert world.turn().redirects == {}


def test_a_new_identity_moves_one_client(world: World) -> None:
    before = world.turn().redirects
    world.words["new-identity/127.0.0.5"] = "1"
    world.settle()
    after = world.turn().redirects

    assert after[2] == before[2]
    assert after[1] != before[1]
    assert world.driver.report()["new-identity/127.0.0.5"] == "1"
    # The same request again is none.
    assert world.settle().turn().redirects == after


def test_a_new_identity_is_given_though_the_kernel_was_not_ready(world: World) -> None:
    """A device that vanishes half-way keeps `follow` from coming (`agent.loop`)."""
    world.words[f"new-identity/{A.ip}"] = "1"
    world.driver.told(world.words)
    world.driver.facts(OUT)
    world.settle()

    assert world.turn().redirects[1] == Redirect(FIRST + 4, FIRST + 4)
    assert world.driver.report()[f"new-identity/{A.ip}"] == "1"


def test_a_request_from_before_this_agent_is_none(tmp_path: Path) -> None:
    """Its clients have other ports than with the agent before it anyway."""
    words = {"new-identity/127.0.0.5": "7"}
    world = World(tmp_path, words=words).begin()

    assert world.turn().redirects[1] == Redirect(FIRST, FIRST)


@pytest.mark.parametrize("path", ["new-identity/nobody", "new-identity/10.137.0.99"])
def test_a_request_for_nobody_changes_nothing(world: World, path: str) -> None:
    before = world.turn().redirects
    world.words[path] = "1"

    assert world.settle().turn().redirects == before


def test_circuits_are_reported_to_who_asks(world: World) -> None:
    world.tor.say(Circuit("7", "BUILT", "7"), Stream("1", "NEW", "", A.ip))
    world.tor.say(Stream("1", "SENTCONNECT", "7"))
    world.words["circuits"] = "4"
    world.settle()
    assert world.tor.orders[-1] == "circuits?"
    world.tor.say(CircuitsSeen(()))
    world.settle()

    assert world.driver.report()["circuits-serial"] == "4"


def test_with_relays_only_nothing_leaves_before_they_are_known(tmp_path: Path) -> None:
    world = World(tmp_path, words={"relays-only": "1"}).begin()
    assert world.turn().carried == frozenset()
    assert world.tor.held
    assert "relays?" in world.tor.orders
    assert world.driver.trouble() == "waits for the list of relays"
    world.tor.say(RelaysSeen(frozenset({RELAY}), frozenset()))
    world.settle()

    assert world.turn().carried == {Carried(Uid(TOR), TCP, RELAY)}
    assert not world.tor.held


def test_a_bridge_is_all_that_is_carried(tmp_path: Path) -> None:
    given = Given(bridges=parse(b"192.0.2.7:9001"))
    found = World(tmp_path, given).begin().turn()

    place = (ip_address("192.0.2.7"), 9001)
    assert found.carried == {Carried(Uid(TOR), TCP, place)}


def test_behind_a_transport_tor_itself_sends_nothing(tmp_path: Path) -> None:
    given = Given(bridges=parse(b"obfs4 192.0.2.7:443 cert=x"))
    world = World(tmp_path, given).begin()

    place = (ip_address("192.0.2.7"), 443)
    assert world.turn().carried == {Carried(Uid(TRANSPORT), TCP, place)}
    assert world.tor.held
    assert "transport" in world.driver.trouble()
    world.programs[0].ports = {"obfs4": 4711}
    world.berth2.running = True
    world.settle()
    assert not world.tor.held
    assert "transports {'obfs4': 4711}" in world.tor.orders


def test_a_transport_that_does_not_answer_is_the_cause_until_another_speaks(
    tmp_path: Path,
) -> None:
    """tor is held once there is no program, and not before."""
    given = Given(bridges=parse(b"obfs4 192.0.2.7:443 cert=x"))
    world = World(tmp_path, given).begin()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        world.programs[0].ports = {"obfs4": listening.getsockname()[1]}
        world.berth2.running = True
        world.settle()
        assert world.driver.trouble() == ""
        assert not world.tor.held
        begun = world.berth2.ended
        for wait in (QUIET, PATIENCE):
            assert world.driver.next_deadline() <= world.now + wait
            world.now += wait
            world.settle()
        assert world.driver.trouble() == SILENT
        assert not world.tor.held
        assert world.berth2.ended == begun
        world.now += PATIENCE
        world.settle()
        assert world.berth2.ended == begun + 1
        world.berth2.leave()
        world.settle()

    assert world.driver.trouble() == SILENT
    assert world.tor.gone


def test_a_proxy_is_all_that_is_carried_and_tor_knows_it(tmp_path: Path) -> None:
    words = {"proxy": "socks5://192.0.2.9:1080", "relays-only": "1"}
    world = World(tmp_path, words=words).begin()

    place = (ip_address("192.0.2.9"), 1080)
    assert world.turn().carried == {Carried(Uid(TOR), TCP, place)}
    assert b"Socks5Proxy 192.0.2.9:1080\n" in world.berth.given[0]
    assert not world.tor.held


def test_a_program_of_a_transport_is_told_the_proxy_in_place_of_tor(
    tmp_path: Path,
) -> None:
    given = Given(bridges=parse(b"obfs4 192.0.2.7:443 cert=x"))
    words = {"proxy": "http://192.0.2.9:8080"}
    world = World(tmp_path, given, words)
    world.turn()
    world.berth.come()
    world.berth2.come()
    world.turn()

    place = (ip_address("192.0.2.9"), 8080)
    assert world.turn().carried == {Carried(Uid(TRANSPORT), TCP, place)}
    assert world.berth2.env[0]["TOR_PT_PROXY"] == "http://192.0.2.9:8080"
    assert b"HTTPSProxy" not in world.berth.given[0]


def test_a_proxy_that_is_refused_starts_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, words={"proxy": "socks5://proxy.example.com:1"}).begin()

    assert world.berth.started == []
    assert world.driver.observe(OUT) is Seen.HOPELESS
    assert world.driver.trouble().startswith("proxy: expected socks4://")


def test_what_the_proxy_does_is_the_trouble(tmp_path: Path) -> None:
    world = World(tmp_path, words={"proxy": "socks5://192.0.2.9:1"}).begin()
    world.tor.say(ByProxy("does not answer"))
    world.settle()

    assert world.driver.trouble() == "the proxy does not answer"


def test_tor_is_held_until_the_name_of_a_front_is_known(tmp_path: Path) -> None:
    """Meanwhile the agent, and nobody else, may ask the uplink's resolver."""
    line = b"meek_lite 192.0.2.20:80 url=https://front.example.com/"
    world = World(tmp_path, Given(bridges=parse(line))).begin()
    world.programs[0].ports = {"meek_lite": 4711}
    world.berth2.running = True
    asked = (ip_address("10.139.1.1"), 53)
    assert world.settle().turn().carried == {
        Carried(Uid(os.getuid()), proto, asked) for proto in (6, 17)
    }
    assert world.tor.held
    assert world.driver.trouble() == "waits for a name of the bridges"
    assert (tmp_path / "transport.hosts").read_text().startswith("127.0.0.1 localhost")


def test_what_is_refused_starts_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, Given(refused="bridges:3: expected ADDRESS:PORT")).begin()

    assert world.berth.started == []
    assert world.driver.observe(OUT) is Seen.HOPELESS
    assert world.driver.trouble() == "bridges:3: expected ADDRESS:PORT"
    assert world.driver.next_deadline() == math.inf


def test_status_says_how_far_tor_is_and_what_is_wrong(world: World) -> None:
    world.tor.say(Bootstrap(45, "Asking for relay descriptors"), Clock(10800))
    world.settle()
    report = world.driver.report()

    assert report["bootstrap"] == "45"
    assert report["doing"] == "Asking for relay descriptors"
    assert report["summary"] == "45 %"
    assert world.driver.trouble() == "the clock is 3 h ahead"


def test_without_an_uplink_that_is_the_trouble(world: World) -> None:
    world.settle(OFFLINE, "down")

    assert world.driver.trouble() == "no uplink"


def test_circuits_are_counted_now_and_then(world: World) -> None:
    """Each of its events would be a turn of the loop."""
    world.tor.say(Circuit("7", "BUILT", "7"))
    assert not world.driver.handle()
    assert world.driver.report()["circuits"] == "0"
    world.now += PULSE
    assert world.driver.handle()

    assert world.driver.report()["circuits"] == "1"


def test_it_waits_without_a_deadline_in_the_past(world: World) -> None:
    """Nothing is done in a busy loop, whatever happens."""
    for facts, state in ((OUT, "connecting"), (OUT, "up"), (OFFLINE, "down")):
        world.settle(facts, state)
        assert world.driver.next_deadline() > world.now
    world.starts(OUT, "up")
    assert world.driver.next_deadline() > world.now
    world.tor.end()
    world.berth.leave()
    world.settle()
    assert world.driver.next_deadline() > world.now
    world.berth.come()
    world.settle()
    assert world.driver.next_deadline() > world.now


@pytest.fixture
def controlled(tmp_path: Path) -> Iterator[World]:
    """A tor with circuits, whose clients have control ports."""
    world = World(tmp_path, words={"control": "1", "socks": "1"}).begin()
    world.tor.say(Established(circuits=True), Bootstrap(100, "Done"))
    yield world.settle(state="up")
    world.words.clear()
    world.settle()


def ask(world: World, client: Client, *lines: str) -> socket.socket:
    place, source = ("127.0.0.1", world.ports[client.vif]), (str(client.ip), 0)
    made = socket.create_connection(place, DEADLINE, source)
    text = "".join(f"{line}\r\n" for line in ("AUTHENTICATE", *lines))
    made.sendall(text.encode())
    patience = DEADLINE
    while select.select([world.driver], [], [], patience)[0]:
        world.turn(state="up")
        patience = 0  # all that follows is there at once
    return made


def test_a_client_is_told_what_concerns_it(controlled: World) -> None:
    with ask(controlled, A, "GETINFO version net/listeners/socks", "QUIT") as made:
        said = made.makefile("rb").read().decode().split("\r\n")

    assert said == [
        "250 OK",
        "250-version=0.4.9",
        '250-net/listeners/socks="127.0.0.1:9050"',
        "250 OK",
        "250 closing connection",
        "",
    ]
    assert controlled.turn(state="up").redirects[1] == Redirect(
        FIRST, FIRST, FIRST + 1, AT
    )


def test_a_client_gives_itself_another_identity(controlled: World) -> None:
    """Nobody else, and not all at once, as tor's own signal would."""
    before = controlled.turn(state="up").redirects
    with ask(controlled, A, "SIGNAL NEWNYM", "QUIT") as made:
        said = made.makefile("rb").read().decode().split("\r\n")
    after = controlled.turn(state="up").redirects

    assert said == ["250 OK", "250 OK", "250 closing connection", ""]
    assert after[2] == before[2]
    assert after[1] != before[1]
    assert not any("NEWNYM" in order for order in controlled.tor.orders)


def test_control_ports_are_there_while_tor_is_not(controlled: World) -> None:
    controlled.tor.end()
    controlled.berth.leave()
    controlled.settle(state="lost")

    assert controlled.turn(state="lost").redirects[1] == Redirect(0, 0, 0, AT)
    with ask(controlled, A, "GETINFO status/circuit-established", "QUIT") as made:
        said = made.makefile("rb").read().decode()
    assert "250-status/circuit-established=0" in said


def test_nobody_listens_unless_the_policy_file_says_so(controlled: World) -> None:
    ask(controlled, A).close()
    del controlled.words["control"]
    controlled.settle(state="up")

    assert controlled.turn(state="up").redirects[1].control == 0
    with pytest.raises(ConnectionRefusedError):
        ask(controlled, A)


def test_who_cannot_be_answered_is_not_sent_there(controlled: World) -> None:
    """Somebody of this domain may have the port, and would answer in our place."""
    controlled.turn(replace(OUT, clients=(A,)), "up")
    controlled.taken = B.vif
    found = controlled.settle(state="up").turn(state="up").redirects
    assert (found[1].control, found[2].control) == (AT, 0)

    controlled.taken = ""
    assert controlled.turn(state="up").redirects[2].control == AT


def test_what_clients_ask_in_vain_is_reported(controlled: World) -> None:
    assert "control-refused" not in controlled.driver.report()
    ask(controlled, A, "GETINFO address", "SIGNAL HALT").close()

    assert controlled.driver.report()["control-refused"] == "2"
