# SPDX-License-Identifier: GPL-2.0-or-later
"""A snapshot is what the kernel has, all of it, or an error; gaps are named."""

import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

import pytest

from proof import nftables, snapshot
from proof.bytecode import Code, Place, Verdict
from proof.netlink import (
    NETFILTER,
    ROUTE,
    Kernel,
    Message,
    Netlink,
    Request,
    SnapshotError,
    attribute,
    attributes,
    messages,
)
from proof.snapshot import Sources
from rules.guard import GUARD_TEXT, uplink_guard
from rules.pace import USUAL, pace
from rules.skeleton import SKELETON_TEXT
from tests.proof.namespaces_apart import apart

INET = 1
NFT_OWN = """
add table inet own
add set inet own ports { type inet_service; flags interval; }
add element inet own ports { 22, 80-90, 65000-65535 }
add map inet own both { type ipv4_addr . inet_service : verdict; flags interval; }
add chain inet own next
add rule inet own next ct state new
add element inet own both { 10.0.0.0/8 . 1-5 : goto next, * : drop }
add chain inet own entry { type filter hook forward priority -7; policy drop; }
add rule inet own entry ip saddr . th dport vmap @both comment "by both"
"""
TRACKED = "add table inet t\nadd chain inet t c\nadd rule inet t c ct state new"
"""With it conntrack runs, and puts fragments together."""
LINKS = """
link add v0 type veth peer name v1
link set v0 group 2
link set v0 up
link set v1 up
address add 192.0.2.1/24 dev v0
route add 198.51.100.0/24 via 192.0.2.7 table 10139
rule add fwmark 0x1/0xff lookup 10139 priority 77
rule add iif v0 unreachable priority 78
rule add uidrange 5-6 lookup 10139 priority 79
"""


@pytest.fixture
def space() -> Iterator[None]:
    with apart():
        yield


def run(*words: str, text: str = "") -> None:
    subprocess.run(words, input=text, text=True, check=True, capture_output=True)


@dataclass(slots=True)
class Recorded:
    """A kernel that answers as another does, but for what a test has changed."""

    kernel: Kernel
    changed: dict[int, list[Message]] = field(default_factory=dict)
    answers: list[Message] = field(default_factory=list)

    def ask(self, request: Request) -> Message:
        return self.answers.pop(0) if self.answers else self.kernel.ask(request)

    def dump(self, request: Request) -> Sequence[Message]:
        if request.kind in self.changed:
            return self.changed[request.kind]
        return self.kernel.dump(request)


@pytest.mark.kernel
@pytest.mark.usefixtures("space")
def test_sets_maps_and_rules_are_read_as_the_kernel_has_them() -> None:
    run("nft", "-f", "-", text=NFT_OWN)

    found = snapshot.here()

    code = found.bytecode
    entry = code.chains[Place(INET, "own", "entry")]
    both = code.sets[Place(INET, "own", "both")]
    assert entry.hook is not None
    assert (entry.hook.number, entry.hook.priority, entry.hook.policy) == (
        2,
        -7,
        Code.DROP,
    )
    assert [rule.comment for rule in entry.rules] == ["by both"]
    assert [e.name for e in entry.rules[0].expressions] == [
        "meta",
        "cmp",
        "payload",
        "payload",
        "lookup",
    ]
    assert both.lengths == (4, 2)
    assert {(e.key, e.end, e.value, e.flags) for e in both.elements} == {
        (
            bytes([10, 0, 0, 0, 0, 1, 0, 0]),
            bytes([10, 255, 255, 255, 0, 5, 0, 0]),
            Verdict(Code.GOTO, "next"),
            0,
        ),
        (b"", None, Verdict(Code.DROP), 2),
    }
    assert {
        (int.from_bytes(e.key), e.flags)
        for e in code.sets[Place(INET, "own", "ports")].elements
    } == {(0, 1), (22, 0), (23, 1), (80, 0), (91, 1), (65000, 0)}
    assert found.gaps == ()


@pytest.mark.kernel
@pytest.mark.usefixtures("space")
def test_all_that_we_load_ourselves_is_covered() -> None:
    run(
        "nft",
        "-f",
        "-",
        text=SKELETON_TEXT + GUARD_TEXT + pace(USUAL) + uplink_guard("lo"),
    )

    found = snapshot.here()

    assert found.gaps == ()
    assert len(found.bytecode.tables) == 5
    assert {
        c.hook.devices
        for c in found.bytecode.chains.values()
        if c.hook is not None and c.place.table == "ravelin-guard"
    } == {(), ("lo",)}


