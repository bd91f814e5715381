# SPDX-License-Identifier: GPL-2.0-or-later
"""The policy file: what it says, and what is said about each mistake in it."""

from pathlib import Path

import pytest

from controller.domains import (
    ACCEPT_ALL,
    Domains,
    DomainsError,
    HostUplink,
    Label,
    LabUplink,
    Nic,
    Personality,
    UnknownDomainError,
    Uplink,
)
from controller.keys import contents
from controller.locate import line_of
from controller.personality import BUILT_IN, keys
from controller.policy import KEYS, PolicyError, read
from rules.emit import api_line
from rules.model import Policy

ROOT = Path(__file__).parents[2]
BAD = sorted((Path(__file__).parent / "bad_policies").glob("*.toml"))
NETVM = '[domains.sys-net]\npersonality = "netvm"\nuplink = "lab"\n'


def domains(text: str) -> Domains:
    return read(text, file="home.toml", qids={}, now=1000)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_mistake_is_named_with_its_line_and_what_was_expected(path: Path) -> None:
    text = path.read_text()
    named = [
        line[2:] for line in text.splitlines() if line.startswith(f"# {path.name}")
    ]

    with pytest.raises(PolicyError) as caught:
        read(text, file=path.name, qids={}, now=1000)

    assert str(caught.value).splitlines() == named


def test_the_example_can_be_read() -> None:
    text = (ROOT / "examples" / "home.toml").read_text()

    home = read(text, file="home.toml", qids={}, now=1000)

    assert [d.name for d in home.path("work")] == ["sys-firewall", "sys-net"]
    assert [d.name for d in home.clients("sys-net")] == [
        "sys-firewall",
        "sys-firewall2",
    ]
    assert home.named("sys-net").personality is Personality.NETVM
    assert home.named("work").label is Label.BLUE
    assert home.named("untrusted").policy == ACCEPT_ALL
    assert home.path("vault") == ()


def test_a_proxy_of_tor_is_text_that_its_agent_is_told() -> None:
    text = '[domains.sys-net]\npersonality = "netvm"\nuplink = "lab"\n'
    text += '[domains.sys-tor]\npersonality = "tor"\nnetvm = "sys-net"\n'
    proxy = "socks5://192.0.2.9:1080"
    given = domains(f'{text}proxy = "{proxy}"\n')

    assert given.named("sys-tor").texts == (("proxy", proxy),)
    told = contents(given, {}, now=1000)["sys-tor"]
    assert told["/ravelin/personality/proxy"] == proxy.encode()
    assert given.named("sys-tor").given != domains(text).named("sys-tor").given


@pytest.mark.parametrize(
    ("uplink", "means"),
    [("host", HostUplink()), ("lab", LabUplink()), ("enp3s0.7", Nic("enp3s0.7"))],
)
def test_an_uplink_is_the_host_the_lab_or_an_interface(
    uplink: str, means: Uplink
) -> None:
    text = f'[domains.sys-net]\npersonality = "netvm"\nuplink = "{uplink}"\n'

    assert domains(text).named("sys-net").uplink == means


def test_no_rules_accept_everything_and_an_empty_list_denies_everything() -> None:
    found = domains("[domains.a]\n[domains.b]\nfirewall = []\n")

    assert found.named("a").policy == ACCEPT_ALL
    assert found.named("b").policy == Policy(())


def test_rules_are_those_of_qvm_firewall() -> None:
    found = domains(
        "[domains.a]\nfirewall = "
        '["accept www.example.com tcp 443", "drop proto=icmp comment=no ping at all"]'
    )

    assert [api_line(rule) for rule in found.named("a").policy.rules] == [
        "action=accept dsthost=www.example.com proto=tcp dstports=443-443",
        "action=drop proto=icmp comment=no ping at all",
    ]


def test_ipv6_needs_every_domain_on_the_path() -> None:
    found = domains(
        NETVM
        + '[domains.fw]\npersonality = "firewall"\nnetvm = "sys-net"\nipv6 = false\n'
        '[domains.a]\nnetvm = "fw"\n[domains.b]\nnetvm = "sys-net"\n'
    )

    assert {d.name: found.has_ipv6(d.name) for d in found} == {
        "sys-net": True,
        "fw": False,
        "a": False,
        "b": True,
    }


def test_numbers_survive_an_edit_of_the_file() -> None:
    first = domains("[domains.a]\n[domains.b]\n")
    known = {domain.name: domain.qid for domain in first}

    second = read("[domains.c]\n[domains.b]\n", file="x", qids=known, now=0)

    assert {d.name: d.qid for d in second} == {"c": 3, "b": 2}


