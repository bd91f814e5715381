# SPDX-License-Identifier: GPL-2.0-or-later
"""Elements that are sent as messages are those that nft would have made of the text."""

import json
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from agent.elements import Elements
from agent.nft import Nft
from agent.ports import FirewallError
from rules.compile import compile_client
from rules.facts import Client, Facts, Uplink
from rules.flows import BY_RULES, CLIENT_DNS, OWN_TRAFFIC, PING
from rules.ground import Ground
from rules.guard import GUARD_TEXT
from rules.model import Action
from rules.objects import GUARD, IP, Key, Map, Ruleset, Set
from rules.ruleset import closed, ruleset
from rules.skeleton import SKELETON_TEXT
from rules.transaction import Edit, difference, steps

Shell = Callable[[str], str]

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("net")]

CLIENT = Client(
    "vif1.0",
    300,
    "00:16:3e:5e:6c:00",
    ip_address("10.137.0.5"),  # type: ignore[arg-type]
    ip_address("fd09:24ef:4179::a89:5"),  # type: ignore[arg-type]
)
UPLINK = Uplink(
    "eth0",
    2,
    own=frozenset(map(ip_address, ("10.138.0.2", "fd09:24ef:4179::a8a:2"))),
)
ALLOWED = frozenset({PING, BY_RULES, CLIENT_DNS, OWN_TRAFFIC})
WANTED = ruleset(
    ALLOWED,
    Facts(
        clients=(CLIENT,),
        uplinks=(UPLINK,),
        dns={ip_address("10.139.1.1"): ip_address("192.0.2.53")},
        connected=frozenset(CLIENT.addresses),
    ),
)


def programs() -> Ruleset:
    found: dict[Key, object] = {}
    for address in CLIENT.addresses:
        found |= compile_client(address, Ground((), Action.DROP))
    return found  # type: ignore[return-value]


def elements(sh: Shell) -> dict[tuple[str, str, str], list[str]]:
    """Return what nft reads in every set and map."""
    entries = json.loads(sh("nft -j list ruleset"))["nftables"]
    found = [entry.get("set") or entry.get("map") for entry in entries]
    return {
        (each["family"], each["table"], each["name"]): sorted(
            map(json.dumps, each.get("elem", ()))
        )
        for each in found
        if each
    }


def begin(nft: Nft) -> None:
    nft.load(GUARD_TEXT + SKELETON_TEXT + difference(None, closed()))
    nft.load(difference({}, programs()))


def in_steps(old: Ruleset, new: Ruleset) -> tuple[Edit, ...]:
    """Return the edits; what only libnftables can say is not among them."""
    plain = {
        key
        for key, content in new.items()
        if isinstance(content, Set | Map)
        and "interval" not in content.declaration
        and key.name != "dns"
    }
    found = steps({k: old[k] for k in plain}, {k: new[k] for k in plain})
    assert found is not None
    return found.edits


def test_every_plain_set_and_map_of_a_domain_holds_the_same_as_from_text(
    sh: Shell,
) -> None:
    nft = Nft()
    begin(nft)
    nft.load(difference(closed(), WANTED))
    by_text = elements(sh)
    sh("nft flush ruleset")
    begin(nft)

    edits = in_steps(closed(), WANTED)
    left = {k: WANTED[k] for k in WANTED if k not in {edit.key for edit in edits}}
    nft.load(difference({k: closed()[k] for k in left}, left))
    Elements().put(edits)

    assert len(edits) > 15
    assert elements(sh) == by_text


def test_and_nothing_is_left_when_they_are_taken_out(sh: Shell) -> None:
    nft = Nft()
    begin(nft)
    before = elements(sh)
    Elements().put(in_steps(closed(), WANTED))
    assert elements(sh) != before

    Elements().put(in_steps(WANTED, closed()))

    assert elements(sh) == before


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(Edit(Key(GUARD, "nobody"), (), ("5",)), id="no such set"),
        pytest.param(Edit(Key(IP, "up"), ("7",), ()), id="no such element"),
        pytest.param(Edit(Key(IP, "up"), (), ("10.0.0.1 . 5",)), id="too long"),
        pytest.param(
            Edit(Key(IP, "clients"), (), ("5 . 10.0.0.1 : goto q_none",)),
            id="no such chain",
        ),
    ],
)
def test_a_refused_batch_changes_nothing_and_the_next_is_heard(
    sh: Shell, wrong: Edit
) -> None:
    """Wherever in the batch it stands."""
    begin(Nft())
    before = elements(sh)
    socket = Elements()
    good = Edit(Key(IP, "up"), (), ("5", "6"))

    for batch in ([wrong, good], [good, wrong], [good, wrong, good]):
        with pytest.raises(FirewallError, match="elements: "):
            socket.put(batch)
        assert elements(sh) == before

    socket.put([good])
    assert elements(sh) != before


def test_as_many_as_there_may_be_in_one_transaction(sh: Shell) -> None:
    begin(Nft())
    many = tuple(f"{n} . 00:16:3e:5e:6c:00 . fd00::{n:x}" for n in range(1, 501))

    Elements().put([Edit(Key(GUARD, "clients6"), (), many)])

    assert len(elements(sh)["inet", "ravelin-guard", "clients6"]) == 500


def test_ours_are_not_taken_for_somebody_elses(sh: Shell) -> None:
    nft = Nft()
    begin(nft)
    nft.touched()

    nft.put([Edit(Key(IP, "up"), (), ("5",))])
    assert not nft.touched()

    sh("nft add element ip qubes up { 6 }")
    assert nft.touched()
