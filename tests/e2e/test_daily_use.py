# SPDX-License-Identifier: GPL-2.0-or-later
"""What a user does every day, each word of the command on real packets."""

import json

import pytest

from tests.e2e.machine import (
    FORBIDDEN4,
    FORBIDDEN6,
    HOME,
    HTTP,
    HTTPS,
    INTRANET,
    RESOLVER4,
    UDP,
    VIRTUAL4,
    VIRTUAL6,
    WEB4,
    WEB6,
    Machine,
    until,
)

pytestmark = pytest.mark.kernel

NETVM4 = "192.0.2.2"


def test_status_is_a_tree_and_all_is_well(home: Machine) -> None:
    lines = home.does("status").splitlines()
    rows = home.status()
    column = {name: next(x for x in lines if name in x).index(name) for name in rows}
    assert column["sys-net"] < column["sys-firewall"] < column["work"]
    assert column["sys-firewall"] == column["sys-firewall2"] < column["untrusted"]
    states = {name: row["state"] for name, row in rows.items()}
    assert states.pop("vault") == "no network"
    assert set(states.values()) == {"open", "linked"}
    assert not any(row["problem"] for row in rows.values())


def test_no_verb_means_status(home: Machine) -> None:
    # The last line has the age of a proof, and what is after the state is counted.
    shown, asked = home.does().splitlines(), home.does("status").splitlines()
    at = shown[0].index("STATE")
    assert [x[:at] for x in shown[:-1]] == [x[:at] for x in asked[:-1]]


def test_status_counts_what_a_domain_sends(home: Machine) -> None:
    def counted() -> dict[str, int]:
        rows = json.loads(home.ravelin("--json", "status").out)["domains"]
        return {row["name"]: row["sent"] for row in rows if row["sent"] is not None}

    def personal_alone() -> bool:
        before = counted()
        assert home.reaches("personal", WEB4)
        after = counted()
        assert after["personal"] > before["personal"]
        return after["untrusted"] == before["untrusted"]

    # A link tells its groups (MLD) twice within a second of coming up.
    assert until(personal_alone)


def test_run_fetches_pages_by_name_as_the_netvm(home: Machine) -> None:
    page = home.curl("work", "https://www.example.com/")
    assert (page.status, page.err) == (0, "")
    assert "host www.example.com" in page.out
    plain = home.curl("personal", f"http://{WEB4}/")
    assert f"peer {NETVM4} " in plain.out


def test_what_the_policy_refuses_is_refused_at_once(home: Machine) -> None:
    page = home.curl("work", f"http://{WEB4}/")
    assert page.status == 7  # curl(1): failed to connect, not a timeout (28)


def test_run_exits_as_its_command_does(home: Machine) -> None:
    assert home.run("work", "sh", "-c", "exit 42").status == 42
    assert home.run("work", "sh", "-c", "kill -9 $$").status == 128 + 9
    assert home.run("work", "/no/such/program").status == 127


