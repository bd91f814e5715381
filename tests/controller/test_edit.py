# SPDX-License-Identifier: GPL-2.0-or-later
"""A change from the command keeps everything else in the user's file."""

import difflib
import tomllib
from types import SimpleNamespace

import pytest
import tomlkit

from controller import amend, edit
from controller.domains import Domains, UnknownDomainError
from controller.policy import read
from rules.emit import api_line

TEXT = """\
# My home.
[domains.sys-net]   # the way out
personality = "netvm"
uplink = "lab"

[domains.work]      # work!
label = "blue"
netvm = "sys-net"   # directly
firewall = [        # first match
  # the intranet
  "accept dsthost=intranet.example.com proto=tcp dstports=443",   # web
  "accept specialtarget=dns",  # names
]

[domains.personal]
netvm = "sys-net"

[domains.vault]     # no netvm"""


def domains(text: str = TEXT) -> Domains:
    return read(text, file="x", qids={}, now=1000)


def lines_changed(new: str) -> list[str]:
    diff = difflib.ndiff(TEXT.splitlines(), new.splitlines())
    return [line for line in diff if line[0] in "+-"]


def add(name: str, *words: str, before: int | None = None) -> str:
    domain = domains().named(name)
    return amend.with_rule(TEXT, domain, words, before=before, now=1000)


@pytest.mark.parametrize(
    ("before", "index"), [(None, 2), (0, 0), (1, 1), (2, 2)], ids=str
)
def test_a_rule_is_added_where_it_was_asked_for(before: int | None, index: int) -> None:
    new = add("work", "drop", "proto=icmp", before=before)

    assert lines_changed(new) == ['+   "drop proto=icmp",']
    rules = domains(new).named("work").policy.rules
    assert api_line(rules[index]) == "action=drop proto=icmp"


def test_a_first_rule_comes_after_the_accept_of_the_default() -> None:
    new = add("personal", "drop")

    rules = domains(new).named("personal").policy.rules
    assert [api_line(rule) for rule in rules] == ["action=accept", "action=drop"]


def test_a_relative_expiry_is_written_as_a_time() -> None:
    assert lines_changed(add("work", "accept", "expire=+60")) == [
        '+   "accept expire=1060",'
    ]


def test_a_rule_is_deleted_by_number_or_by_its_words() -> None:
    work = domains().named("work")

    by_number = amend.without_rule(TEXT, work, [], number=1, now=0)
    words = ["accept", "specialtarget=dns"]
    by_words = amend.without_rule(TEXT, work, words, number=None, now=0)

    assert by_number == by_words
    assert lines_changed(by_number) == ['-   "accept specialtarget=dns",  # names']


def test_a_reset_takes_the_list_out() -> None:
    new = amend.without_rules(TEXT, domains().named("work"))

    assert "firewall" not in new
    assert "# work!" in new
    assert amend.without_rules(new, domains(new).named("work")) == new


def test_deleting_the_default_rule_denies_everything() -> None:
    new = amend.without_rule(TEXT, domains().named("personal"), [], number=0, now=0)

    assert domains(new).named("personal").policy.rules == ()


@pytest.mark.parametrize("none", ["", "none"])
def test_a_netvm_is_taken_away(none: str) -> None:
    new = amend.relinked(TEXT, domains(), "work", none)

    assert lines_changed(new) == ['- netvm = "sys-net"   # directly']


def test_a_netvm_is_given() -> None:
    new = amend.relinked(TEXT, domains(), "vault", "sys-net")

    assert lines_changed(new) == ['+ netvm = "sys-net"']
    assert domains(new).named("vault").netvm == "sys-net"


def test_what_cannot_be_done_is_said() -> None:
    work = domains().named("work")
    with pytest.raises(amend.AmendError, match="no rule 2, expected 0 to 1"):
        amend.without_rule(TEXT, work, [], number=2, now=0)
    with pytest.raises(amend.AmendError, match="no such rule: drop"):
        amend.without_rule(TEXT, work, ["drop"], number=None, now=0)
    with pytest.raises(amend.AmendError, match="before rule 3, expected 0 to 2"):
        add("work", "drop", before=3)
    with pytest.raises(amend.AmendError, match="accept proto=tpc: proto 'tpc': exp"):
        add("work", "accept", "proto=tpc")
    with pytest.raises(UnknownDomainError, match="did you mean sys-net"):
        amend.relinked(TEXT, domains(), "work", "sys-nett")
    _, disposable = domains().with_disposable("work", 3)
    with pytest.raises(amend.AmendError, match="disposable"):
        amend.without_rules(TEXT, disposable)


def test_the_tables_of_others_are_not_taken_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would take seconds where there are many, and nobody is served meanwhile."""
    read: list[str] = []

    def parse(text: str) -> tomlkit.TOMLDocument:
        read.append(text)
        return tomlkit.loads(text)

    monkeypatch.setattr(
        edit, "tomlkit", SimpleNamespace(**{**vars(tomlkit), "parse": parse})
    )
    assert lines_changed(add("work", "drop")) == ['+   "drop",']

    (text,) = read
    assert text.startswith("[domains.work]")
    assert text.endswith("]\n\n")


@pytest.mark.parametrize(
    "text",
    [
        'domains.work = { netvm = "a", firewall = ["accept"] }\n',
        'domains.work.firewall = ["accept"]\ndomains.work.netvm = "a"\n',
        '[domains]\n[domains."work"]\nfirewall = ["accept", ]',
        "[domains.work]\r\nfirewall = [ 'accept' ] # all\r\nnetvm = 'b'\r\n",
        '[domains.work]\nnetvm = """\n[b]"""\nfirewall = [\'accept\']\n[domains.a]\n',
    ],
)
def test_every_way_to_write_a_table_can_be_edited(text: str) -> None:
    new = edit.insert_rule(text, "work", 1, "drop")
    new = edit.set_netvm(new, "work", "c")

    work = tomllib.loads(new)["domains"]["work"]
    assert work == {"firewall": ["accept", "drop"], "netvm": "c"}
