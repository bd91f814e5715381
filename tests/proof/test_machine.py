# SPDX-License-Identifier: GPL-2.0-or-later
"""What chains come to: verdicts, what is left on packets, and what is not known."""

import subprocess
from collections.abc import Iterator

import pytest

from proof import snapshot
from proof.bytecode import Bytecode, Chain, Code, Expression, Place, Rule
from proof.diagram import Node, OverrunError
from proof.explore import leaves, pick, project
from proof.fields import CT, DPORT, L4, PROTO, TRANSPORT, UNTRACKED
from proof.machine import TOO_MANY, Machine
from proof.netlink import attribute
from proof.outcome import End, Nat, Outcome, Translation
from proof.relabel import where
from proof.routes import Routing
from proof.statements import WITHIN
from proof.trace import Trace
from tests.proof.namespaces_apart import apart

NOWHERE = Routing((), (), (), ())
ENTRY = Place(2, "own", "entry")
PACED = "update @pace { iif limit rate over 1/second } drop"


@pytest.fixture
def space() -> Iterator[None]:
    with apart():
        yield


def loaded(*rules: str, next_: str = "", elements: str = "") -> Machine:
    lines = [
        "add table ip own",
        "add set ip own pace { type iface_index; flags dynamic,timeout; timeout 1m; }",
        f"add element ip own pace {{ {elements} }}" if elements else "",
        "add chain ip own next",
        f"add rule ip own next {next_}" if next_ else "",
        "add chain ip own entry { type nat hook prerouting priority 0; }",
        *(f"add rule ip own entry {rule}" for rule in rules),
    ]
    subprocess.run(["nft", "-f", "-"], input="\n".join(lines), text=True, check=True)
    found = snapshot.here()
    return Machine(found.bytecode, found.routing, 4)


def left(machine: Machine, node: Node, by: set[End]) -> Node:
    """Return the packets that leave so, told for each value of the doubts."""
    outcomes = (o for o in leaves(node) if isinstance(o, Outcome))
    return where(machine.space, node, {o for o in outcomes if o.end in by})


def may(machine: Machine, node: Node, by: set[End]) -> Node:
    """Return the packets that leave so for some value of the doubts."""
    space = machine.space
    return project(space, left(machine, node, by), machine.doubts, space.either)


def must(machine: Machine, node: Node, by: set[End]) -> Node:
    """Return the packets that leave so whatever the doubts are."""
    space = machine.space
    return project(space, left(machine, node, by), machine.doubts, space.both)


def ends(machine: Machine) -> set[tuple[End, tuple[Nat, ...]]]:
    outcomes = leaves(machine.hooked(ENTRY))
    return {(o.end, o.env.nat) for o in outcomes if isinstance(o, Outcome)}


@pytest.mark.kernel
@pytest.mark.usefixtures("space")
@pytest.mark.parametrize(
    ("rule", "effect"),
    [
        pytest.param(
            "tcp dport 80 dnat to 192.0.2.7:8080",
            Nat(Translation.DESTINATION, (192, 0, 2, 7), (0x1F, 0x90)),
            id="dnat to a port",
        ),
        pytest.param(
            "tcp dport 80 dnat to 192.0.2.7",
            Nat(Translation.DESTINATION, (192, 0, 2, 7)),
            id="dnat",
        ),
        pytest.param(
            "tcp dport 80 redirect to :9040",
            Nat(Translation.REDIRECT, None, (0x23, 0x50)),
            id="redirect",
        ),
    ],
)
def test_a_translation_accepts_and_stays_on_the_packet(rule: str, effect: Nat) -> None:
    machine = loaded(rule)

    assert ends(machine) == {(End.ACCEPT, (effect,)), (End.ACCEPT, ())}
    translated = where(
        machine.space,
        machine.hooked(ENTRY),
        {
            o
            for o in leaves(machine.hooked(ENTRY))
            if isinstance(o, Outcome) and o.env.nat
        },
    )
    packet = pick(machine.space, translated, liked={L4: [1], TRANSPORT: [20]})
    assert packet is not None
    assert (packet[PROTO], packet[DPORT]) == (6, 80)


@pytest.mark.kernel
@pytest.mark.usefixtures("space")
def test_a_doubt_is_named_and_keeps_its_guard() -> None:
    machine = loaded("tcp dport 80 limit rate 1/second drop")

    result = machine.hooked(ENTRY)

    names = [name for name in machine.doubts.values() if "limit" in name]
    assert names == ["ip own entry handle 4: limit"]
    perhaps = may(machine, result, {End.DROP})
    assert must(machine, result, {End.DROP}) is machine.space.false
    packet = pick(machine.space, perhaps)
    assert packet is not None
    assert (packet[PROTO], packet[DPORT]) == (6, 80)


@pytest.mark.kernel
@pytest.mark.usefixtures("space")
@pytest.mark.parametrize(
    ("rule", "end", "doubts"),
    [
        ("limit rate 1/second drop", End.DROP, 0),
        ("limit rate over 1/second drop", End.ACCEPT, 0),
        (PACED, End.ACCEPT, 0),
        ("update @pace { iif limit rate 1/second } drop", End.DROP, 0),
        ("update @pace { iif counter } drop", End.ACCEPT, 1),
    ],
)
def test_a_packet_that_comes_alone_is_within_a_limit(
    rule: str, end: End, doubts: int
) -> None:
    """But what else packets that came before decide is not known of it."""
    trace = Trace(loaded(rule), {})

    list(trace.hooked(ENTRY))

    assert (trace.outcome.end, len(trace.doubts)) == (end, doubts)


