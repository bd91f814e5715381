# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernels do is proved, or refuted with a packet that really passes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.machine import (
    FORBIDDEN4,
    HOME,
    HTTPS,
    WEB4,
    Machine,
    becomes,
    machine,
)

pytestmark = pytest.mark.kernel

LONG = 60.0  # seconds for a proof on a machine that is busy
FORBIDDEN_PORT = 80
ASSERTED = """
[[assert]]
from = "personal"
to = "10.0.0.0/8"
expect = "blocked"

[[assert]]
from = "work"
to = "www.example.com"
proto = "tcp"
ports = 443
expect = "reach"

[[assert]]
from = "untrusted"
expect = "only-through sys-firewall2"

[[assert]]
from = "untrusted"
to = "198.51.100.0/24"
proto = "icmp"
expect = "reach"
"""
OPEN = ("tcp", "dport", str(FORBIDDEN_PORT), "accept")


@pytest.fixture(scope="module")
def _running() -> Iterator[Machine]:
    with machine(HOME + ASSERTED) as made:
        made.up()
        yield made
        made.does("down")


@pytest.fixture
def home(_running: Machine) -> Iterator[Machine]:
    """The home of the examples with assertions, and no rule of anybody's own.

    Nor a flow that one of them has let pass.
    """
    _running.policy.write_text(HOME + ASSERTED)
    _running.does("up", str(_running.policy))
    yield _running
    for name in ("sys-net", "sys-firewall"):
        nft(_running, name, "flush", "chain", "ip", "qubes", "custom-forward")
    _running.hang_up()
    for name in ("sys-net", "sys-firewall"):
        _running.tool(name, "conntrack", "--flush")


def nft(home: Machine, name: str, *words: str) -> None:
    home.tool(name, "nft", *words)


def open_by_hand(home: Machine, name: str, *words: str) -> None:
    """Add a rule of people's own, which no agent takes away."""
    nft(home, name, "add", "rule", "ip", "qubes", "custom-forward", *words)


def results(home: Machine, status: int) -> list[dict[str, object]]:
    done = home.ravelin("--json", "verify", within=LONG)
    found = json.loads(done.out)["results"]
    assert isinstance(found, list)
    assert done.status == status, [r for r in found if r["status"] != "proved"]
    return found


def by_claim(found: list[dict[str, object]], claim: str) -> dict[str, object]:
    (row,) = (r for r in found if r["claim"] == claim and r["version"] == 4)
    return row


def test_a_healthy_home_is_proved_with_witnesses_and_generations(home: Machine) -> None:
    found = results(home, 0)

    assert {row["status"] for row in found} == {"proved"}
    claims = {str(row["claim"]) for row in found}
    for name in ("work", "personal", "untrusted", "sys-firewall", "sys-firewall2"):
        assert f"{name} reaches no more than its list accepts" in claims
        assert f"{name} reaches all that its list accepts" in claims
    assert "vault reaches nothing" in claims
    assert sum("as line" in claim for claim in claims) == 4
    about_none = ("vault reaches nothing", "no flow of ")
    assert all(
        row["packet"] for row in found if not str(row["claim"]).startswith(about_none)
    )
    assert all(row["generations"] for row in found)
    assert home.reaches("work", WEB4, HTTPS)


@pytest.mark.parametrize("name", ["sys-firewall", "personal", "untrusted"])
def test_who_has_no_ipv6_is_proved_too(home: Machine, name: str) -> None:
    text = home.policy.read_text()
    head = f"[domains.{name}]\n"
    assert text.count(head) == 1
    home.policy.write_text(text.replace(head, f"{head}ipv6 = false\n"))
    home.does("apply")

    assert {row["status"] for row in results(home, 0)} == {"proved"}


