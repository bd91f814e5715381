# SPDX-License-Identifier: GPL-2.0-or-later
"""What stands in each domain's QubesDB, and how it gets there."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import keys
from controller.domains import Domain, Domains, LabUplink, Nic, Personality
from controller.keys import (
    MAX_VALUE,
    Contents,
    Operation,
    Remove,
    Write,
    changes,
    contents,
    next_expiry,
)
from controller.policy import read
from rules.model import Policy
from rules.parse import parse_text

EXAMPLE = Path(__file__).parents[2] / "examples" / "home.toml"


def policy(*lines: str) -> Policy:
    return Policy(tuple(parse_text(line, now=0) for line in lines))


def home(work: Policy, *, ipv6: bool = True) -> Domains:
    return Domains(
        {
            "sys-net": Domain(
                "sys-net", 1, personality=Personality.NETVM, uplink=Nic("enp3s0")
            ),
            "sys-fw": Domain(
                "sys-fw", 2, personality=Personality.FIREWALL, netvm="sys-net"
            ),
            "work": Domain("work", 5, netvm="sys-fw", policy=work, ipv6=ipv6),
            "vault": Domain("vault", 6),
        }
    )


RULES = policy(
    "accept dst4=192.0.2.0/24 proto=tcp dstports=443",
    "drop expire=500",
    "accept dst6=2001:db8::/32",
    "accept dsthost=www.example.com comment=why not",
)


def test_a_firewall_knows_its_uplink_its_clients_and_their_rules() -> None:
    found = contents(home(RULES), {"work": 3, "sys-fw": 1}, now=1000)["sys-fw"]

    v4, v6 = "/qubes-firewall/10.137.0.5", "/qubes-firewall/fd09:24ef:4179::a89:5"
    assert found == {
        "/qubes-mac": b"00:16:3e:5e:6c:00",
        "/qubes-ip": b"10.137.0.2",
        "/qubes-netmask": b"255.255.255.255",
        "/qubes-gateway": b"10.137.0.1",
        "/qubes-primary-dns": b"10.139.1.1",
        "/qubes-secondary-dns": b"10.139.1.2",
        "/qubes-ip6": b"fd09:24ef:4179::a89:2",
        "/qubes-gateway6": b"fd09:24ef:4179::a89:1",
        "/qubes-netvm-network": b"10.137.0.2",
        "/qubes-netvm-gateway": b"10.137.0.2",
        "/qubes-netvm-netmask": b"255.255.255.255",
        "/qubes-netvm-primary-dns": b"10.139.1.1",
        "/qubes-netvm-secondary-dns": b"10.139.1.2",
        "/qubes-netvm-gateway6": b"fd09:24ef:4179::a89:2",
        "/ravelin/uplink": b"eth0",
        f"{v4}/0000": b"action=accept dst4=192.0.2.0/24 proto=tcp dstports=443-443",
        f"{v4}/0003": b"action=accept dsthost=www.example.com",
        f"{v4}/policy": b"drop",
        v4: b"",
        f"{v6}/0002": b"action=accept dst6=2001:db8::/32",
        f"{v6}/0003": b"action=accept dsthost=www.example.com",
        f"{v6}/policy": b"drop",
        v6: b"",
        "/connected-ips": b"10.137.0.5",
        "/connected-ips6": b"fd09:24ef:4179::a89:5",
        "/ravelin/vif/vif3.0": (
            b"mac=00:16:3e:5e:6c:00 ip=10.137.0.5 ip6=fd09:24ef:4179::a89:5"
        ),
    }


def test_a_client_without_a_link_has_rules_but_no_vif() -> None:
    found = contents(home(RULES), {}, now=1000)["sys-fw"]

    assert "/qubes-firewall/10.137.0.5/policy" in found
    assert not [path for path in found if path.startswith("/ravelin/vif/")]


def test_a_netvm_has_no_keys_of_a_client_and_an_appvm_none_of_a_netvm() -> None:
    found = contents(home(RULES), {}, now=1000)

    assert "/qubes-ip" not in found["sys-net"]
    assert found["sys-net"]["/ravelin/uplink"] == b"enp3s0"
    assert not [path for path in found["work"] if "netvm" in path]
    assert found["work"]["/qubes-gateway"] == b"10.137.0.2"


def test_a_domain_without_netvm_is_told_nothing() -> None:
    assert contents(home(RULES), {}, now=1000)["vault"] == {}


def test_without_ipv6_nothing_speaks_of_it() -> None:
    found = contents(home(RULES, ipv6=False), {"work": 3}, now=1000)

    assert "/qubes-ip6" not in found["work"]
    assert found["sys-fw"]["/connected-ips6"] == b""
    assert not [p for p in found["sys-fw"] if p.startswith("/qubes-firewall/fd")]
    assert found["sys-fw"]["/ravelin/vif/vif3.0"].endswith(b"ip=10.137.0.5")


def test_no_value_is_longer_than_qubesdb_holds() -> None:
    clients = {f"c{n}": Domain(f"c{n}", n, netvm="sys-net") for n in range(2, 400)}
    netvm = Domain("sys-net", 1, personality=Personality.NETVM, uplink=LabUplink())
    found = contents(Domains({"sys-net": netvm, **clients}), {}, now=0)["sys-net"]

    assert MAX_VALUE - 16 < len(found["/connected-ips"]) <= MAX_VALUE
    assert max(map(len, found.values())) <= MAX_VALUE
    assert max(map(len, found)) < 64


@pytest.mark.parametrize(("now", "then"), [(0, 500), (499, 500), (500, None)])
def test_the_next_expiry_is_the_first_that_is_still_to_come(
    now: int, then: int | None
) -> None:
    assert next_expiry(home(RULES), now=now) == then


def test_a_new_rule_is_one_write_and_one_commit_between_two_policies() -> None:
    base = "/qubes-firewall/10.137.0.5"
    old = contents(home(policy("accept"), ipv6=False), {"work": 3}, now=0)["sys-fw"]
    more = policy("accept", "drop")
    new = contents(home(more, ipv6=False), {"work": 3}, now=0)["sys-fw"]

    assert changes(old, old) == []
    assert changes(old, new) == [
        Remove(f"{base}/policy"),
        Write(f"{base}/0001", b"action=drop"),
        Write(f"{base}/policy", b"drop"),
        Write(base, b""),
    ]


def test_a_vif_comes_after_its_rules_and_goes_before_them() -> None:
    linked = contents(home(RULES), {"work": 3}, now=0)["sys-fw"]
    base, vif = "/qubes-firewall/10.137.0.5", "/ravelin/vif/vif3.0"

    coming = [operation.path for operation in changes({}, linked)]
    going = [operation.path for operation in changes(linked, {})]

    assert coming.index(vif) > coming.index(base) > coming.index(f"{base}/policy")
    assert going.index(vif) < going.index(f"{base}/") < going.index(base)


def applied(operations: list[Operation], old: Contents) -> Contents:
    """Do what a QubesDB does; a path that ends in a slash is a whole directory."""
    found = dict(old)
    for operation in operations:
        match operation:
            case Write(path, value):
                found[path] = value
            case Remove(path):
                gone = [
                    p
                    for p in found
                    if p == path or (path.endswith("/") and p.startswith(path))
                ]
                for each in gone:
                    del found[each]
    return found


LINES = st.lists(
    st.sampled_from(
        [
            "accept",
            "drop",
            "accept dst4=192.0.2.0/24",
            "accept dst6=2001:db8::/32",
            "drop expire=500",
            "accept specialtarget=dns",
        ]
    ),
    max_size=4,
)


@st.composite
def databases(draw: st.DrawFn) -> Contents:
    """The QubesDB of a firewall with clients, or nothing at all."""
    domains = {
        "sys-net": Domain(
            "sys-net", 1, personality=Personality.NETVM, uplink=LabUplink()
        ),
        "sys-fw": Domain(
            "sys-fw", 2, personality=Personality.FIREWALL, netvm="sys-net"
        ),
    }
    serials = {}
    for number in draw(st.sets(st.integers(3, 6))):
        name = f"c{number}"
        rules = policy(*draw(LINES))
        domains[name] = Domain(
            name, number, netvm="sys-fw", policy=rules, ipv6=draw(st.booleans())
        )
        if draw(st.booleans()):
            serials[name] = draw(st.integers(1, 9))
    now = draw(st.sampled_from([0, 1000]))
    whole = contents(Domains(domains), serials, now=now)["sys-fw"]
    return draw(st.sampled_from([whole, {}]))


@given(databases(), databases())
def test_the_changes_turn_the_old_into_the_new(old: Contents, new: Contents) -> None:
    operations = changes(old, new)

    assert applied(operations, old) == new
    assert bool(operations) == (old != new)


@given(databases(), databases())
def test_nothing_is_written_twice_or_needlessly(old: Contents, new: Contents) -> None:
    writes = [o for o in changes(old, new) if isinstance(o, Write)]

    assert len({write.path for write in writes}) == len(writes)
    needless = [w.path for w in writes if old.get(w.path) == w.value]
    assert all(path.endswith("/policy") or path.count("/") == 2 for path in needless)


@given(databases(), databases())
def test_a_client_whose_rules_are_halfway_has_no_policy(
    old: Contents, new: Contents
) -> None:
    operations = changes(old, new)
    for done in range(len(operations) + 1):
        halfway = applied(operations[:done], old)
        for base in {p.removesuffix("/policy") for p in halfway if "/policy" in p}:
            rules = {p: v for p, v in halfway.items() if p.startswith(f"{base}/")}
            assert rules in [
                {p: v for p, v in whole.items() if p.startswith(f"{base}/")}
                for whole in (old, new)
            ]


def test_the_example_has_a_database_for_each_domain() -> None:
    home_example = read(EXAMPLE.read_text(), file="x", qids={}, now=0)

    assert set(contents(home_example, {}, now=0)) == set(home_example.by_name)


@pytest.mark.parametrize(
    ("addresses", "primary", "secondary"),
    [
        pytest.param(("192.0.2.1",), "192.0.2.1", "192.0.2.1", id="one for both"),
        pytest.param(
            ("192.0.2.1", "192.0.2.2"), "192.0.2.1", "192.0.2.1", id="the first"
        ),
        pytest.param(
            ("2001:db8::1", "192.0.2.1"), "192.0.2.1", "2001:db8::1", id="one of each"
        ),
    ],
)
def test_two_keys_name_the_resolvers_of_both_versions(
    addresses: tuple[str, ...], primary: str, secondary: str
) -> None:
    found = keys.resolvers(addresses)

    assert found == {
        "/qubes-primary-dns": primary.encode(),
        "/qubes-secondary-dns": secondary.encode(),
    }


def test_without_resolvers_dom0_names_none() -> None:
    assert keys.resolvers(()) == {}