def test_a_domain_without_netvm_has_no_interface(home: Machine) -> None:
    assert home.does("run", "vault", "--", "ip", "-br", "link").split()[0] == "lo"
    assert home.tries("vault", "tcp", WEB4, HTTP) == "no network"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("run", "wrok", "--", "true"), "wrok"),
        (("prefs", "wrok"), "wrok"),
        (("prefs", "work", "netvm", "personal"), "personal"),
        (("prefs", "sys-net", "netvm", "sys-firewall"), "sys-net"),
        (("prefs", "sys-firewall", "netvm", "sys-firewall"), "sys-firewall"),
        (("firewall", "work", "add", "accept", "dst4=10.0.0.256"), "10.0.0.256"),
        (("firewall", "work", "del", "--rule-no", "9"), "9"),
        (("explain", "work", "tcp", "www.example.com"), "port"),
        (("restart", "wrok"), "wrok"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_is_named_and_changes_nothing(
    home: Machine, words: tuple[str, ...], reason: str
) -> None:
    before = home.status()
    done = home.ravelin(*words)
    assert done.status == 2
    assert reason in done.err
    assert (home.status(), home.policy.read_text()) == (before, HOME)


def chains_of(machine: Machine, firewall: str, domain: str) -> bool:
    rules = machine.tool(firewall, "nft", "list", "table", "ip", "qubes")
    return str(machine.status()[domain]["ip"]) in rules


def test_a_live_switch_moves_a_domain_and_kills_the_old_way(home: Machine) -> None:
    home.does("firewall", "work", "reset")
    stream = home.stream("work")
    assert stream.lives()
    assert chains_of(home, "sys-firewall", "work")
    home.does("prefs", "work", "netvm", "sys-firewall2")
    assert home.reaches("work", WEB4)
    assert home.reaches("work", WEB6)
    assert home.answers("work", "www.example.com") == {WEB4}
    assert f"peer {NETVM4} " in home.curl("work", f"http://{WEB4}/").out
    assert home.is_cut(stream, "sys-firewall2")
    assert not chains_of(home, "sys-firewall", "work")
    assert chains_of(home, "sys-firewall2", "work")
    assert home.does("prefs", "work", "netvm").split() == ["sys-firewall2"]
    assert 'netvm = "sys-firewall2"' in home.policy.read_text()


def test_a_switch_touches_nobody_else(home: Machine) -> None:
    streams = [home.stream("personal"), home.stream("untrusted")]
    home.does("prefs", "work", "netvm", "sys-firewall2")
    assert [stream.lives() for stream in streams] == [True, True]


def test_a_switch_to_none_takes_a_domain_off_the_network(home: Machine) -> None:
    assert home.reaches("work", WEB4, HTTPS)
    home.does("prefs", "work", "netvm", "none")
    assert home.tries("work", "tcp", WEB4, HTTPS) == "no network"


def test_rules_are_in_force_when_the_command_returns(home: Machine) -> None:
    rule = ("accept", f"dst4={FORBIDDEN4}/32", "tcp", "80-80")
    assert not home.reaches("work", FORBIDDEN4)
    home.does("firewall", "work", "add", *rule)
    assert home.reaches("work", FORBIDDEN4)
    home.does("firewall", "work", "add", "--before", "0", "drop", "proto=tcp")
    assert not home.reaches("work", FORBIDDEN4)
    assert not home.reaches("work", WEB4, HTTPS)
    home.does("firewall", "work", "del", "--rule-no", "0")
    assert home.reaches("work", FORBIDDEN4)
    home.does("firewall", "work", "del", *rule)
    assert home.tries("work", "tcp", FORBIDDEN4, HTTP) == "refused"
    home.does("firewall", "work", "reset")
    assert home.reaches("work", FORBIDDEN4)
    assert home.reaches("work", FORBIDDEN6)


def test_a_rule_with_a_name_is_resolved_when_the_command_returns(
    home: Machine,
) -> None:
    name = ("dsthost=forbidden.example.com", "proto=tcp", "dstports=443")
    home.does("firewall", "work", "add", "accept", *name)
    assert home.reaches("work", FORBIDDEN4, HTTPS)
    assert home.reaches("work", FORBIDDEN6, HTTPS)


def test_list_shows_the_rules_by_number(home: Machine) -> None:
    shown = home.does("firewall", "work", "list")
    assert "www.example.com" in shown
    data = json.loads(home.does("--json", "firewall", "work", "list"))
    assert [rule["number"] for rule in data["rules"]] == [0, 1, 2]
    raw = home.does("firewall", "work", "list", "--raw").splitlines()
    assert raw[0] == "action=accept specialtarget=dns"


def test_a_rule_that_forbids_a_live_flow_cuts_it_and_no_other(home: Machine) -> None:
    cut, kept = home.stream("untrusted"), home.stream("untrusted", WEB6)
    assert not home.is_cut(cut, "sys-firewall2")  # the positive control
    home.does("firewall", "untrusted", "add", "--before", "0", "drop", f"dst4={WEB4}")
    assert home.is_cut(cut, "sys-firewall2")
    assert kept.lives()


def test_plan_tells_and_apply_does(home: Machine) -> None:
    assert home.ravelin("plan").status == 0
    text = HOME.replace(
        '  "accept specialtarget=dns",\n  "accept dsthost=intranet',
        '  "accept specialtarget=dns",\n'
        f'  "accept dst4={FORBIDDEN4} proto=tcp dstports=443",\n'
        '  "accept dsthost=intranet',
    )
    home.policy.write_text(f'{text}\n[domains.guest]\nlabel = "gray"\n')
    plan = home.ravelin("plan")
    assert plan.status == 1
    assert "guest" in plan.out
    assert FORBIDDEN4 in plan.out
    assert "guest" not in home.status()
    assert not home.reaches("work", FORBIDDEN4, HTTPS)
    home.does("apply")
    assert home.reaches("work", FORBIDDEN4, HTTPS)
    assert "guest" in home.status()
    assert home.ravelin("plan").status == 0


QUESTIONS = [
    ("tcp", WEB4, HTTPS),
    ("tcp", WEB6, HTTPS),
    ("tcp", WEB4, HTTP),
    ("tcp", INTRANET, HTTPS),
    ("tcp", FORBIDDEN6, HTTPS),
    ("udp", WEB4, UDP),
    ("udp", WEB6, UDP),
    ("icmp", WEB4, 0),
    ("icmp", WEB6, 0),
    ("udp", VIRTUAL4, 53),
    ("udp", VIRTUAL6, 53),
    ("udp", RESOLVER4, 53),
]


@pytest.mark.parametrize("domain", ["work", "personal", "untrusted", "vault"])
def test_explain_says_what_happens(home: Machine, domain: str) -> None:
    for proto, address, port in QUESTIONS:
        host = f"[{address}]" if ":" in address else address
        asked = address if proto == "icmp" else f"{host}:{port}"
        said = home.ravelin("explain", domain, proto, asked)
        probe = "dns" if port == 53 else proto
        happened = home.tries(domain, probe, address, port)
        assert (said.status == 0) == (happened == "reached"), (proto, asked, said)
        assert said.status in (0, 1)


def test_a_netvm_answers_a_ping_where_its_clients_know_it_and_nowhere_else(
    home: Machine,
) -> None:
    """How it is called outside is for its clients' rules, as every other address."""
    text = home.policy.read_text()
    home.policy.write_text(
        f"{text}\n[domains.near]\nnetvm = 'sys-net'\nfirewall = []\n"
    )
    home.does("apply")
    words = home.tool("sys-net", "ip", "-o", "addr", "show", "dev", "eth0").split()
    outside = [
        word.partition("/")[0] for word in words if word.endswith(("/24", "/64"))
    ]
    outside = [address for address in outside if not address.startswith("fe80:")]
    assert len(outside) == 2
    for address in outside:
        assert home.tries("near", "icmp", address) == "refused"
    for address in ("10.137.0.1", "fd09:24ef:4179::a89:1"):
        assert home.reaches("near", address, proto="icmp")
    home.does("verify")


def test_explain_names_the_rule_at_each_hop(home: Machine) -> None:
    said = home.does("explain", "work", "tcp", "www.example.com:443")
    assert "accept dsthost=www.example.com" in said
    for hop in ("sys-firewall", "sys-net"):
        assert hop in said
    for address in (WEB4, WEB6):
        assert address in said


NAME = "forbidden.example.com"  # no rule has it


def questions(machine: Machine) -> int:
    """Return how often the internet was asked for the name."""
    lines = machine.internet.questions.read_text().splitlines()
    return sum(f"query[A] {NAME} " in line for line in lines)


def test_explain_sends_nothing_unless_a_domain_is_to_ask_for_the_name(
    home: Machine,
) -> None:
    asked = ("personal", "tcp", f"{NAME}:443")
    before = questions(home)

    said = home.ravelin("explain", *asked)

    assert (said.status, questions(home)) == (1, before)
    assert f"{NAME}: no known address" in said.out
    assert "--resolve has personal ask for it" in said.out
    assert home.ravelin("explain", "--resolve", *asked).status == 0
    assert questions(home) > before


def test_explain_has_a_domain_itself_ask_for_a_name_that_no_rule_has(
    home: Machine,
) -> None:
    for domain, status in (("personal", 0), ("untrusted", 0), ("work", 1)):
        said = home.ravelin("explain", "--resolve", domain, "tcp", f"{NAME}:443")
        assert said.status == status, said
        assert f"{domain} itself was asked for {NAME}" in said.out
        for address in (FORBIDDEN4, FORBIDDEN6):
            assert f"{address}: {'deny' if status else 'accept'}" in said.out
            assert home.reaches(domain, address, HTTPS) == (status == 0)


def test_explain_says_what_is_so_of_any_address_a_name_may_have(home: Machine) -> None:
    home.internet.set_names({NAME: ()})
    denied = home.ravelin("explain", "work", "tcp", f"{NAME}:80")
    nowhere = home.ravelin("explain", "--resolve", "untrusted", "tcp", f"{NAME}:80")

    assert (denied.status, nowhere.status) == (1, 1)
    assert "no rule of work, whatever its address" in denied.out
    assert f"{NAME}: untrusted was told no address" in nowhere.out


def test_a_domain_that_may_ask_for_no_name_is_told_none(home: Machine) -> None:
    home.does("firewall", "personal", "add", "--before", "0", "drop", "proto=udp")
    said = home.ravelin("explain", "--resolve", "personal", "tcp", f"{NAME}:443")

    assert said.status == 1
    assert f"{NAME}: personal was told no address" in said.out


def test_log_tells_what_was_decided(home: Machine) -> None:
    home.does("firewall", "work", "add", "accept", "dst4=203.0.113.7")
    assert "203.0.113.7" in home.does("log")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('uplink = "lab"', 'uplinc = "lab"'),
        ('netvm = "sys-firewall"', 'netvm = "sys-moon"'),
        ("proto=tcp dstports=443", "proto=tcp dstports=99999"),
        ("[domains.vault]", "[domains.vault"),
    ],
    ids=["key", "netvm", "ports", "toml"],
)
def test_a_bad_policy_is_named_by_line_and_changes_nothing(
    home: Machine, before: str, after: str
) -> None:
    stream = home.stream("untrusted")
    status = home.status()
    line = HOME[: HOME.index(before)].count("\n") + 1
    home.policy.write_text(HOME.replace(before, after, 1))
    for words in (("up", str(home.policy)), ("apply",), ("plan",)):
        done = home.ravelin(*words)
        assert done.status == 2
        assert f"policy.toml:{line}" in done.err
    assert home.status() == status
    assert stream.lives()
    assert home.reaches("work", WEB4, HTTPS)


def test_up_again_changes_nothing(home: Machine) -> None:
    stream = home.stream("untrusted")
    agents = [home.agent(x) for x in ("sys-net", "sys-firewall", "sys-firewall2")]
    assert home.does("up", str(home.policy)) == home.does("apply")
    after = [home.agent(x) for x in ("sys-net", "sys-firewall", "sys-firewall2")]
    assert (stream.lives(), after) == (True, agents)


def test_the_host_itself_is_never_opened(home: Machine) -> None:
    host = home.host()
    assert host["nft list ruleset"] == []
    assert not any("vif" in line for line in host["ip -d link"])
    sysctls = [
        line for lines in host.values() for line in lines if "ip_forward" in line
    ]
    assert "net.ipv4.ip_forward = 0" in sysctls