def test_a_disposable_is_a_copy_with_an_address_of_its_own() -> None:
    found = domains(NETVM + '[domains.a]\nnetvm = "sys-net"\nfirewall = ["drop"]\n')

    more, copy = found.with_disposable("a", 7)

    assert copy.name == "disp7"
    assert copy.policy == found.named("a").policy
    assert str(copy.ip4) == "10.138.0.7"
    assert more.clients("sys-net") == (found.named("a"), copy)
    with pytest.raises(DomainsError, match="taken"):
        more.with_disposable("a", 7)
    with pytest.raises(DomainsError, match="expected an AppVM"):
        found.with_disposable("sys-net", 7)


def test_there_are_only_so_many_numbers() -> None:
    qids = {f"d{number}": number for number in range(1, 10000)}

    with pytest.raises(PolicyError, match="x:1: all 9999 numbers are taken"):
        read("[domains.more]\n", file="x", qids=qids, now=0)


def test_an_unknown_domain_is_named_with_the_nearest_one() -> None:
    with pytest.raises(UnknownDomainError, match=r"wrok: .*did you mean work\?"):
        domains("[domains.work]\n").named("wrok")


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("domains", "b"), 5),
        (("domains", "b", "firewall", 0), 8),
        (("domains", "b", "firewall", 1), 10),
        (("domains", "b", "firewall", 2), 12),
        (("domains", "b", "netvm"), 14),
        (("domains", "c"), 15),
    ],
)
def test_a_value_is_found_whatever_stands_around_it(
    path: tuple[str | int, ...], line: int
) -> None:
    text = """\
a = '''
[domains.b]
netvm = "not here"
'''
[domains.b]
# firewall = ["not here"]
firewall = [
  "one",  # ]
  # "none",
  "two]",

  "three",
]
netvm = "x"
[domains]
c = { netvm = "y" }
"""
    text = text.replace("[domains]\nc =", "[domains.c]\nd =")

    assert line_of(text, path) == line


def test_the_line_in_a_large_file_is_found_with_few_readings() -> None:
    rules = "".join(
        f'  "accept dst4=10.0.{n // 256}.{n % 256}",\n' for n in range(1500)
    )
    text = f"[domains.a]\nfirewall = [\n{rules}]\n"

    assert line_of(text, ("domains", "a", "firewall", 1234)) == 1237


def test_the_reference_page_names_every_key_and_word() -> None:
    page = (ROOT / "docs" / "reference" / "policy-file.md").read_text()
    words = [f'"{w.value}"' for w in (*Label, *BUILT_IN)]
    wanted = [*KEYS, *keys()]

    assert [word for word in words if word not in page] == []
    assert [key for key in wanted if f"| `{key}` |" not in page] == []


@pytest.mark.parametrize("depth", [9, 450, 480, *range(484, 500), 5000])
@pytest.mark.parametrize("written", ["x = {}{}\n", "[domains.b]\nnetvm = {}{}\n"])
def test_brackets_too_deep_are_a_mistake_like_others(depth: int, written: str) -> None:
    text = "[domains.a]\n" + written.format("[" * depth, "1" + "]" * depth) + "[c]\n"

    with pytest.raises(PolicyError) as caught:
        domains(text)

    place, what = str(caught.value).split(": ", 1)
    assert place == f"home.toml:{text.count(chr(10), 0, text.index('=')) + 1}"
    assert what.startswith("more than 8 tables or arrays within each other")


def test_dotted_keys_too_deep_are_a_mistake_like_others() -> None:
    with pytest.raises(PolicyError, match=r"home\.toml:2: more than 8 tables"):
        domains("[domains.a]\n" + "b." * 5000 + "c = 1\n")


@pytest.mark.parametrize("number", ["9" * 5000, "0x" + "f" * 5000, "1" + "0" * 19])
def test_an_integer_of_any_length_is_a_mistake_like_others(number: str) -> None:
    """Python neither reads nor writes more than 4300 digits."""
    text = f"[domains.a]\nnetvm = [\n{number},\n]\n[domains.b]\n"

    with pytest.raises(PolicyError, match=r"^home\.toml:3: an integer of more than 64"):
        domains(text)


def test_a_list_of_nothing_but_mistakes_names_some_of_them() -> None:
    lines = ",\n".join(['"acept"'] * 1000)

    with pytest.raises(PolicyError) as caught:
        domains(f"[domains.a]\nfirewall = [\n{lines}\n]\n")

    assert len(str(caught.value).splitlines()) == 10
