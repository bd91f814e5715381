# SPDX-License-Identifier: GPL-2.0-or-later
"""An assertion is read as it is written; mistakes are in `bad_policies`."""

import pytest

from controller.policy import asserted, read

DOMAINS = """\
[domains.net]
personality = "netvm"
uplink = "lab"
[domains.work]
netvm = "net"
[domains.vault]
"""


@pytest.mark.parametrize(
    ("keys", "means"),
    [
        ('from = "work"\nexpect = "blocked"', "work to anywhere: blocked"),
        (
            'from = ["work", "vault"]\nto = "work"\nexpect = "blocked"',
            "work, vault to work: blocked",
        ),
        (
            (
                'from = "work"\nto = ["10.0.0.0/8", "fd00::1"]\nproto = "tcp"\n'
                'ports = 22\nexpect = "reach"'
            ),
            "work to 10.0.0.0/8, fd00::1 tcp 22: reach",
        ),
        (
            (
                'from = "work"\nto = "www.example.com"\nproto = "udp"\n'
                'ports = "1-1023"\nexpect = "only-through net"'
            ),
            "work to www.example.com udp 1-1023: only-through net",
        ),
    ],
)
def test_an_assertion_says_what_it_means(keys: str, means: str) -> None:
    text = f"{DOMAINS}[[assert]]\n{keys}\n"
    read(text, file="home.toml", qids={}, now=0)

    (found,) = asserted(text)

    assert str(found) == means
    assert found.line == 7


def test_assertions_keep_their_order_and_their_lines() -> None:
    one = '[[assert]]\nfrom = "work"\nexpect = "reach"\n'
    text = f"{one}{DOMAINS}{one}"

    assert [each.line for each in asserted(text)] == [1, 10]


def test_assertions_written_in_another_way_have_their_lines_too() -> None:
    one = '{from = "work", expect = "reach"}'
    inline = f"assert = [{one},\n {one}]\n{DOMAINS}"
    table = '[[assert]]\nfrom = "work"\nexpect = "reach"\n'
    quoted = f'{DOMAINS}label = """\n{table}"""\n{table}'

    assert [each.line for each in asserted(inline)] == [1, 2]
    assert [each.line for each in asserted(quoted)] == [12]


def test_a_file_without_assertions_has_none() -> None:
    assert asserted(DOMAINS) == ()