def test_a_flow_that_the_list_does_not_accept_is_named(home: Machine) -> None:
    """L12: as if it had been opened under other rules; one that is accepted is fine."""
    claim = "no flow of work runs that its list does not accept"
    ip = str(home.status()["work"]["ip"])
    words = ["conntrack", "-I", "-s", ip, "-p", "tcp", "--sport", "40000"]
    words += ["--state", "ESTABLISHED", "--timeout", "300"]

    home.tool("sys-firewall", *words, "-d", WEB4, "--dport", str(HTTPS))
    assert by_claim(results(home, 0), claim)["status"] == "proved"
    home.tool("sys-firewall", *words, "-d", FORBIDDEN4, "--dport", "22")
    found = by_claim(results(home, 3), claim)
    home.tool("sys-firewall", "conntrack", "-D", "-s", ip)

    assert found["status"] == "possible"
    assert f"{ip} port 0 > {FORBIDDEN4} port 22" in str(found["packet"])
    assert "opened under other rules" in str(found["notes"])


def test_what_is_proved_is_drawn_and_told(home: Machine) -> None:
    file = Path(home.policy).with_name("proof.svg")
    done = home.ravelin("verify", "--graph", str(file), within=LONG)

    assert done.status == 0
    assert "claims: " in done.out.splitlines()[-1]
    assert "refuted" not in done.out
    drawn = file.read_text()
    assert all(f">{name}<" in drawn for name in ("work", "sys&#45;net", "vault"))


def test_a_rule_added_by_hand_is_refuted_with_a_packet_that_really_passes(
    home: Machine,
) -> None:
    assert not home.reaches("work", WEB4, FORBIDDEN_PORT)
    open_by_hand(home, "sys-firewall", *OPEN)
    assert home.reaches("work", WEB4, FORBIDDEN_PORT)

    row = by_claim(results(home, 1), "work reaches no more than its list accepts")

    assert row["status"] == "refuted"
    assert str(row["packet"]).endswith(f"port {FORBIDDEN_PORT}")
    hops = row["hops"]
    assert isinstance(hops, list)
    assert [hop["domain"] for hop in hops] == ["sys-firewall", "sys-net"]
    assert "custom-forward" in hops[0]["rule"]
    assert row["replay"] == "replayed: it left sys-net by eth0"


def test_what_is_refused_behind_the_policy_is_refuted_and_does_not_pass(
    home: Machine,
) -> None:
    assert home.reaches("work", WEB4, HTTPS)
    open_by_hand(home, "sys-net", "tcp", "dport", str(HTTPS), "drop")
    assert not home.reaches("work", WEB4, HTTPS)

    found = results(home, 1)

    row = by_claim(found, "sys-firewall reaches all that its list accepts")
    assert (row["status"], row["replay"]) == (
        "refuted",
        "replayed: it did not leave sys-net by eth0",
    )
    asserted = [r["status"] for r in found if "www.example.com" in str(r["claim"])]
    assert asserted == ["refuted", "proved"]  # by hand it was refused in IPv4 alone


def test_no_packet_is_sent_if_nobody_wants_it(home: Machine) -> None:
    open_by_hand(home, "sys-firewall", *OPEN)
    done = home.ravelin("verify", "--no-replay", within=LONG)

    assert done.status == 1
    assert "REFUTED: work reaches no more than its list accepts" in done.out
    assert "replayed" not in done.out


def test_explain_tells_policy_and_kernels_apart(home: Machine) -> None:
    asked = ("explain", "work", f"{WEB4}:{FORBIDDEN_PORT}")
    done = home.ravelin(*asked)
    assert done.status == 1
    assert "rejected" in done.out
    open_by_hand(home, "sys-firewall", *OPEN)

    done = home.ravelin(*asked)

    assert done.status == 3
    assert "DIFFERS: policy deny, kernels accept" in done.out
    assert "custom-forward" in done.out


@pytest.mark.parametrize(
    "target",
    [WEB4, f"{WEB4}:443", f"{FORBIDDEN4}:443", "10.137.0.5:22", "10.139.1.1:53"],
)
@pytest.mark.parametrize("domain", ["work", "personal", "untrusted", "sys-firewall"])
def test_policy_and_kernels_say_the_same_of_a_healthy_home(
    home: Machine, domain: str, target: str
) -> None:
    done = home.ravelin("--json", "explain", domain, target)

    assert done.status in (0, 1)
    (route,) = json.loads(done.out)["routes"]
    assert route["kernel_verdict"] == route["verdict"]


