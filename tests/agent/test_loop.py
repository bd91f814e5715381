# SPDX-License-Identifier: GPL-2.0-or-later
"""The loop applies what is true now, in an order that never opens too much.

The agent runs here as it does in a domain, among fakes: a FirewallVM with two
clients whose lists are one rule each.
"""

import gc
import math
import selectors
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from errno import EIO, ENODEV
from functools import partial
from ipaddress import ip_address
from itertools import permutations

import pytest

from agent.crowd import SAID
from agent.keys import TROUBLE
from agent.loop import INSPECT
from agent.ports import LiveFlow, NetlinkError
from rules.facts import Client, Uplink
from rules.model import Address
from rules.objects import IP
from tests.agent.fakes import World, rest

A, B = "10.137.0.5", "10.138.0.7"
B6 = "fd09:24ef:4179::a8a:7"
HTTPS = "action=accept dst4=192.0.2.0/24 proto=tcp dstports=443-443"
NAMED = "action=accept dsthost=a.example"
STATUS = "/ravelin/status"
HANDLED = f"/qubes-firewall-handled/{A}"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """Give the signals back to the runner of the tests."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


def uplink(world: World) -> None:
    world.db.put("/qubes-ip", "10.137.0.9")
    world.db.put("/qubes-gateway", "10.137.0.1")
    world.db.put("/qubes-netvm-gateway", "10.137.0.9")
    world.db.put("/qubes-primary-dns", "10.139.1.1")


def client_a(world: World) -> None:
    world.db.put("/ravelin/vif/vif1.0", f"mac=00:16:3e:5e:6c:00 ip={A}")


def client_b(world: World) -> None:
    world.db.put("/ravelin/vif/vif2.0", f"mac=00:16:3e:5e:6c:00 ip={B} ip6={B6}")


def ready_world() -> World:
    world = World()
    uplink(world)
    client_a(world)
    client_b(world)
    world.db.commit(A, HTTPS)
    world.db.commit(B, NAMED)
    world.db.commit(B6, NAMED)
    world.links.appear("eth0", 2)
    world.links.appear("vif1.0", 11)
    world.links.appear("vif2.0", 12)
    return world


@pytest.fixture
def world() -> World:
    return ready_world()


def in_force(world: World) -> object:
    """Return all that the kernel was made to be."""
    attached = {client.vif: gateways for client, gateways in world.links.attached}
    return world.firewall.content, world.links.routing, attached


def state(world: World) -> dict[str, str]:
    words = world.db.told(STATUS)
    assert words
    return dict(word.split("=") for word in words.split())


def flow(destination: str) -> LiveFlow:
    dst = ip_address(destination)
    return LiveFlow(ip_address(A), dst, 6, 443, None, dst, b"")


def test_clients_get_their_rules_and_the_status_says_so(world: World) -> None:
    world.play()

    assert world.firewall.client_chains() == {
        "q_10-137-0-5": [
            (
                "ct original ip daddr 192.0.2.0/24 meta l4proto 6 th dport 443"
                ' accept comment "rule 0"'
            ),
            'goto refuse comment "default"',
        ],
        "q_10-138-0-7": ['goto refuse comment "default"'],
        "q_fd09-24ef-4179--a8a-7": ['goto refuse comment "default"'],
    }
    said = state(world)
    assert (said["state"], said["clients"], said["waiting"]) == ("open", "2", "1")
    assert world.notifier.said == ["ready"]


def test_effects_come_in_the_order_that_is_closed_in_between(world: World) -> None:
    world.play()

    effects = world.effects
    order = [
        "guard",
        "rules",
        "flush 10.137.0.5",
        "route",
        "up eth0",
        "up vif1.0",
        f"tell {STATUS}",
        "ready",
        f"tell {HANDLED}",
    ]
    first = [effects.index(effect) for effect in order]
    last_rules = len(effects) - 1 - effects[::-1].index("rules")
    assert first == sorted(first)
    assert last_rules < effects.index("up eth0")


def test_when_a_link_comes_up_the_rules_speak_of_it_already(world: World) -> None:
    """At the start, for a client that comes later, and for links that are made anew.

    The guard would drop what came too early, so in the kernel only a packet that is
    lost would tell.
    """
    seen: list[tuple[str, int, bool]] = []
    attach, connect = world.links.attach, world.links.connect

    def attached(client: Client, gateways: Iterable[Address]) -> None:
        known = world.firewall.elements(IP, "clients")
        there = f"{client.index} . {client.ip}" in known
        seen.append((client.vif, client.index, there))
        attach(client, gateways)

    def connected(uplink: Uplink, *, pinned: bool) -> None:
        there = str(uplink.index) in world.firewall.elements(IP, "up")
        guarded = "guard" in world.effects
        seen.append((uplink.name, uplink.index, there and guarded))
        connect(uplink, pinned=pinned)

    def newcomer() -> None:
        world.db.put("/ravelin/vif/vif3.0", "mac=00:16:3e:5e:6c:01 ip=10.137.0.6")
        world.links.appear("vif3.0", 13)

    def anew() -> None:
        world.effects.clear()
        world.links.appear("eth0", 22)
        world.links.appear("vif1.0", 21)

    world.links.attach = attached  # type: ignore[method-assign]
    world.links.connect = connected  # type: ignore[method-assign]
    world.play(newcomer, anew)

    links = [("eth0", 2), ("vif1.0", 11), ("vif2.0", 12), ("vif3.0", 13)]
    links += [("eth0", 22), ("vif1.0", 21)]
    assert seen == [(name, index, True) for name, index in links]


def test_what_happens_first_makes_no_difference() -> None:
    def vif(name: str, index: int) -> Callable[[World], None]:
        return lambda world: world.links.appear(name, index)

    def both_lists(world: World) -> None:
        world.db.commit(A, HTTPS)
        world.db.commit(B, NAMED)
        world.db.commit(B6, NAMED)

    def both_clients(world: World) -> None:
        client_a(world)
        client_b(world)

    def both_vifs(world: World) -> None:
        vif("vif1.0", 11)(world)
        vif("vif2.0", 12)(world)

    events = [uplink, both_clients, both_lists, vif("eth0", 2), both_vifs]
    wanted = ready_world()
    wanted.play()

    for order in permutations(events):
        world = World()
        world.play(*(partial(event, world) for event in order))
        assert in_force(world) == in_force(wanted)
        assert state(world)["hash"] == state(wanted)["hash"]


def test_events_that_come_twice_change_nothing(world: World) -> None:
    def again() -> None:
        client_a(world)
        world.db.put("/qubes-ip", "10.137.0.9")
        world.links.changed = True

    def check_and_again() -> None:
        world.effects.clear()
        again()

    world.play(check_and_again)

    assert set(world.effects) <= {"route"}


def test_while_nothing_happens_it_only_looks_whether_the_rules_are_its_own(
    world: World,
) -> None:
    def forget() -> None:
        world.effects.clear()

    world.play(forget, rest, rest, rest)

    assert world.effects == []
    assert world.script.waits == [INSPECT] * 5


def test_a_client_with_too_many_flows_is_held_named_and_let_go(world: World) -> None:
    """By the next look, each time, and nobody else notices."""
    seen: list[tuple[dict[str, str], str | None]] = []

    def crowd() -> None:
        world.conntrack.live = [flow("192.0.2.1")] * (world.conntrack.most * 6 // 10)

    def quiet() -> None:
        note()
        world.conntrack.live.clear()

    def note() -> None:
        held = world.firewall.elements("inet ravelin-guard", "held")
        seen.append((dict(held), world.db.told(TROUBLE)))

    world.play(crowd, quiet, note)

    assert seen == [({"11": ""}, f"{A}: {SAID}"), ({}, None)]
    assert not [effect for effect in world.effects if effect.startswith("cut")]


def flushed(world: World) -> None:
    """Do what ``nft flush ruleset`` does."""
    world.effects.clear()
    world.firewall.content.clear()
    world.firewall.kinds.clear()
    world.firewall.tampered = True


def test_rules_that_somebody_else_changed_are_loaded_anew(world: World) -> None:
    wanted = ready_world()
    wanted.play()

    world.play(partial(flushed, world), rest, rest)

    assert world.effects[0] == "rules"
    assert "guard" in world.effects
    assert world.firewall.content.items() >= wanted.firewall.content.items()


def test_it_does_not_forget_that_rules_are_to_be_loaded_anew(world: World) -> None:
    def refuse() -> None:
        flushed(world)
        world.firewall.refuses = lambda script: "add table" in script

    def accept() -> None:
        world.firewall.refuses = lambda _: False

    world.play(refuse, accept, rest, rest)

    assert world.firewall.elements("ip qubes", "up") == {"2": ""}


def test_an_agent_waits_for_qubesdb_and_touches_nothing_before(world: World) -> None:
    world.db.up = False

    def come() -> None:
        assert world.effects == []
        world.db.up = True

    world.play(rest, come)

    assert world.script.waits[:2] == [0.5, 0.5]
    assert world.notifier.said == ["ready"]


def test_a_lost_qubesdb_changes_nothing_in_the_kernel(world: World) -> None:
    def lose() -> None:
        broken(world)
        world.effects.clear()

    world.play(lose, rest, rest)

    assert world.effects == []
    assert world.script.waits[-2:] == [0.5, 0.5]


def broken(world: World) -> None:
    world.db.fail()
    world.script.watch(1_000_002, lambda: True)


def healed(world: World) -> None:
    world.db.up = True
    world.script.watch(1_000_002, world.db.ready)


def test_after_a_reconnect_all_is_read_anew(world: World) -> None:
    """What changed meanwhile fired no event."""

    def change() -> None:
        world.db.commit(A, "action=accept")
        world.db.drop("/ravelin/vif/vif2.0")
        world.db.drop(f"/qubes-firewall/{B}/")
        world.db.drop(f"/qubes-firewall/{B}")
        healed(world)

    world.play(partial(broken, world), change)

    assert world.firewall.client_chains() == {
        "q_10-137-0-5": ['accept comment "rule 0"', 'goto refuse comment "default"']
    }


def test_a_list_that_is_gone_after_a_reconnect_denies(world: World) -> None:
    def change() -> None:
        world.db.drop(f"/qubes-firewall/{A}/")
        world.db.drop(f"/qubes-firewall/{A}")
        healed(world)

    world.conntrack.live = [flow("192.0.2.1")]
    world.play(partial(broken, world), change)

    chains = world.firewall.client_chains()
    assert chains["q_10-137-0-5"] == ['goto refuse comment "default"']
    assert world.conntrack.live == []
    assert world.db.told(f"/ravelin/error/{A}") == "no rules committed yet"


def test_the_uplink_is_followed_while_qubesdb_is_away(world: World) -> None:
    world.play(partial(broken, world), lambda: world.links.vanish("eth0"), rest, rest)

    assert world.firewall.elements("ip qubes", "up") == {}


def test_names_are_followed_while_qubesdb_is_away(world: World) -> None:
    address = ip_address("198.51.100.1")

    def answer() -> None:
        world.names.answer("a.example", address)

    world.play(partial(broken, world), answer, rest)

    assert "198.51.100.1" in str(world.firewall.client_chains()["q_10-138-0-7"])


def test_a_deadline_that_passes_while_qubesdb_is_away_does_not_spin(
    world: World,
) -> None:
    def soon() -> None:
        broken(world)
        world.names.deadline = world.script.now + 0.2

    world.play(soon, rest, rest, rest)

    assert world.script.turns < 30
    assert world.script.waits[1:3] == [pytest.approx(0.2), pytest.approx(0.3)]


def test_what_qubesdb_sends_with_an_answer_is_not_left_lying(world: World) -> None:
    """An event that came with an answer makes no descriptor readable."""

    def commit_later() -> None:
        world.db.meanwhile = [lambda: None] * 3 + [
            lambda: world.db.commit(A, "action=accept")
        ]
        world.script.watch(1_000_002, lambda: False)
        world.links.vanish("vif2.0")

    world.play(commit_later)

    assert "accept" in world.firewall.client_chains()["q_10-137-0-5"][0]


def test_lists_are_acknowledged_after_they_are_enforced(world: World) -> None:
    def tighten() -> None:
        world.conntrack.live = [flow("192.0.2.1")]
        world.effects.clear()
        world.db.commit(A, "action=drop")

    world.play(tighten)

    wanted = ["rules", f"cut {A}", f"tell {STATUS}", f"tell {HANDLED}"]
    assert [e for e in world.effects if e in wanted] == wanted
    assert world.db.told(HANDLED) == "2"


def test_a_list_of_nobody_is_acknowledged_too(world: World) -> None:
    world.play(partial(world.db.commit, "10.137.0.99", HTTPS))

    assert world.db.told("/qubes-firewall-handled/10.137.0.99") == "1"
    assert "q_10-137-0-99" not in world.firewall.client_chains()


def test_a_counter_of_a_client_without_a_list_is_removed(world: World) -> None:
    def forget() -> None:
        world.db.drop(f"/qubes-firewall/{B}/")
        world.db.drop(f"/qubes-firewall/{B}")

    world.play(forget)

    assert world.db.told(f"/qubes-firewall-handled/{B}") is None


@pytest.mark.parametrize("what", ["vif2.0", "eth0", "route", "events"])
def test_a_netlink_error_is_retried_until_it_passes(world: World, what: str) -> None:
    wanted = ready_world()
    wanted.play()
    world.links.refuses[what] = NetlinkError(ENODEV, "gone")

    world.play(rest, world.links.refuses.clear, rest)

    assert in_force(world) == in_force(wanted)
    assert world.script.waits[0] == 0.5
    assert world.db.told(HANDLED) == "1"


def test_a_vif_that_fails_keeps_no_other_client_waiting(world: World) -> None:
    world.links.refuses["vif1.0"] = NetlinkError(EIO, "no such key")

    world.play(rest)

    assert {client.vif for client, _ in world.links.attached} == {"vif2.0"}


def test_rules_are_not_forgotten_over_a_netlink_error(world: World) -> None:
    """The list came with the error: its flows are cut, and dom0 hears of it."""

    def tighten() -> None:
        world.conntrack.live = [flow("192.0.2.1")]
        world.conntrack.refuses = NetlinkError(EIO, "busy")
        world.db.commit(A, "action=drop")

    def pass_by() -> None:
        assert world.db.told(HANDLED) == "1"
        world.conntrack.refuses = None

    world.play(tighten, rest, pass_by)

    assert world.conntrack.live == []
    assert world.db.told(HANDLED) == "2"


def test_events_during_a_retry_do_not_spin(world: World) -> None:
    def both() -> None:
        world.links.refuses["route"] = NetlinkError(EIO, "busy")
        world.links.vanish("vif2.0")
        world.db.put("/qubes-mac", "00:16:3e:5e:6c:01")
        world.names.news = True

    world.play(both, rest, rest, world.links.refuses.clear)

    assert world.script.turns < 40


def test_a_guard_that_the_kernel_refuses_keeps_the_uplink_down(world: World) -> None:
    world.firewall.refuses = lambda script: "egress-" in script

    def check() -> None:
        assert world.links.connected == []
        world.firewall.refuses = lambda _: False

    world.play(rest, check)

    assert [found.name for found, _ in world.links.connected] == ["eth0"]


def test_a_ruleset_that_the_kernel_refuses_is_tried_again(world: World) -> None:
    def refuse() -> None:
        world.firewall.refuses = lambda script: "goto q_10-137-0-5" in script
        world.db.drop("/ravelin/vif/vif1.0")
        world.db.put("/ravelin/vif/vif3.0", f"mac=00:16:3e:5e:6c:00 ip={A}")
        world.links.appear("vif3.0", 13)

    def accept() -> None:
        assert world.firewall.elements("ip qubes", "clients") == {}
        assert world.db.told(HANDLED) == "1"
        world.firewall.refuses = lambda _: False

    world.play(refuse, rest, accept)

    assert set(world.firewall.elements("ip qubes", "clients")) == {
        f"12 . {B}",
        f"13 . {A}",
    }


def test_sighup_reads_everything_anew(world: World) -> None:
    def silently() -> None:
        world.db.store.write(f"/qubes-firewall/{A}/0000", b"action=accept")
        world.effects.clear()
        signal.raise_signal(signal.SIGHUP)

    world.play(silently)

    assert "accept" in world.firewall.client_chains()["q_10-137-0-5"][0]
    assert world.notifier.said == ["ready", "reloading", "ready"]
    assert [e for e in world.effects if e in {"reloading", "rules", "ready"}] == [
        "reloading",
        "rules",
        "ready",
    ]


def test_a_reload_without_qubesdb_ends_when_it_is_back(world: World) -> None:
    def hang_up() -> None:
        broken(world)
        signal.raise_signal(signal.SIGHUP)

    def check() -> None:
        assert world.notifier.said == ["ready", "reloading"]
        healed(world)

    world.play(hang_up, rest, check)

    assert world.notifier.said == ["ready", "reloading", "ready"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_leaves_everything_in_place(
    world: World, number: signal.Signals
) -> None:
    def stop() -> None:
        world.effects.clear()
        signal.raise_signal(number)

    world.play(stop, lambda: pytest.fail("it goes on"))

    assert world.effects == []


def test_signals_arrive_after_a_collection_of_garbage(world: World) -> None:
    def collect() -> None:
        gc.collect()

    world.play(collect)

    assert world.script.turns < 20


def test_signs_of_life_are_given_while_nothing_happens(world: World) -> None:
    world.notifier.period = 10.0
    world.notifier.due = world.script.now + 10.0

    world.play(*[rest] * 15)

    assert world.notifier.said == ["ready", "alive", "alive", "alive"]


def test_signs_of_life_are_given_while_qubesdb_is_away(world: World) -> None:
    world.db.up = False
    world.notifier.period = 1.0
    world.notifier.due = world.script.now + 1.0

    world.play(*[rest] * 6)

    assert world.notifier.said.count("alive") == 3


def test_names_are_asked_again_when_there_is_a_way_out(world: World) -> None:
    world.links.vanish("eth0")

    world.play(lambda: world.links.appear("eth0", 2))

    assert world.names.hurried == 1
    assert world.names.wanted == {"a.example"}


def test_a_name_that_moves_moves_its_rules_and_flows(world: World) -> None:
    old, new = ip_address("198.51.100.1"), ip_address("198.51.100.2")
    stale = LiveFlow(ip_address(B), old, 6, 443, None, old, b"")
    world.names.known["a.example"] = frozenset({old})
    world.conntrack.live = [stale]

    def move() -> None:
        world.conntrack.live = [stale]
        world.names.answer("a.example", new)

    world.play(move)

    assert world.conntrack.live == []
    assert str(new) in world.firewall.client_chains()["q_10-138-0-7"][0]
    assert world.db.told(f"/dns/{B}/a.example") == str(new)


def test_without_a_list_a_client_is_denied_and_told(world: World) -> None:
    world.db.drop(f"/qubes-firewall/{A}/")
    world.db.drop(f"/qubes-firewall/{A}")

    world.play()

    chains = world.firewall.client_chains()
    assert chains["q_10-137-0-5"] == ['goto refuse comment "default"']
    assert world.db.told(f"/ravelin/error/{A}") == "no rules committed yet"


def test_an_error_goes_when_the_list_is_fine_again(world: World) -> None:
    world.db.commit(A, "action=perhaps")

    world.play(partial(world.db.commit, A, HTTPS))

    assert world.db.told(f"/ravelin/error/{A}") is None


def test_disposables_leave_nothing_behind(world: World) -> None:
    """A thousand came and went; the agent holds what it held before."""

    def live(number: int) -> None:
        ip = f"10.138.{number // 250}.{number % 250}"
        name = f"vif{number}.0"
        world.db.put(f"/ravelin/vif/{name}", f"mac=00:16:3e:5e:6c:00 ip={ip}")
        world.db.commit(ip, f"action=accept dsthost=h{number}.example")
        world.links.appear(name, 100 + number)

    def die(number: int) -> None:
        ip = f"10.138.{number // 250}.{number % 250}"
        world.db.drop(f"/ravelin/vif/vif{number}.0")
        world.links.vanish(f"vif{number}.0")
        world.db.drop(f"/qubes-firewall/{ip}/")
        world.db.drop(f"/qubes-firewall/{ip}")

    ready = ready_world()
    ready.play()
    before = sizes(ready)
    numbers = range(1000, 1060)
    steps = [partial(step, number) for number in numbers for step in (live, die)]
    world.play(*steps)

    assert sizes(world) == before


def sizes(world: World) -> dict[str, int]:
    """Return how much each dictionary and set of the agent holds."""
    found = {}
    agent = world.agent
    parts = (agent.programs, agent.database, agent.enforcer, agent.network, agent)
    for part in (*parts, agent.cutter):
        for name in type(part).__slots__:
            value = getattr(part, name)
            if isinstance(value, dict | set | frozenset | list):
                found[f"{type(part).__name__}.{name}"] = len(value)
    found["keys"] = world.db.store.count("/")
    found["kernel"] = len(world.firewall.content)
    return found


def test_without_anything_to_wait_for_it_waits_for_a_signal(world: World) -> None:
    """With the selector of the product: a wait for ever is one it can do."""
    selector = world.agent._selector = selectors.DefaultSelector()
    ends = [socket.socketpair() for _ in range(3)]
    world.links.fileno = ends[0][0].fileno  # type: ignore[method-assign]
    world.names.fileno = ends[1][0].fileno  # type: ignore[method-assign]
    world.db.fileno = ends[2][0].fileno  # type: ignore[method-assign]

    def last() -> float:
        signal.raise_signal(signal.SIGTERM)
        return math.inf

    world.names.next_deadline = last  # type: ignore[method-assign]
    world.agent.run()

    assert world.notifier.said == ["ready"]
    selector.close()
    for one, other in ends:
        one.close()
        other.close()
