# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wanted becomes claims, all of it, and what cannot is a doubt."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from controller.claimed import claims, doubts
from controller.scene import Scene, leads_on, lists, world
from proof.bytecode import Bytecode, Element, Set
from proof.bytecode import Place as Chain
from proof.claims import (
    Alone,
    Asserted,
    Claim,
    Expect,
    NoMoreThanList,
)
from proof.routes import Link, LocalAddress, Routing
from proof.snapshot import Snapshot
from proof.world import Client, Place
from rules.model import Action, Policy, Rule, SpecialTarget
from tests.controller.scenes import SERIALS, nothing, scene

MAC = "00:16:3e:5e:6c:00"
WWW = {"www.example.com": frozenset({ip_address("198.51.100.80")})}
TOR = """\
[domains.tor]
personality = "tor"
netvm = "net"
[domains.anon]
netvm = "tor"
"""


def nets(of: Scene, *missing: str) -> dict[str, object]:
    return {d.name: nothing() for d in of.domains if d.name not in missing}


def claimed(of: Scene, *missing: str) -> dict[Claim, str | None]:
    reasons = dict.fromkeys(missing, "gone")
    known = world(of, nets(of, *missing))  # type: ignore[arg-type]
    return {asked.claim: asked.words for asked in claims(of, known, reasons)}


def test_a_world_has_who_is_linked_where_with_its_addresses() -> None:
    home = scene()
    known = world(home, nets(home))  # type: ignore[arg-type]

    assert known.places.keys() == {"net", "fw"}
    assert known.places["net"].uplinks == {"eth0": None}
    assert known.places["fw"].uplinks == {"eth0": "net"}
    assert known.places["fw"].carriers is None
    work, four = (home.domains.named(name) for name in ("work", "four"))
    assert known.places["fw"].clients == {
        "vif2.0": Client("work", (work.ip4, work.ip6), MAC),
        "vif3.0": Client("four", (four.ip4,), MAC),
    }
    assert "vault" in known.others


def test_a_tor_carries_in_a_daemon_and_a_card_is_an_uplink_by_its_name() -> None:
    home = scene(TOR.replace('netvm = "net"', 'netvm = "card"') + CARD)
    known = world(home, nets(home))  # type: ignore[arg-type]

    assert known.places["tor"].carriers == frozenset()
    assert known.places["card"].uplinks == {"enp3s0": None}


CARD = """\
[domains.card]
personality = "netvm"
uplink = "enp3s0"
"""


def test_lists_are_those_of_the_ip_versions_a_domain_has() -> None:
    home = scene(names=WWW)
    work, four = (lists(home, home.domains.named(name)) for name in ("work", "four"))

    assert [network for m in work[4].matches for network in m.networks or ()] == [
        ip_network("198.51.100.80/32")
    ]
    assert (work[6].matches, four.keys()) == ((), {4})


def test_everything_implied_is_claimed_of_everybody() -> None:
    found = [str(claim) for claim in claimed(scene())]

    for name in ("fw", "work", "four"):
        assert f"{name} reaches no more than its list accepts" in found
        assert f"{name} reaches all that its list accepts" in found
        assert f"nobody outside opens a flow to {name}" in found
    for name in ("net", "fw"):
        assert f"nothing passes {name} from one uplink to another" in found
    assert "vault reaches nothing" in found
    of_tor = [str(claim) for claim in claimed(scene(TOR), "nobody")]
    assert "nothing passes tor from one uplink to another" in of_tor


def asserts(*keys: str) -> str:
    return "\n".join(("[[assert]]", *keys, ""))


def test_an_assertion_is_claimed_in_the_words_of_the_file() -> None:
    home = scene(
        asserts('from = "work"', 'to = "192.0.2.0/24"', 'expect = "blocked"')
        + asserts('from = "work"', 'proto = "udp"', 'expect = "only-through fw"')
        + asserts('from = "vault"', 'expect = "blocked"')
    )
    found = {words: claim for claim, words in claimed(home).items() if words}

    assert sorted(found, key=lambda words: words[-10:]) == [
        "work to 192.0.2.0/24: blocked, as line 14 asserts",
        "work to anywhere udp: only-through fw, as line 18 asserts",
        "vault to anywhere: blocked, as line 22 asserts",
    ]
    vault, blocked, through = found.values()
    assert blocked == Asserted("work", (ip_network("192.0.2.0/24"),))
    assert isinstance(through, Asserted)
    assert (through.expect, through.protocols) == ("fw", frozenset({17}))
    assert {network.version for network in through.to} == {4, 6}
    assert not any(ip_address("10.137.0.9") in network for network in through.to)
    assert vault == Alone("vault")


def test_what_must_be_reached_is_asked_for_in_the_versions_a_domain_has() -> None:
    (found,) = (
        claim
        for claim, words in claimed(
            scene(asserts('from = "four"', 'proto = "tcp"', 'expect = "reach"'))
        ).items()
        if words
    )

    assert isinstance(found, Asserted)
    assert found.expect is Expect.REACH
    assert {network.version for network in found.to} == {4}