def test_explain_says_by_which_rule_a_gateway_answers_a_ping(home: Machine) -> None:
    """That rule has a limit, which one packet does not exceed."""
    gateway = home.status()["sys-firewall"]
    for address in (str(gateway["ip"]), str(gateway["ip6"])):
        done = home.ravelin("--json", "explain", "work", "icmp", address)

        (route,) = json.loads(done.out)["routes"]
        (hop,) = route["kernels"]
        assert (done.status, hop["verdict"]) == (0, "delivered")
        assert hop["rule"].endswith('"ping of this domain"')
        assert home.reaches("work", address, proto="icmp")


def test_status_follows_what_happens_behind_the_back(home: Machine) -> None:
    becomes(home.proof, "proved", LONG)
    assert "proved " in home.does("status").splitlines()[-1]
    open_by_hand(home, "sys-firewall", *OPEN)
    becomes(home.proof, "refuted", LONG)
    done = home.ravelin("status")
    assert done.status == 3
    assert done.out.splitlines()[-1].startswith("REFUTED: ")
    nft(home, "sys-firewall", "flush", "chain", "ip", "qubes", "custom-forward")
    becomes(home.proof, "proved", LONG)
    assert "REFUTED: " in home.does("log")


def test_what_depends_on_the_unknown_is_never_proved(home: Machine) -> None:
    open_by_hand(home, "sys-firewall", "limit", "rate", "1/second", *OPEN)

    row = by_claim(results(home, 3), "work reaches no more than its list accepts")

    assert row["status"] == "possible"
    assert row["notes"]


def test_what_is_not_modelled_is_named_and_never_proved(home: Machine) -> None:
    nft(home, "sys-firewall", "add", "table", "ip", "asleep", "{ flags dormant; }")
    try:
        row = by_claim(results(home, 3), "work reaches no more than its list accepts")
    finally:
        nft(home, "sys-firewall", "delete", "table", "ip", "asleep")

    assert row["status"] == "unknown"
    assert "table ip asleep is dormant" in str(row["notes"])


def test_who_is_shut_leaks_nothing_and_is_not_said_to_reach_anybody(
    home: Machine,
) -> None:
    home.tool("sys-net", "ip", "link", "set", "eth0", "down")
    try:
        becomes(lambda: home.status()["sys-net"]["state"], "blocked", LONG)
        found = results(home, 3)
    finally:
        home.does("restart", "sys-net")

    assert "refuted" not in {row["status"] for row in found}
    (row,) = (
        r for r in found if r["claim"] == "work reaches all that its list accepts"
    )
    assert (row["status"], row["notes"]) == ("unknown", ["sys-net is blocked"])
    more = by_claim(found, "work reaches no more than its list accepts")
    assert more["status"] == "proved"


def test_a_policy_that_breaks_an_assertion_is_refused_before_anything_changes(
    home: Machine,
) -> None:
    text = home.policy.read_text()
    opened = text.replace('"drop dst4=10.0.0.0/8"', '"accept dst4=10.0.0.0/8"')
    home.policy.write_text(opened)
    plan, done = home.ravelin("plan"), home.ravelin("apply")

    assert (plan.status, done.status) == (1, 1)
    assert "not kept: " in plan.out
    assert "personal may now also reach 10.0.0.0/8 but dns" in plan.out
    line = opened[: opened.index("[[assert]]")].count("\n") + 1
    assert f"policy.toml:{line}: personal to 10.0.0.0/8: blocked" in done.err
    home.policy.write_text(text)
    refused = home.ravelin("firewall", "work", "del", "--rule-no", "2")
    assert refused.status == 1
    assert home.policy.read_text() == text
    assert home.reaches("work", WEB4, HTTPS)