@pytest.mark.kernel
@pytest.mark.usefixtures("space")
def test_links_routes_and_routing_rules_are_read() -> None:
    run("ip", "-batch", "-", text=LINKS)

    routing = snapshot.here().routing

    links = {link.name: link for link in routing.links}
    v0 = links["v0"]
    assert (v0.group, v0.kind, v0.up) == (2, "veth", True)
    assert [str(a.address) for a in routing.addresses if a.index == v0.index][:1] == [
        "192.0.2.1"
    ]
    assert [
        (r.prefix, r.interfaces, str(r.gateway))
        for r in routing.routes
        if r.table == 10139
    ] == [(ip_network("198.51.100.0/24"), {v0.index}, "192.0.2.7")]
    rules = {r.priority: r for r in routing.rules}
    assert (rules[77].mark, rules[77].mask, rules[77].table) == (1, 0xFF, 10139)
    assert (rules[78].iif, rules[78].action) == ("v0", 7)
    assert rules[79].selectors == {20}
    assert rules[77].selectors == rules[78].selectors == frozenset()


@pytest.mark.kernel
@pytest.mark.usefixtures("space")
@pytest.mark.parametrize(
    ("program", "words", "gap"),
    [
        pytest.param(
            "nft",
            "add table bridge b\n"
            "add chain bridge b c { type filter hook forward priority 0; }",
            "base chain bridge b c at hook 2 is not modelled",
            id="a bridge chain",
        ),
        pytest.param(
            "nft",
            "add table netdev n\nadd chain netdev n c "
            '{ type filter hook ingress device "lo" priority 0; }',
            "base chain netdev n c at hook 0 is not modelled",
            id="an ingress chain",
        ),
        pytest.param(
            "nft",
            "add table ip d { flags dormant; }",
            "table ip d is dormant",
            id="a dormant table",
        ),
        pytest.param(
            "nft",
            "add table ip c\n"
            "add chain ip c f { type filter hook forward priority 0; }\n"
            "add rule ip c f dup to 192.0.2.9",
            "ip c f handle 2 takes packets elsewhere (dup)",
            id="copies of packets",
        ),
        pytest.param(
            "nft",
            "add table ip c\n"
            "add chain ip c f { type filter hook forward priority 0; }\n"
            "add rule ip c f ip daddr set 192.0.2.9",
            "ip c f handle 2 writes into packets",
            id="packets that are rewritten",
        ),
        pytest.param(
            "nft",
            "add table ip c\nadd table inet d\n"
            "add chain ip c f { type filter hook forward priority 3; }\n"
            "add chain inet d f { type filter hook forward priority 3; }\n"
            "add rule ip c f meta mark set 1\nadd rule inet d f meta mark 1 drop",
            "ip c f and inet d f have one priority, and change packets",
            id="an order that is not known",
        ),
        pytest.param(
            "ip",
            "xfrm policy add dir out src 192.0.2.0/24 dst 198.51.100.0/24 action block",
            "1 xfrm policies",
            id="a policy of IPsec",
        ),
    ],
)
def test_what_is_not_modelled_is_named(
    program: str,
    words: str,
    gap: str,
) -> None:
    run("nft", "-f", "-", text=TRACKED)
    assert snapshot.here().gaps == ()

    run(program, *(["-f", "-"] if program == "nft" else ["-batch", "-"]), text=words)

    assert snapshot.here().gaps == (gap,)


def test_legacy_tables_and_virtual_servers_are_named(tmp_path: Path) -> None:
    (tmp_path / "ip_tables_names").write_text("nat\nfilter\n")
    (tmp_path / "ip_vs").write_text("a\nb\nc\nTCP  0A000001:0050 wlc\n")

    assert list(snapshot.gaps_of_files(tmp_path)) == [
        "legacy table nat (ip_tables_names)",
        "legacy table filter (ip_tables_names)",
        "virtual servers (IPVS)",
    ]


@pytest.mark.kernel
@pytest.mark.usefixtures("space")
def test_a_change_while_reading_means_reading_again() -> None:
    run("nft", "-f", "-", text=NFT_OWN)
    with Netlink(NETFILTER) as kernel, Netlink(ROUTE) as route:
        late = Message(0, struct.pack("=BBH", 0, 0, 0) + attribute(1, b"\0\0\0\x7f"))
        recorded = Recorded(kernel, answers=[late])

        with pytest.raises(SnapshotError, match="changed while it was read"):
            nftables.read(recorded)
        again = Recorded(kernel, answers=[late])
        found = snapshot.take(Sources(again, route, None))

    assert Place(INET, "own", "entry") in found.bytecode.chains
    assert found.bytecode.generation != 0x7F


GET = {"tables": 0xA01, "chains": 0xA04, "rules": 0xA07, "sets": 0xA0A}