def test_a_ping_is_all_of_icmp_that_must_be_reached() -> None:
    ping = ('from = "work"', 'to = "fw"', 'proto = "icmp"')
    found = claimed(
        scene(asserts(*ping, 'expect = "reach"') + asserts(*ping, 'expect = "blocked"'))
    )

    assert [c.pings for c, words in found.items() if words and "line" in words] == [
        *(True, False)
    ]


NAMED = asserts('from = "work"', 'to = "www.example.com"', 'expect = "reach"')


@pytest.mark.parametrize(
    ("home", "missing", "said"),
    [
        (
            scene(NAMED),
            {},
            "www.example.com has no known address",
        ),
        (
            scene(NAMED, names=WWW),
            {"net": "gone"},
            "net, which is on the way, could not be read",
        ),
        (
            scene(asserts('from = "vault"', 'expect = "reach"')),
            {},
            "vault has no netvm",
        ),
        (
            scene(asserts('from = "four"', 'to = "2001:db8::1"', 'expect = "reach"')),
            {},
            "there is no address of which four could send packets",
        ),
    ],
)
def test_an_assertion_that_is_about_nothing_is_a_doubt_and_no_claim(
    home: Scene, missing: dict[str, str], said: str
) -> None:
    assert not any(claimed(home, *missing).values())
    assert said in [why for _, why in doubts(home, missing)]


def test_who_could_not_be_read_or_is_not_linked_is_a_doubt() -> None:
    home = scene()
    unlinked = Scene(home.domains, {"fw": 1, "four": 3}, {}, 0)

    assert SERIALS.keys() - unlinked.serials == {"work"}
    assert [*doubts(home, {})] == []
    assert [*doubts(unlinked, {"vault": "no such file"})] == [
        ("work is as it should be", "it is not linked to its netvm"),
        ("vault is as it should be", "no such file"),
    ]
    assert NoMoreThanList("work", {}) not in claimed(unlinked)


def test_nobody_is_claimed_to_get_out_while_the_way_is_shut() -> None:
    text = asserts('from = "work"', 'to = "192.0.2.1"', 'expect = "reach"')
    home = replace(scene(text), closed={"net": "blocked"})
    found = [str(claim) for claim in claimed(home)]

    assert "work reaches no more than its list accepts" in found
    assert not any("reaches all" in each for each in found)
    assert [*doubts(home, {})] == [
        *(
            (f"{name} reaches all that its list accepts", "net is blocked")
            for name in ("fw", "work", "four")
        ),
        ("work to 192.0.2.1: reach, as line 14 asserts", "net is blocked"),
    ]


def test_of_what_a_daemon_is_handed_nothing_is_claimed_but_that_it_stays_there() -> (
    None
):
    linked = replace(scene(TOR), serials={**SERIALS, "tor": 4, "anon": 5})
    found = [str(claim) for claim in claimed(linked)]

    assert "tor reaches all that its list accepts" in found
    assert "anon reaches all that its list accepts" not in found
    assert "anon reaches no more than its list accepts" in found
    assert "nothing of anon leaves but through tor" in found


def with_dns(version: int, *leads: str) -> Snapshot:
    """Return a network whose rules lead questions to these resolvers."""
    place = Chain(2 if version == 4 else 10, "qubes", "dns")
    elements = tuple(Element(b"key", value=ip_address(a).packed) for a in leads)
    code = Bytecode(1, sets={place: Set(place, 0, 4, elements=elements)})
    return Snapshot(code, Routing((), (), (), ()), {}, ())


def test_who_may_ask_for_names_may_ask_whom_the_rules_lead_to() -> None:
    home = scene()
    asks = replace(
        home.domains.named("work"),
        policy=Policy((Rule(Action.ACCEPT, special=SpecialTarget.DNS),)),
    )
    before = lists(home, asks)[4].matches[0].networks or ()
    after = lists(home, asks, with_dns(4, "10.64.0.1"))[4].matches[0].networks or ()

    assert {*after} - {*before} == {ip_network("10.64.0.1/32")}


def addressed(*addresses: str) -> Snapshot:
    """Return a network whose eth0 has these addresses."""
    link = Link(2, "eth0", 0, 1, up=True, kind="", controller=None, xdp=False)
    own = tuple(LocalAddress(2, ip_address(a), 128) for a in addresses)
    return Snapshot(Bytecode(1), Routing((link,), own, (), ()), {}, ())


def test_a_domain_leads_on_in_the_versions_of_its_way_out() -> None:
    both = addressed("192.0.2.1", "2001:db8::1")
    local = addressed("192.0.2.1", "fe80::1")
    for net, carriers, found in (
        (both, None, {4, 6}),
        (local, None, {4}),
        (local, frozenset({"wg0"}), set()),
    ):
        place = Place(net, {}, {"eth0": None}, carriers)
        assert {v for v in (4, 6) if leads_on(place, v)} == found
