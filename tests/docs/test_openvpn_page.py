# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of what an OpenVPN profile may hold says what the code does."""

import re

from tests.docs.pages import ROOT
from vpn.openvpn_options import BLOCKS, OURS, REFUSED, SERVERS, USED

PAGE = ROOT / "docs/reference/openvpn-profile.md"
ROW = re.compile(r"^\| `([a-z0-9-]+)` \| (.+) \|$", re.MULTILINE)


def section(title: str) -> str:
    """The text below a heading."""
    found = PAGE.read_text().split(f"\n## {title}\n", 1)[1]
    return found.split("\n## ", 1)[0]


def rows(title: str) -> dict[str, str]:
    return dict(ROW.findall(section(title)))


def test_the_page_has_every_option_that_is_used_and_its_argument() -> None:
    assert rows("Options that are used") == {x: form.words for x, form in USED.items()}
    assert rows("Servers") == SERVERS


def test_the_page_has_every_block_and_its_labels() -> None:
    assert rows("Certificates and keys") == {
        name: ", ".join(labels) for name, labels in BLOCKS.items()
    }


def test_the_page_has_every_option_that_is_read_over() -> None:
    text = section("Options that are read over")
    assert set(re.findall(r"`([a-z0-9-]+)`", text)) == OURS


def test_the_page_has_every_option_that_is_refused_and_why() -> None:
    lines = re.findall(
        r"^\| (.+) \| (`.+) \|$", section("Options that are refused"), re.MULTILINE
    )
    found = {
        name: why
        for why, names in lines
        for name in re.findall(r"`([a-z0-9-]+)`", names)
    }
    assert found == REFUSED
