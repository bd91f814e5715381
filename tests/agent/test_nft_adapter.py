# SPDX-License-Identifier: GPL-2.0-or-later
"""nftables scripts are one transaction each, and errors are short and say where."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.nft import Nft
from agent.ports import FirewallError
from controller import namespaces
from rules.guard import GUARD_TEXT
from rules.objects import Chain, Key, Map, Set

Shell = Callable[[str], str]

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("net")]

HERE = """
add table ip here
add chain ip here base { type filter hook forward priority 0; }
add chain ip here regular
add set ip here names { type ipv4_addr; }
add element ip here names { 192.0.2.1 }
add map ip here verdicts { type ipv4_addr : verdict; }
add rule ip here regular ip saddr { 192.0.2.1, 192.0.2.2 } accept
add table ip elsewhere
add chain ip elsewhere other
add table ip6 here
add chain ip6 here six
"""


def test_a_script_with_an_error_changes_nothing_at_all(sh: Shell) -> None:
    nft = Nft()
    good = "add table ip one\nadd table ip two\n"

    with pytest.raises(FirewallError):
        nft.load(good + "add rule ip two nochain accept\n")
    assert sh("nft list tables") == ""

    nft.load(good)
    assert sh("nft list tables") == "table ip one\ntable ip two\n"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            "add rule ip t nochain accept",
            "line 2: Could not process rule: No such file",
        ),
        ("add rule ip t c foo accept", "line 2: syntax error"),
        (
            "add element ip t s { " + "192.0.2.1, " * 5000 + "2001:db8::1 }",
            "line 2: ",
        ),
        ("\n".join(["add rule ip t nochain accept"] * 20000), "line 2: Could not"),
    ],
    ids=["missing chain", "syntax", "long line", "20,000 errors"],
)
def test_an_error_says_where_and_why_in_few_words(wrong: str, said: str) -> None:
    nft = Nft()
    nft.load("add table ip t\nadd chain ip t c\nadd set ip t s { type ipv4_addr; }\n")

    with pytest.raises(FirewallError) as error:
        nft.load(f"add table ip t\n{wrong}\n")

    assert str(error.value).startswith(said)
    assert len(str(error.value)) <= 300


def test_an_error_applies_nothing_when_it_is_explained(sh: Shell) -> None:
    with pytest.raises(FirewallError):
        Nft().load("add table ip t\nadd rule ip t nochain accept\n")

    assert sh("nft list ruleset") == ""


def test_names_are_those_of_one_table_without_base_chains_and_contents() -> None:
    nft = Nft()
    nft.load(HERE)

    assert nft.names("ip here") == {
        Key("ip here", "regular"): Chain(()),
        Key("ip here", "names"): Set("", frozenset()),
        Key("ip here", "verdicts"): Map("", {}),
    }
    assert nft.names("ip6 here") == {Key("ip6 here", "six"): Chain(())}
    assert nft.names("ip nowhere") == {}


def test_a_context_stays_in_the_namespace_it_was_made_in(
    other_net: Path, sh: Shell
) -> None:
    nft = Nft()

    with namespaces.inside(other_net):
        nft.load("add table ip mine\n")
        assert sh("nft list tables") == ""

    assert sh("nft list tables") == "table ip mine\n"


def test_memory_is_given_back_after_a_large_load() -> None:
    nft = Nft()
    rules = (f"add rule ip t c ip daddr {i} accept" for i in range(10_000))
    nft.load("\n".join(["add table ip t", "add chain ip t c", *rules]))
    before = resident()

    nft.release()

    assert resident() < before


def test_the_guard_can_be_loaded_without_root(unprivileged: Shell) -> None:
    unprivileged(f"from agent.nft import Nft; Nft().load({GUARD_TEXT!r})")

    assert Nft().names("inet ravelin-guard")


def test_the_guard_needs_no_slow_import() -> None:
    root = Path(__file__).parents[2]
    program = f"""
import sys
sys.path.insert(0, {str(root)!r})
import agent.nft, rules.guard
print(*{{name.partition(".")[0] for name in sys.modules}})
"""
    argv = [sys.executable, "-I", "-c", program]
    loaded = subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    assert "nftables" in loaded.split()
    assert not {"pyroute2", "dbus", "dns", "asyncio"} & set(loaded.split())


def resident() -> int:
    """Return the memory of this process in pages."""
    return int(Path("/proc/self/statm").read_text().split()[1])