@pytest.mark.kernel
@pytest.mark.usefixtures("space")
@pytest.mark.parametrize(
    ("missing", "message"),
    [
        pytest.param("tables", "its table does not exist", id="tables"),
        pytest.param("chains", "a rule in chain", id="chains"),
        pytest.param("sets", "no set", id="sets"),
    ],
)
def test_a_dump_that_contradicts_another_is_an_error(
    missing: str,
    message: str,
) -> None:
    run("nft", "-f", "-", text=NFT_OWN)
    with Netlink(NETFILTER) as kernel:
        recorded = Recorded(kernel, {GET[missing]: []})

        with pytest.raises(SnapshotError, match=message):
            nftables.read(recorded)


@pytest.mark.kernel
@pytest.mark.usefixtures("space")
@pytest.mark.parametrize("what", ["tables", "chains", "sets"])
def test_two_things_of_one_name_are_an_error(what: str) -> None:
    """A name that is no UTF-8 may be written as another one is."""
    run("nft", "-f", "-", text=NFT_OWN)
    with Netlink(NETFILTER) as kernel:
        request = Request(what, GET[what], struct.pack("=BBH", 0, 0, 0))
        once = list(kernel.dump(request))

        assert nftables.read(Recorded(kernel, {GET[what]: once})).tables
        with pytest.raises(SnapshotError, match="twice"):
            nftables.read(Recorded(kernel, {GET[what]: once + once[-1:]}))


@pytest.mark.kernel
@pytest.mark.usefixtures("space")
def test_what_somebody_in_the_namespace_says_is_not_taken_for_the_kernel() -> None:
    forged = datagram(3, 2, bytes(4))  # the end of a dump that had nothing in it
    with Netlink(ROUTE) as kernel, Netlink(ROUTE) as liar:
        request = Request("links", 18, bytes(16))
        assert kernel.dump(request)
        forged = struct.pack("=IHHII", len(forged), 3, 2, 2, 0) + forged[16:]
        liar._socket.sendto(forged, kernel._socket.getsockname())

        with pytest.raises(SnapshotError, match="not from the kernel"):
            kernel.dump(request)


@dataclass(slots=True)
class OneDatagram:
    """A socket that receives this and no more."""

    data: bytes
    flags: int = 0
    port: int = 0

    def send(self, request: bytes) -> int:
        return len(request)

    def close(self) -> None:
        self.data = b""

    def recvmsg(self, _: int) -> tuple[bytes, list[bytes], int, tuple[int, int]]:
        if not self.data:
            raise TimeoutError("timed out")
        data, self.data = self.data, b""
        return data, [], self.flags, (self.port, 0)


def datagram(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


WHOLE = datagram(7, 2, bytes(8)) + datagram(7, 2, bytes(4)) + datagram(3, 2, bytes(4))
REFUSED = datagram(2, 0, struct.pack("=i", -1))


def dumped(received: OneDatagram) -> Sequence[Message]:
    with Netlink(ROUTE) as kernel:
        kernel._socket.close()
        kernel._socket = received  # type: ignore[assignment]
        return kernel.dump(Request("it", 9, b""))


def test_a_dump_is_all_its_messages() -> None:
    assert [len(m.body) for m in dumped(OneDatagram(WHOLE))] == [8, 4]


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_no_truncated_dump_becomes_a_snapshot(length: int) -> None:
    with pytest.raises(SnapshotError):
        dumped(OneDatagram(WHOLE[:length]))


@pytest.mark.parametrize(
    "received",
    [
        pytest.param(OneDatagram(WHOLE, flags=0x20), id="cut by the socket"),
        pytest.param(OneDatagram(datagram(7, 0x12, b"")), id="changed on the way"),
        pytest.param(OneDatagram(REFUSED), id="refused"),
        pytest.param(OneDatagram(WHOLE, port=4711), id="of another sender"),
    ],
)
def test_a_dump_that_did_not_end_well_is_an_error(received: OneDatagram) -> None:
    with pytest.raises(SnapshotError):
        dumped(received)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x10", id="half a header"),
        pytest.param(struct.pack("=IHHII", 40, 3, 0, 1, 0), id="shorter than it says"),
        pytest.param(struct.pack("=IHHII", 4, 3, 0, 1, 0), id="shorter than a header"),
    ],
)
def test_a_message_that_does_not_fit_is_an_error(data: bytes) -> None:
    with pytest.raises(SnapshotError):
        list(messages(data))


@pytest.mark.parametrize(
    "data", [b"\x08", b"\x08\0\x01\0ab", b"\x03\0\x01\0"], ids=["half", "cut", "short"]
)
def test_an_attribute_that_does_not_fit_is_an_error(data: bytes) -> None:
    with pytest.raises(SnapshotError):
        attributes(data)


@pytest.mark.kernel
@pytest.mark.usefixtures("space")
def test_a_refused_question_is_an_error() -> None:
    with (
        Netlink(ROUTE) as kernel,
        pytest.raises(SnapshotError, match=r"nonsense: .* not supported"),
    ):
        kernel.dump(Request("nonsense", 0x3FF, bytes(16)))