@pytest.mark.kernel
@pytest.mark.usefixtures("space")
def test_each_visit_to_a_limit_has_a_doubt_of_its_own() -> None:
    machine = loaded("jump next", "jump next", "drop")
    subprocess.run(
        ["nft", "add rule ip own next limit rate 1/second accept"], check=True
    )
    found = snapshot.here()
    machine = Machine(found.bytecode, found.routing, 4)

    machine.hooked(ENTRY)

    assert len([name for name in machine.doubts.values() if "limit" in name]) == 2


@pytest.mark.kernel
@pytest.mark.usefixtures("space")
def test_a_limit_of_a_base_chain_is_exceeded_or_not_at_every_visit() -> None:
    """Its packets pass it once, so what is found out about the chain stays true."""
    machine = loaded("limit rate over 1/second drop")

    twice = machine.chain(ENTRY), machine.chain(ENTRY)

    assert twice[0] is twice[1]
    assert [n for n in machine.doubts.values() if n.endswith(TOO_MANY)] == [
        "ip own entry handle 4: a limit is exceeded"
    ]
    assert must(machine, twice[0], {End.DROP}) is machine.space.false
    assert may(machine, twice[0], {End.DROP}) is machine.space.true


@pytest.mark.kernel
@pytest.mark.usefixtures("space")
def test_each_visit_to_a_limit_of_another_chain_has_a_doubt_of_its_own() -> None:
    machine = loaded("jump next", "jump next", next_="limit rate over 1/second counter")

    machine.hooked(ENTRY)

    assert len([n for n in machine.doubts.values() if n.endswith(TOO_MANY)]) == 2


@pytest.mark.kernel
@pytest.mark.usefixtures("space")
@pytest.mark.parametrize(
    ("rule", "elements", "doubt"),
    [
        pytest.param(PACED, "", TOO_MANY, id="a limit for each key"),
        pytest.param(PACED, "1 limit rate over 9/hour", TOO_MANY, id="other limits"),
        pytest.param(PACED, "1", "dynset", id="an element without a limit"),
        pytest.param(PACED, "1 limit rate 1/hour", "dynset", id="the other way round"),
        pytest.param(PACED.replace("over ", ""), "", WITHIN, id="within a rate"),
        pytest.param("update @pace { iif } drop", "", "dynset", id="no limit at all"),
    ],
)
def test_a_set_that_packets_change_is_a_limit_only_if_it_has_nothing_else(
    rule: str, elements: str, doubt: str
) -> None:
    machine = loaded(rule, elements=elements)

    result = machine.hooked(ENTRY)

    (found,) = (name for name in machine.doubts.values() if "own" in name)
    assert found.endswith(f": {doubt}")
    assert must(machine, result, {End.DROP}) is machine.space.false


@pytest.mark.kernel
@pytest.mark.usefixtures("space")
def test_a_packet_without_a_conntrack_entry_has_no_direction() -> None:
    machine = loaded("ct direction original drop", "ct direction reply drop")
    space = machine.space

    passing = must(machine, machine.hooked(ENTRY), {End.ACCEPT})

    untracked = space.within(space.levels[CT], (UNTRACKED, UNTRACKED))
    assert space.both(passing, untracked) is untracked


def program(*expressions: Expression) -> Machine:
    chain = Chain(ENTRY, None, (Rule(7, expressions),))
    tables = {ENTRY._replace(name="own"): 0}
    return Machine(Bytecode(1, tables, {ENTRY: chain}), NOWHERE, 4)


def verdict(code: int, chain: str = "") -> bytes:
    word = attribute(1, (code & 0xFFFFFFFF).to_bytes(4, "big"))
    return attribute(2, word + (attribute(2, chain.encode()) if chain else b""))


ACCEPT = Expression("immediate", {1: bytes(4), 2: verdict(Code.ACCEPT)})


@pytest.mark.parametrize(
    "expression",
    [
        pytest.param(Expression("frobnicate", {}), id="an unheard-of expression"),
        pytest.param(Expression("target", {1: b"MASQUERADE\0"}), id="of xtables"),
        pytest.param(Expression("queue", {1: b"\0\1"}), id="a queue"),
        pytest.param(Expression("cmp", {}), id="a comparison without operands"),
        pytest.param(Expression("meta", {1: b"\0\0\0\xff", 2: b"\0\0\0\4"}), id="reg"),
        pytest.param(
            Expression("payload", {1: b"\0\0\0\1", 2: b""}), id="an empty one"
        ),
        pytest.param(
            Expression("immediate", {1: bytes(4), 2: verdict(Code.QUEUE)}), id="verdict"
        ),
    ],
)
def test_nothing_unmodelled_escapes_or_is_certain(expression: Expression) -> None:
    machine = program(expression, ACCEPT)

    result = machine.chain(ENTRY)

    space = machine.space
    assert may(machine, result, {End.ACCEPT}) is space.true
    assert must(machine, result, {End.ACCEPT}) is space.false
    assert any("handle 7" in name for name in machine.doubts.values())


def test_a_loop_of_chains_is_an_overrun() -> None:
    again = Expression("immediate", {1: bytes(4), 2: verdict(Code.JUMP, "entry")})

    with pytest.raises(OverrunError, match="chains deep"):
        program(again).chain(ENTRY)
